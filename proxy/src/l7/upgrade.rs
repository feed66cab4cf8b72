//! Upgrades and CONNECT: whether one is allowed, its form on each side, and the tunnel it becomes.
//!
//! HTTP/1.1 `Upgrade` and RFC 8441 extended CONNECT are two spellings of one thing and are translated into each other.
//! Up to here and in everything that is decided and logged it is the former; only a try over HTTP/2 makes it the latter.
//! A tunnel keeps its record, its place on the upstream connection and its downstream connection alive until its end.

use std::{future::poll_fn, rc::Rc};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, Uri, header};
use http_body::Body as _;
use hyper::{
    ext,
    upgrade::{OnUpgrade, Upgraded},
};
use tokio::sync::oneshot;

use super::{
    again,
    body::Body,
    client::{HttpProtocol, Protocol, StreamGuard},
    flow::Flow,
    http2,
    incoming::Incoming,
    outcome,
    pipeline::Inbound,
    respond::Reply,
    sanitize::Tunnel,
    server::Connection,
};
use crate::{
    ir::{http::ConnectionManager, route::Forward},
    telemetry::flags::Flags,
};

mod tunnel;

const WEBSOCKET: &str = "websocket";
const WEBSOCKET_KEY: HeaderName = header::SEC_WEBSOCKET_KEY;

/// A codec's promise to hand its connection or stream over once the response is written.
pub(super) enum Promise {
    Http1(OnUpgrade),
    Http2(oneshot::Receiver<Box<http2::Tunnel>>),
}

/// One side of a tunnel to be.
enum Half {
    Http1(Upgraded),
    Http2(Box<http2::Tunnel>),
}

impl Promise {
    async fn kept(self) -> Result<Half, Broken> {
        match self {
            Self::Http1(promise) => promise.await.map(Half::Http1).map_err(|error| Broken(error.to_string())),
            Self::Http2(promise) => promise.await.map(Half::Http2).map_err(|_| Broken("the stream is gone".into())),
        }
    }
}

/// Why a promise was not kept.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Broken(String);

/// What the client asked its side to become.
pub(super) struct Downstream {
    pub tunnel: Tunnel,
    pub promise: Option<Promise>,
    pub grpc: bool,
}

/// An HTTP/1 upgrade as HTTP/2 spells it.
pub(super) struct Extended {
    pub protocol: ext::Protocol,
    /// What proves to the client that its WebSocket key was read, should the upstream not say it.
    accept: Option<HeaderValue>,
}

/// Refuses what neither the route nor the connection manager allows, and what the upstream's protocol cannot say.
pub(super) fn check(
    hcm: &ConnectionManager,
    route: &Forward,
    request: &Inbound,
    protocol: Protocol,
) -> Result<(), Reply> {
    let tunnel = &request.sane.tunnel;
    allowed(hcm, route, tunnel)?;
    // An extended CONNECT stands for a GET without a body: as anything else it would change on the way.
    let sayable = protocol != Protocol::Http2
        || *tunnel == Tunnel::Connect
        || (request.parts.method == Method::GET && request.body.is_end_stream());
    let fine = tunnel.kind().is_none() || (sayable && request.upgrade.is_some());
    fine.then_some(()).ok_or_else(refused)
}

/// Whether a request may ask for what it asks for.
pub(super) fn allowed(hcm: &ConnectionManager, route: &Forward, tunnel: &Tunnel) -> Result<(), Reply> {
    let Some(kind) = tunnel.kind() else { return Ok(()) };
    let find = |list: &[(Box<str>, bool)]| list.iter().find(|(name, _)| **name == *kind).map(|(_, on)| *on);
    let allowed = find(&route.upgrades).or_else(|| find(&hcm.upgrades)).unwrap_or(false);
    allowed.then_some(()).ok_or_else(refused)
}

fn refused() -> Reply {
    Reply::new(StatusCode::FORBIDDEN, "upgrade_failed")
}

/// What to speak for a request to an upstream of this protocol. A host that chooses would have chosen before it is known
/// whether it can do RFC 8441; upgrades are at home in HTTP/1.
pub(super) fn speak(tunnel: &Tunnel, protocol: Protocol) -> Protocol {
    match tunnel {
        Tunnel::Upgrade(_) | Tunnel::Extended(_) if protocol == Protocol::Auto => Protocol::Http1,
        _ => protocol,
    }
}

/// Gives the request the form its upstream protocol wants; what it returns is for its tries to put on.
pub(super) fn prepare(request: &mut Inbound, protocol: Protocol) -> Option<Box<Extended>> {
    let parts = &mut request.parts;
    match (&request.sane.tunnel, protocol) {
        (Tunnel::None, _) => {}
        (Tunnel::Connect, _) => {
            let authority = parts.headers.get(header::HOST).and_then(|h| h.to_str().ok());
            if let Some(target) = authority.and_then(|a| a.parse::<Uri>().ok()) {
                parts.uri = target;
            }
        }
        (Tunnel::Upgrade(kind) | Tunnel::Extended(kind), Protocol::Http2) => {
            let proof = |key: &HeaderValue| websocket_accept(key.as_bytes());
            let accept = (**kind == *WEBSOCKET).then(|| parts.headers.get(WEBSOCKET_KEY).and_then(proof)).flatten();
            return Some(Box::new(Extended { protocol: ext::Protocol::from(&**kind), accept }));
        }
        (Tunnel::Upgrade(kind) | Tunnel::Extended(kind), Protocol::Http1 | Protocol::Auto) => {
            // RFC 8441 has no key, RFC 6455 insists on one.
            if **kind == *WEBSOCKET && !parts.headers.contains_key(WEBSOCKET_KEY) {
                let key = STANDARD.encode(fastrand::u128(..).to_ne_bytes());
                if let Ok(key) = HeaderValue::from_str(&key) {
                    parts.headers.insert(WEBSOCKET_KEY, key);
                }
            }
        }
    }
    None
}

/// What a server answers to a key (RFC 6455 section 4.2.2).
fn websocket_accept(key: &[u8]) -> Option<HeaderValue> {
    const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, GUID].concat());
    HeaderValue::try_from(STANDARD.encode(hash)).ok()
}

/// Whether the upstream switched; the response then has the form the client's side wants.
pub(super) fn accept(
    response: &mut Response<Incoming>,
    down: &Downstream,
    (upstream, asked): (HttpProtocol, Option<&Extended>),
) -> bool {
    let status = response.status();
    let switched = match (&down.tunnel, upstream) {
        (Tunnel::None, _) => false,
        (_, HttpProtocol::Http2) => matches!(response.body(), Incoming::Tunnel(_)),
        (Tunnel::Connect, HttpProtocol::Http1) => status.is_success(),
        (_, HttpProtocol::Http1) => status == StatusCode::SWITCHING_PROTOCOLS,
    };
    if !switched {
        // Nobody asked for it; or the client would take it for what it asked for.
        let misleads = matches!(down.tunnel, Tunnel::Extended(_)) && status.is_success();
        if status == StatusCode::SWITCHING_PROTOCOLS || misleads {
            *response.status_mut() = StatusCode::BAD_GATEWAY;
        }
        return false;
    }
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::TRANSFER_ENCODING);
    match &down.tunnel {
        Tunnel::Upgrade(kind) => {
            if let Ok(kind) = HeaderValue::from_str(kind) {
                headers.entry(header::UPGRADE).or_insert(kind);
            }
            // Behind an HTTP/1 hop further on somebody may have said it; a server that speaks RFC 8441 does not.
            if let Some(accept) = asked.and_then(|a| a.accept.as_ref()) {
                headers.entry(header::SEC_WEBSOCKET_ACCEPT).or_insert_with(|| accept.clone());
            }
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        }
        Tunnel::Extended(_) => *response.status_mut() = StatusCode::OK,
        Tunnel::Connect | Tunnel::None => {}
    }
    true
}

/// Answers the client and joins both sides once hyper lets go of them.
pub(super) fn join(
    conn: &Rc<Connection>,
    flow: &Rc<Flow>,
    mut response: Response<Incoming>,
    (down, guard): (Downstream, StreamGuard),
) -> Result<Response<Body>, Reply> {
    let Some(promise) = down.promise else { return Err(outcome::internal()) };
    let upstream = match response.body_mut() {
        Incoming::Tunnel(_) => None,
        _ => Some(Promise::Http1(hyper::upgrade::on(&mut response))),
    };
    let (mut parts, body) = response.into_parts();
    parts.extensions.remove::<OnUpgrade>();
    flow.record.upgraded();
    let flow = flow.clone();
    conn.spawn(async move {
        // Tried together: the client's side is only free once our response is written.
        let upstream = async {
            match (upstream, body) {
                (Some(promise), _) => promise.kept().await,
                (None, Incoming::Tunnel(tunnel)) => Ok(Half::Http2(tunnel)),
                (None, _) => Err(Broken("the upstream did not switch".into())),
            }
        };
        match tokio::try_join!(promise.kept(), upstream) {
            Ok((down, up)) => tokio::select! {
                biased;
                () = poll_fn(|cx| again::poll_refused(&flow, cx)) => {}
                () = tunnel::run(down, up, &flow) => {}
            },
            Err(error) => {
                tracing::debug!(%error, "upgrade fell through");
                flow.record.flag(Flags::UPSTREAM_CONNECTION_TERMINATION);
            }
        }
        guard.abort();
    });
    Ok(Response::from_parts(parts, Body::Empty))
}

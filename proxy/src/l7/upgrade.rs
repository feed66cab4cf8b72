//! Upgrades and CONNECT: whether one is allowed, its form on each side, and the tunnel it becomes.
//!
//! HTTP/1.1 `Upgrade` and RFC 8441 extended CONNECT are two spellings of one thing and are translated into each other.
//! A tunnel keeps its record, its place on the upstream connection and its downstream connection alive until its end.

use std::rc::Rc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, Uri, header};
use hyper::{
    ext,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::oneshot,
};

use super::{
    body::Body,
    client::{self, HttpProtocol, Protocol, StreamGuard},
    flow::Flow,
    http2,
    incoming::Incoming,
    outcome,
    pipeline::Inbound,
    respond::Reply,
    sanitize::Tunnel,
    server::Connection,
    wire::Wire,
};
use crate::{
    ir::{http::ConnectionManager, route::Forward},
    l4::relay::{Progress, RelayOptions, RelayReason, relay},
    net::io::Io,
    telemetry::flags::Flags,
    upstream::ConnectionPermit,
};

const WEBSOCKET_KEY: HeaderName = header::SEC_WEBSOCKET_KEY;
/// Bytes held per direction of a tunnel.
const BUFFER: usize = 16 * 1024;

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

/// Refuses what neither the route nor the connection manager allows.
pub(super) fn check(hcm: &ConnectionManager, route: &Forward, request: &Inbound) -> Result<(), Reply> {
    let promised = || request.sane.tunnel.kind().is_none() || request.upgrade.is_some();
    allowed(hcm, route, &request.sane.tunnel).and_then(|()| promised().then_some(()).ok_or_else(refused))
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

/// Gives the request the form its upstream protocol wants.
pub(super) fn prepare(request: &mut Inbound, protocol: Protocol) {
    let parts = &mut request.parts;
    match (&request.sane.tunnel, protocol) {
        (Tunnel::None, _) => {}
        (Tunnel::Connect, _) => {
            let authority = parts.headers.get(header::HOST).and_then(|h| h.to_str().ok());
            if let Some(target) = authority.and_then(|a| a.parse::<Uri>().ok()) {
                parts.uri = target;
            }
        }
        (Tunnel::Upgrade(kind), Protocol::Http2) => {
            parts.method = Method::CONNECT;
            parts.extensions.insert(ext::Protocol::from(&**kind));
        }
        (Tunnel::Extended(_), Protocol::Http2) => {}
        (Tunnel::Upgrade(kind) | Tunnel::Extended(kind), Protocol::Http1 | Protocol::Auto) => {
            parts.method = Method::GET;
            parts.extensions.remove::<ext::Protocol>();
            parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            if let Ok(kind) = HeaderValue::from_str(kind) {
                parts.headers.insert(header::UPGRADE, kind);
            }
            // RFC 8441 has no key, RFC 6455 insists on one.
            if **kind == *"websocket" && !parts.headers.contains_key(WEBSOCKET_KEY) {
                let key = STANDARD.encode(fastrand::u128(..).to_ne_bytes());
                if let Ok(key) = HeaderValue::from_str(&key) {
                    parts.headers.insert(WEBSOCKET_KEY, key);
                }
            }
        }
    }
}

/// Whether the upstream switched; the response then has the form the client's side wants.
pub(super) fn accept(response: &mut Response<Incoming>, down: &Downstream, upstream: HttpProtocol) -> bool {
    let status = response.status();
    let switched = match (&down.tunnel, upstream) {
        (Tunnel::None, _) => false,
        (Tunnel::Connect, _) => status.is_success(),
        (_, HttpProtocol::Http1) => status == StatusCode::SWITCHING_PROTOCOLS,
        (_, HttpProtocol::Http2) => status.is_success(),
    };
    if !switched {
        if status == StatusCode::SWITCHING_PROTOCOLS {
            // Nobody asked for it.
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
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        }
        Tunnel::Extended(_) => {
            headers.remove(header::SEC_WEBSOCKET_ACCEPT);
            *response.status_mut() = StatusCode::OK;
        }
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
            Ok((down, up)) => tunnel(down, up, &flow).await,
            Err(error) => {
                tracing::debug!(%error, "upgrade fell through");
                flow.record.flag(Flags::UPSTREAM_CONNECTION_TERMINATION);
            }
        }
        guard.abort();
    });
    Ok(Response::from_parts(parts, Body::Empty))
}

/// Relays until both sides are done: over the raw connections where both are HTTP/1, else over the codecs' streams.
async fn tunnel(down: Half, up: Half, flow: &Flow) {
    let (down, up) = match (down, up) {
        (Half::Http1(down), Half::Http1(up)) => match (take(down), client::tunnel(up)) {
            (Ok((a, a_read)), Ok(upstream)) => {
                let _permit = upstream.permit;
                return raw((a, a_read), (upstream.io, upstream.read), flow).await;
            }
            (down, up) => (side(down), up.map_or_else(|stream| (plain(stream), None), hold)),
        },
        (Half::Http1(down), Half::Http2(up)) => (side(take(down)), (up as Box<dyn Side>, None)),
        (Half::Http2(down), Half::Http1(up)) => {
            (down as Box<dyn Side>, client::tunnel(up).map_or_else(|stream| (plain(stream), None), hold))
        }
        (Half::Http2(down), Half::Http2(up)) => (down as Box<dyn Side>, (up as Box<dyn Side>, None)),
    };
    let (up, _permit) = up;
    generic(down, up, flow).await;
}

fn side(taken: Result<(Io, bytes::Bytes), Upgraded>) -> Box<dyn Side> {
    taken.map_or_else(plain, |(io, read)| Box::new(Rewound { read, io }))
}

fn hold(tunnel: client::Tunnel) -> (Box<dyn Side>, Option<ConnectionPermit>) {
    (Box::new(Rewound { read: tunnel.read, io: tunnel.io }), Some(tunnel.permit))
}

fn plain(stream: Upgraded) -> Box<dyn Side> {
    Box::new(TokioIo::new(stream))
}

/// Takes an upgraded downstream HTTP/1 connection apart.
fn take(upgraded: Upgraded) -> Result<(Io, bytes::Bytes), Upgraded> {
    let parts = upgraded.downcast::<TokioIo<Wire>>()?;
    Ok((parts.io.into_inner().into_inner(), parts.read_buf))
}

async fn raw((mut a, a_read): (Io, bytes::Bytes), (mut b, b_read): (Io, bytes::Bytes), flow: &Flow) {
    flow.record.received(a_read.len());
    flow.record.sent(b_read.len());
    // What hyper read beyond the heads comes first.
    let first = async {
        b.write_all(&a_read).await?;
        b.flush().await?;
        a.write_all(&b_read).await?;
        a.flush().await
    };
    if let Err(error) = first.await {
        tracing::debug!(%error, "tunnel broke off");
        return;
    }
    let now = std::time::Instant::now();
    let options = RelayOptions {
        idle_timeout: flow.idle(),
        max_duration: flow.deadline().map(|d| d.at.saturating_duration_since(now)),
        buffer: BUFFER,
    };
    let progress = Counted { progress: Progress::default(), flow };
    let end = relay(a, b, &options, &progress.progress).await;
    match end.reason {
        RelayReason::Closed => {}
        RelayReason::IdleTimeout | RelayReason::MaxDuration => flow.expire(std::time::Instant::now(), None),
        RelayReason::Error { error, .. } => tracing::debug!(%error, "tunnel broke off"),
    }
}

/// Books the relayed bytes however the relay ends.
struct Counted<'a> {
    progress: Progress,
    flow: &'a Flow,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let bytes = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        self.flow.record.received(bytes(self.progress.a_to_b.get()));
        self.flow.record.sent(bytes(self.progress.b_to_a.get()));
    }
}

trait Side: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Side for T {}

pin_project_lite::pin_project! {
    /// A stream with bytes in front that were read already.
    struct Rewound {
        read: bytes::Bytes,
        #[pin]
        io: Io,
    }
}

impl AsyncRead for Rewound {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let this = self.project();
        if this.read.is_empty() {
            return this.io.poll_read(cx, buf);
        }
        let count = this.read.len().min(buf.remaining());
        buf.put_slice(&this.read.split_to(count));
        std::task::Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        self.project().io.poll_write(cx, buf)
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        self.project().io.poll_flush(cx)
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        self.project().io.poll_shutdown(cx)
    }
}

async fn generic(a: Box<dyn Side>, b: Box<dyn Side>, flow: &Flow) {
    let (a_read, a_write) = tokio::io::split(a);
    let (b_read, b_write) = tokio::io::split(b);
    let both = async {
        tokio::try_join!(
            pump(a_read, b_write, flow, |n| flow.record.received(n)),
            pump(b_read, a_write, flow, |n| flow.record.sent(n)),
        )
    };
    tokio::select! {
        result = both => {
            if let Err(error) = result {
                tracing::debug!(%error, "tunnel broke off");
            }
        }
        () = idle(flow) => flow.expire(std::time::Instant::now(), None),
        () = expired(flow) => flow.expire(std::time::Instant::now(), None),
    }
}

/// Copies one direction; its end becomes the other side's half-close.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    flow: &Flow,
    count: impl Fn(usize),
) -> std::io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let bytes = from.read(&mut buffer).await?;
        if bytes == 0 {
            return to.shutdown().await;
        }
        flow.touch();
        count(bytes);
        to.write_all(&buffer[..bytes]).await?;
        to.flush().await?;
    }
}

async fn idle(flow: &Flow) {
    while let Some(at) = flow.idle_at().into_iter().chain(flow.try_idle_at()).min() {
        if std::time::Instant::now() >= at {
            return;
        }
        tokio::time::sleep_until(at.into()).await;
    }
    std::future::pending().await
}

async fn expired(flow: &Flow) {
    match flow.deadline() {
        Some(deadline) => tokio::time::sleep_until(deadline.at.into()).await,
        None => std::future::pending().await,
    }
}

//! Mirroring: copies of requests to other clusters, whose answers nobody waits for.
//!
//! The copy's body follows the original's, frame by frame, through a bounded queue. Invariant: a mirror never slows the
//! request down and never makes it fail; one that cannot follow is cut and counted.

mod body;

use std::{
    net::IpAddr,
    pin::Pin,
    rc::Rc,
    sync::{Arc, OnceLock},
    time::Duration,
};

use http::{HeaderName, HeaderValue, Request, header, request::Parts};
use http_body::Body as _;
use smallvec::SmallVec;

use self::body::Queue;
pub use self::body::{Copy, Recording, Teed};
use super::{
    body::Body,
    client::Attempt,
    engine::Engine,
    flow::Flow,
    forward, forwarded,
    headers::{self, Pseudo, RequestView},
    incoming::Incoming,
    outcome,
    pipeline::{Inbound, path},
    sanitize::Tunnel,
    server::Connection,
};
use crate::{
    ir::route::{Forward, Mirror, MirrorTarget},
    live::Live,
    policy::router::strip_port,
    telemetry::format::Facts,
    upstream::{Cluster, PickContext},
};

#[cfg(test)]
#[path = "mirror_tests.rs"]
mod tests;

pub(super) const INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");
pub(super) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Sends the copies that the route wants of a request in its final form.
pub(super) fn start(
    conn: &Rc<Connection>,
    flow: &Flow,
    live: &Live,
    (route, timeout): (&Forward, Option<Duration>),
    request: &mut Inbound,
) {
    // What follows the head of a tunnel is not a request.
    if request.sane.tunnel != Tunnel::None {
        return;
    }
    let stats = conn.hcm.filters.stats.local();
    let mut copies: SmallVec<[Queue; 1]> = SmallVec::new();
    for mirror in route.mirrors.iter() {
        if !mirror.fraction.is_none_or(|fraction| fraction.hit(fastrand::u32(..))) {
            continue;
        }
        let Some(cluster) = cluster(mirror, live, &request.parts) else {
            stats.mirror_dropped.inc();
            continue;
        };
        let parts = head(mirror, flow, request);
        let body = if request.body.is_end_stream() {
            Body::Empty
        } else {
            let queue = Queue::new(cluster.config.buffer_limit as usize);
            copies.push(queue.clone());
            Body::Copy(Copy { queue, hint: request.body.size_hint() })
        };
        stats.mirrored.inc();
        let attempt = Sending {
            engine: conn.engine.clone(),
            cluster: cluster.clone(),
            original_dst: conn.scope.conn.original_dst,
            downstream: conn.scope.conn.remote,
            high_priority: route.high_priority,
        };
        let sending = attempt.run(Request::from_parts(parts, body));
        tokio::task::spawn_local(async move {
            match timeout {
                Some(limit) => drop(tokio::time::timeout(limit, sending).await),
                None => sending.await,
            }
        });
    }
    if !copies.is_empty() {
        let incoming = std::mem::replace(&mut request.body, Incoming::None);
        let dropped = conn.hcm.filters.stats.clone();
        let cut = Box::new(move || dropped.local().mirror_dropped.inc());
        request.body = Incoming::Teed(Box::new(Teed { incoming, copies, cut }));
    }
}

fn cluster<'a>(mirror: &Mirror, live: &'a Live, parts: &Parts) -> Option<&'a Arc<Cluster>> {
    match &mirror.target {
        MirrorTarget::Cluster(name) => live.cluster(name),
        MirrorTarget::Header(name) => live.cluster(parts.headers.get(name)?.to_str().ok()?),
    }
}

/// The head of the copy.
fn head(mirror: &Mirror, flow: &Flow, request: &Inbound) -> Parts {
    let mut parts = request.parts.clone();
    parts.extensions.clear();
    // The original's body does not wait for the mirror.
    parts.headers.remove(header::EXPECT);
    let host = match &mirror.host {
        Some(host) => Some(host.to_string()),
        None => mirror.suffix.then(|| suffixed(request.authority())),
    };
    if let Some(host) = host.and_then(|host| HeaderValue::from_str(&host).ok()) {
        parts.headers.insert(header::HOST, host);
    }
    for mutation in &mirror.mutations {
        let Parts { method, uri: _, headers, .. } = &mut parts;
        let pseudo = Pseudo { method, path: path(&request.parts), scheme: request.sane.origin.scheme };
        flow.record.facts(None, |facts| {
            headers::mutate(mutation, headers, |add, headers| {
                headers::evaluate(add, &Facts { request: Some(&RequestView { pseudo, headers }), ..*facts })
            });
        });
    }
    parts.headers.insert(INTERNAL, HeaderValue::from_static("true"));
    if let Some(address) = local_address() {
        forwarded::append(&mut parts.headers, &FORWARDED_FOR, address);
    }
    parts
}

/// `-shadow` goes between the name and the port.
fn suffixed(authority: &str) -> String {
    let name = strip_port(authority);
    format!("{name}-shadow{}", &authority[name.len()..])
}

/// This machine's first address that others can reach.
pub(super) fn local_address() -> Option<&'static str> {
    static ADDRESS: OnceLock<Option<String>> = OnceLock::new();
    let find = || {
        let addresses = nix::ifaddrs::getifaddrs().ok()?.filter_map(|i| i.address);
        let mut v4 = addresses.filter_map(|a| a.as_sockaddr_in().map(|a| IpAddr::from(a.ip())));
        v4.find(|ip| !ip.is_loopback()).map(|ip| ip.to_string())
    };
    ADDRESS.get_or_init(find).as_deref()
}

/// Where a copy goes.
struct Sending {
    engine: Rc<Engine>,
    cluster: Arc<Cluster>,
    original_dst: Option<std::net::SocketAddr>,
    downstream: std::net::SocketAddr,
    high_priority: bool,
}

impl Sending {
    /// Sends the copy and forgets the answer.
    async fn run(self, request: Request<Body>) {
        let cluster = self.cluster;
        let context = PickContext {
            original_dst: self.original_dst,
            random: fastrand::u64(..),
            attempts: 1,
            ..PickContext::default()
        };
        let Ok(endpoint) = cluster.pick(&context) else {
            return outcome::count(&cluster, http::StatusCode::SERVICE_UNAVAILABLE);
        };
        let host = request.headers().get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
        let attempt = Attempt {
            endpoint,
            protocol: forward::protocol(&cluster, request.version()),
            alpn: None,
            sni: cluster.config.http.auto_sni.then(|| strip_port(host).into()),
            downstream: Some(self.downstream),
            replayable: false,
            high_priority: self.high_priority,
            clock: None,
            cluster: cluster.clone(),
        };
        match self.engine.pool.send(&attempt, request).await {
            Ok(mut sent) => {
                outcome::count(&cluster, sent.response.status());
                let body = sent.response.body_mut();
                let mut whole = true;
                while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
                    whole &= frame.is_ok();
                    if !whole {
                        break;
                    }
                }
                if !whole {
                    sent.guard.abort();
                }
            }
            Err(error) => {
                tracing::debug!(reason = %error.reason, "mirrored request failed");
                outcome::count(&cluster, http::StatusCode::SERVICE_UNAVAILABLE);
            }
        }
    }
}

//! Requests that ask with a signed header what is decided on them, on their way through.
//!
//! The header is taken off every request as it comes in. It goes on, signed for the request as it is sent, only to a peer
//! of the mesh: whoever has it can ask as long as it is good. Invariant: nobody else ever gets it, signed or not.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use http::{HeaderName, HeaderValue, Request, header, request::Parts};

use super::names::Names;
use crate::{
    policy::debug::{DebugKeys, Signed},
    telemetry::record::PeerInfo,
};

pub(super) const ASK: HeaderName = HeaderName::from_static("x-outrigger-debug");

/// What a client sent.
#[derive(Clone, Debug)]
pub(super) struct Asked(pub HeaderValue);

/// Keeps the header for those who can tell whether it is good.
pub(super) fn take(names: Names, parts: &mut Parts) {
    if names.has(Names::DEBUG)
        && let Some(asked) = parts.headers.remove(&ASK)
    {
        parts.extensions.insert(Asked(asked));
    }
}

/// A request that is rightly signed.
#[derive(Clone, Debug)]
pub(super) struct Vouched {
    keys: Arc<DebugKeys>,
    expires: u64,
    /// Whether the upstream was asked as well.
    passed_on: Arc<AtomicBool>,
}

impl Vouched {
    /// If what a client sent is good for its request.
    pub(super) fn new(keys: &Arc<DebugKeys>, asked: &HeaderValue, request: &Signed<'_>, now: u64) -> Option<Self> {
        let expires = keys.accepts(asked.as_bytes(), request, now)?;
        Some(Self { keys: keys.clone(), expires, passed_on: Arc::default() })
    }

    pub(super) fn passed_on(&self) -> Arc<AtomicBool> {
        self.passed_on.clone()
    }
}

/// Asks the peer of a connection as well, if it belongs to the mesh.
pub(super) fn pass_on<B>(request: &mut Request<B>, peer: Option<&PeerInfo>) {
    let Some(vouched) = request.extensions().get::<Vouched>().cloned() else { return };
    // It may be the head of a former try.
    request.headers_mut().remove(&ASK);
    if !peer.is_some_and(of_our_mesh) {
        return vouched.passed_on.store(false, Relaxed);
    }
    let host = match request.uri().authority() {
        Some(authority) => authority.as_str(),
        None => request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default(),
    };
    let signed = Signed { method: request.method().as_str(), host, path: request.uri().path() };
    if let Ok(value) = HeaderValue::try_from(vouched.keys.sign(vouched.expires, &signed)) {
        request.headers_mut().insert(ASK, value);
        vouched.passed_on.store(true, Relaxed);
    }
}

/// Whether the peer proved to have an identity of the trust domain that our own is of.
fn of_our_mesh(peer: &PeerInfo) -> bool {
    let ours = peer.local_uri_sans.iter().find_map(|san| domain(san));
    peer.verified && ours.is_some() && peer.uri_sans.iter().any(|san| domain(san) == ours)
}

fn domain(san: &str) -> Option<&str> {
    san.strip_prefix("spiffe://")?.split('/').next().filter(|domain| !domain.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(verified: bool, theirs: &str, ours: &str) -> PeerInfo {
        let (uri_sans, local_uri_sans) = (vec![theirs.into()], vec![ours.into()]);
        PeerInfo { verified, uri_sans, local_uri_sans, ..PeerInfo::default() }
    }

    #[test]
    fn the_header_goes_to_verified_peers_of_the_mesh_only() {
        let keys = Arc::new(DebugKeys::new(b"0123456789abcdef").unwrap());
        let asked = keys.sign(1000, &Signed { method: "GET", host: "shop", path: "/p" });
        let asked = HeaderValue::try_from(asked).unwrap();
        let (ours, theirs) = ("spiffe://cluster.local/ns/a/sa/b", "spiffe://cluster.local/ns/c/sa/d");
        for (peer, passes) in [
            (None, false),
            (Some(peer(true, theirs, ours)), true),
            (Some(peer(false, theirs, ours)), false),
            (Some(peer(true, "spiffe://elsewhere/ns/c/sa/d", ours)), false),
            (Some(peer(true, "https://cluster.local/", ours)), false),
            (Some(peer(true, theirs, "")), false),
            (Some(peer(true, "spiffe:///x", "spiffe:///x")), false),
            (Some(PeerInfo { verified: true, ..PeerInfo::default() }), false),
        ] {
            let came = Signed { method: "GET", host: "shop:80", path: "/p?q" };
            let vouched = Vouched::new(&keys, &asked, &came, 999).unwrap();
            let told = vouched.passed_on();
            // The path was rewritten: the next proxy is asked about what it gets.
            let mut request = Request::get("/v2/p?q").header("host", "Shop:80").body(()).unwrap();
            request.headers_mut().insert(ASK, HeaderValue::from_static("of a former try"));
            request.extensions_mut().insert(vouched);
            pass_on(&mut request, peer.as_ref());
            assert_eq!(told.load(Relaxed), passes, "{peer:?}");
            let sent = request.headers().get(&ASK);
            let good = |sent: &HeaderValue| {
                let signed = Signed { method: "GET", host: "shop", path: "/v2/p" };
                keys.accepts(sent.as_bytes(), &signed, 999) == Some(1000)
            };
            assert_eq!(sent.map(good), passes.then_some(true), "{peer:?}");
        }
    }
}

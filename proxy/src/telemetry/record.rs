//! What is known of a downstream connection and of one request on it, collected while it runs.
//!
//! A [`RequestRecord`] (or [`ConnectionRecord`] for L4) is a guard: dropping it counts and logs, so no exit path,
//! cancelled futures and panics included, can forget to.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Instant, SystemTime},
};

use super::flags::Flags;
use crate::ir::{Name, listener::Direction};

/// The authenticated (or at least presented) identity of a TLS peer, and the session's parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerInfo {
    /// The peer's certificate, DER; `None` when it presented none.
    pub certificate: Option<Arc<[u8]>>,
    /// The certificates that came with it, leaf first, DER.
    pub chain: Vec<Arc<[u8]>>,
    /// Whether the certificate was verified against a trust anchor.
    pub verified: bool,
    pub uri_sans: Vec<Box<str>>,
    pub dns_sans: Vec<Box<str>>,
    /// RFC 2253 form.
    pub subject: Box<str>,
    /// URI SANs of our own certificate.
    pub local_uri_sans: Vec<Box<str>>,
    pub sni: Option<Box<str>>,
    pub alpn: Option<Box<str>>,
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// IANA name of the cipher suite.
    pub cipher: &'static str,
    pub resumed: bool,
}

/// Facts of a downstream connection, fixed once its filter chain is chosen.
#[derive(Clone, Debug)]
pub struct ConnInfo {
    pub id: u64,
    /// The peer as the kernel sees it.
    pub remote: SocketAddr,
    /// Where the peer wanted to go: the original destination, or the local address without redirection.
    pub local: SocketAddr,
    /// Set only when redirection changed the destination: what an `ORIGINAL_DST` cluster connects to. A connection made
    /// to our own port has none, so it can never be sent to ourselves in a loop.
    pub original_dst: Option<SocketAddr>,
    pub direction: Direction,
    pub listener: Name,
    pub chain: Name,
    /// SNI as the TLS inspector saw it or as the handshake brought it.
    pub server_name: Option<Box<str>>,
    pub tls: Option<Arc<PeerInfo>>,
    pub started: SystemTime,
    pub started_at: Instant,
}

/// Where an attempt went.
#[derive(Clone, Debug, Default)]
pub struct UpstreamFacts {
    pub cluster: Option<Name>,
    pub host: Option<Arc<str>>,
    pub local: Option<SocketAddr>,
    pub attempts: u32,
    pub transport_failure: Option<Box<str>>,
    pub protocol: Option<&'static str>,
}

/// Why it ended: Envoy's flags and `response_code_details`.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub flags: Flags,
    pub details: Option<std::borrow::Cow<'static, str>>,
}

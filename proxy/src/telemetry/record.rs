//! What is known of a downstream connection and of one request on it, collected while it runs.
//!
//! A [`ConnectionRecord`] (or a [`super::exchange::RequestRecord`] for HTTP) is a guard: dropping it logs, so no exit
//! path, cancelled futures and panics included, can forget to.

use std::{
    borrow::Cow,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, OnceLock},
    time::{Instant, SystemTime},
};

use super::{
    access_log::Loggers,
    flags::Flags,
    format::{Facts, Known, Times, millis},
    metadata::DynamicMetadata,
    tap,
};
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
    /// The peer's element of `x-forwarded-client-cert`, made for its first request: a digest per request is too much.
    /// A connection has one connection manager, so what that asks for is part of it.
    pub client_cert_element: OnceLock<Box<str>>,
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
    /// The listener's `per_connection_buffer_limit_bytes`.
    pub buffer_limit: u32,
    /// What network filters noted.
    pub metadata: DynamicMetadata,
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

/// One L4 connection: logs when it is dropped, however that comes.
#[derive(Debug)]
pub struct ConnectionRecord {
    info: Rc<ConnInfo>,
    logs: Arc<Loggers>,
    pub flags: Flags,
    /// Envoy's `response_code_details`, here the reason of the end.
    pub details: Option<Cow<'static, str>>,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    pub upstream: UpstreamFacts,
    /// Why the downstream handshake failed.
    pub transport_failure: Option<Box<str>>,
    /// Envoy's `connection_termination_details`: why this proxy ended the connection.
    pub termination: Option<Box<str>>,
    /// There is another record of the connection: who watches is shown one.
    pub second: bool,
}

impl ConnectionRecord {
    pub fn new(info: Rc<ConnInfo>, logs: Arc<Loggers>) -> Self {
        Self {
            info,
            logs,
            flags: Flags::default(),
            details: None,
            bytes_received: 0,
            bytes_sent: 0,
            upstream: UpstreamFacts::default(),
            transport_failure: None,
            termination: None,
            second: false,
        }
    }

    pub fn info(&self) -> &ConnInfo {
        &self.info
    }
}

impl Drop for ConnectionRecord {
    fn drop(&mut self) {
        let tapped = tap::watched() && !self.second;
        let failed = !self.flags.is_empty() || self.termination.is_some() || self.transport_failure.is_some();
        if self.logs.is_empty() && !tapped && !failed {
            return;
        }
        let metadata = self.info.metadata.get();
        let facts = Facts {
            conn: &self.info,
            protocol: None,
            status: 0,
            flags: self.flags,
            details: self.details.as_deref(),
            start: self.info.started,
            times: Times { total: millis(self.info.started_at.elapsed()), ..Times::default() },
            bytes_received: self.bytes_received,
            bytes_sent: self.bytes_sent,
            upstream: &self.upstream,
            downstream_failure: self.transport_failure.as_deref(),
            termination: self.termination.as_deref(),
            trace: None,
            route: None,
            remote: self.info.remote,
            request: None,
            response: None,
            trailers: None,
            metadata: Known { dynamic: metadata.as_deref(), route: None },
        };
        self.logs.iter().for_each(|logger| logger.log(&facts));
        if failed && !self.second {
            tap::note(&facts, None);
        }
        if tapped {
            tap::show(&facts, None);
        }
    }
}

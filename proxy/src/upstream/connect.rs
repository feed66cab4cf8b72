//! Opening one connection to an endpoint: circuit breaker, socket, TCP or Unix connect, TLS, in that order.
//!
//! Owns the connect timeout (it covers everything up to the end of the handshake), the mapping of errors and the
//! connection statistics of the cluster. Knows nothing of pools and protocols above TLS. Invariant: the permit lives
//! exactly as long as the attempt or the connection, whichever way the attempt ends, cancellation included.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    sync::atomic::Ordering::Relaxed,
    time::Duration,
};

use nix::errno::Errno;
use tokio::{
    net::UnixStream,
    time::{Instant, timeout_at},
};

use super::{
    cluster::Cluster,
    endpoint::{ConnectionPermit, Endpoint},
};
use crate::{
    ir::endpoint::Address,
    net::{
        io::{Io, Plain},
        socket::{ConnectSocketOptions, canonical, connect_socket},
    },
    telemetry::record::PeerInfo,
    tls::{ClientContext, ClientOptions, HandshakeError, HandshakeErrorKind},
};

/// Least time for one of several addresses, as long as the connect timeout allows it.
const MIN_PER_ADDRESS: Duration = Duration::from_millis(250);

/// What one connection asks for beyond its cluster and endpoint.
#[derive(Clone, Debug, Default)]
pub struct ConnectOptions {
    /// Replaces the transport socket's ALPN list.
    pub alpn: Option<Arc<[Box<str>]>>,
    /// Overrides the transport socket's SNI (`auto_sni`); verified against the certificate under `auto_san_validation`.
    pub sni: Option<Box<str>>,
    /// Whose connection this is for, for logs.
    pub downstream: Option<SocketAddr>,
    /// Which circuit breaker counts it.
    pub high_priority: bool,
    /// Open it even at the limit, as Envoy does where a pool has no connection at all: limits are shared, and nobody
    /// else's connection will ever serve this pool's requests.
    pub past_limit: bool,
}

/// An open connection.
#[derive(Debug)]
pub struct Connected {
    pub io: Io,
    /// The negotiated protocol, `None` without TLS or without agreement.
    pub alpn: Option<Box<str>>,
    /// `None` for Unix sockets.
    pub local: Option<SocketAddr>,
    pub remote: Option<SocketAddr>,
    pub tls: Option<Arc<PeerInfo>>,
    pub permit: ConnectionPermit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectErrorKind {
    Timeout,
    Refused,
    Unreachable,
    Tls,
    /// The circuit breaker on connections was open.
    Overflow,
    Io,
}

/// Why there is no connection; `reason` follows Envoy's transport failure reasons.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct ConnectError {
    pub kind: ConnectErrorKind,
    pub reason: String,
}

impl ConnectError {
    fn timeout() -> Self {
        Self { kind: ConnectErrorKind::Timeout, reason: "connection timeout".to_owned() }
    }

    fn socket(error: &io::Error) -> Self {
        use io::ErrorKind as K;
        let kind = match error.kind() {
            K::ConnectionRefused | K::NotFound => ConnectErrorKind::Refused,
            K::HostUnreachable | K::NetworkUnreachable | K::AddrNotAvailable => ConnectErrorKind::Unreachable,
            K::TimedOut => ConnectErrorKind::Timeout,
            _ => ConnectErrorKind::Io,
        };
        let text = error.raw_os_error().map_or_else(|| error.to_string(), |e| Errno::from_raw(e).desc().to_owned());
        // The kernel answers these before a packet leaves.
        let immediate = matches!(error.kind(), K::NetworkUnreachable | K::AddrNotAvailable | K::NotFound);
        let when = if immediate { "immediate" } else { "delayed" };
        Self { kind, reason: format!("{when} connect error: {text}") }
    }

    fn tls(error: HandshakeError) -> Self {
        if error.kind == HandshakeErrorKind::Timeout {
            return Self::timeout();
        }
        let reason =
            if error.reason.starts_with("TLS") { error.reason } else { format!("TLS error: {}", error.reason) };
        Self { kind: ConnectErrorKind::Tls, reason }
    }
}

/// Connects and, where the endpoint asks for it, shakes hands, all within the cluster's connect timeout.
pub async fn connect(
    cluster: &Cluster,
    endpoint: &Arc<Endpoint>,
    options: &ConnectOptions,
) -> Result<Connected, ConnectError> {
    let Some(permit) = ConnectionPermit::new(cluster, endpoint, options) else {
        return Err(ConnectError { kind: ConnectErrorKind::Overflow, reason: "overflow".to_owned() });
    };
    let started = Instant::now();
    match open(cluster, endpoint, options, started + cluster.config.connect_timeout).await {
        Ok((io, tls)) => {
            cluster.stats.local().upstream_cx_connect_ms.time(started.elapsed());
            let socket = io.socket();
            let remote = match &endpoint.address {
                Address::Ip(address) => Some(canonical(*address)),
                Address::Host { .. } | Address::Pipe(_) => socket.peer_addr().ok(),
            };
            let local = socket.local_addr().ok();
            Ok(Connected { alpn: alpn(&io), local, remote, tls, io, permit })
        }
        Err(error) => {
            let stats = cluster.stats.local();
            stats.upstream_cx_connect_fail.inc();
            if error.kind == ConnectErrorKind::Timeout {
                stats.upstream_cx_connect_timeout.inc();
            }
            endpoint.stats().cx_connect_fail.fetch_add(1, Relaxed);
            tracing::debug!(
                cluster = %cluster.config.name,
                endpoint = %endpoint.label,
                downstream = ?options.downstream,
                reason = %error.reason,
                "upstream connection failed"
            );
            Err(error)
        }
    }
}

/// Where an active health check connects to, as far as that is not where requests do.
#[derive(Clone, Debug, Default)]
pub(super) struct Detour {
    pub(super) address: Option<IpAddr>,
    pub(super) port: Option<u16>,
    /// Instead of the endpoint's transport socket; `None` in it is plaintext.
    pub(super) transport: Option<Option<Arc<ClientContext>>>,
}

/// Connects for an active health check: no circuit breaker looks at it, and it is not counted as a connection.
pub(super) async fn connect_for_check(
    cluster: &Cluster,
    endpoint: &Endpoint,
    options: &ConnectOptions,
    detour: &Detour,
    deadline: Instant,
) -> Result<Io, ConnectError> {
    let elsewhere = |mut to: SocketAddr| {
        detour.address.into_iter().for_each(|ip| to.set_ip(ip));
        detour.port.into_iter().for_each(|port| to.set_port(port));
        to
    };
    let plain = match &endpoint.address {
        Address::Ip(address) => tcp(cluster, elsewhere(*address), deadline).await?,
        Address::Pipe(path) => unix(path, deadline).await?,
        Address::Host { .. } => {
            let addresses = endpoint.resolved().unwrap_or_default();
            let addresses: Vec<SocketAddr> = addresses.iter().map(|to| elsewhere(*to)).collect();
            first_of(cluster, &addresses, deadline).await?
        }
    };
    match detour.transport.as_ref().unwrap_or(&endpoint.tls) {
        None => Ok(plain.into()),
        Some(context) => Ok(handshake(cluster, endpoint, options, context, plain, deadline).await?.0),
    }
}

async fn open(
    cluster: &Cluster,
    endpoint: &Endpoint,
    options: &ConnectOptions,
    deadline: Instant,
) -> Result<(Io, Option<Arc<PeerInfo>>), ConnectError> {
    let plain = match &endpoint.address {
        Address::Ip(address) => tcp(cluster, *address, deadline).await?,
        Address::Pipe(path) => unix(path, deadline).await?,
        Address::Host { .. } => first_of(cluster, &endpoint.resolved().unwrap_or_default(), deadline).await?,
    };
    match &endpoint.tls {
        None => Ok((plain.into(), None)),
        Some(context) => {
            let (io, peer) = handshake(cluster, endpoint, options, context, plain, deadline).await?;
            Ok((io, Some(peer)))
        }
    }
}

async fn tcp(cluster: &Cluster, peer: SocketAddr, deadline: Instant) -> Result<Plain, ConnectError> {
    let bind = cluster.config.bind.as_ref();
    let socket = connect_socket(
        peer,
        &ConnectSocketOptions {
            bind: bind.and_then(|b| b.source_for(peer.ip())),
            freebind: bind.is_some_and(|b| b.freebind),
            transparent: false,
            keepalive: cluster.config.keepalive,
        },
    );
    let socket = socket.map_err(|e| ConnectError::socket(&e))?;
    let stream = timeout_at(deadline, socket.connect(peer)).await.map_err(|_| ConnectError::timeout())?;
    let stream = stream.map_err(|e| ConnectError::socket(&e))?;
    Ok(stream.into())
}

async fn unix(path: &Path, deadline: Instant) -> Result<Plain, ConnectError> {
    // In configuration `@` stands for the NUL that begins an abstract name.
    let connecting = match path.to_str().and_then(|p| p.strip_prefix('@')) {
        Some(name) => UnixStream::connect(format!("\0{name}")),
        None => return finish_unix(UnixStream::connect(path), deadline).await,
    };
    finish_unix(connecting, deadline).await
}

async fn finish_unix(
    connecting: impl Future<Output = io::Result<UnixStream>>,
    deadline: Instant,
) -> Result<Plain, ConnectError> {
    let stream = timeout_at(deadline, connecting).await.map_err(|_| ConnectError::timeout())?;
    stream.map(Plain::from).map_err(|e| ConnectError::socket(&e))
}

/// A logical DNS endpoint: the first address, and while time is left the ones after it.
async fn first_of(cluster: &Cluster, addresses: &[SocketAddr], deadline: Instant) -> Result<Plain, ConnectError> {
    let mut last = ConnectError {
        kind: ConnectErrorKind::Unreachable,
        reason: "immediate connect error: the name has no address".to_owned(),
    };
    for (tried, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = (left / (addresses.len() - tried) as u32).max(MIN_PER_ADDRESS);
        match tcp(cluster, *address, (Instant::now() + share).min(deadline)).await {
            Ok(plain) => return Ok(plain),
            Err(error) => last = error,
        }
        if Instant::now() >= deadline {
            return Err(ConnectError::timeout());
        }
    }
    Err(last)
}

async fn handshake(
    cluster: &Cluster,
    endpoint: &Endpoint,
    options: &ConnectOptions,
    context: &ClientContext,
    plain: Plain,
    deadline: Instant,
) -> Result<(Io, Arc<PeerInfo>), ConnectError> {
    let hostname = Some(&*endpoint.hostname).filter(|h| endpoint.auto_host_sni && !h.is_empty());
    let sni = options.sni.as_deref().or(hostname);
    let client = ClientOptions {
        sni,
        alpn: options.alpn.as_deref(),
        verify_name: sni.filter(|_| cluster.config.http.auto_san_validation),
    };
    let left = deadline.saturating_duration_since(Instant::now());
    let stats = cluster.stats.local();
    let shaken = timeout_at(deadline, context.connect(plain, &client, left)).await;
    match shaken.map_err(|_| ConnectError::timeout())? {
        Ok((io, peer)) => {
            stats.ssl_handshake.inc();
            if let Io::TlsClient(tls) = &io
                && tls.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
            {
                stats.ssl_session_reused.inc();
            }
            Ok((io, peer))
        }
        Err(error) => {
            stats.ssl_connection_error.inc();
            match error.kind {
                HandshakeErrorKind::VerifyFailed => stats.ssl_fail_verify_error.inc(),
                HandshakeErrorKind::SanMismatch => stats.ssl_fail_verify_san.inc(),
                _ => {}
            }
            Err(ConnectError::tls(error))
        }
    }
}

fn alpn(io: &Io) -> Option<Box<str>> {
    let protocol = match io {
        Io::TlsClient(tls) => tls.get_ref().1.alpn_protocol()?,
        Io::TlsServer(_) | Io::Plain(_) => return None,
    };
    Some(String::from_utf8_lossy(protocol).into())
}

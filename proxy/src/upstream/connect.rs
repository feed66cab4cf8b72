//! Opening one connection to an endpoint.
use std::{net::SocketAddr, sync::Arc};

use super::{
    cluster::Cluster,
    endpoint::{ConnectionPermit, Endpoint},
};
use crate::{net::io::Io, telemetry::record::PeerInfo};

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

/// Connects and, where the endpoint asks for it, shakes hands, all within the cluster's connect timeout.
pub async fn connect(
    _cluster: &Cluster,
    _endpoint: &Arc<Endpoint>,
    _options: &ConnectOptions,
) -> Result<Connected, ConnectError> {
    todo!()
}

//! Client side.
use super::{HandshakeError, Secrets, TlsError};
use crate::{
    ir::secret::UpstreamTls,
    net::io::{Io, Plain},
    telemetry::record::PeerInfo,
};
use std::{sync::Arc, time::Duration};

/// What one connection asks for beyond its context.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientOptions<'a> {
    /// Overrides the context's SNI.
    pub sni: Option<&'a str>,
    /// Replaces the context's ALPN list.
    pub alpn: Option<&'a [Box<str>]>,
    /// The name the certificate must carry (`auto_san_validation`).
    pub verify_name: Option<&'a str>,
}

#[derive(Debug)]
pub struct ClientContext {}

impl ClientContext {
    pub fn new(_config: Arc<UpstreamTls>, _secrets: Arc<Secrets>) -> Result<Arc<Self>, TlsError> {
        todo!()
    }
    pub fn ready(&self) -> bool {
        todo!()
    }
    pub fn generation(&self) -> u64 {
        todo!()
    }
    pub async fn connect(
        &self,
        _plain: Plain,
        _options: &ClientOptions<'_>,
        _timeout: Duration,
    ) -> Result<(Io, Arc<PeerInfo>), HandshakeError> {
        todo!()
    }
}

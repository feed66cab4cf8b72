//! Server side.
use super::{HandshakeError, Secrets, TlsError};
use crate::{
    ir::secret::DownstreamTls,
    net::io::{Io, Plain},
    telemetry::record::PeerInfo,
};
use std::{sync::Arc, time::Duration};

#[derive(Debug)]
pub struct ServerContext {}

impl ServerContext {
    pub fn new(_config: Arc<DownstreamTls>, _secrets: Arc<Secrets>) -> Result<Arc<Self>, TlsError> {
        todo!()
    }
    pub fn ready(&self) -> bool {
        todo!()
    }
    pub fn generation(&self) -> u64 {
        todo!()
    }
    pub async fn accept(&self, _plain: Plain, _timeout: Duration) -> Result<(Io, Arc<PeerInfo>), HandshakeError> {
        todo!()
    }
}

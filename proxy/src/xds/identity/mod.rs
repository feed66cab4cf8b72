//! The workload's identity without an agent: its own key, a certificate from the mesh's authority, renewed in time.

use std::{path::PathBuf, time::Duration};

use crate::ir::Name;

/// The SDS names that are answered here, whatever their configured source: certificate and trust anchors.
pub const NAMES: [&str; 2] = ["default", "ROOTCA"];

/// Where certificates come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityConfig {
    /// The cluster that reaches the authority, as the transport knows it.
    pub ca_cluster: Name,
    /// The bearer token that says who we are, read anew for every request.
    pub token_file: Option<PathBuf>,
    /// PEM trust anchors added to the root that the authority returns.
    pub root_file: Option<PathBuf>,
    /// The certificate must carry this SPIFFE id; also put into the request.
    pub spiffe_id: Option<Box<str>>,
    /// Wanted validity.
    pub ttl: Duration,
    /// More gRPC metadata, such as Istio's `ClusterID`.
    pub metadata: Vec<(Box<str>, Box<str>)>,
}

pub(super) async fn run(
    config: IdentityConfig,
    dialer: std::sync::Arc<super::client::grpc::Dialer>,
    events: tokio::sync::mpsc::Sender<super::driver::Event>,
) {
    let _ = (config, dialer, events);
}

#[cfg(test)]
impl IdentityConfig {
    pub(crate) fn for_tests() -> Self {
        Self {
            ca_cluster: "ca".into(),
            token_file: None,
            root_file: None,
            spiffe_id: None,
            ttl: Duration::from_secs(3600),
            metadata: Vec::new(),
        }
    }
}

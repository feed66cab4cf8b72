//! What `start` is told: plain data, assembled by the application from the bootstrap and its flags.

use std::{path::PathBuf, sync::Arc, time::Duration};

use outrigger_wire::{packed::Packed, pb::envoy::config::core::v3::Node};

use super::{identity::IdentityConfig, saved::SavedConfig};
use crate::ir::{
    ConfigSource, Name,
    cluster::{Bind, Cluster},
    listener::Listener,
    route::RouteConfiguration,
    secret::Secret,
};

/// Everything a subscription starts from.
#[derive(Clone, Debug, Default)]
pub struct StartConfig {
    pub node: Node,
    /// `ads_config`.
    pub ads: Option<AdsConfig>,
    pub lds: Option<ConfigSource>,
    pub cds: Option<ConfigSource>,
    pub statics: Statics,
    /// Applied to clusters of CDS that name no source address (`cluster_manager.upstream_bind_config`).
    pub upstream_bind: Option<Bind>,
    /// An encoded `envoy.config.bootstrap.v3.Bootstrap`, shown by `/config_dump`.
    pub bootstrap: Option<Packed>,
    pub identity: Option<IdentityConfig>,
    /// The identity comes from a SPIFFE agent, which the transport knows as [`super::WORKLOAD_API`].
    pub workload_api: bool,
    pub grpc: GrpcOptions,
    pub warming: Warming,
    /// Where the last good configuration is kept for a start without the control plane; `None`: nowhere.
    pub saved: Option<SavedConfig>,
}

impl StartConfig {
    /// Whether this process gets an identity of its own.
    pub(super) fn has_identity(&self) -> bool {
        self.workload_api || self.identity.is_some()
    }
}

/// Resources of the bootstrap itself. Dynamic resources of the same name never replace them.
#[derive(Clone, Debug, Default)]
pub struct Statics {
    pub listeners: Vec<Arc<Listener>>,
    pub clusters: Vec<Arc<Cluster>>,
    pub secrets: Vec<(Name, Arc<Secret>)>,
    /// Route configurations by the name RDS references use; rarely anything.
    pub routes: Vec<(Name, Arc<RouteConfiguration>)>,
}

/// The aggregated stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdsConfig {
    pub cluster: Name,
    pub delta: bool,
    /// Sent with every stream.
    pub metadata: Vec<(Box<str>, Box<str>)>,
    /// `:authority`; the cluster's name if none is given.
    pub authority: Option<Box<str>>,
}

/// A bearer token, read anew for every connection because its issuer rotates it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenFile {
    pub path: PathBuf,
    /// The clusters whose streams carry the token; others never see it.
    pub clusters: Vec<Name>,
}

/// What all gRPC streams share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcOptions {
    /// Largest message accepted.
    pub max_message: usize,
    /// Bound on connecting, TLS included.
    pub connect_timeout: Duration,
    /// HTTP/2 pings when nothing else flows. Go servers punish more than one in five minutes, hence the default.
    pub keepalive: Option<Duration>,
    pub keepalive_timeout: Duration,
    pub backoff_base: Duration,
    pub backoff_max: Duration,
    pub token: Option<TokenFile>,
}

impl Default for GrpcOptions {
    fn default() -> Self {
        Self {
            max_message: 256 << 20,
            connect_timeout: Duration::from_secs(10),
            keepalive: Some(Duration::from_secs(310)),
            keepalive_timeout: Duration::from_secs(20),
            backoff_base: Duration::from_millis(500),
            backoff_max: Duration::from_secs(30),
            token: None,
        }
    }
}

/// How long the first activation of a resource waits for what it refers to; `None` waits for ever.
///
/// A replacement never gives up waiting: the version in force stays in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Warming {
    /// `initial_fetch_timeout` of EDS; the cluster then starts without endpoints.
    pub endpoints: Option<Duration>,
    /// Of RDS. Istio sends 0, for ever: a listener without routes would answer 404.
    pub routes: Option<Duration>,
    /// Of SDS; the listener or cluster then refuses handshakes until the secret comes.
    pub secrets: Option<Duration>,
    /// Of CDS: listeners wait for the first clusters for so long.
    pub clusters: Option<Duration>,
    /// How long a removed cluster, or a removed listener whose address a new one takes over, stays for those that still use it.
    pub removal_grace: Duration,
}

impl Default for Warming {
    fn default() -> Self {
        let default = Some(Duration::from_secs(15));
        Self {
            endpoints: default,
            routes: None,
            secrets: default,
            clusters: default,
            removal_grace: Duration::from_secs(15),
        }
    }
}

//! The configuration as the data path sees it: plain, immutable `Eq` data, decoded once from xDS or a bootstrap file.
//!
//! Imports nothing of ours. Defaults are already applied and "0 means off" is already `None`, so no reader needs to
//! know the wire format. Equality is what makes an equal update a no-op, so every field that matters takes part in it.

pub mod balancing;
pub mod cluster;
pub mod endpoint;
pub mod ext_authz;
pub mod filters;
pub mod format;
pub mod health_check;
pub mod http;
pub mod jwt_authn;
pub mod listener;
pub mod matcher;
pub mod metadata;
pub mod name_map;
pub mod network;
mod noted;
pub mod outlier;
pub mod path_template;
pub mod rate_limit;
pub mod rbac;
pub mod retry;
pub mod route;
pub mod secret;
pub mod service;
pub mod share;
#[cfg(test)]
mod sizes;
pub mod snapshot;
pub mod spiffe;
pub mod tracing;

/// An interned name: cluster, listener, route configuration, secret.
pub type Name = std::sync::Arc<str>;

/// `filter_metadata` of endpoints, clusters and routes: namespace to struct, as JSON values.
pub type Metadata = std::collections::BTreeMap<String, serde_json::Map<String, serde_json::Value>>;

/// A fraction `numerator / denominator` as Envoy's `FractionalPercent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fraction {
    pub numerator: u32,
    /// 100, 10 000 or 1 000 000.
    pub denominator: u32,
}

impl Fraction {
    /// Whether the draw `random` (uniform over `u32`) falls inside the fraction.
    pub fn hit(self, random: u32) -> bool {
        random % self.denominator < self.numerator
    }
}

/// Where a named resource comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConfigSource {
    /// The aggregated stream of the bootstrap's `ads_config`.
    Ads,
    /// The bootstrap itself: a static secret, nothing to subscribe to.
    Static,
    /// The same source the referring resource came from.
    SelfSource,
    /// A file with a `DiscoveryResponse` or a plain list of resources (`path_config_source`).
    Path { path: String, watched_directory: Option<String> },
    /// A gRPC service of its own: the cluster that reaches it, and whether it speaks the delta protocol.
    Grpc { cluster: Name, delta: bool },
}

//! All resources in force at one moment, as the control thread publishes them.

use std::sync::Arc;

use super::{
    cluster::Cluster, endpoint::Assignment, listener::Listener, name_map::NameMap, route::RouteConfiguration,
    secret::Secret,
};

/// One consistent set of warmed resources, cheap to copy. Unchanged resources are the same `Arc`s as in the snapshot
/// before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Counts publications; 0 is the empty snapshot before any configuration.
    pub version: u64,
    pub listeners: NameMap<Arc<Listener>>,
    pub clusters: NameMap<Arc<Cluster>>,
    /// By EDS resource name (`service_name`).
    pub endpoints: NameMap<Arc<Assignment>>,
    pub routes: NameMap<Arc<RouteConfiguration>>,
    pub secrets: NameMap<Arc<Secret>>,
}

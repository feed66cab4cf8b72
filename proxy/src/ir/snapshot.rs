//! All resources in force at one moment, as the control thread publishes them.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Name, cluster::Cluster, endpoint::Assignment, listener::Listener, route::RouteConfiguration, secret::Secret,
};

/// One consistent set of warmed resources. Unchanged resources are the same `Arc`s as in the snapshot before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Counts publications; 0 is the empty snapshot before any configuration.
    pub version: u64,
    pub listeners: BTreeMap<Name, Arc<Listener>>,
    pub clusters: BTreeMap<Name, Arc<Cluster>>,
    /// By EDS resource name (`service_name`).
    pub endpoints: BTreeMap<Name, Arc<Assignment>>,
    pub routes: BTreeMap<Name, Arc<RouteConfiguration>>,
    pub secrets: BTreeMap<Name, Arc<Secret>>,
}

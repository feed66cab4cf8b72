//! The bootstrap: an Envoy v3 bootstrap file (YAML or JSON) as node, static resources and where the dynamic ones come from.
//!
//! Knows nothing of the command line or the environment: `load` takes text. What it cannot honour it names by path, and
//! what changes who may do what it refuses. Deprecated fields that Envoy still honours are honoured.
#![allow(deprecated)]

mod admin;
mod dynamic;
mod files;
mod load;
mod references;
mod runtime;
mod statics;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use outrigger_wire::{packed::Packed, pb::envoy::config::core::v3::Node};

use crate::{
    ir::{
        ConfigSource, Name,
        cluster::{Bind, Cluster},
        format::AccessLog,
        listener::Listener,
        secret::Secret,
        tracing::OpenTelemetry,
    },
    xds::decode::Reject,
};

/// Everything a bootstrap says, decoded.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    /// As sent to the control plane: the file's node, completed with our user agent.
    pub node: Node,
    pub listeners: Vec<Arc<Listener>>,
    pub clusters: Vec<Arc<Cluster>>,
    pub secrets: Vec<(Name, Arc<Secret>)>,
    pub dynamic: Dynamic,
    pub admin: Option<Admin>,
    /// Bound on downstream connections over all listeners (`overload_manager`).
    pub max_downstream_connections: Option<u64>,
    /// `envoy.resource_limits.listener.NAME.connection_limit` of the static runtime layers, by listener; already applied
    /// to the static listeners.
    pub listener_limits: BTreeMap<Name, u64>,
    /// `cluster_manager.upstream_bind_config`: for clusters without one of their own (already applied to static ones).
    pub upstream_bind: Option<Bind>,
    /// `cluster_manager.local_cluster_name`: the cluster this proxy is a part of, for zone-aware routing.
    pub local_cluster: Option<Name>,
    /// `tracing`: who receives the spans of connection managers that name nobody.
    pub tracing: Option<Arc<OpenTelemetry>>,
    /// The encoded message as loaded (defaults not filled in), for `/config_dump`.
    pub packed: Packed,
}

/// `dynamic_resources`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dynamic {
    pub ads: Option<Ads>,
    pub lds: Option<ConfigSource>,
    pub cds: Option<ConfigSource>,
}

/// `ads_config`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ads {
    pub cluster: Name,
    /// The delta protocol instead of state of the world.
    pub delta: bool,
    /// Send the node on the first message of a stream only.
    pub node_on_first_message_only: bool,
    /// `initial_metadata`: sent with every stream.
    pub metadata: Vec<(Box<str>, Box<str>)>,
    /// `:authority` of the stream; the cluster's name if none is given.
    pub authority: Option<Box<str>>,
    /// Bound on the establishment of a stream.
    pub timeout: Option<Duration>,
}

/// The admin interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    pub address: AdminAddress,
    pub access_log: Vec<AccessLog>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminAddress {
    Tcp(SocketAddr),
    Pipe(PathBuf),
}

pub use self::load::{load, validate};

/// Why a bootstrap cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    #[error(transparent)]
    Syntax(#[from] outrigger_wire::json::Error),
    /// A file that the bootstrap names cannot be read.
    #[error("{path}: {reason}")]
    File { path: PathBuf, reason: String },
    /// `Reject::path` starts at the bootstrap, `static_resources.listeners[0]...`.
    #[error("{0}")]
    Rejected(#[from] Reject),
}

//! The only translation from xDS messages to the IR.
//!
//! Pure: no I/O, no clock. Every function takes one message and yields IR or a [`Reject`] naming the field.
//! The invariant: each field of each message is either in the IR, in the [`Notes`], or a reason to refuse. The compiler
//! keeps it: the `fields!` macro destructures every message without `..`.

mod at;
mod cluster;
mod endpoint;
mod extension;
mod listener;
mod report;
mod route;
mod scalar;
mod secret;

use std::{borrow::Cow, sync::Arc, time::Duration};

use outrigger_wire::pb::{
    envoy::{
        config::{
            cluster::v3::Cluster as PbCluster, endpoint::v3::ClusterLoadAssignment,
            listener::v3::Listener as PbListener, route::v3::RouteConfiguration as PbRoutes,
        },
        extensions::transport_sockets::tls::v3::Secret as PbSecret,
    },
    google::protobuf::Any,
};

pub use self::report::{Note, NoteKind, Notes, Reject};
use crate::ir::{
    Name, cluster::Cluster, endpoint::Assignment, listener::Listener, route::RouteConfiguration, secret::Secret,
};

/// A decoded top-level resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    Listener(Arc<Listener>),
    Cluster(Arc<Cluster>),
    Endpoints { name: Name, assignment: Arc<Assignment> },
    Routes { name: Name, routes: Arc<RouteConfiguration> },
    Secret { name: Name, secret: Arc<Secret> },
}

impl Resource {
    pub fn name(&self) -> &Name {
        match self {
            Self::Listener(l) => &l.name,
            Self::Cluster(c) => &c.name,
            Self::Endpoints { name, .. } | Self::Routes { name, .. } | Self::Secret { name, .. } => name,
        }
    }
}

/// The optional `envoy.service.discovery.v3.Resource` around a resource.
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope<'a> {
    /// Empty when the resource came bare.
    pub name: String,
    pub version: String,
    pub ttl: Option<Duration>,
    /// `None` in a TTL heartbeat.
    pub resource: Option<Cow<'a, Any>>,
}

/// Opens the optional `Resource` wrapper that delta and TTL responses put around a resource.
pub fn envelope(any: &Any) -> Result<Envelope<'_>, Reject> {
    extension::envelope(any)
}

/// Decodes any top-level resource, wrapped or bare, by its type URL.
pub fn resource(any: &Any, notes: &mut Notes) -> Result<Resource, Reject> {
    extension::resource(any, notes)
}

/// Decodes a listener.
pub fn listener(message: &PbListener, notes: &mut Notes) -> Result<Listener, Reject> {
    at::rooted("envoy.config.listener.v3.Listener", &message.name, notes, |at| listener::listener(message, at))
}

/// Decodes a cluster.
pub fn cluster(message: &PbCluster, notes: &mut Notes) -> Result<Cluster, Reject> {
    at::rooted("envoy.config.cluster.v3.Cluster", &message.name, notes, |at| cluster::cluster(message, at))
}

/// Decodes the endpoints of one EDS resource.
pub fn assignment(message: &ClusterLoadAssignment, notes: &mut Notes) -> Result<Assignment, Reject> {
    at::rooted("envoy.config.endpoint.v3.ClusterLoadAssignment", &message.cluster_name, notes, |at| {
        endpoint::assignment(message, at, endpoint::Hosts::Addresses)
    })
}

/// Decodes a route configuration.
pub fn route_configuration(message: &PbRoutes, notes: &mut Notes) -> Result<RouteConfiguration, Reject> {
    at::rooted("envoy.config.route.v3.RouteConfiguration", &message.name, notes, |at| {
        route::route_configuration(message, at)
    })
}

/// Decodes an SDS secret.
pub fn secret(message: &PbSecret, notes: &mut Notes) -> Result<(Name, Secret), Reject> {
    at::rooted("envoy.extensions.transport_sockets.tls.v3.Secret", &message.name, notes, |at| {
        secret::secret(message, at)
    })
}

//! The only translation from xDS messages to the IR.
//!
//! Pure: no I/O, no clock. Every function takes one message and yields IR or a [`Reject`] naming the field.
//! The invariant: each field of each message is either in the IR, in the [`Notes`], or a reason to refuse. The compiler
//! keeps it: the `fields!` macro destructures every message without `..`.
//!
//! Deprecated fields that Envoy still honours are honoured.
#![allow(deprecated)]

pub(crate) mod access_log;
mod adaptive_concurrency;
pub(crate) mod address;
pub(crate) mod at;
pub(crate) mod cluster;
mod cluster_breakers;
mod cluster_check;
mod cluster_dns;
mod cluster_http;
mod cluster_lb;
mod cluster_outlier;
mod cluster_tls;
mod cors;
mod endpoint;
mod ext_authz;
pub(crate) mod extension;
mod fault;
pub(crate) mod fields;
mod filter_chain;
mod format_string;
mod global_rate_limit;
mod hash_policy;
mod hcm;
mod hcm_options;
mod header_mutation;
mod header_ops;
mod hosts;
mod http_filter;
mod http_options;
mod internal_redirect;
mod istio_stats;
mod jwt_authn;
mod lb_options;
mod lb_peak_ewma;
mod lb_policy;
mod lb_subset;
pub(crate) mod listener;
mod listener_filter;
mod local_rate_limit;
mod local_reply;
mod matcher;
pub(crate) mod metadata;
mod metadata_matcher;
mod mirror;
mod network_filter;
mod opentelemetry;
mod path_template;
mod per_route;
mod rate_limit;
mod rbac;
mod rbac_input;
mod rbac_rule;
mod rbac_tree;
mod report;
mod retry;
mod route;
mod route_action;
mod route_match;
pub(crate) mod scalar;
pub(crate) mod secret;
mod service;
pub(crate) mod source;
mod tcp_proxy;
mod tls;
mod tls_names;
pub(crate) mod tracing;
mod virtual_host;

#[cfg(test)]
mod tests;

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

const RESOURCE: &str = "envoy.service.discovery.v3.Resource";
const LISTENER: &str = "envoy.config.listener.v3.Listener";
const CLUSTER: &str = "envoy.config.cluster.v3.Cluster";
const ASSIGNMENT: &str = "envoy.config.endpoint.v3.ClusterLoadAssignment";
const ROUTES: &str = "envoy.config.route.v3.RouteConfiguration";
const SECRET: &str = "envoy.extensions.transport_sockets.tls.v3.Secret";

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

/// Opens the optional `Resource` wrapper that delta and TTL responses put around a resource, or a TypedStruct.
pub fn envelope(any: &Any) -> Result<Envelope<'_>, Reject> {
    let malformed = |reason| nowhere(&any.type_url, reason);
    let Some(wrapper) = extension::wrapper(any).map_err(malformed)? else {
        let (resource, name) = match extension::typed_resource(any).map_err(malformed)? {
            Some((inner, name)) => (Cow::Owned(inner), name),
            None => (Cow::Borrowed(any), String::new()),
        };
        return Ok(Envelope { name, version: String::new(), ttl: None, resource: Some(resource) });
    };
    let ttl = match &wrapper.ttl {
        Some(ttl) => at::rooted(RESOURCE, &wrapper.name, &mut Notes::default(), |at| {
            scalar::duration(ttl, &at.field("ttl")).map(Some)
        })?,
        None => None,
    };
    // A name may come in either place.
    let name =
        if wrapper.name.is_empty() { wrapper.resource_name.map(|n| n.name).unwrap_or_default() } else { wrapper.name };
    Ok(Envelope { name, version: wrapper.version, ttl, resource: wrapper.resource.map(Cow::Owned) })
}

/// Decodes any top-level resource, wrapped or bare, by its type URL.
pub fn resource(any: &Any, notes: &mut Notes) -> Result<Resource, Reject> {
    let envelope = envelope(any)?;
    let Some(any) = envelope.resource else {
        return Err(nowhere(RESOURCE, "the wrapper holds no resource".into()).named(&envelope.name));
    };
    let decoded = bare(&any, notes).map_err(|e| if e.resource.is_empty() { e.named(&envelope.name) } else { e })?;
    if decoded.name().is_empty() {
        return Err(nowhere(&any.type_url, "a resource needs a name".into()).at("name"));
    }
    Ok(decoded)
}

fn bare(any: &Any, notes: &mut Notes) -> Result<Resource, Reject> {
    fn read<M: prost::Message + Default>(any: &Any) -> Result<M, Reject> {
        M::decode(any.value.as_slice()).map_err(|e| nowhere(&any.type_url, format!("malformed protobuf: {e}")))
    }
    match extension::short(&any.type_url) {
        LISTENER => {
            let message: PbListener = read(any)?;
            // A bootstrap's listener may be named by its address; on the wire the name is the identity.
            if message.name.is_empty() {
                return Err(nowhere(LISTENER, "a resource needs a name".into()).at("name"));
            }
            Ok(Resource::Listener(Arc::new(listener(&message, notes)?)))
        }
        CLUSTER => Ok(Resource::Cluster(Arc::new(cluster(&read(any)?, notes)?))),
        ASSIGNMENT => {
            let message: ClusterLoadAssignment = read(any)?;
            let assignment = Arc::new(assignment(&message, notes)?);
            Ok(Resource::Endpoints { name: message.cluster_name.into(), assignment })
        }
        ROUTES => {
            let malformed = |e| nowhere(&any.type_url, format!("malformed protobuf: {e}"));
            let hosts::Apart { message, hosts } = hosts::Apart::routes(&any.value).map_err(malformed)?;
            let routes = route_configuration(&message, &hosts, notes)?;
            Ok(Resource::Routes { name: message.name.into(), routes: Arc::new(routes) })
        }
        SECRET => {
            let (name, secret) = secret(&read(any)?, notes)?;
            Ok(Resource::Secret { name, secret: Arc::new(secret) })
        }
        kind => Err(nowhere(&any.type_url, format!("resources of type {kind:?} are not supported by this release"))),
    }
}

/// A refusal of something that has no fields yet.
fn nowhere(type_url: &str, reason: String) -> Reject {
    Reject { kind: extension::short(type_url).into(), resource: "".into(), path: String::new(), reason }
}

/// Decodes a listener.
pub fn listener(message: &PbListener, notes: &mut Notes) -> Result<Listener, Reject> {
    at::rooted(LISTENER, &message.name, notes, |at| listener::listener(message, at))
}

/// Decodes a cluster.
pub fn cluster(message: &PbCluster, notes: &mut Notes) -> Result<Cluster, Reject> {
    at::rooted(CLUSTER, &message.name, notes, |at| cluster::cluster(message, at))
}

/// Decodes the endpoints of one EDS resource.
pub fn assignment(message: &ClusterLoadAssignment, notes: &mut Notes) -> Result<Assignment, Reject> {
    at::rooted(ASSIGNMENT, &message.cluster_name, notes, |at| {
        endpoint::assignment(message, at, endpoint::Hosts::Addresses)
    })
}

fn route_configuration(message: &PbRoutes, hosts: &[&[u8]], notes: &mut Notes) -> Result<RouteConfiguration, Reject> {
    at::rooted(ROUTES, &message.name, notes, |at| route::route_configuration(message, hosts, at))
}

/// Decodes an SDS secret.
pub fn secret(message: &PbSecret, notes: &mut Notes) -> Result<(Name, Secret), Reject> {
    at::rooted(SECRET, &message.name, notes, |at| secret::secret(message, at))
}

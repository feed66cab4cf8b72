//! From the world to the xDS of one client. Pure: no I/O, no clock; whatever can fail was refused by `model::load`.
//!
//! Names are Istio's (`outbound|80|v1|host`, `virtualInbound`, ...). One deviation: there is no `istio.alpn` filter,
//! which Envoy itself does not have. Instead the ALPN list a cluster offers is fixed by what it carries: HTTP clusters
//! offer `istio-http/1.1, istio-h2`, of which the other side's filter chains take either as "HTTP", and neither side
//! negotiates one of them, so that the codec follows the bytes. A port whose protocol is detected is used for both, so
//! it has a second cluster, `outbound-tcp|...`, over the same endpoints.

mod access_log;
mod authorization;
mod balancing;
mod clusters;
mod endpoints;
mod filters;
mod grpc;
mod http_route;
mod inbound;
mod inspectors;
mod l4;
mod limits;
mod localities;
mod matches;
mod names;
mod outbound;
mod pb;
mod per_route;
mod policy;
mod retries;
mod routes;
mod scope;
mod special;
mod telemetry;
mod tls;
mod tokens;
mod tracing;

pub use self::limits::limits;
use self::scope::Scope;
pub(crate) use self::{
    authorization::{Part, parts},
    names::sni,
};
use crate::{
    model::{Locality, Object, World},
    resources::{ClientKind, Node, Resources},
};

/// The name of the route that stands in where no VirtualService has one.
pub(crate) const DEFAULT_ROUTE: &str = "default";

/// Generates all resources for `node`.
pub fn translate(world: &World, node: &Node) -> Resources {
    let scope = Scope::new(world, node);
    let mut resources = Resources::default();
    if node.kind == ClientKind::Grpc {
        grpc::generate(&scope, &mut resources);
        return resources;
    }
    special::clusters(&scope, &mut resources);
    clusters::generate(&scope, &mut resources);
    outbound::generate(&scope, &mut resources);
    inbound::generate(&scope, &mut resources);
    limits::generate(&scope, &mut resources);
    resources
}

/// Which documents decide on the calls of a client to a host, each as namespace, name and place.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sources {
    pub virtual_service: Option<String>,
    pub destination_rule: Option<String>,
    pub sidecar: Option<String>,
}

/// The documents that [`translate`] follows for calls of `node` to `host`.
pub fn sources(world: &World, node: &Node, host: Option<&str>) -> Sources {
    fn place<T>(object: &Object<T>) -> String {
        let Object { meta, source, .. } = object;
        let file = source.file.file_name().unwrap_or_default().to_string_lossy();
        format!("{}/{} ({file} document {})", meta.namespace, meta.name, source.document)
    }
    let scope = Scope::new(world, node);
    let service = host.and_then(|host| world.services.get(host));
    Sources {
        virtual_service: host.and_then(|host| scope.virtual_service(host)).map(place),
        destination_rule: service.and_then(|service| scope.destination_rule(service)).map(place),
        sidecar: scope.sidecar.map(place),
    }
}

/// The names of the Services that lead to a port of the client, as far as policies are concerned.
pub fn services(world: &World, node: &Node, port: u16) -> Vec<String> {
    Scope::new(world, node).own_services(Some(port))
}

/// Where [`translate`] takes the client to be.
pub fn locality(world: &World, node: &Node) -> Locality {
    Scope::new(world, node).locality.clone()
}

#[cfg(test)]
mod tests;

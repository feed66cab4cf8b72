//! The clusters of global limits: the rate limit service, and the replicas that share a limit while it is away.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use super::{
    super::{
        names,
        pb::{self, any, cluster, endpoint},
        policy,
        scope::Scope,
        special, tls,
    },
    global::Group,
    selected,
};
use crate::{
    model::{Address, ConnectionPool, LimitEndpoint, RateLimit, Scope as LimitScope},
    resources::{ClientKind, Resources},
};
use cluster::cluster::{ClusterDiscoveryType, DiscoveryType};
use pb::upstream_http::http_protocol_options::explicit_http_config::ProtocolConfig;

/// The control plane's rate limit service.
const OWN: &str = "outrigger-ratelimit";

/// The cluster that a limit's service is.
pub(super) fn of_service(limit: &RateLimit) -> String {
    match &limit.global.service {
        None => OWN.to_owned(),
        Some(service) => names::outbound(names::Variant::Main, service.port, None, &service.host),
    }
}

/// Adds what the limits of the workload need.
pub(in super::super) fn generate(scope: &Scope<'_>, resources: &mut Resources) {
    let global: Vec<_> = selected(scope).filter(|object| object.spec.scope == LimitScope::Global).collect();
    if global.iter().any(|object| object.spec.global.service.is_none()) {
        resources.clusters.insert(OWN.to_owned(), any(own(&scope.world.settings.limit_service)));
    }
    if scope.kind != ClientKind::Outrigger {
        return;
    }
    // Ports may part a group, and each part is named after its first.
    for object in global {
        for group in Group::of([object].into_iter()).iter().filter(|group| group.has_fallback()) {
            let name = format!("{}.replicas", group.name());
            let cluster = replicas(scope, name.clone(), group);
            resources.clusters.insert(name, any(cluster));
        }
    }
}

fn own(at: &[LimitEndpoint]) -> cluster::Cluster {
    let addresses = at.iter().map(|at| pb::address(&at.host, at.port));
    let names = at.iter().any(|at| at.host.parse::<IpAddr>().is_err());
    let mut cluster = listed(OWN.to_owned(), addresses);
    let kind = if names { DiscoveryType::StrictDns } else { DiscoveryType::Static };
    cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(kind as i32));
    cluster.connect_timeout = pb::duration(Duration::from_secs(1));
    cluster.circuit_breakers = Some(policy::breakers(&ConnectionPool::default(), None));
    cluster.transport_socket = Some(tls::to_control_plane());
    policy::set_http_options(&mut cluster, policy::explicit(ProtocolConfig::Http2ProtocolOptions(Default::default())));
    cluster
}

/// All instances the limit is for: nothing is sent there, they are only counted.
fn replicas(scope: &Scope<'_>, name: String, group: &Group<'_>) -> cluster::Cluster {
    let object = group.objects[0];
    let mut instances = BTreeMap::new();
    for workload in scope.world.workloads.iter().filter(|w| w.meshed) {
        if scope.world.limits(object, &workload.namespace, &workload.labels)
            && let Some(ip) = workload.addresses.iter().find_map(Address::ip)
        {
            instances.insert(ip, ());
        }
    }
    let port = scope.world.settings.inbound_port;
    let mut cluster = listed(name, instances.into_keys().map(|ip| pb::address(ip, port)));
    cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(DiscoveryType::Static as i32));
    cluster.connect_timeout = pb::duration(Duration::from_secs(1));
    cluster
}

fn listed(name: String, addresses: impl Iterator<Item = Option<pb::core::Address>>) -> cluster::Cluster {
    let members = addresses.map(|address| special::member(endpoint::Endpoint { address, ..Default::default() }));
    let group = endpoint::LocalityLbEndpoints { lb_endpoints: members.collect(), ..Default::default() };
    cluster::Cluster {
        load_assignment: Some(endpoint::ClusterLoadAssignment {
            cluster_name: name.clone(),
            endpoints: vec![group],
            ..Default::default()
        }),
        name,
        ..Default::default()
    }
}

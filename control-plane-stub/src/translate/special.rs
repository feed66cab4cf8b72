//! The clusters every sidecar has: passing through as the client meant it, and the black hole.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    names,
    pb::{self, any, cluster, core, endpoint},
    policy,
    scope::Scope,
};
use crate::{model::ConnectionPool, resources::Resources};
use cluster::cluster::{ClusterDiscoveryType, DiscoveryType, LbPolicy};

/// Connections of the sidecar to its own application come from here: never captured again.
const LOOP_GUARD_V4: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);
const LOOP_GUARD_V6: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6);

pub(super) fn clusters(scope: &Scope<'_>, resources: &mut Resources) {
    let black_hole = cluster::Cluster {
        name: names::BLACK_HOLE.to_owned(),
        connect_timeout: pb::duration(std::time::Duration::from_secs(10)),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static as i32)),
        ..Default::default()
    };
    let mut inbound = original_dst(names::INBOUND_PASSTHROUGH.to_owned());
    inbound.upstream_bind_config = Some(loop_guard());
    for mut cluster in [original_dst(names::PASSTHROUGH.to_owned()), inbound] {
        let options = policy::downstream_version(core::Http2ProtocolOptions::default(), preserve_case(scope));
        policy::set_http_options(&mut cluster, options);
        resources.clusters.insert(cluster.name.clone(), any(cluster));
    }
    resources.clusters.insert(black_hole.name.clone(), any(black_hole));
}

fn preserve_case(scope: &Scope<'_>) -> bool {
    scope.world.settings.preserve_header_case
}

/// A cluster whose endpoint is the address the client connected to.
pub(super) fn original_dst(name: String) -> cluster::Cluster {
    cluster::Cluster {
        name,
        connect_timeout: pb::duration(std::time::Duration::from_secs(10)),
        lb_policy: LbPolicy::ClusterProvided as i32,
        circuit_breakers: Some(policy::breakers(&ConnectionPool::default(), None)),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::OriginalDst as i32)),
        ..Default::default()
    }
}

/// A cluster of one address.
pub(super) fn fixed(name: String, at: std::net::SocketAddr) -> cluster::Cluster {
    let member = member(endpoint::Endpoint { address: pb::address(at.ip(), at.port()), ..Default::default() });
    let group = endpoint::LocalityLbEndpoints { lb_endpoints: vec![member], ..Default::default() };
    cluster::Cluster {
        load_assignment: Some(endpoint::ClusterLoadAssignment {
            cluster_name: name.clone(),
            endpoints: vec![group],
            ..Default::default()
        }),
        name,
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static as i32)),
        ..Default::default()
    }
}

pub(super) fn member(endpoint: endpoint::Endpoint) -> endpoint::LbEndpoint {
    endpoint::LbEndpoint {
        host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(endpoint)),
        ..Default::default()
    }
}

/// Binds connections to the application to the address that capture leaves alone.
pub(super) fn loop_guard() -> core::BindConfig {
    core::BindConfig {
        source_address: Some(pb::socket_address(IpAddr::V4(LOOP_GUARD_V4), 0)),
        extra_source_addresses: vec![core::ExtraSourceAddress {
            address: Some(pb::socket_address(IpAddr::V6(LOOP_GUARD_V6), 0)),
            ..Default::default()
        }],
        ..Default::default()
    }
}

//! Endpoint resources for the churn: what the bench's control plane sends.

use outrigger_wire::pb::envoy::config::{
    core::v3::{Address, SocketAddress, address, socket_address::PortSpecifier},
    endpoint::v3::{ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier},
};

/// The endpoints of one cluster.
pub(crate) fn assignment(cluster: &str, endpoints: impl IntoIterator<Item = (String, u16)>) -> ClusterLoadAssignment {
    let lb_endpoints = endpoints
        .into_iter()
        .map(|(ip, port)| {
            let socket = SocketAddress {
                address: ip,
                port_specifier: Some(PortSpecifier::PortValue(port.into())),
                ..Default::default()
            };
            let address = Some(Address { address: Some(address::Address::SocketAddress(socket)) });
            let endpoint = Endpoint { address, ..Default::default() };
            LbEndpoint { host_identifier: Some(HostIdentifier::Endpoint(endpoint)), ..Default::default() }
        })
        .collect();
    ClusterLoadAssignment {
        cluster_name: cluster.to_owned(),
        endpoints: vec![LocalityLbEndpoints { lb_endpoints, ..Default::default() }],
        ..Default::default()
    }
}

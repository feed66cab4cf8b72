//! EDS: where the endpoints are, how heavy, and whether a sidecar takes mutual TLS there.

use std::collections::BTreeMap;

use super::{
    pb::{self, core, endpoint},
    scope::Target,
};
use crate::model::{Endpoint, EndpointPort, Locality};

/// The assignment of a target, grouped by locality. Weights of localities are set because gRPC demands them.
pub(super) fn assignment(name: &str, target: &Target<'_>) -> endpoint::ClusterLoadAssignment {
    let mut localities: BTreeMap<&Locality, (u32, Vec<endpoint::LbEndpoint>)> = BTreeMap::new();
    let mut seen = std::collections::BTreeSet::new();
    for (endpoint, port) in target.endpoints() {
        // One address and port twice would be refused by gRPC, and weigh double elsewhere.
        if !seen.insert((&endpoint.address, port.number)) {
            continue;
        }
        let (weight, members) = localities.entry(&endpoint.locality).or_default();
        *weight = weight.saturating_add(endpoint.weight);
        members.push(member(endpoint, port));
    }
    let group = |(locality, (weight, members)): (&Locality, (u32, Vec<_>))| endpoint::LocalityLbEndpoints {
        locality: Some(core::Locality {
            region: locality.region.clone(),
            zone: locality.zone.clone(),
            sub_zone: locality.sub_zone.clone(),
        }),
        lb_endpoints: members,
        load_balancing_weight: pb::number(weight),
        ..Default::default()
    };
    endpoint::ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: localities.into_iter().map(group).collect(),
        ..Default::default()
    }
}

fn member(endpoint: &Endpoint, port: EndpointPort) -> endpoint::LbEndpoint {
    let at = endpoint::Endpoint { address: pb::address(&endpoint.address, port.number), ..Default::default() };
    let metadata = || core::Metadata {
        filter_metadata: [("envoy.transport_socket_match".to_owned(), pb::single("tlsMode", "istio"))].into(),
        ..Default::default()
    };
    endpoint::LbEndpoint {
        host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(at)),
        metadata: port.mtls.then(metadata),
        load_balancing_weight: pb::number(endpoint.weight),
        ..Default::default()
    }
}

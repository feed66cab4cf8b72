//! EDS: where the endpoints are, how heavy, how near, and whether a sidecar takes mutual TLS there.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    localities::{self, Preference},
    pb::{self, core, endpoint},
    scope::{Scope, Target},
    telemetry,
};
use crate::model::{Endpoint, EndpointPort, Locality, Resolution, TrafficPolicy};

#[derive(Default)]
struct Group {
    weight: u32,
    members: Vec<endpoint::LbEndpoint>,
}

/// The assignment of a target, grouped by priority and locality. Weights of localities are set because gRPC demands
/// them.
pub(super) fn assignment(
    scope: &Scope<'_>,
    name: &str,
    target: &Target<'_>,
    policy: &TrafficPolicy,
) -> endpoint::ClusterLoadAssignment {
    let preference = match target.service.resolution {
        // One name is one endpoint: there is nothing to prefer.
        Resolution::DnsRoundRobin => Preference::None,
        _ => Preference::new(scope, target.service, policy),
    };
    let mut groups: BTreeMap<(u32, &Locality), Group> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for (endpoint, port) in target.endpoints() {
        // One address and port twice would be refused by gRPC, and weigh double elsewhere.
        if !seen.insert((&endpoint.address, port.number)) {
            continue;
        }
        let turn = preference.turn(scope.locality, endpoint);
        let group = groups.entry((turn, &endpoint.locality)).or_default();
        group.weight = group.weight.saturating_add(endpoint.weight);
        group.members.push(member(scope, endpoint, port));
    }
    if let Preference::Shares(to) = &preference {
        let known: Vec<(&Locality, u32)> = groups.iter().map(|((_, at), group)| (*at, group.weight)).collect();
        let mut shares = localities::shares(to, &known).into_iter();
        groups.retain(|_, group| match shares.next().flatten() {
            Some(share) => {
                group.weight = share;
                true
            }
            None => false,
        });
    }
    // Priorities must not leave out a number.
    let turns: Vec<u32> = groups.keys().map(|(turn, _)| *turn).collect::<BTreeSet<_>>().into_iter().collect();
    let group = |((turn, locality), group): ((u32, &Locality), Group)| endpoint::LocalityLbEndpoints {
        locality: Some(core::Locality {
            region: locality.region.clone(),
            zone: locality.zone.clone(),
            sub_zone: locality.sub_zone.clone(),
        }),
        lb_endpoints: group.members,
        load_balancing_weight: pb::number(group.weight),
        priority: turns.binary_search(&turn).unwrap_or_default() as u32,
        ..Default::default()
    };
    endpoint::ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: groups.into_iter().map(group).collect(),
        ..Default::default()
    }
}

fn member(scope: &Scope<'_>, endpoint: &Endpoint, port: EndpointPort) -> endpoint::LbEndpoint {
    let at = endpoint::Endpoint { address: pb::address(&endpoint.address, port.number), ..Default::default() };
    let mutual = || ("envoy.transport_socket_match".to_owned(), pb::single("tlsMode", "istio"));
    let noted: BTreeMap<_, _> =
        port.mtls.then(mutual).into_iter().chain(telemetry::workload(scope, endpoint)).collect();
    let metadata = || core::Metadata { filter_metadata: pb::ordered(noted.clone()), ..Default::default() };
    endpoint::LbEndpoint {
        host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(at)),
        metadata: (!noted.is_empty()).then(metadata),
        load_balancing_weight: pb::number(endpoint.weight),
        ..Default::default()
    }
}

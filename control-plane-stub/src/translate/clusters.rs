//! The outbound clusters: one per port and subset of every visible service, and their endpoints.

use super::{
    balancing, endpoints,
    names::{self, Variant},
    pb::{self, any, cluster},
    policy::{self, Carries},
    scope::{Scope, Target},
    special, telemetry, tls,
};
use crate::{
    model::{Object, Resolution},
    resources::Resources,
};
use cluster::cluster::{ClusterDiscoveryType, DiscoveryType, DnsLookupFamily, EdsClusterConfig, LbPolicy};

pub(super) fn generate(scope: &Scope<'_>, resources: &mut Resources) {
    for service in &scope.reached {
        for target in scope.targets(service) {
            let mut variants = vec![Variant::Main];
            if scope.has_twin(service, target.port, target.subset) {
                variants.push(Variant::Tcp);
            }
            if reaches_pods(&target) {
                variants.push(Variant::Pod);
            }
            for variant in variants {
                let cluster = outbound(scope, &target, variant);
                resources.clusters.insert(cluster.name.clone(), any(cluster));
            }
            if target.is_eds() {
                let rules = scope.policy(service, target.subset, target.port.number);
                let name = names::outbound(Variant::Main, target.port.number, target.subset, &service.host);
                let assignment = endpoints::assignment(scope, &name, &target, &rules);
                resources.endpoints.insert(name, any(assignment));
            }
        }
    }
}

/// Whether clients address the Pods themselves, so that balancing would take their choice away.
pub(super) fn reaches_pods(target: &Target<'_>) -> bool {
    let Target { service, subset, .. } = target;
    service.kubernetes && service.addresses.is_empty() && subset.is_none()
}

fn outbound(scope: &Scope<'_>, target: &Target<'_>, variant: Variant) -> cluster::Cluster {
    let (service, number) = (target.service, target.port.number);
    let rules = scope.policy(service, target.subset, number);
    let carries = Carries::of(target, variant, &rules);
    let name = names::outbound(variant, number, target.subset, &service.host);
    let main = names::outbound(Variant::Main, number, target.subset, &service.host);
    let by_client =
        variant == Variant::Pod || service.resolution == Resolution::OriginalDst || balancing::passes_through(&rules);
    let mut cluster = if by_client {
        special::original_dst(name)
    } else {
        let mut balanced = cluster::Cluster { name, ..Default::default() };
        balancing::apply(&mut balanced, rules.load_balancer.as_ref());
        balanced
    };
    let security = tls::upstream(scope, target, by_client, rules.tls.as_ref(), carries);
    let http =
        policy::HttpBasis { preserve_case: scope.world.settings.preserve_header_case, by_request: security.by_request };
    policy::apply(&mut cluster, &rules, carries, http);
    let latency_aware = || scope.destination_rule(service).is_some_and(Object::is_latency_aware);
    if cluster.lb_policy == LbPolicy::LeastRequest as i32 && latency_aware() {
        cluster.metadata = Some(pb::flag("outrigger.load_balancing", "latency_aware"));
    }
    telemetry::name_service(scope, &mut cluster, (&service.host, &service.name, &service.namespace));
    let discovery = match service.resolution {
        _ if by_client => DiscoveryType::OriginalDst,
        Resolution::Dns => DiscoveryType::StrictDns,
        // Envoy takes exactly one endpoint there; a subset may have none.
        Resolution::DnsRoundRobin if target.endpoints().count() == 1 => DiscoveryType::LogicalDns,
        Resolution::DnsRoundRobin => DiscoveryType::StrictDns,
        Resolution::Endpoints | Resolution::OriginalDst => DiscoveryType::Eds,
    };
    match discovery {
        DiscoveryType::Eds => {
            let config = EdsClusterConfig { eds_config: pb::ads(), service_name: main };
            cluster.eds_cluster_config = Some(config);
        }
        DiscoveryType::StrictDns | DiscoveryType::LogicalDns => {
            cluster.load_assignment = Some(endpoints::assignment(scope, &cluster.name, target, &rules));
            cluster.dns_lookup_family = DnsLookupFamily::V4Preferred as i32;
        }
        DiscoveryType::OriginalDst | DiscoveryType::Static => {}
    }
    cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(discovery as i32));
    cluster.transport_socket = security.socket;
    cluster.transport_socket_matches = security.matches;
    cluster
}

//! For proxyless gRPC clients (`xds:///name:port`): API listeners by every name a service is called by, plain clusters.
//!
//! gRPC refuses what a sidecar needs (transport socket matches, original destinations, least request in C++), so what
//! it cannot use is left out. Its connections are plaintext: it reaches PERMISSIVE servers.

use super::{
    balancing, endpoints, filters,
    names::{self, Variant},
    pb::{self, any, cluster, core, hcm, listener, route},
    policy, routes,
    scope::{Scope, Target, class},
};
use crate::{
    model::{Class, Port, Resolution, Service, TlsMode},
    resources::Resources,
};
use cluster::cluster::{ClusterDiscoveryType, DiscoveryType, DnsLookupFamily, EdsClusterConfig, LbPolicy};

pub(super) fn generate(scope: &Scope<'_>, resources: &mut Resources) {
    for service in &scope.reached {
        for target in scope.targets(service) {
            if let Some(cluster) = cluster(scope, &target) {
                let name = cluster.name.clone();
                if target.is_eds() {
                    let rules = scope.policy(service, target.subset, target.port.number);
                    let assignment = endpoints::assignment(scope, &name, &target, &rules);
                    resources.endpoints.insert(name.clone(), any(assignment));
                }
                resources.clusters.insert(name, any(cluster));
            }
        }
    }
    for service in &scope.services {
        for port in scope.ports(service) {
            listeners(scope, service, port, resources);
        }
    }
}

fn listeners(scope: &Scope<'_>, service: &Service, port: &Port, resources: &mut Resources) {
    let carries_http = matches!(class(service, port), Class::Http | Class::Auto | Class::Tcp);
    if !carries_http || service.host.starts_with('*') {
        return;
    }
    let routes_name = names::outbound(Variant::Main, port.number, None, &service.host);
    let mut rules = routes::routes(scope, service, port);
    rules.iter_mut().for_each(balanced);
    let host = routes::virtual_host(&service.host, port.number, vec!["*".to_owned()], rules);
    let config =
        route::RouteConfiguration { name: routes_name.clone(), virtual_hosts: vec![host], ..Default::default() };
    resources.routes.insert(routes_name.clone(), any(config));
    for name in names_of(scope, service) {
        let name = format!("{name}:{}", port.number);
        let manager = hcm::HttpConnectionManager {
            stat_prefix: name.clone(),
            route_specifier: Some(filters::rds(&routes_name)),
            http_filters: vec![filters::optional_fault(), filters::router()],
            ..Default::default()
        };
        let listener = listener::Listener {
            name: name.clone(),
            api_listener: Some(listener::ApiListener { api_listener: Some(any(manager)) }),
            ..Default::default()
        };
        resources.listeners.entry(name).or_insert_with(|| any(listener));
    }
}

/// A client chooses among all endpoints of a headless service too: it has no address of its own choice.
fn balanced(rule: &mut route::Route) {
    use route::route_action::ClusterSpecifier;
    if let Some(route::route::Action::Route(action)) = &mut rule.action
        && let Some(ClusterSpecifier::Cluster(name)) = &mut action.cluster_specifier
        && let Some(rest) = name.strip_prefix("outbound-pod|")
    {
        *name = format!("outbound|{rest}");
    }
}

fn names_of(scope: &Scope<'_>, service: &Service) -> Vec<String> {
    let mut names = vec![service.host.clone()];
    if service.kubernetes {
        let (name, namespace) = (&service.name, &service.namespace);
        names.extend([format!("{name}.{namespace}.svc"), format!("{name}.{namespace}")]);
        if scope.namespace == namespace {
            names.push(name.clone());
        }
    }
    names
}

fn cluster(scope: &Scope<'_>, target: &Target<'_>) -> Option<cluster::Cluster> {
    let (service, number) = (target.service, target.port.number);
    let rules = scope.policy(service, target.subset, number);
    // TLS that the operator demands cannot be given this way: no cluster is better than a plaintext one.
    if rules.tls.as_ref().is_some_and(|tls| tls.mode != TlsMode::Disable) {
        return None;
    }
    let name = names::outbound(Variant::Main, number, target.subset, &service.host);
    let mut cluster = cluster::Cluster {
        name: name.clone(),
        lb_policy: LbPolicy::RoundRobin as i32,
        connect_timeout: pb::duration(std::time::Duration::from_secs(10)),
        ..Default::default()
    };
    // Of consistent hashes, a proxyless client knows the ring over a header; it balances in turn otherwise.
    if balancing::hash(&rules).is_some_and(|hash| hash.http_header_name.is_some() && hash.maglev.is_none()) {
        balancing::apply(&mut cluster, rules.load_balancer.as_ref());
    }
    let pool = rules.connection_pool.clone().unwrap_or_default();
    cluster.circuit_breakers = Some(policy::breakers(&pool, rules.retry_budget.as_ref()));
    let discovery = match service.resolution {
        Resolution::Endpoints => {
            cluster.eds_cluster_config = Some(EdsClusterConfig { eds_config: own_ads(), service_name: name });
            DiscoveryType::Eds
        }
        Resolution::Dns | Resolution::DnsRoundRobin if target.endpoints().count() == 1 => {
            cluster.load_assignment = Some(endpoints::assignment(scope, &name, target, &rules));
            cluster.dns_lookup_family = DnsLookupFamily::V4Preferred as i32;
            DiscoveryType::LogicalDns
        }
        Resolution::Dns | Resolution::DnsRoundRobin | Resolution::OriginalDst => return None,
    };
    cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(discovery as i32));
    Some(cluster)
}

fn own_ads() -> Option<core::ConfigSource> {
    pb::ads()
}

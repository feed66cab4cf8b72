//! RDS: for each port with HTTP, a virtual host per service; what no host names passes through.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    balancing,
    clusters::reaches_pods,
    http_route, matches,
    names::{self, Variant},
    pb::{any, bracketed, number, route},
    scope::{Scope, Target, class},
};
use crate::{
    model::{Class, MAX_BODY, Port, Service},
    resources::Resources,
};

/// The port on which a VirtualService routes a host that no service declares.
const SERVICELESS_PORT: u16 = 80;

/// Services with HTTP by port, and the ports that have a route configuration.
pub(super) fn by_port<'a>(scope: &Scope<'a>) -> BTreeMap<u16, Vec<(&'a Service, &'a Port)>> {
    let mut ports: BTreeMap<u16, Vec<(&Service, &Port)>> = BTreeMap::new();
    for service in &scope.services {
        for port in scope.ports(service).filter(|port| class(service, port) == Class::Http) {
            ports.entry(port.number).or_default().push((service, port));
        }
    }
    if !serviceless(scope).is_empty() {
        ports.entry(SERVICELESS_PORT).or_default();
    }
    ports
}

/// Hosts with HTTP routes of their own and no service behind.
fn serviceless(scope: &Scope<'_>) -> BTreeSet<String> {
    let seen = scope.world.virtual_services.iter().filter(|(visibility, object)| {
        let spec = &object.spec;
        visibility.includes(scope.namespace)
            && scope.is_imported(object)
            && scope.is_source(&BTreeMap::new(), None, &spec.gateways)
            && !spec.http.is_empty()
    });
    let hosts = seen.flat_map(|(_, object)| &object.spec.hosts);
    let declared = |host: &str| match host.strip_prefix('*') {
        Some(suffix) => scope.services.iter().any(|service| service.host.ends_with(suffix)),
        None => scope.services.iter().any(|service| service.host == host),
    };
    hosts.filter(|host| !declared(host)).cloned().collect()
}

/// The configuration of a port, shared by all services on it.
pub(super) fn of_port(scope: &Scope<'_>, port: u16, services: &[(&Service, &Port)], resources: &mut Resources) {
    let mut hosts = Vec::new();
    let mut taken: BTreeSet<String> = BTreeSet::new();
    // Full names first: no short name of one service may take the name of another.
    for (service, _) in services {
        taken.extend(with_port(&service.host, port));
    }
    for (service, declared) in services {
        let mut domains = with_port(&service.host, port);
        for name in aliases(scope, service) {
            domains.extend(with_port(&name, port).into_iter().filter(|domain| taken.insert(domain.clone())));
        }
        hosts.push(virtual_host(&service.host, port, domains, routes(scope, service, declared)));
        let target = Target { service, port: declared, subset: None, labels: None };
        if service.headless && reaches_pods(&target) {
            hosts.extend(pods(&target, &mut taken));
        }
    }
    if port == SERVICELESS_PORT {
        for host in serviceless(scope) {
            let domains: Vec<_> = with_port(&host, port).into_iter().filter(|d| taken.insert(d.clone())).collect();
            let object = scope.virtual_service(&host);
            let routes = object.map(|object| http_route::routes(scope, object, port)).unwrap_or_default();
            if !domains.is_empty() && !routes.is_empty() {
                hosts.push(virtual_host(&host, port, domains, routes));
            }
        }
    }
    hosts.push(unknown(scope));
    add(port.to_string(), hosts, resources);
}

/// The configuration of one service on a port whose protocol is detected: whatever the host, it is that service.
pub(super) fn of_service(scope: &Scope<'_>, service: &Service, port: &Port, resources: &mut Resources) -> String {
    let name = format!("{}:{}", service.host, port.number);
    let domains = vec!["*".to_owned()];
    let host = virtual_host(&service.host, port.number, domains, routes(scope, service, port));
    add(name.clone(), vec![host], resources);
    name
}

/// The routes of a service: its VirtualService's, else everything to it. One that says nothing of this port or to this
/// client is as none: Istio's rule.
pub(super) fn routes(scope: &Scope<'_>, service: &Service, port: &Port) -> Vec<route::Route> {
    let rules = scope.virtual_service(&service.host);
    let routes = rules.map(|rules| http_route::routes(scope, rules, port.number)).unwrap_or_default();
    if !routes.is_empty() {
        return routes;
    }
    let variant = if service.headless && service.kubernetes { Variant::Pod } else { Variant::Main };
    let policy = scope.policy(service, None, port.number);
    vec![http_route::default(names::outbound(variant, port.number, None, &service.host), balancing::hash(&policy))]
}

fn add(name: String, virtual_hosts: Vec<route::VirtualHost>, resources: &mut Resources) {
    let config = route::RouteConfiguration {
        name: name.clone(),
        virtual_hosts,
        // A cluster may follow its route: the request in between gets a 503, not the whole route table a refusal.
        validate_clusters: super::pb::no(),
        max_direct_response_body_size_bytes: number(MAX_BODY as u32),
        ..Default::default()
    };
    resources.routes.insert(name, any(config));
}

pub(super) fn virtual_host(
    host: &str,
    port: u16,
    domains: Vec<String>,
    routes: Vec<route::Route>,
) -> route::VirtualHost {
    route::VirtualHost {
        name: format!("{host}:{port}"),
        domains,
        routes,
        include_request_attempt_count: true,
        ..Default::default()
    }
}

/// What was called by a name that is nobody's goes where the client meant it, unless a Sidecar forbids it.
fn unknown(scope: &Scope<'_>) -> route::VirtualHost {
    if scope.unknown() == names::BLACK_HOLE {
        let refusal = route::DirectResponseAction { status: 502, ..Default::default() };
        let route = route::Route {
            name: "block_all".to_owned(),
            r#match: Some(matches::everything()),
            action: Some(route::route::Action::DirectResponse(refusal)),
            ..Default::default()
        };
        return route::VirtualHost {
            name: "block_all".to_owned(),
            domains: vec!["*".to_owned()],
            routes: vec![route],
            include_request_attempt_count: true,
            ..Default::default()
        };
    }
    let mut through = http_route::default(names::PASSTHROUGH.to_owned(), None);
    if let Some(route::route::Action::Route(action)) = &mut through.action {
        // The address is the client's: there is no other to try.
        action.retry_policy = None;
    }
    through.name = "allow_any".to_owned();
    route::VirtualHost {
        name: "allow_any".to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![through],
        include_request_attempt_count: true,
        ..Default::default()
    }
}

fn with_port(name: &str, port: u16) -> Vec<String> {
    vec![name.to_owned(), format!("{name}:{port}")]
}

/// Short names, as the resolver of a Pod completes them, and virtual addresses.
fn aliases(scope: &Scope<'_>, service: &Service) -> Vec<String> {
    let mut names = Vec::new();
    if service.kubernetes {
        let (name, namespace) = (&service.name, &service.namespace);
        if scope.namespace == namespace {
            names.push(name.clone());
        }
        names.push(format!("{name}.{namespace}"));
        names.push(format!("{name}.{namespace}.svc"));
    }
    names.extend(service.addresses.iter().filter_map(|cidr| cidr.single()).map(bracketed));
    names
}

/// A Pod of a headless service called by its own name or address.
fn pods(target: &Target<'_>, taken: &mut BTreeSet<String>) -> Option<route::VirtualHost> {
    let (service, port) = (target.service, target.port.number);
    let mut domains = Vec::new();
    for (endpoint, _) in target.endpoints() {
        let mut names: Vec<String> = endpoint.address.ip().map(bracketed).into_iter().collect();
        if let Some(hostname) = &endpoint.hostname {
            let (name, namespace) = (&service.name, &service.namespace);
            names.push(format!("{hostname}.{}", service.host));
            names.extend([format!("{hostname}.{name}"), format!("{hostname}.{name}.{namespace}")]);
            names.push(format!("{hostname}.{name}.{namespace}.svc"));
        }
        let all = names.iter().flat_map(|name| with_port(name, port));
        domains.extend(all.filter(|domain| taken.insert(domain.clone())).collect::<Vec<_>>());
    }
    let cluster = names::outbound(Variant::Pod, port, None, &service.host);
    let routes = vec![http_route::default(cluster, None)];
    let host = route::VirtualHost {
        name: format!("pods.{}:{port}", service.host),
        domains,
        routes,
        include_request_attempt_count: true,
        ..Default::default()
    };
    (!host.domains.is_empty()).then_some(host)
}

//! The outbound listeners: `virtualOutbound`, which takes what capture redirects and hands it to the listener of the
//! original destination; one per virtual address and port; one per port for all HTTP.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
    time::Duration,
};

use outrigger_wire::pb::envoy::config::listener::v3::FilterChainMatch;
use prost::Message;

use super::{
    access_log,
    clusters::reaches_pods,
    filters::{self, ClientCertificate},
    inspectors, l4, names,
    names::Variant,
    pb::{self, any, core, hcm, listener},
    routes,
    scope::{Scope, Target, class},
    telemetry,
};
use crate::{
    model::{Class, Port, Service, TlsMode},
    resources::Resources,
};

pub(super) fn generate(scope: &Scope<'_>, resources: &mut Resources) {
    let mut build = Builder { scope, wildcards: BTreeMap::new(), bound: BTreeMap::new(), resources };
    for (port, services) in routes::by_port(scope) {
        routes::of_port(scope, port, &services, build.resources);
        build.wildcards.entry(port).or_default().http = true;
    }
    for service in &scope.services {
        for port in scope.ports(service) {
            build.port(service, port);
        }
    }
    build.finish();
    let mut virtual_outbound = virtual_outbound(scope);
    telemetry::count_connections(scope, &mut virtual_outbound);
    access_log::log_connections(scope, &mut virtual_outbound);
    resources.listeners.insert(virtual_outbound.name.clone(), any(virtual_outbound));
}

/// What `0.0.0.0_PORT` serves.
#[derive(Default)]
struct Wildcard {
    http: bool,
    chains: Vec<listener::FilterChain>,
    default: Option<listener::FilterChain>,
}

struct Builder<'a, 'b> {
    scope: &'b Scope<'a>,
    wildcards: BTreeMap<u16, Wildcard>,
    bound: BTreeMap<(IpAddr, u16), listener::Listener>,
    resources: &'b mut Resources,
}

impl Builder<'_, '_> {
    fn port(&mut self, service: &Service, port: &Port) {
        let target = Target { service, port, subset: None, labels: None };
        let class = class(service, port);
        if reaches_pods(&target) {
            self.pods(&target, class);
            return;
        }
        if class == Class::Http {
            return;
        }
        let singles: Vec<IpAddr> = service.addresses.iter().filter_map(|cidr| cidr.single()).collect();
        for ip in &singles {
            self.virtual_address(*ip, service, port, class);
        }
        let prefixes: Vec<_> = service.addresses.iter().copied().filter(|cidr| cidr.single().is_none()).collect();
        if !prefixes.is_empty() || service.addresses.is_empty() {
            let mut chains = l4::chains(self.scope, service, port, &prefixes);
            let wildcard = self.wildcards.entry(port.number).or_default();
            if class == Class::Tls && service.addresses.is_empty() {
                let by_name = chains.default.filter_chain_match.get_or_insert_default();
                by_name.server_names = vec![service.host.clone()];
                wildcard.chains.extend(chains.special);
                wildcard.chains.push(chains.default);
            } else if prefixes.is_empty() {
                wildcard.chains.extend(chains.special);
                wildcard.default.get_or_insert(chains.default);
            } else {
                wildcard.chains.extend(chains.special);
                wildcard.chains.push(chains.default);
            }
        }
    }

    /// A listener for one virtual address.
    fn virtual_address(&mut self, ip: IpAddr, service: &Service, port: &Port, class: Class) {
        let chains = l4::chains(self.scope, service, port, &[]);
        let mut built = bound(ip, port.number);
        built.filter_chains = chains.special;
        match class {
            Class::Auto => {
                let name = routes::of_service(self.scope, service, port, self.resources);
                built.filter_chains.push(self.detected_http(&name));
                built.listener_filters = vec![inspectors::tls(None), inspectors::http(None)];
                detection(&mut built, self.scope.world.settings.outbound_detection);
            }
            Class::Tls if !built.filter_chains.is_empty() || !service.kubernetes => {
                built.listener_filters = vec![inspectors::tls(None)];
                detection(&mut built, self.scope.world.settings.http_detection);
                let mut own = chains.default.clone();
                let by_name = own.filter_chain_match.get_or_insert_default();
                by_name.server_names = vec![service.host.clone()];
                built.filter_chains.push(own);
            }
            Class::Tls | Class::Tcp | Class::Http => {}
        }
        built.default_filter_chain = Some(chains.default);
        match self.bound.entry((ip, port.number)) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(built);
            }
            // Several hosts of one ServiceEntry share an address: told apart by SNI where there is one.
            std::collections::btree_map::Entry::Occupied(mut entry) => {
                entry.get_mut().filter_chains.extend(built.filter_chains);
            }
        }
    }

    fn detected_http(&self, routes: &str) -> listener::FilterChain {
        let manager = filters::http(
            &format!("outbound_{routes}"),
            filters::rds(routes),
            client_side(self.scope),
            ClientCertificate::Remove,
            self.scope.http(),
        );
        listener::FilterChain {
            filter_chain_match: Some(FilterChainMatch {
                transport_protocol: "raw_buffer".to_owned(),
                application_protocols: pb::strings(names::ALPN_PLAIN_HTTP),
                ..Default::default()
            }),
            filters: vec![manager],
            ..Default::default()
        }
    }

    /// A service without virtual address: clients connect to the Pods, whose addresses get listeners.
    fn pods(&mut self, target: &Target<'_>, class: Class) {
        let (service, port) = (target.service, target.port);
        let policy = self.scope.policy(service, None, port.number);
        let forced = policy.tls.as_ref().map(|tls| tls.mode != TlsMode::Disable);
        let any_meshed = target.endpoints().any(|(_, port)| port.mtls);
        for (endpoint, at) in target.endpoints() {
            let Some(ip) = endpoint.address.ip() else { continue };
            let cluster = match (forced, at.mtls) {
                (Some(_), _) | (None, true) => names::outbound(Variant::Pod, port.number, None, &service.host),
                // The cluster of the others speaks mutual TLS, which this one would not understand.
                (None, false) if any_meshed => names::PASSTHROUGH.to_owned(),
                (None, false) => names::outbound(Variant::Pod, port.number, None, &service.host),
            };
            if class == Class::Http && cluster != names::PASSTHROUGH {
                continue;
            }
            let chain = match cluster.as_str() {
                names::PASSTHROUGH => l4::plain(&cluster),
                cluster => l4::plain_with(cluster, l4::settings(self.scope, service, port)),
            };
            let mut built = bound(ip, at.number);
            built.default_filter_chain = Some(chain);
            self.bound.entry((ip, at.number)).or_insert(built);
        }
    }

    fn finish(self) {
        let Self { scope, mut wildcards, bound, resources } = self;
        // These addresses are taken by capture itself: Envoy would refuse the listener that comes second.
        wildcards.retain(|port, _| !scope.world.settings.captures(*port));
        for (_, listener) in bound {
            let mut listener = distinct(listener);
            telemetry::count_connections(scope, &mut listener);
            access_log::log_connections(scope, &mut listener);
            resources.listeners.insert(listener.name.clone(), any(listener));
        }
        for (port, wildcard) in wildcards {
            let mut listener = distinct(of_port(scope, port, wildcard));
            telemetry::count_connections(scope, &mut listener);
            access_log::log_connections(scope, &mut listener);
            resources.listeners.insert(listener.name.clone(), any(listener));
        }
    }
}

/// The filters of the client's side, and the one that counts.
fn client_side(scope: &Scope<'_>) -> Vec<hcm::HttpFilter> {
    let mut filters = filters::client_side();
    let router = filters.len() - 1;
    telemetry::http_filter(scope, false).into_iter().for_each(|filter| filters.insert(router, filter));
    filters
}

/// Leaves each combination of address and name to the first chain that has it: Envoy refuses a listener in which two
/// chains could take the same connection.
fn distinct(mut listener: listener::Listener) -> listener::Listener {
    let mut taken: HashSet<(Vec<u8>, String)> = HashSet::new();
    let mut chains = Vec::new();
    for chain in std::mem::take(&mut listener.filter_chains) {
        let wanted = chain.filter_chain_match.clone().unwrap_or_default();
        let places = if wanted.prefix_ranges.is_empty() {
            vec![Vec::new()]
        } else {
            wanted.prefix_ranges.iter().map(|prefix| vec![prefix.clone()]).collect()
        };
        for prefix_ranges in places {
            let rest = FilterChainMatch { prefix_ranges, server_names: Vec::new(), ..wanted.clone() };
            let key = rest.encode_to_vec();
            let mut new = |name: &String| taken.insert((key.clone(), name.clone()));
            let server_names: Vec<String> = wanted.server_names.iter().filter(|name| new(name)).cloned().collect();
            if server_names.is_empty() && (!wanted.server_names.is_empty() || !new(&String::new())) {
                continue;
            }
            let conditions = FilterChainMatch { server_names, ..rest };
            let filter_chain_match = (conditions != FilterChainMatch::default()).then_some(conditions);
            chains.push(listener::FilterChain { filter_chain_match, ..chain.clone() });
        }
    }
    listener.filter_chains = chains;
    listener
}

fn of_port(scope: &Scope<'_>, port: u16, wildcard: Wildcard) -> listener::Listener {
    let settings = &scope.world.settings;
    let mut built = listener::Listener {
        name: format!("0.0.0.0_{port}"),
        address: pb::address("0.0.0.0", port),
        bind_to_port: pb::no(),
        traffic_direction: core::TrafficDirection::Outbound as i32,
        filter_chains: wildcard.chains,
        default_filter_chain: Some(wildcard.default.unwrap_or_else(|| l4::plain(scope.unknown()))),
        ..Default::default()
    };
    if settings.ipv6 {
        built.additional_addresses =
            vec![listener::AdditionalAddress { address: pb::address("::", port), ..Default::default() }];
    }
    let names_used = |chain: &listener::FilterChain| {
        chain.filter_chain_match.as_ref().is_some_and(|conditions| !conditions.server_names.is_empty())
    };
    let by_name = built.filter_chains.iter().any(names_used);
    if wildcard.http {
        let stat_prefix = format!("outbound_0.0.0.0_{port}");
        let routes = filters::rds(&port.to_string());
        let manager = filters::http(&stat_prefix, routes, client_side(scope), ClientCertificate::Remove, scope.http());
        built.filter_chains.push(listener::FilterChain {
            filter_chain_match: Some(FilterChainMatch {
                transport_protocol: "raw_buffer".to_owned(),
                application_protocols: pb::strings(names::ALPN_PLAIN_HTTP),
                ..Default::default()
            }),
            filters: vec![manager],
            ..Default::default()
        });
    }
    if wildcard.http || by_name {
        built.listener_filters.push(inspectors::tls(None));
        detection(&mut built, settings.http_detection);
    }
    if wildcard.http {
        built.listener_filters.push(inspectors::http(None));
    }
    built
}

fn detection(listener: &mut listener::Listener, timeout: Duration) {
    listener.listener_filters_timeout = pb::duration(timeout);
    listener.continue_on_listener_filters_timeout = true;
}

fn bound(ip: IpAddr, port: u16) -> listener::Listener {
    listener::Listener {
        name: format!("{ip}_{port}"),
        address: pb::address(ip, port),
        bind_to_port: pb::no(),
        traffic_direction: core::TrafficDirection::Outbound as i32,
        ..Default::default()
    }
}

/// The captured address, for IPv4 and, if wanted, IPv6.
pub(super) fn captured(name: &str, port: u16, ipv6: bool) -> listener::Listener {
    let second = || listener::AdditionalAddress { address: pb::address("::", port), ..Default::default() };
    listener::Listener {
        name: name.to_owned(),
        address: pb::address("0.0.0.0", port),
        additional_addresses: ipv6.then(second).into_iter().collect(),
        ..Default::default()
    }
}

fn virtual_outbound(scope: &Scope<'_>) -> listener::Listener {
    let settings = &scope.world.settings;
    let mut listener = captured("virtualOutbound", settings.outbound_port, settings.ipv6);
    listener.use_original_dst = pb::yes();
    listener.traffic_direction = core::TrafficDirection::Outbound as i32;
    let mut black_hole = l4::plain(names::BLACK_HOLE);
    black_hole.name = "virtualOutbound-blackhole".to_owned();
    black_hole.filter_chain_match = Some(FilterChainMatch {
        // Connections made to the port itself would go round in circles.
        destination_port: pb::number(settings.outbound_port.into()),
        ..Default::default()
    });
    let mut through = l4::plain(scope.unknown());
    through.name = "virtualOutbound-catchall-tcp".to_owned();
    listener.filter_chains = vec![black_hole, through];
    listener
}

//! Filter chains for opaque connections: by a VirtualService's `tcp` and `tls` routes, else to the service.

use std::collections::BTreeSet;

use super::{
    balancing,
    filters::{self, Targets, TcpSettings},
    names::{self, Variant},
    pb::{self, listener},
    scope::{Scope, class},
};
use crate::model::{Cidr, Class, L4Destination, Port, Service};

/// The chains of a service's port. The last has no condition but `prefixes` and `names` of its own.
pub(super) struct Chains {
    pub special: Vec<listener::FilterChain>,
    pub default: listener::FilterChain,
}

/// The opaque chains of a port; `prefixes` narrows them to the addresses of the service, where a listener serves more.
pub(super) fn chains(scope: &Scope<'_>, service: &Service, port: &Port, prefixes: &[Cidr]) -> Chains {
    let mut build =
        Builder { scope, service, port, prefixes, special: Vec::new(), seen: BTreeSet::new(), default: None };
    build.routed();
    let targets = build.default.take().unwrap_or_else(|| vec![(own_cluster(scope, service, port), 1)]);
    let default = build.chain(&[], &[], targets);
    Chains { special: build.special, default }
}

/// Opaque bytes straight to the service.
pub(super) fn own_cluster(scope: &Scope<'_>, service: &Service, port: &Port) -> String {
    let variant = if scope.has_twin(service, port, None) { Variant::Tcp } else { Variant::Main };
    names::outbound(variant, port.number, None, &service.host)
}

/// A chain to one cluster, without conditions.
pub(super) fn plain(cluster: &str) -> listener::FilterChain {
    plain_with(cluster, TcpSettings::default())
}

/// As [`plain`], with settings.
pub(super) fn plain_with(cluster: &str, settings: TcpSettings) -> listener::FilterChain {
    let filter = filters::tcp_proxy(cluster, vec![(cluster.to_owned(), 1)], settings);
    listener::FilterChain { filters: vec![filter], ..Default::default() }
}

/// What the DestinationRule of a service says of connections.
pub(super) fn settings(scope: &Scope<'_>, service: &Service, port: &Port) -> TcpSettings {
    let policy = scope.policy(service, None, port.number);
    let by_source = balancing::hash(&policy).is_some_and(|hash| hash.use_source_ip);
    let tcp = policy.connection_pool.unwrap_or_default().tcp;
    let duration = tcp.max_connection_duration.map(|t| t.0);
    TcpSettings { idle: tcp.idle_timeout.map(|t| t.0), duration, by_source }
}

struct Builder<'a, 'b> {
    scope: &'b Scope<'a>,
    service: &'b Service,
    port: &'b Port,
    prefixes: &'b [Cidr],
    special: Vec<listener::FilterChain>,
    /// Conditions used already: the first route wins, and Envoy refuses equal ones.
    seen: BTreeSet<(String, Option<Cidr>)>,
    default: Option<Targets>,
}

impl Builder<'_, '_> {
    fn routed(&mut self) {
        let Some(object) = self.scope.virtual_service(&self.service.host) else { return };
        let number = self.port.number;
        if class(self.service, self.port) == Class::Tls {
            for route in &object.spec.tls {
                for wanted in &route.matches {
                    let source = wanted.source_namespace.as_deref();
                    if wanted.port.is_none_or(|p| p == number)
                        && self.scope.is_source(&wanted.source_labels, source, &wanted.gateways)
                    {
                        self.add(&wanted.sni_hosts, &wanted.destination_subnets, &route.route);
                    }
                }
            }
        }
        for route in &object.spec.tcp {
            if route.matches.is_empty() {
                self.add(&[], &[], &route.route);
            }
            for wanted in &route.matches {
                let source = wanted.source_namespace.as_deref();
                if wanted.port.is_none_or(|p| p == number)
                    && self.scope.is_source(&wanted.source_labels, source, &wanted.gateways)
                {
                    self.add(&[], &wanted.destination_subnets, &route.route);
                }
            }
            if self.default.is_some() {
                break;
            }
        }
    }

    fn add(&mut self, names: &[String], subnets: &[String], route: &[L4Destination]) {
        let cluster = |to: &L4Destination| (self.scope.cluster(&to.destination, self.port.number, true), to.weight);
        let targets: Targets = route.iter().map(cluster).collect();
        if names.is_empty() && subnets.is_empty() {
            self.default.get_or_insert(targets);
            return;
        }
        let subnets: Vec<Cidr> = subnets.iter().filter_map(|text| Cidr::parse(text)).collect();
        let places: Vec<Option<Cidr>> =
            if subnets.is_empty() { vec![None] } else { subnets.into_iter().map(Some).collect() };
        let names: Vec<String> = if names.is_empty() { vec![String::new()] } else { names.to_vec() };
        // One chain per pair: conditions that overlap only in part stay apart.
        for place in places {
            let unused: Vec<String> =
                names.iter().filter(|name| self.seen.insert(((*name).clone(), place))).cloned().collect();
            if unused.is_empty() {
                continue;
            }
            let unused: Vec<String> = unused.into_iter().filter(|name| !name.is_empty()).collect();
            let place: Vec<Cidr> = place.into_iter().collect();
            let chain = self.chain(&unused, &place, targets.clone());
            self.special.push(chain);
        }
    }

    fn chain(&self, server_names: &[String], subnets: &[Cidr], targets: Targets) -> listener::FilterChain {
        let prefixes = if subnets.is_empty() { self.prefixes } else { subnets };
        let conditions = listener::FilterChainMatch {
            prefix_ranges: prefixes.iter().map(|prefix| pb::cidr(*prefix)).collect(),
            server_names: server_names.to_vec(),
            ..Default::default()
        };
        let stat_prefix = match targets.as_slice() {
            [(only, _)] => only.clone(),
            _ => names::outbound(Variant::Main, self.port.number, None, &self.service.host),
        };
        let settings = settings(self.scope, self.service, self.port);
        listener::FilterChain {
            filter_chain_match: (conditions != Default::default()).then_some(conditions),
            filters: vec![filters::tcp_proxy(&stat_prefix, targets, settings)],
            ..Default::default()
        }
    }
}

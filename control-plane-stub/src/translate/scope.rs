//! The world as one client sees it: who it is, which services it sees, which rules hold for its calls.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{
    filters::HttpSettings,
    names::{self, Variant},
};
use crate::{
    model::{
        Address, Class, Destination, DestinationRule, Endpoint, EndpointPort, Locality, Object, OutboundMode, Port,
        Resolution, Service, Sidecar, TlsMode, TrafficPolicy, VirtualService, World,
    },
    resources::{ClientKind, Node},
};

pub(super) struct Scope<'a> {
    pub world: &'a World,
    pub kind: ClientKind,
    pub namespace: &'a str,
    /// The workload's, as the operator declared them; else as the client says.
    pub labels: &'a BTreeMap<String, String>,
    pub locality: &'a Locality,
    pub ips: Vec<IpAddr>,
    /// What the client may call by name. Sorted by host.
    pub services: Vec<&'a Service>,
    /// What its calls may end at: the above, and where the routes for them lead.
    pub reached: Vec<&'a Service>,
    pub sidecar: Option<&'a Object<Sidecar>>,
}

/// A port of a service, or of a subset of its endpoints.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub service: &'a Service,
    pub port: &'a Port,
    pub subset: Option<&'a str>,
    pub labels: Option<&'a BTreeMap<String, String>>,
}

impl<'a> Scope<'a> {
    pub(super) fn new(world: &'a World, node: &'a Node) -> Self {
        let workload = world.workload((&node.namespace, &node.service_account, node.workload()), &node.ips);
        let mut ips: BTreeSet<IpAddr> = node.ips.iter().copied().collect();
        ips.extend(workload.into_iter().flat_map(|w| w.addresses.iter().filter_map(Address::ip)));
        let labels = workload.map_or(&node.labels, |w| &w.labels);
        let known = workload.map(|w| &w.locality).filter(|locality| **locality != Locality::default());
        let sidecar = world.sidecar(&node.namespace, labels);
        let seen = |service: &&Service| service.visibility.includes(&node.namespace);
        let imported = |service: &&Service| sidecar.is_none_or(|s| s.spec.imports_service(&node.namespace, service));
        let mut scope = Self {
            world,
            kind: node.kind,
            namespace: &node.namespace,
            labels,
            locality: known.unwrap_or(&node.locality),
            ips: ips.into_iter().collect(),
            services: world.services.values().filter(|s| seen(s) && imported(s)).collect(),
            reached: Vec::new(),
            sidecar,
        };
        scope.reached = scope.services.clone();
        if sidecar.is_some() {
            let followed = world
                .virtual_services
                .iter()
                .filter(|(visibility, object)| visibility.includes(scope.namespace) && scope.is_imported(object));
            let hosts: BTreeSet<&str> = followed.flat_map(|(_, object)| object.spec.reached()).collect();
            scope.reach(hosts.into_iter().filter_map(|host| world.services.get(host)).filter(seen));
        }
        // Whom the security policies ask, and where limits are counted, is reached whatever the workload itself may call.
        let asked = super::authorization::asked(&scope);
        scope.reach(asked.into_iter());
        let counting = world.rate_limits(&node.namespace, labels).filter_map(|o| o.spec.global.service.as_ref());
        let counting: Vec<_> = counting.filter_map(|service| world.services.get(&service.host)).collect();
        scope.reach(counting.into_iter());
        let collector = world.mesh.tracing().and_then(|(provider, _)| world.services.get(&provider.service));
        scope.reach(collector.into_iter());
        scope
    }

    fn reach(&mut self, more: impl Iterator<Item = &'a Service>) {
        let known: BTreeSet<&str> = self.reached.iter().map(|s| s.host.as_str()).collect();
        let more: Vec<_> = more.filter(|service| !known.contains(service.host.as_str())).collect();
        if !more.is_empty() {
            self.reached.extend(more);
            self.reached.sort_by(|a, b| a.host.cmp(&b.host));
            self.reached.dedup_by(|a, b| a.host == b.host);
        }
    }

    /// The names of the Services of its namespace that lead to this workload; to `port` of it, if given. None where no
    /// policy asks for Services.
    pub(super) fn own_services(&self, port: Option<u16>) -> Vec<String> {
        if !self.world.has_policies_of_services() {
            return Vec::new();
        }
        let leads = |ports: &[u16]| port.is_none_or(|port| ports.contains(&port));
        let own = self.own().filter(|service| self.ports_here(service).any(leads));
        own.map(|service| service.name.clone()).collect()
    }

    /// The ports here to which Services lead that policies are for.
    pub(super) fn guarded_ports(&self) -> BTreeSet<u16> {
        let guarded = self.own().filter(|service| self.world.has_policies_of(service));
        guarded.flat_map(|service| self.ports_here(service)).flatten().copied().collect()
    }

    fn own(&self) -> impl Iterator<Item = &'a Service> {
        self.world.services.values().filter(|s| s.kubernetes && s.namespace == self.namespace)
    }

    /// Of each time the service has this workload behind it. Ready or not: who knows the address comes by it anyway.
    fn ports_here(&self, service: &'a Service) -> impl Iterator<Item = &'a [u16]> {
        let here = |address: &Address| address.ip().is_some_and(|ip| self.ips.contains(&ip));
        service.behind.iter().filter(move |(address, _)| here(address)).map(|(_, ports)| ports.as_slice())
    }

    /// How HTTP is treated alike everywhere.
    pub(super) fn http(&self) -> HttpSettings {
        HttpSettings {
            preserve_case: self.world.settings.preserve_header_case,
            normalization: self.world.mesh.path_normalization.normalization,
            tracing: super::tracing::of(self),
            access_log: super::access_log::of(self),
        }
    }

    pub(super) fn is_imported(&self, object: &Object<VirtualService>) -> bool {
        let imports = |sidecar: &Object<Sidecar>, host: &String| {
            sidecar.spec.imports(self.namespace, &object.meta.namespace, host)
        };
        self.sidecar.is_none_or(|sidecar| object.spec.hosts.iter().any(|host| imports(sidecar, host)))
    }

    /// The ports on which the client may call a service.
    pub(super) fn ports(&self, service: &'a Service) -> impl Iterator<Item = &'a Port> {
        let imported = move |port: &&Port| {
            self.sidecar.is_none_or(|sidecar| sidecar.spec.imports_port(self.namespace, service, port.number))
        };
        service.ports.iter().filter(imported)
    }

    pub(super) fn virtual_service(&self, host: &str) -> Option<&'a Object<VirtualService>> {
        self.world.virtual_services(self.namespace, host).find(|object| self.is_imported(object))
    }

    pub(super) fn destination_rule(&self, service: &Service) -> Option<&'a Object<DestinationRule>> {
        self.world.destination_rule((self.namespace, self.labels), &service.namespace, &service.host)
    }

    /// The policy of the DestinationRule that holds, or an empty one.
    pub(super) fn policy(&self, service: &Service, subset: Option<&str>, port: u16) -> TrafficPolicy {
        self.destination_rule(service).map(|rule| rule.spec.policy(subset, port)).unwrap_or_default()
    }

    /// Where calls to nobody known go.
    pub(super) fn unknown(&self) -> &'static str {
        match self.sidecar.and_then(|sidecar| sidecar.spec.outbound_mode()) {
            None | Some(OutboundMode::AllowAny) => names::PASSTHROUGH,
            Some(OutboundMode::RegistryOnly) => names::BLACK_HOLE,
        }
    }

    /// The host itself and its subsets, for each of its ports.
    pub(super) fn targets(&self, service: &'a Service) -> Vec<Target<'a>> {
        let rule = self.destination_rule(service);
        let subsets = rule.map(|rule| rule.spec.subsets.as_slice()).unwrap_or_default();
        let mut targets = Vec::new();
        for port in &service.ports {
            targets.push(Target { service, port, subset: None, labels: None });
            targets.extend(subsets.iter().map(|subset| Target {
                service,
                port,
                subset: Some(&subset.name),
                labels: Some(&subset.labels),
            }));
        }
        targets
    }

    /// Whether rules for sources (`sourceLabels`, `sourceNamespace`, `gateways`) take this client.
    pub(super) fn is_source(
        &self,
        labels: &BTreeMap<String, String>,
        namespace: Option<&str>,
        gateways: &[String],
    ) -> bool {
        labels.iter().all(|(key, value)| self.labels.get(key) == Some(value))
            && namespace.is_none_or(|wanted| wanted == self.namespace)
            && (gateways.is_empty() || gateways.iter().any(|g| g == "mesh"))
    }

    /// Service and port of a destination, called through port `called` of the routed host.
    pub(super) fn destination(&self, destination: &Destination, called: u16) -> Option<(&'a Service, u16)> {
        let service = self.world.services.get(&destination.host)?;
        let number = match (&destination.port, service.ports.as_slice()) {
            (Some(port), _) => port.number,
            (None, [only]) => only.number,
            (None, _) => called,
        };
        Some((service, number))
    }

    /// The cluster of a destination, called through port `called` of the routed host.
    pub(super) fn cluster(&self, destination: &Destination, called: u16, carries_tcp: bool) -> String {
        let Some((service, number)) = self.destination(destination, called) else {
            return names::BLACK_HOLE.to_owned();
        };
        let port = service.port(number);
        let twin = carries_tcp && port.is_some_and(|port| self.has_twin(service, port, destination.subset.as_deref()));
        let variant = if twin { Variant::Tcp } else { Variant::Main };
        names::outbound(variant, number, destination.subset.as_deref(), &destination.host)
    }

    /// Whether opaque bytes to a port of unknown protocol need a cluster of their own: only the mesh's TLS tells them
    /// apart from HTTP.
    pub(super) fn has_twin(&self, service: &Service, port: &Port, subset: Option<&str>) -> bool {
        let mode = || self.policy(service, subset, port.number).tls.map(|tls| tls.mode);
        class(service, port) == Class::Auto
            && match mode() {
                None => !service.external,
                Some(mode) => mode == TlsMode::IstioMutual,
            }
    }
}

/// How a port is proxied. Without an address of its own, nothing can be detected: it is opaque.
pub(super) fn class(service: &Service, port: &Port) -> Class {
    match port.protocol.class() {
        Class::Auto if !service.addresses.iter().any(|cidr| cidr.single().is_some()) => Class::Tcp,
        class => class,
    }
}

impl<'a> Target<'a> {
    /// The endpoints of the port, of the subset if it is one.
    pub(super) fn endpoints(&self) -> impl Iterator<Item = (&'a Endpoint, EndpointPort)> + use<'a> {
        let (number, labels) = (self.port.number, self.labels);
        let wanted = move |e: &&Endpoint| labels.is_none_or(|l| l.iter().all(|(k, v)| e.labels.get(k) == Some(v)));
        self.service.endpoints.iter().filter(wanted).filter_map(move |e| Some((e, *e.ports.get(&number)?)))
    }

    /// Whom to expect there.
    pub(super) fn identities(&self, scope: &Scope<'_>) -> BTreeSet<String> {
        let known = |(e, _): &(&Endpoint, EndpointPort)| !e.service_account.is_empty();
        let of = |domain: &str, e: &Endpoint| format!("spiffe://{domain}/ns/{}/sa/{}", e.namespace, e.service_account);
        let endpoints = self.endpoints().filter(known);
        endpoints.flat_map(|(e, _)| scope.world.trust_domains().map(move |domain| of(domain, e))).collect()
    }

    /// Whether its endpoints come over EDS.
    pub(super) fn is_eds(&self) -> bool {
        self.service.resolution == Resolution::Endpoints
    }
}

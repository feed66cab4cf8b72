//! `virtualInbound`: for each port of the workload the chains that its PeerAuthentication allows, and for all other
//! ports those of the workload's default.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    access_log,
    authorization::{self, Guards},
    filters::{self, ClientCertificate, TcpSettings},
    http_route, inspectors,
    limits::{self, Limits},
    names::{self, ALPN_HTTP, ALPN_PLAIN_HTTP, ALPN_TCP},
    outbound,
    pb::{self, any, core, hcm, listener, route, upstream_http},
    policy, routes,
    scope::Scope,
    special, telemetry, tls, tokens,
};
use crate::{
    model::{Address, Class, ConnectionPool, H2Upgrade, IngressEndpoint, IngressListener, Mode, Protocol, Service},
    resources::Resources,
};
use pb::cluster::cluster::{LbConfig, OriginalDstLbConfig};
use upstream_http::http_protocol_options::explicit_http_config::ProtocolConfig;

const SERVER_ALPN_HTTP: &[&str] = &["h2", "http/1.1"];
const SERVER_ALPN_TCP: &[&str] = &["istio", "h2", "http/1.1"];

/// Metadata by which the proxy tells what policies that are only tried would do. Envoy passes it over.
const DRY_RUN: &str = "outrigger.dev/dry_run";

/// A port on which the application listens.
struct Port<'a> {
    protocol: Protocol,
    host: &'a str,
    service_port: u16,
    endpoint: IngressEndpoint,
    pool: Option<ConnectionPool>,
    /// Some client speaks HTTP/2 to the sidecar although the application may not know it.
    upgraded: bool,
}

pub(super) fn generate(scope: &Scope<'_>, resources: &mut Resources) {
    let ports = ports(scope);
    for (number, port) in &ports {
        let mut cluster = cluster(scope, *number, port);
        if !port.host.is_empty() {
            let name = port.host.split('.').next().unwrap_or(port.host);
            telemetry::name_service(scope, &mut cluster, (port.host, name, scope.namespace));
        }
        resources.clusters.insert(cluster.name.clone(), any(cluster));
    }
    tokens::clusters(scope, resources);
    let mut listener = virtual_inbound(scope, &ports);
    telemetry::count_connections(scope, &mut listener);
    access_log::log_connections(scope, &mut listener);
    resources.listeners.insert(listener.name.clone(), any(listener));
}

/// The ports that a Sidecar lists, else those of the services here.
fn ports<'a>(scope: &Scope<'a>) -> BTreeMap<u16, Port<'a>> {
    let mut known = of_services(scope);
    let Some(sidecar) = scope.sidecar.map(|object| &object.spec) else { return known };
    let whole = &sidecar.inbound_connection_pool;
    for port in known.values_mut() {
        port.pool = whole.clone().or(port.pool.take());
    }
    if sidecar.ingress.is_empty() {
        return known;
    }
    let port = |listener: &IngressListener| {
        let service = known.remove(&listener.port);
        let (host, service_port, upgraded) =
            service.as_ref().map_or(("", listener.port, false), |s| (s.host, s.service_port, s.upgraded));
        let pool = listener.connection_pool.clone().or(whole.clone()).or(service.and_then(|s| s.pool));
        let (protocol, endpoint) = (listener.protocol, listener.endpoint);
        (listener.port, Port { protocol, host, service_port, endpoint, pool, upgraded })
    };
    sidecar.ingress.iter().map(port).collect()
}

/// The ports of all services with an endpoint here. Where two disagree on the protocol, the bytes decide.
fn of_services<'a>(scope: &Scope<'a>) -> BTreeMap<u16, Port<'a>> {
    let mut ports: BTreeMap<u16, Port<'a>> = BTreeMap::new();
    for service in scope.world.services.values().filter(|service| !service.external) {
        let here = |address: &Address| address.ip().is_some_and(|ip| scope.ips.contains(&ip));
        for endpoint in service.endpoints.iter().filter(|e| here(&e.address) && e.namespace == scope.namespace) {
            for (number, at) in &endpoint.ports {
                let Some(declared) = service.port(*number) else { continue };
                let upgraded = upgraded(scope, service, *number);
                let new = || Port {
                    protocol: declared.protocol,
                    host: &service.host,
                    service_port: *number,
                    endpoint: IngressEndpoint::Same,
                    // Istio's rule: what limits the callers of a service limits the service too.
                    pool: scope.policy(service, None, *number).connection_pool,
                    upgraded,
                };
                let known = ports.entry(at.number).or_insert_with(new);
                known.upgraded |= upgraded;
                if known.protocol != declared.protocol {
                    known.protocol = Protocol::Auto;
                }
            }
        }
    }
    ports
}

fn upgraded(scope: &Scope<'_>, service: &Service, port: u16) -> bool {
    scope.world.destination_rules.iter().any(|(_, rule)| {
        let covers = crate::model::covers(&rule.spec.host, &service.host);
        let policies = std::iter::once(None).chain(rule.spec.subsets.iter().map(|subset| Some(subset.name.as_str())));
        let asks = |subset| rule.spec.policy(subset, port).connection_pool.and_then(|pool| pool.http.h2_upgrade_policy);
        covers && policies.into_iter().any(|subset| asks(subset) == Some(H2Upgrade::Upgrade))
    })
}

fn cluster(scope: &Scope<'_>, number: u16, port: &Port<'_>) -> pb::cluster::Cluster {
    let preserve_case = scope.world.settings.preserve_header_case;
    let mut cluster = special::original_dst(names::inbound(number));
    cluster.upstream_bind_config = Some(special::loop_guard());
    match port.endpoint {
        IngressEndpoint::Same => {}
        IngressEndpoint::Port(number) => {
            let config =
                OriginalDstLbConfig { upstream_port_override: pb::number(number.into()), ..Default::default() };
            cluster.lb_config = Some(LbConfig::OriginalDstLbConfig(config));
        }
        IngressEndpoint::Loopback(at) => cluster = special::fixed(names::inbound(number), at),
    }
    let pool = port.pool.clone().unwrap_or_default();
    policy::connections(&mut cluster, &pool, None);
    let mut options = match port.protocol.class() {
        Class::Tcp | Class::Tls => return cluster,
        _ if port.protocol.is_http2() => policy::explicit(ProtocolConfig::Http2ProtocolOptions(Default::default())),
        Class::Http if port.upgraded => {
            policy::explicit(ProtocolConfig::HttpProtocolOptions(filters::http1_options(preserve_case)))
        }
        Class::Http | Class::Auto => policy::downstream_version(Default::default(), preserve_case),
    };
    policy::limit(&mut options, &pool);
    policy::set_http_options(&mut cluster, options);
    cluster
}

fn virtual_inbound(scope: &Scope<'_>, ports: &BTreeMap<u16, Port<'_>>) -> listener::Listener {
    let settings = &scope.world.settings;
    let peers = scope.world.peer_policy(scope.namespace, scope.labels);
    let tried = scope.world.peer_authentication(scope.namespace, scope.labels, true).policy();
    let mut listener = outbound::captured("virtualInbound", settings.inbound_port, settings.ipv6);
    listener.traffic_direction = core::TrafficDirection::Inbound as i32;
    let mut black_hole = super::l4::plain(names::BLACK_HOLE);
    black_hole.name = "virtualInbound-blackhole".to_owned();
    black_hole.filter_chain_match = Some(listener::FilterChainMatch {
        destination_port: pb::number(settings.inbound_port.into()),
        ..Default::default()
    });
    listener.filter_chains.push(black_hole);

    let of_workload = authorization::guards(scope, &[]);
    let guards = |port| match scope.own_services(Some(port)).as_slice() {
        [] => of_workload.clone(),
        services => authorization::guards(scope, services),
    };
    let (mut tls, mut http) = (inspectors::Need::default(), inspectors::Need::default());
    for (number, port) in ports.iter().filter(|(number, _)| **number != settings.inbound_port) {
        let mode = peers.of(*number);
        let place = Place {
            guards: guards(*number),
            would_be_strict: tried.of(*number) == Mode::Strict,
            ..Place::of_port(*number, port)
        };
        tls.set(*number, needs_tls(mode));
        http.set(*number, needs_http(mode, place.class));
        listener.filter_chains.extend(place.chains(scope, mode));
    }
    // Ports that are not listed, but for which a policy or a limit is. Those of a Service that is guarded are not
    // listed where a Sidecar leaves them out, or while the workload is not ready.
    let more = limits::ports(scope).into_iter().chain(scope.guarded_ports());
    let named: BTreeSet<u16> = peers.ports.keys().chain(tried.ports.keys()).copied().chain(more).collect();
    for number in named.iter().filter(|number| !ports.contains_key(number) && **number != settings.inbound_port) {
        let mode = &peers.of(*number);
        let would_be_strict = tried.of(*number) == Mode::Strict;
        let place = Place { port: Some(*number), guards: guards(*number), would_be_strict, ..Place::elsewhere() };
        tls.set(*number, needs_tls(*mode));
        http.set(*number, needs_http(*mode, place.class));
        listener.filter_chains.extend(place.chains(scope, *mode));
    }
    let elsewhere =
        Place { guards: of_workload.clone(), would_be_strict: tried.default == Mode::Strict, ..Place::elsewhere() };
    (tls.elsewhere, http.elsewhere) = (needs_tls(peers.default), needs_http(peers.default, elsewhere.class));
    listener.filter_chains.extend(elsewhere.chains(scope, peers.default));

    listener.listener_filters.push(inspectors::original_dst());
    if let (true, disabled) = tls.predicate() {
        listener.listener_filters.push(inspectors::tls(disabled));
    }
    if let (true, disabled) = http.predicate() {
        listener.listener_filters.push(inspectors::http(disabled));
    }
    listener.listener_filters_timeout = pb::duration(settings.inbound_detection);
    listener.continue_on_listener_filters_timeout = true;
    listener
}

fn needs_tls(mode: Mode) -> bool {
    mode != Mode::Disable
}

/// Over the mesh's TLS, ALPN tells; in plaintext only the bytes do.
fn needs_http(mode: Mode, class: Class) -> bool {
    mode != Mode::Strict && class == Class::Auto
}

/// The connections that one set of chains is for.
struct Place {
    /// Every port, if none.
    port: Option<u16>,
    class: Class,
    cluster: String,
    name: String,
    http_name: String,
    virtual_host: String,
    guards: Guards,
    /// A policy that is only tried would refuse plaintext here.
    would_be_strict: bool,
}

/// One chain: how it is told from its siblings.
struct Kind {
    transport: &'static str,
    alpn: Vec<&'static str>,
    mutual_tls: bool,
    http: bool,
}

impl Place {
    fn of_port(number: u16, port: &Port<'_>) -> Self {
        let class = match port.protocol.class() {
            Class::Tls => Class::Tcp,
            class => class,
        };
        Self {
            port: Some(number),
            class,
            cluster: names::inbound(number),
            name: format!("0.0.0.0_{number}"),
            http_name: format!("0.0.0.0_{number}"),
            virtual_host: format!("inbound|http|{}|{}", port.service_port, port.host),
            guards: Guards::default(),
            would_be_strict: false,
        }
    }

    fn elsewhere() -> Self {
        Self {
            port: None,
            class: Class::Auto,
            cluster: names::INBOUND_PASSTHROUGH.to_owned(),
            name: "virtualInbound".to_owned(),
            http_name: "virtualInbound-catchall-http".to_owned(),
            virtual_host: "inbound|http|0".to_owned(),
            guards: Guards::default(),
            would_be_strict: false,
        }
    }

    fn chains(&self, scope: &Scope<'_>, mode: Mode) -> Vec<listener::FilterChain> {
        kinds(mode, self.class).into_iter().map(|kind| self.chain(scope, kind)).collect()
    }

    fn chain(&self, scope: &Scope<'_>, kind: Kind) -> listener::FilterChain {
        let limits = Limits::of(scope, self.port);
        let mut filters = Vec::new();
        if kind.http {
            let certificate = if kind.mutual_tls { ClientCertificate::Append } else { ClientCertificate::Remove };
            let stat_prefix = match self.port {
                Some(port) => format!("inbound_0.0.0.0_{port}"),
                None => self.cluster.clone(),
            };
            // Behind the guards: what they refuse takes nothing from a limit.
            let mut http_filters = self.guards.http.clone();
            http_filters.extend(limits.http(kind.mutual_tls));
            http_filters.extend(telemetry::http_filter(scope, true));
            http_filters.push(filters::router());
            let routes = self.routes(limits.headers());
            filters.push(filters::http(&stat_prefix, routes, http_filters, certificate, scope.http()));
        } else {
            filters.extend(self.guards.tcp.iter().cloned());
            filters.extend(limits.tcp());
            let target = vec![(self.cluster.clone(), 1)];
            filters.push(filters::tcp_proxy(&self.cluster, target, TcpSettings::default()));
        }
        let alpn = if kind.http { SERVER_ALPN_HTTP } else { SERVER_ALPN_TCP };
        listener::FilterChain {
            name: if kind.http { self.http_name.clone() } else { self.name.clone() },
            filter_chain_match: Some(listener::FilterChainMatch {
                destination_port: self.port.and_then(|port| pb::number(port.into())),
                transport_protocol: kind.transport.to_owned(),
                application_protocols: pb::strings(kind.alpn),
                ..Default::default()
            }),
            filters,
            // Chains that STRICT would not have: who comes here would be refused.
            metadata: (self.would_be_strict && !kind.mutual_tls).then(|| pb::flag(DRY_RUN, "strict_mtls")),
            transport_socket: kind.mutual_tls.then(|| tls::downstream(scope, alpn)),
            ..Default::default()
        }
    }

    fn routes(&self, unseen: Vec<String>) -> hcm::http_connection_manager::RouteSpecifier {
        let mut to_application = http_route::default(self.cluster.clone(), None);
        if let Some(route::route::Action::Route(action)) = &mut to_application.action {
            // The client's side retries: doing it on both would multiply.
            action.retry_policy = None;
        }
        let mut host = routes::virtual_host(&self.virtual_host, 0, vec!["*".to_owned()], vec![to_application]);
        host.name.clone_from(&self.virtual_host);
        // The count is the client side's to tell.
        host.include_request_attempt_count = false;
        host.request_headers_to_remove = unseen;
        let config = route::RouteConfiguration {
            name: self.cluster.clone(),
            virtual_hosts: vec![host],
            validate_clusters: pb::no(),
            ..Default::default()
        };
        hcm::http_connection_manager::RouteSpecifier::RouteConfig(config)
    }
}

/// The chains of a mode and class, in Istio's order.
fn kinds(mode: Mode, class: Class) -> Vec<Kind> {
    let every = || ALPN_HTTP.into_iter().chain(ALPN_TCP).collect::<Vec<_>>();
    let mutual = |alpn: Vec<&'static str>, http| Kind { transport: "tls", alpn, mutual_tls: true, http };
    let raw = |alpn: Vec<&'static str>, http| Kind { transport: "raw_buffer", alpn, mutual_tls: false, http };
    let foreign_tls = || Kind { transport: "tls", alpn: Vec::new(), mutual_tls: false, http: false };
    match (mode, class) {
        (Mode::Permissive | Mode::Unset, Class::Auto) => vec![
            mutual(ALPN_HTTP.to_vec(), true),
            raw(ALPN_PLAIN_HTTP.to_vec(), true),
            mutual(ALPN_TCP.to_vec(), false),
            raw(Vec::new(), false),
            foreign_tls(),
        ],
        (Mode::Permissive | Mode::Unset, Class::Http) => vec![mutual(every(), true), raw(Vec::new(), true)],
        (Mode::Permissive | Mode::Unset, Class::Tcp | Class::Tls) => {
            vec![mutual(every(), false), foreign_tls(), raw(Vec::new(), false)]
        }
        (Mode::Strict, Class::Auto) => vec![mutual(ALPN_HTTP.to_vec(), true), mutual(Vec::new(), false)],
        (Mode::Strict, class) => vec![mutual(Vec::new(), class == Class::Http)],
        (Mode::Disable, Class::Auto) => vec![raw(ALPN_PLAIN_HTTP.to_vec(), true), raw(Vec::new(), false)],
        (Mode::Disable, class) => vec![raw(Vec::new(), class == Class::Http)],
    }
}

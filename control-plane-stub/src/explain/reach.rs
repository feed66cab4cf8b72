//! From a name to the listener and filter chain that take the connection.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use outrigger_proxy::{ir::listener::Transport, policy::chain::ChainFacts};
use outrigger_wire::pb::envoy::{
    config::listener::v3 as listener,
    extensions::filters::network::{
        http_connection_manager::v3::{HttpConnectionManager, http_connection_manager::RouteSpecifier},
        tcp_proxy::v3::TcpProxy,
    },
};

use super::{Kind, Listener, Request, decide, read};
use crate::{
    model::{Service, World, covers},
    resources::{Node, Resources},
};

/// An address that is nobody's, for names that only the client's resolver knows.
const SOMEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// Where a client connects to.
pub(super) struct Reached<'a> {
    pub service: Option<&'a Service>,
    pub address: SocketAddr,
    /// Whether the address follows from the documents.
    pub known: bool,
}

pub(super) fn reach<'a>(world: &'a World, node: &Node, request: &Request) -> Reached<'a> {
    let at = |ip| SocketAddr::new(ip, request.port);
    if let Ok(ip) = request.host.trim_matches(['[', ']']).parse::<IpAddr>() {
        let mut services = world.services.values().filter(|s| s.visibility.includes(&node.namespace));
        let service = services.find(|s| s.addresses.iter().any(|cidr| cidr.single() == Some(ip)));
        return Reached { service, address: at(ip), known: true };
    }
    let service = named(world, node, &request.host.to_ascii_lowercase());
    let virtual_ip = service.and_then(|s| s.addresses.iter().find_map(|cidr| cidr.single()));
    let pod = || service.and_then(|s| s.endpoints.iter().find_map(|endpoint| endpoint.address.ip()));
    let own = service.filter(|s| s.kubernetes).and_then(|_| pod());
    let prefix = service.and_then(|s| s.addresses.first()).map(|cidr| cidr.address);
    let found = virtual_ip.or(own).or(prefix);
    Reached { service, address: at(found.unwrap_or(SOMEWHERE)), known: found.is_some() }
}

/// As a Pod's resolver completes names.
fn named<'a>(world: &'a World, node: &Node, host: &str) -> Option<&'a Service> {
    let domain = &world.settings.cluster_domain;
    let names = [
        host.to_owned(),
        format!("{host}.{}.svc.{domain}", node.namespace),
        format!("{host}.svc.{domain}"),
        format!("{host}.{domain}"),
    ];
    let exact = names.iter().find_map(|name| world.services.get(name));
    exact.or_else(|| world.services.values().find(|s| s.host.starts_with('*') && covers(&s.host, host)))
}

/// The listener of the address, else that of the port, else the one for everything.
pub(super) fn listener(resources: &Resources, reached: &Reached<'_>) -> Result<(String, Listener), String> {
    let (ip, port) = (reached.address.ip(), reached.address.port());
    let names = [format!("{ip}_{port}"), format!("0.0.0.0_{port}"), "virtualOutbound".to_owned()];
    for name in names {
        if let Some(any) = resources.listeners.get(&name) {
            return Ok((name.clone(), read(&any.value, &format!("the listener {name}"))?));
        }
    }
    Err("this client has no listeners: it is not a sidecar".to_owned())
}

pub(super) fn chain<'a>(
    listener: &'a Listener,
    reached: &Reached<'_>,
    request: &Request,
) -> Result<Option<&'a listener::FilterChain>, String> {
    let inspects = |name: &str| listener.listener_filters.iter().any(|filter| filter.name.ends_with(name));
    let tls = request.kind == Kind::Tls && inspects("tls_inspector");
    let alpn: Vec<Box<str>> =
        if request.kind == Kind::Http && inspects("http_inspector") { vec!["http/1.1".into()] } else { Vec::new() };
    let source = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
    let facts = ChainFacts {
        destination: reached.address,
        server_name: request.server_name.as_deref().filter(|_| tls),
        transport: if tls { Transport::Tls } else { Transport::RawBuffer },
        alpn: &alpn,
        direct_source: source,
        source: SocketAddr::new(source, 1024),
    };
    let place = decide::chain(listener, &facts)?;
    Ok(place.and_then(|place| listener.filter_chains.get(place)).or(listener.default_filter_chain.as_ref()))
}

/// What a filter chain ends with.
pub(super) enum End {
    /// The name of its routes.
    Http(String),
    Tcp(Box<TcpProxy>),
}

pub(super) fn end(chain: &listener::FilterChain) -> Result<End, String> {
    for filter in &chain.filters {
        let Some(listener::filter::ConfigType::TypedConfig(any)) = &filter.config_type else { continue };
        if any.type_url.ends_with(".TcpProxy") {
            return Ok(End::Tcp(Box::new(read(&any.value, "tcp_proxy")?)));
        }
        if any.type_url.ends_with(".HttpConnectionManager") {
            let manager: HttpConnectionManager = read(&any.value, "http_connection_manager")?;
            return match manager.route_specifier {
                Some(RouteSpecifier::Rds(rds)) => Ok(End::Http(rds.route_config_name)),
                _ => Err("the routes of the listener are not among the resources".to_owned()),
            };
        }
    }
    Err("the filter chain has no end".to_owned())
}

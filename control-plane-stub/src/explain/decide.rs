//! The proxy's decisions over messages as they are sent.
//!
//! What decides (domains, route matches, filter chain matches) is taken over as it is; what would only be done after
//! the decision is left out, so that a message the proxy would refuse for its actions can still be explained.

use std::sync::Arc;

use outrigger_proxy::{
    policy::{
        chain::{ChainFacts, ChainIndex},
        router::{Miss, RequestFacts, RouteTable},
    },
    xds::decode::{self, Notes, Resource},
};
use outrigger_wire::{
    pack_any,
    pb::envoy::{
        config::{listener::v3 as listener, route::v3 as route},
        extensions::filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy::ClusterSpecifier},
    },
};

use super::Request;

/// Places in the configuration: virtual host, then route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    NoHost,
    NoRoute(usize),
    Route(usize, usize),
}

/// One resource as the proxy reads it.
pub(super) fn decoded(any: &outrigger_wire::pb::google::protobuf::Any) -> Result<Resource, String> {
    decode::resource(any, &mut Notes::default()).map_err(|reject| format!("the proxy would refuse it: {reject}"))
}

/// The virtual host and route of a request.
pub(super) fn route(config: &route::RouteConfiguration, request: &Request) -> Result<Choice, String> {
    // An answer in the place of each action: the proxy takes it whatever else it can do.
    let answer = route::DirectResponseAction { status: 200, ..Default::default() };
    let bare = |(place, sent): (usize, &route::Route)| route::Route {
        name: place.to_string(),
        r#match: sent.r#match.clone(),
        action: Some(route::route::Action::DirectResponse(answer.clone())),
        ..Default::default()
    };
    let host = |(place, sent): (usize, &route::VirtualHost)| route::VirtualHost {
        name: place.to_string(),
        domains: sent.domains.clone(),
        routes: sent.routes.iter().enumerate().map(bare).collect(),
        ..Default::default()
    };
    let skeleton = route::RouteConfiguration {
        name: "explained".to_owned(),
        virtual_hosts: config.virtual_hosts.iter().enumerate().map(host).collect(),
        ignore_port_in_host_matching: config.ignore_port_in_host_matching,
        ..Default::default()
    };
    let Resource::Routes { routes, .. } = decoded(&pack_any(skeleton))? else {
        return Err("routes were read as something else".to_owned());
    };
    let table = RouteTable::new(routes);
    let authority = request.authority();
    let facts = RequestFacts {
        authority: &authority,
        path: &request.path,
        method: &request.method,
        scheme: &request.scheme,
        headers: &request.headers,
        certificate: Default::default(),
        random: 0,
    };
    let place = |text: &str| text.parse().map_err(|_| "a name was lost".to_owned());
    match table.select(&facts) {
        Ok(selected) => Ok(Choice::Route(place(&selected.virtual_host.name)?, place(&selected.route.name)?)),
        Err(Miss::NoVirtualHost) => Ok(Choice::NoHost),
        Err(Miss::NoRoute) => {
            let host = table.virtual_host(&authority).ok_or("a virtual host was lost")?;
            Ok(Choice::NoRoute(place(&host.name)?))
        }
    }
}

/// Whether one condition alone takes the request.
pub(super) fn matches(condition: route::RouteMatch, request: &Request) -> Result<bool, String> {
    let only = route::Route { r#match: Some(condition), ..Default::default() };
    let host = route::VirtualHost { domains: vec!["*".to_owned()], routes: vec![only], ..Default::default() };
    let config = route::RouteConfiguration { virtual_hosts: vec![host], ..Default::default() };
    Ok(matches!(self::route(&config, request)?, Choice::Route(..)))
}

/// The place of the filter chain that takes a connection.
pub(super) fn chain(listener: &listener::Listener, facts: &ChainFacts<'_>) -> Result<Option<usize>, String> {
    let bare = |(place, sent): (usize, &listener::FilterChain)| {
        let proxy = TcpProxy {
            stat_prefix: "explained".to_owned(),
            cluster_specifier: Some(ClusterSpecifier::Cluster(place.to_string())),
            ..Default::default()
        };
        listener::FilterChain {
            filter_chain_match: sent.filter_chain_match.clone(),
            filters: vec![listener::Filter {
                name: "envoy.filters.network.tcp_proxy".to_owned(),
                config_type: Some(listener::filter::ConfigType::TypedConfig(pack_any(proxy))),
            }],
            ..Default::default()
        }
    };
    let skeleton = listener::Listener {
        name: "explained".to_owned(),
        address: listener.address.clone(),
        filter_chains: listener.filter_chains.iter().enumerate().map(bare).collect(),
        ..Default::default()
    };
    if skeleton.filter_chains.is_empty() {
        return Ok(None);
    }
    let Resource::Listener(decoded) = decoded(&pack_any(skeleton))? else {
        return Err("a listener was read as something else".to_owned());
    };
    let chains: Vec<Arc<_>> = decoded.chains.clone();
    Ok(ChainIndex::new(&chains)?.select(facts))
}

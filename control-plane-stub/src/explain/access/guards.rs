//! The filters of a chain that let in or refuse, decoded by the proxy.

use std::sync::Arc;

use outrigger_proxy::{
    ir::{
        http::{ConnectionManager, FilterKind},
        listener::Terminal,
        network::NetworkFilterKind,
        rbac::Rbac,
    },
    policy::path::{Normalized, normalize},
    xds::decode::Resource,
};
use outrigger_wire::{
    pack_any,
    pb::{
        envoy::{
            config::{
                core::v3 as core,
                listener::v3 as listener,
                rbac::v3::{Policy, Rbac as WireRules},
                route::v3 as route,
            },
            extensions::filters::{
                http::{
                    ext_authz::v3::{ExtAuthz, ext_authz::Services},
                    jwt_authn::v3::{JwtAuthentication, JwtProvider},
                    rbac::v3::Rbac as HttpRbac,
                    router::v3::Router,
                },
                network::{
                    ext_authz::v3::ExtAuthz as NetworkExtAuthz,
                    http_connection_manager::v3::{
                        HttpConnectionManager, HttpFilter, http_connection_manager::RouteSpecifier, http_filter,
                    },
                    rbac::v3::Rbac as NetworkRbac,
                    tcp_proxy::v3::{TcpProxy, tcp_proxy::ClusterSpecifier},
                },
            },
        },
        google::protobuf::Any,
    },
};
use serde_json::{Map, Value};

use crate::explain::{decide, read};

/// What refuses, in the order of the chain.
#[derive(Default)]
pub(super) struct Guards {
    pub all: Vec<Guard>,
    manager: Option<Arc<ConnectionManager>>,
}

pub(super) enum Guard {
    Rbac(Arc<Rbac>),
    Tokens(Box<JwtAuthentication>),
    /// The cluster that is asked.
    Provider(String),
}

impl Guards {
    /// The path as rules see it.
    pub(super) fn normalized(&self, path: &str) -> String {
        match self.manager.as_ref().map(|manager| normalize(manager, path)) {
            Some(Normalized::Changed(changed)) => changed.into_owned(),
            Some(Normalized::Redirect(changed)) => changed,
            _ => path.to_owned(),
        }
    }
}

pub(super) fn of(chain: &listener::FilterChain) -> Result<Guards, String> {
    let mut order = Vec::new();
    let mut kept = Vec::new();
    for filter in &chain.filters {
        let Some(listener::filter::ConfigType::TypedConfig(any)) = &filter.config_type else { continue };
        if any.type_url.ends_with(".HttpConnectionManager") {
            let mut manager: HttpConnectionManager = read(&any.value, "http_connection_manager")?;
            for filter in std::mem::take(&mut manager.http_filters) {
                let Some(http_filter::ConfigType::TypedConfig(config)) = &filter.config_type else { continue };
                if kind(config, &mut order)? {
                    manager.http_filters.push(filter);
                }
            }
            let routes = route::RouteConfiguration { name: "explained".to_owned(), ..Default::default() };
            manager.route_specifier = Some(RouteSpecifier::RouteConfig(routes));
            let config = listener::filter::ConfigType::TypedConfig(pack_any(manager));
            kept.push(listener::Filter { config_type: Some(config), ..filter.clone() });
        } else if kind(any, &mut order)? || any.type_url.ends_with(".TcpProxy") {
            kept.push(filter.clone());
        }
    }
    let (mut rules, manager) = decoded(kept)?;
    let all = order.into_iter().map(|guard| match guard {
        Some(guard) => Ok(guard),
        None => rules.next().map(Guard::Rbac).ok_or_else(|| "the proxy left out a filter".to_owned()),
    });
    Ok(Guards { all: all.collect::<Result<_, _>>()?, manager })
}

/// Notes what guards (nothing in the place of rules, which the proxy decodes); whether the proxy is to see the filter.
fn kind(any: &Any, order: &mut Vec<Option<Guard>>) -> Result<bool, String> {
    let name = any.type_url.rsplit('.').next().unwrap_or_default();
    let cluster = |service: &Option<core::GrpcService>| {
        use core::grpc_service::TargetSpecifier::EnvoyGrpc;
        match service.as_ref().and_then(|s| s.target_specifier.as_ref()) {
            Some(EnvoyGrpc(target)) => target.cluster_name.clone(),
            _ => String::new(),
        }
    };
    match name {
        "RBAC" => order.push(None),
        "JwtAuthentication" => {
            order.push(Some(Guard::Tokens(Box::new(read(&any.value, "jwt_authn")?))));
            return Ok(false);
        }
        "ExtAuthz" if any.type_url.contains(".network.") => {
            let config: NetworkExtAuthz = read(&any.value, "ext_authz")?;
            order.push(Some(Guard::Provider(cluster(&config.grpc_service))));
            return Ok(false);
        }
        "ExtAuthz" => {
            let config: ExtAuthz = read(&any.value, "ext_authz")?;
            let name = match config.services {
                Some(Services::GrpcService(service)) => cluster(&Some(service)),
                Some(Services::HttpService(http)) => {
                    let upstream = http.server_uri.and_then(|uri| uri.http_upstream_type);
                    upstream.map(|core::http_uri::HttpUpstreamType::Cluster(name)| name).unwrap_or_default()
                }
                None => String::new(),
            };
            order.push(Some(Guard::Provider(name)));
            return Ok(false);
        }
        "Router" => {}
        _ => return Ok(false),
    }
    Ok(true)
}

/// One policy alone, as an engine that allows what it matches.
pub(super) fn rule(policy: Policy, http: bool) -> Result<Arc<Rbac>, String> {
    let rules = WireRules { policies: [("explained".to_owned(), policy)].into(), ..Default::default() };
    let typed = |any| Some(listener::filter::ConfigType::TypedConfig(any));
    let filters = if http {
        let rbac = HttpRbac { rules: Some(rules), ..Default::default() };
        let filter = |name: &str, any| HttpFilter {
            name: name.to_owned(),
            config_type: Some(http_filter::ConfigType::TypedConfig(any)),
            ..Default::default()
        };
        let routes = route::RouteConfiguration { name: "explained".to_owned(), ..Default::default() };
        let manager = HttpConnectionManager {
            stat_prefix: "explained".to_owned(),
            http_filters: vec![filter("rbac", pack_any(rbac)), filter("router", pack_any(Router::default()))],
            route_specifier: Some(RouteSpecifier::RouteConfig(routes)),
            ..Default::default()
        };
        vec![listener::Filter { name: "http".to_owned(), config_type: typed(pack_any(manager)) }]
    } else {
        let rbac = NetworkRbac { rules: Some(rules), stat_prefix: "explained".to_owned(), ..Default::default() };
        let proxy = TcpProxy {
            stat_prefix: "explained".to_owned(),
            cluster_specifier: Some(ClusterSpecifier::Cluster("explained".to_owned())),
            ..Default::default()
        };
        let filter = |name: &str, any| listener::Filter { name: name.to_owned(), config_type: typed(any) };
        vec![filter("rbac", pack_any(rbac)), filter("tcp", pack_any(proxy))]
    };
    decoded(filters)?.0.next().ok_or_else(|| "the proxy left out a filter".to_owned())
}

type Decoded = (std::vec::IntoIter<Arc<Rbac>>, Option<Arc<ConnectionManager>>);

fn decoded(filters: Vec<listener::Filter>) -> Result<Decoded, String> {
    let socket = core::SocketAddress {
        address: "0.0.0.0".to_owned(),
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(1)),
        ..Default::default()
    };
    let skeleton = listener::Listener {
        name: "explained".to_owned(),
        address: Some(core::Address { address: Some(core::address::Address::SocketAddress(socket)) }),
        filter_chains: vec![listener::FilterChain { filters, ..Default::default() }],
        ..Default::default()
    };
    let Resource::Listener(listener) = decide::decoded(&pack_any(skeleton))? else {
        return Err("a listener was read as something else".to_owned());
    };
    let chain = listener.chains.first().ok_or("a filter chain was lost")?;
    let of_network = chain.filters.iter().filter_map(|filter| match &filter.kind {
        NetworkFilterKind::Rbac(network) => Some(Arc::new(network.rbac.clone())),
        NetworkFilterKind::LocalRateLimit(_) | NetworkFilterKind::RateLimit(_) => None,
    });
    let mut rules: Vec<Arc<Rbac>> = of_network.collect();
    let manager = match &chain.terminal {
        Terminal::Http(manager) => {
            rules.extend(manager.filters.iter().filter_map(|filter| match &filter.kind {
                FilterKind::Rbac(rbac) => Some(Arc::clone(rbac)),
                _ => None,
            }));
            Some(Arc::clone(manager))
        }
        Terminal::Tcp(_) => None,
    };
    Ok((rules.into_iter(), manager))
}

/// What the filter leaves of a valid token with these claims: nothing where there is none.
pub(super) fn token(
    config: &JwtAuthentication,
    claims: &Map<String, Value>,
) -> Result<Option<Map<String, Value>>, String> {
    if claims.is_empty() {
        return Ok(None);
    }
    let issuer = claims.get("iss").and_then(Value::as_str).unwrap_or_default();
    let of_issuer = |provider: &&JwtProvider| provider.issuer.is_empty() || provider.issuer == issuer;
    let mut known = config.providers.values().filter(of_issuer).peekable();
    if known.peek().is_none() {
        return Err(format!("401: no RequestAuthentication here knows the issuer `{issuer}` of the token"));
    }
    let audiences = match claims.get("aud") {
        Some(Value::String(one)) => vec![one.as_str()],
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let meant = |provider: &&JwtProvider| {
        provider.audiences.is_empty() || provider.audiences.iter().any(|aud| audiences.contains(&aud.as_str()))
    };
    let Some(provider) = known.find(meant) else {
        return Err("403: the audiences of the token are not among those asked for".to_owned());
    };
    let words = provider.normalize_payload_in_metadata.as_ref().map(|n| n.space_delimited_claims.as_slice());
    let mut payload = claims.clone();
    for name in words.unwrap_or_default() {
        if let Some(Value::String(text)) = payload.get(name) {
            let list = text.split(' ').filter(|word| !word.is_empty()).map(Value::from).collect();
            payload.insert(name.clone(), Value::Array(list));
        }
    }
    Ok(Some([(provider.payload_in_metadata.clone(), Value::Object(payload))].into_iter().collect()))
}

//! What counts, and what was fetched, outlives updates of everything else.

use std::time::Duration;

use super::{
    testing::{builder, cluster, snapshot, statics, tcp_proxy},
    *,
};
use crate::{
    ir::{
        filters::Setting,
        route::{Route, VirtualHost},
    },
    policy::{jwt::Jwks, rate_limit::limits::LocalLimit},
};

const HTTP: &str = "type.googleapis.com/envoy.extensions.filters.http";
const NETWORK: &str = "type.googleapis.com/envoy.extensions.filters.network";
const CORS: &str =
    "{name: cors, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors}}, ";
const RBAC: &str = "{name: rbac, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC, stat_prefix: r, rules: {action: DENY}}}, ";
const ROUTES: &str = "{match: {prefix: /}, route: {cluster: c}}";

/// One version after the other of a listener `l` with one chain.
struct Versions {
    builder: Builder,
    publisher: Publisher,
}

impl Versions {
    fn new() -> Self {
        Self { builder: builder(), publisher: Publisher::default() }
    }

    fn apply(&self, filters: &str) -> Arc<LiveChain> {
        let text = format!(
            "\n  - name: l\n    address: {{socket_address: {{address: 127.0.0.1, port_value: 1}}}}\n    \
             filter_chains:\n    - filters: [{filters}]\n"
        );
        let before = self.publisher.current();
        let next = snapshot(before.version + 1, &statics(&[text], &[cluster("c", ([127, 0, 0, 1], 1).into())]));
        let (live, problems) = self.builder.build(&next, &Resolved::default(), &before);
        assert_eq!(problems, []);
        let chain = live.listeners["l"].chains[0].clone();
        self.publisher.publish(Arc::new(live));
        chain
    }
}

/// A connection manager with these fields, these filters before its router, and these routes.
fn manager(fields: &str, filters: &str, routes: &str) -> String {
    format!(
        "{{name: hcm, typed_config: {{'@type': {NETWORK}.http_connection_manager.v3.HttpConnectionManager, \
         stat_prefix: h, {fields}route_config: {{virtual_hosts: [{{name: v, domains: ['*'], routes: [{routes}]}}]}}, \
         http_filters: [{filters}{{name: r, typed_config: {{'@type': {HTTP}.router.v3.Router}}}}]}}}}"
    )
}

fn http(chain: &LiveChain) -> &LiveHcm {
    match &chain.terminal {
        LiveTerminal::Http(hcm) => hcm,
        LiveTerminal::Tcp(_) => panic!("not HTTP"),
    }
}

fn jwt(issuer: &str) -> String {
    format!(
        "{{name: jwt, typed_config: {{'@type': {HTTP}.jwt_authn.v3.JwtAuthentication, providers: {{p: {{issuer: {issuer}, \
         remote_jwks: {{http_uri: {{uri: 'http://keys/set', cluster: c, timeout: 1s}}}}}}}}}}}}, "
    )
}

#[test]
fn fetched_keys_are_kept_as_long_as_their_filter() {
    let versions = Versions::new();
    let keys = |chain: &LiveChain, place: usize| http(chain).filters.jwt(place).unwrap().keys[0].get();
    let first = versions.apply(&manager("", &jwt("one"), ROUTES));
    let fetching = http(&first).filters.jwt(0).unwrap().keys[0].try_fetch(Duration::ZERO).unwrap();
    let set = br#"{"keys":[{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T"}]}"#;
    let fetched = fetching.done(Jwks::parse(set).unwrap(), Duration::from_secs(600));
    for (what, filters, place) in [
        ("a timeout", manager("stream_idle_timeout: 7s, ", &jwt("one"), ROUTES), 0),
        ("another filter before it", manager("", &format!("{CORS}{}", jwt("one")), ROUTES), 1),
        ("a network filter", format!("{RBAC}{}", manager("", &jwt("one"), ROUTES)), 0),
        ("a route", manager("", &jwt("one"), &format!("{{match: {{path: /x}}, redirect: {{}}}}, {ROUTES}")), 0),
    ] {
        let kept = keys(&versions.apply(&filters), place);
        assert!(kept.is_some_and(|kept| Arc::ptr_eq(&kept, &fetched)), "after a change of {what}");
    }
    let other = versions.apply(&manager("", &jwt("two"), ROUTES));
    assert!(keys(&other, 0).is_none(), "another configuration has keys of its own");
}

fn local_limit(fields: &str) -> String {
    format!("{{'@type': {HTTP}.local_ratelimit.v3.LocalRateLimit, stat_prefix: p{fields}}}")
}

fn bucket(tokens: u32) -> String {
    format!(", token_bucket: {{max_tokens: {tokens}, fill_interval: 3600s}}")
}

/// The limit of the first route.
fn of_route(chain: &LiveChain) -> &Arc<LocalLimit> {
    let table = http(chain).inline_routes.as_ref().unwrap();
    let host: &VirtualHost = &table.config.virtual_hosts[0];
    let route: &Route = &host.routes[0];
    match route.overrides.as_ref().unwrap().get("limit") {
        Some(Setting::LocalRateLimit(config)) => table.limits.get(config).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn limits_of_requests_go_on_counting() {
    let versions = Versions::new();
    let version = |fields: &str, tokens: u32, more: &str| {
        let limited = format!(
            "{{match: {{path: /limited}}, route: {{cluster: c}}, typed_per_filter_config: {{limit: {}}}}}, {ROUTES}{more}",
            local_limit(&bucket(tokens))
        );
        let filter = format!("{{name: limit, typed_config: {}}}, ", local_limit(&bucket(1)));
        versions.apply(&manager(fields, &filter, &limited))
    };
    let goes = |limit: &LocalLimit| limit.limiter.decide(0.0, &[], 1).allowed;
    let first = version("", 2, "");
    assert_eq!([goes(of_route(&first)), goes(of_route(&first)), goes(of_route(&first))], [true, true, false]);
    let whole = |chain: &LiveChain| goes(http(chain).filters.limit(0).unwrap());
    assert!(whole(&first) && !whole(&first));
    let other_route = ", {match: {path: /other}, route: {cluster: c}}";
    for (what, next) in
        [("a timeout", version("stream_idle_timeout: 7s, ", 2, "")), ("a route", version("", 2, other_route))]
    {
        assert!(!goes(of_route(&next)), "the route's, after a change of {what}");
        assert!(!whole(&next), "the filter's, after a change of {what}");
    }
    assert!(goes(of_route(&version("", 3, ""))), "another limit begins anew");
}

#[test]
fn limits_of_connections_go_on_counting() {
    let versions = Versions::new();
    let limit = |name: &str, tokens: u32| {
        format!(
            "{{name: {name}, typed_config: {{'@type': {NETWORK}.local_ratelimit.v3.LocalRateLimit, stat_prefix: \
             {name}{}}}}}, ",
            bucket(tokens)
        )
    };
    let limits = |chain: &LiveChain| -> Vec<bool> {
        let limits = chain.network.filters.iter().filter_map(|filter| match filter {
            LiveNetworkFilter::LocalRateLimit(limit) => Some(limit.admit(0.0)),
            LiveNetworkFilter::Rbac(_) | LiveNetworkFilter::RateLimit(_) => None,
        });
        limits.collect()
    };
    let (one, proxy) = (limit("one", 1), tcp_proxy("c"));
    let first = versions.apply(&format!("{one}{proxy}"));
    assert_eq!((limits(&first), limits(&first)), (vec![true], vec![false]));
    let slower = proxy.replace("stat_prefix: t", "stat_prefix: t, idle_timeout: 77s");
    for (what, filters) in [
        ("the proxy", format!("{one}{slower}")),
        ("who may come", format!("{RBAC}{one}{slower}")),
        ("the proxy to HTTP", format!("{one}{}", manager("", "", ROUTES))),
    ] {
        assert_eq!(limits(&versions.apply(&filters)), [false], "after a change of {what}");
    }
    // Equal ones are two all the same, before and after.
    let twice = versions.apply(&format!("{one}{one}{proxy}"));
    assert_eq!((limits(&twice), limits(&twice)), (vec![false, true], vec![false, false]));
    assert_eq!(limits(&versions.apply(&format!("{one}{one}{slower}"))), [false, false]);
    assert_eq!(limits(&versions.apply(&format!("{}{proxy}", limit("one", 2)))), [true], "another begins anew");
}

#[test]
fn rules_are_alike_whatever_else_differs() {
    let versions = Versions::new();
    let rbac = |action: &str| {
        format!("{{name: rbac, typed_config: {{'@type': {HTTP}.rbac.v3.RBAC, rules: {{action: {action}}}}}}}, ")
    };
    let filters = |filters: &str| http(&versions.apply(&manager("", filters, ROUTES))).filters.clone();
    let (plain, cors, deny) = (filters(""), filters(CORS), filters(&rbac("DENY")));
    assert!(plain.authorize_alike(&cors) && plain.authorize_alike(&LiveFilters::default()));
    assert!(!plain.authorize_alike(&deny) && !deny.authorize_alike(&filters(&rbac("ALLOW"))));
    assert!(deny.authorize_alike(&filters(&format!("{CORS}{}", rbac("DENY")))));
    assert!(!plain.authorize_alike(&filters(&jwt("one"))));
}

//! Rate limits: of requests, connections, and what they are counted by.

use std::time::Duration;

use http::StatusCode;

use super::*;
use crate::ir::{
    Fraction,
    filters::Setting,
    http::FilterKind,
    listener::Terminal,
    network::NetworkFilterKind,
    rate_limit::{Action, LocalRateLimit, RequestKind, TokenBucket, VirtualHostLimits},
};

const LOCAL: &str = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";
const GLOBAL: &str = "envoy.extensions.filters.http.ratelimit.v3.RateLimit";
const PER_ROUTE: &str = "envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute";
const CONNECTIONS: &str = "envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit";
const ASKING: &str = "envoy.extensions.filters.network.ratelimit.v3.RateLimit";

const BUCKET: &str = "token_bucket: {max_tokens: 5, fill_interval: 1s}";
const SERVICE: &str =
    "rate_limit_service: {transport_api_version: V3, grpc_service: {envoy_grpc: {cluster_name: rls}}}";

fn filter(kind: &str, fields: &str) -> String {
    hcm(&format!("{{name: f, typed_config: {{\"@type\": {T}/{kind}, {fields}}}}},"), "")
}

fn local(fields: &str) -> String {
    filter(LOCAL, &format!("stat_prefix: p, {fields}"))
}

fn global(fields: &str) -> String {
    filter(GLOBAL, &format!("domain: d, {SERVICE}, {fields}"))
}

fn kind(yaml: &str) -> FilterKind {
    match &the_listener(yaml).chains[0].terminal {
        Terminal::Http(m) => m.filters[0].kind.clone(),
        other => panic!("{other:?}"),
    }
}

fn the_local(fields: &str) -> Arc<LocalRateLimit> {
    match kind(&local(fields)) {
        FilterKind::LocalRateLimit(limit) => limit,
        other => panic!("{other:?}"),
    }
}

fn in_filter(rest: &str) -> String {
    format!("{HCM}.http_filters[0].typed_config.{rest}")
}

#[test]
fn local_limits_arrive() {
    let bare = the_local("");
    assert_eq!((bare.bucket, bare.enabled.numerator, bare.enforced.numerator), (None, 0, 0));
    assert_eq!((bare.status, bare.always_default, bare.max_dynamic), (StatusCode::TOO_MANY_REQUESTS, true, 20));
    let full = the_local(
        "token_bucket: {max_tokens: 9, tokens_per_fill: 3, fill_interval: 0.25s}, status: {code: 503}, stage: 10, \
         filter_enabled: {default_value: {numerator: 5, denominator: MILLION}}, filter_enforced: {default_value: \
         {numerator: 7}}, descriptors: [{entries: [{key: k, value: v}, {key: w}], shadow_mode: true, token_bucket: \
         {max_tokens: 1, fill_interval: 60s}}], enable_x_ratelimit_headers: DRAFT_VERSION_03, vh_rate_limits: IGNORE, \
         always_consume_default_token_bucket: false, rate_limited_as_resource_exhausted: true, \
         max_dynamic_descriptors: 4, enable_retry_after_header: true, local_cluster_rate_limit: {}, \
         rate_limits: [{actions: [{remote_address: {}}], hits_addend: {number: 3}}], \
         response_headers_to_add: [{header: {key: a, value: b}}]",
    );
    let bucket = TokenBucket { max_tokens: 9, tokens_per_fill: 3, fill_interval: Duration::from_millis(250) };
    assert_eq!((full.bucket, full.status, full.stage), (Some(bucket), StatusCode::SERVICE_UNAVAILABLE, 10));
    assert_eq!(full.enabled, Fraction { numerator: 5, denominator: 1_000_000 });
    assert_eq!(full.descriptors[0].entries, [("k".into(), "v".into()), ("w".into(), "".into())]);
    assert!(full.descriptors[0].shadow && full.headers && !full.always_default && full.resource_exhausted);
    assert!(full.retry_after && full.shared && !full.per_connection);
    assert_eq!((full.virtual_host, full.max_dynamic), (VirtualHostLimits::Ignore, 4));
    assert_eq!((full.rules[0].actions.as_slice(), full.response_headers.len()), (&[Action::RemoteAddress][..], 1));
    assert_eq!(the_local("status: {code: 399}").status, StatusCode::TOO_MANY_REQUESTS);
}

#[test]
fn limits_at_different_places_are_different() {
    let route = |n: usize| {
        let own = format!("{{\"@type\": {T}/{LOCAL}, stat_prefix: p, {BUCKET}}}");
        let routes =
            vec![format!("{{match: {{prefix: /}}, route: {{cluster: c}}, typed_per_filter_config: {{f: {own}}}}}"); n];
        routes_of(&format!("{{name: v, domains: ['*'], routes: [{}]}}", routes.join(",")))
    };
    let limits = |yaml: &str| -> Vec<Arc<LocalRateLimit>> {
        let overrides = |r: &Arc<crate::ir::route::Route>| r.overrides.clone().unwrap();
        let of = |o: Arc<crate::ir::filters::Overrides>| match o.get("f") {
            Some(Setting::LocalRateLimit(limit)) => limit.clone(),
            other => panic!("{other:?}"),
        };
        the_routes(yaml).virtual_hosts[0].routes.iter().map(overrides).map(of).collect()
    };
    let two = limits(&route(2));
    assert_ne!(two[0], two[1]);
    assert_eq!(two[0], limits(&route(1))[0], "the same place is the same");
}

#[test]
fn wrong_local_limits_are_refused() {
    let at = in_filter;
    let descriptor = "{entries: [{key: k}], token_bucket: {max_tokens: 1, fill_interval: 1s}}";
    refused(&[
        (filter(LOCAL, BUCKET), &at("stat_prefix"), "empty"),
        (local("token_bucket: {max_tokens: 1, fill_interval: 0.04s}"), &at("token_bucket.fill_interval"), "50ms"),
        (local("token_bucket: {max_tokens: 1}"), &at("token_bucket.fill_interval"), "required"),
        (
            local("token_bucket: {max_tokens: 1, tokens_per_fill: 0, fill_interval: 1s}"),
            &at("token_bucket.tokens_per_fill"),
            "between",
        ),
        (local("stage: 11"), &at("stage"), "more than 10"),
        (local("max_dynamic_descriptors: 0"), &at("max_dynamic_descriptors"), "between"),
        (local(&format!("descriptors: [{descriptor}, {descriptor}]")), &at("descriptors[1].entries"), "twice"),
        (local("descriptors: [{entries: [{key: k}]}]"), &at("descriptors[0].token_bucket"), "required"),
        (
            local("descriptors: [{token_bucket: {max_tokens: 1, fill_interval: 1s}}]"),
            &at("descriptors[0].entries"),
            "empty",
        ),
        (
            local("local_cluster_rate_limit: {}, local_rate_limit_per_downstream_connection: true"),
            &at("local_cluster_rate_limit"),
            "excludes",
        ),
        (
            local("rate_limits: [{stage: 1, actions: [{remote_address: {}}]}]"),
            &at("rate_limits[0].stage"),
            "not possible",
        ),
        (local("rate_limits: [{actions: []}]"), &at("rate_limits[0].actions"), "empty"),
        (
            local("rate_limits: [{actions: [{remote_address: {}}], limit: {rate_limit: {requests_per_unit: 1}}}]"),
            &at("rate_limits[0].limit"),
            "not possible",
        ),
        (
            route_of(&format!(
                "route: {{cluster: c}}, typed_per_filter_config: {{f: {{\"@type\": {T}/{LOCAL}, stat_prefix: p}}}}"
            )),
            &at_route("typed_per_filter_config[\"f\"].token_bucket"),
            "must be set",
        ),
    ]);
}

#[test]
fn wrong_actions_are_refused() {
    let rule = |rule: &str| route_of(&format!("route: {{cluster: c, rate_limits: [{{{rule}}}]}}"));
    let action = |action: &str| rule(&format!("actions: [{{{action}}}]"));
    let at = |rest: &str| at_route(&format!("route.rate_limits[0].{rest}"));
    let first = |rest: &str| at(&format!("actions[0].{rest}"));
    refused(&[
        (rule("actions: []"), &at("actions"), "empty"),
        (rule("stage: 11, actions: [{remote_address: {}}]"), &at("stage"), "between"),
        (action(""), &first("action_specifier"), "required"),
        (action("generic_key: {}"), &first("generic_key.descriptor_value"), "empty"),
        (action("request_headers: {header_name: x}"), &first("request_headers.descriptor_key"), "empty"),
        (
            action("request_headers: {header_name: 'x y', descriptor_key: k}"),
            &first("request_headers.header_name"),
            "header name",
        ),
        (action("query_parameters: {descriptor_key: k}"), &first("query_parameters.query_parameter_name"), "empty"),
        (action("header_value_match: {descriptor_value: v}"), &first("header_value_match.headers"), "empty"),
        (
            action("masked_remote_address: {v4_prefix_mask_len: 33}"),
            &first("masked_remote_address.v4_prefix_mask_len"),
            "between",
        ),
        (action("metadata: {descriptor_key: k}"), &first("metadata.metadata_key"), "required"),
        (
            action(
                "metadata: {descriptor_key: k, source: CLUSTER_LOCALITY_ENTRY, metadata_key: {key: a, path: [{key: b}]}}",
            ),
            &first("metadata.source"),
            "no host",
        ),
        (
            action(&format!(
                "extension: {{name: e, typed_config: {{\"@type\": {T}/envoy.extensions.filters.http.buffer.v3.Buffer}}}}"
            )),
            &first("extension"),
            "not supported",
        ),
    ]);
}

#[test]
fn global_limits_arrive() {
    let FilterKind::RateLimit(bare) = kind(&global("")) else { panic!() };
    assert_eq!((&*bare.service.domain, &*bare.service.cluster), ("d", "rls"));
    assert_eq!((bare.service.timeout, bare.requests), (Some(Duration::from_millis(20)), RequestKind::Both));
    assert_eq!((bare.failure_deny.numerator, bare.enabled.numerator, bare.enforced.numerator), (0, 100, 100));
    assert_eq!(
        (bare.limited_status, bare.status_on_error),
        (StatusCode::TOO_MANY_REQUESTS, StatusCode::INTERNAL_SERVER_ERROR)
    );
    assert!(bare.limited_header && !bare.headers);
    let FilterKind::RateLimit(full) = kind(&global(
        "timeout: 0s, request_type: internal, failure_mode_deny: true, disable_x_envoy_ratelimited_header: true, \
         rate_limits: [{actions: [{generic_key: {descriptor_value: v}}], apply_on_stream_done: true, limit: \
         {rate_limit: {requests_per_unit: 3, unit: DAY}}}], metadata_namespace: ns, \
         filter_enforced: {default_value: {numerator: 0}}",
    )) else {
        panic!()
    };
    assert_eq!((full.service.timeout, full.requests, full.failure_deny.numerator), (None, RequestKind::Internal, 100));
    assert!(full.rules[0].on_stream_done && full.rules[0].limit.is_some() && !full.limited_header);
    assert_eq!((&*full.metadata_namespace, full.enforced.numerator), ("ns", 0));
    let per_route = format!(
        "route: {{cluster: c}}, typed_per_filter_config: {{f: {{\"@type\": {T}/{PER_ROUTE}, vh_rate_limits: INCLUDE, domain: e}}}}"
    );
    let routes = the_routes(&route_of(&per_route));
    let overrides = routes.virtual_hosts[0].routes[0].overrides.clone().unwrap();
    let Some(Setting::RateLimit(route)) = overrides.get("f") else { panic!("{overrides:?}") };
    assert_eq!((route.virtual_host, route.domain.as_deref()), (VirtualHostLimits::Include, Some("e")));
}

#[test]
fn wrong_global_limits_are_refused() {
    let at = in_filter;
    let by = |service: &str| filter(GLOBAL, &format!("domain: d, rate_limit_service: {{{service}}}"));
    refused(&[
        (filter(GLOBAL, SERVICE), &at("domain"), "empty"),
        (filter(GLOBAL, "domain: d"), &at("rate_limit_service"), "required"),
        (by("transport_api_version: V3"), &at("rate_limit_service.grpc_service"), "required"),
        (
            by("grpc_service: {envoy_grpc: {cluster_name: c}}"),
            &at("rate_limit_service.transport_api_version"),
            "must be V3",
        ),
        (
            by("transport_api_version: V3, grpc_service: {google_grpc: {target_uri: a, stat_prefix: b}}"),
            &at("rate_limit_service.grpc_service.google_grpc"),
            "not supported",
        ),
        (global("request_type: other"), &at("request_type"), "internal"),
        (
            global(
                "rate_limits: [{actions: [{remote_address: {}}], apply_on_stream_done: true, hits_addend: {format: '%BYTES_SENT%'}}]",
            ),
            &at("rate_limits[0].hits_addend"),
            "apply_on_stream_done",
        ),
        (
            global("rate_limits: [{actions: [{remote_address: {}}], hits_addend: {format: '%BYTES_SENT%0'}}]"),
            &at("rate_limits[0].hits_addend.format"),
            "one substitution",
        ),
        (
            global("rate_limits: [{actions: [{remote_address: {}}], hits_addend: {number: 1000000001}}]"),
            &at("rate_limits[0].hits_addend.number"),
            "more than",
        ),
    ]);
}

#[test]
fn limits_of_connections_arrive() {
    let network = |kind: &str, fields: &str| {
        let filter = format!("{{name: f, typed_config: {{\"@type\": {T}/{kind}, stat_prefix: p, {fields}}}}}");
        listener_of(&format!("{filter}, {}", tcp("cluster: c")), "")
    };
    let kind = |yaml: &str| the_listener(yaml).chains[0].filters[0].kind.clone();
    let local =
        kind(&network(CONNECTIONS, &format!("{BUCKET}, share_key: s, runtime_enabled: {{default_value: false}}")));
    let NetworkFilterKind::LocalRateLimit(local) = local else { panic!("{local:?}") };
    assert_eq!((local.enabled, &*local.share_key, local.bucket.max_tokens), (false, "s", 5));
    let asking = "descriptors: [{entries: [{key: k, value: '%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%'}]}]";
    let global = kind(&network(ASKING, &format!("domain: d, {SERVICE}, {asking}, failure_mode_deny: true")));
    let NetworkFilterKind::RateLimit(global) = global else { panic!("{global:?}") };
    assert_eq!((global.descriptors[0].len(), global.failure_deny), (1, true));
    let at = |rest: &str| format!("filter_chains[0].filters[0].typed_config.{rest}");
    refused(&[
        (network(CONNECTIONS, ""), &at("token_bucket"), "required"),
        (network(ASKING, &format!("domain: d, {SERVICE}")), &at("descriptors"), "empty"),
        (network(ASKING, &format!("{SERVICE}, {asking}")), &at("domain"), "empty"),
    ]);
}

use super::*;
use crate::live::testing::{snapshot, statics, tcp_proxy};

const HTTP: &str = "type.googleapis.com/envoy.extensions.filters.http";
const NETWORK: &str = "type.googleapis.com/envoy.extensions.filters.network";

fn cluster(name: &str) -> String {
    format!("\n  - {{name: {name}, connect_timeout: 5s}}")
}

fn grpc(cluster: &str) -> String {
    format!("transport_api_version: V3, grpc_service: {{envoy_grpc: {{cluster_name: {cluster}}}}}")
}

/// The clusters that a listener with these filters waits for.
fn clusters(filters: &str) -> Vec<Name> {
    let listener = format!(
        "\n  - name: l\n    address: {{socket_address: {{address: 127.0.0.1, port_value: 1}}}}\n    filter_chains:\n    \
         - filters: [{filters}]\n"
    );
    let known = ["c", "asked", "own", "of-vhost", "of-target", "keys"].map(cluster);
    let listener = snapshot(1, &statics(&[listener], &known)).listeners["l"].clone();
    Needs::of(&Resource::Listener(listener)).unwrap().clusters.into()
}

fn manager(filter: &str, host: &str, route: &str) -> String {
    format!(
        "{{name: hcm, typed_config: {{'@type': {NETWORK}.http_connection_manager.v3.HttpConnectionManager, \
         stat_prefix: h, route_config: {{virtual_hosts: [{{name: v, domains: ['*'], {host}routes: [{{match: {{prefix: \
         /}}, {route}}}]}}]}}, http_filters: [{{name: f, typed_config: {{'@type': {HTTP}.{filter}}}}}, {{name: r, \
         typed_config: {{'@type': {HTTP}.router.v3.Router}}}}]}}}}"
    )
}

#[test]
fn whom_filters_ask_is_waited_for() {
    const ROUTE: &str = "route: {cluster: c}";
    let http = |filter: String| clusters(&manager(&filter, "", ROUTE));
    let limit = format!("domain: d, rate_limit_service: {{{}}}", grpc("asked"));
    assert_eq!(http(format!("ratelimit.v3.RateLimit, {limit}")), ["asked".into(), Name::from("c")]);
    assert_eq!(http(format!("ext_authz.v3.ExtAuthz, {}", grpc("asked"))), ["asked".into(), Name::from("c")]);
    let keys = "remote_jwks: {http_uri: {uri: 'http://k/', cluster: keys, timeout: 1s}}";
    let provider = format!("jwt_authn.v3.JwtAuthentication, providers: {{p: {{issuer: i, {keys}}}}}");
    assert_eq!(http(provider), ["c".into(), Name::from("keys")]);
    let network = format!(
        "{{name: f, typed_config: {{'@type': {NETWORK}.ratelimit.v3.RateLimit, stat_prefix: p, descriptors: [{{entries: \
         [{{key: k, value: v}}]}}], {limit}}}}}, {}",
        tcp_proxy("c")
    );
    assert_eq!(clusters(&network), ["asked".into(), Name::from("c")]);
}

#[test]
fn whom_filters_ask_for_some_routes_is_waited_for() {
    let own = |cluster: &str| {
        format!(
            "typed_per_filter_config: {{f: {{'@type': {HTTP}.ext_authz.v3.ExtAuthzPerRoute, check_settings: \
             {{grpc_service: {{envoy_grpc: {{cluster_name: {cluster}}}}}}}}}}}"
        )
    };
    let weighted = format!(
        "route: {{weighted_clusters: {{clusters: [{{name: c, weight: 1, {}}}]}}}}, {}",
        own("of-target"),
        own("own")
    );
    let filter = format!("ext_authz.v3.ExtAuthz, {}", grpc("asked"));
    let found = clusters(&manager(&filter, &format!("{}, ", own("of-vhost")), &weighted));
    assert_eq!(found, ["asked", "c", "of-target", "of-vhost", "own"].map(Name::from));
}

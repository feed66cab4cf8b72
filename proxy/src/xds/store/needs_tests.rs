use outrigger_wire::{json, pb::google::protobuf::Any};

use super::*;
use crate::xds::decode::{self, Notes};

const HTTP: &str = "type.googleapis.com/envoy.extensions.filters.http";
const NETWORK: &str = "type.googleapis.com/envoy.extensions.filters.network";

fn grpc(cluster: &str) -> String {
    format!("transport_api_version: V3, grpc_service: {{envoy_grpc: {{cluster_name: {cluster}}}}}")
}

/// The clusters that a listener with these filters waits for.
fn clusters(filters: &str) -> Vec<Name> {
    let yaml = format!(
        "'@type': type.googleapis.com/envoy.config.listener.v3.Listener\nname: l\naddress: {{socket_address: {{address: \
         127.0.0.1, port_value: 1}}}}\nfilter_chains:\n- filters: [{filters}]\n"
    );
    let any: Any = json::from_value(json::parse(&yaml).unwrap()).unwrap_or_else(|e| panic!("{e}\n{yaml}"));
    let listener = decode::resource(&any, &mut Notes::default()).unwrap_or_else(|e| panic!("{e:?}\n{yaml}"));
    Needs::of(&listener).unwrap().clusters.into()
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
    let proxied =
        format!("{{name: t, typed_config: {{'@type': {NETWORK}.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: c}}}}");
    let network = format!(
        "{{name: f, typed_config: {{'@type': {NETWORK}.ratelimit.v3.RateLimit, stat_prefix: p, descriptors: [{{entries: \
         [{{key: k, value: v}}]}}], {limit}}}}}, {proxied}"
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

//! External authorization and JSON web tokens.

use super::*;
use crate::ir::{
    ext_authz::{AuthService, AuthzPerRoute, BodySettings, ExtAuthz},
    filters::Setting,
    http::FilterKind,
    jwt_authn::{JwksSource, JwtAuthn, JwtPerRoute, Requirement},
    listener::Terminal,
};

const AUTHZ: &str = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz";
const JWT: &str = "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication";
const GRPC: &str = "transport_api_version: V3, grpc_service: {envoy_grpc: {cluster_name: c}}";
const HTTP: &str = "http_service: {server_uri: {uri: 'http://a/', cluster: c, timeout: 1s}}";
const KEYS: &str = r#"local_jwks: {inline_string: '{"keys": [{}]}'}"#;

fn with(kind: &str, fields: &str) -> String {
    hcm(&format!("{{name: f, typed_config: {{\"@type\": {T}/{kind}, {fields}}}}},"), "")
}

fn kind(yaml: &str) -> FilterKind {
    match &the_listener(yaml).chains[0].terminal {
        Terminal::Http(m) => m.filters[0].kind.clone(),
        other => panic!("{other:?}"),
    }
}

fn authz(fields: &str) -> ExtAuthz {
    match kind(&with(AUTHZ, fields)) {
        FilterKind::ExtAuthz(config) => (*config).clone(),
        other => panic!("{other:?}"),
    }
}

fn jwt(fields: &str) -> JwtAuthn {
    match kind(&with(JWT, fields)) {
        FilterKind::JwtAuthn(config) => (*config).clone(),
        other => panic!("{other:?}"),
    }
}

fn at(rest: &str) -> String {
    format!("{HCM}.http_filters[0].typed_config.{rest}")
}

fn per_route(kind: &str, fields: &str) -> String {
    let kind = format!("envoy.extensions.filters.http.{kind}");
    let config = format!("{{f: {{\"@type\": {T}/{kind}, {fields}}}}}");
    route_of(&format!("route: {{cluster: c}}, typed_per_filter_config: {config}"))
}

fn setting(yaml: &str) -> Setting {
    the_routes(yaml).virtual_hosts[0].routes[0].overrides.clone().unwrap().filters[0].setting.clone()
}

#[test]
fn authorization_services_arrive() {
    let config = authz(&format!("{GRPC}, failure_mode_allow: true, with_request_body: {{max_request_bytes: 5}}"));
    let AuthService::Grpc(service) = &config.service else { panic!("{config:?}") };
    assert_eq!((&*service.cluster, service.timeout), ("c", Some(std::time::Duration::from_millis(200))));
    assert_eq!(config.body, Some(BodySettings { max_bytes: 5, partial: false, raw: false }));
    assert!(config.failure_mode_allow && config.allowed_headers.is_none() && config.ingest_metadata);
    assert_eq!(config.status_on_error.as_u16(), 403);
    let config = authz(HTTP);
    assert_eq!(config.allowed_headers.map(|h| h.len()), Some(4), "few are told unless more are named");
}

#[test]
fn what_routes_say_arrives() {
    let authz =
        setting(&per_route("ext_authz.v3.ExtAuthzPerRoute", "check_settings: {context_extensions: {b: '2', a: '1'}}"));
    let Setting::ExtAuthz(settings) = &authz else { panic!("{authz:?}") };
    let AuthzPerRoute::Check(check) = &**settings else { panic!("{authz:?}") };
    assert_eq!(check.context, [("a".into(), "1".into()), ("b".into(), "2".into())]);
    let off = setting(&per_route("jwt_authn.v3.PerRouteConfig", "disabled: true"));
    assert_eq!(off, Setting::JwtAuthn(JwtPerRoute::Disabled.into()));
    refused(&[
        (
            per_route("ext_authz.v3.ExtAuthzPerRoute", "disabled: false"),
            &at_route("typed_per_filter_config[\"f\"].disabled"),
            "true",
        ),
        (
            per_route("jwt_authn.v3.PerRouteConfig", ""),
            &at_route("typed_per_filter_config[\"f\"].requirement_specifier"),
            "required",
        ),
    ]);
}

#[test]
fn an_authorization_that_is_not_understood_is_refused() {
    let filter = |more: &str| with(AUTHZ, &format!("{GRPC}, {more}"));
    let grpc = |service: &str| with(AUTHZ, &format!("transport_api_version: V3, grpc_service: {{{service}}}"));
    refused(&[
        (with(AUTHZ, ""), &at("services"), "required"),
        (with(AUTHZ, "grpc_service: {envoy_grpc: {cluster_name: c}}"), &at("transport_api_version"), "V3"),
        (grpc("google_grpc: {target_uri: a, stat_prefix: s}"), &at("grpc_service.google_grpc"), "not supported"),
        (
            grpc("envoy_grpc: {cluster_name: c}, retry_policy: {num_retries: 1}"),
            &at("grpc_service.retry_policy"),
            "not supported",
        ),
        (filter("shadow_mode: true"), &at("shadow_mode"), "not supported"),
        (filter("typed_metadata_context_namespaces: [a]"), &at("typed_metadata_context_namespaces"), "not supported"),
        (filter("bootstrap_metadata_labels_key: a"), &at("bootstrap_metadata_labels_key"), "not supported"),
        (filter("with_request_body: {}"), &at("with_request_body.max_request_bytes"), "greater than zero"),
        (
            filter("filter_enabled_metadata: {filter: a, path: [{key: b}], value: {}}"),
            &at("filter_enabled_metadata.value.match_pattern"),
            "required",
        ),
        (
            filter("filter_enabled_metadata: {filter: a, value: {present_match: true}}"),
            &at("filter_enabled_metadata.path"),
            "empty",
        ),
        (filter("status_on_error: {code: 600}"), &at("status_on_error.code"), "600"),
        (
            with(AUTHZ, &HTTP.replace("timeout: 1s}", "timeout: 1s}, path_prefix: x")),
            &at("http_service.path_prefix"),
            "/",
        ),
        (
            with(AUTHZ, &HTTP.replace("timeout: 1s}", "timeout: 1s}, retry_policy: {num_retries: 1}")),
            &at("http_service.retry_policy"),
            "not supported",
        ),
    ]);
}

#[test]
fn providers_and_requirements_arrive() {
    let config = jwt(&format!(
        "providers: {{b: {{{KEYS}}}, a: {{issuer: i, from_params: [t], remote_jwks: {{http_uri: {{uri: 'http://k/', cluster: keys, timeout: 1s}}, async_fetch: {{}}}}}}}}, \
         rules: [{{match: {{prefix: /x}}}}, {{match: {{prefix: /}}, requirement_name: r}}], \
         requirement_map: {{r: {{requires_any: {{requirements: [{{provider_name: b}}, {{allow_missing: {{}}}}]}}}}}}"
    ));
    let (a, b) = (&config.providers[0], &config.providers[1]);
    assert_eq!((&*a.name, a.params.len(), a.headers.len()), ("a", 1, 0));
    assert_eq!((&*b.name, b.params.len(), b.headers.len()), ("b", 1, 1), "the default places");
    let JwksSource::Remote(remote) = &a.keys else { panic!("{a:?}") };
    assert!(
        remote.ahead == Some(std::time::Duration::from_secs(1))
            && remote.retries == 0
            && &*remote.uri.cluster == "keys"
    );
    assert_eq!(config.rules[0].requirement, None);
    let any = Requirement::Any(vec![Requirement::Provider(1, Vec::new()), Requirement::AllowMissing]);
    assert_eq!(config.rules[1].requirement.as_ref(), Some(&any));
    assert_eq!(config.requirements, [("r".into(), any)]);
}

#[test]
fn a_requirement_that_is_not_understood_is_refused() {
    let providers = format!("providers: {{p: {{{KEYS}}}}}");
    let rule = |requires: &str| {
        with(JWT, &format!("{providers}, rules: [{{match: {{prefix: /}}, requires: {{{requires}}}}}]"))
    };
    let provider = |fields: &str| with(JWT, &format!("providers: {{p: {{{fields}}}}}"));
    let in_rule = |rest: &str| at(&format!("rules[0].requires.{rest}"));
    let in_provider = |rest: &str| at(&format!("providers[\"p\"].{rest}"));
    refused(&[
        (rule("provider_name: q"), &in_rule("provider_name"), "\"q\""),
        (rule("extract_only_without_validation: {}"), &in_rule("extract_only_without_validation"), "not supported"),
        (rule("requires_any: {requirements: [{provider_name: p}]}"), &in_rule("requires_any.requirements"), "two"),
        (
            rule("requires_all: {requirements: [{provider_name: p}, {}]}"),
            &in_rule("requires_all.requirements[1]"),
            "nothing",
        ),
        (
            with(JWT, &format!("{providers}, rules: [{{match: {{prefix: /}}, requirement_name: r}}]")),
            &at("rules[0].requirement_name"),
            "requirement_map",
        ),
        (with(JWT, "filter_state_rules: {name: state}"), &at("filter_state_rules"), "not supported"),
        (provider("local_jwks: {inline_string: '{}'}"), &in_provider("local_jwks"), "no key set"),
        (provider("issuer: i"), &in_provider("jwks_source_specifier"), "required"),
        (provider("local_jwks: {filename: /f}"), &in_provider("local_jwks.filename"), "inline"),
        (provider(&format!("{KEYS}, subjects: {{}}")), &in_provider("subjects.match_pattern"), "required"),
        (
            provider(&format!("{KEYS}, claim_to_headers: [{{header_name: a}}]")),
            &in_provider("claim_to_headers[0].claim_name"),
            "empty",
        ),
        (
            provider("remote_jwks: {http_uri: {uri: /k, cluster: c, timeout: 1s}}"),
            &in_provider("remote_jwks.http_uri.uri"),
            "host",
        ),
    ]);
    let deep = (0..10).fold("provider_name: p".to_owned(), |inner, _| {
        format!("requires_all: {{requirements: [{{provider_name: p}}, {{{inner}}}]}}")
    });
    assert!(decode(&rule(&deep)).unwrap_err().reason.contains("in each other"));
}

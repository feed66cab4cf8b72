//! CUSTOM policies: RBAC in shadow mode leaves the name of the rule that matches, and `ext_authz` asks if there is one.

use std::collections::BTreeMap;

use outrigger_wire::pb::envoy::{
    config::rbac::v3::rbac::Action as Effect,
    extensions::filters::{
        http::ext_authz::v3::{
            AuthorizationRequest, AuthorizationResponse, BufferSettings, ExtAuthz, HttpService, ext_authz::Services,
        },
        network::ext_authz::v3::ExtAuthz as NetworkExtAuthz,
    },
    r#type::v3::HttpStatus,
};

use super::{Guards, HTTP_RBAC, Layer, NETWORK_RBAC, http, matchers, rules, rules::Rules, tcp};
use crate::{
    model::{AuthorizationPolicy, Call, ExtAuthzHttp, ExtensionProvider, HeaderPattern, Object},
    translate::{
        filters,
        names::{self, Variant},
        pb::{self, any, core, matcher, matcher::ListStringMatcher},
        scope::Scope,
    },
};

const HTTP_EXT_AUTHZ: &str = "envoy.filters.http.ext_authz";
const NETWORK_EXT_AUTHZ: &str = "envoy.filters.network.ext_authz";
const SHADOW_PREFIX: &str = "istio_ext_authz_";
/// Istio's: a check may take as long as the provider's own DestinationRule lets it.
const NO_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(600);

/// The filters for `policies`, provider by provider.
pub(super) fn filters(scope: &Scope<'_>, policies: &[&Object<AuthorizationPolicy>], guards: &mut Guards) {
    let mut by_provider: BTreeMap<&str, Vec<&Object<AuthorizationPolicy>>> = BTreeMap::new();
    for object in policies {
        let name = object.spec.provider.as_ref().map_or("", |provider| &provider.name);
        by_provider.entry(name).or_default().push(object);
    }
    for (name, policies) in by_provider {
        let prefix = format!("istio-ext-authz-{name}-");
        let rules = |layer| rules::of(scope, &policies, (Effect::Deny, layer), &prefix);
        let provider = scope.world.mesh.provider(name);
        match provider.and_then(|p| of_http(p, &prefix)) {
            Some(config) => {
                guards.http.push(http((None, Some(rules(Layer::Http))), SHADOW_PREFIX));
                guards.http.push(filters::http_filter(HTTP_EXT_AUTHZ, any(config)));
            }
            None => guards.http.push(http((Some(refused(rules(Layer::Http))), None), "")),
        }
        // A provider that knows HTTP only cannot be asked about other bytes, which are therefore refused.
        match provider.and_then(|p| of_network(p, &prefix)) {
            Some(config) => {
                guards.tcp.push(tcp((None, Some(rules(Layer::Tcp))), SHADOW_PREFIX));
                guards.tcp.push(filters::network(NETWORK_EXT_AUTHZ, any(config)));
            }
            None => guards.tcp.push(tcp((Some(refused(rules(Layer::Tcp))), None), "")),
        }
    }
}

/// Where nobody can be asked, what would have been asked about is denied.
fn refused(rules: Rules) -> Rules {
    let name = |name| format!("{name}-deny-due-to-bad-CUSTOM-action");
    Rules { effect: Effect::Deny, policies: rules.policies.into_iter().map(|(n, policy)| (name(n), policy)).collect() }
}

fn of_http(provider: &ExtensionProvider, prefix: &str) -> Option<ExtAuthz> {
    let call = provider.call()?;
    let mut config = ExtAuthz {
        services: Some(match &provider.envoy_ext_authz_http {
            Some(http) => Services::HttpService(http_service(http, &call)),
            None => Services::GrpcService(grpc_service(&call)),
        }),
        failure_mode_allow: call.fail_open,
        clear_route_cache: call.clear_route_cache,
        transport_api_version: core::ApiVersion::V3 as i32,
        status_on_error: call.status_on_error.map(|status| HttpStatus { code: status.0.into() }),
        with_request_body: call.body.map(|body| BufferSettings {
            max_request_bytes: body.max_request_bytes,
            allow_partial_message: body.allow_partial_message,
            pack_as_bytes: body.pack_as_bytes,
        }),
        filter_enabled_metadata: Some(matchers::effective_policy(HTTP_RBAC, prefix)),
        ..Default::default()
    };
    if let Some(http) = &provider.envoy_ext_authz_http {
        let included = headers(&http.include_request_headers_in_check);
        config.allowed_headers = included.or_else(|| headers(&http.include_headers_in_check));
    }
    Some(config)
}

fn of_network(provider: &ExtensionProvider, prefix: &str) -> Option<NetworkExtAuthz> {
    provider.envoy_ext_authz_grpc.as_ref()?;
    let call = provider.call()?;
    Some(NetworkExtAuthz {
        stat_prefix: "tcp.".to_owned(),
        grpc_service: Some(grpc_service(&call)),
        failure_mode_allow: call.fail_open,
        transport_api_version: core::ApiVersion::V3 as i32,
        filter_enabled_metadata: Some(matchers::effective_policy(NETWORK_RBAC, prefix)),
        ..Default::default()
    })
}

fn cluster(call: &Call<'_>) -> String {
    names::outbound(Variant::Main, call.port, None, call.service)
}

fn timeout(call: &Call<'_>) -> Option<pb::Duration> {
    pb::duration(call.timeout.map_or(NO_TIMEOUT, |timeout| timeout.0))
}

fn grpc_service(call: &Call<'_>) -> core::GrpcService {
    use core::grpc_service::{EnvoyGrpc, TargetSpecifier};
    let cluster_name = cluster(call);
    // `|` may not stand in an authority.
    let authority = cluster_name.replace('|', "_.");
    let target = EnvoyGrpc { cluster_name, authority, ..Default::default() };
    core::GrpcService {
        target_specifier: Some(TargetSpecifier::EnvoyGrpc(target)),
        timeout: timeout(call),
        ..Default::default()
    }
}

fn http_service(http: &ExtAuthzHttp, call: &Call<'_>) -> HttpService {
    let uri = core::HttpUri {
        uri: format!("http://{}", call.service),
        timeout: timeout(call),
        http_upstream_type: Some(core::http_uri::HttpUpstreamType::Cluster(cluster(call))),
    };
    let added = http.include_additional_headers_in_check.iter();
    let added: Vec<_> = added
        .map(|(key, value)| core::HeaderValue { key: key.clone(), value: value.clone(), ..Default::default() })
        .collect();
    let response = AuthorizationResponse {
        allowed_upstream_headers: headers(&http.headers_to_upstream_on_allow),
        allowed_client_headers: headers(&http.headers_to_downstream_on_deny),
        allowed_client_headers_on_success: headers(&http.headers_to_downstream_on_allow),
        ..Default::default()
    };
    HttpService {
        server_uri: Some(uri),
        path_prefix: http.path_prefix.as_ref().map(|prefix| prefix.0.clone()).unwrap_or_default(),
        authorization_request: (!added.is_empty())
            .then(|| AuthorizationRequest { headers_to_add: added, ..Default::default() }),
        authorization_response: (response != AuthorizationResponse::default()).then_some(response),
        ..Default::default()
    }
}

/// Names of headers, which have no case.
fn headers(patterns: &[HeaderPattern]) -> Option<ListStringMatcher> {
    let one = |pattern: &HeaderPattern| {
        let text = pattern.0.as_str();
        let matcher = match (text.strip_prefix('*'), text.strip_suffix('*')) {
            (Some(suffix), _) => pb::string(matcher::string_matcher::MatchPattern::Suffix(suffix.to_owned())),
            (None, Some(prefix)) => pb::prefix(prefix),
            (None, None) => pb::exact(text),
        };
        matcher::StringMatcher { ignore_case: true, ..matcher }
    };
    (!patterns.is_empty()).then(|| ListStringMatcher { patterns: patterns.iter().map(one).collect() })
}

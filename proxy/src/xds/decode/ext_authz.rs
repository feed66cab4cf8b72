//! External authorization. What is not understood here is refused: the service decides who may do what.

use std::time::Duration;

use http::StatusCode;
use outrigger_wire::pb::envoy::{
    config::{common::mutation_rules::v3::HeaderMutationRules as PbRules, core::v3::ApiVersion},
    extensions::filters::http::ext_authz::v3::{
        AuthorizationRequest as PbRequest, AuthorizationResponse as PbResponse, BufferSettings,
        CheckSettings as PbSettings, ExtAuthz as Pb, ExtAuthzPerRoute, HttpService as PbHttp,
        check_settings::ServiceOverride, ext_authz::Services, ext_authz_per_route::Override,
    },
    r#type::{matcher::v3::ListStringMatcher, v3::HttpStatus},
};

use super::{
    at::At,
    fields::fields,
    matcher,
    metadata_matcher::metadata_matcher,
    report::Reject,
    scalar::{bool_or, runtime_fraction, runtime_key},
    service::{grpc_service, header_values, http_uri},
};
use crate::ir::{
    ext_authz::{AuthService, AuthzPerRoute, BodySettings, CheckSettings, ExtAuthz, HttpService, MutationRules},
    matcher::{Pattern, StringMatcher},
};

const TIMEOUT: Duration = Duration::from_millis(200);
/// Asked with every question over HTTP.
const ALWAYS: [&str; 4] = ["authorization", ":method", ":path", ":authority"];

pub(crate) fn ext_authz(message: &Pb, at: &At<'_>) -> Result<ExtAuthz, Reject> {
    fields!(at, message => Pb {
        read: [
            transport_api_version, failure_mode_allow, failure_mode_allow_header_add, with_request_body,
            clear_route_cache, status_on_error, validate_mutations, metadata_context_namespaces,
            route_metadata_context_namespaces, filter_enabled, filter_enabled_metadata, deny_at_disable,
            include_peer_certificate, stat_prefix, allowed_headers, disallowed_headers, include_tls_session,
            charge_cluster_response_stats, encode_raw_headers, decoder_header_mutation_rules,
            enable_dynamic_metadata_ingestion, max_denied_response_body_bytes, enforce_response_header_limits, services,
        ],
        // What they change are logs and traces.
        harmless: [filter_metadata, emit_filter_state_stats, emit_client_span],
        refuse: [
            typed_metadata_context_namespaces, route_typed_metadata_context_namespaces, bootstrap_metadata_labels_key,
            shadow_mode,
        ],
    });
    let service = match at.required("services", &message.services)? {
        Services::GrpcService(m) => {
            if message.transport_api_version != ApiVersion::V3 as i32 {
                return Err(at.field("transport_api_version").reject("must be V3"));
            }
            AuthService::Grpc(grpc_service(m, Some(TIMEOUT), &at.field("grpc_service"))?)
        }
        Services::HttpService(m) => AuthService::Http(Box::new(http_service(m, &at.field("http_service"))?)),
    };
    let deny_at_disable = message.deny_at_disable.as_ref().is_some_and(|flag| {
        runtime_key(&flag.runtime_key, &at.field("deny_at_disable"));
        bool_or(&flag.default_value, false)
    });
    let namespaces = |all: &[String]| all.iter().map(|n| n.as_str().into()).collect();
    Ok(ExtAuthz {
        failure_mode_allow: message.failure_mode_allow,
        failure_mode_header: message.failure_mode_allow_header_add,
        body: message.with_request_body.as_ref().map(|m| body(m, &at.field("with_request_body"))).transpose()?,
        clear_route_cache: message.clear_route_cache,
        status_on_error: status(&message.status_on_error, &at.field("status_on_error"))?,
        validate_mutations: message.validate_mutations,
        metadata_namespaces: namespaces(&message.metadata_context_namespaces),
        route_metadata_namespaces: namespaces(&message.route_metadata_context_namespaces),
        enabled: match &message.filter_enabled {
            Some(m) => Some(runtime_fraction(m, &at.field("filter_enabled"))?),
            None => None,
        },
        enabled_metadata: match &message.filter_enabled_metadata {
            Some(m) => Some(metadata_matcher(m, &at.field("filter_enabled_metadata"))?),
            None => None,
        },
        deny_at_disable,
        include_peer_certificate: message.include_peer_certificate,
        include_tls_session: message.include_tls_session,
        stat_prefix: message.stat_prefix.as_str().into(),
        allowed_headers: allowed(message, at)?,
        disallowed_headers: list(&message.disallowed_headers, "disallowed_headers", at)?,
        raw_headers: message.encode_raw_headers,
        rules: match &message.decoder_header_mutation_rules {
            Some(m) => Some(rules(m, &at.field("decoder_header_mutation_rules"))?),
            None => None,
        },
        ingest_metadata: bool_or(&message.enable_dynamic_metadata_ingestion, true),
        charge_cluster: bool_or(&message.charge_cluster_response_stats, true),
        max_denied_body: message.max_denied_response_body_bytes,
        enforce_header_limits: message.enforce_response_header_limits,
        service,
    })
}

/// The headers that a question carries. Over HTTP these are few unless more are named, over gRPC all.
fn allowed(message: &Pb, at: &At<'_>) -> Result<Option<Vec<StringMatcher>>, Reject> {
    let own = match &message.services {
        Some(Services::HttpService(m)) => m.authorization_request.as_ref().and_then(|r| r.allowed_headers.as_ref()),
        _ => None,
    };
    if own.is_some() && message.allowed_headers.is_some() {
        return Err(at.field("allowed_headers").reject("is named by http_service.authorization_request too"));
    }
    let mut named = match own {
        Some(m) => {
            let (http, request) = (at.field("http_service"), "authorization_request");
            patterns(m, &http.field(request).field("allowed_headers"))?
        }
        None => list(&message.allowed_headers, "allowed_headers", at)?,
    };
    match &message.services {
        Some(Services::HttpService(_)) => {
            named.extend(ALWAYS.map(StringMatcher::exact));
            Ok(Some(named))
        }
        _ => Ok(message.allowed_headers.is_some().then_some(named)),
    }
}

fn list(message: &Option<ListStringMatcher>, name: &str, at: &At<'_>) -> Result<Vec<StringMatcher>, Reject> {
    message.as_ref().map_or(Ok(Vec::new()), |m| patterns(m, &at.field(name)))
}

fn patterns(message: &ListStringMatcher, at: &At<'_>) -> Result<Vec<StringMatcher>, Reject> {
    at.each("patterns", &message.patterns, |m, at| {
        let mut matcher = matcher::string(m, at)?;
        // Header names are lower case here, and `host` is the authority everywhere.
        if let Pattern::Exact(text) = &mut matcher.pattern
            && text.eq_ignore_ascii_case("host")
        {
            *text = ":authority".into();
        }
        Ok(matcher)
    })
}

fn status(message: &Option<HttpStatus>, at: &At<'_>) -> Result<StatusCode, Reject> {
    let Some(HttpStatus { code }) = message else { return Ok(StatusCode::FORBIDDEN) };
    let status = u16::try_from(*code).ok().filter(|c| (200..600).contains(c));
    let status = status.and_then(|c| StatusCode::from_u16(c).ok());
    status.ok_or_else(|| at.field("code").reject(format!("{code} is not between 200 and 599")))
}

fn body(message: &BufferSettings, at: &At<'_>) -> Result<BodySettings, Reject> {
    fields!(at, message => BufferSettings { read: [max_request_bytes, allow_partial_message, pack_as_bytes] });
    if message.max_request_bytes == 0 {
        return Err(at.field("max_request_bytes").reject("must be greater than zero"));
    }
    Ok(BodySettings {
        max_bytes: message.max_request_bytes,
        partial: message.allow_partial_message,
        raw: message.pack_as_bytes,
    })
}

fn http_service(message: &PbHttp, at: &At<'_>) -> Result<HttpService, Reject> {
    fields!(at, message => PbHttp {
        read: [server_uri, path_prefix, path_override, authorization_request, authorization_response],
        refuse: [retry_policy],
    });
    for (name, path) in [("path_prefix", &message.path_prefix), ("path_override", &message.path_override)] {
        let fits = path.is_empty() || path.starts_with('/') && path.parse::<http::uri::PathAndQuery>().is_ok();
        if !fits {
            return Err(at.field(name).reject(format!("{path:?} must be a path that begins with `/`")));
        }
    }
    if !message.path_prefix.is_empty() && !message.path_override.is_empty() {
        return Err(at.field("path_override").reject("only one of path_prefix and path_override is possible"));
    }
    let request = message.authorization_request.clone().unwrap_or_default();
    let inner = at.field("authorization_request");
    fields!(&inner, &request => PbRequest { read: [allowed_headers, headers_to_add] });
    let response = message.authorization_response.clone().unwrap_or_default();
    let to = at.field("authorization_response");
    fields!(&to, &response => PbResponse {
        read: [
            allowed_upstream_headers, allowed_upstream_headers_to_append, allowed_client_headers,
            allowed_client_headers_on_success, dynamic_metadata_from_headers,
        ],
    });
    let client = list(&response.allowed_client_headers, "allowed_client_headers", &to)?;
    Ok(HttpService {
        uri: http_uri(at.required("server_uri", &message.server_uri)?, &at.field("server_uri"))?,
        path_prefix: message.path_prefix.as_str().into(),
        path_override: (!message.path_override.is_empty()).then(|| message.path_override.as_str().into()),
        headers_to_add: header_values("headers_to_add", &request.headers_to_add, &inner)?,
        upstream_headers: list(&response.allowed_upstream_headers, "allowed_upstream_headers", &to)?,
        upstream_headers_to_append: list(
            &response.allowed_upstream_headers_to_append,
            "allowed_upstream_headers_to_append",
            &to,
        )?,
        client_headers: (!client.is_empty()).then_some(client),
        client_headers_on_success: list(
            &response.allowed_client_headers_on_success,
            "allowed_client_headers_on_success",
            &to,
        )?,
        metadata_from_headers: list(&response.dynamic_metadata_from_headers, "dynamic_metadata_from_headers", &to)?,
    })
}

fn rules(message: &PbRules, at: &At<'_>) -> Result<MutationRules, Reject> {
    fields!(at, message => PbRules {
        read: [
            allow_all_routing, allow_envoy, disallow_system, disallow_all, allow_expression, disallow_expression,
            disallow_is_error,
        ],
    });
    Ok(MutationRules {
        allow_routing: bool_or(&message.allow_all_routing, false),
        allow_envoy: bool_or(&message.allow_envoy, false),
        disallow_system: bool_or(&message.disallow_system, false),
        disallow_all: bool_or(&message.disallow_all, false),
        allow: match &message.allow_expression {
            Some(m) => Some(matcher::regex(m, &at.field("allow_expression"))?),
            None => None,
        },
        disallow: match &message.disallow_expression {
            Some(m) => Some(matcher::regex(m, &at.field("disallow_expression"))?),
            None => None,
        },
        disallow_is_error: bool_or(&message.disallow_is_error, false),
    })
}

/// What one level says.
pub(crate) fn per_route(message: &ExtAuthzPerRoute, at: &At<'_>) -> Result<AuthzPerRoute, Reject> {
    fields!(at, message => ExtAuthzPerRoute { read: [r#override] });
    let settings = match at.required("override", &message.r#override)? {
        Override::Disabled(true) => return Ok(AuthzPerRoute::Disabled),
        Override::Disabled(false) => return Err(at.field("disabled").reject("must be true")),
        Override::CheckSettings(m) => m,
    };
    let at = at.field("check_settings");
    fields!(&at, settings => PbSettings {
        read: [context_extensions, disable_request_body_buffering, with_request_body, service_override],
        harmless: [emit_client_span],
    });
    if settings.disable_request_body_buffering && settings.with_request_body.is_some() {
        return Err(at.reject("only one of disable_request_body_buffering and with_request_body is possible"));
    }
    let mut context: Vec<(Box<str>, Box<str>)> =
        settings.context_extensions.iter().map(|(k, v)| (k.as_str().into(), v.as_str().into())).collect();
    context.sort();
    Ok(AuthzPerRoute::Check(CheckSettings {
        context,
        no_body: settings.disable_request_body_buffering,
        body: settings.with_request_body.as_ref().map(|m| body(m, &at.field("with_request_body"))).transpose()?,
        service: match &settings.service_override {
            Some(ServiceOverride::GrpcService(m)) => {
                Some(AuthService::Grpc(grpc_service(m, Some(TIMEOUT), &at.field("grpc_service"))?))
            }
            Some(ServiceOverride::HttpService(m)) => {
                Some(AuthService::Http(Box::new(http_service(m, &at.field("http_service"))?)))
            }
            None => None,
        },
    }))
}

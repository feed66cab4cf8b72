//! HTTP filters: those that exist here, the ones that may be ignored, and the refusal of all others.

use std::sync::Arc;

use outrigger_wire::pb::envoy::extensions::filters::{
    http::{
        adaptive_concurrency::v3::AdaptiveConcurrency, buffer::v3::Buffer, cors::v3::Cors, ext_authz::v3::ExtAuthz,
        fault::v3::HttpFault, grpc_web::v3::GrpcWeb, header_mutation::v3::HeaderMutation as PbHeaderMutation,
        jwt_authn::v3::JwtAuthentication, local_ratelimit::v3::LocalRateLimit, ratelimit::v3::RateLimit,
        rbac::v3::Rbac as PbRbac, router::v3::Router as PbRouter, stateful_session::v3::StatefulSession,
    },
    network::http_connection_manager::v3::{HttpFilter as Pb, http_filter::ConfigType},
};
use serde_json::{Map, Value};

use super::{
    adaptive_concurrency::adaptive_concurrency,
    at::At,
    ext_authz::ext_authz,
    extension::{self, Extension},
    fault::fault,
    fields::fields,
    global_rate_limit,
    header_mutation::mutations,
    istio_stats,
    jwt_authn::jwt_authn,
    local_rate_limit, rbac,
    report::Reject,
    tls::without_peer_exchange,
};
use crate::ir::{
    http::{AlpnOverride, FilterKind, HttpFilter, Router},
    share::share,
};

const ALPN: &str = "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig";

/// `istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig`.
#[derive(Clone, PartialEq, prost::Message)]
struct AlpnConfig {
    #[prost(message, repeated, tag = "1")]
    alpn_override: Vec<AlpnEntry>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AlpnEntry {
    /// HTTP10 = 0, HTTP11 = 1, HTTP2 = 2.
    #[prost(int32, tag = "1")]
    upstream_protocol: i32,
    #[prost(string, repeated, tag = "2")]
    alpn_override: Vec<String>,
}

/// The filters of a connection manager; the router is last.
pub(crate) fn filters(messages: &[Pb], at: &At<'_>) -> Result<Vec<HttpFilter>, Reject> {
    let mut filters: Vec<HttpFilter> = Vec::new();
    for (i, message) in messages.iter().enumerate() {
        let at = at.index("http_filters", i);
        if filters.last().is_some_and(|f| matches!(f.kind, FilterKind::Router(_))) {
            return Err(at.reject("follows the router, which must be the last filter"));
        }
        let any = match &message.config_type {
            Some(ConfigType::TypedConfig(any)) => any,
            Some(ConfigType::ConfigDiscovery(_)) => {
                return Err(at.field("config_discovery").reject("is not supported by this release"));
            }
            None => return Err(at.field("typed_config").reject("is required")),
        };
        let inner = at.field("typed_config");
        let extension = extension::open(any, &inner)?;
        if message.disabled && extension.is::<PbRouter>() {
            return Err(at.field("disabled").reject("the router cannot be disabled"));
        }
        // One that is disabled and unknown is refused as well: a route may switch it on.
        if let Some(kind) = filter(&extension, &inner)? {
            filters.push(HttpFilter { name: message.name.as_str().into(), kind, disabled: message.disabled });
        }
    }
    match filters.last() {
        Some(HttpFilter { kind: FilterKind::Router(_), .. }) => Ok(filters),
        _ => Err(at.field("http_filters").reject("the last filter must be the router")),
    }
}

fn filter(extension: &Extension<'_>, at: &At<'_>) -> Result<Option<FilterKind>, Reject> {
    if extension.is::<PbRouter>() {
        return Ok(Some(FilterKind::Router(router(&extension.message(at)?, at)?)));
    }
    if extension.kind == ALPN {
        let config = extension.foreign(at, alpn_from_json)?;
        return Ok(Some(FilterKind::Alpn(alpn(&config, at)?)));
    }
    if extension.is::<Cors>() {
        // It has no fields at all: its policy is in the routes.
        return Ok(Some(FilterKind::Cors));
    }
    if extension.is::<HttpFault>() {
        return Ok(Some(FilterKind::Fault(share(fault(&extension.message(at)?, at)?))));
    }
    if extension.is::<PbHeaderMutation>() {
        let message: PbHeaderMutation = extension.message(at)?;
        fields!(at, &message => PbHeaderMutation { read: [mutations, most_specific_header_mutations_wins] });
        let all = message.mutations.clone().unwrap_or_default();
        return Ok(Some(FilterKind::HeaderMutation {
            mutations: share(mutations(&all, &at.field("mutations"))?),
            most_specific_wins: message.most_specific_header_mutations_wins,
        }));
    }
    if extension.is::<AdaptiveConcurrency>() {
        let config = adaptive_concurrency(&extension.message(at)?, at)?;
        return Ok(Some(FilterKind::AdaptiveConcurrency(Arc::new(config))));
    }
    if extension.is::<RateLimit>() {
        let limit = global_rate_limit::global(&extension.message(at)?, at)?;
        return Ok(Some(FilterKind::RateLimit(Arc::new(limit))));
    }
    if extension.is::<LocalRateLimit>() {
        let limit = local_rate_limit::local(&extension.message(at)?, false, at)?;
        return Ok(Some(FilterKind::LocalRateLimit(Arc::new(limit))));
    }
    if extension.is::<PbRbac>() {
        return Ok(Some(FilterKind::Rbac(share(rbac::http(&extension.message(at)?, at)?))));
    }
    if extension.is::<Buffer>() {
        return Ok(Some(FilterKind::Buffer(max_request_bytes(&extension.message(at)?, at)?)));
    }
    if extension.is_empty() && extension.is::<StatefulSession>() {
        at.harmless(format!("{} is empty and does nothing", extension.kind));
        return Ok(None);
    }
    if extension.is::<ExtAuthz>() {
        return Ok(Some(FilterKind::ExtAuthz(share(ext_authz(&extension.message(at)?, at)?))));
    }
    if extension.is::<JwtAuthentication>() {
        return Ok(Some(FilterKind::JwtAuthn(share(jwt_authn(&extension.message(at)?, at)?))));
    }
    if istio_stats::is_one(extension) {
        // Nothing on the way of a request: the manager keeps it apart.
        return Ok(None);
    }
    if extension.is::<GrpcWeb>() {
        return Ok(Some(FilterKind::GrpcWeb));
    }
    extension.ignore("HTTP filter", at).map(|()| None)
}

/// How much of a request the buffer filter gathers.
pub(crate) fn max_request_bytes(message: &Buffer, at: &At<'_>) -> Result<u32, Reject> {
    fields!(at, message => Buffer { read: [max_request_bytes] });
    match at.required("max_request_bytes", &message.max_request_bytes)?.value {
        0 => Err(at.field("max_request_bytes").reject("must be greater than zero")),
        bytes => Ok(bytes),
    }
}

fn router(message: &PbRouter, at: &At<'_>) -> Result<Router, Reject> {
    fields!(at, message => PbRouter {
        read: [suppress_envoy_headers, respect_expected_rq_timeout, upstream_http_filters, start_child_span],
        harmless: [
            dynamic_stats, suppress_grpc_request_failure_code_stats, reject_connect_request_early_data,
        ],
        unsupported: [upstream_log, upstream_log_options, strict_check_headers],
    });
    upstream_filters("upstream_http_filters", &message.upstream_http_filters, at)?;
    Ok(Router {
        suppress_envoy_headers: message.suppress_envoy_headers,
        respect_expected_rq_timeout: message.respect_expected_rq_timeout,
        start_child_span: message.start_child_span,
    })
}

/// Upstream filter chains: nothing beyond the codec and what may be ignored.
pub(crate) fn upstream_filters(name: &str, messages: &[Pb], at: &At<'_>) -> Result<(), Reject> {
    for (i, message) in messages.iter().enumerate() {
        let at = at.index(name, i);
        let Some(ConfigType::TypedConfig(any)) = &message.config_type else {
            return Err(at.field("typed_config").reject("is required"));
        };
        let inner = at.field("typed_config");
        if !message.disabled {
            extension::open(any, &inner)?.ignore("upstream HTTP filter", &inner)?;
        }
    }
    Ok(())
}

fn alpn(config: &AlpnConfig, at: &At<'_>) -> Result<AlpnOverride, Reject> {
    let mut result = AlpnOverride::default();
    for (i, entry) in config.alpn_override.iter().enumerate() {
        let at = at.index("alpn_override", i);
        let slot = match entry.upstream_protocol {
            0 => &mut result.http10,
            1 => &mut result.http11,
            2 => &mut result.http2,
            other => return Err(at.field("upstream_protocol").reject(format!("protocol {other} is not known"))),
        };
        if entry.alpn_override.iter().any(|p| p.is_empty() || p.len() > 255) {
            return Err(at.field("alpn_override").reject("protocols must have 1 to 255 bytes"));
        }
        if !slot.is_empty() {
            return Err(at.field("upstream_protocol").reject("occurs twice"));
        }
        *slot = without_peer_exchange(&entry.alpn_override);
    }
    Ok(result)
}

fn alpn_from_json(fields: &Map<String, Value>) -> Result<AlpnConfig, String> {
    let either = |m: &Map<String, Value>, snake: &str, camel: &str| m.get(snake).or_else(|| m.get(camel)).cloned();
    let known = |m: &Map<String, Value>, names: &[&str]| match m.keys().find(|k| !names.contains(&k.as_str())) {
        Some(key) => Err(format!("{key}: unknown field")),
        None => Ok(()),
    };
    known(fields, &["alpn_override", "alpnOverride"])?;
    let Some(list) = either(fields, "alpn_override", "alpnOverride") else { return Ok(AlpnConfig::default()) };
    let list = list.as_array().cloned().ok_or("alpn_override: must be a list")?;
    let entry = |value: Value| {
        let m = value.as_object().ok_or("alpn_override: must hold objects")?;
        known(m, &["upstream_protocol", "upstreamProtocol", "alpn_override", "alpnOverride"])?;
        let upstream_protocol = match either(m, "upstream_protocol", "upstreamProtocol") {
            None | Some(Value::Null) => 0,
            Some(Value::String(name)) => match name.as_str() {
                "HTTP10" => 0,
                "HTTP11" => 1,
                "HTTP2" => 2,
                other => return Err(format!("upstream_protocol: {other:?} is not known")),
            },
            Some(number) => {
                let number = number.as_i64().and_then(|n| i32::try_from(n).ok());
                number.ok_or("upstream_protocol: must be a name or a number")?
            }
        };
        let protocols = match either(m, "alpn_override", "alpnOverride") {
            Some(list) => serde_json::from_value(list).map_err(|_| "alpn_override: must hold strings".to_owned())?,
            None => Vec::new(),
        };
        Ok(AlpnEntry { upstream_protocol, alpn_override: protocols })
    };
    Ok(AlpnConfig { alpn_override: list.into_iter().map(entry).collect::<Result<_, String>>()? })
}

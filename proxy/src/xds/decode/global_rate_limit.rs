//! The filters that ask a rate limit service.

use std::time::Duration;

use http::{HeaderName, StatusCode};
use outrigger_wire::pb::{
    envoy::{
        config::{
            core::v3::{ApiVersion, GrpcService, HeaderValue, grpc_service::EnvoyGrpc, grpc_service::TargetSpecifier},
            ratelimit::v3::RateLimitServiceConfig,
        },
        extensions::{
            common::ratelimit::v3::{RateLimitDescriptor, rate_limit_descriptor::Entry},
            filters::{
                http::ratelimit::v3::{
                    RateLimit as Pb, RateLimitPerRoute,
                    rate_limit::XRateLimitHeadersRfcVersion as Version,
                    rate_limit_per_route::{OverrideOptions, VhRateLimitsOptions},
                },
                network::ratelimit::v3::RateLimit as PbConnections,
            },
        },
    },
    google::protobuf::Duration as PbDuration,
};

use super::{
    at::At,
    fields::fields,
    format_string::template,
    local_rate_limit::{fraction, headers, status},
    rate_limit::{MAX_STAGE, Of, rules},
    report::Reject,
    scalar::{enumeration, header_name, not_empty, zero_is_off},
};
use crate::ir::{
    Fraction,
    format::Template,
    rate_limit::{
        GlobalConnectionRateLimit, GlobalRateLimit, LimitService, RequestKind, RouteRateLimit, VirtualHostLimits,
    },
};

/// Envoy's default.
const TIMEOUT: Duration = Duration::from_millis(20);

const ALWAYS: Fraction = Fraction { numerator: 100, denominator: 100 };
const NEVER: Fraction = Fraction { numerator: 0, denominator: 100 };

pub(crate) fn global(message: &Pb, at: &At<'_>) -> Result<GlobalRateLimit, Reject> {
    fields!(at, message => Pb {
        read: [
            domain, stage, request_type, timeout, failure_mode_deny, rate_limited_as_resource_exhausted,
            rate_limit_service, enable_x_ratelimit_headers, disable_x_envoy_ratelimited_header, rate_limited_status,
            response_headers_to_add, status_on_error, filter_enabled, filter_enforced, failure_mode_deny_percent,
            rate_limits, metadata_namespace, enable_retry_after_header,
        ],
        // The counters of a cluster have no room for names from a configuration.
        harmless: [stat_prefix],
    });
    if message.stage > MAX_STAGE {
        return Err(at.field("stage").reject(format!("{} is more than {MAX_STAGE}", message.stage)));
    }
    let requests = match message.request_type.as_str() {
        "" | "both" => RequestKind::Both,
        "internal" => RequestKind::Internal,
        "external" => RequestKind::External,
        other => return Err(at.field("request_type").reject(format!("{other:?} is not internal, external or both"))),
    };
    let version: Version = enumeration(message.enable_x_ratelimit_headers, &at.field("enable_x_ratelimit_headers"))?;
    let deny = if message.failure_mode_deny { ALWAYS } else { NEVER };
    let namespace = match message.metadata_namespace.as_str() {
        "" => "envoy.filters.http.ratelimit",
        namespace => namespace,
    };
    Ok(GlobalRateLimit {
        service: service(&message.domain, &message.rate_limit_service, &message.timeout, at)?,
        stage: message.stage,
        requests,
        failure_deny: fraction("failure_mode_deny_percent", &message.failure_mode_deny_percent, deny, at)?,
        resource_exhausted: message.rate_limited_as_resource_exhausted,
        headers: version == Version::DraftVersion03,
        limited_header: !message.disable_x_envoy_ratelimited_header,
        limited_status: status(&message.rate_limited_status, StatusCode::TOO_MANY_REQUESTS),
        response_headers: headers("response_headers_to_add", &message.response_headers_to_add, false, at)?,
        status_on_error: status(&message.status_on_error, StatusCode::INTERNAL_SERVER_ERROR),
        enabled: fraction("filter_enabled", &message.filter_enabled, ALWAYS, at)?,
        enforced: fraction("filter_enforced", &message.filter_enforced, ALWAYS, at)?,
        rules: rules(&message.rate_limits, Of::GlobalFilter, at)?,
        metadata_namespace: namespace.into(),
        retry_after: message.enable_retry_after_header,
    })
}

pub(crate) fn per_route(message: &RateLimitPerRoute, at: &At<'_>) -> Result<RouteRateLimit, Reject> {
    fields!(at, message => RateLimitPerRoute { read: [vh_rate_limits, override_option, rate_limits, domain] });
    let virtual_host = match enumeration(message.vh_rate_limits, &at.field("vh_rate_limits"))? {
        VhRateLimitsOptions::Override => VirtualHostLimits::Override,
        VhRateLimitsOptions::Include => VirtualHostLimits::Include,
        VhRateLimitsOptions::Ignore => VirtualHostLimits::Ignore,
    };
    if enumeration::<OverrideOptions>(message.override_option, &at.field("override_option"))?
        != OverrideOptions::Default
    {
        at.field("override_option").unsupported("has no effect, as in Envoy");
    }
    Ok(RouteRateLimit {
        virtual_host,
        rules: rules(&message.rate_limits, Of::GlobalFilter, at)?,
        domain: (!message.domain.is_empty()).then(|| message.domain.as_str().into()),
    })
}

/// The network filter.
pub(crate) fn connections(message: &PbConnections, at: &At<'_>) -> Result<GlobalConnectionRateLimit, Reject> {
    fields!(at, message => PbConnections {
        read: [stat_prefix, domain, descriptors, timeout, failure_mode_deny, rate_limit_service],
    });
    if message.descriptors.is_empty() {
        return Err(at.field("descriptors").reject("must not be empty"));
    }
    let descriptors = at.each("descriptors", &message.descriptors, |m, at| {
        fields!(at, m => RateLimitDescriptor {
            read: [entries],
            unsupported: [limit, hits_addend, is_negative_hits],
        });
        if m.entries.is_empty() {
            return Err(at.field("entries").reject("must not be empty"));
        }
        at.each("entries", &m.entries, |m, at| {
            fields!(at, m => Entry { read: [key, value] });
            let key: Box<str> = not_empty(&m.key, &at.field("key"))?.into();
            Ok((key, template(&m.value, &at.field("value"))?))
        })
    })?;
    Ok(GlobalConnectionRateLimit {
        stat_prefix: not_empty(&message.stat_prefix, &at.field("stat_prefix"))?.into(),
        service: service(&message.domain, &message.rate_limit_service, &message.timeout, at)?,
        descriptors,
        failure_deny: message.failure_mode_deny,
    })
}

fn service(
    domain: &str,
    message: &Option<RateLimitServiceConfig>,
    timeout: &Option<PbDuration>,
    at: &At<'_>,
) -> Result<LimitService, Reject> {
    let domain = not_empty(domain, &at.field("domain"))?.into();
    let limit = zero_is_off(at.duration("timeout", timeout)?.or(Some(TIMEOUT)));
    let config = at.required("rate_limit_service", message)?;
    let at = at.field("rate_limit_service");
    fields!(&at, config => RateLimitServiceConfig { read: [grpc_service, transport_api_version] });
    let version: ApiVersion = enumeration(config.transport_api_version, &at.field("transport_api_version"))?;
    if version != ApiVersion::V3 {
        return Err(at.field("transport_api_version").reject("must be V3"));
    }
    let grpc = at.required("grpc_service", &config.grpc_service)?;
    let at = at.field("grpc_service");
    fields!(&at, grpc => GrpcService {
        read: [target_specifier, initial_metadata],
        harmless: [timeout],
        unsupported: [retry_policy],
    });
    let envoy = match at.required("target_specifier", &grpc.target_specifier)? {
        TargetSpecifier::EnvoyGrpc(m) => m,
        TargetSpecifier::GoogleGrpc(_) => {
            return Err(at.field("google_grpc").reject("is not supported by this release: use envoy_grpc"));
        }
    };
    let metadata = at.each("initial_metadata", &grpc.initial_metadata, initial)?;
    let at = at.field("envoy_grpc");
    fields!(&at, envoy => EnvoyGrpc {
        read: [cluster_name, authority],
        harmless: [max_receive_message_length, skip_envoy_headers],
        unsupported: [retry_policy],
    });
    Ok(LimitService {
        domain,
        cluster: not_empty(&envoy.cluster_name, &at.field("cluster_name"))?.into(),
        authority: envoy.authority.as_str().into(),
        metadata,
        timeout: limit,
    })
}

fn initial(message: &HeaderValue, at: &At<'_>) -> Result<(HeaderName, Template), Reject> {
    fields!(at, message => HeaderValue { read: [key, value], unsupported: [raw_value] });
    let name = header_name(not_empty(&message.key, &at.field("key"))?, &at.field("key"))?;
    Ok((name, template(&message.value, &at.field("value"))?))
}

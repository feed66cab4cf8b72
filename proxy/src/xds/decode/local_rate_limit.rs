//! The local rate limit filters.

use http::StatusCode;
use outrigger_wire::pb::envoy::{
    config::core::v3::{HeaderValueOption, RuntimeFractionalPercent},
    extensions::{
        common::ratelimit::v3::{
            LocalRateLimitDescriptor, VhRateLimitsOptions, XRateLimitHeadersRfcVersion as Version,
            rate_limit_descriptor::Entry,
        },
        filters::{
            http::local_ratelimit::v3::LocalRateLimit as Pb,
            network::local_ratelimit::v3::LocalRateLimit as PbConnections,
        },
    },
    r#type::v3::{HttpStatus, TokenBucket as PbBucket},
};

use super::{
    at::At,
    fields::fields,
    header_ops::addition,
    rate_limit::{MAX_STAGE, Of, rules},
    report::Reject,
    scalar::{bool_or, enumeration, not_empty, runtime_fraction, runtime_key, u32_in},
};
use crate::ir::{
    Fraction,
    rate_limit::{ConnectionRateLimit, LimitedDescriptor, LocalRateLimit, TokenBucket, VirtualHostLimits},
    route::HeaderAdd,
};

/// Envoy's bound on the headers that a limit adds.
const MAX_HEADERS: usize = 10;

/// Faster than this Envoy refuses to fill a bucket.
const LEAST_INTERVAL: std::time::Duration = std::time::Duration::from_millis(50);

const NEVER: Fraction = Fraction { numerator: 0, denominator: 100 };

pub(crate) fn local(message: &Pb, per_route: bool, at: &At<'_>) -> Result<LocalRateLimit, Reject> {
    fields!(at, message => Pb {
        read: [
            stat_prefix, status, token_bucket, filter_enabled, filter_enforced,
            request_headers_to_add_when_not_enforced, response_headers_to_add, descriptors, stage,
            local_rate_limit_per_downstream_connection, local_cluster_rate_limit, enable_x_ratelimit_headers,
            vh_rate_limits, always_consume_default_token_bucket, rate_limited_as_resource_exhausted, rate_limits,
            max_dynamic_descriptors, enable_retry_after_header,
        ],
    });
    let bucket = message.token_bucket.as_ref().map(|m| bucket(m, &at.field("token_bucket"))).transpose()?;
    if per_route && bucket.is_none() {
        return Err(at.field("token_bucket").reject("must be set for per filter configs"));
    }
    let per_connection = message.local_rate_limit_per_downstream_connection;
    let shared = message.local_cluster_rate_limit.is_some();
    if per_connection && shared {
        let at = at.field("local_cluster_rate_limit");
        return Err(at.reject("excludes local_rate_limit_per_downstream_connection"));
    }
    if shared {
        at.field("local_cluster_rate_limit").harmless("counts the hosts of the bootstrap's local_cluster_name");
    }
    let version: Version = enumeration(message.enable_x_ratelimit_headers, &at.field("enable_x_ratelimit_headers"))?;
    let at_most = |name: &str, value: u32, max: u32| match value <= max {
        true => Ok(value),
        false => Err(at.field(name).reject(format!("{value} is more than {max}"))),
    };
    Ok(LocalRateLimit {
        place: at.place().into(),
        stat_prefix: not_empty(&message.stat_prefix, &at.field("stat_prefix"))?.into(),
        status: status(&message.status, StatusCode::TOO_MANY_REQUESTS),
        bucket,
        enabled: fraction("filter_enabled", &message.filter_enabled, NEVER, at)?,
        enforced: fraction("filter_enforced", &message.filter_enforced, NEVER, at)?,
        request_headers: headers(
            "request_headers_to_add_when_not_enforced",
            &message.request_headers_to_add_when_not_enforced,
            true,
            at,
        )?,
        response_headers: headers("response_headers_to_add", &message.response_headers_to_add, false, at)?,
        descriptors: descriptors(&message.descriptors, at)?,
        stage: at_most("stage", message.stage, MAX_STAGE)?,
        per_connection,
        shared,
        headers: version == Version::DraftVersion03,
        virtual_host: match enumeration(message.vh_rate_limits, &at.field("vh_rate_limits"))? {
            VhRateLimitsOptions::Override => VirtualHostLimits::Override,
            VhRateLimitsOptions::Include => VirtualHostLimits::Include,
            VhRateLimitsOptions::Ignore => VirtualHostLimits::Ignore,
        },
        always_default: bool_or(&message.always_consume_default_token_bucket, true),
        resource_exhausted: message.rate_limited_as_resource_exhausted,
        rules: rules(&message.rate_limits, Of::LocalFilter, at)?,
        max_dynamic: u32_in(&message.max_dynamic_descriptors, 20, 1..=u32::MAX, &at.field("max_dynamic_descriptors"))?,
        retry_after: message.enable_retry_after_header,
    })
}

/// The network filter.
pub(crate) fn connections(message: &PbConnections, at: &At<'_>) -> Result<ConnectionRateLimit, Reject> {
    fields!(at, message => PbConnections { read: [stat_prefix, token_bucket, runtime_enabled, share_key] });
    let enabled = match &message.runtime_enabled {
        None => true,
        Some(flag) => {
            runtime_key(&flag.runtime_key, &at.field("runtime_enabled"));
            at.field("runtime_enabled").required("default_value", &flag.default_value)?.value
        }
    };
    let required = at.required("token_bucket", &message.token_bucket)?;
    Ok(ConnectionRateLimit {
        stat_prefix: not_empty(&message.stat_prefix, &at.field("stat_prefix"))?.into(),
        bucket: bucket(required, &at.field("token_bucket"))?,
        enabled,
        share_key: message.share_key.as_str().into(),
    })
}

/// A status of at least 400, or `default`.
pub(crate) fn status(message: &Option<HttpStatus>, default: StatusCode) -> StatusCode {
    let code = message.map_or(0, |s| s.code);
    let status = u16::try_from(code).ok().filter(|s| *s >= 400).and_then(|s| StatusCode::from_u16(s).ok());
    status.unwrap_or(default)
}

pub(crate) fn fraction(
    name: &str,
    message: &Option<RuntimeFractionalPercent>,
    default: Fraction,
    at: &At<'_>,
) -> Result<Fraction, Reject> {
    message.as_ref().map_or(Ok(default), |m| runtime_fraction(m, &at.field(name)))
}

pub(crate) fn headers(
    name: &str,
    messages: &[HeaderValueOption],
    request: bool,
    at: &At<'_>,
) -> Result<Vec<HeaderAdd>, Reject> {
    if messages.len() > MAX_HEADERS {
        return Err(at.field(name).reject(format!("{} headers are more than {MAX_HEADERS}", messages.len())));
    }
    Ok(at.each(name, messages, |m, at| addition(m, request, at))?.into_iter().flatten().collect())
}

fn descriptors(messages: &[LocalRateLimitDescriptor], at: &At<'_>) -> Result<Vec<LimitedDescriptor>, Reject> {
    let all = at.each("descriptors", messages, |m, at| {
        fields!(at, m => LocalRateLimitDescriptor { read: [entries, token_bucket, shadow_mode] });
        if m.entries.is_empty() {
            return Err(at.field("entries").reject("must not be empty"));
        }
        let entries = at.each("entries", &m.entries, |m, at| {
            fields!(at, m => Entry { read: [key, value] });
            Ok((not_empty(&m.key, &at.field("key"))?.into(), m.value.as_str().into()))
        })?;
        let required = at.required("token_bucket", &m.token_bucket)?;
        Ok(LimitedDescriptor { entries, bucket: bucket(required, &at.field("token_bucket"))?, shadow: m.shadow_mode })
    })?;
    let mut seen = std::collections::HashSet::new();
    match all.iter().position(|d| !seen.insert(&d.entries)) {
        Some(i) => Err(at.index("descriptors", i).field("entries").reject("occur twice")),
        None => Ok(all),
    }
}

fn bucket(message: &PbBucket, at: &At<'_>) -> Result<TokenBucket, Reject> {
    fields!(at, message => PbBucket { read: [max_tokens, tokens_per_fill, fill_interval] });
    let interval = at.required("fill_interval", &message.fill_interval)?;
    let interval_at = at.field("fill_interval");
    let fill_interval = super::scalar::duration(interval, &interval_at)?;
    // An empty bucket that is never to be filled may say what it likes.
    if fill_interval.is_zero() || (fill_interval < LEAST_INTERVAL && message.max_tokens > 0) {
        return Err(interval_at.reject("must be at least 50ms"));
    }
    Ok(TokenBucket {
        max_tokens: message.max_tokens,
        tokens_per_fill: u32_in(&message.tokens_per_fill, 1, 1..=u32::MAX, &at.field("tokens_per_fill"))?,
        fill_interval,
    })
}

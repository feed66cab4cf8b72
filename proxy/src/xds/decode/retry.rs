//! Retry and hedge policies, and what may be kept of a body for them.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use http::HeaderName;
use outrigger_wire::pb::{
    envoy::{
        config::route::v3::{
            HedgePolicy, RetryPolicy as Pb,
            retry_policy::{
                RateLimitedRetryBackOff, ResetHeader as PbReset, ResetHeaderFormat, RetryHostPredicate, RetryPriority,
                retry_host_predicate::ConfigType, retry_priority,
            },
        },
        extensions::retry::{
            host::{
                omit_canary_hosts::v3::OmitCanaryHostsPredicate, omit_host_metadata::v3::OmitHostMetadataConfig,
                previous_hosts::v3::PreviousHostsPredicate,
            },
            priority::previous_priorities::v3::PreviousPrioritiesConfig,
        },
    },
    google::protobuf::{UInt32Value, UInt64Value},
};

use super::{
    at::At,
    extension,
    fields::fields,
    matcher, metadata,
    report::{NoteKind, Reject},
    scalar::{enumeration, header_name, positive, u32_or, zero_is_off},
};
use crate::ir::{
    route::{BodyBuffer, ResetHeader, RetryOn, RetryPolicy},
    share::share,
};

pub(crate) fn retry(message: &Option<Pb>, at: &At<'_>) -> Result<Option<Arc<RetryPolicy>>, Reject> {
    message.as_ref().map(|m| policy(m, &at.field("retry_policy")).map(share)).transpose()
}

fn policy(message: &Pb, at: &At<'_>) -> Result<RetryPolicy, Reject> {
    fields!(at, message => Pb {
        read: [
            retry_on, num_retries, per_try_timeout, per_try_idle_timeout, retry_host_predicate,
            host_selection_retry_max_attempts, retriable_status_codes, retry_back_off, retriable_headers,
            retriable_request_headers, rate_limited_retry_back_off, retry_priority,
        ],
        unsupported: [retry_options_predicates, refresh_cluster_on_retry],
    });
    let (on, unknown) = RetryOn::parse(&message.retry_on);
    for name in unknown {
        at.field("retry_on").unsupported(format!("the condition {name:?} is not known and never holds"));
    }
    if on.contains(RetryOn::HTTP3_POST_CONNECT_FAILURE) {
        at.field("retry_on").harmless("http3-post-connect-failure never holds without HTTP/3");
    }
    let codes = message.retriable_status_codes.iter();
    let attempts = u32::try_from(message.host_selection_retry_max_attempts);
    let attempts = attempts.map_err(|_| at.field("host_selection_retry_max_attempts").reject("is out of range"))?;
    let mut policy = RetryPolicy {
        on,
        max_retries: u32_or(&message.num_retries, 1),
        per_try_timeout: zero_is_off(at.duration("per_try_timeout", &message.per_try_timeout)?),
        per_try_idle_timeout: zero_is_off(at.duration("per_try_idle_timeout", &message.per_try_idle_timeout)?),
        // No response has a code that does not fit.
        retriable_status: codes.filter_map(|code| u16::try_from(*code).ok()).collect(),
        retriable_headers: matcher::headers("retriable_headers", &message.retriable_headers, at)?,
        retriable_request_headers: matcher::headers(
            "retriable_request_headers",
            &message.retriable_request_headers,
            at,
        )?,
        host_selection_attempts: attempts.max(1),
        ..RetryPolicy::default()
    };
    backoff(message, at, &mut policy)?;
    if let Some(m) = &message.rate_limited_retry_back_off {
        rate_limited(m, &at.field("rate_limited_retry_back_off"), &mut policy)?;
    }
    if let Some(m) = &message.retry_priority {
        policy.previous_priorities = priority(m, &at.field("retry_priority"))?;
    }
    for (i, m) in message.retry_host_predicate.iter().enumerate() {
        host_predicate(m, &at.index("retry_host_predicate", i), &mut policy)?;
    }
    Ok(policy)
}

/// Envoy's timers have no finer grain than this.
fn grain(duration: Duration) -> Duration {
    duration.max(Duration::from_millis(1))
}

fn backoff(message: &Pb, at: &At<'_>, policy: &mut RetryPolicy) -> Result<(), Reject> {
    let Some(m) = &message.retry_back_off else { return Ok(()) };
    let at = at.field("retry_back_off");
    at.required("base_interval", &m.base_interval)?;
    let base = positive(at.duration("base_interval", &m.base_interval)?, &at.field("base_interval"))?;
    let base = grain(base.unwrap_or(policy.backoff_base));
    let max = positive(at.duration("max_interval", &m.max_interval)?, &at.field("max_interval"))?.map(grain);
    if max.is_some_and(|max| max < base) {
        return Err(at.field("max_interval").reject("must not be smaller than base_interval"));
    }
    (policy.backoff_base, policy.backoff_max) = (base, max.unwrap_or(base.saturating_mul(10)));
    Ok(())
}

fn rate_limited(message: &RateLimitedRetryBackOff, at: &At<'_>, policy: &mut RetryPolicy) -> Result<(), Reject> {
    fields!(at, message => RateLimitedRetryBackOff { read: [reset_headers, max_interval] });
    if message.reset_headers.is_empty() {
        return Err(at.field("reset_headers").reject("must not be empty"));
    }
    policy.reset_headers = at.each("reset_headers", &message.reset_headers, |m, at| {
        fields!(at, m => PbReset { read: [name, format] });
        let name: HeaderName = header_name(&m.name, &at.field("name"))?;
        let format: ResetHeaderFormat = enumeration(m.format, &at.field("format"))?;
        Ok(ResetHeader { name, unix_time: format == ResetHeaderFormat::UnixTimestamp })
    })?;
    if let Some(max) = positive(at.duration("max_interval", &message.max_interval)?, &at.field("max_interval"))? {
        policy.reset_max = max;
    }
    Ok(())
}

fn priority(message: &RetryPriority, at: &At<'_>) -> Result<Option<NonZeroU32>, Reject> {
    fields!(at, message => RetryPriority { read: [name, config_type] });
    let at = at.field("typed_config");
    let Some(retry_priority::ConfigType::TypedConfig(any)) = &message.config_type else {
        return Err(at.reject("is required"));
    };
    let extension = extension::open(any, &at)?;
    if !extension.is::<PreviousPrioritiesConfig>() {
        at.unsupported(format!("{} has no effect", extension.kind));
        return Ok(None);
    }
    let config: PreviousPrioritiesConfig = extension.message(&at)?;
    fields!(&at, &config => PreviousPrioritiesConfig { read: [update_frequency] });
    let every = u32::try_from(config.update_frequency).ok().and_then(NonZeroU32::new);
    every.map(Some).ok_or_else(|| at.field("update_frequency").reject("must be positive"))
}

fn host_predicate(message: &RetryHostPredicate, at: &At<'_>, policy: &mut RetryPolicy) -> Result<(), Reject> {
    let Some(ConfigType::TypedConfig(any)) = &message.config_type else {
        // Envoy takes the bare names of those without a configuration.
        match message.name.as_str() {
            "envoy.retry_host_predicates.previous_hosts" => policy.avoid_previous_hosts = true,
            "envoy.retry_host_predicates.omit_canary_hosts" => policy.omit_canary = true,
            _ => return Err(at.field("typed_config").reject("is required")),
        }
        return Ok(());
    };
    let at = at.field("typed_config");
    let extension = extension::open(any, &at)?;
    if extension.is::<PreviousHostsPredicate>() {
        policy.avoid_previous_hosts = true;
    } else if extension.is::<OmitCanaryHostsPredicate>() {
        policy.omit_canary = true;
    } else if extension.is::<OmitHostMetadataConfig>() {
        let message: OmitHostMetadataConfig = extension.message(&at)?;
        // Nothing to match matches no host.
        policy.omit_metadata.extend(metadata::metadata(&message.metadata_match, &at));
    } else {
        at.unsupported(format!("{} has no effect", extension.kind));
    }
    Ok(())
}

/// Whether a hedge policy hedges; `None` without a policy.
pub(crate) fn hedge(message: &Option<HedgePolicy>, at: &At<'_>) -> Option<bool> {
    let message = message.as_ref()?;
    let at = at.field("hedge_policy");
    // Envoy has not implemented the first two either.
    fields!(&at, message => HedgePolicy {
        read: [hedge_on_per_try_timeout],
        unsupported: [initial_requests, additional_request_chance],
    });
    Some(message.hedge_on_per_try_timeout)
}

/// `request_body_buffer_limit` and its deprecated relative.
pub(crate) fn body_buffer(
    limit: &Option<UInt64Value>,
    old: &Option<UInt32Value>,
    at: &At<'_>,
) -> Result<Option<BodyBuffer>, Reject> {
    match (limit, old) {
        (None, None) => Ok(None),
        (Some(limit), None) => Ok(Some(BodyBuffer::Exactly(limit.value))),
        (None, Some(old)) => {
            at.field("per_request_buffer_limit_bytes").note(NoteKind::Deprecated, "use request_body_buffer_limit");
            Ok(Some(BodyBuffer::AtMost(old.value)))
        }
        (Some(_), Some(_)) => {
            Err(at.field("per_request_buffer_limit_bytes").reject("excludes request_body_buffer_limit"))
        }
    }
}

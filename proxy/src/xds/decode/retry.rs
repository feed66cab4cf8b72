//! Retry policies.

use std::{sync::Arc, time::Duration};

use outrigger_wire::pb::envoy::{
    config::route::v3::{
        RetryPolicy as Pb,
        retry_policy::{RetryHostPredicate, retry_host_predicate::ConfigType},
    },
    extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate,
};

use super::{
    at::At,
    extension,
    fields::fields,
    matcher,
    report::Reject,
    scalar::{positive, u32_or, zero_is_off},
};
use crate::ir::{
    route::{RetryOn, RetryPolicy},
    share::share,
};

const BACKOFF_BASE: Duration = Duration::from_millis(25);

pub(crate) fn retry(message: &Option<Pb>, at: &At<'_>) -> Result<Option<Arc<RetryPolicy>>, Reject> {
    message.as_ref().map(|m| policy(m, &at.field("retry_policy")).map(share)).transpose()
}

fn policy(message: &Pb, at: &At<'_>) -> Result<RetryPolicy, Reject> {
    fields!(at, message => Pb {
        read: [
            retry_on, num_retries, per_try_timeout, per_try_idle_timeout, retry_host_predicate,
            host_selection_retry_max_attempts, retriable_status_codes, retry_back_off, retriable_headers,
        ],
        unsupported: [retry_priority, retry_options_predicates, rate_limited_retry_back_off, refresh_cluster_on_retry],
        // It says what must NOT be retried: ignoring it could repeat a request that is not idempotent.
        refuse: [retriable_request_headers],
    });
    let (on, unknown) = RetryOn::parse(&message.retry_on);
    for name in unknown {
        at.field("retry_on").unsupported(format!("the condition {name:?} is not known and never holds"));
    }
    let codes = message.retriable_status_codes.iter();
    // No response has a code that does not fit.
    let retriable_status = codes.filter_map(|code| u16::try_from(*code).ok()).collect();
    let (backoff_base, backoff_max) = backoff(message, at)?;
    let mut avoid_previous_hosts = false;
    for (i, m) in message.retry_host_predicate.iter().enumerate() {
        avoid_previous_hosts |= previous_hosts(m, &at.index("retry_host_predicate", i))?;
    }
    let attempts = u32::try_from(message.host_selection_retry_max_attempts);
    let attempts = attempts.map_err(|_| at.field("host_selection_retry_max_attempts").reject("is out of range"))?;
    Ok(RetryPolicy {
        on,
        max_retries: u32_or(&message.num_retries, 1),
        per_try_timeout: zero_is_off(at.duration("per_try_timeout", &message.per_try_timeout)?),
        per_try_idle_timeout: zero_is_off(at.duration("per_try_idle_timeout", &message.per_try_idle_timeout)?),
        retriable_status,
        retriable_headers: matcher::headers("retriable_headers", &message.retriable_headers, at)?,
        backoff_base,
        backoff_max,
        avoid_previous_hosts,
        host_selection_attempts: attempts.max(1),
    })
}

fn backoff(message: &Pb, at: &At<'_>) -> Result<(Duration, Duration), Reject> {
    let Some(m) = &message.retry_back_off else { return Ok((BACKOFF_BASE, BACKOFF_BASE * 10)) };
    let at = at.field("retry_back_off");
    at.required("base_interval", &m.base_interval)?;
    let base = positive(at.duration("base_interval", &m.base_interval)?, &at.field("base_interval"))?;
    // Envoy's timers have no finer grain either.
    let base = base.unwrap_or(BACKOFF_BASE).max(Duration::from_millis(1));
    let max = positive(at.duration("max_interval", &m.max_interval)?, &at.field("max_interval"))?;
    let max = max.map(|d| d.max(Duration::from_millis(1)));
    if max.is_some_and(|max| max < base) {
        return Err(at.field("max_interval").reject("must not be smaller than base_interval"));
    }
    Ok((base, max.unwrap_or(base.saturating_mul(10))))
}

fn previous_hosts(message: &RetryHostPredicate, at: &At<'_>) -> Result<bool, Reject> {
    let Some(ConfigType::TypedConfig(any)) = &message.config_type else {
        // Envoy takes the bare name here.
        if message.name == "envoy.retry_host_predicates.previous_hosts" {
            return Ok(true);
        }
        return Err(at.field("typed_config").reject("is required"));
    };
    let at = at.field("typed_config");
    let extension = extension::open(any, &at)?;
    if extension.is::<PreviousHostsPredicate>() {
        return Ok(true);
    }
    at.unsupported(format!("{} has no effect", extension.kind));
    Ok(false)
}

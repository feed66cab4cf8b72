//! The adaptive concurrency filter.

use http::StatusCode;
use outrigger_wire::pb::envoy::{
    extensions::filters::http::adaptive_concurrency::v3::{
        AdaptiveConcurrency as Pb, GradientControllerConfig,
        adaptive_concurrency::ConcurrencyControllerConfig,
        gradient_controller_config::{ConcurrencyLimitCalculationParams, MinimumRttCalculationParams},
    },
    r#type::v3::Percent,
};

use super::{
    at::At,
    fields::fields,
    report::Reject,
    scalar::{self, bool_or, positive, u32_in, zero_is_off},
};
use crate::ir::filters::Concurrency;

pub(crate) fn adaptive_concurrency(message: &Pb, at: &At<'_>) -> Result<Concurrency, Reject> {
    fields!(at, message => Pb { read: [enabled, concurrency_limit_exceeded_status, concurrency_controller_config] });
    let enforced = match &message.enabled {
        None => true,
        Some(flag) => {
            scalar::runtime_key(&flag.runtime_key, &at.field("enabled"));
            bool_or(&flag.default_value, false)
        }
    };
    if !enforced {
        at.field("enabled").harmless("the limit is computed and reported, not enforced");
    }
    let status = message.concurrency_limit_exceeded_status.map_or(0, |s| s.code);
    let status = u16::try_from(status).ok().filter(|s| *s >= 400).and_then(|s| StatusCode::from_u16(s).ok());
    let required = at.required("concurrency_controller_config", &message.concurrency_controller_config)?;
    let ConcurrencyControllerConfig::GradientControllerConfig(gradient) = required;
    let at = at.field("gradient_controller_config");
    fields!(&at, gradient => GradientControllerConfig {
        read: [sample_aggregate_percentile, concurrency_limit_params, min_rtt_calc_params],
    });
    let limits = at.required("concurrency_limit_params", &gradient.concurrency_limit_params)?;
    let least = at.required("min_rtt_calc_params", &gradient.min_rtt_calc_params)?;
    let (limits_at, least_at) = (at.field("concurrency_limit_params"), at.field("min_rtt_calc_params"));
    fields!(&limits_at, limits => ConcurrencyLimitCalculationParams {
        read: [max_concurrency_limit, concurrency_update_interval, min_concurrency_limit],
    });
    fields!(&least_at, least => MinimumRttCalculationParams {
        read: [interval, fixed_value, request_count, jitter, min_concurrency, buffer],
    });
    let counted = |name: &str, value, default, at: &At<'_>| u32_in(value, default, 1..=u32::MAX, &at.field(name));
    let min_concurrency = counted("min_concurrency", &least.min_concurrency, 3, &least_at)?;
    let min_limit = counted("min_concurrency_limit", &limits.min_concurrency_limit, min_concurrency, &limits_at)?;
    let max_limit = counted("max_concurrency_limit", &limits.max_concurrency_limit, 1000, &limits_at)?;
    if min_limit > max_limit {
        return Err(limits_at.field("max_concurrency_limit").reject(format!("is below the lower bound, {min_limit}")));
    }
    let update = limits_at.duration("concurrency_update_interval", &limits.concurrency_update_interval)?;
    let update = positive(update, &limits_at.field("concurrency_update_interval"))?;
    let fixed = least_at.duration("fixed_value", &least.fixed_value)?;
    let fixed = positive(fixed, &least_at.field("fixed_value"))?;
    let measurement_interval = zero_is_off(least_at.duration("interval", &least.interval)?);
    if measurement_interval.is_some() == fixed.is_some() {
        return Err(least_at.field("fixed_value").reject("is required where `interval` is not, and excludes it"));
    }
    Ok(Concurrency {
        enforced,
        status: status.unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
        percentile: share("sample_aggregate_percentile", &gradient.sample_aggregate_percentile, 50.0, &at)?,
        max_limit,
        min_limit,
        update_interval: update.ok_or_else(|| limits_at.field("concurrency_update_interval").reject("is required"))?,
        measurement_interval,
        fixed,
        request_count: counted("request_count", &least.request_count, 50, &least_at)?,
        jitter: share("jitter", &least.jitter, 15.0, &least_at)?,
        min_concurrency,
        buffer: share("buffer", &least.buffer, 25.0, &least_at)?,
    })
}

/// A percentage in millionths of the whole.
fn share(name: &str, value: &Option<Percent>, default: f64, at: &At<'_>) -> Result<u32, Reject> {
    let percent = match value {
        Some(m) => scalar::percent(m, &at.field(name))?,
        None => default,
    };
    // Between nothing and a million: it fits.
    Ok((percent * 10_000.0) as u32)
}

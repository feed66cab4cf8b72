//! Outlier detection of a cluster.

use std::time::Duration;

use outrigger_wire::pb::{
    envoy::config::cluster::v3::OutlierDetection as Pb,
    google::protobuf::{Duration as PbDuration, UInt32Value},
};

use super::{
    at::At,
    fields::fields,
    report::Reject,
    scalar::{bool_or, positive, u32_in, u32_or},
};
use crate::ir::outlier::{Consecutive, FailurePercentage, OutlierDetection, SuccessRate};

pub(crate) fn outlier(message: &Pb, at: &At<'_>) -> Result<OutlierDetection, Reject> {
    fields!(at, message => Pb {
        read: [
            consecutive_5xx, interval, base_ejection_time, max_ejection_percent, enforcing_consecutive_5xx,
            enforcing_success_rate, success_rate_minimum_hosts, success_rate_request_volume, success_rate_stdev_factor,
            consecutive_gateway_failure, enforcing_consecutive_gateway_failure, split_external_local_origin_errors,
            consecutive_local_origin_failure, enforcing_consecutive_local_origin_failure,
            enforcing_local_origin_success_rate, failure_percentage_threshold, enforcing_failure_percentage,
            enforcing_failure_percentage_local_origin, failure_percentage_minimum_hosts,
            failure_percentage_request_volume, max_ejection_time, max_ejection_time_jitter,
            successful_active_health_check_uneject_host, always_eject_one_host,
        ],
        unsupported: [monitors, detect_degraded_hosts],
    });
    let d = OutlierDetection::default();
    let percent = |name: &str, value: &Option<UInt32Value>, default| u32_in(value, default, 0..=100, &at.field(name));
    let time = |name: &str, value: &Option<PbDuration>| positive(at.duration(name, value)?, &at.field(name));
    let base_ejection_time = time("base_ejection_time", &message.base_ejection_time)?.unwrap_or(d.base_ejection_time);
    let max_ejection_time = match time("max_ejection_time", &message.max_ejection_time)? {
        Some(max) if max < base_ejection_time => {
            return Err(at.field("max_ejection_time").reject("must not be less than base_ejection_time"));
        }
        Some(max) => max,
        None => base_ejection_time.max(d.max_ejection_time),
    };
    let jitter = at.duration("max_ejection_time_jitter", &message.max_ejection_time_jitter)?;
    let consecutive = |value: &Option<UInt32Value>, name: &str, enforcing, default: Consecutive| {
        let enforcing = percent(name, enforcing, default.enforcing)?;
        Ok::<_, Reject>(Consecutive { threshold: u32_or(value, default.threshold), enforcing })
    };
    Ok(OutlierDetection {
        interval: time("interval", &message.interval)?.unwrap_or(d.interval),
        base_ejection_time,
        max_ejection_time,
        max_ejection_time_jitter: jitter.unwrap_or(Duration::ZERO),
        max_ejection_percent: percent("max_ejection_percent", &message.max_ejection_percent, d.max_ejection_percent)?,
        always_eject_one_host: bool_or(&message.always_eject_one_host, d.always_eject_one_host),
        split_local_origin: message.split_external_local_origin_errors,
        consecutive_5xx: consecutive(
            &message.consecutive_5xx,
            "enforcing_consecutive_5xx",
            &message.enforcing_consecutive_5xx,
            d.consecutive_5xx,
        )?,
        consecutive_gateway_failure: consecutive(
            &message.consecutive_gateway_failure,
            "enforcing_consecutive_gateway_failure",
            &message.enforcing_consecutive_gateway_failure,
            d.consecutive_gateway_failure,
        )?,
        consecutive_local_origin_failure: consecutive(
            &message.consecutive_local_origin_failure,
            "enforcing_consecutive_local_origin_failure",
            &message.enforcing_consecutive_local_origin_failure,
            d.consecutive_local_origin_failure,
        )?,
        success_rate: SuccessRate {
            enforcing: percent("enforcing_success_rate", &message.enforcing_success_rate, 100)?,
            enforcing_local_origin: percent(
                "enforcing_local_origin_success_rate",
                &message.enforcing_local_origin_success_rate,
                100,
            )?,
            minimum_hosts: u32_or(&message.success_rate_minimum_hosts, d.success_rate.minimum_hosts),
            request_volume: u32_or(&message.success_rate_request_volume, d.success_rate.request_volume),
            stdev_factor: u32_or(&message.success_rate_stdev_factor, d.success_rate.stdev_factor),
        },
        failure_percentage: FailurePercentage {
            enforcing: percent("enforcing_failure_percentage", &message.enforcing_failure_percentage, 0)?,
            enforcing_local_origin: percent(
                "enforcing_failure_percentage_local_origin",
                &message.enforcing_failure_percentage_local_origin,
                0,
            )?,
            threshold: percent("failure_percentage_threshold", &message.failure_percentage_threshold, 85)?,
            minimum_hosts: u32_or(&message.failure_percentage_minimum_hosts, d.failure_percentage.minimum_hosts),
            request_volume: u32_or(&message.failure_percentage_request_volume, d.failure_percentage.request_volume),
        },
        active_check_unejects: bool_or(&message.successful_active_health_check_uneject_host, true),
    })
}

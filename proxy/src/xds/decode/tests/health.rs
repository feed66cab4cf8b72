//! Outlier detection, limits of single hosts, active health checks.

use std::time::Duration;

use super::*;
use crate::ir::outlier::{Consecutive, OutlierDetection};

#[test]
fn outlier_detection_has_envoys_defaults() {
    let c = the_cluster(&cluster_of("outlier_detection: {}"));
    assert_eq!(c.outlier(), Some(&OutlierDetection::default()));
    assert_eq!(the_cluster(&cluster_of("")).health, None);
}

#[test]
fn outlier_detection_is_read_in_full() {
    let c = the_cluster(&cluster_of(
        "outlier_detection: {consecutive_5xx: 7, interval: 3s, base_ejection_time: 400s, max_ejection_percent: 100, \
         enforcing_consecutive_5xx: 1, enforcing_success_rate: 2, success_rate_minimum_hosts: 3, \
         success_rate_request_volume: 4, success_rate_stdev_factor: 5, consecutive_gateway_failure: 6, \
         enforcing_consecutive_gateway_failure: 8, split_external_local_origin_errors: true, \
         consecutive_local_origin_failure: 0, enforcing_consecutive_local_origin_failure: 9, \
         enforcing_local_origin_success_rate: 10, failure_percentage_threshold: 11, enforcing_failure_percentage: 12, \
         enforcing_failure_percentage_local_origin: 13, failure_percentage_minimum_hosts: 14, \
         failure_percentage_request_volume: 15, max_ejection_time_jitter: 2s, always_eject_one_host: true, \
         successful_active_health_check_uneject_host: false}",
    ));
    let o = c.outlier().unwrap();
    assert_eq!((o.interval, o.base_ejection_time), (Duration::from_secs(3), Duration::from_secs(400)));
    assert_eq!(o.max_ejection_time, Duration::from_secs(400), "the default is no less than the base");
    assert_eq!(o.max_ejection_time_jitter, Duration::from_secs(2));
    assert_eq!((o.max_ejection_percent, o.always_eject_one_host, o.active_check_unejects), (100, true, false));
    assert!(o.split_local_origin);
    assert_eq!(o.consecutive_5xx, Consecutive { threshold: 7, enforcing: 1 });
    assert_eq!(o.consecutive_gateway_failure, Consecutive { threshold: 6, enforcing: 8 });
    assert_eq!(o.consecutive_local_origin_failure, Consecutive { threshold: 0, enforcing: 9 });
    let s = &o.success_rate;
    assert_eq!((s.enforcing, s.enforcing_local_origin), (2, 10));
    assert_eq!((s.minimum_hosts, s.request_volume, s.stdev_factor), (3, 4, 5));
    let f = &o.failure_percentage;
    assert_eq!((f.enforcing, f.enforcing_local_origin, f.threshold), (12, 13, 11));
    assert_eq!((f.minimum_hosts, f.request_volume), (14, 15));
}

#[test]
fn outlier_detection_that_makes_no_sense_is_refused() {
    let of = |fields: &str| cluster_of(&format!("outlier_detection: {{{fields}}}"));
    refused(&[
        (of("max_ejection_percent: 101"), "outlier_detection.max_ejection_percent", "between 0 and 100"),
        (of("interval: 0s"), "outlier_detection.interval", "greater than zero"),
        (of("base_ejection_time: 0s"), "outlier_detection.base_ejection_time", "greater than zero"),
        (of("max_ejection_time: 5s"), "outlier_detection.max_ejection_time", "base_ejection_time"),
        (of("enforcing_success_rate: 200"), "outlier_detection.enforcing_success_rate", "between 0 and 100"),
    ]);
    noted(&[(of("detect_degraded_hosts: true"), "outlier_detection.detect_degraded_hosts", NoteKind::Unsupported)]);
}

#[test]
fn circuit_breakers_of_pools_and_hosts() {
    let c = the_cluster(&cluster_of(
        "circuit_breakers: {thresholds: [{max_connection_pools: 4, track_remaining: true}], \
         per_host_thresholds: [{max_connections: 9}]}",
    ));
    assert_eq!((c.breaker.max_connection_pools, c.breaker.track_remaining), (4, true));
    assert_eq!((c.breaker_high.max_connection_pools, c.breaker_high.track_remaining), (u32::MAX, false));
    assert_eq!(c.health.as_ref().unwrap().max_connections_per_host, Some(9));
    let of = |fields: &str| cluster_of(&format!("circuit_breakers: {{per_host_thresholds: [{{{fields}}}]}}"));
    refused(&[(of("max_requests: 1"), "circuit_breakers.per_host_thresholds[0]", "only max_connections")]);
}

//! Outlier detection, limits of single hosts, active health checks.

use std::time::Duration;

use super::*;
use crate::ir::{
    health_check::Probe,
    outlier::{Consecutive, OutlierDetection},
};

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

/// A health check with these fields; `checker` says what it does.
fn checked(fields: &str, checker: &str) -> String {
    cluster_of(&format!(
        "ignore_health_on_host_removal: true, health_checks: [{{timeout: 1s, interval: 7s, unhealthy_threshold: 2, \
         healthy_threshold: 3, {fields} {checker}}}]"
    ))
}

const TCP: &str = "tcp_health_check: {}";

#[test]
fn health_checks_have_envoys_defaults() {
    let c = the_cluster(&checked("", "http_health_check: {path: /h}"));
    let check = c.check().unwrap();
    let seconds = Duration::from_secs;
    assert_eq!((check.timeout, check.unhealthy_threshold, check.healthy_threshold), (seconds(1), 2, 3));
    assert!(check.reuse_connection && check.alpn.is_none() && check.transport.is_none());
    let pace = &check.pace;
    assert_eq!(
        (pace.interval, pace.unhealthy_interval, pace.unhealthy_edge_interval),
        (seconds(7), seconds(7), seconds(7))
    );
    assert_eq!((pace.healthy_edge_interval, pace.no_traffic_interval), (seconds(7), seconds(60)));
    assert_eq!(pace.no_traffic_healthy_interval, seconds(60));
    let Probe::Http(probe) = &check.probe else { panic!() };
    assert_eq!(
        (&*probe.path, &probe.method, probe.http2, probe.response_buffer),
        ("/h", &http::Method::GET, false, 1024)
    );
    assert!(probe.expected[0].contains(200) && !probe.expected[0].contains(201));
}

#[test]
fn health_checks_are_read_in_full() {
    let c = the_cluster(&checked(
        "initial_jitter: 1s, interval_jitter: 2s, interval_jitter_percent: 3, no_traffic_interval: 4s, \
         no_traffic_healthy_interval: 5s, unhealthy_interval: 6s, unhealthy_edge_interval: 8s, \
         healthy_edge_interval: 9s, reuse_connection: false, tls_options: {alpn_protocols: [a, b]}, \
         transport_socket_match_criteria: {useMTLS: true},",
        "http_health_check: {host: h, path: /p, method: POST, send: {text: '00fF'}, receive: [{binary: YWI=}], \
         response_buffer_size: 0, codec_client_type: HTTP2, service_name_matcher: {prefix: s}, \
         request_headers_to_add: [{header: {key: x-a, value: b}}], request_headers_to_remove: [user-agent], \
         expected_statuses: [{start: 200, end: 300}], retriable_statuses: [{start: 503, end: 504}]}",
    ));
    let check = c.check().unwrap();
    let pace = &check.pace;
    let all = [
        pace.initial_jitter,
        pace.interval_jitter,
        pace.no_traffic_interval,
        pace.no_traffic_healthy_interval,
        pace.unhealthy_interval,
        pace.unhealthy_edge_interval,
        pace.healthy_edge_interval,
    ];
    assert_eq!(all.map(|d| d.as_secs()), [1, 2, 4, 5, 6, 8, 9]);
    assert_eq!(pace.interval_jitter_percent, 3);
    assert!(!check.reuse_connection);
    assert_eq!(check.alpn.as_ref().unwrap()[1], "b".into());
    assert_eq!(check.transport.as_ref().unwrap()["envoy.transport_socket_match"]["useMTLS"], true);
    let Probe::Http(probe) = &check.probe else { panic!() };
    assert_eq!((&probe.send[..], &probe.receive[0][..]), (&[0, 0xFF][..], &b"ab"[..]));
    assert_eq!((&*probe.host, probe.http2, probe.response_buffer), ("h", true, 1 << 20));
    assert_eq!((probe.headers.len(), probe.remove.len()), (1, 1));
    assert!(probe.expected[0].contains(299) && probe.retriable[0].contains(503));
    assert!(probe.service_name.as_ref().unwrap().matches("some"));
    let c = the_cluster(&checked("", "grpc_health_check: {service_name: s, authority: a}"));
    assert!(matches!(&c.check().unwrap().probe, Probe::Grpc(p) if &*p.service == "s" && &*p.authority == "a"));
}

#[test]
fn health_checks_that_make_no_sense_are_refused() {
    let http = |fields: &str| checked("", &format!("http_health_check: {{path: /, {fields}}}"));
    let at = |field: &'static str| field;
    refused(&[
        (cluster_of("health_checks: [{timeout: 1s}]"), at("health_checks[0].interval"), "required"),
        (checked("", ""), at("health_checks[0].health_checker"), "required"),
        (checked("", "custom_health_check: {name: x}"), at("health_checks[0].custom_health_check"), "not supported"),
        (checked("no_traffic_interval: 0s,", TCP), at("health_checks[0].no_traffic_interval"), "greater than zero"),
        (
            checked("", "tcp_health_check: {send: {text: '0g'}}"),
            at("health_checks[0].tcp_health_check.send.text"),
            "hexadecimal",
        ),
        (http("method: CONNECT"), at("health_checks[0].http_health_check.method"), "CONNECT"),
        (http("send: {text: '00'}"), at("health_checks[0].http_health_check.send"), "no body"),
        (
            http("expected_statuses: [{start: 200, end: 200}]"),
            at("health_checks[0].http_health_check.expected_statuses[0]"),
            "range",
        ),
        (cluster_of("health_checks: [{timeout: 1s}, {timeout: 1s}]"), at("health_checks"), "one health check"),
    ]);
    noted(&[(checked("event_log_path: /x,", TCP), "health_checks[0].event_log_path", NoteKind::Unsupported)]);
}

#[test]
fn endpoints_may_be_checked_elsewhere_or_not_at_all() {
    let yaml = format!(
        "{{\"@type\": {T}/{ASSIGNMENT}, cluster_name: e, endpoints: [{{lb_endpoints: [{{endpoint: {{health_check_config: \
         {{port_value: 81, hostname: h, address: {{socket_address: {{address: 10.0.0.9, port_value: 0}}}}, \
         disable_active_health_check: true}}, address: {{socket_address: {{address: 10.0.0.1, port_value: 80}}}}}}}}]}}]}}"
    );
    let (Resource::Endpoints { assignment, .. }, _) = accepted(&yaml) else { panic!() };
    let check = assignment.localities[0].endpoints[0].check.as_ref().unwrap();
    assert_eq!((check.port, check.address, &*check.hostname), (Some(81), "10.0.0.9".parse().ok(), "h"));
    assert!(check.disabled);
}

#[test]
fn connections_to_failing_hosts_may_be_cut() {
    let c = the_cluster(&cluster_of("close_connections_on_host_health_failure: true"));
    assert!(c.health.as_ref().unwrap().close_on_failure);
}

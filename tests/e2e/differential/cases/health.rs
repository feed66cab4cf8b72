//! Outlier detection and active health checks: which hosts are left out, and when they come back.

use crate::harness::{Case, Serve, Step, case, get, ok, plan, reset, status};

pub(crate) fn outliers() -> Vec<Case> {
    vec![
        case("outlier-consecutive-5xx")
            .http1("bad", plan([status(500)]))
            .http1("good", plan([ok()]))
            .cluster(
                "a",
                &["bad", "good"],
                "outlier_detection: {consecutive_5xx: 3, interval: 100s, base_ejection_time: 100s, max_ejection_percent: 100}",
            )
            .client_only()
            .step(Step::Warm(30, get("/warm")))
            .spread(50, get("/")),
        case("outlier-gateway-failure")
            .http1("bad", plan([status(503)]))
            .http1("good", plan([ok()]))
            .cluster(
                "a",
                &["bad", "good"],
                "
                outlier_detection:
                  consecutive_5xx: 0
                  enforcing_consecutive_5xx: 0
                  consecutive_gateway_failure: 3
                  enforcing_consecutive_gateway_failure: 100
                  interval: 100s
                  base_ejection_time: 100s
                  max_ejection_percent: 100
                ",
            )
            .client_only()
            .step(Step::Warm(30, get("/warm")))
            .spread(50, get("/")),
        case("outlier-gateway-failure-not-of-500")
            .http1("bad", plan([status(500)]))
            .http1("good", plan([ok()]))
            .cluster(
                "a",
                &["bad", "good"],
                "
                outlier_detection:
                  enforcing_consecutive_5xx: 0
                  consecutive_gateway_failure: 3
                  enforcing_consecutive_gateway_failure: 100
                  interval: 100s
                  base_ejection_time: 100s
                  max_ejection_percent: 100
                ",
            )
            .client_only()
            .step(Step::Warm(30, get("/warm")))
            .spread(200, get("/")),
        case("outlier-local-origin")
            .host("bad", Serve::Nothing)
            .http1("good", plan([ok()]))
            .cluster(
                "a",
                &["bad", "good"],
                "
                outlier_detection:
                  split_external_local_origin_errors: true
                  consecutive_local_origin_failure: 3
                  interval: 100s
                  base_ejection_time: 100s
                  max_ejection_percent: 100
                ",
            )
            .client_only()
            .step(Step::Warm(30, get("/warm")))
            .spread(50, get("/")),
        case("outlier-resets-count")
            .http1("bad", plan([reset()]))
            .http1("good", plan([ok()]))
            .cluster(
                "a",
                &["bad", "good"],
                "outlier_detection: {consecutive_5xx: 3, interval: 100s, base_ejection_time: 100s, max_ejection_percent: 100}",
            )
            .client_only()
            .step(Step::Warm(30, get("/warm")))
            .spread(50, get("/")),
        case("outlier-max-ejection-percent")
            .http1("b1", plan([status(500).body("bad")]))
            .http1("b2", plan([status(500).body("bad")]))
            .cluster(
                "a",
                &["b1", "b2"],
                "
                outlier_detection: {consecutive_5xx: 2, interval: 100s, base_ejection_time: 100s, max_ejection_percent: 0}
                common_lb_config: {healthy_panic_threshold: {value: 0}}
                ",
            )
            .client_only()
            .step(Step::Warm(30, get("/warm")))
            .spread(50, get("/")),
        case("outlier-success-breaks-the-row")
            .http1("a", plan([status(500), status(500), ok()]).on("/x", [status(500), status(500), ok(), status(500), status(500), ok()]))
            .cluster(
                "a",
                &["a"],
                "
                outlier_detection: {consecutive_5xx: 3, interval: 100s, base_ejection_time: 100s, max_ejection_percent: 100}
                common_lb_config: {healthy_panic_threshold: {value: 0}}
                ",
            )
            .client_only()
            .requests((0..7).map(|_| get("/x"))),
        case("outlier-not-enforced")
            .http1("b1", plan([status(500)]))
            .cluster(
                "a",
                &["b1"],
                "
                outlier_detection: {consecutive_5xx: 2, enforcing_consecutive_5xx: 0, interval: 100s, max_ejection_percent: 100}
                common_lb_config: {healthy_panic_threshold: {value: 0}}
                ",
            )
            .client_only()
            .requests((0..5).map(|_| get("/x"))),
        case("outlier-comes-back")
            .http1("b1", plan([status(500)]))
            .cluster(
                "a",
                &["b1"],
                "
                outlier_detection: {consecutive_5xx: 2, interval: 0.3s, base_ejection_time: 2s, max_ejection_percent: 100, max_ejection_time_jitter: 0s}
                common_lb_config: {healthy_panic_threshold: {value: 0}}
                ",
            )
            .client_only()
            .requests([get("/"), get("/")])
            .until(get("/"), 503)
            .step(Step::Follow("b1", plan([ok()])))
            .until(get("/"), 200),
    ]
}

pub(crate) fn checks() -> Vec<Case> {
    vec![
        case("health-http")
            .http1("bad", plan([ok()]).on("/health", [status(503)]))
            .http1("good", plan([ok()]))
            .cluster(
                "a",
                &["bad", "good"],
                "
                health_checks:
                - timeout: 1s
                  interval: 0.2s
                  no_traffic_interval: 0.2s
                  unhealthy_threshold: 1
                  healthy_threshold: 1
                  http_health_check: {path: /health, host: check.test}
                common_lb_config: {healthy_panic_threshold: {value: 0}}
                ",
            )
            .client_only()
            .until(get("/"), 200)
            .spread(40, get("/")),
        case("health-http-request")
            .http1("good", plan([ok()]))
            .cluster(
                "a",
                &["good"],
                "
                health_checks:
                - timeout: 1s
                  interval: 100s
                  no_traffic_interval: 100s
                  unhealthy_threshold: 1
                  healthy_threshold: 1
                  http_health_check: {path: '/health?x', host: check.test, method: GET, request_headers_to_add: [{header: {key: x-check, value: '1'}}]}
                ",
            )
            .pause(500),
        case("health-http-expected-statuses")
            .http1("a", plan([ok()]).on("/health", [status(404)]))
            .cluster(
                "a",
                &["a"],
                "
                health_checks:
                - timeout: 1s
                  interval: 0.2s
                  no_traffic_interval: 0.2s
                  unhealthy_threshold: 1
                  healthy_threshold: 1
                  http_health_check: {path: /health, expected_statuses: [{start: 404, end: 405}]}
                common_lb_config: {healthy_panic_threshold: {value: 0}}
                ",
            )
            .client_only()
            .until(get("/"), 200),
        case("health-turns-bad-and-good")
            .http1("a", plan([ok()]))
            .cluster(
                "a",
                &["a"],
                "
                health_checks:
                - timeout: 1s
                  interval: 0.2s
                  no_traffic_interval: 0.2s
                  unhealthy_threshold: 2
                  healthy_threshold: 2
                  http_health_check: {path: /health}
                common_lb_config: {healthy_panic_threshold: {value: 0}}
                ",
            )
            .client_only()
            .until(get("/"), 200)
            .step(Step::Follow("a", plan([ok()]).on("/health", [status(500)])))
            .until(get("/"), 503)
            .requests([get("/")])
            .step(Step::Follow("a", plan([ok()])))
            .until(get("/"), 200),
        case("health-tcp")
            .host("bad", Serve::Nothing)
            .http1("good", plan([ok()]))
            .cluster(
                "a",
                &["bad", "good"],
                "
                health_checks: [{timeout: 1s, interval: 0.2s, no_traffic_interval: 0.2s, unhealthy_threshold: 1, healthy_threshold: 1, tcp_health_check: {}}]
                common_lb_config: {healthy_panic_threshold: {value: 0}}
                ",
            )
            .client_only()
            .until(get("/"), 200)
            .spread(40, get("/")),
        case("health-panic")
            .http1("b1", plan([ok()]).on("/health", [status(503)]))
            .http1("b2", plan([ok()]).on("/health", [status(503)]))
            .cluster(
                "a",
                &["b1", "b2"],
                "
                health_checks: [{timeout: 1s, interval: 0.2s, no_traffic_interval: 0.2s, unhealthy_threshold: 1, healthy_threshold: 1, http_health_check: {path: /health}}]
                ",
            )
            .client_only()
            .pause(800)
            .spread(60, get("/")),
    ]
}

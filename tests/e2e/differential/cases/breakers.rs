//! Circuit breakers: what is let through, and what the rest hears.

use crate::harness::{Case, Req, case, get, grpc_call, ok, plan, status};

/// Longer than all requests of a case take to be sent.
const SLOW: u64 = 3500;

fn several(n: usize) -> impl Iterator<Item = Req> {
    (1..=n).map(|i| get(&format!("/{i}")))
}

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("breaker-max-requests")
            .http2("a", plan([ok().after(SLOW)]))
            .cluster("a", &["a"], "circuit_breakers: {thresholds: [{max_requests: 2}]}")
            .overlapping(several(4)),
        case("breaker-max-requests-grpc")
            .http2("a", plan([ok().after(SLOW)]))
            .cluster("a", &["a"], "circuit_breakers: {thresholds: [{max_requests: 1}]}")
            .overlapping([get("/1"), grpc_call("/s/m")]),
        case("breaker-max-pending-requests")
            .explained("upstream=", "the log names the host that was picked for a request that found no room")
            .http1("a", plan([ok().after(SLOW)]))
            .cluster("a", &["a"], "circuit_breakers: {thresholds: [{max_connections: 1, max_pending_requests: 1}]}")
            .overlapping(several(3)),
        case("breaker-max-connections-of-http1")
            .http1("a", plan([ok().after(1500)]))
            .cluster("a", &["a"], "circuit_breakers: {thresholds: [{max_connections: 1}]}")
            .overlapping(several(3))
            .count_connections(),
        case("breaker-closes-again")
            .http2("a", plan([ok().after(SLOW)]))
            .cluster("a", &["a"], "circuit_breakers: {thresholds: [{max_requests: 1}]}")
            .overlapping(several(2))
            .requests([get("/again")]),
        case("breaker-max-retries")
            .http2("a", plan([status(503).after(400)]))
            .cluster("a", &["a"], "circuit_breakers: {thresholds: [{max_retries: 0}]}")
            .virtual_host("include_attempt_count_in_response: true")
            .routes("- match: {prefix: /}\n  route: {cluster: $a, retry_policy: {retry_on: 5xx}}")
            .requests([get("/")]),
        case("breaker-retry-budget")
            .http2("a", plan([status(503)]))
            .cluster(
                "a",
                &["a"],
                "circuit_breakers: {thresholds: [{retry_budget: {budget_percent: {value: 20}, min_retry_concurrency: 3}}]}",
            )
            .virtual_host("include_attempt_count_in_response: true")
            .routes("- match: {prefix: /}\n  route: {cluster: $a, retry_policy: {retry_on: 5xx, num_retries: 2}}")
            .requests([get("/")]),
        case("breaker-of-high-priority")
            .http2("a", plan([ok().after(SLOW)]))
            .cluster(
                "a",
                &["a"],
                "circuit_breakers: {thresholds: [{max_requests: 1}, {priority: HIGH, max_requests: 2}]}",
            )
            .routes(
                "
                - match: {prefix: /high}
                  route: {cluster: $a, priority: HIGH}
                - match: {prefix: /}
                  route: {cluster: $a}
                ",
            )
            .overlapping([get("/1"), get("/2"), get("/high1"), get("/high2"), get("/high3")]),
        case("breaker-answer-headers")
            .http2("a", plan([ok().after(SLOW)]))
            .cluster("a", &["a"], "circuit_breakers: {thresholds: [{max_requests: 1}]}")
            .router("suppress_envoy_headers: true")
            .overlapping(several(2)),
    ]
}

//! How often and how long a request is tried, and what its own headers have to say about it.

use super::retries::COUNTED;
use crate::harness::{AnswerEnd, Case, case, close, get, hang, ok, plan, post, status};

pub(crate) fn cases() -> Vec<Case> {
    let mut all = limits();
    all.extend(headers());
    all
}

fn limits() -> Vec<Case> {
    vec![
        case("retry-limit")
            .http1("a", plan([status(503)]))
            .virtual_host(COUNTED)
            .routes(
                "
                - match: {prefix: /three}
                  route: {cluster: $a, retry_policy: {retry_on: 5xx, num_retries: 3}}
                - match: {prefix: /none}
                  route: {cluster: $a, retry_policy: {retry_on: 5xx, num_retries: 0}}
                - match: {prefix: /nothing}
                  route: {cluster: $a, retry_policy: {num_retries: 3}}
                ",
            )
            .requests(["/three", "/none", "/nothing"].map(get)),
        case("retry-virtual-host-policy")
            .http1("a", plan([status(503)]))
            .virtual_host(
                "
                include_request_attempt_count: true
                retry_policy: {retry_on: 5xx, num_retries: 2}
                ",
            )
            .routes(
                "
                - match: {prefix: /own}
                  route: {cluster: $a, retry_policy: {retry_on: connect-failure}}
                - match: {prefix: /}
                  route: {cluster: $a}
                ",
            )
            .requests(["/own", "/inherited"].map(get)),
        case("retry-per-try-timeout")
            .http1("a", plan([]).on("/once", [hang(), ok()]).on("/always", [hang()]))
            .virtual_host(COUNTED)
            .routes(
                "
                - match: {prefix: /}
                  route:
                    cluster: $a
                    timeout: 20s
                    retry_policy: {retry_on: 5xx, num_retries: 1, per_try_timeout: 1s}
                ",
            )
            .requests([get("/once").timed(&[500, 8000]), get("/always").timed(&[1500, 9000])]),
        case("retry-per-try-timeout-without-retry")
            .http1("a", plan([hang()]))
            .routes(
                "
                - match: {prefix: /}
                  route: {cluster: $a, retry_policy: {retry_on: connect-failure, per_try_timeout: 0.5s}}
                ",
            )
            .requests([get("/")]),
        case("retry-per-try-idle-timeout").explained("< cut | < reset by peer", "what broke off ends in a reset, which no HTTP/1 client takes for a complete body")
            .http1("a", plan([]).on("/head", [hang(), ok()]).on("/body", [ok().body("x").then(AnswerEnd::Hang)]))
            .virtual_host(COUNTED)
            .routes(
                "
                - match: {prefix: /}
                  route:
                    cluster: $a
                    retry_policy: {retry_on: 5xx, per_try_idle_timeout: 1s}
                ",
            )
            .requests(["/head", "/body"].map(get)),
        case("retry-within-route-timeout")
            .http1("a", plan([status(503).after(700)]))
            .routes("- match: {prefix: /}\n  route: {cluster: $a, timeout: 1.5s, retry_policy: {retry_on: 5xx, num_retries: 50}}")
            .client_only()
            .requests([get("/").timed(&[800, 9000])]),
        case("retry-back-off")
            .http1("a", plan([status(503), status(503), ok()]))
            .virtual_host(COUNTED)
            .routes(
                "
                - match: {prefix: /}
                  route:
                    cluster: $a
                    retry_policy:
                      {retry_on: 5xx, num_retries: 2, retry_back_off: {base_interval: 0.001s, max_interval: 0.002s}}
                ",
            )
            .requests([get("/").timed(&[3000])]),
        case("retry-body-replay")
            .http1("a", plan([]).on("/small", [status(503), ok()]).on("/chunked", [status(503), ok()]).on("/early", [status(503).early(), ok()]))
            .http2("b", plan([]).on("/two", [status(503), ok()]))
            .virtual_host(COUNTED)
            .routes(
                "
                - match: {prefix: /two}
                  route: {cluster: $b, retry_policy: {retry_on: 5xx}}
                - match: {prefix: /}
                  route: {cluster: $a, retry_policy: {retry_on: 5xx}}
                ",
            )
            .requests([
                post("/small", "some body"),
                post("/chunked", "some body").chunked().trailer("x-t", "1"),
                post("/two", "some body").h2().trailer("x-t", "1"),
            ]),
        case("retry-body-beyond-the-limit")
            .http1("a", plan([]).on("/big", [status(503), ok()]).on("/small", [status(503), ok()]))
            .virtual_host(COUNTED)
            .routes(
                "
                - match: {prefix: /}
                  route: {cluster: $a, retry_policy: {retry_on: 5xx}}
                  request_body_buffer_limit: 20
                ",
            )
            .requests([post("/small", "fits"), post("/big", "does not fit into twenty bytes")]),
        case("retry-after-what-the-upstream-says")
            .http1("a", plan([status(503).header("retry-after", "1"), ok()]))
            .virtual_host(COUNTED)
            .routes(
                "
                - match: {prefix: /}
                  route:
                    cluster: $a
                    retry_policy:
                      retry_on: 5xx
                      rate_limited_retry_back_off: {reset_headers: [{name: retry-after, format: SECONDS}], max_interval: 30s}
                ",
            )
            .requests([get("/").timed(&[700, 9000])]),
        case("retry-some-requests")
            .http1("a", plan([]).on("/yes", [status(503), ok()]).on("/no", [status(503), ok()]))
            .virtual_host(COUNTED)
            .routes(
                "
                - match: {prefix: /}
                  route:
                    cluster: $a
                    retry_policy: {retry_on: 5xx, retriable_request_headers: [{name: x-again, string_match: {exact: 'yes'}}]}
                ",
            )
            .requests([get("/yes").header("x-again", "yes"), get("/no")]),
        case("retry-says-that-it-follows-a-timeout")
            .http1("a", plan([hang(), ok()]))
            .virtual_host("include_is_timeout_retry_header: true")
            .routes("- match: {prefix: /}\n  route: {cluster: $a, retry_policy: {retry_on: 5xx, per_try_timeout: 0.5s}}")
            .requests([get("/")]),
        case("retry-previous-hosts")
            .http1("a", plan([status(503).body("same")]))
            .http1("b", plan([status(503).body("same")]))
            .http1("c", plan([ok().body("same")]))
            .cluster("all", &["a", "b", "c"], "")
            .virtual_host(COUNTED)
            .routes(
                "
                - match: {prefix: /}
                  route:
                    cluster: $all
                    retry_policy:
                      retry_on: 5xx
                      num_retries: 2
                      host_selection_retry_max_attempts: 50
                      retry_host_predicate:
                      - name: previous
                        typed_config: {'@type': type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate}
                ",
            )
            .client_only()
            .requests((0..6).map(|_| get("/")))
            .by_chance("x-envoy-attempt-count", "which of the three hosts is first"),
        case("retry-previous-priorities")
            .http1("a", plan([status(503)]))
            .http1("b", plan([status(503)]))
            .http1("c", plan([status(503)]))
            .cluster("x", &[], PRIORITIES)
            .virtual_host(COUNTED)
            .routes(
                "
                - match: {prefix: /}
                  route:
                    cluster: $x
                    retry_policy:
                      retry_on: 5xx
                      num_retries: 4
                      retry_back_off: {base_interval: 0.001s, max_interval: 0.002s}
                      retry_priority:
                        name: previous
                        typed_config:
                          '@type': type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig
                          update_frequency: 1
                ",
            )
            .requests([get("/")]),
        case("retry-previous-priorities-every-other")
            .http1("a", plan([status(503)]))
            .http1("b", plan([status(503)]))
            .http1("c", plan([status(503)]))
            .cluster("x", &[], PRIORITIES)
            .virtual_host(COUNTED)
            .routes(
                "
                - match: {prefix: /}
                  route:
                    cluster: $x
                    retry_policy:
                      retry_on: 5xx
                      num_retries: 7
                      retry_back_off: {base_interval: 0.001s, max_interval: 0.002s}
                      retry_priority:
                        name: previous
                        typed_config:
                          '@type': type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig
                          update_frequency: 2
                ",
            )
            .requests([get("/")]),
    ]
}

/// Three priorities of one host each.
const PRIORITIES: &str = "
load_assignment:
  cluster_name: x
  endpoints:
  - {priority: 0, lb_endpoints: [{endpoint: {address: $socket_a}}]}
  - {priority: 1, lb_endpoints: [{endpoint: {address: $socket_b}}]}
  - {priority: 2, lb_endpoints: [{endpoint: {address: $socket_c}}]}
";

fn headers() -> Vec<Case> {
    vec![
        case("retry-headers-of-the-client")
            .http1("a", plan([status(503)]))
            .virtual_host(COUNTED)
            .routes(
                "
                - match: {prefix: /policy}
                  route: {cluster: $a, retry_policy: {retry_on: connect-failure, num_retries: 1}}
                - match: {prefix: /}
                  route: {cluster: $a}
                ",
            )
            .requests([
                get("/on").header("x-envoy-retry-on", "5xx"),
                get("/max").header("x-envoy-retry-on", "5xx").header("x-envoy-max-retries", "3"),
                get("/maxonly").header("x-envoy-max-retries", "3"),
                get("/policy").header("x-envoy-retry-on", "5xx").header("x-envoy-max-retries", "2"),
                get("/bad").header("x-envoy-retry-on", "5xx").header("x-envoy-max-retries", "many"),
                get("/codes")
                    .header("x-envoy-retry-on", "retriable-status-codes")
                    .header("x-envoy-retriable-status-codes", "503"),
                get("/names")
                    .header("x-envoy-retry-on", "retriable-headers")
                    .header("x-envoy-retriable-header-names", "content-length"),
            ]),
        case("retry-timeout-headers").http1("a", plan([hang()])).virtual_host(COUNTED).requests([
            get("/total").header("x-envoy-upstream-rq-timeout-ms", "600"),
            get("/try")
                .header("x-envoy-retry-on", "5xx")
                .header("x-envoy-upstream-rq-timeout-ms", "6000")
                .header("x-envoy-upstream-rq-per-try-timeout-ms", "500"),
            get("/alt")
                .header("x-envoy-upstream-rq-timeout-alt-response", "204")
                .header("x-envoy-upstream-rq-timeout-ms", "500"),
        ]),
        case("retry-h2-to-h1")
            .http1("a", plan([]).on("/x", [close(), ok()]))
            .virtual_host(COUNTED)
            .routes("- match: {prefix: /}\n  route: {cluster: $a, retry_policy: {retry_on: reset}}")
            .requests([post("/x", "body").h2()]),
    ]
}

//! What is tried again, how often, and what the upstream learns of it.

use crate::harness::{
    AnswerEnd, Case, Serve, case, close, get, grpc, grpc_call, grpc_message, hang, ok, plan, post, reset, reset_with,
    status,
};

pub(crate) fn cases() -> Vec<Case> {
    let mut all = conditions();
    all.extend(grpc_conditions());
    all.extend(limits());
    all.extend(headers());
    all
}

const COUNTED: &str = "
include_request_attempt_count: true
include_attempt_count_in_response: true
";

fn conditions() -> Vec<Case> {
    vec![
        case("retry-5xx")
            .http1(
                "a",
                plan([])
                    .on("/503", [status(503), ok()])
                    .on("/500", [status(500), ok()])
                    .on("/404", [status(404), ok()])
                    .on("/close", [close(), ok()])
                    .on("/reset", [reset(), ok()])
                    .on("/twice", [status(503), status(503), ok()]),
            )
            .virtual_host(COUNTED)
            .routes("- match: {prefix: /}\n  route: {cluster: $a, retry_policy: {retry_on: 5xx}}")
            .requests(["/503", "/500", "/404", "/close", "/reset", "/twice"].map(get)),
        case("retry-gateway-error")
            .http1(
                "a",
                plan([])
                    .on("/500", [status(500), ok()])
                    .on("/502", [status(502), ok()])
                    .on("/503", [status(503), ok()])
                    .on("/504", [status(504), ok()])
                    .on("/501", [status(501), ok()]),
            )
            .virtual_host(COUNTED)
            .routes("- match: {prefix: /}\n  route: {cluster: $a, retry_policy: {retry_on: gateway-error}}")
            .requests(["/500", "/501", "/502", "/503", "/504"].map(get)),
        case("retry-reset")
            .http1(
                "a",
                plan([])
                    .on("/close", [close(), ok()])
                    .on("/reset", [reset(), ok()])
                    .on("/503", [status(503), ok()])
                    .on("/mid", [ok().body("part").then(AnswerEnd::Cut), ok()]),
            )
            .virtual_host(COUNTED)
            .routes("- match: {prefix: /}\n  route: {cluster: $a, retry_policy: {retry_on: reset}}")
            .requests(["/close", "/reset", "/503", "/mid"].map(get)),
        case("retry-reset-before-request")
            .http1("a", plan([]).on("/close", [close(), ok()]))
            .virtual_host(COUNTED)
            .routes("- match: {prefix: /}\n  route: {cluster: $a, retry_policy: {retry_on: reset-before-request}}")
            .requests(["/close", "/fine"].map(get)),
        case("retry-connect-failure")
            .host("dead", Serve::Nothing)
            .http1("a", plan([]).on("/close", [close(), ok()]))
            .cluster("mixed", &["dead", "a"], "")
            .virtual_host(COUNTED)
            .routes(
                "
                - match: {prefix: /mixed}
                  route: {cluster: $mixed, retry_policy: {retry_on: connect-failure, num_retries: 3}}
                - match: {prefix: /}
                  route: {cluster: $mixed, retry_policy: {retry_on: connect-failure, num_retries: 3}}
                ",
            )
            .client_only()
            .spread(30, get("/mixed")),
        case("retry-connect-failure-all-dead")
            .host("dead", Serve::Nothing)
            .virtual_host(COUNTED)
            .routes("- match: {prefix: /}\n  route: {cluster: $dead, retry_policy: {retry_on: connect-failure, num_retries: 2}}")
            .requests([get("/"), grpc_call("/s/m")]),
        case("retry-4xx")
            .http1("a", plan([]).on("/409", [status(409), ok()]).on("/404", [status(404), ok()]).on("/503", [status(503), ok()]))
            .virtual_host(COUNTED)
            .routes("- match: {prefix: /}\n  route: {cluster: $a, retry_policy: {retry_on: retriable-4xx}}")
            .requests(["/409", "/404", "/503"].map(get)),
        case("retry-codes")
            .http1("a", plan([]).on("/418", [status(418), ok()]).on("/404", [status(404), ok()]).on("/503", [status(503), ok()]))
            .virtual_host(COUNTED)
            .routes(
                "
                - match: {prefix: /}
                  route: {cluster: $a, retry_policy: {retry_on: retriable-status-codes, retriable_status_codes: [418, 404]}}
                ",
            )
            .requests(["/418", "/404", "/503"].map(get))
            .requests([get("/503?x").header("x-envoy-retriable-status-codes", "503,504")]),
        case("retry-response-headers")
            .http1(
                "a",
                plan([])
                    .on("/yes", [status(200).header("x-again", "please"), ok()])
                    .on("/no", [status(200).header("x-again", "never"), ok()]),
            )
            .virtual_host(COUNTED)
            .routes(
                "
                - match: {prefix: /}
                  route:
                    cluster: $a
                    retry_policy:
                      retry_on: retriable-headers
                      retriable_headers: [{name: x-again, string_match: {exact: please}}]
                ",
            )
            .requests(["/yes", "/no"].map(get)),
        case("retry-refused-stream")
            .http2(
                "a",
                plan([])
                    .on("/refused", [reset_with(7), ok()])
                    .on("/internal", [reset_with(2), ok()])
                    .on("/cancel", [reset_with(8), ok()]),
            )
            .virtual_host(COUNTED)
            .routes("- match: {prefix: /}\n  route: {cluster: $a, retry_policy: {retry_on: refused-stream}}")
            .requests(["/refused", "/internal", "/cancel"].map(get)),
        case("retry-several-conditions")
            .http1("a", plan([]).on("/503", [status(503), ok()]).on("/409", [status(409), ok()]).on("/404", [status(404), ok()]))
            .virtual_host(COUNTED)
            .routes("- match: {prefix: /}\n  route: {cluster: $a, retry_policy: {retry_on: '5xx,retriable-4xx,unknown'}}")
            .requests(["/503", "/409", "/404"].map(get)),
    ]
}

fn grpc_conditions() -> Vec<Case> {
    vec![
        case("retry-grpc")
            .http2(
                "a",
                plan([])
                    .on("/s/cancelled", [grpc(1), grpc_message(0)])
                    .on("/s/deadline", [grpc(4), grpc_message(0)])
                    .on("/s/exhausted", [grpc(8), grpc_message(0)])
                    .on("/s/internal", [grpc(13), grpc_message(0)])
                    .on("/s/unavailable", [grpc(14), grpc_message(0)])
                    .on("/s/notfound", [grpc(5), grpc_message(0)])
                    .on("/s/trailers", [grpc_message(14), grpc_message(0)]),
            )
            .virtual_host(COUNTED)
            .routes(
                "
                - match: {prefix: /}
                  route:
                    cluster: $a
                    retry_policy: {retry_on: 'cancelled,deadline-exceeded,resource-exhausted,internal,unavailable'}
                ",
            )
            .requests(
                [
                    "/s/cancelled",
                    "/s/deadline",
                    "/s/exhausted",
                    "/s/internal",
                    "/s/unavailable",
                    "/s/notfound",
                    "/s/trailers",
                ]
                .map(grpc_call),
            ),
        case("retry-grpc-one-condition")
            .http2("a", plan([]).on("/s/internal", [grpc(13), grpc(0)]).on("/s/unavailable", [grpc(14), grpc(0)]))
            .virtual_host(COUNTED)
            .routes("- match: {prefix: /}\n  route: {cluster: $a, retry_policy: {retry_on: unavailable}}")
            .requests(["/s/internal", "/s/unavailable"].map(grpc_call)),
        case("retry-grpc-header")
            .http2("a", plan([]).on("/s/internal", [grpc(13), grpc(0)]))
            .virtual_host(COUNTED)
            .requests([grpc_call("/s/internal").header("x-envoy-retry-grpc-on", "internal")]),
    ]
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
        case("retry-per-try-idle-timeout")
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
            .explained("x-envoy-attempt-count", "which of the three hosts is first is chance"),
    ]
}

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

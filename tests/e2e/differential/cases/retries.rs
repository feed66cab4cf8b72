//! What is tried again, and what the upstream learns of it.

use crate::harness::{
    AnswerEnd, Case, Serve, case, close, get, grpc, grpc_call, grpc_message, ok, plan, reset, reset_with, status,
};

pub(crate) fn cases() -> Vec<Case> {
    let mut all = conditions();
    all.extend(grpc_conditions());
    all.extend(super::retry_limits::cases());
    all
}

/// Both sides learn of the number of tries.
pub(super) const COUNTED: &str = "
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
        case("retry-reset").explained("flags= | details=", "a body that the connection cut short: the parser under Envoy calls it a protocol error").explained("< cut | < reset by peer", "what broke off ends in a reset, which no HTTP/1 client takes for a complete body")
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
        case("retry-connect-failure-all-dead").explained("rx=", "what cannot be sent up is not read")
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

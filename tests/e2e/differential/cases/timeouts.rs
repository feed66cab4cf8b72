//! Every clock, what it answers, and what it logs. Times are a second or so, their marks far away from it.

use crate::harness::{AnswerEnd, Case, Serve, case, get, grpc_call, hang, ok, plan, post, raw_bytes};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("route-timeout")
            .http1("a", plan([]).on("/hang", [hang()]).on("/slow", [ok().after(400)]))
            .routes("- match: {prefix: /}\n  route: {cluster: $a, timeout: 1.5s}")
            .requests([
                get("/hang").timed(&[700, 9000]),
                get("/slow").timed(&[100]),
                get("/hang").h2(),
                grpc_call("/hang"),
                post("/hang", "body"),
            ]),
        case("route-timeout-in-the-body")
            .explained(
                "< cut | < reset by peer",
                "what broke off ends in a reset, which no HTTP/1 client takes for a complete body",
            )
            .http1("a", plan([ok().body("first").then(AnswerEnd::Hang)]))
            .routes("- match: {prefix: /}\n  route: {cluster: $a, timeout: 1s}")
            .requests([get("/"), get("/").h2()]),
        case("route-timeout-off")
            .http1("a", plan([ok().after(300)]))
            .routes("- match: {prefix: /}\n  route: {cluster: $a, timeout: 0s}")
            .requests([get("/")]),
        case("route-timeout-waits-for-the-request")
            .echoes(&["a"])
            .routes("- match: {prefix: /}\n  route: {cluster: $a, timeout: 0.7s}")
            .requests([post("/", "late body").pause(1500)]),
        case("idle-timeout-of-the-route")
            .http1(
                "a",
                plan([])
                    .on("/hang", [hang()])
                    .on("/drip", [ok().part(0, "a").part(500, "b").part(500, "c").part(500, "d")]),
            )
            .routes("- match: {prefix: /}\n  route: {cluster: $a, timeout: 0s, idle_timeout: 1.2s}")
            .requests([get("/hang"), get("/hang").h2(), get("/drip"), grpc_call("/hang")]),
        case("idle-timeout-of-streams")
            .http1("a", plan([hang()]))
            .manager("stream_idle_timeout: 1s")
            .routes("- match: {prefix: /}\n  route: {cluster: $a, timeout: 0s}")
            .requests([get("/")]),
        case("idle-timeout-of-streams-in-the-request")
            .http1("a", plan([hang()]))
            .manager("stream_idle_timeout: 1s")
            .requests([post("/", "part").unfinished()]),
        case("request-timeout").http1("a", plan([ok()])).manager("request_timeout: 1s").requests([
            post("/", "part").unfinished(),
            post("/", "part").unfinished().h2(),
            get("/"),
        ]),
        case("request-headers-timeout")
            .echoes(&["a"])
            .manager("request_headers_timeout: 1s")
            .requests([raw_bytes("GET / HTTP/1.1\r\nHost: x\r\n")]),
        case("connection-idle-timeout")
            .echoes(&["a"])
            .manager("common_http_protocol_options: {idle_timeout: 0.5s}\ndrain_timeout: 0.1s")
            .requests([get("/").afterwards()]),
        case("max-connection-duration")
            .echoes(&["a"])
            .manager("common_http_protocol_options: {max_connection_duration: 0.3s}\ndrain_timeout: 0.1s")
            .requests([get("/").afterwards()]),
        case("max-requests-per-connection")
            .echoes(&["a"])
            .manager("common_http_protocol_options: {max_requests_per_connection: 2}")
            .on_one_connection([get("/1"), get("/2"), get("/3")]),
        case("max-stream-duration")
            .explained("flags=", "the log marks what ran out of time; Envoy sets no flag")
            .explained(
                "< cut | < reset by peer",
                "what broke off ends in a reset, which no HTTP/1 client takes for a complete body",
            )
            .http1("a", plan([]).on("/hang", [hang()]).on("/body", [ok().body("x").then(AnswerEnd::Hang)]))
            .routes(
                "
                - match: {prefix: /}
                  route: {cluster: $a, timeout: 0s, max_stream_duration: {max_stream_duration: 1s}}
                ",
            )
            .requests([get("/hang"), get("/body"), grpc_call("/hang"), get("/hang").h2()]),
        case("max-stream-duration-of-the-manager")
            .explained("flags=", "the log marks what ran out of time; Envoy sets no flag")
            .http1("a", plan([hang()]))
            .manager("common_http_protocol_options: {max_stream_duration: 1s}")
            .routes("- match: {prefix: /}\n  route: {cluster: $a, timeout: 0s}")
            .requests([get("/")]),
        case("grpc-timeout")
            .explained(
                "the proxy reset the stream",
                "what is given up is cancelled (CANCEL); Envoy calls it INTERNAL_ERROR",
            )
            .explained("flags=", "the log marks what ran out of time; Envoy sets no flag")
            .http2("a", plan([hang()]))
            .routes(
                "
                - match: {prefix: /max}
                  route: {cluster: $a, max_stream_duration: {grpc_timeout_header_max: 1s}}
                - match: {prefix: /all}
                  route: {cluster: $a, max_stream_duration: {grpc_timeout_header_max: 0s}}
                - match: {prefix: /old}
                  route: {cluster: $a, max_grpc_timeout: 1s}
                - match: {prefix: /}
                  route: {cluster: $a, timeout: 1s}
                ",
            )
            .requests([
                grpc_call("/max").header("grpc-timeout", "600m"),
                grpc_call("/max").header("grpc-timeout", "1H"),
                grpc_call("/all").header("grpc-timeout", "700m"),
                grpc_call("/old").header("grpc-timeout", "1H"),
                grpc_call("/none").header("grpc-timeout", "1H"),
            ]),
        case("connect-timeout")
            .explained("failure= | rx=", "the log names the timeout as the reason; what cannot be sent up is not read")
            .host("hole", Serve::BlackHole)
            .cluster("hole", &["hole"], "connect_timeout: 0.8s")
            .requests([get("/").timed(&[400, 9000]), grpc_call("/s/m")])
            .routes("- match: {prefix: /}\n  route: {cluster: $hole}"),
        case("expected-timeout-header")
            .echoes(&["a"])
            .routes(
                "
                - match: {prefix: /off}
                  route: {cluster: $a, timeout: 0s}
                - match: {prefix: /try}
                  route: {cluster: $a, timeout: 9s, retry_policy: {retry_on: 5xx, per_try_timeout: 2s}}
                - match: {prefix: /}
                  route: {cluster: $a, timeout: 3.5s}
                ",
            )
            .requests([
                get("/off"),
                get("/try"),
                get("/x"),
                get("/x").header("x-envoy-upstream-rq-timeout-ms", "1234"),
            ]),
        case("respect-expected-timeout")
            .echoes(&["a"])
            .router("respect_expected_rq_timeout: true")
            .requests([get("/").header("x-envoy-expected-rq-timeout-ms", "777"), get("/")]),
    ]
}

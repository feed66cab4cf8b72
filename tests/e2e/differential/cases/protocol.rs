//! HTTP itself: versions, framing, trailers, interim answers, upgrades, and requests that are wrong.

use crate::harness::{
    AnswerEnd, Case, Serve, case, close, get, grpc_message, ok, plan, post, raw, raw_bytes, request, reset_with,
    status, switch,
};

/// HTTP/2: empty settings, then the end of the connection before its first stream.
const GO_AWAY: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0";

pub(crate) fn cases() -> Vec<Case> {
    let mut all = framing();
    all.extend(versions());
    all.extend(upgrades());
    all.extend(wrong_answers());
    all
}

fn framing() -> Vec<Case> {
    vec![
        case("methods")
            .echoes(&["a"])
            .requests(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"].map(|m| request(m, "/")))
            .requests(["GET", "HEAD", "POST", "DELETE", "OPTIONS"].map(|m| request(m, "/").h2()))
            .requests(["GET", "DELETE"].map(|m| request(m, "/").body("body"))),
        case("bodiless-answers")
            .http1(
                "a",
                plan([])
                    .on("/204", [status(204)])
                    .on("/304", [status(304).header("etag", "\"x\"")])
                    .on("/304len", [status(304).header("content-length", "5")])
                    .on("/empty", [ok().no_body()])
                    .on("/headlen", [ok().header("content-length", "1234").no_body()]),
            )
            .requests(["/204", "/304", "/304len", "/empty"].map(get))
            .requests([
                request("HEAD", "/headlen"),
                request("HEAD", "/204"),
                get("/204").h2(),
                request("HEAD", "/headlen").h2(),
            ])
            .on_one_connection([get("/204"), get("/304"), request("HEAD", "/x"), get("/empty")]),
        case("chunked-both-ways").http1("a", plan([ok().chunked().part(0, "one").part(10, "two")])).requests([
            get("/"),
            post("/", "body").chunked(),
            post("/", "").chunked(),
            get("/").h2(),
            post("/", "body").h2(),
        ]),
        case("until-close")
            .http1("a", plan([raw("HTTP/1.1 200 OK\r\nx-u: 1\r\n\r\nuntil the end")]))
            .requests([get("/"), get("/").h2()]),
        case("trailers")
            .explained("trailer x-", "HTTP/1 trailers cross if the sender announces them in its Trailer header")
            .http1("a", plan([ok().body("b").trailer("x-t", "1").trailer("x-u", "2")]))
            .manager("http_protocol_options: {enable_trailers: true}")
            .cluster(
                "a",
                &["a"],
                "
                typed_extension_protocol_options:
                  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
                    '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
                    explicit_http_config: {http_protocol_options: {enable_trailers: true}}
                ",
            )
            .requests([
                get("/"),
                get("/").header("te", "trailers"),
                post("/", "body").trailer("x-up", "1"),
                post("/", "body").trailer("x-up", "1").h2(),
            ]),
        case("trailers-announced")
            .http1("a", plan([ok().header("trailer", "x-t").body("b").trailer("x-t", "1")]))
            .manager("http_protocol_options: {enable_trailers: true}")
            .cluster(
                "a",
                &["a"],
                "
                typed_extension_protocol_options:
                  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
                    '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
                    explicit_http_config: {http_protocol_options: {enable_trailers: true}}
                ",
            )
            .requests([
                get("/").header("te", "trailers"),
                post("/", "body").header("trailer", "x-up").trailer("x-up", "1"),
            ]),
        case("trailers-over-http2")
            .http2("a", plan([ok().body("b").trailer("x-t", "1")]))
            .requests([post("/", "body").trailer("x-up", "1").h2(), get("/").h2()]),
        case("expect-continue").http1("a", plan([]).on("/early", [status(417).early()])).requests([
            post("/", "body").header("expect", "100-continue"),
            post("/", "body").header("expect", "100-continue").h2(),
        ]),
        case("expect-continue-passed")
            .http1("a", plan([]))
            .manager("proxy_100_continue: true")
            .requests([post("/", "body").header("expect", "100-continue")]),
        case("early-hints")
            .http1("a", plan([ok().interim(103, &[("link", "</x>")])]))
            .requests([get("/"), get("/").h2()]),
        case("big-bodies")
            .http1("a", plan([ok().body(&"x".repeat(300_000))]))
            .http2("b", plan([ok().body(&"y".repeat(300_000))]))
            .routes("- match: {prefix: /b}\n  route: {cluster: $b}\n- match: {prefix: /}\n  route: {cluster: $a}")
            .requests(["/a", "/b"].into_iter().flat_map(|p| {
                [get(p), get(p).h2(), post(p, &"z".repeat(200_000)), post(p, &"z".repeat(200_000)).h2()]
            })),
    ]
}

fn versions() -> Vec<Case> {
    vec![
        case("http10")
            .explained("connection: close | then closed", "an HTTP/1.0 connection ends without saying so")
            .echoes(&["a"])
            .manager("http_protocol_options: {accept_http_10: true, default_host_for_http_10: default.test}")
            .requests([
                get("/").http10(),
                get("/").http10().host(""),
                get("/").http10().header("connection", "keep-alive"),
                post("/", "body").http10(),
            ]),
        case("http10-chunked-answer")
            .explained("connection: close", "an HTTP/1.0 connection ends without saying so")
            .http1("a", plan([ok().chunked().body("x")]))
            .manager("http_protocol_options: {accept_http_10: true}")
            .requests([get("/").http10()]),
        case("http2-to-http1")
            .explained("x-hop", "what Connection names is for one hop (RFC 9110 section 7.6.1)")
            .http1("a", plan([ok().header("connection", "x-hop").header("x-hop", "1")]))
            .requests([get("/p?q").h2(), post("/", "body").h2().header("x-a", "1")]),
        case("http1-to-http2")
            .explained("4 < transfer-encoding", "an answer to HEAD has no body to frame")
            .http2("a", plan([ok().header("x-b", "2")]))
            .requests([
                get("/p?q"),
                post("/", "body"),
                post("/", "body").chunked(),
                request("HEAD", "/"),
                get("/").host(""),
            ]),
        case("grpc-over-http1")
            .explained("trailer: grpc-status", "HTTP/1 trailers are announced")
            .http2("a", plan([grpc_message(3)]))
            .manager("http_protocol_options: {enable_trailers: true}")
            .requests([post("/s/m", "\0\0\0\0\0").header("content-type", "application/grpc").header("te", "trailers")]),
        case("pipelined").echoes(&["a"]).requests([raw_bytes(
            "GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        )]),
        case("connection-close-of-the-upstream")
            .http1("a", plan([ok().then(AnswerEnd::CompleteAndClose), ok()]))
            .on_one_connection([get("/"), get("/")])
            .count_connections(),
        case("upstream-connections-are-kept")
            .echoes(&["a"])
            .requests([get("/1"), get("/2"), get("/3")])
            .count_connections(),
        case("upstream-max-requests-per-connection")
            .echoes(&["a"])
            .cluster(
                "a",
                &["a"],
                "
                typed_extension_protocol_options:
                  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
                    '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
                    common_http_protocol_options: {max_requests_per_connection: 2}
                    explicit_http_config: {http_protocol_options: {}}
                ",
            )
            .requests(["/1", "/2", "/3", "/4", "/5"].map(get))
            .count_connections(),
    ]
}

fn upgrades() -> Vec<Case> {
    let websocket = |path: &str| {
        get(path)
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .tunnel("hello")
    };
    vec![
        case("websocket")
            .explained("flags= | details=", "a tunnel that ends in order is no failure")
            .explained("connection: upgrade | connection: Upgrade", "the token is the same in any case")
            .http1("a", plan([switch("websocket")]))
            .manager("upgrade_configs: [{upgrade_type: websocket}]")
            .requests([websocket("/")]),
        case("websocket-not-allowed")
            .explained("connection: close | then closed", "the connection can go on after a refused upgrade")
            .http1("a", plan([switch("websocket")]))
            .requests([websocket("/")]),
        case("websocket-refused-by-the-upstream")
            .explained("connection: close | then closed", "the connection can go on after a refused upgrade")
            .explained("connection: upgrade | connection: Upgrade", "the token is the same in any case")
            .http1("a", plan([status(403)]))
            .manager("upgrade_configs: [{upgrade_type: websocket}]")
            .requests([websocket("/")]),
        case("websocket-by-route")
            .explained("connection: close | then closed", "the connection can go on after a refused upgrade")
            .explained("flags= | details=", "a tunnel that ends in order is no failure")
            .explained("connection: upgrade | connection: Upgrade", "the token is the same in any case")
            .http1("a", plan([switch("websocket")]))
            .manager("upgrade_configs: [{upgrade_type: websocket}]")
            .routes(
                "
                - match: {prefix: /off}
                  route: {cluster: $a, upgrade_configs: [{upgrade_type: websocket, enabled: false}]}
                - match: {prefix: /}
                  route: {cluster: $a}
                ",
            )
            .requests([websocket("/off"), websocket("/on")]),
        case("upgrade-of-another-kind")
            .explained("connection: close | then closed", "the connection can go on after a refused upgrade")
            .explained("flags= | details=", "a tunnel that ends in order is no failure")
            .explained("connection: upgrade | connection: Upgrade", "the token is the same in any case")
            .http1("a", plan([switch("custom")]))
            .manager("upgrade_configs: [{upgrade_type: custom}]")
            .requests([
                get("/").header("connection", "upgrade").header("upgrade", "custom").tunnel("text"),
                websocket("/"),
            ]),
        case("connect-not-allowed")
            .explained("connection: close | then closed", "the connection can go on after a refused upgrade")
            .echoes(&["a"])
            .requests([request("CONNECT", "x.test:443"), request("CONNECT", "/").h2()]),
    ]
}

fn wrong_answers() -> Vec<Case> {
    vec![
        case("upstream-closes").http1("a", plan([close()])).requests([get("/"), get("/").h2(), post("/", "body")]),
        case("upstream-cuts-the-body")
            .explained(
                "flags= | details=",
                "a body that the connection cut short: the parser under Envoy calls it a protocol error",
            )
            .explained(
                "< cut | < reset by peer",
                "what broke off ends in a reset, which no HTTP/1 client takes for a complete body",
            )
            .http1("a", plan([ok().body("part").then(AnswerEnd::Cut)]))
            .requests([get("/"), get("/").h2()]),
        case("upstream-cuts-chunks")
            .explained(
                "flags= | details=",
                "a body that the connection cut short: the parser under Envoy calls it a protocol error",
            )
            .explained(
                "< cut | < reset by peer",
                "what broke off ends in a reset, which no HTTP/1 client takes for a complete body",
            )
            .http1("a", plan([ok().chunked().body("part").then(AnswerEnd::Cut)]))
            .requests([get("/"), get("/").h2()]),
        case("upstream-resets-the-body")
            .explained(
                "flags= | details=",
                "a body that the connection cut short: the parser under Envoy calls it a protocol error",
            )
            .explained(
                "< cut | < reset by peer",
                "what broke off ends in a reset, which no HTTP/1 client takes for a complete body",
            )
            .http1("a", plan([ok().body("part").then(AnswerEnd::Reset)]))
            .requests([get("/"), get("/").h2()]),
        case("upstream-talks-nonsense").http1("a", plan([raw("nonsense\r\n\r\n")])).requests([get("/"), get("/").h2()]),
        case("upstream-answers-with-a-bad-header")
            .http1("a", plan([raw("HTTP/1.1 200 OK\r\nbad header: 1\r\ncontent-length: 0\r\n\r\n")]))
            .requests([get("/")]),
        case("upstream-resets-streams")
            .http2("a", plan([]).on("/2", [reset_with(2)]).on("/8", [reset_with(8)]).on("/11", [reset_with(11)]))
            .requests(["/2", "/8", "/11"].map(get))
            .requests([get("/2").h2(), get("/8").h2()]),
        case("upstream-refuses-streams").http2("a", plan([reset_with(7)])).requests([get("/")]).explained(
            "a[ | attempts= | < content-length | < body | tx=",
            "what the upstream says it did not process is sent again, retry policy or not",
        ),
        case("upstream-goes-away")
            .host("a", Serve::Bytes(GO_AWAY.to_vec()))
            .requests([get("/"), post("/", "body"), get("/").h2()])
            .explained(
                "a[ | attempts= | < content-length | < body | tx=",
                "what the upstream says it did not process is sent again, retry policy or not",
            )
            .by_chance(
                "2 < connection: close | 2 < then closed | rx=",
                "the upstream may be gone before the body was read, and the answer is an early one then",
            ),
        case("upstream-resets-a-stream-in-the-body")
            .explained(
                "< cut | < reset by peer",
                "what broke off ends in a reset, which no HTTP/1 client takes for a complete body",
            )
            .http2("a", plan([ok().body("part").then(AnswerEnd::Reset)]))
            .requests([get("/"), get("/").h2()]),
        case("upstream-answers-early")
            .by_chance("a[2] > body | rx=", "how much came before the answer did")
            .http1("a", plan([status(413).early()]))
            .requests([post("/", "complete body"), post("/", "part").unfinished()]),
    ]
}

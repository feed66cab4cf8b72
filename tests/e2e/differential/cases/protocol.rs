//! HTTP itself: versions, framing, trailers, interim answers, upgrades, and requests that are wrong.

use crate::harness::{
    AnswerEnd, Case, case, close, get, grpc_message, ok, plan, post, raw, raw_bytes, request, reset_with, status,
    switch,
};

pub(crate) fn cases() -> Vec<Case> {
    let mut all = framing();
    all.extend(versions());
    all.extend(upgrades());
    all.extend(wrong_requests());
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
            .echoes(&["a"])
            .manager("http_protocol_options: {accept_http_10: true, default_host_for_http_10: default.test}")
            .requests([
                get("/").http10(),
                get("/").http10().host(""),
                get("/").http10().header("connection", "keep-alive"),
                post("/", "body").http10(),
            ]),
        case("http10-chunked-answer")
            .http1("a", plan([ok().chunked().body("x")]))
            .manager("http_protocol_options: {accept_http_10: true}")
            .requests([get("/").http10()]),
        case("http2-to-http1")
            .http1("a", plan([ok().header("connection", "x-hop").header("x-hop", "1")]))
            .requests([get("/p?q").h2(), post("/", "body").h2().header("x-a", "1")]),
        case("http1-to-http2").http2("a", plan([ok().header("x-b", "2")])).requests([
            get("/p?q"),
            post("/", "body"),
            post("/", "body").chunked(),
            request("HEAD", "/"),
            get("/").host(""),
        ]),
        case("grpc-over-http1")
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
            .http1("a", plan([switch("websocket")]))
            .manager("upgrade_configs: [{upgrade_type: websocket}]")
            .requests([websocket("/")]),
        case("websocket-not-allowed").http1("a", plan([switch("websocket")])).requests([websocket("/")]),
        case("websocket-refused-by-the-upstream")
            .http1("a", plan([status(403)]))
            .manager("upgrade_configs: [{upgrade_type: websocket}]")
            .requests([websocket("/")]),
        case("websocket-by-route")
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
            .http1("a", plan([switch("custom")]))
            .manager("upgrade_configs: [{upgrade_type: custom}]")
            .requests([
                get("/").header("connection", "upgrade").header("upgrade", "custom").tunnel("text"),
                websocket("/"),
            ]),
        case("connect-not-allowed")
            .echoes(&["a"])
            .requests([request("CONNECT", "x.test:443"), request("CONNECT", "/").h2()]),
    ]
}

fn wrong_requests() -> Vec<Case> {
    let all = [
        ("bad-request-line", "GET\r\n\r\n"),
        ("bad-version", "GET / HTTP/3.7\r\nHost: x\r\n\r\n"),
        ("bad-http10", "GET / HTTP/1.0\r\nHost: x\r\n\r\n"),
        ("bad-no-host", "GET / HTTP/1.1\r\n\r\n"),
        ("bad-two-hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        ("bad-header-name", "GET / HTTP/1.1\r\nHost: x\r\nx y: 1\r\n\r\n"),
        ("bad-header-value", "GET / HTTP/1.1\r\nHost: x\r\nx: a\x01b\r\n\r\n"),
        ("bad-length", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1x\r\n\r\nab"),
        ("bad-two-lengths", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        (
            "bad-length-and-chunked",
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        ("bad-encoding", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n"),
        ("bad-chunk", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n"),
        ("bad-space-before-colon", "GET / HTTP/1.1\r\nHost: x\r\nx : 1\r\n\r\n"),
        ("bad-absolute-form", "GET http://abs.test:81/p?q HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n"),
        ("bad-asterisk", "OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
        ("bad-relative-target", "GET path HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("bad-method", "G@T / HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("bad-unknown-method", "FROB / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
        ("bad-host", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
        ("bad-not-http", "hello world, this is no HTTP\r\n\r\n"),
        ("bad-leading-blank-lines", "\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
        ("bad-folded-header", "GET / HTTP/1.1\r\nHost: x\r\nx: a\r\n b\r\nConnection: close\r\n\r\n"),
        ("bad-empty-header-name", "GET / HTTP/1.1\r\nHost: x\r\n: 1\r\n\r\n"),
    ];
    let mut cases: Vec<Case> =
        all.into_iter().map(|(name, bytes)| case(name).echoes(&["a"]).requests([raw_bytes(bytes)])).collect();
    cases.push(
        case("too-many-header-bytes")
            .echoes(&["a"])
            .manager("max_request_headers_kb: 8")
            .requests([get("/").header("x-big", &"v".repeat(9000)), get("/").header("x-big", &"v".repeat(7000))]),
    );
    cases.push(
        case("too-many-headers")
            .echoes(&["a"])
            .manager("common_http_protocol_options: {max_headers_count: 20}")
            .requests([(0..30).fold(get("/"), |r, n| r.header(&format!("x-{n}"), "v"))]),
    );
    cases
}

fn wrong_answers() -> Vec<Case> {
    vec![
        case("upstream-closes").http1("a", plan([close()])).requests([get("/"), get("/").h2(), post("/", "body")]),
        case("upstream-cuts-the-body")
            .http1("a", plan([ok().body("part").then(AnswerEnd::Cut)]))
            .requests([get("/"), get("/").h2()]),
        case("upstream-cuts-chunks")
            .http1("a", plan([ok().chunked().body("part").then(AnswerEnd::Cut)]))
            .requests([get("/"), get("/").h2()]),
        case("upstream-resets-the-body")
            .http1("a", plan([ok().body("part").then(AnswerEnd::Reset)]))
            .requests([get("/"), get("/").h2()]),
        case("upstream-talks-nonsense").http1("a", plan([raw("nonsense\r\n\r\n")])).requests([get("/"), get("/").h2()]),
        case("upstream-answers-with-a-bad-header")
            .http1("a", plan([raw("HTTP/1.1 200 OK\r\nbad header: 1\r\ncontent-length: 0\r\n\r\n")]))
            .requests([get("/")]),
        case("upstream-resets-streams")
            .http2(
                "a",
                plan([])
                    .on("/2", [reset_with(2)])
                    .on("/8", [reset_with(8)])
                    .on("/7", [reset_with(7)])
                    .on("/11", [reset_with(11)]),
            )
            .requests(["/2", "/8", "/7", "/11"].map(get))
            .requests([get("/2").h2(), get("/8").h2()]),
        case("upstream-resets-a-stream-in-the-body")
            .http2("a", plan([ok().body("part").then(AnswerEnd::Reset)]))
            .requests([get("/"), get("/").h2()]),
        case("upstream-answers-early")
            .http1("a", plan([status(413).early()]))
            .requests([post("/", "complete body"), post("/", "part").unfinished()]),
    ]
}

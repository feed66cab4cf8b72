//! Requests that are wrong, or nearly.

use crate::harness::{Case, case, get, raw_bytes};

pub(crate) fn cases() -> Vec<Case> {
    const BARE: &str = "the HTTP parser answers with a bare status";
    const PARSER: &str = "1 < content-length | 1 < content-type | 1 < server | 1 < body | tx=";
    const NAMED: &str = "1 < content-length | 1 < content-type | 1 < server | 1 < body | tx= | details=";
    const STRICT: &str = "1 < | a[1] > | log";
    let all = [
        ("bad-request-line", "GET\r\n\r\n", PARSER, BARE),
        (
            "bad-version",
            "GET / HTTP/3.7\r\nHost: x\r\n\r\n",
            STRICT,
            "a version that does not exist is a bad request; Envoy asks for an upgrade",
        ),
        (
            "bad-http10",
            "GET / HTTP/1.0\r\nHost: x\r\n\r\n",
            STRICT,
            "HTTP/1.0 is always accepted: an application must not notice the proxy",
        ),
        ("bad-no-host", "GET / HTTP/1.1\r\n\r\n", "", ""),
        (
            "bad-two-hosts",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            STRICT,
            "two Host fields are refused (RFC 9112 section 3.2); Envoy joins them",
        ),
        ("bad-header-name", "GET / HTTP/1.1\r\nHost: x\r\nx y: 1\r\n\r\n", PARSER, BARE),
        ("bad-header-value", "GET / HTTP/1.1\r\nHost: x\r\nx: a\x01b\r\n\r\n", NAMED, BARE),
        ("bad-length", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1x\r\n\r\nab", PARSER, BARE),
        (
            "bad-two-lengths",
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            PARSER,
            BARE,
        ),
        (
            "bad-length-and-chunked",
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            NAMED,
            BARE,
        ),
        (
            "bad-encoding",
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
            STRICT,
            "an encoding that is not chunked at its end is a bad request; Envoy does not implement it",
        ),
        (
            "bad-chunk",
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
            "1 < content-length | 1 < content-type | 1 < body | tx= | flags= | details=",
            "a body that breaks off is the client's fault, whatever way it breaks",
        ),
        ("bad-space-before-colon", "GET / HTTP/1.1\r\nHost: x\r\nx : 1\r\n\r\n", PARSER, BARE),
        (
            "bad-absolute-form",
            "GET http://abs.test:81/p?q HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n",
            "",
            "",
        ),
        (
            "bad-asterisk",
            "OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            "flags= | details=",
            "no route matches `*`: that is what the log says",
        ),
        (
            "bad-relative-target",
            "GET path HTTP/1.1\r\nHost: x\r\n\r\n",
            "1 < content-length | 1 < content-type | 1 < body | log",
            BARE,
        ),
        ("bad-method", "G@T / HTTP/1.1\r\nHost: x\r\n\r\n", PARSER, BARE),
        (
            "bad-unknown-method",
            "FROB / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            STRICT,
            "methods of an application's own are always accepted: it must not notice the proxy",
        ),
        (
            "bad-host",
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            "1 < content-length | 1 < content-type | 1 < body | log",
            "a bare status; the log names the request",
        ),
        ("bad-not-http", "hello world, this is no HTTP\r\n\r\n", PARSER, BARE),
        ("bad-leading-blank-lines", "\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "", ""),
        (
            "bad-folded-header",
            "GET / HTTP/1.1\r\nHost: x\r\nx: a\r\n b\r\nConnection: close\r\n\r\n",
            STRICT,
            "folded lines are refused (RFC 9112 section 5.2); Envoy unfolds them",
        ),
        ("bad-empty-header-name", "GET / HTTP/1.1\r\nHost: x\r\n: 1\r\n\r\n", PARSER, BARE),
    ];
    let mut cases: Vec<Case> = Vec::new();
    for (name, bytes, lines, reason) in all {
        let case = case(name).echoes(&["a"]).requests([raw_bytes(bytes)]);
        cases.push(if lines.is_empty() { case } else { case.explained(lines, reason) });
    }
    cases.push(
        case("too-many-header-bytes")
            .explained(
                "1 < content-length | 1 < content-type | 1 < server | 1 < body | tx= | details=",
                "the HTTP parser answers with a bare status",
            )
            .echoes(&["a"])
            .manager("max_request_headers_kb: 8")
            .requests([get("/").header("x-big", &"v".repeat(9000)), get("/").header("x-big", &"v".repeat(7000))]),
    );
    cases.push(
        case("too-many-headers")
            .explained(
                "1 < content-length | 1 < content-type | 1 < server | 1 < body | tx= | details=",
                "the HTTP parser answers with a bare status",
            )
            .echoes(&["a"])
            .manager("common_http_protocol_options: {max_headers_count: 20}")
            .requests([(0..30).fold(get("/"), |r, n| r.header(&format!("x-{n}"), "v"))]),
    );
    cases
}

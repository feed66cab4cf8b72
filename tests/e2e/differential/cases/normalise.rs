//! What becomes of unusual paths, header names and ports before routing.

use crate::harness::{Case, case, get};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("paths-as-they-are").echoes(&["a"]).requests(
            ["//a//b", "/a/./b/../c", "/a%2fb", "/a%5cb", "/a\\b", "/%7Euser", "/a;p=1", "/a//?x=//", "/.."].map(get),
        ),
        case("normalised-paths")
            .echoes(&["a"])
            .manager("normalize_path: true")
            .requests(
                [
                    "/a/./b/../c?x=/../y",
                    "/..",
                    "/../../x",
                    "/a/..",
                    "/%7Euser",
                    "/%41",
                    "/a%2e%2e/b",
                    "/%2e%2e/x",
                    "/a\\b",
                    "//a//b",
                    "/a%2fb",
                    "/.",
                    "/a/.",
                    "/%00",
                    "/",
                    "/x?",
                ]
                .map(get),
            )
            .requests([get("/a/../b").h2()]),
        case("merged-slashes")
            .echoes(&["a"])
            .manager("merge_slashes: true")
            .requests(["//a///b", "/a//?x=//", "/a/./b", "/a/b//"].map(get)),
        case("path-with-a-fragment")
            .echoes(&["a"])
            .requests([get("/a#f")])
            .explained("1 < | a[1] > | log", "the HTTP parser drops a fragment; Envoy refuses the request"),
        case("path-beyond-ascii")
            .echoes(&["a"])
            .requests([get("/ä")])
            .explained("1 < | a[1] > | log", "bytes above 127 pass as they are; Envoy refuses the request"),
        case("path-with-a-bad-escape")
            .echoes(&["a"])
            .manager("normalize_path: true")
            .requests([get("/a%zz")])
            .explained("1 < | a[1] > | log", "what cannot be normalised is refused, never passed on as it came"),
        case("path-of-slashes")
            .echoes(&["a"])
            .manager("merge_slashes: true")
            .requests([get("///")])
            .explained("a[1] > HTTP | log", "merging leaves one slash; Envoy leaves two"),
        case("normalised-and-merged")
            .echoes(&["a"])
            .manager("normalize_path: true\nmerge_slashes: true")
            .requests(["//a/..//b", "/a//../b", "/a/.//b"].map(get)),
        case("escaped-slashes-kept")
            .echoes(&["a"])
            .manager("normalize_path: true\npath_with_escaped_slashes_action: KEEP_UNCHANGED")
            .requests(["/a%2Fb", "/a%5Cb", "/a%2f..%2fb"].map(get)),
        case("escaped-slashes-rejected")
            .explained("log", "the log names the path as the client sent it")
            .echoes(&["a"])
            .manager("path_with_escaped_slashes_action: REJECT_REQUEST")
            .requests(["/a%2Fb", "/a%5Cb", "/a%5cb", "/a?x=%2f", "/fine"].map(get))
            .requests([get("/a%2fb").h2()]),
        case("escaped-slashes-redirected")
            .explained("log", "the log names the path as the client sent it")
            .echoes(&["a"])
            .manager("path_with_escaped_slashes_action: UNESCAPE_AND_REDIRECT")
            .requests(["/a%2Fb?x=%2f", "/a%5Cb", "/fine"].map(get)),
        case("escaped-slashes-forwarded")
            .echoes(&["a"])
            .manager("normalize_path: true\npath_with_escaped_slashes_action: UNESCAPE_AND_FORWARD")
            .requests(["/a%2Fb?x=%2f", "/a%5Cb", "/a%2F..%2Fc", "/fine"].map(get)),
        case("normalised-before-routing")
            .routes(
                "
                - match: {prefix: /admin}
                  direct_response: {status: 403}
                - match: {prefix: /}
                  direct_response: {status: 200}
                ",
            )
            .manager(
                "normalize_path: true\nmerge_slashes: true\npath_with_escaped_slashes_action: UNESCAPE_AND_FORWARD",
            )
            .requests(["/x/../admin", "//admin", "/x%2f..%2fadmin", "/%61dmin", "/ADMIN", "/x/..//admin"].map(get)),
        case("underscores-allowed").echoes(&["a"]).requests([get("/").header("x_under", "1")]),
        case("underscores-rejected")
            .explained(
                "1 < content-length | 1 < content-type | 1 < body | log",
                "a bare status; the log names the request",
            )
            .echoes(&["a"])
            .manager("common_http_protocol_options: {headers_with_underscores_action: REJECT_REQUEST}")
            .requests([get("/").header("x_under", "1"), get("/").header("x-dash", "1")]),
        case("underscores-rejected-over-http2")
            .echoes(&["a"])
            .manager("common_http_protocol_options: {headers_with_underscores_action: REJECT_REQUEST}")
            .requests([get("/").h2().header("x_under", "1")])
            .explained("1 < | log", "an answer says what is wrong; Envoy resets the stream"),
        case("underscores-dropped")
            .echoes(&["a"])
            .manager("common_http_protocol_options: {headers_with_underscores_action: DROP_HEADER}")
            .requests([get("/").header("x_under", "1").header("x-dash", "1"), get("/").h2().header("x_under", "1")]),
    ]
}

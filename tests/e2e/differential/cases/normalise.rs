//! What becomes of unusual paths, header names and ports before routing.

use crate::harness::{Case, case, get};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("paths-as-they-are").echoes(&["a"]).requests(
            ["//a//b", "/a/./b/../c", "/a%2fb", "/a%5cb", "/a\\b", "/%7Euser", "/a;p=1", "/a//?x=//", "/..", "/ä"]
                .map(get),
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
                    "/a%zz",
                    "/",
                    "/x?",
                ]
                .map(get),
            )
            .requests([get("/a/../b").h2()]),
        case("merged-slashes")
            .echoes(&["a"])
            .manager("merge_slashes: true")
            .requests(["//a///b", "/a//?x=//", "///", "/a/./b", "//"].map(get)),
        case("normalised-and-merged")
            .echoes(&["a"])
            .manager("normalize_path: true\nmerge_slashes: true")
            .requests(["//a/..//b", "/a//../b", "/a/.//b"].map(get)),
        case("escaped-slashes-kept")
            .echoes(&["a"])
            .manager("normalize_path: true\npath_with_escaped_slashes_action: KEEP_UNCHANGED")
            .requests(["/a%2Fb", "/a%5Cb", "/a%2f..%2fb"].map(get)),
        case("escaped-slashes-rejected")
            .echoes(&["a"])
            .manager("path_with_escaped_slashes_action: REJECT_REQUEST")
            .requests(["/a%2Fb", "/a%5Cb", "/a%5cb", "/a?x=%2f", "/fine"].map(get))
            .requests([get("/a%2fb").h2()]),
        case("escaped-slashes-redirected")
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
            .echoes(&["a"])
            .manager("common_http_protocol_options: {headers_with_underscores_action: REJECT_REQUEST}")
            .requests([
                get("/").header("x_under", "1"),
                get("/").header("x-dash", "1"),
                get("/").h2().header("x_under", "1"),
            ]),
        case("underscores-dropped")
            .echoes(&["a"])
            .manager("common_http_protocol_options: {headers_with_underscores_action: DROP_HEADER}")
            .requests([get("/").header("x_under", "1").header("x-dash", "1"), get("/").h2().header("x_under", "1")]),
    ]
}

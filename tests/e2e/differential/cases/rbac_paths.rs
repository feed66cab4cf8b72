//! Paths that try to get around a rule: under every normalisation that Istio configures, decisions are Envoy's.

use super::rbac::{ANSWER, filter};
use crate::harness::{Case, Req, case, get, request};

/// Istio's `pathNormalization` and what it sends for each.
const MODES: [(&str, [&str; 3], &str); 4] = [
    ("none", ["paths-none-deny", "paths-none-allow", "paths-none-exact"], ""),
    ("base", ["paths-base-deny", "paths-base-allow", "paths-base-exact"], "normalize_path: true"),
    (
        "merge",
        ["paths-merge-deny", "paths-merge-allow", "paths-merge-exact"],
        "normalize_path: true\nmerge_slashes: true",
    ),
    (
        "decode",
        ["paths-decode-deny", "paths-decode-allow", "paths-decode-exact"],
        "normalize_path: true\nmerge_slashes: true\npath_with_escaped_slashes_action: UNESCAPE_AND_FORWARD",
    ),
];

/// `/admin`, or what looks like it.
const PATHS: [&str; 44] = [
    "/admin",
    "/admin/",
    "/admin/x",
    "//admin",
    "///admin",
    "/admin//x",
    "//admin//",
    "/./admin",
    "/x/../admin",
    "/x/./../admin",
    "/../admin",
    "/public/../admin",
    "/public/..;/admin",
    "/public/..;x=1/admin",
    "/public/%2e%2e/admin",
    "/public/%2E%2E/admin",
    "/public/.%2e/admin",
    "/public/%2e/%2e%2e/admin",
    "/public%2f..%2fadmin",
    "/public%2F..%2Fadmin",
    "/public/..%2fadmin",
    "/public/%252e%252e/admin",
    "/public%252f..%252fadmin",
    "/%61dmin",
    "/%41dmin",
    "/ADMIN",
    "/Admin",
    "/admin?x=1",
    "/admin?/../public",
    "/public?/../admin",
    "/public/..%5cadmin",
    "/public/..%5Cadmin",
    "/public\\..\\admin",
    "/admin.",
    "/admin..",
    "/admin/.",
    "/admin/..",
    "/admin/../public",
    "/admin;x=1",
    "/admin%20",
    "/%2fadmin",
    "/.admin",
    "/...//admin",
    "/admin%23x",
];

pub(crate) fn cases() -> Vec<Case> {
    let policy = |action: &str, matcher: &str| {
        filter(
            "envoy.filters.http.rbac",
            &format!(
                "rules: {{action: {action}, policies: {{p: {{permissions: [{{url_path: {{path: {matcher}}}}}], principals: [{{any: true}}]}}}}}}"
            ),
        )
    };
    let mut all = Vec::new();
    for (_, [deny, allow, exact], manager) in MODES {
        let made = |name, action, matcher| {
            case(name).filters(policy(action, matcher).leak()).routes(ANSWER).manager(manager).requests(PATHS.map(get))
        };
        all.push(made(deny, "DENY", "{prefix: /admin}"));
        all.push(made(allow, "ALLOW", "{prefix: /public}"));
        all.push(made(exact, "DENY", "{exact: /admin, ignore_case: true}"));
    }
    let decoding = MODES[3].2;
    let under = |name, requests: Vec<Req>| {
        case(name)
            .filters(policy("DENY", "{prefix: /admin}").leak())
            .routes(ANSWER)
            .manager(decoding)
            .requests(requests)
    };
    all.push(under(
        "paths-in-absolute-form",
        [
            "http://case.test/admin",
            "http://case.test//admin",
            "http://case.test/x/../admin",
            "http://other.test/admin?x",
            "http://case.test",
        ]
        .map(get)
        .to_vec(),
    ));
    all.push(under("paths-over-http2", PATHS.iter().filter(|p| !p.contains('\\')).map(|p| get(p).h2()).collect()));
    all.push(
        under("paths-of-options", vec![request("OPTIONS", "*"), request("OPTIONS", "/admin")])
            .explained("log OPTIONS *", "no route has it; Envoy says that the path is not absolute"),
    );
    all.push(under(
        "paths-with-parameters-behind-dots",
        [
            "/x/..;/admin",
            "/x/..;a=b/admin",
            "/x/.;/../admin",
            "/x/y/../..;/admin",
            "/.;/admin",
            "/admin/..;",
            "/a;x/../admin",
            "/x/..;/..;/admin",
        ]
        .map(get)
        .to_vec(),
    ));
    all.push(
        under(
            "paths-with-parameters-behind-escaped-dots",
            ["/x/%2e%2e;/admin", "/x/.%2e;a/admin", "/x\\..;\\admin"].map(get).to_vec(),
        )
        .explained(
            "< | log",
            "escaped dots with parameters are dots; Envoy takes their parameters for a part of the name",
        ),
    );
    all.push(
        under("paths-with-a-fragment", vec![get("/admin#x"), get("/x#/../admin")])
            .explained("< | log", "the HTTP parser drops a fragment; Envoy refuses the request"),
    );
    all.push(under("paths-with-nul", vec![get("/admin%00"), get("/%00admin")]));
    for (name, action) in
        [("paths-slashes-refused", "REJECT_REQUEST"), ("paths-slashes-redirected", "UNESCAPE_AND_REDIRECT")]
    {
        all.push(
            case(name)
                .filters(policy("DENY", "{prefix: /admin}").leak())
                .routes(ANSWER)
                .manager(
                    format!("normalize_path: true\nmerge_slashes: true\npath_with_escaped_slashes_action: {action}")
                        .leak(),
                )
                .requests(["/public/..%2fadmin", "/public%5c..%5cadmin", "/%2fadmin", "/admin%2f", "/admin"].map(get))
                .explained("log", "the log names the path as the client sent it"),
        );
    }
    all
}

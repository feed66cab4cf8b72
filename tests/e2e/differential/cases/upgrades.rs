//! Upgrades in both protocols, and what policies see of them.

use super::rbac::filter;
use crate::harness::{Case, Req, case, get, plan, status, switch};

const BOTH: &str = "upgrade_configs: [{upgrade_type: websocket}]\nhttp2_protocol_options: {allow_connect: true}";

pub(crate) fn cases() -> Vec<Case> {
    let mut all = policies();
    all.extend(forms());
    all
}

/// A websocket by HTTP/1, with any method.
fn websocket(method: &str) -> Req {
    let mut request = get("/").header("connection", "Upgrade").header("upgrade", "websocket");
    method.clone_into(&mut request.method);
    request.header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==").tunnel("hello")
}

/// A websocket by HTTP/2.
fn extended() -> Req {
    get("/").extended("websocket").header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==").tunnel("hello")
}

/// A case that tells upgrades apart by this permission.
fn policy(name: &'static str, action: &str, permission: &str) -> Case {
    let rules = format!(
        "rules: {{action: {action}, policies: {{p: {{permissions: [{permission}], principals: [{{any: true}}]}}}}}}"
    );
    case(name)
        .filters(filter("envoy.filters.http.rbac", &rules).leak())
        .http1("a", plan([switch("websocket")]))
        .manager(BOTH)
        .requests([websocket("GET"), websocket("POST")])
        .requests([extended()])
}

/// Something is denied.
fn denies(case: Case) -> Case {
    case.explained("connection: close | then closed", "the connection can go on after a refused upgrade")
        .explained("cluster=", "the log names a cluster once it is asked")
}

/// Something is allowed.
fn tunnels(case: Case) -> Case {
    case.explained("flags= | details=", "a tunnel that ends in order is no failure")
        .explained("connection: upgrade | connection: Upgrade", "the token is the same in any case")
}

/// Something over HTTP/2 is allowed.
fn tunnels_in_http2(case: Case) -> Case {
    tunnels(case)
        .explained("3 < reset INTERNAL_ERROR | 3 < complete", "a tunnel that ends in order ends its stream in order")
        .explained("HTTP/2 code=", "the log has the status that the client got, which is 200")
}

/// A POST goes on.
fn posts(case: Case) -> Case {
    case.explained("content-length: 0", "a POST without a body says so (RFC 9110 section 8.6)")
}

fn policies() -> Vec<Case> {
    let method = |name: &str| format!("{{header: {{name: ':method', string_match: {{exact: {name}}}}}}}");
    let by_header = "{header: {name: upgrade, string_match: {exact: websocket}}}";
    vec![
        posts(tunnels(denies(policy("upgrades-denied-by-get", "DENY", &method("GET"))))),
        tunnels_in_http2(denies(policy("upgrades-allowed-by-get", "ALLOW", &method("GET")))),
        tunnels_in_http2(denies(policy("upgrades-denied-by-post", "DENY", &method("POST")))),
        posts(tunnels_in_http2(policy("upgrades-denied-by-connect", "DENY", &method("CONNECT")))),
        denies(policy("upgrades-denied-by-their-header", "DENY", by_header)),
    ]
}

fn forms() -> Vec<Case> {
    vec![
        case("extended-connect-refused-by-the-upstream")
            .http1("a", plan([status(403)]))
            .manager(BOTH)
            .requests([extended()]),
        case("extended-connect-of-a-kind-that-is-not-allowed")
            .http1("a", plan([switch("other")]))
            .manager(BOTH)
            .requests([get("/").extended("other").tunnel("hello")]),
        case("extended-connect-that-nobody-allows")
            .http1("a", plan([switch("websocket")]))
            .manager("upgrade_configs: [{upgrade_type: websocket}]")
            .requests([extended()])
            .explained("1 < reset | log", "what a client may not ask for ends its stream, not the connection"),
    ]
}

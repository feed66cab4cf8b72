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
    explained(case(name))
        .filters(filter("envoy.filters.http.rbac", &rules).leak())
        .http1("a", plan([switch("websocket")]))
        .manager(BOTH)
        .requests([websocket("GET"), websocket("POST")])
        .requests([extended()])
}

fn explained(case: Case) -> Case {
    case.explained("connection: close | then closed", "the connection can go on after a refused upgrade")
        .explained("flags= | details=", "a tunnel that ends in order is no failure")
        .explained("connection: upgrade | connection: Upgrade", "the token is the same in any case")
}

fn policies() -> Vec<Case> {
    let method = |name: &str| format!("{{header: {{name: ':method', string_match: {{exact: {name}}}}}}}");
    vec![
        policy("upgrades-denied-by-get", "DENY", &method("GET")),
        policy("upgrades-allowed-by-get", "ALLOW", &method("GET")),
        policy("upgrades-denied-by-post", "DENY", &method("POST")),
        policy("upgrades-denied-by-connect", "DENY", &method("CONNECT")),
        policy(
            "upgrades-denied-by-their-header",
            "DENY",
            "{header: {name: upgrade, string_match: {exact: websocket}}}",
        ),
    ]
}

fn forms() -> Vec<Case> {
    vec![
        explained(case("extended-connect-refused-by-the-upstream"))
            .http1("a", plan([status(403)]))
            .manager(BOTH)
            .requests([extended()]),
        explained(case("extended-connect-of-a-kind-that-is-not-allowed"))
            .http1("a", plan([switch("other")]))
            .manager(BOTH)
            .requests([get("/").extended("other").tunnel("hello")]),
        case("extended-connect-that-nobody-allows")
            .http1("a", plan([switch("websocket")]))
            .manager("upgrade_configs: [{upgrade_type: websocket}]")
            .requests([extended()]),
    ]
}

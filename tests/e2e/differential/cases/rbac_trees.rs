//! Match trees in RBAC filters.

use super::rbac::rbac;
use crate::harness::{Case, get};

const HEADER: &str = "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput";
const INPUTS: &str = "type.googleapis.com/envoy.extensions.matching.common_inputs.network.v3";

fn header(name: &str) -> String {
    format!("input: {{name: h, typed_config: {{'@type': {HEADER}, header_name: '{name}'}}}}")
}

fn network(kind: &str) -> String {
    format!("input: {{name: net, typed_config: {{'@type': {INPUTS}.{kind}}}}}")
}

fn action(name: &str, action: &str) -> String {
    format!(
        "action: {{name: a, typed_config: {{'@type': type.googleapis.com/envoy.config.rbac.v3.Action, name: {name}, action: {action}}}}}"
    )
}

/// A list of predicates and what follows from them.
fn list(entries: &[(String, String)], otherwise: &str) -> String {
    let entries: Vec<String> =
        entries.iter().map(|(when, then)| format!("{{predicate: {{{when}}}, on_match: {{{then}}}}}")).collect();
    format!("matcher_list: {{matchers: [{}]}}{otherwise}", entries.join(", "))
}

fn single(input: &str, test: &str) -> String {
    format!("single_predicate: {{{input}, {test}}}")
}

fn case(name: &'static str, matcher: &str) -> Case {
    rbac(name, &format!("matcher: {{{matcher}}}"))
}

pub(crate) fn cases() -> Vec<Case> {
    let is = |name: &str, value: &str| single(&header(name), &format!("value_match: {{exact: '{value}'}}"));
    let asks = || {
        [
            get("/"),
            get("/").header("x-a", "1"),
            get("/").header("x-b", "1"),
            get("/").header("x-a", "1").header("x-b", "1"),
        ]
    };
    let otherwise = format!(", on_no_match: {{{}}}", action("rest", "ALLOW"));
    let inner = |then: &str| format!("matcher: {{{}}}", list(&[(is("x-b", "1"), action("deep", then))], ""));
    vec![
        case("tree-list", &list(&[(is("x-a", "1"), action("a", "DENY")), (is("x-b", "1"), action("b", "ALLOW"))], ""))
            .requests(asks())
            .stats("rbac"),
        case("tree-otherwise", &list(&[(is("x-a", "1"), action("a", "DENY"))], &otherwise)).requests(asks()).stats("rbac"),
        case("tree-log", &list(&[(is("x-a", "1"), action("a", "LOG")), (is("x-b", "1"), action("b", "DENY"))], &otherwise))
            .routes(
                "
                - match: {prefix: /}
                  direct_response: {status: 200}
                  response_headers_to_add:
                  - header: {key: x-hint, value: '%DYNAMIC_METADATA(envoy.common:access_log_hint)%'}
                ",
            )
            .requests(asks()),
        case("tree-empty", "").requests([get("/")]),
        case("tree-only-otherwise", &format!("on_no_match: {{{}}}", action("rest", "ALLOW"))).requests([get("/")]),
        case(
            "tree-and-or-not",
            &list(
                &[
                    (format!("and_matcher: {{predicate: [{{{}}}, {{{}}}]}}", is("x-a", "1"), is("x-b", "1")), action("both", "DENY")),
                    (format!("or_matcher: {{predicate: [{{{}}}, {{{}}}]}}", is("x-a", "1"), is("x-b", "1")), action("some", "ALLOW")),
                    (format!("not_matcher: {{{}}}", is("x-c", "1")), action("none", "DENY")),
                ],
                &otherwise,
            ),
        )
        .requests(asks())
        .requests([get("/").header("x-c", "1")]),
        case("tree-in-a-tree", &list(&[(is("x-a", "1"), inner("ALLOW")), (is("x-b", "1"), action("b", "DENY"))], &otherwise))
            .requests(asks()),
        case(
            "tree-by-exact-path",
            &format!(
                "matcher_tree: {{{}, exact_match_map: {{map: {{/a: {{{}}}, /b: {{{}}}}}}}}}",
                header(":path"),
                action("a", "ALLOW"),
                action("b", "DENY")
            ),
        )
        .requests(["/a", "/b", "/c", "/a?x", "/A"].map(get)),
        case(
            "tree-by-prefix",
            &format!(
                "matcher_tree: {{{}, prefix_match_map: {{map: {{/a: {{{}}}, /a/b: {{{}}}, /: {{{}}}}}}}}}",
                header(":path"),
                action("a", "ALLOW"),
                action("ab", "DENY"),
                action("rest", "DENY")
            ),
        )
        .requests(["/a", "/a/b", "/abc", "/a/bc", "/x"].map(get)),
        case(
            "tree-by-prefix-with-a-miss-below",
            &format!(
                "matcher_tree: {{{}, prefix_match_map: {{map: {{/a: {{{}}}, /a/b: {{matcher: {{{}}}}}}}}}}}, on_no_match: {{{}}}",
                header(":path"),
                action("a", "DENY"),
                list(&[(is("x-role", "admin"), action("admin", "ALLOW"))], ""),
                action("rest", "ALLOW")
            ),
        )
        .requests([get("/a/b").header("x-role", "admin"), get("/a/b"), get("/a"), get("/x")]),
        case(
            "tree-by-method",
            &list(&[(is(":method", "GET"), action("get", "ALLOW"))], ""),
        )
        .requests([get("/"), crate::harness::request("PUT", "/"), get("/").h2()]),
        case("tree-by-authority", &list(&[(single(&header(":authority"), "value_match: {suffix: .test}"), action("t", "ALLOW"))], ""))
            .requests([get("/"), get("/").host("a.example")]),
        case("tree-by-regex", &list(&[(single(&header("x-a"), "value_match: {safe_regex: {google_re2: {}, regex: '[0-9]+'}}"), action("number", "ALLOW"))], ""))
            .requests([get("/"), get("/").header("x-a", "12"), get("/").header("x-a", "1x"), get("/").header("x-a", "1").header("x-a", "2")]),
        case("tree-ignoring-case", &list(&[(single(&header("x-a"), "value_match: {contains: BeTa, ignore_case: true}"), action("number", "ALLOW"))], ""))
            .requests([get("/").header("x-a", "alphabetagamma"), get("/").header("x-a", "alpha")]),
        case("tree-by-port", &list(&[(single(&network("DestinationPortInput"), "value_match: {exact: '$port'}"), action("p", "ALLOW"))], ""))
            .requests([get("/")]),
        case("tree-by-address", &list(&[(single(&network("DestinationIPInput"), "value_match: {exact: 127.0.0.1}"), action("p", "ALLOW"))], ""))
            .requests([get("/")]),
        case(
            "tree-by-source-range",
            &list(
                &[(
                    single(
                        &network("SourceIPInput"),
                        "custom_match: {name: ip, typed_config: {'@type': type.googleapis.com/envoy.extensions.matching.input_matchers.ip.v3.Ip, stat_prefix: s, cidr_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]}}",
                    ),
                    action("inside", "ALLOW"),
                )],
                "",
            ),
        )
        .requests([get("/"), get("/").header("x-forwarded-for", "10.0.0.1"), get("/").header("x-forwarded-for", "11.0.0.1")]),
        case("tree-by-direct-source", &list(&[(single(&network("DirectSourceIPInput"), "value_match: {prefix: '127.'}"), action("p", "ALLOW"))], ""))
            .requests([get("/").header("x-forwarded-for", "10.0.0.1")]),
        case("tree-by-server-name", &list(&[(single(&network("ServerNameInput"), "value_match: {exact: ''}"), action("p", "ALLOW"))], &format!(", on_no_match: {{{}}}", action("none", "DENY"))))
            .requests([get("/")]),
        rbac(
            "tree-in-the-shadow",
            &format!("shadow_matcher: {{{}}}, shadow_rules_stat_prefix: dry_", list(&[(is("x-a", "1"), action("a", "ALLOW"))], "")),
        )
        .requests(asks())
        .stats("rbac"),
    ]
}

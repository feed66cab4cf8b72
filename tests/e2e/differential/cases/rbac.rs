//! Role based access control of requests: actions, permissions, principals, shadow rules, overrides, statistics.

use crate::harness::{Case, case, get, grpc_call, post, request};

pub(super) const RBAC: &str = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC";
pub(super) const ANSWER: &str = "- match: {prefix: /}\n  direct_response: {status: 200}";

/// A filter of this name with these fields.
pub(super) fn filter(name: &str, fields: &str) -> String {
    format!("- name: {name}\n  typed_config: {{'@type': {RBAC}, {fields}}}\n")
}

/// A case whose only filter has these fields; what passes is answered at once.
pub(super) fn rbac(name: &'static str, fields: &str) -> Case {
    let yaml = filter("envoy.filters.http.rbac", fields).leak();
    case(name).filters(yaml).routes(ANSWER)
}

/// A case with one policy of these permissions for everybody.
fn permits(name: &'static str, permissions: &str) -> Case {
    rbac(name, &format!("rules: {{policies: {{p: {{permissions: [{permissions}], principals: [{{any: true}}]}}}}}}"))
}

/// A case with one policy for these principals.
pub(super) fn principals(name: &'static str, principals: &str) -> Case {
    rbac(name, &format!("rules: {{policies: {{p: {{permissions: [{{any: true}}], principals: [{principals}]}}}}}}"))
}

pub(crate) fn cases() -> Vec<Case> {
    let mut all = actions();
    all.extend(rules());
    all.extend(reported());
    all
}

fn actions() -> Vec<Case> {
    const TWO: &str = "policies: {
      'b second': {permissions: [{url_path: {path: {prefix: /a}}}], principals: [{any: true}]},
      a-first: {permissions: [{url_path: {path: {prefix: /a/b}}}], principals: [{any: true}]}}";
    let ask = || ["/a", "/a/b", "/c", "/"].map(get);
    vec![
        rbac("rbac-allow", &format!("rules: {{action: ALLOW, {TWO}}}")).requests(ask()).stats("rbac"),
        rbac("rbac-deny", &format!("rules: {{action: DENY, {TWO}}}")).requests(ask()).stats("rbac"),
        rbac("rbac-log", &format!("rules: {{action: LOG, {TWO}}}")).requests(ask()).stats("rbac"),
        rbac("rbac-nothing-allowed", "rules: {}").requests([get("/"), get("/").h2(), grpc_call("/s/m"), post("/", "x")]),
        rbac("rbac-nothing-denied", "rules: {action: DENY}").requests([get("/")]),
        rbac("rbac-nothing-said", "rules_stat_prefix: x").requests([get("/")]),
        rbac("rbac-head-is-refused", "rules: {}").requests([request("HEAD", "/"), request("OPTIONS", "/")]),
        case("rbac-one-after-the-other")
            .filters(
                (filter("one", &format!("rules: {{action: DENY, {TWO}}}"))
                    + &filter(
                        "two",
                        "rules: {policies: {c: {permissions: [{url_path: {path: {exact: /c}}}], principals: [{any: true}]}}}",
                    ))
                .leak(),
            )
            .routes(ANSWER)
            .requests(ask()),
        rbac("rbac-by-route", "rules: {policies: {nobody: {permissions: [{url_path: {path: {exact: /x}}}], principals: [{any: true}]}}}")
            .routes(
                "
                - match: {prefix: /off}
                  direct_response: {status: 200}
                  typed_per_filter_config:
                    envoy.filters.http.rbac: {'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}
                - match: {prefix: /none}
                  direct_response: {status: 200}
                  typed_per_filter_config:
                    envoy.filters.http.rbac: {'@type': type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute}
                - match: {prefix: /own}
                  direct_response: {status: 200}
                  typed_per_filter_config:
                    envoy.filters.http.rbac:
                      '@type': type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute
                      rbac: {rules: {action: DENY, policies: {own: {permissions: [{header: {name: x-bad}}], principals: [{any: true}]}}}}
                - match: {prefix: /}
                  direct_response: {status: 200}
                ",
            )
            .requests(["/off", "/none", "/own", "/x", "/y"].map(get))
            .requests([get("/own").header("x-bad", "1")])
            .stats("rbac"),
        case("rbac-switched-on-by-route")
            .filters(
                "- name: envoy.filters.http.rbac\n  disabled: true\n  typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC, rules: {}}",
            )
            .routes(
                "
                - match: {prefix: /on}
                  direct_response: {status: 200}
                  typed_per_filter_config:
                    envoy.filters.http.rbac: {'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig, config: {'@type': type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute, rbac: {rules: {}}}}
                - match: {prefix: /}
                  direct_response: {status: 200}
                ",
            )
            .requests([get("/on"), get("/off")]),
    ]
}

fn rules() -> Vec<Case> {
    vec![
        permits("rbac-methods", "{header: {name: ':method', string_match: {exact: GET}}}, {header: {name: ':method', string_match: {exact: PUT}}}")
            .requests([get("/"), request("PUT", "/"), post("/", "x"), request("DELETE", "/")]),
        permits("rbac-hosts", "{header: {name: ':authority', string_match: {exact: a.test, ignore_case: true}}}, {header: {name: host, string_match: {suffix: .b.test}}}")
            .requests(["a.test", "A.Test", "a.test:80", "x.b.test", "b.test", "a.test."].map(|host| get("/").host(host)))
            .requests([get("/").host("a.test").h2()]),
        permits("rbac-headers", "{header: {name: x-a, string_match: {exact: one}}}, {header: {name: x-b}}, {header: {name: x-n, range_match: {start: 5, end: 9}}}, {header: {name: x-r, string_match: {safe_regex: {regex: 'a.c'}}}}")
            .requests([
                get("/").header("x-a", "one"),
                get("/").header("x-a", "One"),
                get("/").header("x-a", "one,two"),
                get("/").header("x-b", ""),
                get("/").header("x-n", "8"),
                get("/").header("x-n", "9"),
                get("/").header("x-r", "abc"),
                get("/").header("x-r", "xabcx"),
                get("/"),
            ]),
        permits("rbac-header-several-times", "{header: {name: x-a, string_match: {exact: one}}}").requests([
            get("/").header("x-a", "one").header("x-a", "two"),
            get("/").header("x-a", "two").header("x-a", "one"),
            get("/").header("x-a", "two").header("x-a", "three"),
        ]),
        rbac("rbac-denied-header-several-times", "rules: {action: DENY, policies: {p: {permissions: [{header: {name: x-a, string_match: {exact: one}}}], principals: [{any: true}]}}}")
            .requests([
                get("/").header("x-a", "one").header("x-a", "two"),
                get("/").header("x-a", "two").header("x-a", "one"),
                get("/").header("x-a", "two"),
            ]),
        permits("rbac-header-that-is-not", "{header: {name: x-a, string_match: {exact: one}, invert_match: true}}").requests([
            get("/"),
            get("/").header("x-a", "one"),
            get("/").header("x-a", "two"),
            get("/").header("x-a", "one").header("x-a", "two"),
        ]),
        permits("rbac-header-missing-is-empty", "{header: {name: x-a, string_match: {exact: ''}, treat_missing_header_as_empty: true}}")
            .requests([get("/"), get("/").header("x-a", ""), get("/").header("x-a", "two")]),
        permits("rbac-header-absent", "{header: {name: x-a, present_match: false}}")
            .requests([get("/"), get("/").header("x-a", "")]),
        permits("rbac-path-header-has-the-query", "{header: {name: ':path', string_match: {exact: '/a?b=c'}}}")
            .requests(["/a?b=c", "/a", "/a?b=d"].map(get)),
        permits("rbac-paths", "{url_path: {path: {exact: /a}}}, {url_path: {path: {prefix: /p/}}}, {url_path: {path: {suffix: .css}}}, {url_path: {path: {contains: -in-}}}, {url_path: {path: {safe_regex: {regex: '/r/[0-9]+'}}}}, {url_path: {path: {exact: /case, ignore_case: true}}}")
            .requests(
                ["/a", "/a?x", "/a/", "/A", "/p", "/p/", "/p/x", "/x.css", "/x.css?v", "/x.cssx", "/q-in-q", "/r/12", "/r/1x", "/x/r/1", "/CASE"].map(get),
            ),
        permits("rbac-path-templates", "{uri_template: {name: t, typed_config: {'@type': type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig, path_template: '/v/{x}/*/end/{rest=**}'}}}")
            .requests(["/v/1/2/end/3/4", "/v/1/2/end/", "/v/1/2/end", "/v/1/end/3", "/v/1/2/end/3?q", "/w/1/2/end/3"].map(get)),
        permits("rbac-and-or-not", "{and_rules: {rules: [{url_path: {path: {prefix: /a}}}, {or_rules: {rules: [{header: {name: x-one}}, {header: {name: x-two}}]}}, {not_rule: {header: {name: x-not}}}]}}")
            .requests([
                get("/a").header("x-one", "1"),
                get("/a").header("x-two", "1"),
                get("/a"),
                get("/b").header("x-one", "1"),
                get("/a").header("x-one", "1").header("x-not", "1"),
            ]),
        permits("rbac-destination", "{destination_ip: {address_prefix: 127.0.0.0, prefix_len: 8}}").requests([get("/")]),
        permits("rbac-other-destination", "{destination_ip: {address_prefix: 10.0.0.0, prefix_len: 8}}").requests([get("/")]),
        permits("rbac-destination-port", "{destination_port: $port}").requests([get("/")]),
        permits("rbac-other-destination-port", "{destination_port: 1}").requests([get("/")]),
        permits("rbac-destination-ports", "{destination_port_range: {start: 1, end: 65536}}").requests([get("/")]),
        permits("rbac-port-range-ends-before", "{destination_port_range: {start: 1, end: $port}}").requests([get("/")]),
        permits("rbac-no-server-name", "{requested_server_name: {exact: ''}}").requests([get("/")]),
        permits("rbac-server-name-of-plaintext", "{requested_server_name: {exact: case.test}}").requests([get("/")]),
        permits("rbac-route-metadata", "{sourced_metadata: {metadata_source: ROUTE, metadata_matcher: {filter: team, path: [{key: name}], value: {string_match: {exact: red}}}}}")
            .routes(
                "
                - match: {prefix: /red}
                  direct_response: {status: 200}
                  metadata: {filter_metadata: {team: {name: red}}}
                - match: {prefix: /blue}
                  direct_response: {status: 200}
                  metadata: {filter_metadata: {team: {name: blue}}}
                - match: {prefix: /}
                  direct_response: {status: 200}
                ",
            )
            .requests(["/red", "/blue", "/none"].map(get)),
        permits("rbac-metadata-nobody-set", "{metadata: {filter: f, path: [{key: k}], value: {string_match: {exact: v}}}}")
            .requests([get("/")]),
        permits("rbac-inverted-metadata", "{metadata: {filter: f, path: [{key: k}], value: {string_match: {exact: v}}, invert: true}}")
            .requests([get("/")]),
        principals("rbac-clients", "{remote_ip: {address_prefix: 10.0.0.0, prefix_len: 8}}")
            .manager("use_remote_address: false\nxff_num_trusted_hops: 0")
            .requests([
                get("/"),
                get("/").header("x-forwarded-for", "10.1.2.3"),
                get("/").header("x-forwarded-for", "10.1.2.3, 11.0.0.1"),
                get("/").header("x-forwarded-for", "11.0.0.1, 10.1.2.3"),
                get("/").header("x-forwarded-for", "::1"),
                get("/").header("x-forwarded-for", "nonsense"),
            ]),
        principals("rbac-peers", "{direct_remote_ip: {address_prefix: 127.0.0.1, prefix_len: 32}}")
            .requests([get("/"), get("/").header("x-forwarded-for", "10.1.2.3")]),
        principals("rbac-sources", "{source_ip: {address_prefix: 127.0.0.0, prefix_len: 8}}")
            .requests([get("/"), get("/").header("x-forwarded-for", "10.1.2.3")]),
        principals("rbac-other-peers", "{direct_remote_ip: {address_prefix: 10.0.0.0, prefix_len: 8}}")
            .requests([get("/").header("x-forwarded-for", "10.1.2.3")]),
        principals("rbac-principals-by-request", "{and_ids: {ids: [{header: {name: x-user, string_match: {exact: me}}}, {not_id: {url_path: {path: {prefix: /secret}}}}]}}")
            .requests([
                get("/").header("x-user", "me"),
                get("/secret").header("x-user", "me"),
                get("/"),
            ]),
        principals("rbac-authenticated-in-plaintext", "{authenticated: {}}").requests([get("/")]),
        principals("rbac-named-in-plaintext", "{authenticated: {principal_name: {exact: ''}}}").requests([get("/")]),
        principals("rbac-not-authenticated", "{not_id: {authenticated: {principal_name: {exact: a}}}}").requests([get("/")]),
    ]
}

/// What is told of decisions beside the answer.
fn reported() -> Vec<Case> {
    const SHADOWED: &str = "
    - match: {prefix: /}
      direct_response: {status: 200}
      response_headers_to_add:
      - header: {key: x-result, value: '%DYNAMIC_METADATA(envoy.filters.http.rbac:dry_shadow_engine_result)%'}
      - header: {key: x-policy, value: '%DYNAMIC_METADATA(envoy.filters.http.rbac:dry_shadow_effective_policy_id)%'}
      - header: {key: x-enforced, value: '%DYNAMIC_METADATA(envoy.filters.http.rbac:main_enforced_engine_result)%'}
      - header: {key: x-hint, value: '%DYNAMIC_METADATA(envoy.common:access_log_hint)%'}
    ";
    let shadow = |action: &str, more: &str| {
        format!(
            "{more} shadow_rules_stat_prefix: dry_, rules_stat_prefix: main_, shadow_rules: {{action: {action}, policies: {{'the one': {{permissions: [{{url_path: {{path: {{prefix: /a}}}}}}], principals: [{{any: true}}]}}}}}}"
        )
    };
    let ask = || ["/a", "/b"].map(get);
    vec![
        rbac("rbac-shadow-allow", &shadow("ALLOW", "")).routes(SHADOWED).requests(ask()).stats("rbac"),
        rbac("rbac-shadow-deny", &shadow("DENY", "")).routes(SHADOWED).requests(ask()).stats("rbac"),
        rbac("rbac-shadow-log", &shadow("LOG", "")).routes(SHADOWED).requests(ask()).stats("rbac"),
        rbac("rbac-enforced-and-shadow", &shadow("ALLOW", "rules: {action: DENY, policies: {x: {permissions: [{url_path: {path: {exact: /b}}}], principals: [{any: true}]}}},"))
            .routes(SHADOWED)
            .requests(ask())
            .stats("rbac"),
        rbac("rbac-policies-counted", &shadow("ALLOW", "track_per_rule_stats: true, rules: {action: LOG, policies: {x: {permissions: [{url_path: {path: {exact: /b}}}], principals: [{any: true}]}}},"))
            .routes(SHADOWED)
            .requests(ask())
            .stats("rbac"),
        case("rbac-reads-a-shadow-result")
            .filters(
                (filter("first", &shadow("DENY", ""))
                    + &filter("second", "rules: {action: DENY, policies: {p: {permissions: [{metadata: {filter: envoy.filters.http.rbac, path: [{key: dry_shadow_engine_result}], value: {string_match: {exact: denied}}}}], principals: [{any: true}]}}}"))
                .leak(),
            )
            .routes(ANSWER)
            .requests(ask()),
        rbac("rbac-details-with-blanks", "rules: {action: DENY, policies: {'a policy of two  blanks': {permissions: [{any: true}], principals: [{any: true}]}}}")
            .requests([get("/")]),
    ]
}

use std::time::Duration;

use http::StatusCode;

use super::*;
use crate::ir::{
    matcher::{HeaderRule, QueryRule},
    route::{
        Action, AppendAction, BodyBuffer, Forward, HashCookie, HashPolicy, HostRewrite, PathMatch, PathRewrite, Target,
    },
};

pub(super) fn forward(fields: &str) -> Arc<Forward> {
    let routes = the_routes(&route_of(&format!("route: {{{fields}}}")));
    match &routes.virtual_hosts[0].routes[0].action {
        Action::Forward(f) => Arc::clone(f),
        other => panic!("{other:?}"),
    }
}

fn matching(criteria: &str) -> String {
    routes_of(&format!("{{name: v, domains: ['*'], routes: [{{match: {{{criteria}}}, route: {{cluster: c}}}}]}}"))
}

#[test]
fn forward_defaults_are_envoys() {
    let f = forward("cluster: c");
    assert_eq!(f.target, Target::Cluster("c".into()));
    assert_eq!(f.timeout, Some(Duration::from_secs(15)));
    assert_eq!((f.idle_timeout, f.stream.as_deref(), f.grpc_timeout_max), (None, None, None));
    assert_eq!(f.cluster_not_found, StatusCode::SERVICE_UNAVAILABLE);
    assert!(f.retry.is_none() && f.path_rewrite.is_none() && f.host_rewrite.is_none() && !f.high_priority);
}

#[test]
fn forward_fields_arrive() {
    let f = forward(
        "weighted_clusters: {clusters: [{name: a, weight: 9, host_rewrite_literal: h}, {name: b, weight: 1}]}, \
         prefix_rewrite: /new, host_rewrite_header: X-Host, append_x_forwarded_host: true, priority: HIGH, \
         cluster_not_found_response_code: NOT_FOUND, upgrade_configs: [{upgrade_type: WebSocket, enabled: false}], \
         hash_policy: [{header: {header_name: X-H}, terminal: true}, {cookie: {name: k, ttl: 5s, path: /}}, \
         {connection_properties: {source_ip: true}}, {query_parameter: {name: q}}]",
    );
    let Target::Weighted(targets) = &f.target else { panic!("{f:?}") };
    assert_eq!((&*targets[0].cluster, targets[0].weight, targets[1].weight), ("a", 9, 1));
    assert_eq!(targets[0].host_rewrite.as_deref(), Some("h"));
    assert_eq!(f.path_rewrite, Some(PathRewrite::Prefix("/new".into())));
    assert!(matches!(&f.host_rewrite, Some(HostRewrite::Header(name)) if name == "x-host"));
    assert!(f.append_forwarded_host && f.high_priority);
    assert_eq!((f.cluster_not_found, &f.upgrades[0]), (StatusCode::NOT_FOUND, &(Box::from("websocket"), false)));
    assert!(matches!(&f.hash_policy[0], HashPolicy::Header { terminal: true, .. }));
    assert!(matches!(&f.hash_policy[1], HashPolicy::Cookie(HashCookie { ttl: Some(5), .. })));
    assert_eq!(f.hash_policy.len(), 4);
    let f =
        forward("cluster_header: X-Cluster, regex_rewrite: {pattern: {regex: '^/a/(.*)$'}, substitution: '/$/\\1'}");
    assert!(matches!(&f.target, Target::Header(name) if name == "x-cluster"));
    let Some(PathRewrite::Regex { pattern, substitution }) = &f.path_rewrite else { panic!("{f:?}") };
    assert_eq!(pattern.replace_all("/a/b", substitution), "/$/b");
}

#[test]
fn matches_arrive() {
    let first = |yaml: &str| the_routes(yaml).virtual_hosts[0].routes[0].matches.clone();
    for (criteria, path) in [
        ("prefix: /A", PathMatch::Prefix("/A".into())),
        ("path: /A, case_sensitive: false", PathMatch::Exact("/a".into())),
        ("path_separated_prefix: /A", PathMatch::SeparatedPrefix("/A".into())),
        ("connect_matcher: {}", PathMatch::Connect),
    ] {
        assert_eq!(first(&matching(criteria)).path, path, "{criteria}");
    }
    let m = first(&matching("safe_regex: {google_re2: {}, regex: '/a|/b'}"));
    let PathMatch::Regex(regex) = &m.path else { panic!("{m:?}") };
    assert!(regex.is_match("/b") && !regex.is_match("/bc") && !regex.is_match("x/b"));
    let m = first(&matching(
        "prefix: /, grpc: {}, runtime_fraction: {default_value: {numerator: 5, denominator: MILLION}}, \
         headers: [{name: X-A, string_match: {exact: V, ignore_case: true}, invert_match: true}, {name: Host, present_match: false}, \
         {name: ':method', range_match: {start: 1, end: 2}}, {name: b, prefix_match: p, treat_missing_header_as_empty: true}], \
         query_parameters: [{name: q, string_match: {suffix: s}}, {name: p, present_match: true}]",
    ));
    assert!(m.grpc && m.case_sensitive);
    assert_eq!(m.fraction.map(|f| (f.numerator, f.denominator)), Some((5, 1_000_000)));
    assert_eq!(m.headers.iter().map(|h| &*h.name).collect::<Vec<_>>(), ["x-a", ":authority", ":method", "b"]);
    assert!(m.headers[0].invert && !m.headers[0].matches(Some("v")) && m.headers[0].matches(Some("w")));
    assert_eq!(m.headers[1].rule, HeaderRule::Present(false));
    assert_eq!(m.headers[2].rule, HeaderRule::Range { start: 1, end: 2 });
    assert!(m.headers[3].treat_missing_as_empty);
    assert!(m.query[0].matches(Some("as")) && !m.query[0].matches(Some("other")));
    assert_eq!(m.query[1].rule, QueryRule::Present(true));
}

#[test]
fn header_mutations_arrive() {
    let routes = the_routes(&route_of(
        "route: {cluster: c}, request_headers_to_add: [{header: {key: X-A, value: '%REQ(b)%'}}, \
         {header: {key: Host, value: h}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}, {header: {key: c, raw_value: ZA==}, append: false}], \
         request_headers_to_remove: [X-B], response_headers_to_add: [{header: {key: d, value: ''}, append_action: ADD_IF_ABSENT, keep_empty_value: true}]",
    ));
    let h = &routes.virtual_hosts[0].routes[0].headers;
    let adds: Vec<_> = h.request_add.iter().map(|a| (a.name.as_str(), a.action)).collect();
    assert_eq!(
        adds,
        [
            ("x-a", AppendAction::AppendIfExistsOrAdd),
            ("host", AppendAction::OverwriteIfExistsOrAdd),
            ("c", AppendAction::OverwriteIfExistsOrAdd),
        ]
    );
    assert_eq!(h.request_add[2].value.literal(), Some("d"));
    assert_eq!(h.request_remove[0], "x-b");
    assert!(h.response_add[0].keep_empty_value && h.response_add[0].action == AppendAction::AddIfAbsent);
}

#[test]
fn redirects_and_direct_responses_arrive() {
    let action = |fields: &str| the_routes(&route_of(fields)).virtual_hosts[0].routes[0].action.clone();
    let Action::Redirect(r) = action(
        "redirect: {https_redirect: true, host_redirect: h, port_redirect: 8443, path_redirect: /p, response_code: TEMPORARY_REDIRECT, strip_query: true}",
    ) else {
        panic!()
    };
    assert!(r.https && r.strip_query);
    assert_eq!(
        (r.status, r.host.as_deref(), r.port, r.path.as_deref()),
        (StatusCode::TEMPORARY_REDIRECT, Some("h"), Some(8443), Some("/p"))
    );
    let Action::Redirect(r) = action("redirect: {scheme_redirect: http, prefix_rewrite: /q}") else { panic!() };
    assert_eq!((r.status, r.port, r.scheme.as_deref()), (StatusCode::MOVED_PERMANENTLY, None, Some("http")));
    assert_eq!(r.rewrite, Some(PathRewrite::Prefix("/q".into())));
    let Action::Direct(d) = action("direct_response: {status: 418, body: {inline_string: tea}}") else { panic!() };
    assert_eq!((d.status.as_u16(), &d.body[..]), (418, &b"tea"[..]));
    assert_eq!(action("non_forwarding_action: {}"), Action::NonForwarding);
}

#[test]
fn virtual_hosts_arrive() {
    let r = the_routes(&format!(
        "{{\"@type\": {T}/{ROUTES}, name: r, ignore_port_in_host_matching: true, most_specific_header_mutations_wins: true, \
         virtual_hosts: [{{name: a, domains: [A.b, '*.C', 'd.*'], require_tls: ALL, include_request_attempt_count: true, \
         retry_policy: {{}}, hedge_policy: {{hedge_on_per_try_timeout: true}}, include_is_timeout_retry_header: true, \
         request_body_buffer_limit: 9}}, {{name: b, domains: ['*']}}]}}"
    ));
    assert!(r.ignore_port_in_host && r.most_specific_wins);
    let v = &r.virtual_hosts[0];
    assert_eq!(v.domains, [Box::from("a.b"), Box::from("*.c"), Box::from("d.*")]);
    assert!(v.require_tls && v.attempt_count_in_request && v.retry.is_some());
    assert!(v.hedge && v.timeout_retry_header && v.body_buffer.as_deref() == Some(&BodyBuffer::Exactly(9)));
}

#[test]
fn refusals() {
    let r = |fields: &str| route_of(&format!("route: {{{fields}}}"));
    let p = |rest: &str| at_route(&format!("route.{rest}"));
    let hosts = |list: &str| routes_of(list);
    let add =
        |header: &str| route_of(&format!("route: {{cluster: c}}, request_headers_to_add: [{{header: {{{header}}}}}]"));
    let top = |fields: &str| format!("{{\"@type\": {T}/{ROUTES}, name: r, {fields}}}");
    let config = |kind: &str, fields: &str| {
        route_of(&format!("route: {{cluster: c}}, typed_per_filter_config: {{x: {{\"@type\": {T}/{kind}, {fields}}}}}"))
    };
    let per_route = at_route("typed_per_filter_config[\"x\"]");
    refused(&[
        (hosts("{name: v, domains: []}"), "virtual_hosts[0].domains", "must not be empty"),
        (hosts("{name: v, domains: [a, A]}"), "virtual_hosts[0].domains[1]", "unique"),
        (hosts("{name: v, domains: ['*']}, {name: w, domains: ['*']}"), "virtual_hosts[1].domains[0]", "unique"),
        (hosts("{name: v, domains: ['a*b']}"), "virtual_hosts[0].domains[0]", "wildcard"),
        (
            hosts("{name: v, domains: ['*'], require_tls: EXTERNAL_ONLY}"),
            "virtual_hosts[0].require_tls",
            "EXTERNAL_ONLY",
        ),
        (top("internal_only_headers: [a]"), "internal_only_headers", "not supported"),
        (top("vhds: {}"), "vhds", "not supported"),
        (matching(""), &at_route("match.path_specifier"), "is required"),
        (matching("safe_regex: {regex: 'a('}"), &at_route("match.safe_regex.regex"), "unclosed"),
        (matching("safe_regex: {regex: 'a)|(b'}"), &at_route("match.safe_regex.regex"), "unopened"),
        (
            matching("safe_regex: {regex: '((a{1,100}){1,100}){1,100}'}"),
            &at_route("match.safe_regex.regex"),
            "size limit",
        ),
        (matching("path_separated_prefix: /a/"), &at_route("match.path_separated_prefix"), "at the end"),
        (matching("prefix: /, dynamic_metadata: [{filter: f}]"), &at_route("match.dynamic_metadata"), "not supported"),
        (matching("prefix: /, filter_state: [{key: f}]"), &at_route("match.filter_state"), "not supported"),
        (matching("prefix: /, cookies: [{name: a}]"), &at_route("match.cookies[0].string_match"), "is required"),
        (
            matching("prefix: /, cookies: [{name: '', string_match: {exact: b}}]"),
            &at_route("match.cookies[0].name"),
            "must not be empty",
        ),
        (matching("prefix: /, headers: [{name: ''}]"), &at_route("match.headers[0].name"), "must not be empty"),
        (matching("prefix: /, headers: [{name: 'a b'}]"), &at_route("match.headers[0].name"), "not a header name"),
        (
            matching("prefix: /, headers: [{name: a, string_match: {ignore_case: true, safe_regex: {regex: a}}}]"),
            &at_route("match.headers[0].string_match.ignore_case"),
            "(?i)",
        ),
        (
            matching("prefix: /, headers: [{name: a, string_match: {}}]"),
            &at_route("match.headers[0].string_match.match_pattern"),
            "is required",
        ),
        (matching("prefix: /, runtime_fraction: {}"), &at_route("match.runtime_fraction.default_value"), "is required"),
        (route_of(""), &at_route("action"), "is required"),
        (r(""), &p("cluster_specifier"), "is required"),
        (r("cluster: ''"), &p("cluster"), "must not be empty"),
        (r("weighted_clusters: {clusters: []}"), &p("weighted_clusters.clusters"), "sum"),
        (r("weighted_clusters: {clusters: [{name: a, weight: 0}]}"), &p("weighted_clusters.clusters"), "sum"),
        (
            r("weighted_clusters: {clusters: [{name: a, cluster_header: h, weight: 1}]}"),
            &p("weighted_clusters.clusters[0].cluster_header"),
            "excludes",
        ),
        (r("cluster_header: 'a b'"), &p("cluster_header"), "not a header name"),
        (r("cluster: c, timeout: -1s"), &p("timeout"), "negative"),
        (r("cluster: c, request_mirror_policies: [{}]"), &p("request_mirror_policies[0].cluster"), "required"),
        (
            r("cluster: c, request_mirror_policies: [{cluster: m, cluster_header: h}]"),
            &p("request_mirror_policies[0].cluster_header"),
            "excludes",
        ),
        (r("cluster: c, prefix_rewrite: /a, regex_rewrite: {pattern: {regex: a}}"), &p("regex_rewrite"), "excludes"),
        (
            r("cluster: c, regex_rewrite: {pattern: {regex: a}, substitution: '\\1'}"),
            &p("regex_rewrite.substitution"),
            "no group 1",
        ),
        (
            r("cluster: c, regex_rewrite: {pattern: {regex: a}, substitution: 'x\\'}"),
            &p("regex_rewrite.substitution"),
            "digit",
        ),
        (r("cluster: c, prefix_rewrite: \"/a\\r\\nb: c\""), &p("prefix_rewrite"), "control"),
        (r("cluster: c, host_rewrite_literal: \"a\\r\\nb\""), &p("host_rewrite_literal"), "not a header value"),
        (
            r("cluster: c, upgrade_configs: [{upgrade_type: CONNECT, connect_config: {}}]"),
            &p("upgrade_configs[0].connect_config"),
            "not supported",
        ),
        (
            r("cluster: c, retry_policy: {rate_limited_retry_back_off: {}}"),
            &p("retry_policy.rate_limited_retry_back_off.reset_headers"),
            "must not be empty",
        ),
        (
            r("cluster: c, retry_policy: {retriable_request_headers: [{name: 'a b'}]}"),
            &p("retry_policy.retriable_request_headers[0].name"),
            "not a header name",
        ),
        (
            route_of("route: {cluster: c}, per_request_buffer_limit_bytes: 1, request_body_buffer_limit: 2"),
            &at_route("per_request_buffer_limit_bytes"),
            "excludes",
        ),
        (
            r("cluster: c, retry_policy: {retry_back_off: {base_interval: 2s, max_interval: 1s}}"),
            &p("retry_policy.retry_back_off.max_interval"),
            "smaller",
        ),
        (route_of("direct_response: {status: 99}"), &at_route("direct_response.status"), "between"),
        (
            route_of("direct_response: {status: 200, body: {filename: /etc/passwd}}"),
            &at_route("direct_response.body.filename"),
            "inline",
        ),
        (
            route_of(&format!("direct_response: {{status: 200, body: {{inline_string: {}}}}}", "x".repeat(5000))),
            &at_route("direct_response.body"),
            "5000",
        ),
        (route_of("redirect: {port_redirect: 99999}"), &at_route("redirect.port_redirect"), "not a port"),
        (route_of("filter_action: {}"), &at_route("filter_action"), "not supported"),
        (add("key: ':path', value: /"), &at_route("request_headers_to_add[0].header.key"), "pseudo headers"),
        (
            add("key: a, value: '%NOPE%'"),
            &at_route("request_headers_to_add[0].header.value"),
            "unknown operator `NOPE`",
        ),
        (add("key: a, value: \"b\\r\\nc\""), &at_route("request_headers_to_add[0].header.value"), "control"),
        (add("key: '', value: b"), &at_route("request_headers_to_add[0].header.key"), "must not be empty"),
        (
            route_of("route: {cluster: c}, request_headers_to_remove: [host]"),
            &at_route("request_headers_to_remove[0]"),
            "host may not",
        ),
        (
            route_of(
                "route: {cluster: c}, request_headers_to_add: [{header: {key: a, value: b}, append: true, append_action: ADD_IF_ABSENT}]",
            ),
            &at_route("request_headers_to_add[0].append"),
            "exclude",
        ),
        (config("envoy.extensions.filters.http.lua.v3.LuaPerRoute", ""), &per_route, "LuaPerRoute"),
        (
            config("envoy.config.route.v3.FilterConfig", &format!("config: {{\"@type\": {T}/a.Lua}}")),
            &format!("{per_route}.config"),
            "a.Lua",
        ),
    ]);
}

#[test]
fn notes() {
    let r = |fields: &str| route_of(&format!("route: {{{fields}}}"));
    let p = |rest: &str| at_route(&format!("route.{rest}"));
    noted(&[
        (route_of("route: {cluster: c}, stat_prefix: s"), &at_route("stat_prefix"), NoteKind::Harmless),
        (
            r("cluster: c, hash_policy: [{filter_state: {key: k}}]"),
            &p("hash_policy[0].filter_state"),
            NoteKind::Unsupported,
        ),
        (
            route_of("route: {cluster: c}, request_headers_to_remove: [Content-Length]"),
            &at_route("request_headers_to_remove[0]"),
            NoteKind::Unsupported,
        ),
        (
            r("weighted_clusters: {total_weight: 100, clusters: [{name: a, weight: 1}]}"),
            &p("weighted_clusters.total_weight"),
            NoteKind::Deprecated,
        ),
        (r("cluster: c, retry_policy: {retry_on: odd}"), &p("retry_policy.retry_on"), NoteKind::Unsupported),
        (r("cluster: c, max_grpc_timeout: 1s"), &p("max_grpc_timeout"), NoteKind::Deprecated),
        (r("cluster: c, max_grpc_timeout: 1s, max_stream_duration: {}"), &p("max_grpc_timeout"), NoteKind::Unsupported),
        (
            r("cluster: c, retry_policy: {retry_options_predicates: [{name: some}]}"),
            &p("retry_policy.retry_options_predicates"),
            NoteKind::Unsupported,
        ),
        (
            r("cluster: c, retry_policy: {retry_on: http3-post-connect-failure}"),
            &p("retry_policy.retry_on"),
            NoteKind::Harmless,
        ),
        (
            r("cluster: c, hedge_policy: {initial_requests: 2}"),
            &p("hedge_policy.initial_requests"),
            NoteKind::Unsupported,
        ),
        (
            r("cluster: c, internal_redirect_action: HANDLE_INTERNAL_REDIRECT"),
            &p("internal_redirect_action"),
            NoteKind::Deprecated,
        ),
        (
            matching("prefix: /, headers: [{name: a, exact_match: b}]"),
            &at_route("match.headers[0].exact_match"),
            NoteKind::Deprecated,
        ),
    ]);
}

#[test]
fn equal_notes_at_many_places_are_one() {
    let route = "{match: {prefix: /}, route: {cluster: c}, stat_prefix: s}";
    let many = vec![route; 300].join(", ");
    let (_, notes) = accepted(&routes_of(&format!("{{name: v, domains: ['*'], routes: [{many}]}}")));
    assert_eq!(notes.len(), 1);
    let note = notes.iter().next().unwrap();
    assert_eq!((note.path.as_str(), note.count), ("virtual_hosts[0].routes[0].stat_prefix", 300));
}

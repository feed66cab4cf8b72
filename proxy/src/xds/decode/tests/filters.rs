//! HTTP filters and what routes override of them.

use std::time::Duration;

use http::StatusCode;

use super::*;
use crate::ir::{
    Fraction,
    filters::{AbortKind, Fault, Mutation, QueryMutation, Setting},
    http::FilterKind,
    listener::Terminal,
    route::{Action, Target},
};

const FAULT: &str = "envoy.extensions.filters.http.fault.v3.HTTPFault";
const CORS: &str = "envoy.extensions.filters.http.cors.v3.CorsPolicy";
const FILTER_CONFIG: &str = "envoy.config.route.v3.FilterConfig";

fn typed(kind: &str, fields: &str) -> String {
    format!("{{\"@type\": {T}/{kind}, {fields}}}")
}

fn filter(name: &str, kind: &str, fields: &str, more: &str) -> String {
    format!("{{name: {name}, {more} typed_config: {}}},", typed(kind, fields))
}

fn filters(yaml: &str) -> Vec<(String, FilterKind, bool)> {
    match &the_listener(yaml).chains[0].terminal {
        Terminal::Http(m) => m.filters.iter().map(|f| (f.name.to_string(), f.kind.clone(), f.disabled)).collect(),
        other => panic!("{other:?}"),
    }
}

/// A route with these `typed_per_filter_config` entries.
fn overriding(entries: &str) -> String {
    route_of(&format!("route: {{cluster: c}}, typed_per_filter_config: {{{entries}}}"))
}

fn settings(yaml: &str) -> Vec<(String, Setting)> {
    let routes = the_routes(yaml);
    let overrides = routes.virtual_hosts[0].routes[0].overrides.clone();
    overrides.iter().flat_map(|o| &o.filters).map(|o| (o.filter.to_string(), o.setting.clone())).collect()
}

#[test]
fn faults_arrive() {
    let all = filters(&hcm(
        &filter(
            "f",
            FAULT,
            "delay: {fixed_delay: 1.5s, percentage: {numerator: 5, denominator: MILLION}}, \
             abort: {http_status: 418, percentage: {numerator: 200}, response_body: tea}, upstream_cluster: c, \
             downstream_nodes: [node], headers: [{name: x-a, string_match: {exact: v}}], max_active_faults: 7, \
             response_rate_limit: {fixed_limit: {limit_kbps: 9}, percentage: {numerator: 1}}",
            "",
        ),
        "",
    ));
    let (name, FilterKind::Fault(fault), false) = &all[0] else { panic!("{all:?}") };
    let delay = fault.delay.unwrap();
    assert_eq!((name.as_str(), delay.duration), ("f", Some(Duration::from_millis(1500))));
    assert_eq!(delay.percentage, Fraction { numerator: 5, denominator: 1_000_000 });
    let abort = fault.abort.as_ref().unwrap();
    assert_eq!((abort.kind, &*abort.body), (AbortKind::Http(StatusCode::IM_A_TEAPOT), "tea"));
    assert_eq!(abort.percentage, Fraction { numerator: 100, denominator: 100 });
    assert_eq!(
        (fault.upstream_cluster.as_deref(), &*fault.downstream_nodes[0], fault.max_active),
        (Some("c"), "node", Some(7))
    );
    assert_eq!((fault.headers.len(), fault.rate_limit.unwrap().kbps), (1, Some(9)));

    let all = filters(&hcm(
        &filter(
            "f",
            FAULT,
            "delay: {header_delay: {}}, abort: {header_abort: {}}, response_rate_limit: {header_limit: {}}",
            "",
        ),
        "",
    ));
    let FilterKind::Fault(fault) = &all[0].1 else { panic!("{all:?}") };
    assert_eq!((fault.delay.unwrap().duration, fault.rate_limit.unwrap().kbps), (None, None));
    assert_eq!(fault.abort.as_ref().unwrap().kind, AbortKind::Header);
    assert_eq!(fault.delay.unwrap().percentage.numerator, 0, "no percentage is nothing");
}

#[test]
fn faults_are_checked() {
    let place = format!("{HCM}.http_filters[0].typed_config");
    let bad = |fields: &str| hcm(&filter("f", FAULT, fields, ""), "");
    let at = |rest: &str| format!("{place}.{rest}");
    let cases = [
        ("abort: {http_status: 199}", "abort.http_status", "199 is not between 200 and 599"),
        ("abort: {percentage: {}}", "abort.error_type", "required"),
        ("delay: {}", "delay.fault_delay_secifier", "required"),
        ("delay: {fixed_delay: 0s}", "delay.fixed_delay", "greater than zero"),
        ("response_rate_limit: {fixed_limit: {}}", "response_rate_limit.fixed_limit.limit_kbps", "at least 1"),
    ];
    for (fields, path, reason) in cases {
        refused(&[(bad(fields), &at(path), reason)]);
    }
    noted(&[
        (bad("filter_metadata: {a: b}"), &at("filter_metadata"), NoteKind::Unsupported),
        (bad("delay_percent_runtime: k"), &at("delay_percent_runtime"), NoteKind::Harmless),
    ]);
}

#[test]
fn filters_keep_their_order_and_state() {
    let yaml = hcm(
        &[
            filter("cors", "envoy.extensions.filters.http.cors.v3.Cors", "", ""),
            filter("web", "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb", "", ""),
            filter("b", "envoy.extensions.filters.http.buffer.v3.Buffer", "max_request_bytes: 10", "disabled: true,"),
            filter(
                "m",
                "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
                "most_specific_header_mutations_wins: true, mutations: {request_mutations: [{remove: x-a}, \
                 {append: {header: {key: x-b, value: v}}}, {remove_on_match: {key_matcher: {prefix: x-c}}}], \
                 query_parameter_mutations: [{remove: q}, {append: {record: {key: k, value: w}, action: ADD_IF_ABSENT}}], \
                 response_mutations: [{remove: x-d}], request_trailers_mutations: [{remove: x-e}], \
                 response_trailers_mutations: [{remove: x-f}, {remove: x-g}]}",
                "",
            ),
        ]
        .concat(),
        "",
    );
    let all = filters(&yaml);
    assert!(matches!(&all[0], (name, FilterKind::Cors, false) if name == "cors"));
    assert!(matches!(&all[1], (_, FilterKind::GrpcWeb, false)));
    assert!(matches!(&all[2], (name, FilterKind::Buffer(10), true) if name == "b"));
    let (_, FilterKind::HeaderMutation { mutations, most_specific_wins: true }, false) = &all[3] else { panic!() };
    assert!(matches!(
        &mutations.request[..],
        [Mutation::Remove(a), Mutation::Add(b), Mutation::RemoveMatching(_)] if a == "x-a" && b.name == "x-b"
    ));
    assert!(matches!(&mutations.query[..], [QueryMutation::Remove(_), QueryMutation::Set { .. }]));
    assert_eq!(mutations.response.len(), 1);
    assert_eq!((mutations.request_trailers.len(), mutations.response_trailers.len()), (1, 2));
    let place = |rest: &str| format!("{HCM}.http_filters[0].{rest}");
    let buffer = "envoy.extensions.filters.http.buffer.v3.Buffer";
    refused(&[
        (hcm(&filter("b", buffer, "", ""), ""), &place("typed_config.max_request_bytes"), "required"),
        (hcm(&filter("b", buffer, "max_request_bytes: 0", ""), ""), &place("typed_config.max_request_bytes"), "zero"),
        (
            hcm(&filter("l", "envoy.extensions.filters.http.lua.v3.Lua", "", "disabled: true,"), ""),
            &place("typed_config"),
            "not supported",
        ),
    ]);
}

#[test]
fn overrides_arrive_at_every_level() {
    let fault = |status: u32| {
        format!("f: {}", typed(FAULT, &format!("abort: {{http_status: {status}, percentage: {{numerator: 100}}}}")))
    };
    let yaml = format!(
        "{{\"@type\": {T}/{ROUTES}, name: r, typed_per_filter_config: {{{}}}, virtual_hosts: [{{name: v, domains: ['*'], \
         typed_per_filter_config: {{{}}}, routes: [{{match: {{prefix: /}}, typed_per_filter_config: {{{}}}, route: \
         {{weighted_clusters: {{clusters: [{{name: a, weight: 1, typed_per_filter_config: {{{}}}}}]}}}}}}]}}]}}",
        fault(501),
        fault(502),
        fault(503),
        fault(504),
    );
    let routes = the_routes(&yaml);
    let host = &routes.virtual_hosts[0];
    let Action::Forward(forward) = &host.routes[0].action else { panic!() };
    let Target::Weighted(targets) = &forward.target else { panic!() };
    let levels = [&routes.overrides, &host.overrides, &host.routes[0].overrides, &targets[0].overrides];
    let statuses = levels.map(|level| match level.as_ref().unwrap().get("f") {
        Some(Setting::Fault(fault)) => fault.abort.as_ref().unwrap().kind,
        other => panic!("{other:?}"),
    });
    assert_eq!(statuses, [501, 502, 503, 504].map(|s| AbortKind::Http(StatusCode::from_u16(s).unwrap())));
}

#[test]
fn filters_are_switched_by_routes() {
    let yaml = overriding(&format!(
        "a: {}, b: {}, c: {}, d: {}, e: {}",
        typed(FILTER_CONFIG, "disabled: true"),
        typed(FILTER_CONFIG, &format!("config: {{\"@type\": {T}/stats.PluginConfig}}")),
        typed(FILTER_CONFIG, &format!("config: {}", typed(FAULT, ""))),
        typed("envoy.extensions.filters.http.buffer.v3.BufferPerRoute", "disabled: true"),
        typed("envoy.extensions.filters.http.buffer.v3.BufferPerRoute", "buffer: {max_request_bytes: 5}"),
    ));
    let expected = [
        ("a", Setting::Disabled),
        ("b", Setting::Enabled),
        ("c", Setting::Fault(Fault::default().into())),
        ("d", Setting::Buffer(None)),
        ("e", Setting::Buffer(Some(5))),
    ];
    assert_eq!(settings(&yaml), expected.map(|(n, s)| (n.to_owned(), s)));
    let key = |rest: &str| at_route(&format!("typed_per_filter_config[\"a\"]{rest}"));
    refused(&[
        (overriding(&format!("a: {}", typed(FILTER_CONFIG, ""))), &key(".config"), "required"),
        (
            overriding(&format!("envoy.filters.http.router: {}", typed(FILTER_CONFIG, "disabled: true"))),
            &at_route("typed_per_filter_config[\"envoy.filters.http.router\"].disabled"),
            "router",
        ),
        (
            overriding(&format!("a: {}", typed("envoy.extensions.filters.http.lua.v3.LuaPerRoute", "disabled: true"))),
            &key(""),
            "not supported",
        ),
    ]);
}

#[test]
fn cors_policies_arrive_old_and_new() {
    let fields = "allow_origin_string_match: [{exact: o}], allow_methods: GET, allow_headers: h, expose_headers: e, \
                  max_age: '5', allow_credentials: true, filter_enabled: {default_value: {numerator: 1}}, \
                  shadow_enabled: {default_value: {numerator: 2}}, allow_private_network_access: true, \
                  forward_not_matching_preflights: false";
    let all = settings(&overriding(&format!("cors: {}", typed(CORS, fields))));
    let Setting::Cors(new) = &all[0].1 else { panic!("{all:?}") };
    assert_eq!((new.enabled.numerator, new.shadow.unwrap().numerator), (1, 2));
    assert_eq!((new.allow_credentials, new.allow_private_network), (Some(true), Some(true)));
    assert_eq!(new.forward_not_matching_preflights, Some(false));
    let old = the_routes(&route_of(&format!("route: {{cluster: c, cors: {{{fields}}}}}")));
    assert_eq!(old.virtual_hosts[0].routes[0].overrides.as_ref().unwrap().cors.as_deref(), Some(&**new));
    let host = the_routes(&routes_of(&format!("{{name: v, domains: ['*'], cors: {{{fields}}}, routes: []}}")));
    assert_eq!(host.virtual_hosts[0].overrides.as_ref().unwrap().cors.as_deref(), Some(&**new));
    refused(&[(
        overriding(&format!("cors: {}", typed(CORS, "max_age: \"a\\nb\""))),
        &at_route("typed_per_filter_config[\"cors\"].max_age"),
        "header value",
    )]);
}

#[test]
fn adaptive_concurrency_arrives_and_is_checked() {
    const KIND: &str = "envoy.extensions.filters.http.adaptive_concurrency.v3.AdaptiveConcurrency";
    let limits = "concurrency_limit_params: {concurrency_update_interval: 0.1s}";
    let yaml = |more: &str, gradient: &str| {
        hcm(&filter("a", KIND, &format!("{more} gradient_controller_config: {{{gradient}}}"), ""), "")
    };
    let all = filters(&yaml("", &format!("{limits}, min_rtt_calc_params: {{interval: 60s}}")));
    let FilterKind::AdaptiveConcurrency(c) = &all[0].1 else { panic!("{all:?}") };
    assert_eq!((c.enforced, c.status.as_u16(), c.percentile, c.max_limit, c.min_limit), (true, 503, 500_000, 1000, 3));
    assert_eq!((c.request_count, c.jitter, c.min_concurrency, c.buffer), (50, 150_000, 3, 250_000));
    assert_eq!(c.measurement_interval, Some(Duration::from_secs(60)));
    let off = yaml(
        "enabled: {default_value: false, runtime_key: k}, concurrency_limit_exceeded_status: {code: TooManyRequests},",
        &format!("sample_aggregate_percentile: {{value: 90}}, {limits}, min_rtt_calc_params: {{fixed_value: 1s}}"),
    );
    let all = filters(&off);
    let FilterKind::AdaptiveConcurrency(c) = &all[0].1 else { panic!("{all:?}") };
    assert_eq!((c.enforced, c.status.as_u16(), c.percentile), (false, 429, 900_000));
    assert_eq!((c.measurement_interval, c.fixed), (None, Some(Duration::from_secs(1))));
    let place = format!("{HCM}.http_filters[0].typed_config");
    noted(&[(off, &format!("{place}.enabled"), NoteKind::Harmless)]);
    let at = |rest: &str| format!("{place}.gradient_controller_config.{rest}");
    refused(&[
        (hcm(&filter("a", KIND, "", ""), ""), &format!("{place}.concurrency_controller_config"), "required"),
        (yaml("", limits), &at("min_rtt_calc_params"), "required"),
        (yaml("", &format!("{limits}, min_rtt_calc_params: {{}}")), &at("min_rtt_calc_params.fixed_value"), "required"),
        (
            yaml("", "concurrency_limit_params: {}, min_rtt_calc_params: {interval: 1s}"),
            &at("concurrency_limit_params.concurrency_update_interval"),
            "required",
        ),
        (
            yaml("", &format!("{limits}, min_rtt_calc_params: {{interval: 1s, jitter: {{value: 101}}}}")),
            &at("min_rtt_calc_params.jitter"),
            "between 0 and 100",
        ),
    ]);
}

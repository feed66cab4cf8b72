//! What routes do besides forwarding: mirrors, path templates, formatted answers, internal redirects.

use super::{routes::forward, *};
use crate::ir::route::{Action, HostRewrite, MirrorTarget, PathMatch, PathRewrite, RedirectPredicate, Target};

#[test]
fn mirrors_arrive_and_are_inherited() {
    let mirrors = |config: &str, host: &str, route: &str| {
        let yaml = format!(
            "{{\"@type\": {T}/{ROUTES}, name: r, {config} virtual_hosts: [{{name: v, domains: ['*'], {host} routes: \
             [{{match: {{prefix: /}}, route: {{cluster: c, {route}}}}}]}}]}}"
        );
        match &the_routes(&yaml).virtual_hosts[0].routes[0].action {
            Action::Forward(f) => f.mirrors.to_vec(),
            other => panic!("{other:?}"),
        }
    };
    let to = |name: &str| format!("request_mirror_policies: [{{cluster: {name}}}],");
    for (route, expected) in [("", "b"), (to("c").as_str(), "c")] {
        let all = mirrors(&to("a"), &to("b"), route);
        assert!(matches!(&all[..], [m] if m.target == MirrorTarget::Cluster(expected.into())), "{all:?}");
    }
    assert_eq!(mirrors(&to("a"), "", "").len(), 1);
    let all = mirrors(
        "",
        "",
        "request_mirror_policies: [{cluster_header: X-M, runtime_fraction: {default_value: {numerator: 5}}, \
         disable_shadow_host_suffix_append: true, host_rewrite_literal: h, request_headers_mutations: [{remove: x-a}]}]",
    );
    let [m] = &all[..] else { panic!("{all:?}") };
    assert!(matches!(&m.target, MirrorTarget::Header(name) if name == "x-m"));
    assert_eq!((m.fraction.map(|f| f.numerator), m.suffix, m.host.as_deref()), (Some(5), false, Some("h")));
    assert_eq!(m.mutations.len(), 1);
}

#[test]
fn path_templates_and_formats_arrive() {
    let typed = |kind: &str, fields: &str| {
        format!("{{name: x, typed_config: {{\"@type\": {T}/envoy.extensions.path.{kind}, {fields}}}}}")
    };
    let template =
        |text: &str| typed("match.uri_template.v3.UriTemplateMatchConfig", &format!("path_template: \"{text}\""));
    let rewrite = |text: &str| {
        typed("rewrite.uri_template.v3.UriTemplateRewriteConfig", &format!("path_template_rewrite: \"{text}\""))
    };
    let route = |path: &str, action: &str| {
        routes_of(&format!("{{name: v, domains: ['*'], routes: [{{match: {{{path}}}, {action}}}]}}"))
    };
    let by = |text: &str| format!("path_match_policy: {}", template(text));
    let to = |text: &str| format!("route: {{cluster: c, path_rewrite_policy: {}}}", rewrite(text));
    let routes = the_routes(&route(&by("/{a}/{b}"), &to("/{b}/{a}")));
    let route_ir = &routes.virtual_hosts[0].routes[0];
    let (PathMatch::Template(matched), Action::Forward(f)) = (&route_ir.matches.path, &route_ir.action) else {
        panic!()
    };
    let Some(PathRewrite::Template(rewriting)) = &f.path_rewrite else { panic!("{f:?}") };
    assert_eq!(matched.rewrite("/x/y", rewriting).as_deref(), Some("/y/x"));
    let rewriting_at = at_route("route.path_rewrite_policy.typed_config");
    refused(&[
        (
            route(&by("/{a"), "route: {cluster: c}"),
            &at_route("match.path_match_policy.typed_config.path_template"),
            "not closed",
        ),
        (route(&by("/{a}"), &to("/{b}")), &format!("{rewriting_at}.path_template_rewrite"), "no variable"),
        (route("prefix: /", &to("/x")), &rewriting_at, "matches by a path template"),
    ]);
    let body = |fields: &str| {
        route_of(&format!("direct_response: {{status: 200, body: {{inline_string: hi}}, body_format: {{{fields}}}}}"))
    };
    let text = "content_type: text/x, text_format_source: {inline_string: '<%LOCAL_REPLY_BODY%>%REQ(:path)%'}";
    let routes = the_routes(&body(text));
    let Action::Direct(direct) = &routes.virtual_hosts[0].routes[0].action else { panic!() };
    let format = direct.format.as_ref().unwrap();
    assert_eq!(format.content_type.as_ref().unwrap(), "text/x");
    let crate::ir::format::LogFormat::Text(text) = &format.format else { panic!() };
    assert!(matches!(&text.segments[1], crate::ir::format::Segment::Text(body) if &**body == "hi"));
    let weighted = forward("weighted_clusters: {clusters: [{cluster_header: X-C, weight: 1}]}");
    let Target::Weighted(targets) = &weighted.target else { panic!() };
    assert_eq!(targets[0].cluster_header.as_ref().unwrap(), "x-c");
}

#[test]
fn internal_redirects_arrive() {
    let kind = |kind: &str, fields: &str| {
        format!("{{name: x, typed_config: {{\"@type\": {T}/envoy.extensions.internal_redirect.{kind}, {fields}}}}}")
    };
    let previous = kind("previous_routes.v3.PreviousRoutesConfig", "");
    let f = forward(&format!(
        "cluster: c, internal_redirect_policy: {{max_internal_redirects: 3, redirect_response_codes: [301, 303], \
         allow_cross_scheme_redirect: true, response_headers_to_copy: [X-A], predicates: [{previous}]}}"
    ));
    let policy = f.internal_redirect.as_ref().unwrap();
    assert_eq!((policy.max, policy.cross_scheme, policy.copied_headers[0].as_str()), (3, true, "x-a"));
    assert_eq!(policy.codes.iter().map(|c| c.as_u16()).collect::<Vec<_>>(), [301, 303]);
    assert_eq!(policy.predicates, [RedirectPredicate::PreviousRoutes]);
    for fields in ["internal_redirect_policy: {}", "internal_redirect_action: HANDLE_INTERNAL_REDIRECT"] {
        let f = forward(&format!("cluster: c, {fields}"));
        let policy = f.internal_redirect.as_ref().unwrap();
        assert_eq!((policy.max, policy.codes[0].as_u16(), policy.predicates.len()), (1, 302, 0));
    }
    assert!(forward("cluster: c").internal_redirect.is_none());
    let route = |policy: &str| route_of(&format!("route: {{cluster: c, internal_redirect_policy: {{{policy}}}}}"));
    let at = |rest: &str| at_route(&format!("route.internal_redirect_policy.{rest}"));
    refused(&[
        (route("response_headers_to_copy: [host]"), &at("response_headers_to_copy[0]"), "may not be copied"),
        (
            route(&format!("predicates: [{}]", kind("unheard.v3.Of", ""))),
            &at("predicates[0].typed_config"),
            "not supported",
        ),
    ]);
}

#[test]
fn formatted_rewrites_arrive() {
    let f = forward("cluster: c, path_rewrite: '/new%REQ(x-p)%', host_rewrite: 'h-%REQ(x-h)%'");
    assert!(matches!(&f.path_rewrite, Some(PathRewrite::Format(t)) if t.segments.len() == 2));
    assert!(matches!(&f.host_rewrite, Some(HostRewrite::Format(t)) if t.segments.len() == 2));
    let routes = the_routes(&route_of("redirect: {path_rewrite: '/new/%REQ(x-p)%'}"));
    let Action::Redirect(redirect) = &routes.virtual_hosts[0].routes[0].action else { panic!() };
    assert!(matches!(&redirect.rewrite, Some(PathRewrite::Format(_))));
    let r = |fields: &str| route_of(&format!("route: {{cluster: c, {fields}}}"));
    refused(&[
        (r("path_rewrite: '/%NOPE%'"), &at_route("route.path_rewrite"), "unknown operator"),
        (r("path_rewrite: \"/a\\r\\nb\""), &at_route("route.path_rewrite"), "not a header value"),
        (r("prefix_rewrite: /a, path_rewrite: /b"), &at_route("route.path_rewrite"), "excludes"),
        (r("host_rewrite: ''"), &at_route("route.host_rewrite"), "empty"),
    ]);
}

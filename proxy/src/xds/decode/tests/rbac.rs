//! RBAC filters: everything that is known arrives, and whatever is not refuses the resource.

use std::time::Duration;

use super::*;
use crate::ir::{
    http::FilterKind,
    listener::Terminal,
    network::NetworkFilterKind,
    rbac::{Action, Engine, Rbac, Rule, SanKind, tree::Kind},
};

const HTTP: &str = "envoy.extensions.filters.http.rbac.v3.RBAC";
const NETWORK: &str = "envoy.extensions.filters.network.rbac.v3.RBAC";

fn http(fields: &str) -> String {
    hcm(&format!("{{name: rbac, typed_config: {{\"@type\": {T}/{HTTP}, {fields}}}}},"), "")
}

fn network(fields: &str) -> String {
    let filter = format!("{{name: rbac, typed_config: {{\"@type\": {T}/{NETWORK}, stat_prefix: s, {fields}}}}}");
    listener_of(&format!("{filter}, {}", tcp("cluster: c")), "")
}

fn of_http(yaml: &str) -> Rbac {
    match &the_listener(yaml).chains[0].terminal {
        Terminal::Http(manager) => match &manager.filters[0].kind {
            FilterKind::Rbac(rbac) => (**rbac).clone(),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

/// One policy of this permission and this principal.
fn rules(permission: &str, principal: &str) -> String {
    format!("rules: {{policies: {{p: {{permissions: [{permission}], principals: [{principal}]}}}}}}")
}

fn policies(rbac: &Rbac) -> &crate::ir::rbac::Policies {
    match &rbac.rules {
        Some(Engine::Policies(policies)) => policies,
        other => panic!("{other:?}"),
    }
}

#[test]
#[allow(irrefutable_let_patterns, reason = "there may be one kind only")]
fn filters_arrive() {
    let rbac = of_http(&http(
        "rules: {action: DENY, policies: {b: {permissions: [{any: true}], principals: [{any: true}]}, a: {permissions: \
         [{any: true}, {destination_port: 80}], principals: [{any: true}]}}}, shadow_rules: {action: LOG}, \
         rules_stat_prefix: r, shadow_rules_stat_prefix: s, track_per_rule_stats: true",
    ));
    let set = policies(&rbac);
    assert_eq!(set.action, Action::Deny);
    assert_eq!(set.policies.iter().map(|p| &*p.name).collect::<Vec<_>>(), ["a", "b"], "in the order of names");
    assert!(matches!(&set.policies[0].permissions, Rule::OneOf(rules) if rules.len() == 2));
    assert!(matches!(&rbac.shadow, Some(Engine::Policies(p)) if p.action == Action::Log && p.policies.is_empty()));
    assert_eq!((&*rbac.rules_prefix, &*rbac.shadow_prefix, rbac.track_per_rule), ("r", "s", true));
    assert_eq!(of_http(&http("rules_stat_prefix: ''")), Rbac::default(), "nothing is enforced");

    let listener = the_listener(&network(&format!("{}, delay_deny: 2s", rules("{any: true}", "{any: true}"))));
    let NetworkFilterKind::Rbac(rbac) = &listener.chains[0].filters[0].kind else { panic!("{listener:?}") };
    assert_eq!((&*rbac.stat_prefix, rbac.delay_deny), ("s", Some(Duration::from_secs(2))));
    assert_eq!(policies(&rbac.rbac).policies.len(), 1);
    assert!(matches!(listener.chains[0].terminal, Terminal::Tcp(_)));
}

#[test]
fn every_permission_and_principal_arrives() {
    let metadata = "{filter: f, path: [{key: k}], value: {string_match: {exact: v}}}";
    let template = format!(
        "{{uri_template: {{name: t, typed_config: {{\"@type\": \
         {T}/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig, path_template: '/{{a}}'}}}}}}"
    );
    let permissions = [
        "{and_rules: {rules: [{any: true}, {any: true}]}}".to_owned(),
        "{or_rules: {rules: [{any: true}, {any: true}]}}".into(),
        "{any: true}".into(),
        "{header: {name: a}}".into(),
        "{url_path: {path: {exact: /a}}}".into(),
        "{destination_ip: {address_prefix: 10.0.0.0, prefix_len: 8}}".into(),
        "{destination_port: 0}".into(),
        "{destination_port_range: {start: 1, end: 65536}}".into(),
        format!("{{metadata: {metadata}}}"),
        "{not_rule: {any: true}}".into(),
        "{requested_server_name: {exact: a}}".into(),
        template,
        format!("{{sourced_metadata: {{metadata_source: ROUTE, metadata_matcher: {metadata}}}}}"),
    ];
    for permission in permissions {
        of_http(&http(&rules(&permission, "{any: true}")));
    }
    for principal in [
        "{and_ids: {ids: [{any: true}]}}",
        "{or_ids: {ids: [{any: true}]}}",
        "{authenticated: {}}",
        "{source_ip: {address_prefix: '::1', prefix_len: 128}}",
        "{direct_remote_ip: {address_prefix: 10.0.0.1, prefix_len: 32}}",
        "{remote_ip: {address_prefix: 10.0.0.1, prefix_len: 32}}",
        "{header: {name: a}}",
        "{url_path: {path: {exact: /a}}}",
        &format!("{{metadata: {metadata}}}"),
        &format!("{{sourced_metadata: {{metadata_matcher: {metadata}}}}}"),
        "{not_id: {any: true}}",
        "{filter_state: {key: io.istio.peer_principal, string_match: {exact: a}}}",
    ] {
        of_http(&http(&rules("{any: true}", principal)));
    }
    let mtls = |fields: &str| {
        let kind = "envoy.extensions.rbac.principals.mtls_authenticated.v3.Config";
        let principal = format!("{{custom: {{name: m, typed_config: {{\"@type\": {T}/{kind}, {fields}}}}}}}");
        policies(&of_http(&http(&rules("{any: true}", &principal)))).policies[0].principals.clone()
    };
    assert_eq!(mtls("any_validated_client_certificate: true"), Rule::Mtls(None));
    let san = mtls("any_validated_client_certificate: true, san_matcher: {san_type: URI, matcher: {exact: a}}");
    assert!(matches!(san, Rule::Mtls(Some(san)) if san.kind == SanKind::Uri), "the stricter one counts");
}

#[test]
fn what_is_not_known_refuses_the_resource() {
    let at = format!("{HCM}.http_filters[0].typed_config");
    let (permission, principal) =
        (format!("{at}.rules.policies[\"p\"].permissions[0]"), format!("{at}.rules.policies[\"p\"].principals[0]"));
    let policy = format!("{at}.rules.policies[\"p\"]");
    let any = "{any: true}";
    let foreign = format!("{{name: x, typed_config: {{\"@type\": {T}/some.Unknown}}}}");
    let with = |more: &str| {
        http(&format!("rules: {{policies: {{p: {{permissions: [{any}], principals: [{any}], {more}}}}}}}"))
    };
    refused(&[
        (
            http(&rules(&format!("{{matcher: {foreign}}}"), any)),
            &format!("{permission}.matcher.typed_config"),
            "Unknown",
        ),
        (http(&rules(any, &format!("{{custom: {foreign}}}"))), &format!("{principal}.custom.typed_config"), "Unknown"),
        (http(&rules("{any: false}", any)), &format!("{permission}.any"), "must be true"),
        (http(&rules("{}", any)), &format!("{permission}.rule"), "is required"),
        (http(&rules("{and_rules: {}}", any)), &format!("{permission}.and_rules.rules"), "empty"),
        (http(&rules("{not_rule: {}}", any)), &format!("{permission}.not_rule.rule"), "is required"),
        (http(&rules(any, "{}")), &format!("{principal}.identifier"), "is required"),
        (http(&rules("{destination_port: 65536}", any)), &format!("{permission}.destination_port"), "not a port"),
        (
            http(&rules("{destination_port_range: {start: 9, end: 9}}", any)),
            &format!("{permission}.destination_port_range"),
            "no range",
        ),
        (
            http(&rules(any, "{filter_state: {key: other, string_match: {exact: a}}}")),
            &format!("{principal}.filter_state.key"),
            "nothing sets",
        ),
        (http("rules: {policies: {p: {principals: [{any: true}]}}}"), &format!("{policy}.permissions"), "empty"),
        (http("rules: {policies: {p: {permissions: [{any: true}]}}}"), &format!("{policy}.principals"), "empty"),
        (with("condition: {const_expr: {bool_value: true}}"), &format!("{policy}.condition"), "not supported"),
        (with("checked_condition: {expr: {id: 1}}"), &format!("{policy}.checked_condition"), "not supported"),
        (
            http(&format!("matcher: {{on_no_match: {{action: {foreign}}}}}")),
            &format!("{at}.matcher.on_no_match.action.typed_config"),
            "Unknown",
        ),
        (
            http(&format!(
                "shadow_rules: {{policies: {{p: {{permissions: [{{matcher: {foreign}}}], principals: [{any}]}}}}}}"
            )),
            &format!("{at}.shadow_rules.policies[\"p\"].permissions[0].matcher.typed_config"),
            "Unknown",
        ),
    ]);
}

#[test]
fn rules_on_requests_are_refused_where_there_are_none() {
    let at = "filter_chains[0].filters[0].typed_config.rules.policies[\"p\"]";
    let any = "{any: true}";
    let deep = "{not_rule: {or_rules: {rules: [{url_path: {path: {exact: /a}}}]}}}";
    refused(&[
        (network(&rules("{header: {name: a}}", any)), &format!("{at}.permissions[0].header"), "a request"),
        (network(&rules(deep, any)), &format!("{at}.permissions[0].not_rule.or_rules.rules[0].url_path"), "a request"),
        (network(&rules(any, "{header: {name: a}}")), &format!("{at}.principals[0].header"), "a request"),
        (network(&rules(any, "{url_path: {path: {exact: /a}}}")), &format!("{at}.principals[0].url_path"), "a request"),
        (
            network(&rules(
                any,
                "{sourced_metadata: {metadata_source: ROUTE, metadata_matcher: {filter: f, path: [{key: k}], value: {bool_match: true}}}}",
            )),
            &format!("{at}.principals[0].sourced_metadata.metadata_source"),
            "a request",
        ),
        (
            network("rules: {}").replace("stat_prefix: s, rules", "rules"),
            "filter_chains[0].filters[0].typed_config.stat_prefix",
            "must not be empty",
        ),
    ]);
}

#[test]
fn match_trees_take_the_place_of_rules() {
    let input = format!(
        "{{name: i, typed_config: {{\"@type\": {T}/envoy.type.matcher.v3.HttpRequestHeaderMatchInput, header_name: ':path'}}}}"
    );
    let leaf = |name: &str, action: &str| {
        format!(
            "{{action: {{name: a, typed_config: {{\"@type\": {T}/envoy.config.rbac.v3.Action, name: {name}, action: {action}}}}}}}"
        )
    };
    let tree = |on: &str| {
        format!(
            "matcher: {{matcher_tree: {{input: {input}, exact_match_map: {{map: {{/a: {on}}}}}}}, on_no_match: {}}}",
            leaf("z", "DENY")
        )
    };
    let rbac = of_http(&http(&format!("rules: {{}}, {}", tree(&leaf("l", "LOG")))));
    let Some(Engine::Tree(decoded)) = &rbac.rules else { panic!("{rbac:?}") };
    assert!(decoded.logs && matches!(&decoded.root.kind, Some(Kind::Exact(_, map)) if map.len() == 1));
    let at = format!("{HCM}.http_filters[0].typed_config.matcher");
    refused(&[
        (
            http(&tree(&leaf("''", "LOG"))),
            &format!("{at}.matcher_tree.exact_match_map.map[\"/a\"].action.typed_config.name"),
            "empty",
        ),
        (
            http(&tree(&leaf("l", "LOG").replace("{action: {name", "{keep_matching: true, action: {name"))),
            &format!("{at}.matcher_tree.exact_match_map.map[\"/a\"].keep_matching"),
            "not supported",
        ),
        (
            network(&tree(&leaf("l", "ALLOW"))),
            "filter_chains[0].filters[0].typed_config.matcher.matcher_tree.input.typed_config",
            "HttpRequestHeaderMatchInput",
        ),
    ]);
    noted(&[(
        http(&format!("rules: {{}}, {}", tree(&leaf("l", "ALLOW")))),
        &format!("{HCM}.http_filters[0].typed_config.rules"),
        NoteKind::Harmless,
    )]);
}

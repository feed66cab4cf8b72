//! Role based access control of connections, and of who is at their other end.

use super::rbac::{ANSWER, filter};
use crate::harness::{Case, Serve, Talk, Tls, case, get};

const NETWORK: &str = "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC";

/// A context that asks for a certificate and takes those of the root, or does without.
const TLS: &str = "
  transport_socket:
    name: tls
    typed_config:
      '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
      common_tls_context:
        tls_certificates: [{certificate_chain: {filename: $dir/one.crt}, private_key: {filename: $dir/one.key}}]
        validation_context: {trusted_ca: {filename: $dir/root.pem}}
";

fn talk(say: &'static str) -> Talk {
    Talk { say, hear: "", finish: true, tls: None }
}

fn over_tls(certificate: &'static str) -> Talk {
    // What is heard is waited for: a refusal may overtake the words.
    Talk { tls: Some(Tls { server_name: "case.test", alpn: &[], certificate }), hear: "HELLO", ..talk("hello") }
}

/// A chain of a TCP proxy behind RBAC filters with these fields.
fn tcp(name: &'static str, filters: &[&str], chain: &str) -> Case {
    let mut yaml = "- filters:\n".to_owned();
    for (n, fields) in filters.iter().enumerate() {
        yaml +=
            &format!("  - name: rbac-{n}\n    typed_config: {{'@type': {NETWORK}, stat_prefix: $case, {fields}}}\n");
    }
    yaml += "  - name: tcp
    typed_config:
      '@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
      stat_prefix: $case
      cluster: $a
      access_log: [{name: log, typed_config: {'@type': type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: $dir/access.log, log_format: {text_format_source: {inline_string: \"$case| TCP code=0 flags=%RESPONSE_FLAGS% terminated=%CONNECTION_TERMINATION_DETAILS%\\n\"}}}}]
";
    yaml += chain;
    case(name)
        .host("a", Serve::Tcp(""))
        .filter_chains(yaml.leak())
        .by_chance("a[", "nothing is dialled for a connection that is refused")
}

fn policy(action: &str, permission: &str, principal: &str) -> String {
    format!("{{action: {action}, policies: {{p: {{permissions: [{permission}], principals: [{principal}]}}}}}}")
}

pub(crate) fn connections() -> Vec<Case> {
    let rules = |action, permission, principal| format!("rules: {}", policy(action, permission, principal));
    let any = "{any: true}";
    let here = "{direct_remote_ip: {address_prefix: 127.0.0.0, prefix_len: 8}}";
    let there = "{remote_ip: {address_prefix: 10.0.0.0, prefix_len: 8}}";
    let simple =
        |name, fields: &str| tcp(name, &[fields], "").talk(Talk { hear: "HELLO", ..talk("hello") }).stats("rbac");
    vec![
        simple("tcp-rbac-allowed", &rules("ALLOW", any, here)),
        simple("tcp-rbac-not-allowed", &rules("ALLOW", any, there)),
        simple("tcp-rbac-denied", &rules("DENY", any, here)),
        simple("tcp-rbac-not-denied", &rules("DENY", any, there)),
        simple("tcp-rbac-log", &rules("LOG", any, here)),
        simple("tcp-rbac-empty", "rules: {}"),
        simple("tcp-rbac-empty-deny", "rules: {action: DENY}"),
        simple("tcp-rbac-nothing", "shadow_rules_stat_prefix: x"),
        simple("tcp-rbac-port", &rules("DENY", "{destination_port: $port}", any)),
        simple("tcp-rbac-other-port", &rules("DENY", "{destination_port_range: {start: 1, end: 2}}", any)),
        simple(
            "tcp-rbac-destination",
            &rules("ALLOW", "{destination_ip: {address_prefix: 127.0.0.1, prefix_len: 32}}", any),
        ),
        simple("tcp-rbac-server-name", &rules("ALLOW", "{requested_server_name: {exact: case.test}}", any)),
        simple(
            "tcp-rbac-not",
            &rules(
                "ALLOW",
                "{not_rule: {destination_port: 1}}",
                "{not_id: {source_ip: {address_prefix: 10.0.0.0, prefix_len: 8}}}",
            ),
        ),
        simple(
            "tcp-rbac-metadata",
            &rules("DENY", "{metadata: {filter: f, path: [{key: k}], value: {string_match: {exact: v}}}}", any),
        ),
        simple(
            "tcp-rbac-shadow",
            &format!("shadow_rules: {}, shadow_rules_stat_prefix: dry_", policy("DENY", any, here)),
        ),
        simple("tcp-rbac-shadow-allow", &format!("shadow_rules: {}", policy("ALLOW", any, there))),
        tcp(
            "tcp-rbac-shadow-and-enforced",
            &[&format!("{}, shadow_rules: {}", rules("DENY", any, here), policy("ALLOW", any, there))],
            "",
        )
        .talk(Talk { hear: "HELLO", ..talk("hello") })
        .stats("rbac"),
        tcp("tcp-rbac-two-filters", &[&rules("ALLOW", any, here), &rules("DENY", any, here)], "")
            .talk(Talk { hear: "HELLO", ..talk("hello") })
            .stats("rbac"),
        tcp("tcp-rbac-delayed", &[&format!("{}, delay_deny: 0.5s", rules("DENY", any, here))], "")
            .talk(Talk { hear: "HELLO", ..talk("hello") }),
        tcp("tcp-rbac-server-first", &[&rules("DENY", any, here)], "")
            .talk(talk(""))
            .stats("rbac")
            .by_chance("1 < | log | a[ | counted", "a connection is decided on when it is made, not at its first byte"),
    ]
}

pub(crate) fn identities() -> Vec<Case> {
    const CERTIFICATES: [&str; 8] = ["", "client", "slash", "upper", "dns", "both", "two-uris", "subject"];
    const GOOD: &str = "spiffe://differential/ns/good/sa/client";
    let named = |matcher: &str| format!("{{authenticated: {{principal_name: {matcher}}}}}");
    let mtls = |fields: &str| {
        format!(
            "{{custom: {{name: m, typed_config: {{'@type': type.googleapis.com/envoy.extensions.rbac.principals.mtls_authenticated.v3.Config, {fields}}}}}}}"
        )
    };
    let san = |kind: &str, matcher: &str| mtls(&format!("san_matcher: {{san_type: {kind}, matcher: {matcher}}}"));
    let exact = format!("{{exact: '{GOOD}'}}");
    let all: Vec<(&'static str, &'static str, String)> = vec![
        ("mtls-anybody", "tcp-mtls-anybody", "{authenticated: {}}".into()),
        ("mtls-exact", "tcp-mtls-exact", named(&exact)),
        (
            "mtls-exact-ignoring-case",
            "tcp-mtls-exact-ignoring-case",
            named(&format!("{{exact: '{GOOD}', ignore_case: true}}")),
        ),
        ("mtls-prefix", "tcp-mtls-prefix", named("{prefix: 'spiffe://differential/ns/good/'}")),
        ("mtls-suffix", "tcp-mtls-suffix", named("{suffix: /sa/client}")),
        ("mtls-namespace", "tcp-mtls-namespace", named("{safe_regex: {regex: '.*/ns/good/.*'}}")),
        ("mtls-dns", "tcp-mtls-dns", named("{exact: client.good.test}")),
        ("mtls-subject", "tcp-mtls-subject", named("{contains: 'of differential'}")),
        ("mtls-any-name", "tcp-mtls-any-name", named("{safe_regex: {regex: '.*'}}")),
        ("mtls-not", "tcp-mtls-not", format!("{{not_id: {}}}", named(&exact))),
        ("mtls-validated", "tcp-mtls-validated", mtls("any_validated_client_certificate: true")),
        ("mtls-uri-san", "tcp-mtls-uri-san", san("URI", &exact)),
        ("mtls-dns-san", "tcp-mtls-dns-san", san("DNS", "{exact: client.good.test}")),
        ("mtls-uri-san-prefix", "tcp-mtls-uri-san-prefix", san("URI", "{prefix: 'spiffe://differential/ns/good/'}")),
    ];
    let mut cases = Vec::new();
    for (http, network, principal) in all {
        let rules = format!("rules: {}", policy("ALLOW", "{any: true}", &principal));
        let mut over_http = manager(http, &rules);
        let mut over_tcp = tcp(network, &[&rules], TLS);
        for certificate in CERTIFICATES {
            over_http = over_http.requests([get("/").tls(certificate)]);
            over_tcp = over_tcp.talk(over_tls(certificate));
        }
        // The third and the seventh: a slash at the end, two URIs.
        const STRICT: &str = "a certificate that claims a SPIFFE id without being exactly one is refused by TLS";
        over_http = over_http.explained("3 < | 7 < | log", STRICT);
        over_tcp = over_tcp.explained("3 < | 7 < | log", STRICT);
        if http == "mtls-any-name" {
            const WHY: &str =
                "a name needs a certificate that was verified; Envoy matches the empty name of a peer without one";
            over_http = over_http.explained("1 < | log", WHY);
            over_tcp = over_tcp.explained("1 < | log", WHY);
        }
        cases.extend([over_http, over_tcp]);
    }
    let stranger = || policy("ALLOW", "{any: true}", &named(&exact));
    cases.push(manager("mtls-stranger", &format!("rules: {}", stranger())).requests([get("/").tls("stranger")]));
    cases.push(
        manager(
            "mtls-server-name",
            &format!("rules: {}", policy("ALLOW", "{requested_server_name: {exact: case.test}}", "{any: true}")),
        )
        .requests([get("/").tls("")]),
    );
    cases
}

/// A chain of a connection manager behind TLS with an RBAC filter of these fields.
fn manager(name: &'static str, fields: &str) -> Case {
    let filters: String = filter("envoy.filters.http.rbac", fields).lines().map(|l| format!("      {l}\n")).collect();
    let routes: String = ANSWER.lines().map(|l| format!("          {l}\n")).collect();
    let yaml = format!(
        "- filters:
  - name: hcm
    typed_config:
      '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: $case
      $log
      route_config:
        virtual_hosts:
        - name: v
          domains: ['*']
          routes:
{routes}      http_filters:
{filters}      - name: envoy.filters.http.router
        typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
{}",
        TLS.trim_start_matches('\n')
    );
    case(name)
        .listener(
            "
            listener_filters:
            - name: tls
              typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}
            ",
        )
        .filter_chains(yaml.leak())
}

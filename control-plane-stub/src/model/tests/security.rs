//! What security documents are refused for: an error here must never let somebody in.

use super::*;

fn document(kind: &str, metadata: &str, spec: &str) -> String {
    format!("apiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: p{metadata}}}\nspec: {{{spec}}}\n---\n")
}

fn policy(spec: &str) -> String {
    document("AuthorizationPolicy", "", spec)
}

fn rule(rule: &str) -> String {
    policy(&format!("rules: [{{{rule}}}]"))
}

const MESH: &str = "
apiVersion: outrigger.dev/v1alpha1
kind: MeshConfig
metadata: {name: mesh, namespace: istio-system}
spec:
  extensionProviders:
  - {name: asked, envoyExtAuthzHttp: {service: reviews.default.svc.cluster.local, port: 80}}
---
";

#[test]
fn whatever_is_not_understood_refuses_the_policy() {
    let source = |fields: &str| rule(&format!("from: [{{source: {{{fields}}}}}]"));
    let operation = |fields: &str| rule(&format!("to: [{{operation: {{{fields}}}}}]"));
    let when = |fields: &str| rule(&format!("when: [{{{fields}}}]"));
    let at = "1 spec.rules[0]";
    let table = [
        (policy("rule: []"), "1 spec.rule: `rule` is not a field".to_owned()),
        (policy("action: PERMIT"), "1 spec.action: unknown variant `PERMIT`".to_owned()),
        (policy("rules: [null]"), "1 spec.rules[0]: ".to_owned()),
        (rule("from: []"), format!("{at}.from: must not be empty")),
        (rule("to: []"), format!("{at}.to: must not be empty")),
        (rule("from: [{}]"), format!("{at}.from[0]: missing field `source`")),
        (source(""), format!("{at}.from[0].source: must not be empty")),
        (source("principal: [a]"), format!("{at}.from[0].source.principal: `principal` is not a field")),
        (source("principals: ['']"), format!("{at}.from[0].source.principals[0]: must not be empty")),
        (
            source("principals: ['spiffe://cluster.local/ns/a/sa/b']"),
            format!("{at}.from[0].source.principals[0]: `spiffe"),
        ),
        (source("notPrincipals: ['spiffe://x']"), format!("{at}.from[0].source.notPrincipals[0]: `spiffe")),
        (source("namespaces: [a.b]"), format!("{at}.from[0].source.namespaces[0]: `a.b` is not a namespace")),
        (source("serviceAccounts: ['a*']"), format!("{at}.from[0].source.serviceAccounts[0]: `a*` is not")),
        (source("serviceAccounts: [a], namespaces: [b]"), format!("{at}.from[0].source.serviceAccounts: cannot be")),
        (source("ipBlocks: [10.0.0.0/33]"), format!("{at}.from[0].source.ipBlocks[0]: `10.0.0.0/33` is not")),
        (source("notRemoteIpBlocks: [ten]"), format!("{at}.from[0].source.notRemoteIpBlocks[0]: `ten` is not")),
        (operation(""), format!("{at}.to[0].operation: must not be empty")),
        (operation("method: [GET]"), format!("{at}.to[0].operation.method: `method` is not a field")),
        (operation("paths: ['*/admin*']"), format!("{at}.to[0].operation.paths[0]: `*/admin*`: * may stand")),
        (when("key: 'request.headers[a]', values: ['*b*']"), format!("{at}.when[0]: request.headers[a]: `*b*`: * may")),
        (operation("ports: ['0']"), format!("{at}.to[0].operation.ports[0]: `0` is not a port")),
        (operation("ports: [80]"), format!("{at}.to[0].operation.ports[0]: invalid type")),
        (operation("paths: ['/{a}']"), format!("{at}.to[0].operation.paths[0]: `/{{a}}`: of braces")),
        (
            operation("notPaths: ['/{**}/{*}']"),
            format!("{at}.to[0].operation.notPaths[0]: `/{{**}}/{{*}}` is not a path"),
        ),
        (when("key: request.auth.claim, values: [a]"), format!("{at}.when[0]: request.auth.claim: is not a key")),
        (when("key: request.headers, values: [a]"), format!("{at}.when[0]: request.headers: needs a name in brackets")),
        (when("key: 'request.headers[]', values: [a]"), format!("{at}.when[0]: request.headers[]: needs a name")),
        (when("key: 'request.headers[a b]', values: [a]"), format!("{at}.when[0]: request.headers[a b]: `a b` is not")),
        (when("key: source.ip"), format!("{at}.when[0]: source.ip: needs values or notValues")),
        (when("key: source.ip, values: [x]"), format!("{at}.when[0]: source.ip: `x` is not an IP address")),
        (
            when("key: destination.port, values: [http]"),
            format!("{at}.when[0]: destination.port: `http` is not a port"),
        ),
        (
            when("key: source.principal, values: ['spiffe://x']"),
            format!("{at}.when[0].values[0]: `spiffe://x` matches"),
        ),
        (when("key: experimental.envoy.filters.a, values: [x]"), format!("{at}.when[0]: experimental.envoy")),
        (when("key: source.ip, value: [x]"), format!("{at}.when[0].value: `value` is not a field")),
        (policy("action: DENY"), "1 spec.rules: is empty, so it never matches".to_owned()),
        (policy("provider: {name: x}"), "1 spec.provider: is for action CUSTOM only".to_owned()),
        (policy("action: CUSTOM, rules: [{}]"), "1 spec.provider: is missing".to_owned()),
        (
            policy("action: CUSTOM, rules: [{}], provider: {name: x}"),
            "1 spec.provider.name: no MeshConfig declares".to_owned(),
        ),
        (
            policy("selector: {matchLabels: {a: b}, matchExpressions: []}"),
            "1 spec.selector.matchExpressions: ".to_owned(),
        ),
        (policy("selector: {matchLabels: {a: '*'}}"), "1 spec.selector.matchLabels: `a: *` is not a label".to_owned()),
        (
            policy("selector: {}, targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: g}]"),
            "1 spec.targetRefs: only one of".to_owned(),
        ),
        (
            policy("targetRefs: [{kind: Service, name: nope}]"),
            "1 spec.targetRefs[0].name: there is no Service nope".to_owned(),
        ),
        (
            policy("targetRef: {kind: Service, name: a, namespace: other}"),
            "1 spec.targetRef.namespace: must be default".to_owned(),
        ),
        (
            policy("targetRefs: [{kind: Deployment, group: apps, name: a}]"),
            "1 spec.targetRefs[0].kind: `Deployment`".to_owned(),
        ),
        (
            document("AuthorizationPolicy", ", annotations: {istio.io/dry-run: maybe}", ""),
            "1 metadata.annotations.istio.io/dry-run: is neither".to_owned(),
        ),
    ];
    for (yaml, expected) in table {
        let found = problems(&yaml);
        assert!(found.len() == 1 && found[0].starts_with(&expected), "{yaml}expected {expected}\nfound {found:#?}");
    }
}

#[test]
fn custom_knows_less_of_callers() {
    let custom = |rule: &str| {
        with_services(MESH) + &policy(&format!("action: CUSTOM, provider: {{name: asked}}, rules: [{{{rule}}}]"))
    };
    assert_eq!(problems(&custom("from: [{source: {ipBlocks: [10.0.0.1]}}]")), Vec::<String>::new());
    assert_problems(&custom("from: [{source: {namespaces: [a]}}]"), &["4 spec.rules[0].from[0].source: of the caller"]);
    assert_problems(&custom("when: [{key: request.auth.presenter, values: [a]}]"), &["4 spec.rules[0].when[0].key: "]);
    let dry = custom("").replace("{name: p}", "{name: p, annotations: {istio.io/dry-run: 'true'}}");
    assert_problems(&dry, &["4 metadata.annotations.istio.io/dry-run: CUSTOM has no dry run"]);
}

#[test]
fn providers_must_be_there() {
    let mesh = |providers: &str| {
        with_services(&format!(
            "apiVersion: outrigger.dev/v1alpha1\nkind: MeshConfig\nmetadata: {{name: m, namespace: istio-system}}\nspec: {{extensionProviders: [{providers}]}}\n"
        ))
    };
    let http = |fields: &str| {
        mesh(&format!(
            "{{name: a, envoyExtAuthzHttp: {{service: reviews.default.svc.cluster.local, port: 80{fields}}}}}"
        ))
    };
    assert_eq!(problems(&http("")), Vec::<String>::new());
    assert_problems(&mesh("{name: a}"), &["3 spec.extensionProviders[0]: needs one of"]);
    assert_problems(
        &mesh("{name: 'a|b', envoyExtAuthzGrpc: {service: x/reviews, port: 80}}"),
        &[
            "3 spec.extensionProviders[0].envoyExtAuthzGrpc.service: no Service",
            "3 spec.extensionProviders[0].name: `a|b`",
        ],
    );
    assert_problems(
        &mesh("{name: a, envoyExtAuthzGrpc: {service: default/reviews, port: 80}}"),
        &["3 spec.extensionProviders[0].envoyExtAuthzGrpc.port: is not of protocol grpc"],
    );
    assert_problems(
        &mesh("{name: a, opentelemetry: {service: default/reviews, port: 80}}"),
        &["3 spec.extensionProviders[0].opentelemetry.port: is not of protocol grpc"],
    );
    let traced = |name: &str, provider: &str| {
        let named = format!("spec: {{defaultProviders: {{tracing: [{name}]}}, extensionProviders");
        mesh(provider).replace("spec: {extensionProviders", &named)
    };
    let otel = "{name: a, opentelemetry: {service: default/reviews, port: 80, http: {path: /v1/traces}}}";
    assert_eq!(problems(&traced("a", otel)), Vec::<String>::new());
    assert_problems(&traced("b", otel), &["3 spec.defaultProviders.tracing: no provider is called b"]);
    let other = otel.replace("opentelemetry", "envoyExtAuthzHttp").replace(", http: {path: /v1/traces}", "");
    assert_problems(&traced("a", &other), &["3 spec.defaultProviders.tracing: a is not of kind"]);
    assert_problems(
        &mesh("{name: a, envoyExtAuthzHttp: {service: default/reviews, port: 81}}"),
        &["3 spec.extensionProviders[0].envoyExtAuthzHttp.port: reviews.default.svc.cluster.local has no port 81"],
    );
    for (field, place) in [
        ("statusOnError: '999'", "statusOnError"),
        ("pathPrefix: check", "pathPrefix"),
        ("headersToUpstreamOnAllow: ['*']", "headersToUpstreamOnAllow[0]"),
        ("includeRequestBodyInCheck: {maxRequestBytes: 0}", "includeRequestBodyInCheck.maxRequestBytes"),
        ("timeout: 0s", "timeout"),
        ("retries: 3", "retries"),
    ] {
        let expected = format!("3 spec.extensionProviders[0].envoyExtAuthzHttp.{place}: ");
        assert_problems(&http(&format!(", {field}")), &[&expected]);
    }
    assert_problems(
        &(with_services(MESH) + &MESH.replace("name: mesh", "name: two")),
        &["4 metadata.name: there is one"],
    );
    assert_problems(
        &with_services(&MESH.replace("istio-system", "default")),
        &["3 metadata.namespace: holds for the mesh: put it into istio-system"],
    );
    let other = MESH.replace("MeshConfig", "MeshConfg");
    assert_problems(&other, &["1 kind: outrigger.dev MeshConfg is not supported yet"]);
}

#[test]
fn istios_own_configuration_is_read_where_it_holds_here_too() {
    let map = |namespace: &str, mesh: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: {namespace}}}\ndata:\n  mesh: |-\n    {mesh}\n---\n"
        )
    };
    let providers = "{accessLogFile: /dev/stdout, ingressClass: istio, extensionProviders: [{name: zipkin, zipkin: {port: 1}}, {name: a, envoyExtAuthzHttp: {service: reviews.default.svc.cluster.local, port: 80}}]}";
    let world = loaded(&(with_services(&map("istio-system", providers))));
    let names: Vec<_> = world.mesh.extension_providers.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["a"]);
    assert_eq!(world.mesh.access_log_file, "/dev/stdout");
    assert_eq!(loaded(&with_services(&map("apps", providers))).mesh, MeshConfig::default(), "of another namespace");
    assert!(world.notes.iter().any(|note| note.ends_with("passed over: ingressClass")), "{:?}", world.notes);
    for (field, fine, wrong) in [
        ("rootNamespace", "istio-system", "mesh-config"),
        ("trustDomain", "cluster.local", "prod.example"),
        ("enableAutoMtls", "true", "false"),
        ("outboundTrafficPolicy", "{mode: ALLOW_ANY}", "{mode: REGISTRY_ONLY}"),
        ("meshMTLS", "{minProtocolVersion: TLSV1_2}", "{minProtocolVersion: TLSV1_3}"),
    ] {
        let of = |value: &str| map("istio-system", &format!("{{{field}: {value}}}"));
        assert_eq!(problems(&of(fine)), [""; 0], "{field}");
        assert_problems(&of(wrong), &[&format!("1 data.mesh: {field}: ")]);
    }
    let traced = "{defaultProviders: {tracing: [zipkin, otel]}, defaultConfig: {discoveryAddress: x, tracing: {zipkin: {}, sampling: 5}}, extensionProviders: [{name: zipkin, zipkin: {port: 1}}, {name: otel, opentelemetry: {service: reviews.default.svc.cluster.local, port: 80, http: {path: /v1, headers: []}, resourceDetectors: {}}}]}";
    let mesh = loaded(&with_services(&map("istio-system", traced))).mesh;
    assert_eq!(mesh.tracing().map(|(provider, share)| (provider.port, share)), Some((80, 5.0)));
    let wrong = providers.replace("port: 80", "prt: 80");
    assert_problems(&with_services(&map("istio-system", &wrong)), &["3 data.mesh: extensionProviders[0]"]);
    let both = with_services(MESH) + &map("istio-system", providers);
    assert_eq!(loaded(&both).mesh.extension_providers[0].name, "asked");
}

#[test]
fn tokens_need_keys() {
    let jwt = |fields: &str| document("RequestAuthentication", "", &format!("jwtRules: [{{{fields}}}]"));
    let keys = r#"'{"keys": [{"kty": "RSA", "n": "x", "e": "AQAB"}]}'"#;
    assert_eq!(problems(&jwt(&format!("issuer: a, jwks: {keys}"))), Vec::<String>::new());
    assert_eq!(problems(&jwt("jwksUri: 'https://a.example/k'")), Vec::<String>::new());
    let place = "1 spec.jwtRules[0]";
    for (fields, expected) in [
        ("issuer: a".to_owned(), ".jwksUri: is missing"),
        (format!("jwks: {keys}"), ".issuer: is missing"),
        (format!("issuer: a, jwks: {keys}, jwksUri: 'http://a/'"), ".jwks: and jwksUri are both there"),
        ("issuer: a, jwks: '{}'".to_owned(), ".jwks: is not a JSON Web Key Set"),
        ("issuer: a, jwksUri: 'ftp://x/y'".to_owned(), ".jwksUri: `ftp://x/y` must begin"),
        (format!("issuer: a, jwks: {keys}, audiences: ['']"), ".audiences[0]: must not be empty"),
        (format!("issuer: a, jwks: {keys}, fromHeaders: [{{name: 'a b'}}]"), ".fromHeaders[0].name: `a b` is not"),
        (format!("issuer: a, jwks: {keys}, outputPayloadToHeader: ':path'"), ".outputPayloadToHeader: `:path` is not"),
        (format!("issuer: a, jwks: {keys}, fromHeader: []"), ".fromHeader: `fromHeader` is not a field"),
        (
            format!("issuer: a, jwks: {keys}, outputClaimToHeaders: [{{header: a}}]"),
            ".outputClaimToHeaders[0]: missing",
        ),
    ] {
        assert_problems(&jwt(&fields), &[&format!("{place}{expected}")]);
    }
    let dry = document("RequestAuthentication", ", annotations: {istio.io/dry-run: 'true'}", "");
    assert_problems(&dry, &["1 metadata.annotations.istio.io/dry-run: a RequestAuthentication has no dry run"]);
}

#[test]
fn operators_are_told_what_they_may_not_expect() {
    let note = |yaml: &str, text: &str| {
        let world = loaded(yaml);
        assert!(world.notes.iter().any(|n| n.contains(text)), "{text} in {:?}", world.notes);
    };
    note(&policy("action: DENY, rules: [{to: [{operation: {methods: [GET]}}]}]"), "takes every connection");
    note(&rule("from: [{source: {requestPrincipals: ['*']}}]"), "no RequestAuthentication");
    note(&policy("targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: g}]"), "is not a sidecar");
    let ports = loaded(&policy("action: DENY, rules: [{to: [{operation: {methods: [GET], ports: ['80']}}]}]"));
    assert_eq!(ports.notes, Vec::<String>::new());
}

#[test]
fn policies_hold_in_their_scope() {
    let of = |namespace: &str, spec: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p, namespace: {namespace}}}\nspec: {{{spec}}}\n"
        )
    };
    let holds = |yaml: &str, namespace: &str, labels: &[(&str, &str)], services: &[&str]| {
        let world = loaded(yaml);
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let services: Vec<String> = services.iter().map(|s| (*s).to_owned()).collect();
        world.authorization(Place { namespace, labels: &labels, services: &services }).count() == 1
    };
    let (a, none) = (&[("app", "a"), ("v", "1")][..], &[][..]);
    let selected = "selector: {matchLabels: {app: a}}";
    assert!(holds(&of("istio-system", ""), "apps", none, &[]), "mesh");
    assert!(holds(&of("istio-system", selected), "apps", a, &[]), "workloads of the mesh");
    assert!(!holds(&of("istio-system", selected), "apps", none, &[]));
    assert!(holds(&of("apps", ""), "apps", none, &[]), "namespace");
    assert!(!holds(&of("apps", ""), "other", none, &[]));
    assert!(holds(&of("apps", selected), "apps", a, &[]), "workload");
    assert!(!holds(&of("apps", selected), "other", a, &[]));
    assert!(holds(&of("apps", "selector: {}"), "apps", none, &[]), "an empty selector selects all");
    let service = with_services(&of("default", "targetRefs: [{kind: Service, name: reviews}]"));
    assert!(holds(&service, "default", none, &["reviews"]), "service");
    assert!(!holds(&service, "default", none, &["other"]));
    assert!(!holds(&service, "other", none, &["reviews"]), "of its namespace");
}

#[test]
fn a_blank_in_a_security_policy_is_told_not_taken_for_absence() {
    let policy = |kind: &str, spec: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: p, creationTimestamp: null}}\nspec: {spec}\n"
        )
    };
    for (kind, spec, path) in [
        ("AuthorizationPolicy", "{rules: [{from: }]}", "spec.rules[0].from"),
        ("AuthorizationPolicy", "{action: , rules: [{}]}", "spec.action"),
        ("AuthorizationPolicy", "{selector: {matchLabels: }, rules: [{}]}", "spec.selector.matchLabels"),
        ("AuthorizationPolicy", "", "spec"),
        ("PeerAuthentication", "{mtls: {mode: }}", "spec.mtls.mode"),
        (
            "PeerAuthentication",
            "{selector: {matchLabels: {app: }}, mtls: {mode: STRICT}}",
            "spec.selector.matchLabels.app",
        ),
        ("RequestAuthentication", "{jwtRules: }", "spec.jwtRules"),
    ] {
        let found = problems(&policy(kind, spec));
        assert!(found.iter().any(|problem| problem.starts_with(&format!("1 {path}: is blank"))), "{spec}: {found:?}");
        // The same in a List.
        let item = policy(kind, spec).replace('\n', "\n  ");
        let found = problems(&format!("apiVersion: v1\nkind: List\nitems:\n- {item}"));
        assert!(
            found.iter().any(|problem| problem.contains(&format!("items[0].{path}: is blank"))),
            "{spec}: {found:?}"
        );
    }
    assert_eq!(problems(&policy("PeerAuthentication", "{mtls: {mode: STRICT}}\nstatus: null")), [""; 0]);
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: a, labels: null}\nspec: {selector: null, ports: [{port: 80, nodePort: null}]}\n";
    assert_eq!(problems(service), [""; 0], "elsewhere null is as good as nothing");
}

//! The documentation examples of Istio's security tasks: what is published is taken, and becomes what Istio makes of it.
//!
//! `testdata/security/NAME.json` holds what guards a port: rewritten with `OUTRIGGER_UPDATE_GOLDEN=1`, to be read.

use super::*;

fn path(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)
}

/// The world of some files below `testdata`.
pub(super) fn task(files: &[&str]) -> World {
    let dir = tempfile::tempdir().unwrap();
    for file in files {
        std::fs::copy(path(file), dir.path().join(file.replace('/', "-"))).unwrap();
    }
    load(dir.path()).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

pub(super) const HTTPBIN: (&str, &str) = ("foo", "10.244.1.20");
const TCP_ECHO: (&str, &str) = ("foo", "10.244.1.30");

/// The chains of `virtualInbound` for a port; of all other ports, if none.
pub(super) fn chains(resources: &Resources, port: Option<u16>) -> Vec<Value> {
    let listener = get(&resources.listeners, "virtualInbound");
    let all = listener["filter_chains"].as_array().unwrap().clone();
    let of = |chain: &Value| chain.pointer("/filter_chain_match/destination_port").and_then(Value::as_u64);
    all.into_iter().filter(|chain| of(chain) == port.map(u64::from)).collect()
}

/// What stands before the end of a chain, which is of HTTP or not.
pub(super) fn guards(chain: &Value) -> (bool, Vec<Value>) {
    let others = |filters: &Value| -> Vec<Value> {
        filters.as_array().unwrap().iter().filter(|filter| filter["name"] != "istio.stats").cloned().collect()
    };
    let mut filters = others(&chain["filters"]);
    let last = filters.pop().unwrap();
    if last["name"] != "envoy.filters.network.http_connection_manager" {
        return (false, filters);
    }
    assert_eq!(filters, Vec::<Value>::new(), "HTTP chains are guarded by HTTP filters");
    let mut filters = others(at(&last, "/typed_config/http_filters"));
    assert_eq!(filters.pop().unwrap()["name"], "envoy.filters.http.router");
    (true, filters)
}

/// The guards of a port as `{http, tcp}`; all chains of one kind have the same.
fn guarded(resources: &Resources, port: Option<u16>) -> Value {
    let mut found = json!({});
    for chain in chains(resources, port) {
        let (http, filters) = guards(&chain);
        let kind = if http { "http" } else { "tcp" };
        let filters = Value::Array(filters);
        match found.get(kind) {
            Some(same) => assert_eq!(*same, filters, "{kind}"),
            None => found[kind] = filters,
        }
    }
    found
}

/// Compares with the file, or writes it.
fn golden(name: &str, found: &Value) {
    let file = path("security").join(format!("{name}.json"));
    if std::env::var_os("OUTRIGGER_UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, serde_json::to_string_pretty(found).unwrap() + "\n").unwrap();
    }
    let expected: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert!(*found == expected, "{name} differs:\n{found:#}");
}

/// Name, further files, workload, port.
type Example<'a> = (&'a str, &'a [&'a str], (&'a str, &'a str), Option<u16>);

#[test]
fn published_examples() {
    let table: [Example<'_>; 14] = [
        ("allow-nothing", &[], HTTPBIN, Some(8080)),
        ("bookinfo-viewers", &["tasks/bookinfo.yaml"], ("default", "10.244.0.21"), Some(9080)),
        ("tcp-allow", &[], TCP_ECHO, Some(9000)),
        ("tcp-allow-get", &[], TCP_ECHO, Some(9000)),
        ("tcp-deny-get", &[], TCP_ECHO, Some(9000)),
        ("jwt", &[], HTTPBIN, Some(8080)),
        ("jwt-elsewhere", &["security/jwt.yaml"], HTTPBIN, None),
        ("deny", &[], HTTPBIN, Some(8080)),
        ("dry-run", &[], HTTPBIN, Some(8080)),
        ("custom", &[], HTTPBIN, Some(8080)),
        ("custom-elsewhere", &["security/custom.yaml"], HTTPBIN, None),
        ("custom-http", &[], HTTPBIN, Some(8080)),
        ("everything", &[], HTTPBIN, Some(8080)),
        ("everything-elsewhere", &["security/everything.yaml"], HTTPBIN, None),
    ];
    for (name, more, (namespace, ip), port) in table {
        let own = format!("security/{name}.yaml");
        let mut files = vec!["security/workloads.yaml"];
        files.extend(more);
        if path(&own).exists() {
            files.push(&own);
        }
        let resources = sidecar(&task(&files), namespace, ip);
        golden(name, &guarded(&resources, port));
        super::envoy::validate(&resources, name);
    }
}

#[test]
fn policies_reach_whom_they_select_and_nobody_else() {
    let without = task(&["security/workloads.yaml"]);
    let with = task(&["security/workloads.yaml", "security/deny.yaml"]);
    for (namespace, ip) in [TCP_ECHO, ("foo", "10.244.1.50"), ("bar", "10.9.9.9")] {
        assert!(sidecar(&without, namespace, ip) == sidecar(&with, namespace, ip), "{ip}");
    }
    let (mut before, mut after) = (sidecar(&without, HTTPBIN.0, HTTPBIN.1), sidecar(&with, HTTPBIN.0, HTTPBIN.1));
    assert_ne!(before.listeners.remove("virtualInbound"), after.listeners.remove("virtualInbound"));
    assert!(before == after, "one listener changes, and nothing else");
}

#[test]
fn a_service_is_guarded_at_its_port() {
    let policy = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: foo}\nspec:\n  targetRefs: [{kind: Service, group: core, name: httpbin}]\n";
    let workloads = std::fs::read_to_string(path("security/workloads.yaml")).unwrap();
    let world = world_of(&format!("{workloads}---\n{policy}"));
    let resources = sidecar(&world, HTTPBIN.0, HTTPBIN.1);
    let guarded_port = guarded(&resources, Some(8080));
    assert_eq!(guarded_port["http"].as_array().unwrap().len(), 1);
    let elsewhere = guarded(&resources, None);
    assert_eq!(elsewhere, json!({"http": [], "tcp": []}));
    assert_eq!(guarded(&sidecar(&world, TCP_ECHO.0, TCP_ECHO.1), Some(9000)), json!({"tcp": []}));
}

const OF_HTTPBIN: &str = "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: foo}\nspec: {targetRefs: [{kind: Service, name: httpbin}]}\n";

/// What guards a port of httpbin, as `more` documents and `pod`, in the place of its status, have it.
fn guards_of_httpbin(pod: &str, more: &str) -> Value {
    let workloads = std::fs::read_to_string(path("security/workloads.yaml")).unwrap();
    let workloads = workloads.replace("status: {podIP: 10.244.1.20}", &format!("status: {{{pod}}}"));
    let world = world_of(&format!("{workloads}{OF_HTTPBIN}{more}"));
    guarded(&sidecar(&world, HTTPBIN.0, HTTPBIN.1), Some(8080))
}

#[test]
fn a_service_is_guarded_while_its_pod_takes_no_traffic() {
    let slice = |ready: bool| {
        format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: s, namespace: foo, labels: {{kubernetes.io/service-name: httpbin}}}}\naddressType: IPv4\nendpoints: [{{addresses: [10.244.1.20], conditions: {{ready: {ready}}}}}]\nports: [{{name: http, port: 8080}}]\n"
        )
    };
    let ready = guards_of_httpbin("podIP: 10.244.1.20", "");
    assert_eq!(ready["http"].as_array().unwrap().len(), 1);
    let not_ready = "podIP: 10.244.1.20, conditions: [{type: Ready, status: 'False'}]";
    let elsewhere = "podIP: 10.244.1.21";
    for (pod, more) in [
        (not_ready, String::new()),
        ("podIP: 10.244.1.20", slice(false)),
        ("podIP: 10.244.1.20", slice(false).replace("10.244.1.20", "10.244.1.99")),
        (not_ready, slice(true)),
        (elsewhere, slice(false)),
    ] {
        assert_eq!(guards_of_httpbin(pod, &more)["http"], ready["http"], "{pod}{more}");
    }
}

#[test]
fn a_service_is_guarded_at_ports_that_a_sidecar_leaves_out() {
    let sidecar = "---\napiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: s, namespace: foo}\nspec: {ingress: [{port: {number: 9999, protocol: TCP, name: tcp}, defaultEndpoint: '127.0.0.1:9999'}]}\n";
    let found = guards_of_httpbin("podIP: 10.244.1.20", sidecar);
    for kind in ["http", "tcp"] {
        assert_eq!(found[kind].as_array().map(Vec::len), Some(1), "{found:#}");
    }
}

/// The clusters with keys for httpbin, by a rule for each URI.
fn keys_of_httpbin(uris: &[&str], more: &str) -> Vec<String> {
    let workloads = std::fs::read_to_string(path("security/workloads.yaml")).unwrap();
    let rules: Vec<_> = uris.iter().enumerate().map(|(n, uri)| format!("{{issuer: i{n}, jwksUri: '{uri}'}}")).collect();
    let rules = rules.join(", ");
    let world = world_of(&format!(
        "{workloads}---\napiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: r, namespace: foo}}\nspec: {{jwtRules: [{rules}]}}\n{more}"
    ));
    let resources = sidecar(&world, HTTPBIN.0, HTTPBIN.1);
    let filters = guarded(&resources, Some(8080))["http"].to_string();
    let asked = resources.clusters.keys().filter(|name| filters.contains(&format!("\"cluster\":\"{name}\"")));
    asked.cloned().collect()
}

#[test]
fn keys_with_tls_and_without_are_two_clusters() {
    let found = keys_of_httpbin(&["https://keys.example:8443/a", "http://keys.example:8443/a"], "");
    assert_eq!(found, ["jwks|8443||keys.example", "jwks|http|8443||keys.example"]);
}

#[test]
fn keys_come_from_no_service_that_is_private_to_others() {
    let entry = |export: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: e, namespace: bar}}\nspec: {{hosts: [keys.example], ports: [{{number: 80, name: http, protocol: HTTP}}], resolution: STATIC, endpoints: [{{address: 192.0.2.66}}], exportTo: ['{export}']}}\n"
        )
    };
    let uri = ["http://keys.example/keys"];
    assert_eq!(keys_of_httpbin(&uri, &entry("*")), ["outbound|80||keys.example"]);
    assert_eq!(keys_of_httpbin(&uri, &entry(".")), ["jwks|http|80||keys.example"]);
}

#[test]
fn keys_are_fetched_over_verified_tls() {
    let world = task(&["security/workloads.yaml", "security/jwt.yaml"]);
    let resources = sidecar(&world, HTTPBIN.0, HTTPBIN.1);
    let cluster = get(&resources.clusters, "jwks|443||raw.githubusercontent.com");
    assert_eq!(cluster["type"], "STRICT_DNS");
    let tls = at(&cluster, "/transport_socket/typed_config");
    assert_eq!(tls["sni"], "raw.githubusercontent.com");
    let names = "/common_tls_context/validation_context/match_typed_subject_alt_names";
    assert_eq!(at(tls, names), &json!([{"san_type": "DNS", "matcher": {"exact": "raw.githubusercontent.com"}}]));
    assert!(tls.pointer("/common_tls_context/validation_context/trusted_ca/filename").is_some());
    assert!(!sidecar(&world, TCP_ECHO.0, TCP_ECHO.1).clusters.keys().any(|name| name.starts_with("jwks|")));
}

#[test]
fn whom_policies_ask_is_reached_past_a_sidecar_that_imports_nothing() {
    let scoped = "---\napiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: s, namespace: foo}\nspec: {egress: [{hosts: ['~/*']}]}\n";
    let text = ["security/workloads.yaml", "security/custom.yaml"].map(|f| std::fs::read_to_string(path(f)).unwrap());
    let world = world_of(&format!("{}---\n{}{scoped}", text[0], text[1]));
    let clusters = sidecar(&world, HTTPBIN.0, HTTPBIN.1).clusters;
    assert!(clusters.contains_key("outbound|9000||ext-authz.foo.svc.cluster.local"), "{:?}", clusters.keys());
    assert!(!sidecar(&world, TCP_ECHO.0, TCP_ECHO.1).clusters.keys().any(|name| name.starts_with("outbound|")));
}

/// Our proxy refuses a listener with a filter it does not know, and asks no provider about opaque connections.
#[test]
fn our_own_proxy_denies_opaque_connections_that_envoy_would_ask_about() {
    let world = task(&["security/workloads.yaml", "security/custom.yaml"]);
    let resources = translate(&world, &node(ClientKind::Outrigger, HTTPBIN.0, HTTPBIN.1));
    let tcp = &guarded(&resources, None)["tcp"];
    assert_eq!(tcp.as_array().unwrap().len(), 1);
    assert_eq!(at(tcp, "/0/typed_config/rules/action"), "DENY");
    let policies = at(tcp, "/0/typed_config/rules/policies").as_object().unwrap();
    assert!(policies.keys().all(|name| name.ends_with("-deny-due-to-bad-CUSTOM-action")), "{policies:?}");
    assert_eq!(guarded(&resources, Some(8080))["http"].as_array().unwrap().len(), 2, "HTTP is asked about");
}

#[test]
fn other_names_of_the_trust_domain_count_as_its_own() {
    let text = std::fs::read_to_string(path("tasks/bookinfo.yaml")).unwrap();
    let viewers = std::fs::read_to_string(path("security/bookinfo-viewers.yaml")).unwrap();
    let mesh = "apiVersion: outrigger.dev/v1alpha1\nkind: MeshConfig\nmetadata: {name: m, namespace: istio-system}\nspec: {trustDomainAliases: [old.example]}\n";
    let world = world_of(&format!("{text}---\n{viewers}---\n{mesh}"));
    let resources = sidecar(&world, "default", "10.244.0.21");
    let listener = get(&resources.listeners, "virtualInbound").to_string();
    for domain in ["cluster.local", "old.example"] {
        let caller = format!(
            r#"{{"authenticated":{{"principal_name":{{"exact":"spiffe://{domain}/ns/default/sa/bookinfo-productpage"}}}}}}"#
        );
        assert!(listener.contains(&caller), "{caller}");
        let trusted = format!(r#"{{"prefix":"spiffe://{domain}/"}}"#);
        assert!(listener.contains(&trusted), "{domain}");
    }
    let reviews = get(&resources.clusters, "outbound|9080||reviews.default.svc.cluster.local").to_string();
    assert!(reviews.contains("spiffe://old.example/ns/default/sa/bookinfo-reviews"));
    super::envoy::validate(&resources, "aliases");
}

#[test]
fn strict_is_tried_before_it_is_enforced() {
    let dry = std::fs::read_to_string(path("security/peers.yaml")).unwrap();
    let dry = dry.replace(
        "  namespace: \"istio-system\"",
        "  namespace: istio-system\n  annotations: {istio.io/dry-run: \"true\"}",
    );
    let workloads = std::fs::read_to_string(path("security/workloads.yaml")).unwrap();
    let world = world_of(&format!("{workloads}---\n{dry}"));
    let resources = sidecar(&world, TCP_ECHO.0, TCP_ECHO.1);
    super::envoy::validate(&resources, "dry-run");
    let all = [Some(9000), Some(9003), None].map(|port| chains(&resources, port));
    assert_eq!(all.each_ref().map(Vec::len), [3, 5, 5], "PERMISSIVE is in force");
    for chain in all.iter().flatten() {
        let flag = chain.pointer("/metadata/filter_metadata/outrigger.dev~1dry_run");
        let expected = json!({"strict_mtls": true});
        assert_eq!(flag, chain.get("transport_socket").is_none().then_some(&expected), "{chain:#}");
    }
    // Enforced by the workload's own policy, and switched off on the port.
    let httpbin = sidecar(&world, HTTPBIN.0, HTTPBIN.1);
    let listener = get(&httpbin.listeners, "virtualInbound");
    assert!(!listener.to_string().contains("dry_run"));
    assert_eq!(chains(&httpbin, Some(8080)).len(), 1);
    assert_eq!(chains(&httpbin, None).len(), 2);
}

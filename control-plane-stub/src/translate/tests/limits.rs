use super::*;

const MUTUAL: &str = "tls";
const PLAIN: &str = "raw_buffer";

fn of(kind: ClientKind) -> (Resources, Value) {
    let world = world("limits");
    let resources = translate(&world, &node(kind, "shop", "10.244.9.1"));
    let inbound = get(&resources.listeners, "virtualInbound");
    (resources, inbound)
}

/// The filters of the chain for a port (0: of no port), and its routes if it carries HTTP.
fn chain(inbound: &Value, port: u64, transport: &str, http: bool) -> Vec<Value> {
    let found = inbound["filter_chains"].as_array().unwrap().iter().find(|chain| {
        let wanted = &chain["filter_chain_match"];
        wanted["destination_port"].as_u64().unwrap_or(0) == port
            && wanted["transport_protocol"] == transport
            && chain["name"] != "virtualInbound-blackhole"
            && chain["filters"].as_array().unwrap().last().unwrap()["name"].as_str().unwrap().contains("http") == http
    });
    found.unwrap_or_else(|| panic!("no chain {port} {transport} {http}"))["filters"].as_array().unwrap().clone()
}

fn manager(inbound: &Value, port: u64, transport: &str) -> Value {
    chain(inbound, port, transport, true).last().unwrap()["typed_config"].clone()
}

fn names(filters: &Value) -> Vec<&str> {
    filters.as_array().unwrap().iter().map(|filter| filter["name"].as_str().unwrap()).collect()
}

fn filter<'a>(manager: &'a Value, name: &str) -> &'a Value {
    let all = manager["http_filters"].as_array().unwrap();
    all.iter()
        .find(|f| f["name"] == name)
        .unwrap_or_else(|| panic!("no {name} in {:?}", names(&manager["http_filters"])))
}

#[test]
fn each_port_has_its_limits_in_order_and_those_alike_are_asked_about_at_once() {
    let (_, inbound) = of(ClientKind::Envoy);
    let of_port = |port| manager(&inbound, port, MUTUAL);
    let common = [
        "outrigger.ratelimit.shop/all",
        "outrigger.ratelimit.istio-system/mesh",
        "outrigger.ratelimit.shop/per-caller",
        "outrigger.ratelimit.shop/denied",
        "envoy.filters.http.router",
    ];
    let mut wanted = vec!["outrigger.ratelimit.keys"];
    wanted.extend(common);
    assert_eq!(names(&of_port(7000)["http_filters"]), wanted);
    wanted.insert(2, "outrigger.ratelimit.shop/keyed");
    assert_eq!(names(&of_port(8080)["http_filters"]), wanted);
    wanted.remove(2);
    wanted.insert(4, "outrigger.ratelimit.shop/elsewhere");
    assert_eq!(
        names(&of_port(6000)["http_filters"]),
        [
            "outrigger.ratelimit.keys",
            common[0],
            common[1],
            "outrigger.ratelimit.shop/elsewhere",
            common[2],
            common[3],
            common[4]
        ]
    );
    let manager = of_port(8080);
    let limits = &filter(&manager, common[2])["typed_config"];
    let first = |at: usize| limits["rate_limits"][at]["actions"][0].clone();
    assert_eq!(first(0)["header_value_match"]["descriptor_value"], "shop/per-caller");
    assert_eq!(first(1)["generic_key"], json!({"descriptor_key": "ratelimit", "descriptor_value": "shop/together"}));
    assert_eq!(limits["domain"], "outrigger");
    assert_eq!(at(limits, "/rate_limit_service/grpc_service/envoy_grpc/cluster_name"), "outrigger-ratelimit");
}

#[test]
fn a_local_limit_has_a_bucket_for_each_value_of_its_key() {
    let (_, inbound) = of(ClientKind::Envoy);
    let manager = manager(&inbound, 8080, MUTUAL);
    let all = &filter(&manager, "outrigger.ratelimit.shop/all")["typed_config"];
    let bucket = json!({"max_tokens": 1000, "tokens_per_fill": 1000, "fill_interval": "1s"});
    assert_eq!(all["token_bucket"], bucket);
    assert!(all["descriptors"].is_null() && all["rate_limits"].is_null());
    assert_eq!(at(all, "/filter_enforced/default_value/numerator"), 100);

    let keyed = &filter(&manager, "outrigger.ratelimit.shop/keyed")["typed_config"];
    assert_eq!(keyed["filter_enforced"]["default_value"]["numerator"].as_u64().unwrap_or(0), 0, "{keyed:#}");
    assert_eq!(
        (&keyed["status"]["code"], &keyed["max_dynamic_descriptors"]),
        (&json!("ServiceUnavailable"), &json!(500))
    );
    assert_eq!(keyed["enable_x_ratelimit_headers"], "DRAFT_VERSION_03");
    let keys = |at: usize| -> Vec<String> {
        let entries = keyed["descriptors"][at]["entries"].as_array().unwrap();
        entries.iter().map(|entry| entry["key"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(keys(0), ["ratelimit", "source_identity", "header:x-user", "path", "remote_address"]);
    assert_eq!(keys(1), ["ratelimit", "source_identity", "path", "remote_address"], "a request without the header");
    let bucket = json!({"max_tokens": 3, "tokens_per_fill": 10, "fill_interval": "60s"});
    assert_eq!(keyed["descriptors"][0]["token_bucket"], bucket);
    let conditions = at(keyed, "/rate_limits/0/actions/0/header_value_match/headers").as_array().unwrap();
    let texts: Vec<_> = conditions.iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(texts, [":method", ":path", "x-debug", "x-tier"]);
    assert_eq!(at(&conditions[0], "/string_match/safe_regex/regex"), "GET|POST");
    assert_eq!(at(&conditions[1], "/string_match/safe_regex/regex"), r"/cart\.html(\?.*)?");
    let skipped: Vec<_> = keyed["rate_limits"][0]["actions"].as_array().unwrap()[1..]
        .iter()
        .map(|action| {
            (
                action["request_headers"]["header_name"].as_str().unwrap(),
                !action["request_headers"]["skip_if_absent"].is_null(),
            )
        })
        .collect();
    assert_eq!(
        skipped,
        [
            ("x-outrigger-limit-identity", false),
            ("x-user", true),
            ("x-outrigger-limit-path", false),
            ("x-outrigger-limit-address", false)
        ]
    );
}

#[test]
fn no_client_writes_what_a_key_is_taken_from_and_no_application_sees_it() {
    let (_, inbound) = of(ClientKind::Envoy);
    for (transport, identity) in [(MUTUAL, "%DOWNSTREAM_PEER_URI_SAN%"), (PLAIN, "none")] {
        let manager = manager(&inbound, 8080, transport);
        let mutations = at(filter(&manager, "outrigger.ratelimit.keys"), "/typed_config/mutations/request_mutations");
        let mut steps = mutations.as_array().unwrap().chunks(2);
        let first = steps.next().unwrap();
        assert_eq!(first[0], json!({"remove": "x-outrigger-limit-identity"}));
        assert_eq!(at(&first[1], "/append/header/value"), identity);
        assert_eq!(at(&first[1], "/append/append_action"), "OVERWRITE_IF_EXISTS_OR_ADD");
        assert_eq!(steps.len(), 2);
        let removed = at(&manager, "/route_config/virtual_hosts/0/request_headers_to_remove");
        let ours = ["x-outrigger-limit-identity", "x-outrigger-limit-path", "x-outrigger-limit-address"];
        assert_eq!(*removed, json!(ours));
    }
}

#[test]
fn connections_are_limited_where_there_is_no_http() {
    let (_, inbound) = of(ClientKind::Envoy);
    for (port, transport) in [(9000, MUTUAL), (9000, PLAIN), (7000, PLAIN), (0, MUTUAL)] {
        let filters = json!(chain(&inbound, port, transport, false));
        let wanted = [
            "outrigger.ratelimit.shop/all",
            "outrigger.ratelimit.istio-system/mesh",
            "envoy.filters.network.tcp_proxy",
        ];
        assert_eq!(names(&filters), wanted, "{port} {transport}");
        assert_eq!(at(&filters, "/0/typed_config/share_key"), "shop/all");
        let entries = at(&filters, "/1/typed_config/descriptors/0/entries");
        assert_eq!(entries[0], json!({"key": "ratelimit", "value": "istio-system/mesh"}));
        assert_eq!(entries[1]["value"], "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%");
    }
}

#[test]
fn what_happens_without_the_service_is_the_operators_choice() {
    let (resources, inbound) = of(ClientKind::Outrigger);
    let manager8080 = manager(&inbound, 8080, MUTUAL);
    let deny = |name: &str, port| {
        let manager = manager(&inbound, port, MUTUAL);
        filter(&manager, name)["typed_config"]["failure_mode_deny"].as_bool().unwrap_or(false)
    };
    assert!(deny("outrigger.ratelimit.shop/elsewhere", 6000));
    assert!(!deny("outrigger.ratelimit.shop/denied", 8080), "what only counts denies nothing");
    assert!(!deny("outrigger.ratelimit.shop/per-caller", 8080));
    let fallbacks: Vec<_> = names(&manager8080["http_filters"])
        .into_iter()
        .filter(|name| name.ends_with(".fallback"))
        .map(str::to_owned)
        .collect();
    assert_eq!(fallbacks, ["outrigger.ratelimit.shop/per-caller.fallback"]);
    let fallback = filter(&manager8080, &fallbacks[0]);
    assert_eq!(fallback["disabled"], true);
    let buckets = fallback["typed_config"]["descriptors"].as_array().unwrap();
    let bucket = |at: usize| {
        (buckets[at]["entries"][0]["value"].as_str().unwrap(), &buckets[at]["token_bucket"]["tokens_per_fill"])
    };
    assert_eq!(buckets.len(), 3, "the second is of requests without the header too");
    assert_eq!(
        (bucket(0), bucket(1), bucket(2)),
        (("shop/per-caller", &json!(50)), ("shop/together", &json!(100)), ("shop/together", &json!(100)))
    );
    let replicas = get(&resources.clusters, "outrigger.ratelimit.shop/per-caller.replicas");
    let hosts = at(&replicas, "/load_assignment/endpoints/0/lb_endpoints").as_array().unwrap();
    assert_eq!(hosts.len(), 2, "as many as the limit selects");
    let (resources, inbound) = of(ClientKind::Envoy);
    let manager = manager(&inbound, 8080, MUTUAL);
    assert!(!names(&manager["http_filters"]).iter().any(|name| name.ends_with(".fallback")));
    assert!(!resources.clusters.keys().any(|name| name.ends_with(".replicas")));
}

#[test]
fn the_service_is_the_control_plane_or_the_one_that_is_named() {
    let (resources, inbound) = of(ClientKind::Envoy);
    let own = get(&resources.clusters, "outrigger-ratelimit");
    assert_eq!(own["type"], "STRICT_DNS");
    assert_eq!(at(&own, "/transport_socket/typed_config/sni"), "outrigger-control.outrigger-system.svc");
    let expected = at(
        &own,
        "/transport_socket/typed_config/common_tls_context/combined_validation_context/default_validation_context/match_typed_subject_alt_names/0",
    );
    assert_eq!(*expected, json!({"san_type": "DNS", "matcher": {"exact": "outrigger-control.outrigger-system.svc"}}));
    let elsewhere = manager(&inbound, 6000, MUTUAL);
    let elsewhere = &filter(&elsewhere, "outrigger.ratelimit.shop/elsewhere")["typed_config"];
    assert_eq!(elsewhere["domain"], "edge");
    let cluster = at(elsewhere, "/rate_limit_service/grpc_service/envoy_grpc/cluster_name").as_str().unwrap();
    assert_eq!(cluster, "outbound|8081||rls.infra.svc.cluster.local");
    assert!(resources.clusters.contains_key(cluster));
}

#[test]
fn a_sidecar_that_does_not_import_the_service_has_its_cluster_all_the_same() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/limits/all.yaml");
    let mut text = std::fs::read_to_string(dir).unwrap();
    text += "---\napiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: s, namespace: shop}\nspec: {egress: [{hosts: ['./*']}]}\n";
    let resources = sidecar(&world_of(&text), "shop", "10.244.9.1");
    let name = "outbound|8081||rls.infra.svc.cluster.local";
    assert!(resources.clusters.contains_key(name) && resources.endpoints.contains_key(name));
}

#[test]
fn the_rate_limit_service_knows_the_limits_that_are_asked_of_it() {
    let limits = crate::translate::limits(&world("limits"));
    let mut names: Vec<_> = limits.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["istio-system/mesh", "shop/denied", "shop/per-caller", "shop/together"]);
    assert_eq!(limits["istio-system/mesh"].namespace, None);
    assert_eq!(limits["shop/denied"].namespace.as_deref(), Some("shop"));
    assert!(!limits["shop/denied"].enforced && limits["shop/together"].enforced);
    assert_eq!(limits["shop/per-caller"].keys, ["source_identity"]);
    assert_eq!(limits["shop/per-caller"].rate.burst, 5);
}

#[test]
fn a_limit_with_a_selector_knows_the_accounts_of_the_selected() {
    let pod = |name: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec: {{serviceAccountName: {name}}}\nstatus: {{podIP: 10.1.0.{}}}\n---\n",
            name.len()
        )
    };
    let limit = |name: &str, selector: &str| {
        format!(
            "apiVersion: outrigger.dev/v1alpha1\nkind: RateLimit\nmetadata: {{name: {name}}}\nspec: {{{selector}scope: global, rate: {{requests: 1, per: day}}}}\n---\n"
        )
    };
    let yaml = pod("web") + &pod("other") + &limit("all", "") + &limit("one", "selector: {matchLabels: {app: web}}, ");
    let limits = crate::translate::limits(&world_of(&yaml));
    assert_eq!(limits["default/all"].accounts, None);
    let accounts = limits["default/one"].accounts.as_ref().unwrap();
    let account = |name: &str| ("default".to_owned(), name.to_owned());
    assert_eq!(accounts.selected, [account("web")].into());
    assert_eq!(*accounts.known, [account("web"), account("other")].into());
}

#[test]
fn who_is_not_selected_is_not_limited() {
    let resources = sidecar(&world("limits"), "infra", "10.244.9.9");
    let inbound = get(&resources.listeners, "virtualInbound");
    let filters = manager(&inbound, 8081, MUTUAL);
    let wanted = ["outrigger.ratelimit.keys", "outrigger.ratelimit.istio-system/mesh", "envoy.filters.http.router"];
    assert_eq!(names(&filters["http_filters"]), wanted);
}

#[test]
fn envoy_accepts_limits() {
    for ip in ["10.244.9.1", "10.244.9.9"] {
        let namespace = if ip == "10.244.9.9" { "infra" } else { "shop" };
        envoy::validate(&sidecar(&world("limits"), namespace, ip), ip);
    }
}

//! `testdata/traffic`: every setting of VirtualService and DestinationRule, and what Envoy is told.

use super::*;

const CLIENT: &str = "10.9.9.9";

fn routes(port: &str, host: &str) -> Vec<Value> {
    let config = get(&sidecar(&world("traffic"), "default", CLIENT).routes, port);
    let hosts = config["virtual_hosts"].as_array().unwrap();
    hosts.iter().find(|h| h["name"] == host).unwrap()["routes"].as_array().unwrap().clone()
}

fn shop(port: &str) -> Vec<Value> {
    routes(port, &format!("shop.default.svc.cluster.local:{port}"))
}

fn cluster(name: &str) -> Value {
    get(&sidecar(&world("traffic"), "default", CLIENT).clusters, &format!("{name}.default.svc.cluster.local"))
}

#[test]
fn a_route_with_everything() {
    let routes = shop("80");
    let route = &routes[0];
    assert_eq!((&route["name"], &route["stat_prefix"]), (&json!("checkout.post"), &json!("checkout")));
    assert_eq!(
        route["match"],
        json!({
            "prefix": "/checkout",
            "headers": [
                {"name": ":method", "string_match": {"exact": "POST"}},
                {"name": ":authority", "string_match": {"prefix": "shop"}},
                {"name": ":scheme", "string_match": {"exact": "http"}},
                {"name": "x-any", "present_match": true},
                {"name": "x-user", "string_match": {"safe_regex": {"regex": "a.*"}}},
                {"name": "x-bot", "present_match": true, "invert_match": true},
                {"name": "x-old", "string_match": {"prefix": "v0"}, "invert_match": true, "treat_missing_header_as_empty": true},
            ],
            "query_parameters": [{"name": "page", "string_match": {"exact": "1"}}],
        })
    );
    assert_eq!(at(&routes[1], "/match/safe_regex/regex"), "(?i)/c(art)?");
    let action = &route["route"];
    assert_eq!(
        action["weighted_clusters"]["clusters"],
        json!([
            {"name": "outbound|80|v1|shop.default.svc.cluster.local", "weight": 75,
             "response_headers_to_add": [{"header": {"key": "x-v", "value": "1"}}]},
            {"name": "outbound|80|v2|shop.default.svc.cluster.local", "weight": 25, "host_rewrite_literal": "two.example"},
        ])
    );
    assert_eq!((&action["timeout"], &action["max_grpc_timeout"]), (&json!("2s"), &json!("2s")));
    assert_eq!(action["regex_rewrite"], json!({"pattern": {"regex": "^/c(.*)"}, "substitution": "/k\\1"}));
    assert_eq!(action["host_rewrite_literal"], "shop.internal");
    assert_eq!(
        action["retry_policy"],
        json!({
            "retry_on": "5xx,reset,retriable-status-codes", "num_retries": 4, "per_try_timeout": "0.400s",
            "retriable_status_codes": [502],
            "retry_priority": {"name": "envoy.retry_priorities.previous_priorities", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
                "update_frequency": 2}},
            "retry_back_off": {"base_interval": "0.050s", "max_interval": "0.500s"},
        })
    );
    let mirror = |cluster: &str, fraction: Value| {
        json!({"cluster": format!("outbound|80||{cluster}.default.svc.cluster.local"),
               "runtime_fraction": {"default_value": fraction}, "trace_sampled": false})
    };
    assert_eq!(
        action["request_mirror_policies"],
        json!([
            mirror("stock", json!({"numerator": 125_000, "denominator": "MILLION"})),
            mirror("carts", json!({"numerator": 100})),
        ]),
        "a share of nothing is no mirror"
    );
}

#[test]
fn faults_and_cors_are_told_to_their_filters() {
    let routes = shop("80");
    let config = &routes[0]["typed_per_filter_config"];
    assert_eq!(
        config["envoy.filters.http.fault"],
        json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
            "delay": {"fixed_delay": "3s", "percentage": {"numerator": 2500, "denominator": "MILLION"}},
            "abort": {"grpc_status": 14, "percentage": {"numerator": 1}},
        })
    );
    let all = json!({"default_value": {"numerator": 100}});
    assert_eq!(
        config["envoy.filters.http.cors"],
        json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy",
            "allow_origin_string_match": [
                {"exact": "https://a.example"}, {"prefix": "https://b."}, {"safe_regex": {"regex": "https://.*\\.c\\.example"}}],
            "allow_methods": "GET,POST", "allow_headers": "x-a,x-b", "expose_headers": "x-c", "max_age": "86400",
            "allow_credentials": true, "filter_enabled": all, "forward_not_matching_preflights": false,
        })
    );
    let last = routes.last().unwrap();
    let cors = &last["typed_per_filter_config"]["envoy.filters.http.cors"];
    assert_eq!(cors["allow_origin_string_match"], json!([{"safe_regex": {"regex": ".*"}}]));
    assert_eq!(cors["forward_not_matching_preflights"], true);
    assert_eq!(at(last, "/route/request_mirror_policies/0/runtime_fraction/default_value/numerator"), 50);
    assert_eq!(last["route"].get("retry_policy"), None);
    let listener = get(&sidecar(&world("traffic"), "default", CLIENT).listeners, "0.0.0.0_80");
    let filters = at(&listener, "/filter_chains/0/filters/0/typed_config/http_filters").as_array().unwrap();
    let names: Vec<_> = filters.iter().map(|f| f["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["envoy.filters.http.fault", "envoy.filters.http.cors", "envoy.filters.http.router"]);
    assert_eq!(filters[0]["typed_config"].as_object().unwrap().len(), 1, "empty in the chain");
}

#[test]
fn redirects_name_a_port_only_where_it_is_not_the_usual_one() {
    let redirect = |port: &str, at: usize| shop(port)[at]["redirect"].clone();
    assert_eq!(
        redirect("80", 2),
        json!({"host_redirect": "other.example", "path_redirect": "/new", "scheme_redirect": "https",
               "port_redirect": 8443, "response_code": "TEMPORARY_REDIRECT"})
    );
    assert_eq!(redirect("80", 3), json!({"path_redirect": "/here"}));
    assert_eq!(redirect("81", 3), json!({"path_redirect": "/here", "port_redirect": 81}));
}

#[test]
fn a_delegate_speaks_within_the_conditions_of_its_root() {
    let routes = shop("80");
    let paths: Vec<_> = routes.iter().map(|r| r["match"].get("prefix").cloned().unwrap_or_default()).collect();
    assert_eq!(paths[4..6], [json!("/api/items"), json!("/api/")], "what contradicts the root is left out");
    assert_eq!((&routes[4]["name"], at(&routes[4], "/route/timeout")), (&json!("items"), &json!("7s")));
    assert_eq!(at(&routes[5], "/direct_response/status"), 404);
    let notes = world("traffic").notes;
    assert!(notes.iter().any(|n| n.contains("route of VirtualService default/api contradicts")), "{notes:?}");
}

#[test]
fn hashing_is_told_to_the_cluster_and_to_the_routes() {
    let routes = shop("81");
    let hashed = routes.iter().find(|r| r["route"]["cluster"] == "outbound|81|hashed|shop.default.svc.cluster.local");
    let action = &hashed.unwrap()["route"];
    assert_eq!(action["hash_policy"], json!([{"cookie": {"name": "user", "path": "/", "ttl": "0s"}}]));
    assert_eq!(action["retry_policy"].get("retry_host_predicate"), None, "a retry stays with its endpoint");
    let ring = cluster("outbound|81|hashed|shop");
    assert_eq!(
        (&ring["lb_policy"], &ring["ring_hash_lb_config"]),
        (&json!("RING_HASH"), &json!({"minimum_ring_size": "2048"}))
    );
    assert_eq!(cluster("outbound|80||stock")["ring_hash_lb_config"]["minimum_ring_size"], "4096");
    assert_eq!(cluster("outbound|80||carts")["ring_hash_lb_config"]["minimum_ring_size"], "1024");
    // Without a VirtualService too.
    let stock = super::traffic::routes("80", "stock.default.svc.cluster.local:80");
    assert_eq!(at(&stock[0], "/route/hash_policy"), &json!([{"header": {"header_name": "x-user"}}]));
    let carts = super::traffic::routes("80", "carts.default.svc.cluster.local:80");
    assert_eq!(at(&carts[0], "/route/hash_policy"), &json!([{"query_parameter": {"name": "id"}}]));
    let maglev = cluster("outbound|82||shop");
    assert_eq!((&maglev["lb_policy"], &maglev["maglev_lb_config"]), (&json!("MAGLEV"), &json!({"table_size": "1009"})));
    let listener = get(&sidecar(&world("traffic"), "default", CLIENT).listeners, "10.96.2.1_82");
    assert_eq!(at(&listener, "/default_filter_chain/filters/0/typed_config/hash_policy"), &json!([{"source_ip": {}}]));
}

#[test]
fn a_policy_with_everything() {
    let shop = cluster("outbound|80||shop");
    assert_eq!(shop["connect_timeout"], "0.250s");
    assert_eq!(
        shop["circuit_breakers"]["thresholds"],
        json!([{"max_connections": u32::MAX, "max_pending_requests": 11, "max_requests": 12, "max_retries": 13,
                "retry_budget": {"budget_percent": {"value": 25.0}, "min_retry_concurrency": 10}, "track_remaining": true}])
    );
    assert_eq!(
        at(&shop, "/upstream_connection_options/tcp_keepalive"),
        &json!({"keepalive_probes": 3, "keepalive_time": 60, "keepalive_interval": 10})
    );
    let options = &shop["typed_extension_protocol_options"]["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"];
    assert_eq!(
        options["common_http_protocol_options"],
        json!({"idle_timeout": "90s", "max_requests_per_connection": 14, "max_connection_duration": "3600s"})
    );
    assert_eq!(at(options, "/explicit_http_config/http2_protocol_options/max_concurrent_streams"), 15);
    assert_eq!(
        shop["outlier_detection"],
        json!({
            "consecutive_5xx": 0, "enforcing_consecutive_5xx": 0, "consecutive_gateway_failure": 3,
            "enforcing_consecutive_gateway_failure": 100, "enforcing_success_rate": 0,
            "split_external_local_origin_errors": true, "consecutive_local_origin_failure": 4,
            "enforcing_consecutive_local_origin_failure": 100, "enforcing_local_origin_success_rate": 0,
            "interval": "2s", "base_ejection_time": "10s", "max_ejection_percent": 30,
        })
    );
    assert_eq!(
        shop["common_lb_config"],
        json!({"healthy_panic_threshold": {"value": 40.0}, "locality_weighted_lb_config": {}})
    );
    assert_eq!(
        at(&shop, "/round_robin_lb_config/slow_start_config"),
        &json!({"slow_start_window": "30s", "min_weight_percent": {"value": 5.0},
                "aggression": {"default_value": 1.5, "runtime_key": "outrigger.slow_start.aggression"}})
    );
    assert_eq!(
        at(&cluster("outbound|80|v2|shop"), "/least_request_lb_config/slow_start_config"),
        &json!({"slow_start_window": "20s"})
    );
}

#[test]
fn a_port_replaces_the_policy_and_keeps_the_budget() {
    let tcp = cluster("outbound|82||shop");
    assert_eq!(tcp.get("outlier_detection"), None);
    assert_eq!(tcp["connect_timeout"], "10s");
    assert_eq!(at(&tcp, "/circuit_breakers/thresholds/0/retry_budget/min_retry_concurrency"), 10);
    // A subset inherits what it does not say itself.
    let subset = cluster("outbound|80|v2|shop");
    assert_eq!(subset["connect_timeout"], "0.250s");
    assert_eq!(at(&subset, "/outlier_detection/consecutive_gateway_failure"), 3);
}

#[test]
fn rules_of_one_host_are_taken_together() {
    let world = world("traffic");
    let notes = &world.notes;
    assert!(
        notes.iter().any(|n| n.contains("default/shop and shop-more are for shop.default")
            && n.contains("its subset v1 is not followed, its trafficPolicy is not followed")),
        "{notes:?}"
    );
    let endpoints = get(&sidecar(&world, "default", CLIENT).endpoints, "outbound|80|v1|shop.default.svc.cluster.local");
    assert_eq!(at(&endpoints, "/endpoints/0/lb_endpoints/0/endpoint/address/socket_address/address"), "10.244.2.1");
}

#[test]
fn a_rule_for_some_callers_comes_before_one_for_all() {
    let world = world("traffic");
    let name = "outbound|80||carts.default.svc.cluster.local";
    let of = |namespace: &str, ip: &str| get(&sidecar(&world, namespace, ip).clusters, name)["lb_policy"].clone();
    assert_eq!(of("default", "10.244.2.1"), "CLUSTER_PROVIDED");
    assert_eq!(of("default", CLIENT), "RING_HASH");
    assert_eq!(of("vault", "10.244.2.1"), "RING_HASH", "another namespace's Pod is nobody's shop");
}

#[test]
fn tcp_and_tls_routes_follow_sources_and_subnets() {
    let world = world("traffic");
    let clusters = |ip: &str, listener: &str| {
        let listener = get(&sidecar(&world, "default", ip).listeners, listener);
        let proxy = |chain: &Value| at(chain, "/filters/0/typed_config").clone();
        let chains = listener["filter_chains"].as_array().cloned().unwrap_or_default();
        (chains.iter().map(proxy).collect::<Vec<_>>(), proxy(&listener["default_filter_chain"]))
    };
    let (_, shop) = clusters("10.244.2.1", "10.96.2.1_82");
    assert_eq!(shop["cluster"], "outbound|90||carts.default.svc.cluster.local");
    let (special, other) = clusters(CLIENT, "10.96.2.1_82");
    assert_eq!(special[0]["weighted_clusters"]["clusters"].as_array().unwrap().len(), 2);
    assert_eq!(other["cluster"], "outbound|82||shop.default.svc.cluster.local");
    let (special, _) = clusters(CLIENT, "10.96.2.1_443");
    assert_eq!(special[0]["cluster"], "outbound|443|v1|shop.default.svc.cluster.local");
}

#[test]
fn latencies_count_where_a_rule_says_so() {
    let yaml = |annotations: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {{clusterIP: 10.0.0.1, ports: [{{name: http, port: 80}}]}}\n---\n\
             apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: a, annotations: {{{annotations}}}}}\nspec:\n  host: a\n  \
             subsets: [{{name: r, trafficPolicy: {{loadBalancer: {{simple: ROUND_ROBIN}}}}}}]\n"
        )
    };
    let metadata = |annotations: &str, subset: &str| {
        let resources = sidecar(&world_of(&yaml(annotations)), "default", CLIENT);
        super::envoy::validate(&resources, annotations);
        let name = format!("outbound|80|{subset}|a.default.svc.cluster.local");
        get(&resources.clusters, &name).get("metadata").cloned()
    };
    let asked = json!({"filter_metadata": {"outrigger.load_balancing": {"latency_aware": true}}});
    assert_eq!(metadata("outrigger/latency-aware: 'true'", ""), Some(asked));
    assert_eq!(metadata("outrigger/latency-aware: 'true'", "r"), None);
    assert_eq!(metadata("", ""), None);
}

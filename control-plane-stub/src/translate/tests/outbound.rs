//! Clusters, endpoints and listeners of the outbound side, and those of gRPC clients.

use super::*;

#[test]
fn translation_is_deterministic() {
    for (name, namespace, ip) in
        [("bookinfo", "default", "10.244.0.10"), ("mixed", "apps", "10.244.1.1"), ("traffic", "default", "10.244.2.9")]
    {
        let world = world(name);
        for kind in [ClientKind::Envoy, ClientKind::Grpc] {
            let node = node(kind, namespace, ip);
            let first = translate(&world, &node);
            for _ in 0..5 {
                assert!(first == translate(&world, &node), "{name}");
            }
        }
    }
}

#[test]
fn both_sidecars_get_the_same_but_for_metrics() {
    let world = world("mixed");
    let of = |kind| translate(&world, &node(kind, "apps", "10.244.1.1"));
    let (theirs, ours) = (of(ClientKind::Envoy), of(ClientKind::Outrigger));
    assert!(theirs.routes == ours.routes);
    let kinds = |all: Resources| [all.clusters, all.endpoints, all.listeners];
    for (theirs, ours) in kinds(theirs).into_iter().zip(kinds(ours)) {
        assert!(theirs.keys().eq(ours.keys()));
        for (name, resource) in &ours {
            assert_eq!(without_metrics(json_of(resource)), json_of(&theirs[name]), "{name}");
        }
    }
}

/// A resource without what is there for metrics only.
fn without_metrics(value: Value) -> Value {
    match value {
        Value::Array(items) => {
            items.into_iter().filter(|item| item["name"] != "istio.stats").map(without_metrics).collect()
        }
        Value::Object(mut fields) => {
            if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut)
                && let Some(all) = metadata.get_mut("filter_metadata").and_then(Value::as_object_mut)
            {
                all.remove("istio");
                if all.is_empty() {
                    metadata.remove("filter_metadata");
                }
                if metadata.is_empty() {
                    fields.remove("metadata");
                }
            }
            fields.into_iter().map(|(key, value)| (key, without_metrics(value))).collect()
        }
        other => other,
    }
}

#[test]
fn listeners_of_bookinfo() {
    let resources = sidecar(&world("bookinfo"), "default", "10.244.0.10");
    let names: Vec<_> = resources.listeners.keys().map(String::as_str).collect();
    // `stats` is of unknown protocol, `tcp` is opaque, HTTP shares one listener.
    assert_eq!(names, ["0.0.0.0_9080", "10.96.0.12_9090", "10.96.0.13_3306", "virtualInbound", "virtualOutbound"]);
    let http = get(&resources.listeners, "0.0.0.0_9080");
    assert_eq!(http["bind_to_port"], false);
    assert_eq!(at(&http, "/additional_addresses/0/address/socket_address/address"), "::");
    assert_eq!(at(&http, "/filter_chains/0/filters/0/typed_config/rds/route_config_name"), "9080");
    assert_eq!(at(&http, "/default_filter_chain/filters/0/typed_config/cluster"), "PassthroughCluster");
    let tcp = get(&resources.listeners, "10.96.0.13_3306");
    assert_eq!(tcp.get("listener_filters"), None, "a server-first protocol must not wait");
    assert_eq!(
        at(&tcp, "/default_filter_chain/filters/0/typed_config/cluster"),
        "outbound|3306||mysqldb.default.svc.cluster.local"
    );
    let virtual_outbound = get(&resources.listeners, "virtualOutbound");
    assert_eq!(virtual_outbound["use_original_dst"], true);
    assert_eq!(at(&virtual_outbound, "/filter_chains/0/filter_chain_match/destination_port"), 15001);
    assert_eq!(at(&virtual_outbound, "/filter_chains/0/filters/0/typed_config/cluster"), "BlackHoleCluster");
    assert_eq!(at(&virtual_outbound, "/filter_chains/1/filters/0/typed_config/cluster"), "PassthroughCluster");
}

#[test]
fn a_detected_port_has_a_cluster_for_each_outcome() {
    let resources = sidecar(&world("bookinfo"), "default", "10.244.0.10");
    let listener = get(&resources.listeners, "10.96.0.12_9090");
    assert_eq!(
        at(&listener, "/filter_chains/0/filters/0/typed_config/rds/route_config_name"),
        "ratings.default.svc.cluster.local:9090"
    );
    let opaque = "outbound-tcp|9090||ratings.default.svc.cluster.local";
    assert_eq!(at(&listener, "/default_filter_chain/filters/0/typed_config/cluster"), opaque);
    assert_eq!(listener["listener_filters_timeout"], "0.100s");
    let alpn = |name: &str| {
        let cluster = get(&resources.clusters, name);
        at(&cluster, "/transport_socket_matches/0/transport_socket/typed_config/common_tls_context/alpn_protocols")
            .clone()
    };
    assert_eq!(alpn(opaque), json!(["istio"]));
    let http = "outbound|9090||ratings.default.svc.cluster.local";
    assert_eq!(alpn(http), json!(["istio-http/1.1", "istio-h2", "istio"]));
    let service = |name: &str| at(&get(&resources.clusters, name), "/eds_cluster_config/service_name").clone();
    assert_eq!(service(opaque), service(http));
    assert!(!resources.endpoints.contains_key(opaque));
}

#[test]
fn mutual_tls_by_endpoint_with_exact_identities() {
    let resources = sidecar(&world("bookinfo"), "default", "10.244.0.10");
    let cluster = get(&resources.clusters, "outbound|9080||reviews.default.svc.cluster.local");
    assert_eq!(cluster["type"], "EDS");
    assert_eq!(cluster["lb_policy"], "RANDOM");
    let matches = &cluster["transport_socket_matches"];
    assert_eq!((&matches[0]["name"], &matches[0]["match"]), (&json!("tlsMode-istio"), &json!({"tlsMode": "istio"})));
    assert_eq!(matches[1]["name"], "tlsMode-disabled");
    let tls = at(matches, "/0/transport_socket/typed_config");
    assert_eq!(tls["sni"], "outbound_.9080_._.reviews.default.svc.cluster.local");
    let sans = at(
        tls,
        "/common_tls_context/combined_validation_context/default_validation_context/match_typed_subject_alt_names",
    );
    assert_eq!(
        *sans,
        json!([
            {"san_type": "URI", "matcher": {"exact": "spiffe://cluster.local/ns/default/sa/bookinfo-reviews"}},
            {"san_type": "URI", "matcher": {"exact": "spiffe://cluster.local/ns/default/sa/bookinfo-reviews-v2"}},
        ])
    );
    let v2 = get(&resources.clusters, "outbound|9080|v2|reviews.default.svc.cluster.local");
    assert_eq!(v2.get("lb_policy"), None, "ROUND_ROBIN is the first value of the enum");
    assert_eq!(
        at(&v2, "/transport_socket_matches/0/transport_socket/typed_config/sni"),
        "outbound_.9080_.v2_.reviews.default.svc.cluster.local"
    );
    let endpoints = get(&resources.endpoints, "outbound|9080|v2|reviews.default.svc.cluster.local");
    assert_eq!(
        endpoints,
        json!({"cluster_name": "outbound|9080|v2|reviews.default.svc.cluster.local", "endpoints": [{
            "locality": {}, "load_balancing_weight": 1, "lb_endpoints": [{
                "endpoint": {"address": {"socket_address": {"address": "10.244.0.12", "port_value": 9080}}},
                "metadata": {"filter_metadata": {"envoy.transport_socket_match": {"tlsMode": "istio"}}},
                "load_balancing_weight": 1}]}]})
    );
    // No sidecar, no metadata.
    let mysql = get(&resources.endpoints, "outbound|3306||mysqldb.default.svc.cluster.local");
    assert_eq!(at(&mysql, "/endpoints/0/lb_endpoints/0").get("metadata"), None);
}

#[test]
fn an_outside_service_with_tls_is_verified_by_name() {
    let resources = sidecar(&world("mixed"), "apps", "10.244.1.1");
    let cluster = get(&resources.clusters, "outbound|80||api.example.com");
    assert_eq!(cluster["type"], "STRICT_DNS");
    assert_eq!(cluster["connect_timeout"], "3s");
    assert_eq!(at(&cluster, "/circuit_breakers/thresholds/0/max_connections"), 10);
    assert_eq!(at(&cluster, "/outlier_detection/consecutive_5xx"), 7);
    assert_eq!(at(&cluster, "/upstream_connection_options/tcp_keepalive/keepalive_time"), 60);
    assert_eq!(
        at(&cluster, "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address/port_value"),
        443
    );
    let tls = at(&cluster, "/transport_socket/typed_config");
    assert_eq!(tls["sni"], "api.example.com");
    let validation = at(tls, "/common_tls_context/validation_context");
    assert_eq!(
        validation["match_typed_subject_alt_names"],
        json!([{"san_type": "DNS", "matcher": {"exact": "api.example.com"}}])
    );
    assert!(validation["trusted_ca"]["filename"].is_string());
    // The same host on 443 is the application's TLS: chosen by SNI, untouched.
    let plain = get(&resources.clusters, "outbound|443||api.example.com");
    assert!(plain.get("transport_socket").is_none() && plain.get("transport_socket_matches").is_none());
    let listener = get(&resources.listeners, "0.0.0.0_443");
    assert_eq!(at(&listener, "/filter_chains/0/filter_chain_match/server_names"), &json!(["api.example.com"]));
}

#[test]
fn addresses_prefixes_pods_and_ipv6() {
    let resources = sidecar(&world("mixed"), "apps", "192.0.2.10");
    let names: Vec<_> = resources.listeners.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "0.0.0.0_443",
            "0.0.0.0_7100",
            "0.0.0.0_80",
            "0.0.0.0_9999",
            "10.244.1.1_6379",
            "10.244.1.2_6379",
            "10.244.1.2_80",
            "10.97.0.1_5432",
            "fd00:10:96::20_7000",
            "fd00:10:96::20_7443",
            "virtualInbound",
            "virtualOutbound",
        ]
    );
    let cluster_of = |name: &str| {
        at(&get(&resources.listeners, name), "/default_filter_chain/filters/0/typed_config/cluster").clone()
    };
    // Of a headless service the Pod with a sidecar gets mutual TLS, the other goes as the client meant it.
    assert_eq!(cluster_of("10.244.1.1_6379"), "outbound-pod|6379||web.apps.svc.cluster.local");
    assert_eq!(cluster_of("10.244.1.2_6379"), "PassthroughCluster");
    assert_eq!(cluster_of("10.244.1.2_80"), "PassthroughCluster");
    let pod = get(&resources.clusters, "outbound-pod|6379||web.apps.svc.cluster.local");
    assert_eq!((&pod["type"], pod.get("transport_socket").is_some()), (&json!("ORIGINAL_DST"), true));
    let subnet = get(&resources.listeners, "0.0.0.0_9999");
    assert_eq!(
        at(&subnet, "/filter_chains/0/filter_chain_match/prefix_ranges"),
        &json!([{"address_prefix": "198.51.100.0", "prefix_len": 24}])
    );
    assert_eq!(get(&resources.clusters, "outbound|9999||subnet.example.com")["type"], "ORIGINAL_DST");
}

#[test]
fn opaque_routes_by_subnet_weight_and_sni() {
    let resources = sidecar(&world("mixed"), "apps", "10.244.1.1");
    let listener = get(&resources.listeners, "fd00:10:96::20_7000");
    assert_eq!(
        at(&listener, "/filter_chains/0/filters/0/typed_config/weighted_clusters/clusters"),
        &json!([
            {"name": "outbound-tcp|7000||echo.apps.svc.cluster.local", "weight": 80},
            {"name": "outbound|5432||legacy.apps.example", "weight": 20},
        ])
    );
    assert_eq!(at(&listener, "/filter_chains/0/filter_chain_match/prefix_ranges/0/prefix_len"), 64);
    let tls = get(&resources.listeners, "fd00:10:96::20_7443");
    assert_eq!(at(&tls, "/filter_chains/0/filter_chain_match/server_names/0"), "echo.apps.svc.cluster.local");
    assert_eq!(at(&tls, "/filter_chains/0/filters/0/typed_config/cluster"), "outbound|5432||legacy.apps.example");
    assert_eq!(
        at(&tls, "/default_filter_chain/filters/0/typed_config/cluster"),
        "outbound|7443||echo.apps.svc.cluster.local"
    );
}

#[test]
fn a_destination_rule_overrides_what_is_automatic() {
    let yaml = |mode: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {{clusterIP: 10.0.0.1, ports: [{{name: http, port: 80}}, {{name: any, port: 81}}]}}\n---\n\
             apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: a}}\nspec: {{host: a, trafficPolicy: {{tls: {{mode: {mode}}}, connectionPool: {{http: {{h2UpgradePolicy: UPGRADE}}}}}}}}\n"
        )
    };
    let plain = sidecar(&world_of(&yaml("DISABLE")), "default", "10.9.9.9");
    let cluster = get(&plain.clusters, "outbound|80||a.default.svc.cluster.local");
    assert!(cluster.get("transport_socket").is_none() && cluster.get("transport_socket_matches").is_none());
    assert!(!plain.clusters.contains_key("outbound-tcp|81||a.default.svc.cluster.local"), "plaintext needs no twin");
    let mutual = sidecar(&world_of(&yaml("ISTIO_MUTUAL")), "default", "10.9.9.9");
    let cluster = get(&mutual.clusters, "outbound|80||a.default.svc.cluster.local");
    let common = at(&cluster, "/transport_socket/typed_config/common_tls_context");
    assert_eq!(common["alpn_protocols"], json!(["istio-h2", "istio", "h2"]));
    // Nobody is known there: still only the namespace will do.
    assert_eq!(
        at(common, "/combined_validation_context/default_validation_context/match_typed_subject_alt_names"),
        &json!([{"san_type": "URI", "matcher": {"prefix": "spiffe://cluster.local/ns/default/sa/"}}])
    );
}

#[test]
fn proxyless_grpc_clients_get_what_grpc_takes() {
    let world = world("bookinfo");
    let resources = translate(&world, &node(ClientKind::Grpc, "default", "10.9.9.9"));
    for name in
        ["reviews:9080", "reviews.default:9080", "reviews.default.svc:9080", "reviews.default.svc.cluster.local:9080"]
    {
        let listener = get(&resources.listeners, name);
        let manager = at(&listener, "/api_listener/api_listener");
        assert_eq!(at(manager, "/rds/route_config_name"), "outbound|9080||reviews.default.svc.cluster.local");
        assert_eq!(at(manager, "/http_filters/1/name"), "envoy.filters.http.router");
        assert!(listener.get("address").is_none());
    }
    let routes = get(&resources.routes, "outbound|9080||reviews.default.svc.cluster.local");
    assert_eq!(at(&routes, "/virtual_hosts/0/routes/1/route/weighted_clusters/clusters/0/weight"), 90);
    for (name, cluster) in &resources.clusters {
        let cluster = json_of(cluster);
        assert_eq!(cluster["type"], "EDS", "{name}");
        assert!(cluster.get("transport_socket_matches").is_none() && cluster.get("lb_policy").is_none(), "{name}");
        let endpoints = get(&resources.endpoints, name);
        for locality in endpoints["endpoints"].as_array().into_iter().flatten() {
            assert!(
                locality.get("locality").is_some() && locality["load_balancing_weight"].as_u64() > Some(0),
                "{name}"
            );
        }
    }
    let foreign = translate(&world, &node(ClientKind::Grpc, "other", "10.9.9.9"));
    assert!(!foreign.listeners.contains_key("reviews:9080") && foreign.listeners.contains_key("reviews.default:9080"));
}

#[test]
fn export_to_hides_services() {
    let world = world_of(
        "apiVersion: v1\nkind: Service\nmetadata: {name: a, annotations: {networking.istio.io/exportTo: '.'}}\nspec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}]}\n",
    );
    assert!(sidecar(&world, "default", "10.9.9.9").clusters.contains_key("outbound|80||a.default.svc.cluster.local"));
    assert!(!sidecar(&world, "other", "10.9.9.9").clusters.keys().any(|name| name.starts_with("outbound|")));
}

#[test]
fn names_shared_by_routes_go_to_the_first() {
    let world = world_of(
        "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: a}
spec: {hosts: [a.example, b.example], addresses: [10.0.0.1], resolution: DNS, ports: [{number: 443, name: tls, protocol: TLS}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a}
spec:
  hosts: [a.example, b.example]
  tls:
  - match: [{sniHosts: [a.example, b.example]}]
    route: [{destination: {host: a.example}}]
",
    );
    let resources = sidecar(&world, "default", "10.9.9.9");
    let listener = get(&resources.listeners, "10.0.0.1_443");
    let names: Vec<_> = listener["filter_chains"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| at(c, "/filter_chain_match/server_names").clone())
        .collect();
    assert_eq!(names, [json!(["a.example", "b.example"])]);
}

#[test]
fn proxyless_grpc_clients_get_faults_limits_and_rings_but_no_cors() {
    let resources = translate(&world("traffic"), &node(ClientKind::Grpc, "default", "10.9.9.9"));
    let manager = get(&resources.listeners, "shop:80");
    let filters = at(&manager, "/api_listener/api_listener/http_filters");
    assert_eq!((&filters[0]["name"], &filters[0]["is_optional"]), (&json!("envoy.filters.http.fault"), &json!(true)));
    let routes = get(&resources.routes, "outbound|80||shop.default.svc.cluster.local");
    let route = at(&routes, "/virtual_hosts/0/routes/0");
    let configs: Vec<_> = route["typed_per_filter_config"].as_object().unwrap().keys().collect();
    assert_eq!(configs, ["envoy.filters.http.fault"], "what it does not know it would refuse");
    assert_eq!(at(route, "/route/max_stream_duration/max_stream_duration"), "2s");
    let cluster = |name: &str| get(&resources.clusters, &format!("{name}.default.svc.cluster.local"));
    assert_eq!(cluster("outbound|80||stock")["lb_policy"], "RING_HASH");
    assert_eq!(cluster("outbound|80||carts").get("lb_policy"), None, "it cannot hash query parameters");
}

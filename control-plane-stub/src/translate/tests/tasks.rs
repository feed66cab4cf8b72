//! The documentation examples of Istio's traffic management tasks: what is published is taken, and becomes what the
//! pages say.

use super::*;

/// The world of some files of `testdata/tasks`.
fn task(files: &[&str]) -> World {
    let dir = tempfile::tempdir().unwrap();
    for file in files {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/tasks").join(file);
        std::fs::copy(&from, dir.path().join(file)).unwrap();
    }
    load(dir.path()).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

/// The routes to a service of Bookinfo, as a Pod of another service has them.
fn routes(world: &World, port: u16, host: &str) -> Vec<Value> {
    let resources = sidecar(world, "default", "10.244.0.10");
    super::envoy::validate(&resources, host);
    let config = get(&resources.routes, &port.to_string());
    let hosts = config["virtual_hosts"].as_array().unwrap();
    let host = format!("{host}.default.svc.cluster.local:{port}");
    let found = hosts.iter().find(|h| h["name"] == host.as_str()).unwrap();
    found["routes"].as_array().unwrap().clone()
}

fn subset(service: &str, version: &str) -> Value {
    json!(format!("outbound|9080|{version}|{service}.default.svc.cluster.local"))
}

#[test]
fn request_routing() {
    let all = task(&["bookinfo.yaml", "virtual-service-all-v1.yaml"]);
    for service in ["productpage", "reviews", "ratings", "details"] {
        let routes = routes(&all, 9080, service);
        assert_eq!(routes.len(), 1);
        assert_eq!(routes[0]["route"]["cluster"], subset(service, "v1"));
    }
    let jason = routes(&task(&["bookinfo.yaml", "virtual-service-reviews-test-v2.yaml"]), 9080, "reviews");
    assert_eq!(at(&jason[0], "/match/headers"), &json!([{"name": "end-user", "string_match": {"exact": "jason"}}]));
    assert_eq!(jason[0]["route"]["cluster"], subset("reviews", "v2"));
    assert_eq!(jason[1]["route"]["cluster"], subset("reviews", "v1"));
}

#[test]
fn subsets_hold_the_endpoints_of_their_version() {
    let world = task(&["bookinfo.yaml", "virtual-service-all-v1.yaml"]);
    let resources = sidecar(&world, "default", "10.244.0.10");
    for (version, ip) in [("v1", "10.244.0.21"), ("v2", "10.244.0.22"), ("v3", "10.244.0.23")] {
        let endpoints = get(&resources.endpoints, subset("reviews", version).as_str().unwrap());
        let members = at(&endpoints, "/endpoints/0/lb_endpoints").as_array().unwrap();
        assert_eq!(members.len(), 1, "{version}");
        assert_eq!(at(&members[0], "/endpoint/address/socket_address/address"), ip);
    }
}

#[test]
fn fault_injection() {
    let delay = routes(&task(&["bookinfo.yaml", "virtual-service-ratings-test-delay.yaml"]), 9080, "ratings");
    let fault = |route: &Value| route["typed_per_filter_config"]["envoy.filters.http.fault"].clone();
    let kind = "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault";
    assert_eq!(
        fault(&delay[0]),
        json!({"@type": kind, "delay": {"fixed_delay": "7s", "percentage": {"numerator": 100}}})
    );
    assert_eq!(fault(&delay[1]), Value::Null, "everybody else is not delayed");
    assert_eq!(at(&delay[0], "/match/headers/0/string_match/exact"), "jason");
    let abort = routes(&task(&["bookinfo.yaml", "virtual-service-ratings-test-abort.yaml"]), 9080, "ratings");
    assert_eq!(
        fault(&abort[0]),
        json!({"@type": kind, "abort": {"http_status": 500, "percentage": {"numerator": 100}}})
    );
    assert_eq!(fault(&abort[1]), Value::Null);
}

#[test]
fn traffic_shifting() {
    let half = routes(&task(&["bookinfo.yaml", "virtual-service-reviews-50-v3.yaml"]), 9080, "reviews");
    assert_eq!(
        at(&half[0], "/route/weighted_clusters/clusters"),
        &json!([
            {"name": subset("reviews", "v1"), "weight": 50},
            {"name": subset("reviews", "v3"), "weight": 50},
        ])
    );
    let whole = routes(&task(&["bookinfo.yaml", "virtual-service-reviews-v3.yaml"]), 9080, "reviews");
    assert_eq!(whole[0]["route"]["cluster"], subset("reviews", "v3"));
}

#[test]
fn tcp_traffic_shifting() {
    let world = task(&["tcp-echo.yaml", "tcp-echo-20-v2.yaml", "tcp-echo-20-v2-mesh.yaml"]);
    assert!(world.notes.iter().any(|n| n.contains("default/tcp-echo is for gateways (tcp-echo-gateway)")));
    assert!(world.notes.iter().any(|n| n.contains("Gateway")), "{:?}", world.notes);
    let resources = sidecar(&world, "default", "10.9.9.9");
    super::envoy::validate(&resources, "tcp-echo");
    let proxy = |name: &str| {
        let listener = get(&resources.listeners, name);
        at(&listener, "/default_filter_chain/filters/0/typed_config").clone()
    };
    assert_eq!(
        proxy("10.96.0.30_9000")["weighted_clusters"]["clusters"],
        json!([
            {"name": "outbound|9000|v1|tcp-echo.default.svc.cluster.local", "weight": 80},
            {"name": "outbound|9000|v2|tcp-echo.default.svc.cluster.local", "weight": 20},
        ])
    );
    assert_eq!(proxy("10.96.0.30_9001")["cluster"], "outbound|9001||tcp-echo.default.svc.cluster.local");
}

#[test]
fn request_timeouts() {
    let world = task(&["bookinfo.yaml", "request-timeouts.yaml"]);
    let reviews = routes(&world, 9080, "reviews");
    assert_eq!(reviews[0]["route"]["timeout"], "0.500s");
    assert_eq!(reviews[0]["route"]["cluster"], subset("reviews", "v2"));
    let ratings = routes(&world, 9080, "ratings");
    assert_eq!(at(&ratings[0], "/typed_per_filter_config/envoy.filters.http.fault/delay/fixed_delay"), "2s");
    // By default the timeout is disabled.
    assert_eq!(routes(&world, 9080, "details")[0]["route"]["timeout"], "0s");
}

#[test]
fn circuit_breaking() {
    let resources = sidecar(&task(&["httpbin.yaml", "circuit-breaking.yaml"]), "default", "10.9.9.9");
    super::envoy::validate(&resources, "httpbin");
    let cluster = get(&resources.clusters, "outbound|8000||httpbin.default.svc.cluster.local");
    let unlimited = u32::MAX;
    assert_eq!(
        at(&cluster, "/circuit_breakers/thresholds/0"),
        &json!({"max_connections": 1, "max_pending_requests": 1, "max_requests": unlimited, "max_retries": unlimited, "track_remaining": true})
    );
    let options =
        &cluster["typed_extension_protocol_options"]["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"];
    assert_eq!(options["common_http_protocol_options"], json!({"max_requests_per_connection": 1}));
    assert_eq!(
        cluster["outlier_detection"],
        json!({
            "consecutive_5xx": 1, "enforcing_consecutive_5xx": 100, "enforcing_success_rate": 0,
            "interval": "1s", "base_ejection_time": "180s", "max_ejection_percent": 100,
        })
    );
    assert_eq!(at(&cluster, "/common_lb_config/healthy_panic_threshold"), &json!({}));
    // The service's own sidecar holds the same limits.
    let own = sidecar(&task(&["httpbin.yaml", "circuit-breaking.yaml"]), "default", "10.244.0.41");
    let inbound = get(&own.clusters, "inbound|80||");
    assert_eq!(at(&inbound, "/circuit_breakers/thresholds/0/max_connections"), 1);
    assert_eq!(inbound.get("outlier_detection"), None);
}

#[test]
fn mirroring() {
    let routes = routes(&task(&["httpbin.yaml", "mirroring.yaml"]), 8000, "httpbin");
    assert_eq!(routes[0]["route"]["cluster"], "outbound|8000|v1|httpbin.default.svc.cluster.local");
    assert_eq!(
        routes[0]["route"]["request_mirror_policies"],
        json!([{
            "cluster": "outbound|8000|v2|httpbin.default.svc.cluster.local",
            "runtime_fraction": {"default_value": {"numerator": 100}},
            "trace_sampled": false,
        }])
    );
}

/// Each locality as `region/zone`, priority, weight.
fn localities(world: &World, ip: &str) -> Vec<(String, u64, u64)> {
    let resources = sidecar(world, "sample", ip);
    super::envoy::validate(&resources, ip);
    let assignment = get(&resources.endpoints, "outbound|5000||helloworld.sample.svc.cluster.local");
    let groups = assignment["endpoints"].as_array().unwrap().iter().map(|group| {
        let part = |name: &str| group["locality"][name].as_str().unwrap_or_default().to_owned();
        let priority = group["priority"].as_u64().unwrap_or(0);
        (format!("{}/{}", part("region"), part("zone")), priority, group["load_balancing_weight"].as_u64().unwrap())
    });
    groups.collect()
}

#[test]
fn locality_failover() {
    let world = task(&["helloworld.yaml", "locality-failover.yaml"]);
    let expected = [("region1/zone1", 0), ("region1/zone2", 1), ("region2/zone3", 2), ("region3/zone4", 3)];
    let expected = expected.map(|(place, priority)| (place.to_owned(), priority, 1));
    assert_eq!(localities(&world, "10.244.1.9"), expected);
    // From region3 there is no failover of its own: the other regions are alike.
    let from_3 = localities(&world, "10.244.4.1");
    let priority = |place: &str| from_3.iter().find(|(p, ..)| p == place).unwrap().1;
    assert_eq!((priority("region3/zone4"), priority("region1/zone1"), priority("region2/zone3")), (0, 1, 1));
    let cluster =
        get(&sidecar(&world, "sample", "10.244.1.9").clusters, "outbound|5000||helloworld.sample.svc.cluster.local");
    assert_eq!(cluster.get("lb_policy"), None, "round robin is the default on the wire");
    assert_eq!(at(&cluster, "/common_lb_config/locality_weighted_lb_config"), &json!({}));
    assert_eq!(at(&cluster, "/outlier_detection/consecutive_5xx"), 1);
}

#[test]
fn locality_distribute() {
    let world = task(&["helloworld.yaml", "locality-distribute.yaml"]);
    let expected = [("region1/zone1", 70), ("region1/zone2", 20), ("region3/zone4", 10)];
    assert_eq!(localities(&world, "10.244.1.9"), expected.map(|(place, weight)| (place.to_owned(), 0, weight)));
    // Nothing is said of clients elsewhere.
    assert_eq!(localities(&world, "10.244.3.1").len(), 4);
}

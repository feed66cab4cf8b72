//! The clusters that traffic ends at: their share, policy and endpoints.

use outrigger_wire::{
    json,
    pb::envoy::extensions::filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy::ClusterSpecifier},
};
use serde_json::{Map, Value};

use super::report::{EndpointReport, Target};
use crate::{
    model::World,
    resources::{Node, Resources},
    translate,
};

pub(super) fn of_tcp(world: &World, node: &Node, resources: &Resources, proxy: &TcpProxy) -> Vec<Target> {
    let weighted: Vec<(&str, u64)> = match &proxy.cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) => vec![(name, 1)],
        Some(ClusterSpecifier::WeightedClusters(all)) => {
            all.clusters.iter().map(|c| (c.name.as_str(), u64::from(c.weight))).collect()
        }
        None => Vec::new(),
    };
    shared(world, node, resources, &weighted)
}

pub(super) fn of_route(world: &World, node: &Node, resources: &Resources, route: &Value) -> Vec<Target> {
    let action = &route["route"];
    if let Some(name) = action["cluster"].as_str() {
        return shared(world, node, resources, &[(name, 1)]);
    }
    let weighted = action["weighted_clusters"]["clusters"].as_array().into_iter().flatten();
    let weighted: Vec<(&str, u64)> =
        weighted.filter_map(|c| Some((c["name"].as_str()?, c["weight"].as_u64().unwrap_or(0)))).collect();
    shared(world, node, resources, &weighted)
}

fn shared(world: &World, node: &Node, resources: &Resources, weighted: &[(&str, u64)]) -> Vec<Target> {
    let total: u64 = weighted.iter().map(|(_, weight)| weight).sum();
    let share = |weight: u64| 100.0 * weight as f64 / total.max(1) as f64;
    weighted.iter().map(|(name, weight)| target(world, node, resources, name, share(*weight))).collect()
}

pub(super) fn mirrors(world: &World, node: &Node, resources: &Resources, route: &Value) -> Vec<Target> {
    let policies = route["route"]["request_mirror_policies"].as_array().into_iter().flatten();
    let mirror = |policy: &Value| {
        let fraction = &policy["runtime_fraction"]["default_value"];
        let whole = if fraction["denominator"] == "MILLION" { 10_000.0 } else { 1.0 };
        let share = fraction["numerator"].as_f64().unwrap_or(0.0) / whole;
        Some(target(world, node, resources, policy["cluster"].as_str()?, share))
    };
    policies.filter_map(mirror).collect()
}

fn target(world: &World, node: &Node, resources: &Resources, name: &str, share: f64) -> Target {
    // direction|port|subset|host
    let parts: Vec<&str> = name.split('|').collect();
    let [_, port, subset, host] = parts[..] else {
        return Target { cluster: name.to_owned(), share, ..Default::default() };
    };
    let cluster = resources.clusters.get(name).and_then(|any| value(&any.type_url, &any.value));
    let sources = translate::sources(world, node, Some(host));
    let assignment = cluster.as_ref().and_then(|cluster| {
        let eds = cluster["eds_cluster_config"]["service_name"].as_str();
        match eds.and_then(|service| resources.endpoints.get(service)) {
            Some(any) => value(&any.type_url, &any.value),
            None => cluster.get("load_assignment").cloned(),
        }
    });
    Target {
        cluster: name.to_owned(),
        share,
        host: Some(host.to_owned()),
        port: port.parse().ok(),
        subset: Some(subset.to_owned()).filter(|s| !s.is_empty()),
        destination_rule: sources.destination_rule,
        exists: cluster.is_some(),
        policy: cluster.as_ref().map(policy).unwrap_or_default(),
        endpoints: assignment.as_ref().map(endpoints).unwrap_or_default(),
    }
}

fn value(type_url: &str, bytes: &[u8]) -> Option<Value> {
    json::bytes_to_value(type_url.rsplit('/').next()?, bytes).ok()
}

/// What of a cluster an operator sets: balancing, limits, ejection, security.
fn policy(cluster: &Value) -> Map<String, Value> {
    let mut policy = Map::new();
    let mut put = |name: &str, value: Value| {
        policy.insert(name.to_owned(), value);
    };
    put("lb_policy", cluster.get("lb_policy").cloned().unwrap_or_else(|| "ROUND_ROBIN".into()));
    for name in [
        "type",
        "connect_timeout",
        "ring_hash_lb_config",
        "maglev_lb_config",
        "round_robin_lb_config",
        "least_request_lb_config",
        "common_lb_config",
        "outlier_detection",
        "upstream_connection_options",
        "metadata",
    ] {
        if let Some(value) = cluster.get(name) {
            put(name, value.clone());
        }
    }
    if let Some(Value::Object(limits)) = cluster.pointer("/circuit_breakers/thresholds/0") {
        let said = |(name, value): &(&String, &Value)| **value != u32::MAX && name.as_str() != "track_remaining";
        let limits: Map<String, Value> = limits.iter().filter(said).map(|(n, v)| (n.clone(), v.clone())).collect();
        if !limits.is_empty() {
            put("circuit_breakers", limits.into());
        }
    }
    let http = "/typed_extension_protocol_options/envoy.extensions.upstreams.http.v3.HttpProtocolOptions/common_http_protocol_options";
    if let Some(value) = cluster.pointer(http) {
        put("common_http_protocol_options", value.clone());
    }
    let tls = match (cluster.get("transport_socket_matches"), cluster.get("transport_socket")) {
        (Some(_), _) => "mutual TLS with the mesh's identities where a sidecar takes it, else plaintext",
        (None, Some(_)) => "TLS",
        (None, None) => "plaintext",
    };
    put("security", tls.into());
    policy
}

fn endpoints(assignment: &Value) -> Vec<EndpointReport> {
    let mut all = Vec::new();
    for group in assignment["endpoints"].as_array().into_iter().flatten() {
        let part = |name: &str| group["locality"][name].as_str().unwrap_or_default();
        let locality = [part("region"), part("zone"), part("sub_zone")].join("/");
        for member in group["lb_endpoints"].as_array().into_iter().flatten() {
            let at = &member["endpoint"]["address"]["socket_address"];
            all.push(EndpointReport {
                address: format!("{}:{}", at["address"].as_str().unwrap_or_default(), at["port_value"]),
                priority: group["priority"].as_u64().unwrap_or(0),
                locality: locality.trim_end_matches('/').to_owned(),
                weight: member["load_balancing_weight"].as_u64().unwrap_or(1),
                mutual_tls: member.pointer("/metadata/filter_metadata/envoy.transport_socket_match/tlsMode").is_some(),
            });
        }
    }
    all.sort_by(|a, b| (a.priority, &a.address).cmp(&(b.priority, &b.address)));
    all
}

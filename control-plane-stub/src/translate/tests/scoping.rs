//! Sidecars and localities: what of the mesh a workload gets, and in which order.

use super::*;

const CAGED: &str = "10.244.2.9";

#[test]
fn a_sidecar_scopes_what_a_workload_gets() {
    let world = world("traffic");
    let resources = sidecar(&world, "default", CAGED);
    let has = |name: &str| resources.clusters.contains_key(name);
    assert!(has("outbound|80|v1|shop.default.svc.cluster.local") && has("outbound|80||hidden.vault.svc.cluster.local"));
    // Not imported, but the routes of what is imported lead there.
    assert!(has("outbound|80||stock.default.svc.cluster.local") && has("outbound|80||carts.default.svc.cluster.local"));
    let config = get(&resources.routes, "80");
    let names: Vec<_> =
        config["virtual_hosts"].as_array().unwrap().iter().map(|h| h["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(
        names,
        ["hidden.vault.svc.cluster.local:80", "shop.default.svc.cluster.local:80", "block_all"],
        "what only routes lead to has no name of its own"
    );
    assert!(!resources.listeners.contains_key("10.96.2.3_90"));
    assert_eq!(at(&config, "/virtual_hosts/2/routes/0/direct_response/status"), 502);
    let outbound = get(&resources.listeners, "virtualOutbound");
    assert_eq!(at(&outbound, "/filter_chains/1/filters/0/typed_config/cluster"), "BlackHoleCluster");
    let free = sidecar(&world, "default", "10.9.9.9");
    assert!(free.listeners.contains_key("10.96.2.3_90"));
    assert_eq!(
        at(&get(&free.listeners, "virtualOutbound"), "/filter_chains/1/filters/0/typed_config/cluster"),
        "PassthroughCluster"
    );
}

#[test]
fn a_sidecar_says_where_the_application_listens() {
    let resources = sidecar(&world("traffic"), "default", CAGED);
    let inbound: Vec<_> = resources.clusters.keys().filter(|n| n.starts_with("inbound|")).cloned().collect();
    assert_eq!(inbound, ["inbound|9080||", "inbound|9081||", "inbound|9082||"]);
    let web = get(&resources.clusters, "inbound|9080||");
    assert_eq!(web["type"], "STATIC");
    let address = at(&web, "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address");
    assert_eq!(address, &json!({"address": "127.0.0.1", "port_value": 8080}));
    assert_eq!(at(&web, "/circuit_breakers/thresholds/0/max_requests"), 7);
    let rpc = get(&resources.clusters, "inbound|9081||");
    assert_eq!(at(&rpc, "/original_dst_lb_config/upstream_port_override"), 8081);
    assert_eq!(at(&rpc, "/circuit_breakers/thresholds/0/max_requests"), 3);
    assert_eq!(get(&resources.clusters, "inbound|9082||")["type"], "ORIGINAL_DST");
    let listener = get(&resources.listeners, "virtualInbound");
    let ports: std::collections::BTreeSet<_> = listener["filter_chains"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|c| c["filter_chain_match"]["destination_port"].as_u64())
        .collect();
    assert_eq!(ports, [9080, 9081, 9082, 15006].into());
}

#[test]
fn the_sidecar_of_a_namespace_and_of_the_mesh() {
    let yaml = |sidecars: &str| {
        world_of(&format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {{clusterIP: 10.0.0.1, ports: [{{name: http, port: 80}}]}}\n---\n\
             apiVersion: v1\nkind: Service\nmetadata: {{name: b, namespace: other}}\nspec: {{clusterIP: 10.0.0.2, ports: [{{name: http, port: 80}}]}}\n---\n{sidecars}"
        ))
    };
    let rule = |namespace: &str, host: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: d, namespace: {namespace}}}\nspec: {{egress: [{{hosts: ['{host}']}}]}}\n---\n"
        )
    };
    let seen = |world: &World, namespace: &str| -> Vec<String> {
        let clusters = sidecar(world, namespace, "10.9.9.9").clusters;
        clusters.keys().filter(|n| n.starts_with("outbound|")).cloned().collect()
    };
    let (a, b) = ("outbound|80||a.default.svc.cluster.local", "outbound|80||b.other.svc.cluster.local");
    let mesh = yaml(&rule("istio-system", "./*"));
    assert_eq!(seen(&mesh, "default"), [a]);
    assert_eq!(seen(&mesh, "other"), [b], "the dot is the workload's own namespace");
    let both = yaml(&(rule("istio-system", "./*") + &rule("other", "*/*.default.svc.cluster.local")));
    assert_eq!(seen(&both, "other"), [a]);
    assert_eq!(seen(&yaml(&rule("default", "~/*")), "default"), Vec::<String>::new());
}

/// Addresses with their priorities.
fn turns(name: &str, ip: &str) -> Vec<(String, u64)> {
    let resources = sidecar(&world("traffic"), "default", ip);
    let assignment = get(&resources.endpoints, &format!("{name}.default.svc.cluster.local"));
    let groups = assignment["endpoints"].as_array().unwrap().iter();
    let mut all: Vec<_> = groups
        .flat_map(|group| {
            let priority = group["priority"].as_u64().unwrap_or(0);
            let members = group["lb_endpoints"].as_array().unwrap().iter();
            members.map(move |m| {
                (at(m, "/endpoint/address/socket_address/address").as_str().unwrap().to_owned(), priority)
            })
        })
        .collect();
    all.sort();
    all
}

fn pairs<const N: usize>(expected: [(&str, u64); N]) -> Vec<(String, u64)> {
    expected.map(|(ip, turn)| (ip.to_owned(), turn)).to_vec()
}

#[test]
fn near_endpoints_come_first() {
    // By labels, as the rule with ejection says.
    assert_eq!(turns("outbound|80||shop", "10.244.2.1"), pairs([("10.244.2.1", 0), ("10.244.2.2", 1)]));
    assert_eq!(turns("outbound|80||shop", "10.244.2.2"), pairs([("10.244.2.1", 1), ("10.244.2.2", 0)]));
    // A client of whom nothing is known is far from all of them, and priorities leave out no number.
    assert_eq!(turns("outbound|80||shop", "10.9.9.9"), pairs([("10.244.2.1", 0), ("10.244.2.2", 0)]));
    // As the Service asks, without any rule for it.
    assert_eq!(turns("outbound|80||stock", "10.244.2.2"), pairs([("10.244.2.3", 1), ("10.244.2.4", 0)]));
    // A port whose policy ejects nobody keeps all of them alike.
    assert_eq!(turns("outbound|82||shop", "10.244.2.1"), pairs([("10.244.2.1", 0), ("10.244.2.2", 0)]));
}

#[test]
fn a_client_may_say_where_it_is() {
    let world = world("traffic");
    let mut node = node(ClientKind::Envoy, "default", "10.9.9.9");
    node.locality = crate::model::Locality { region: "r1".into(), zone: "z2".into(), sub_zone: String::new() };
    let assignment = get(&translate(&world, &node).endpoints, "outbound|80||shop.default.svc.cluster.local");
    let first = assignment["endpoints"].as_array().unwrap().iter().find(|g| g.get("priority").is_none()).unwrap();
    assert_eq!(first["locality"], json!({"region": "r1", "zone": "z2"}));
}

#[test]
fn ejection_alone_prefers_the_nearest() {
    let yaml = |extra: &str| {
        let pod = |name: &str, locality: &str, ip: &str| {
            format!(
                "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: a, istio-locality: {locality}}}}}\nspec: {{}}\nstatus: {{podIP: {ip}}}\n"
            )
        };
        world_of(&format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {{clusterIP: 10.0.0.1, selector: {{app: a}}, ports: [{{name: http, port: 80}}]}}\n{}{}{}---\n\
             apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: a}}\nspec: {{host: a, trafficPolicy: {{outlierDetection: {{}}{extra}}}}}\n",
            pod("p1", "r1.z1.s1", "10.1.0.1"),
            pod("p2", "r1.z1.s2", "10.1.0.2"),
            pod("p3", "r2.z1", "10.1.0.3")
        ))
    };
    let groups = |world: &World| -> Vec<u64> {
        let assignment =
            get(&sidecar(world, "default", "10.1.0.1").endpoints, "outbound|80||a.default.svc.cluster.local");
        assignment["endpoints"].as_array().unwrap().iter().map(|g| g["priority"].as_u64().unwrap_or(0)).collect()
    };
    assert_eq!(groups(&yaml("")), [0, 1, 2]);
    assert_eq!(groups(&yaml(", loadBalancer: {localityLbSetting: {enabled: false}}")), [0, 0, 0]);
    let cluster = get(&sidecar(&yaml(""), "default", "10.1.0.1").clusters, "outbound|80||a.default.svc.cluster.local");
    assert_eq!(cluster["common_lb_config"].get("locality_weighted_lb_config"), None);
    assert_eq!(cluster["outlier_detection"], json!({"enforcing_success_rate": 0}), "five 5xx in a row, as Envoy does");
}

#[test]
fn a_port_of_a_sidecar_has_hosts_of_its_own() {
    let world = world_of(
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}, {name: tcp, port: 90}]}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {name: b}\nspec: {clusterIP: 10.0.0.2, ports: [{name: http, port: 80}, {name: tcp, port: 90}]}\n---\n\
         apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: d}\nspec:\n  egress:\n  \
         - {port: {number: 80, protocol: HTTP, name: web}, hosts: [./a.default.svc.cluster.local]}\n  \
         - {hosts: [./b.default.svc.cluster.local]}\n",
    );
    let resources = sidecar(&world, "default", "10.9.9.9");
    let config = get(&resources.routes, "80");
    let names: Vec<_> = config["virtual_hosts"].as_array().unwrap().iter().map(|h| h["name"].clone()).collect();
    assert_eq!(names, [json!("a.default.svc.cluster.local:80"), json!("allow_any")]);
    let bound: Vec<_> = resources.listeners.keys().filter(|name| name.ends_with("_90")).collect();
    assert_eq!(bound, ["10.0.0.2_90"], "port 90 is nobody's, so the listener without a port decides");
}

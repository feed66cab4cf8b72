//! ServiceEntries: where their traffic goes, by resolution, address, protocol and visibility.

use super::*;

fn entry(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n---\n"
    )
}

fn resources(yaml: &str) -> Resources {
    let resources = sidecar(&world_of(yaml), "default", "10.9.9.9");
    super::envoy::validate(&resources, yaml);
    resources
}

#[test]
fn resolutions_make_kinds_of_clusters() {
    let yaml = entry(
        "dns",
        "hosts: [dns.example], resolution: DNS, location: MESH_EXTERNAL, ports: [{number: 80, name: http, protocol: HTTP}], endpoints: [{address: a.example, locality: r1/z1, weight: 3}, {address: b.example, ports: {http: 8080}}]",
    ) + &entry(
        "one",
        "hosts: [one.example], resolution: DNS_ROUND_ROBIN, ports: [{number: 80, name: http, protocol: HTTP}]",
    ) + &entry(
        "fixed",
        "hosts: [fixed.example], resolution: STATIC, addresses: [10.97.0.9], ports: [{number: 9000, name: tcp, protocol: TCP}], endpoints: [{address: 192.0.2.1}, {address: 192.0.2.2}]",
    ) + &entry(
        "free",
        "hosts: ['*.free.example'], resolution: NONE, ports: [{number: 80, name: http, protocol: HTTP}]",
    );
    let resources = resources(&yaml);
    let cluster = |name: &str| get(&resources.clusters, name);
    let dns = cluster("outbound|80||dns.example");
    assert_eq!(dns["type"], "STRICT_DNS");
    let endpoints = at(&dns, "/load_assignment/endpoints").as_array().unwrap();
    let addresses: Vec<_> = endpoints
        .iter()
        .flat_map(|group| group["lb_endpoints"].as_array().unwrap())
        .map(|member| at(member, "/endpoint/address/socket_address").clone())
        .collect();
    assert_eq!(
        addresses,
        [json!({"address": "b.example", "port_value": 8080}), json!({"address": "a.example", "port_value": 80})]
    );
    assert_eq!(endpoints[1]["locality"], json!({"region": "r1", "zone": "z1"}));
    assert_eq!(endpoints[1]["load_balancing_weight"], 3);
    assert_eq!(cluster("outbound|80||one.example")["type"], "LOGICAL_DNS");
    assert_eq!(cluster("outbound|9000||fixed.example")["type"], "EDS");
    let free = cluster("outbound|80||*.free.example");
    assert_eq!((&free["type"], &free["lb_policy"]), (&json!("ORIGINAL_DST"), &json!("CLUSTER_PROVIDED")));
    let config = get(&resources.routes, "80");
    let hosts = config["virtual_hosts"].as_array().unwrap();
    let wild = hosts.iter().find(|h| h["name"] == "*.free.example:80").unwrap();
    assert_eq!(wild["domains"], json!(["*.free.example", "*.free.example:80"]));
    assert!(resources.listeners.contains_key("10.97.0.9_9000"));
}

#[test]
fn prefixes_and_names_tell_opaque_services_apart() {
    let yaml = entry(
        "net",
        "hosts: [net.example], addresses: [198.51.100.0/24, 203.0.113.0/25], ports: [{number: 9999, name: tcp, protocol: TCP}]",
    ) + &entry(
        "rest",
        "hosts: [rest.example], resolution: DNS, ports: [{number: 9999, name: tcp, protocol: TCP}]",
    ) + &entry(
        "tls",
        "hosts: [a.tls.example, '*.wild.example'], ports: [{number: 8443, name: tls, protocol: TLS}]",
    );
    let resources = resources(&yaml);
    let listener = get(&resources.listeners, "0.0.0.0_9999");
    let chains = listener["filter_chains"].as_array().unwrap();
    assert!(chains.iter().all(|c| at(c, "/filters/0/typed_config/cluster") == "outbound|9999||net.example"));
    let ranges = chains.iter().flat_map(|c| at(c, "/filter_chain_match/prefix_ranges").as_array().unwrap());
    let ranges: Vec<_> = ranges.map(|range| range["address_prefix"].as_str().unwrap()).collect();
    assert_eq!(ranges, ["198.51.100.0", "203.0.113.0"]);
    assert_eq!(at(&listener, "/default_filter_chain/filters/0/typed_config/cluster"), "outbound|9999||rest.example");
    let tls = get(&resources.listeners, "0.0.0.0_8443");
    let chains = tls["filter_chains"].as_array().unwrap();
    let mut names: Vec<_> = chains
        .iter()
        .map(|c| {
            let name = at(c, "/filter_chain_match/server_names/0").as_str().unwrap();
            (name.to_owned(), at(c, "/filters/0/typed_config/cluster").as_str().unwrap().to_owned())
        })
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            ("*.wild.example".to_owned(), "outbound|8443||*.wild.example".to_owned()),
            ("a.tls.example".to_owned(), "outbound|8443||a.tls.example".to_owned()),
        ]
    );
}

#[test]
fn an_entry_is_seen_where_it_is_exported_to() {
    let yaml = entry(
        "own",
        "hosts: [own.example], exportTo: [.], resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}]",
    ) + &entry(
        "some",
        "hosts: [some.example], exportTo: [a, b], resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}]",
    );
    let world = world_of(&yaml);
    let seen = |namespace: &str| -> Vec<String> {
        let clusters = sidecar(&world, namespace, "10.9.9.9").clusters;
        clusters.into_keys().filter(|name| name.starts_with("outbound|")).collect()
    };
    assert_eq!(seen("default"), ["outbound|80||own.example"]);
    assert_eq!(seen("b"), ["outbound|80||some.example"]);
    assert_eq!(seen("c"), Vec::<String>::new());
}

#[test]
fn workloads_of_the_mesh_are_selected_and_spoken_to_with_mutual_tls() {
    let workload = |name: &str, ip: &str, labels: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: {name}}}\nspec: {{address: {ip}, labels: {{{labels}}}, serviceAccount: vm, locality: r/z/s}}\n---\n"
        )
    };
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, labels: {app: vm, version: v2}}\nspec: {}\nstatus: {podIP: 10.1.0.9}\n---\n";
    let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: vm}\nspec: {host: vm.example, subsets: [{name: v1, labels: {version: v1}}]}\n---\n";
    let yaml = workload("vm-1", "192.0.2.10", "app: vm, version: v1")
        + &workload("vm-2", "192.0.2.11", "app: other")
        + pod
        + rule
        + &entry(
            "vm",
            "hosts: [vm.example], location: MESH_INTERNAL, resolution: STATIC, addresses: [10.97.0.1], ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}], workloadSelector: {labels: {app: vm}}",
        );
    let resources = resources(&yaml);
    let members = |name: &str| -> Vec<(String, bool)> {
        let assignment = get(&resources.endpoints, name);
        let groups = assignment["endpoints"].as_array().cloned().unwrap_or_default();
        let members = groups.iter().flat_map(|g| g["lb_endpoints"].as_array().unwrap());
        let member = |m: &Value| {
            let at = at(m, "/endpoint/address/socket_address");
            (format!("{}:{}", at["address"].as_str().unwrap(), at["port_value"]), m.get("metadata").is_some())
        };
        let mut all: Vec<_> = members.map(member).collect();
        all.sort();
        all
    };
    let (vm, pod) = (("192.0.2.10:8080".to_owned(), true), ("10.1.0.9:8080".to_owned(), false));
    assert_eq!(members("outbound|80||vm.example"), [pod, vm.clone()]);
    assert_eq!(members("outbound|80|v1|vm.example"), [vm]);
}

#[test]
fn a_wildcard_of_http_takes_the_name_of_each_request_for_tls() {
    let rule = |more: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: w}}\nspec: {{host: '*.example.com', trafficPolicy: {{tls: {{mode: SIMPLE{more}}}}}}}\n"
        )
    };
    let wild = entry(
        "w",
        "hosts: ['*.example.com'], location: MESH_EXTERNAL, resolution: NONE, ports: [{number: 443, name: http, protocol: HTTP}]",
    );
    let options = |more: &str| {
        let cluster = get(&resources(&(wild.clone() + &rule(more))).clusters, "outbound|443||*.example.com");
        let options = "/typed_extension_protocol_options/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
        let sni = at(&cluster, "/transport_socket/typed_config").get("sni").cloned();
        (cluster.pointer(options).unwrap().get("upstream_http_protocol_options").cloned(), sni)
    };
    let both = json!({"auto_sni": true, "auto_san_validation": true});
    assert_eq!(options(""), (Some(both), None));
    assert_eq!(options(", subjectAltNames: [a.example.com]").0, Some(json!({"auto_sni": true})));
    assert_eq!(options(", sni: a.example.com"), (None, Some(json!("a.example.com"))));
}

#[test]
fn the_ports_of_capture_are_left_to_it() {
    for port in [15001, 15006] {
        let yaml = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {{clusterIP: 10.0.0.1, ports: [{{name: http, port: {port}}}]}}\n---\n"
        ) + &entry(
            "b",
            &format!("hosts: [b.example], resolution: DNS, ports: [{{number: {port}, name: tcp, protocol: TCP}}]"),
        );
        let resources = resources(&yaml);
        assert!(!resources.listeners.contains_key(&format!("0.0.0.0_{port}")), "{:?}", resources.listeners.keys());
        assert!(resources.listeners.contains_key("virtualOutbound"));
    }
}

#[test]
fn a_subset_without_endpoints_is_no_cluster_that_envoy_refuses() {
    let yaml = entry(
        "one",
        "hosts: [one.example], resolution: DNS_ROUND_ROBIN, ports: [{number: 80, name: http, protocol: HTTP}]",
    ) + "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: d}\nspec: {host: one.example, subsets: [{name: v1, labels: {version: v1}}]}\n";
    let resources = resources(&yaml);
    assert_eq!(get(&resources.clusters, "outbound|80||one.example")["type"], "LOGICAL_DNS");
    // An empty one that resolves nothing.
    let type_of = |name: &str| get(&resources.clusters, name)["type"].clone();
    assert_eq!(type_of("outbound|80|v1|one.example"), "STRICT_DNS");
}

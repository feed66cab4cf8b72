use super::*;

#[test]
fn the_same_thing_twice() {
    let yaml = format!(
        "{SERVICES}apiVersion: v1\nkind: Service\nmetadata: {{name: reviews}}\nspec: {{clusterIP: 10.0.0.1, ports: [{{port: 80}}]}}\n"
    );
    let found = problems(&yaml);
    assert!(found.iter().any(|p| p.starts_with("3 metadata.name: Service default/reviews is also in")), "{found:?}");
    assert!(found.iter().any(|p| p.contains("is declared already in")), "{found:?}");
}

#[test]
fn two_virtual_services_for_a_host_part_only_by_visibility() {
    let vs = |name: &str, namespace: &str, export: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  \
             hosts: [reviews.default.svc.cluster.local]\n  exportTo: ['{export}']\n  http: [{{route: [{{destination: {{host: reviews.default.svc.cluster.local}}}}]}}]\n---\n"
        )
    };
    let both = with_services(&(vs("a", "default", "*") + &vs("b", "other", ".")));
    let world = loaded(&both);
    let host = "reviews.default.svc.cluster.local";
    let name = |world: &World, namespace: &str| world.virtual_service(namespace, host).map(|o| o.meta.name.clone());
    assert_eq!(name(&world, "default").as_deref(), Some("a"));
    assert_eq!(name(&world, "other").as_deref(), Some("b"), "narrower visibility counts first");
    let note = "VirtualService other/b (";
    assert!(world.notes.iter().any(|n| n.starts_with(note) && n.contains("not followed")), "{:?}", world.notes);
    let apart = loaded(&with_services(&(vs("a", "default", ".") + &vs("b", "other", "."))));
    assert_eq!(apart.virtual_service("other", host).map(|o| o.meta.name.as_str()), Some("b"));
    assert_eq!(apart.virtual_service("third", host), None);
}

#[test]
fn two_destination_rules_for_a_host() {
    let rule = |name: &str, namespace: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{host: reviews.default.svc.cluster.local}}\n---\n"
        )
    };
    let world = loaded(&with_services(&(rule("own", "default") + &rule("callers", "other"))));
    let name = |namespace: &str| {
        world
            .destination_rule((namespace, &Default::default()), "default", "reviews.default.svc.cluster.local")
            .map(|rule| rule.meta.name.clone())
    };
    assert_eq!(name("other").as_deref(), Some("callers"));
    assert_eq!(name("third").as_deref(), Some("own"));
}

#[test]
fn two_services_at_one_address() {
    let yaml = format!(
        "{SERVICES}apiVersion: v1\nkind: Service\nmetadata: {{name: thief}}\nspec: {{clusterIP: 10.0.0.1, ports: [{{port: 80}}]}}\n"
    );
    assert_problems(&yaml, &["3 spec.clusterIP: 10.0.0.1/32 port 80 is also the address of reviews.default"]);
}

#[test]
fn destination_rules_make_sense() {
    let yaml = with_services(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: r}\nspec:\n  host: revews\n  trafficPolicy:\n    \
         tls: {mode: MUTUAL}\n    outlierDetection: {maxEjectionPercent: 101}\n  subsets: [{name: a}, {name: a}]\n---\n\
         apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: s}\nspec:\n  host: reviews\n  trafficPolicy:\n    \
         loadBalancer: {simple: FAIR}\n    tunnel: {}\n    proxyProtocol: {version: V2}\n    connectionPool: {tcp: {connectTimeout: 0s}}\n",
    );
    assert_problems(
        &yaml,
        &[
            "3 spec.host: no Service or ServiceEntry declares revews.default.svc.cluster.local",
            "3 spec.subsets[1].name: the subset a is there twice",
            "3 spec.trafficPolicy.outlierDetection.maxEjectionPercent",
            "3 spec.trafficPolicy.tls.clientCertificate: mode MUTUAL needs",
            "3 spec.trafficPolicy.tls.privateKey: mode MUTUAL needs",
            "4 spec.trafficPolicy.connectionPool.tcp.connectTimeout: must be at least 1ms",
            "4 spec.trafficPolicy.loadBalancer.simple: unknown variant `FAIR`",
            "4 spec.trafficPolicy.proxyProtocol: is not supported yet",
            "4 spec.trafficPolicy.tunnel: is not supported yet",
        ],
    );
}

#[test]
fn service_entries_make_sense() {
    let entry = |name: &str, spec: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n---\n"
        )
    };
    let yaml = entry("a", "hosts: ['*.a.example'], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS")
        + &entry("b", "hosts: [b.example], ports: [{number: 80, name: x, protocol: FTP}], resolution: STATIC")
        + &entry("c", "hosts: ['*'], ports: [], endpoints: [{address: 'unix:///x'}]")
        + &entry("d", "hosts: [d.example], addresses: [10.0.0.0/33], ports: [{number: 80, name: http}]");
    assert_problems(
        &yaml,
        &[
            "1 spec.hosts[0]: a wildcard cannot be resolved",
            "2 spec.endpoints: resolution STATIC needs",
            "2 spec.ports[0].protocol: `FTP` is not one of",
            "3 spec.endpoints: resolution NONE goes where",
            "3 spec.endpoints[0].address: Unix domain sockets",
            "3 spec.hosts[0]: is not a DNS name",
            "3 spec.ports: needs at least one port",
            "4 spec.addresses[0]: `10.0.0.0/33` is neither",
        ],
    );
}

#[test]
fn gateways_are_noted_not_applied() {
    let yaml = with_services(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: edge}\nspec:\n  hosts: ['*']\n  gateways: [bookinfo-gateway]\n  http: [{route: [{destination: {host: reviews}}]}]\n",
    );
    let world = loaded(&yaml);
    assert_eq!(world.virtual_service("default", "reviews.default.svc.cluster.local"), None);
    assert!(
        world.notes.iter().any(|n| n.contains("default/edge is for gateways (bookinfo-gateway)")),
        "{:?}",
        world.notes
    );
}

#[test]
fn the_most_specific_pattern_wins() {
    let rule = |name: &str, host: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}}}\nspec: {{host: '{host}'}}\n---\n"
        )
    };
    let all = rule("all", "*")
        + &rule("suffix", "*.example.com")
        + &rule("longer", "*.a.example.com")
        + &rule("svc", "reviews");
    let world = loaded(&with_services(&all));
    let name = |host: &str| {
        world
            .destination_rule(("default", &Default::default()), "default", host)
            .map(|rule| rule.meta.name.clone())
            .unwrap()
    };
    assert_eq!(name("x.a.example.com"), "longer");
    assert_eq!(name("x.example.com"), "suffix");
    assert_eq!(name("a.example.com"), "suffix");
    assert_eq!(name("*.a.example.com"), "longer");
    assert_eq!(name("example.com"), "all");
    assert_eq!(name("reviews.default.svc.cluster.local"), "svc");
}

#[test]
fn an_address_that_stands_for_all_is_refused_and_a_captured_port_noted() {
    let service = |ip: &str, port: u16| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {{clusterIP: '{ip}', ports: [{{name: http, port: {port}}}]}}\n"
        )
    };
    for ip in ["0.0.0.0", "::"] {
        assert_problems(
            &service(ip, 80),
            &[&format!("1 spec.clusterIP: {}", if ip == "::" { "::/128" } else { "0.0.0.0/32" })],
        );
    }
    let world = loaded(&service("10.0.0.1", 15001));
    assert!(
        world.notes.iter().any(|note| note.contains("port 15001 is one of the sidecar's own")),
        "{:?}",
        world.notes
    );
    assert!(loaded(&service("10.0.0.1", 15002)).notes.is_empty());
}

#[test]
fn tls_to_a_wildcard_of_opaque_bytes_needs_a_name() {
    let yaml = |protocol: &str, more: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: w}}\nspec: {{hosts: ['*.example.com'], location: MESH_EXTERNAL, resolution: NONE, ports: [{{number: 9443, name: p, protocol: {protocol}}}]}}\n---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: w}}\nspec: {{host: '*.example.com', trafficPolicy: {{tls: {{mode: SIMPLE{more}}}}}}}\n"
        )
    };
    for protocol in ["TCP", "TLS"] {
        assert_problems(&yaml(protocol, ""), &["2 spec.trafficPolicy.tls: needs sni or subjectAltNames"]);
        for more in [", sni: a.example.com", ", subjectAltNames: [a.example.com]", ", insecureSkipVerify: true"] {
            assert_eq!(problems(&yaml(protocol, more)), [""; 0], "{protocol}{more}");
        }
    }
    assert_eq!(problems(&yaml("HTTP", "")), [""; 0]);
}

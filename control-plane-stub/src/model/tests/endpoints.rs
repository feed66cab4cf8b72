use super::*;

fn mixed() -> World {
    load(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/mixed")).unwrap()
}

#[test]
fn selectors_slices_entries_and_names() {
    let world = mixed();
    type Ports = Vec<(u16, u16, bool)>;
    let ports = |host: &str| -> Vec<(String, Ports)> {
        let ports = |e: &Endpoint| e.ports.iter().map(|(own, at)| (*own, at.number, at.mtls)).collect();
        world.services[host].endpoints.iter().map(|e| (e.address.to_string(), ports(e))).collect()
    };
    assert_eq!(
        ports("echo.apps.svc.cluster.local"),
        [("fd00:10:244::20".to_owned(), vec![(7000, 7001, true), (7100, 7100, true), (7443, 7443, true)])]
    );
    // A named target port, and one Pod without a sidecar.
    assert_eq!(
        ports("web.apps.svc.cluster.local"),
        [
            ("10.244.1.1".to_owned(), vec![(80, 80, true), (6379, 6379, true)]),
            ("10.244.1.2".to_owned(), vec![(80, 80, false), (6379, 6379, false)]),
        ]
    );
    assert_eq!(ports("slices.apps.svc.cluster.local"), [("10.244.1.2".to_owned(), vec![(80, 8080, false)])]);
    assert_eq!(ports("legacy.apps.example"), [("192.0.2.10".to_owned(), vec![(5432, 15432, true)])]);
    assert_eq!(ports("api.example.com"), [("api.example.com".to_owned(), vec![(80, 443, false), (443, 443, false)])]);
    let vm = &world.services["legacy.apps.example"].endpoints[0];
    assert_eq!((vm.weight, vm.locality.region.as_str(), vm.service_account.as_str()), (3, "eu", "legacy"));
    assert_eq!(world.services["slices.apps.svc.cluster.local"].endpoints[0].locality.zone, "zone-a");
}

#[test]
fn a_workload_is_found_by_address_within_its_namespace() {
    let world = mixed();
    let at = ["10.244.1.1".parse().unwrap()];
    assert_eq!(world.workload(("apps", "default", None), &at).map(|w| w.name.as_str()), Some("web-0"));
    assert_eq!(world.workload(("default", "default", None), &at), None);
}

#[test]
fn pods_that_cannot_serve_are_left_out() {
    let pod = |name: &str, status: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: x}}}}\nspec: {{}}\nstatus: {status}\n"
        )
    };
    let service = |extra: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: x}}\nspec: {{selector: {{app: x}}, ports: [{{port: 80}}]{extra}}}\n"
        )
    };
    let pods = pod("ok", "{podIP: 10.0.0.1, conditions: [{type: Ready, status: 'True'}]}")
        + &pod("unready", "{podIP: 10.0.0.2, conditions: [{type: Ready, status: 'False'}]}")
        + &pod("done", "{podIP: 10.0.0.3, phase: Succeeded}")
        + &pod("homeless", "{phase: Pending}");
    let count = |extra: &str| loaded(&(service(extra) + &pods)).services["x.default.svc.cluster.local"].endpoints.len();
    assert_eq!(count(""), 1);
    assert_eq!(count(", publishNotReadyAddresses: true"), 2);
}

#[test]
fn disabling_mutual_tls_at_the_server_reaches_the_clients() {
    let world = load(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/bookinfo")).unwrap();
    let ratings = &world.services["ratings.default.svc.cluster.local"].endpoints[0];
    assert!(ratings.ports[&9080].mtls);
    assert!(!ratings.ports[&9090].mtls);
}

#[test]
fn port_protocols() {
    let of = |app: Option<&str>, name: &str, port| Protocol::of_service_port(app, name, port);
    assert_eq!(of(None, "http-web", 1), Protocol::Http);
    assert_eq!(of(None, "grpc-web-x", 1), Protocol::GrpcWeb);
    assert_eq!(of(None, "grpc", 1), Protocol::Grpc);
    assert_eq!(of(None, "httpx", 1), Protocol::Auto);
    assert_eq!(of(Some("tcp"), "http", 1), Protocol::Tcp);
    assert_eq!(of(Some("kubernetes.io/h2c"), "", 1), Protocol::Http2);
    assert_eq!(of(Some("example.com/own"), "http", 1), Protocol::Auto);
    assert_eq!(of(None, "", 3306), Protocol::Tcp);
}

#[test]
fn a_service_has_endpoints_of_its_own_families() {
    let pod = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: dual, labels: {app: x}}\nspec: {}\n\
               status: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}]}\n";
    let addresses = |spec: &str| {
        let service = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: x}}\nspec: {{selector: {{app: x}}, ports: [{{port: 80}}], {spec}}}\n"
        );
        let world = loaded(&(service + pod));
        let endpoints = &world.services["x.default.svc.cluster.local"].endpoints;
        endpoints.iter().map(|e| e.address.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(addresses("clusterIP: 10.96.0.1"), ["10.0.0.1"]);
    assert_eq!(addresses("clusterIP: 'fd96::1'"), ["fd00::1"]);
    assert_eq!(addresses("clusterIPs: [10.96.0.1, 'fd96::1']"), ["10.0.0.1"], "one Pod is one endpoint");
    assert_eq!(addresses("clusterIPs: ['fd96::1', 10.96.0.1]"), ["fd00::1"]);
    assert_eq!(addresses("clusterIPs: [10.96.0.1, 'fd96::1'], ipFamilies: [IPv6, IPv4]"), ["fd00::1"]);
    assert_eq!(addresses("clusterIP: None, ipFamilies: [IPv6]"), ["fd00::1"]);
    assert_eq!(addresses("clusterIP: None"), ["10.0.0.1", "fd00::1"]);
}

#[test]
fn of_two_workloads_at_one_address_the_one_that_is_meant_counts() {
    let entry = |account: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: aaa}}\nspec: {{address: 10.1.0.5, labels: {{app: old}}{account}}}\n---\n"
        )
    };
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: web, labels: {app: web, security.istio.io/tlsMode: istio}}\nspec: {serviceAccountName: web}\nstatus: {podIP: 10.1.0.5}\n---\n";
    let at = ["10.1.0.5".parse().unwrap()];
    let found = |yaml: &str, account: &str, name: Option<&str>| {
        let world = loaded(yaml);
        world.workload(("default", account, name), &at).map(|w| w.name.clone()).unwrap()
    };
    let yaml = entry("") + pod;
    assert_eq!(found(&yaml, "web", None), "web", "by what is proven");
    assert_eq!(found(&yaml, "nobody", Some("web")), "web", "by name");
    assert_eq!(found(&yaml, "web", Some("aaa")), "web", "a name alone overrules no proof");
    assert_eq!(found(&(entry(", serviceAccount: web") + pod), "web", Some("web")), "web");
    let notes = loaded(&yaml).notes;
    assert!(
        notes.iter().any(|note| note.contains("aaa and web of namespace default are both at 10.1.0.5")),
        "{notes:?}"
    );

    // Whom to expect at an endpoint: the Pod that the slice lists.
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {clusterIP: 10.0.0.1, selector: {app: web}, ports: [{name: http, port: 80}]}\n---\n";
    let slice = |target: &str| {
        format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: s, labels: {{kubernetes.io/service-name: s}}}}\naddressType: IPv4\nports: [{{name: http, port: 80}}]\nendpoints: [{{addresses: [10.1.0.5]{target}}}]\n"
        )
    };
    for target in ["", ", targetRef: {kind: Pod, name: web, uid: x}"] {
        let world = loaded(&(yaml.clone() + service + &slice(target)));
        let endpoints = &world.services["s.default.svc.cluster.local"].endpoints;
        assert_eq!(endpoints.iter().map(|e| e.service_account.as_str()).collect::<Vec<_>>(), ["web"], "{target}");
    }
}

#[test]
fn a_slice_outlives_its_service_and_is_passed_over() {
    let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: gone-x, labels: {kubernetes.io/service-name: gone}}\naddressType: IPv4\nports: [{port: 80}]\nendpoints: [{addresses: [10.1.0.5]}]\n";
    let world = loaded(slice);
    assert!(world.notes.iter().any(|note| note.contains("default/gone-x is passed over")), "{:?}", world.notes);
}

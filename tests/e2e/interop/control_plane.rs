//! Our control plane with Envoys as transparent sidecars, among themselves and beside our own proxies.

use outrigger_tests::{Exchange, Mesh, Workload, exchange::try_accept, mesh::bin, need, pair::STRICT, peers::python};

const TO_ENVOY: &str = "10.96.0.20";
const TO_OUTRIGGER: &str = "10.96.0.21";

fn service(name: &str, address: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\nspec:\n  clusterIP: {address}\n  \
         selector: {{app: {name}}}\n  ports:\n  - {{name: http, port: 80, targetPort: 9080}}\n  \
         - {{name: grpc, port: 50051}}\n  - {{name: tcp, port: 7000}}\n  - {{name: whatever, port: 7100}}\n"
    )
}

#[test]
fn envoys_as_sidecars() {
    need!("ip", "curl", "envoy", "python:grpc");
    let mut mesh = Mesh::start(&[(TO_ENVOY, "behind-envoy"), (TO_OUTRIGGER, "behind-outrigger")]);
    mesh.apply("one.yaml", &service("behind-envoy", TO_ENVOY));
    mesh.apply("two.yaml", &service("behind-outrigger", TO_OUTRIGGER));
    mesh.apply("strict.yaml", STRICT);
    // State of the world to one and increments to the other.
    let mut workloads = [
        mesh.envoy_workload("envoy-client", &[("app", "envoy-client")], true),
        mesh.workload("client", &[("app", "client")]),
        mesh.envoy_workload("envoy-server", &[("app", "behind-envoy")], false),
        mesh.workload("server", &[("app", "behind-outrigger")]),
    ];
    mesh.settle();
    mesh.assert_no_refusals();
    let outsider = mesh.outsider("outsider");
    {
        let [envoy_client, client, envoy_server, server] = &workloads;
        let demo = bin("outrigger-demo-app");
        let _applications: Vec<_> = [envoy_server, server]
            .iter()
            .flat_map(|workload| {
                let pod = &workload.pod;
                [
                    pod.serve("app", 9080, &format!("{} http [::]:9080 {} v1", demo.display(), pod.name)),
                    pod.serve("grpc", 50051, &python("grpc_server.py", "50051")),
                ]
            })
            .collect();
        for from in [envoy_client, client] {
            for (to, name, address) in
                [(envoy_server, "behind-envoy", TO_ENVOY), (server, "behind-outrigger", TO_OUTRIGGER)]
            {
                println!("{} -> {}", from.pod.name, to.pod.name);
                talk(from, to, name, address);
            }
        }
        for to in [envoy_server, server] {
            let (ok, answer) = outsider.try_sh(&format!("curl -sS -m 20 http://{}:9080/", to.pod.ip4));
            assert!(!ok, "STRICT let plaintext in: {answer}");
        }

        // An edit reaches every kind of proxy: the service now answers with a redirect.
        for name in ["behind-envoy", "behind-outrigger"] {
            mesh.apply(
                &format!("{name}.yaml"),
                &format!(
                    "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: \
                     default}}\nspec:\n  hosts: [{name}]\n  http:\n  - match: [{{uri: {{prefix: /old}}}}]\n    \
                     redirect: {{uri: /new, redirectCode: 308}}\n  - route: [{{destination: {{host: {name}}}}}]\n"
                ),
            );
        }
        mesh.settle();
        for from in [envoy_client, client] {
            for name in ["behind-envoy", "behind-outrigger"] {
                let head = from.pod.sh(&format!("curl -sS -m 20 -I http://{name}/old/page")).to_ascii_lowercase();
                assert!(head.starts_with("http/1.1 308"), "{}: {head}", from.pod.name);
                assert!(head.contains(&format!("location: http://{name}/new")), "{}: {head}", from.pod.name);
                assert!(from.pod.sh(&format!("curl -sS -m 20 http://{name}/other")).contains(r#""path":"/other""#));
            }
        }
    }
    mesh.assert_no_refusals();
    for workload in &mut workloads {
        workload.assert_sound();
    }
}

fn talk(from: &Workload, to: &Workload, name: &str, address: &str) {
    let answer = from.pod.sh(&format!("curl -sS -m 20 http://{name}/hello"));
    assert!(answer.contains(&format!(r#""service":"{}""#, to.pod.name)), "{answer}");
    let identity = format!("spiffe://cluster.local/ns/default/sa/{}", from.service_account);
    assert!(answer.contains(&identity), "{answer}");
    let said = from.pod.sh(&python("grpc_client.py", &format!("{name}:50051")));
    assert_eq!(said.lines().count(), 11, "{said}");
    let address: std::net::Ipv4Addr = address.parse().unwrap();
    for port in [7000, 7100] {
        let listener = to.pod.listen(port);
        let mut client = from.pod.connect((address, port));
        client.say("\x01question");
        // Envoy drops a connection whose client has stopped before its listener filters are done: not a moment sooner.
        let mut server = try_accept(&listener).unwrap_or_else(|| panic!("no connection to port {port}"));
        client.finish();
        assert_eq!(server.hear_end(), b"\x01question", "port {port}");
        server.say("answer");
        server.finish();
        assert_eq!(client.hear_end(), b"answer", "port {port}");
    }
}

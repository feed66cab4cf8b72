//! A gRPC library without any proxy, configured by our control plane (`xds:///`).

use outrigger_tests::{Mesh, need, peers::python};

fn split(v1: u8, v2: u8) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: echo, namespace: default}}\nspec:\n  \
         hosts: [echo]\n  http:\n  - route:\n    - {{destination: {{host: echo, subset: v1}}, weight: {v1}}}\n    \
         - {{destination: {{host: echo, subset: v2}}, weight: {v2}}}\n"
    )
}

#[test]
fn python_grpc_client_without_a_proxy() {
    need!("ip", "curl", "python:grpc");
    let mut mesh = Mesh::start(&[]);
    mesh.apply(
        "echo.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: echo, namespace: default}\nspec:\n  clusterIP: 10.96.0.30\n  \
         selector: {app: echo}\n  ports: [{name: grpc, port: 7070, targetPort: 50051}]\n---\n\
         apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: echo, namespace: default}\nspec:\n  \
         host: echo\n  subsets:\n  - {name: v1, labels: {version: v1}}\n  - {name: v2, labels: {version: v2}}\n",
    );
    mesh.apply("split.yaml", &split(50, 50));
    let mut servers = ["v1", "v2"].map(|v| mesh.workload(&format!("echo-{v}"), &[("app", "echo"), ("version", v)]));
    let _applications: Vec<_> = servers
        .iter()
        .map(|s| s.pod.serve("grpc", 50051, &python("grpc_server.py", &format!("50051 {}", s.pod.name))))
        .collect();
    mesh.settle();

    // The client asks the plaintext port, which is the control plane's own namespace's only.
    let bootstrap = serde_json::json!({
        "xds_servers": [{"server_uri": "127.0.0.1:15010", "channel_creds": [{"type": "insecure"}],
                         "server_features": ["xds_v3"]}],
        "node": {"id": "proxyless~10.88.0.1~client.default~default.svc.cluster.local", "cluster": "client",
                 "metadata": {"NAMESPACE": "default", "GENERATOR": "grpc"}},
    });
    let file = mesh.fabric.dir().join("grpc.json");
    std::fs::write(&file, bootstrap.to_string()).unwrap();
    let pod = mesh.control_pod();
    let steps = mesh.fabric.dir().join("steps");
    let line = python("grpc_xds_client.py", &format!("xds:///echo.default.svc.cluster.local:7070 {}", steps.display()));
    let mut command = pod.command("sh");
    command.args(["-c", &format!("exec {line}")]).env("GRPC_XDS_BOOTSTRAP", &file);
    let mut client = outrigger_tests::Process::spawn("grpc-client", command, mesh.fabric.dir());
    client.wait_for("both answered\n");
    mesh.assert_no_refusals();
    let kinds: Vec<String> = mesh.status()["proxies"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| format!("{} {}", p["kind"].as_str().unwrap(), p["types"].as_object().unwrap().len()))
        .collect();
    assert!(kinds.iter().any(|k| k.to_lowercase().starts_with("grpc")), "{kinds:?}");

    // The same channel follows an edit, without one failed call.
    mesh.apply("split.yaml", &split(0, 100));
    mesh.settle();
    std::fs::write(&steps, "edited").unwrap();
    client.wait_for("only echo-v2 answers\n");
    assert!(client.wait().success(), "{}", client.output());
    mesh.assert_no_refusals();
    servers.iter_mut().for_each(outrigger_tests::Workload::assert_sound);
}

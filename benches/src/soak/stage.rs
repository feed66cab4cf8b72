//! The mesh of a soak: a control plane with certificates of two minutes, a client, a server, a second replica of one
//! service, a receiver of spans; with metrics, an access log and 1 % tracing.

use std::{
    net::Ipv4Addr,
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use outrigger_tests::{Mesh, Pod, Workload};

use super::origin;
use crate::drive::{self, Service, faulty, otlp};

/// Addresses of the services; nobody's.
pub(super) const APP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
pub(super) const FLAKY: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 20);

const FLAGS: &[&str] = &["--metrics-address", "[::]:15020"];
/// Life of a workload's certificate: it is renewed half way.
const CERTIFICATES: &str = "2m";

/// What the second replica of the flaky service takes when it is slow: longer than a try may.
const SLOW: Duration = Duration::from_secs(2);

/// Plaintext is refused everywhere.
const STRICT: &str = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default, namespace: \
                      default}\nspec: {mtls: {mode: STRICT}}\n";

const FLAKY_RULES: &str = "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: flaky, namespace: default}
spec:
  hosts: [flaky]
  http:
  - route: [{destination: {host: flaky}}]
    timeout: 10s
    retries: {attempts: 3, perTryTimeout: 1s, retryOn: 'connect-failure,refused-stream,unavailable,cancelled,reset,503'}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: flaky, namespace: default}
spec:
  host: flaky
  trafficPolicy:
    outlierDetection: {consecutive5xxErrors: 5, interval: 2s, baseEjectionTime: 3s, maxEjectionPercent: 50}
";

pub(super) struct Stage {
    pub(super) client: Workload,
    pub(super) server: Workload,
    /// The other replica of the flaky service.
    pub(super) other: Workload,
    /// Makes that one misbehave.
    pub(super) controls: Arc<faulty::Controls>,
    /// That came.
    pub(super) spans: Arc<AtomicU64>,
    _services: Vec<Service>,
    // Last: namespaces go after the processes in them.
    pub(super) mesh: Mesh,
}

impl Stage {
    /// Panics where the namespaces or the mesh cannot be set up.
    pub(super) fn start() -> anyhow::Result<Self> {
        let mut mesh = Mesh::start_with(&[], &["--cert-ttl", CERTIFICATES]);
        let receiver = mesh.outsider("otel");
        std::fs::create_dir(mesh.dir().join("access"))?;
        open_to_all(&mesh.dir().join("access"))?;
        mesh.apply("mesh.yaml", &mesh_config(&mesh, &receiver));
        let ports = [("http", 80, 8080), ("grpc", 9090, 9090), ("tcp-echo", 7000, 7000)];
        mesh.apply("app.yaml", &service("app", APP, "app: server", &ports));
        mesh.apply("flaky.yaml", &service("flaky", FLAKY, "role: flaky", &[("http", 80, 8088)]));
        mesh.apply("flaky-rules.yaml", FLAKY_RULES);
        mesh.apply("strict.yaml", STRICT);
        let client = mesh.workload_with("client", &[("app", "client")], FLAGS);
        let server = mesh.workload_with("server", &[("app", "server"), ("role", "flaky")], FLAGS);
        let other = mesh.workload_with("other", &[("app", "other"), ("role", "flaky")], FLAGS);
        let spans = Arc::new(AtomicU64::new(0));
        let counted = spans.clone();
        let (well, controls) =
            (faulty::Controls::new(Duration::ZERO, SLOW), faulty::Controls::new(Duration::ZERO, SLOW));
        let strings = controls.clone();
        let services = vec![
            Service::start(receiver.listen(4317), move |on| otlp::serve(on, counted))?,
            Service::start(server.pod.listen(8080), origin::http)?,
            Service::start(server.pod.listen(7000), origin::echo)?,
            Service::start(server.pod.listen(9090), drive::grpc::serve)?,
            Service::start(server.pod.listen(8088), move |on| faulty::serve(on, well))?,
            Service::start(other.pod.listen(8088), move |on| faulty::serve(on, strings))?,
        ];
        mesh.settle();
        Ok(Self { client, server, other, controls, spans, _services: services, mesh })
    }

    pub(super) fn workloads(&self) -> [&Workload; 3] {
        [&self.client, &self.server, &self.other]
    }

    /// All proxies write into it.
    pub(super) fn access_log(&self) -> PathBuf {
        access_log(&self.mesh)
    }

    /// Adds the second replica to the flaky service, or takes it away.
    pub(super) fn join_flaky(&self, on: bool) {
        let role = if on { "flaky" } else { "none" };
        self.mesh.register(&self.other.pod, "other", &[("app", "other"), ("role", role)]);
    }
}

fn access_log(mesh: &Mesh) -> PathBuf {
    mesh.dir().join("access/access.log")
}

fn mesh_config(mesh: &Mesh, receiver: &Pod) -> String {
    format!(
        "apiVersion: outrigger.dev/v1alpha1\nkind: MeshConfig\nmetadata: {{name: mesh, namespace: istio-system}}\nspec:\n  \
         extensionProviders: [{{name: otel, opentelemetry: {{service: otel.obs, port: 4317}}}}]\n  \
         defaultProviders: {{tracing: [otel]}}\n  defaultConfig: {{tracing: {{sampling: 1}}}}\n  \
         accessLogFile: {}\n  accessLogEncoding: JSON\n---\n\
         apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: otel, namespace: istio-system}}\nspec:\n  \
         hosts: [otel.obs]\n  location: MESH_EXTERNAL\n  resolution: STATIC\n  \
         ports: [{{number: 4317, name: grpc-otlp, protocol: GRPC}}]\n  endpoints: [{{address: {}}}]\n",
        access_log(mesh).display(),
        receiver.ip4,
    )
}

/// A Service; `ports` are (name, port, target port).
pub(super) fn service(name: &str, address: Ipv4Addr, selector: &str, ports: &[(&str, u16, u16)]) -> String {
    let ports = ports.iter().map(|(name, port, to)| format!("  - {{name: {name}, port: {port}, targetPort: {to}}}\n"));
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\nspec:\n  clusterIP: {address}\n  \
         selector: {{{selector}}}\n  ports:\n{}",
        ports.collect::<String>()
    )
}

/// The proxies run as another user.
fn open_to_all(dir: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o777))
}

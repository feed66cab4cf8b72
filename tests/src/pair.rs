//! The smallest useful mesh: a client and a server, a service between them by both families, mutual TLS enforced.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use crate::{Mesh, Workload};

/// The service's addresses; nobody's, as in a cluster.
pub const SERVICE4: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
pub const SERVICE6: Ipv6Addr = Ipv6Addr::new(0xfd96, 0, 0, 0, 0, 0, 0, 0x10);

/// A mesh of the workloads `client` and `server`; the service is called `app`.
pub struct Pair {
    // The mesh goes last: with it goes the folder that holds what the proxies said.
    pub client: Workload,
    pub server: Workload,
    pub mesh: Mesh,
}

/// Builds the mesh. `ports` are (name, port, target port): the name declares the protocol as in Kubernetes.
///
/// With `OUTRIGGER_TESTS_UNMESHED` set there is no mesh at all between the two: whoever writes a test sees with it
/// whether the test itself is right.
pub fn pair(ports: &[(&str, u16, u16)]) -> Pair {
    let (service4, service6) = (SERVICE4.to_string(), SERVICE6.to_string());
    let hosts = [(service4.as_str(), "app"), (service6.as_str(), "app6")];
    if std::env::var_os("OUTRIGGER_TESTS_UNMESHED").is_some() {
        let addresses = [IpAddr::V4(SERVICE4), IpAddr::V6(SERVICE6)];
        let service: Vec<_> = addresses.iter().flat_map(|a| ports.iter().map(|(_, p, t)| (*a, *p, *t))).collect();
        let (mesh, client, server) = Mesh::unmeshed(&hosts, &service);
        return Pair { mesh, client, server };
    }
    let mut mesh = Mesh::start(&hosts);
    mesh.apply("services.yaml", &service("app", "server", ports));
    mesh.apply("strict.yaml", STRICT);
    let client = mesh.workload("client", &[("app", "client")]);
    let server = mesh.workload("server", &[("app", "server")]);
    mesh.settle();
    Pair { mesh, client, server }
}

/// A Service named `name` over the Pods labelled `app: selector`.
pub fn service(name: &str, selector: &str, ports: &[(&str, u16, u16)]) -> String {
    let mut yaml = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\nspec:\n  \
         clusterIP: {SERVICE4}\n  clusterIPs: [{SERVICE4}, \"{SERVICE6}\"]\n  ipFamilyPolicy: RequireDualStack\n  \
         ipFamilies: [IPv4, IPv6]\n  selector: {{app: {selector}}}\n  ports:\n"
    );
    for (name, port, target) in ports {
        let _ = writeln!(yaml, "  - {{name: {name}, port: {port}, targetPort: {target}}}");
    }
    yaml
}

/// Plaintext is refused everywhere: whatever then works was mutual TLS.
pub const STRICT: &str = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default, \
                          namespace: default}\nspec: {mtls: {mode: STRICT}}\n";

/// The service by IPv4.
pub fn by4(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(SERVICE4), port)
}

/// The service by IPv6.
pub fn by6(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(SERVICE6), port)
}

impl Pair {
    /// Neither proxy has lost a task to a panic.
    pub fn assert_sound(&mut self) {
        self.client.assert_sound();
        self.server.assert_sound();
    }
}

impl Workload {
    /// The proxy runs and nothing in it has panicked.
    pub fn assert_sound(&mut self) {
        assert!(self.proxy.is_running(), "the proxy of {} has ended:\n{}", self.pod.name, self.proxy.output());
        let output = self.proxy.output();
        let panic = output.lines().find(|line| line.contains("panicked at") || line.contains("panic:"));
        assert!(panic.is_none(), "the proxy of {} panicked: {panic:?}", self.pod.name);
    }
}

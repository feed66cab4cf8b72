//! The mesh-wide constants, in one place.

use std::time::Duration;

use super::rate_limit::LimitEndpoint;

/// What holds for the whole mesh. The defaults are Istio's, but where a comment says otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// SPIFFE trust domain of every identity.
    pub trust_domain: String,
    /// DNS suffix: services are `name.namespace.svc.<cluster_domain>`.
    pub cluster_domain: String,
    /// A PeerAuthentication without selector in one of these governs the whole mesh.
    pub root_namespaces: Vec<String>,
    /// Where captured outbound connections arrive.
    pub outbound_port: u16,
    /// Where captured inbound connections arrive.
    pub inbound_port: u16,
    /// Listen on `[::]` beside `0.0.0.0`. Switch off for kernels without IPv6.
    pub ipv6: bool,
    /// Keep the case of HTTP/1 header names (Istio lowers it; unmodified applications should not notice us).
    pub preserve_header_case: bool,
    /// How long an outbound port of unknown protocol may stay silent before it is plain TCP: what a server-first
    /// protocol pays once per connection. Being wrong costs routing by HTTP for that connection, not the connection.
    pub outbound_detection: Duration,
    /// As above for ports known to be HTTP, where being wrong would lose the virtual address. Zero waits for ever: a
    /// client may connect long before its first request.
    pub http_detection: Duration,
    /// As above on the inbound side, where a slow handshake must not be mistaken for plaintext.
    pub inbound_detection: Duration,
    /// Where proxies find the rate limit service.
    pub limit_service: Vec<LimitEndpoint>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            trust_domain: "cluster.local".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            root_namespaces: vec!["istio-system".to_owned(), "outrigger-system".to_owned()],
            outbound_port: 15001,
            inbound_port: 15006,
            ipv6: true,
            preserve_header_case: true,
            outbound_detection: Duration::from_millis(100),
            http_detection: Duration::ZERO,
            inbound_detection: Duration::from_secs(1),
            limit_service: vec![LimitEndpoint {
                host: "outrigger-control.outrigger-system.svc".to_owned(),
                port: 15012,
            }],
        }
    }
}

impl Settings {
    /// The SPIFFE identity of a service account.
    pub fn identity(&self, namespace: &str, service_account: &str) -> String {
        format!("spiffe://{}/ns/{namespace}/sa/{service_account}", self.trust_domain)
    }

    /// Whether captured connections arrive at `port`, so that nothing else can listen there on all addresses.
    pub fn captures(&self, port: u16) -> bool {
        port == self.outbound_port || port == self.inbound_port
    }

    /// Whether policies of `namespace` without selector hold for the mesh.
    pub fn is_root(&self, namespace: &str) -> bool {
        self.root_namespaces.iter().any(|root| root == namespace)
    }
}

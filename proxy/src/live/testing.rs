//! Configurations for tests, from the text an operator would write.

use std::sync::Arc;

use super::Builder;
use crate::{bootstrap, ir::snapshot::Snapshot, telemetry::access_log::Sinks, tls::Secrets, upstream::Deps};

/// The static resources of a bootstrap.
pub(crate) fn snapshot(version: u64, yaml: &str) -> Arc<Snapshot> {
    let (bootstrap, _) = bootstrap::load(yaml, None).unwrap_or_else(|e| panic!("{e}\n{yaml}"));
    Arc::new(Snapshot {
        version,
        listeners: bootstrap.listeners.into_iter().map(|l| (l.name.clone(), l)).collect(),
        clusters: bootstrap.clusters.into_iter().map(|c| (c.name.clone(), c)).collect(),
        secrets: bootstrap.secrets.into_iter().collect(),
        ..Snapshot::default()
    })
}

pub(crate) fn builder() -> Builder {
    let secrets = Arc::<Secrets>::default();
    let sinks = Sinks::start().unwrap();
    let upstream = Deps { secrets: secrets.clone(), ..Deps::default() };
    Builder { secrets, registry: Arc::default(), sinks, tracers: Arc::default(), upstream, debug: None }
}

/// A listener of one `tcp_proxy` chain; `more` is added to it (two spaces further in).
pub(crate) fn tcp_listener(name: &str, address: &str, port: u16, cluster: &str, more: &str) -> String {
    format!(
        r#"
  - name: {name}
    address: {{socket_address: {{address: "{address}", port_value: {port}}}}}
    {more}
    filter_chains:
    - filters: [{}]
"#,
        tcp_proxy(cluster)
    )
}

pub(crate) fn tcp_proxy(cluster: &str) -> String {
    format!(
        r#"{{name: tcp, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: {cluster}}}}}"#
    )
}

/// A static cluster of one endpoint.
pub(crate) fn cluster(name: &str, endpoint: std::net::SocketAddr) -> String {
    format!(
        r#"
  - name: {name}
    connect_timeout: 5s
    load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: "{}", port_value: {}}}}}}}}}]}}]}}
"#,
        endpoint.ip(),
        endpoint.port()
    )
}

pub(crate) fn statics(listeners: &[String], clusters: &[String]) -> String {
    let list = |name: &str, items: &[String]| match items {
        [] => String::new(),
        items => format!("  {name}:{}\n", items.concat().trim_end()),
    };
    format!("static_resources:\n{}{}", list("listeners", listeners), list("clusters", clusters))
}

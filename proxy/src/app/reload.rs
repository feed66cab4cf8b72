//! SIGHUP: the bootstrap file is read again, and its static resources replace those in force, all of them or none. So
//! are the keys of signed requests.
//!
//! What else a bootstrap says is settled at the start; a change of it is named.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::sync::Notify;

use super::load;
use crate::{admin::State, bootstrap::Bootstrap, ir::Name, policy::debug::DebugKeys, settings::Settings, xds};

/// How often is looked whether what was read is in force.
const LOOK: Duration = Duration::from_millis(10);

/// Reads the file again whenever it is told to, one time after the other.
pub(super) struct Reload {
    pub(super) settings: Settings,
    /// As of the start.
    pub(super) running: Bootstrap,
    pub(super) subscription: xds::Handle,
    pub(super) state: Arc<State>,
    pub(super) debug: Option<Arc<DebugKeys>>,
}

impl Reload {
    /// Starts the task; what comes back tells it to read.
    pub(super) fn start(self) -> Arc<Notify> {
        let asked = Arc::new(Notify::new());
        if self.settings.config_path.is_some() || self.debug.is_some() {
            let asked = asked.clone();
            tokio::spawn(async move {
                loop {
                    asked.notified().await;
                    self.read_keys().await;
                    if self.settings.config_path.is_some() {
                        self.read().await;
                    }
                }
            });
        }
        asked
    }

    async fn read_keys(&self) {
        let Some((keys, path)) = self.debug.as_ref().zip(self.settings.debug_key_file.as_ref()) else { return };
        let text = tokio::fs::read(path).await.map_err(|e| e.to_string());
        match text.and_then(|text| keys.replace(&text)) {
            Ok(keys) => tracing::info!(keys, "keys of signed requests read again"),
            Err(reason) => {
                tracing::error!(path = %path.display(), reason, "--debug-key-file is not used; the keys of before stay");
            }
        }
    }

    async fn read(&self) {
        let settings = self.settings.clone();
        let read = tokio::task::spawn_blocking(move || load(&settings, true)).await;
        let (bootstrap, notes) = match read.map_err(|e| e.to_string()).and_then(|read| read) {
            Ok(read) => read,
            Err(reason) => {
                tracing::error!(reason, "the bootstrap file is not used; what was in force stays");
                return self.state.set_reloaded(Err(reason));
            }
        };
        notes.iter().for_each(|note| tracing::warn!("{note}"));
        let settled = settled(&self.running, &bootstrap);
        if !settled.is_empty() {
            tracing::warn!(
                fields = settled.join(", "),
                "only a restart brings these changes of the bootstrap into force"
            );
        }
        tracing::info!(
            listeners = bootstrap.listeners.len(),
            clusters = bootstrap.clusters.len(),
            secrets = bootstrap.secrets.len(),
            "static resources read again"
        );
        let packed = bootstrap.packed.clone();
        let version = self.subscription.set_statics(statics(&bootstrap), Some(packed)).await;
        // Whoever is told finds the listeners.
        while !self.state.has_applied(version) {
            tokio::time::sleep(LOOK).await;
        }
        self.state.set_reloaded(Ok(()));
    }
}

/// The static resources of a bootstrap.
pub(super) fn statics(bootstrap: &Bootstrap) -> xds::Statics {
    xds::Statics {
        listeners: bootstrap.listeners.clone(),
        clusters: bootstrap.clusters.clone(),
        secrets: bootstrap.secrets.clone(),
        routes: Vec::new(),
    }
}

/// Limits of listeners that the bootstrap does not have: those that it has take theirs with them.
fn dynamic_limits(of: &Bootstrap) -> BTreeMap<&Name, u64> {
    let is_static = |name: &Name| of.listeners.iter().any(|listener| listener.name == *name);
    of.listener_limits.iter().filter(|(name, _)| !is_static(name)).map(|(name, limit)| (name, *limit)).collect()
}

/// The parts that differ and hold from the start to the end of a process.
fn settled(running: &Bootstrap, read: &Bootstrap) -> Vec<&'static str> {
    let differing = [
        ("node", running.node != read.node),
        ("dynamic_resources", running.dynamic != read.dynamic),
        ("admin", running.admin != read.admin),
        ("overload_manager", running.max_downstream_connections != read.max_downstream_connections),
        ("cluster_manager.upstream_bind_config", running.upstream_bind != read.upstream_bind),
        ("cluster_manager.local_cluster_name", running.local_cluster != read.local_cluster),
        ("tracing", running.tracing != read.tracing),
        ("layered_runtime (limits of dynamic listeners)", dynamic_limits(running) != dynamic_limits(read)),
    ];
    differing.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_a_restart_changes_is_named() {
        let read = |yaml: &str| crate::bootstrap::load(yaml, None).unwrap().0;
        let running = read("node: {id: a}");
        assert_eq!(settled(&running, &read("node: {id: a}")), [""; 0]);
        for (yaml, name) in
            [("node: {id: b}", "node"), (TRACING, "tracing"), (LIMIT, "layered_runtime (limits of dynamic listeners)")]
        {
            assert!(settled(&running, &read(yaml)).contains(&name), "{yaml}");
        }
    }

    const TRACING: &str = "
        node: {id: a}
        static_resources:
          clusters: [{name: otel, type: STATIC, typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {'@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {}}}}}]
        tracing:
          http:
            name: envoy.tracers.opentelemetry
            typed_config:
              '@type': type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig
              grpc_service: {envoy_grpc: {cluster_name: otel}}";

    const LIMIT: &str = "
        node: {id: a}
        layered_runtime:
          layers:
          - name: static
            static_layer: {envoy.resource_limits.listener.later.connection_limit: 5}";
}

//! SIGHUP: the bootstrap file is read again, and its static resources replace those in force, all of them or none. So
//! are the keys of signed requests.
//!
//! What else a bootstrap says is settled at the start; a change of it is named.

use std::sync::Arc;

use tokio::sync::Notify;

use super::load;
use crate::{admin::State, bootstrap::Bootstrap, policy::debug::DebugKeys, settings::Settings, xds};

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
        self.subscription.set_statics(statics(&bootstrap), Some(packed)).await;
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

/// The parts that differ and hold from the start to the end of a process.
fn settled(running: &Bootstrap, read: &Bootstrap) -> Vec<&'static str> {
    let differing = [
        ("node", running.node != read.node),
        ("dynamic_resources", running.dynamic != read.dynamic),
        ("admin", running.admin != read.admin),
        ("overload_manager", running.max_downstream_connections != read.max_downstream_connections),
        ("cluster_manager.upstream_bind_config", running.upstream_bind != read.upstream_bind),
        ("cluster_manager.local_cluster_name", running.local_cluster != read.local_cluster),
    ];
    differing.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect()
}

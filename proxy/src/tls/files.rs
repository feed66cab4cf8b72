//! Watching the files that TLS contexts read.
//!
//! Owns the watcher and the rhythm of looking again. Runs on the control thread and reads files off its event loop.
//! Invariant: a change is found by the kernel's notice or, where that fails (network file systems, links that lead
//! elsewhere, exhausted watches), by the periodic look.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::{sync::Notify, time::Instant};

use super::{Secrets, secrets::Dependent};

/// Writers touch several files in a row: wait for them to finish.
const SETTLE: Duration = Duration::from_millis(50);
/// With a half-written pair in place the next look comes soon.
const RETRY: Duration = Duration::from_secs(1);
const PERIOD: Duration = Duration::from_secs(30);

/// Reloads the contexts registered with a set of [`Secrets`] when their files change.
pub struct FileWatcher {
    secrets: Arc<Secrets>,
    changed: Arc<Notify>,
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
    unwatchable: BTreeSet<PathBuf>,
}

impl FileWatcher {
    pub fn new(secrets: Arc<Secrets>) -> Self {
        let changed = Arc::new(Notify::new());
        let notice = changed.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // An error may hide a change, so it counts as one. Reads are not changes.
            if !event.is_ok_and(|e| e.kind.is_access() && !closed_after_writing(&e)) {
                notice.notify_one();
            }
        });
        let watcher = watcher
            .inspect_err(|error| tracing::warn!(%error, "certificate files are polled, watching them failed"))
            .ok();
        Self { secrets, changed, watcher, watched: BTreeSet::new(), unwatchable: BTreeSet::new() }
    }

    /// Watches for ever.
    pub async fn run(mut self) {
        let mut due = Instant::now() + PERIOD;
        loop {
            let dependents = self.dependents();
            self.watch(&dependents);
            if dependents.iter().any(|d| d.failing()) {
                due = due.min(Instant::now() + RETRY);
            }
            // Contexts are not kept alive by the wait for their files.
            drop(dependents);
            tokio::select! {
                () = self.changed.notified() => tokio::time::sleep(SETTLE).await,
                // New contexts have just read their files; only the set of directories may be another now.
                () = self.secrets.registration() => continue,
                () = tokio::time::sleep_until(due) => {}
            }
            let dependents = self.dependents();
            let refresh = move || dependents.iter().for_each(|d| d.refresh());
            if let Err(error) = tokio::task::spawn_blocking(refresh).await {
                tracing::error!(%error, "reloading certificate files failed");
            }
            due = Instant::now() + PERIOD;
        }
    }

    fn dependents(&self) -> Vec<Arc<dyn Dependent>> {
        self.secrets.dependents().into_iter().filter(|d| !d.watched().is_empty()).collect()
    }

    fn watch(&mut self, dependents: &[Arc<dyn Dependent>]) {
        let wanted: BTreeSet<PathBuf> = dependents.iter().flat_map(|d| d.watched()).collect();
        let Some(watcher) = &mut self.watcher else { return };
        for gone in self.watched.difference(&wanted) {
            // Fails when the directory itself is gone, and the watch with it.
            let _ = watcher.unwatch(gone);
        }
        self.watched.retain(|directory| wanted.contains(directory));
        self.unwatchable.retain(|directory| wanted.contains(directory));
        for directory in wanted {
            if self.watched.contains(&directory) {
                continue;
            }
            match watcher.watch(&directory, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.unwatchable.remove(&directory);
                    self.watched.insert(directory);
                }
                // Tried again with each look, said once.
                Err(error) if !self.unwatchable.contains(&directory) => {
                    tracing::warn!(directory = %directory.display(), %error, "certificate files here are polled");
                    self.unwatchable.insert(directory);
                }
                Err(_) => {}
            }
        }
    }
}

fn closed_after_writing(event: &notify::Event) -> bool {
    use notify::event::{AccessKind, AccessMode, EventKind};
    matches!(event.kind, EventKind::Access(AccessKind::Close(AccessMode::Write)))
}

#[cfg(test)]
mod tests;

//! The application's end of a running subscription.

use std::{sync::Arc, time::Duration};

use outrigger_wire::packed::Packed;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::DropGuard;

use super::{
    config::Statics,
    driver::Event,
    dump::{DumpError, DumpQuery},
    status::Status,
};
use crate::ir::snapshot::Snapshot;

/// A running subscription. Cheap to clone; the tasks end with the last clone.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(super) snapshots: watch::Receiver<Arc<Snapshot>>,
    pub(super) status: watch::Receiver<Arc<Status>>,
    pub(super) events: mpsc::Sender<Event>,
    /// Ends the tasks with the last clone.
    pub(super) _stop: Arc<DropGuard>,
}

impl Handle {
    /// Warmed, consistent snapshots. The value now in it counts; intermediate ones may be skipped.
    pub fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshots.borrow())
    }

    /// What the subscription says about itself.
    pub fn status(&self) -> watch::Receiver<Arc<Status>> {
        self.status.clone()
    }

    /// Replaces the static resources, and the bootstrap that `/config_dump` shows. Comes back with the version of the
    /// snapshot that has those which wait for nothing else.
    pub async fn set_statics(&self, statics: Statics, bootstrap: Option<Packed>) -> u64 {
        let (reply, settled) = oneshot::channel();
        // Without a driver nothing changes any more.
        if self.events.send(Event::Statics(Box::new(statics), bootstrap, reply)).await.is_ok() {
            let _ = settled.await;
        }
        self.snapshots.borrow().version
    }

    /// Has what is in force written to disk, where it is kept. Returns when it is, or when `deadline` has passed.
    pub async fn flush(&self, deadline: Duration) {
        let (done, finished) = oneshot::channel();
        let flush = async {
            if self.events.send(Event::Flush(done)).await.is_ok() {
                let _ = finished.await;
            }
        };
        if tokio::time::timeout(deadline, flush).await.is_err() {
            tracing::warn!("the configuration in force could not be kept on disk before the end");
        }
    }

    /// `/config_dump` in Envoy's shape: `{"configs": [...]}`. Private keys are redacted.
    pub async fn config_dump(&self, query: DumpQuery) -> Result<serde_json::Value, DumpError> {
        let (reply, answer) = oneshot::channel();
        let data = match self.events.send(Event::Dump(reply)).await {
            Ok(()) => answer.await.ok(),
            Err(_) => None,
        };
        let empty = || serde_json::json!({ "configs": [] });
        match data {
            Some(data) => {
                let rendered = tokio::task::spawn_blocking(move || data.render(&query)).await;
                rendered.unwrap_or_else(|_| Ok(empty()))
            }
            None => Ok(empty()),
        }
    }
}

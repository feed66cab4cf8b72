//! The last good configuration: brought into force when the control plane does not deliver, written when it did.

use std::time::Duration;

use super::{Driver, Event, Frame, Now, Restorable, Update, prepare};

/// How long a restored configuration waits for secrets that only a control plane has: without them plaintext still works.
const PATIENCE_FOR_SECRETS: Duration = Duration::from_secs(3);

impl Driver {
    /// Uses or writes what is kept on disk, when it is time.
    pub(super) fn keep(&mut self, now: Now) {
        let Some(keeper) = &mut self.keeper else { return };
        if let Some(restorable) = keeper.overdue(now) {
            return self.restore(restorable, now);
        }
        let connected = self.status.sources.values().any(|source| source.connected_since.is_some());
        let Some(write) = keeper.take_due(&self.store, connected, now) else { return };
        let events = self.events.clone();
        tokio::task::spawn_blocking(move || {
            let result = write();
            if let Some(events) = events.upgrade() {
                let _ = events.blocking_send(Event::Kept(result));
            }
        });
    }

    /// Puts what was kept in force, through the same decoding and warming as anything a control plane sends.
    fn restore(&mut self, restorable: Restorable, now: Now) {
        self.store.set_patience_for_secrets(Some(PATIENCE_FOR_SECRETS));
        for (source, update) in restorable.updates {
            let Update { kind, full, version, items, removed, .. } = update;
            let prepared = items.into_iter().map(|item| prepare(&self.store, &source, kind, item)).collect();
            let frame = Frame { source: &source, kind, version: &version, full, removed: &removed };
            if let Some(error) = self.store.apply(&frame, prepared, now).error() {
                tracing::warn!(%kind, error, "a resource kept on disk is refused");
            }
            // What it makes wanted has to be known before the next one is judged; nothing is published in between.
            self.deadline = self.store.resolve(now);
        }
        self.settle(now);
    }
}

//! The last good configuration: brought into force when the control plane does not deliver, written when it did.
//!
//! The disk is met on threads of their own: one that hangs holds up neither the driver nor the end of the process.

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use tokio::sync::oneshot;

use super::{Driver, Event, Keeper, Kind, Now, Restorable, Snapshot};
use crate::xds::saved::{self, Change, KINDS};

/// How long a restored configuration waits for secrets that only a control plane has: without them plaintext still works.
const PATIENCE_FOR_SECRETS: Duration = Duration::from_secs(3);

impl Driver {
    /// Reads or writes what is kept on disk, when it is time.
    pub(super) fn keep(&mut self, now: Now) {
        let Some(keeper) = &mut self.keeper else { return };
        if let Some((config, owner)) = keeper.overdue(now) {
            let decode = self.decode;
            let load = move || saved::load(&config, &owner, decode, now.wall);
            return self.beside(load, |found| Event::Loaded(found.unwrap_or_else(|reason| Some(Err(reason)))));
        }
        let Some(write) = keeper.take_due(&self.store, now) else { return };
        self.beside(write, |written| Event::Kept(written.and_then(|result| result)));
    }

    /// Does what may block, and reports it whatever becomes of it.
    fn beside<T: 'static>(&self, work: impl FnOnce() -> T + Send + 'static, event: fn(Result<T, String>) -> Event) {
        let events = self.events.clone();
        let tell = move |result| {
            if let Some(events) = events.upgrade() {
                let _ = events.blocking_send(event(result));
            }
        };
        let own = tell.clone();
        let run = move || own(catch_unwind(AssertUnwindSafe(work)).map_err(|_| "it panicked".to_owned()));
        if let Err(error) = std::thread::Builder::new().name("last-good".to_owned()).spawn(run) {
            // Not from here: the driver itself reads the events.
            tokio::task::spawn_blocking(move || tell(Err(error.to_string())));
        }
    }

    /// Puts what was kept in force where nobody delivered, through the same warming as anything a control plane sends.
    pub(super) fn restore(&mut self, restorable: Restorable, missing: &BTreeSet<Kind>, now: Now) {
        let Some(keeper) = &mut self.keeper else { return };
        let Restorable { last_word, kept } = restorable;
        let listeners = missing.contains(&Kind::Listener);
        // The checks that depend on what is there; all others were made when the file was read.
        for (kind, kept) in KINDS.into_iter().zip(&kept) {
            if let (Kind::Listener, true, Some(conflict)) = (kind, listeners, self.store.conflict(kept)) {
                return keeper.refused(conflict);
            }
        }
        self.store.set_patience_for_secrets(Some(PATIENCE_FOR_SECRETS));
        for (kind, kept) in KINDS.into_iter().zip(kept) {
            let wanted = match kind {
                Kind::Cluster | Kind::Listener => missing.contains(&kind),
                // Routes are rules: those of a listener that was delivered are not looked for elsewhere.
                Kind::Routes => listeners,
                Kind::Endpoints | Kind::Secret => true,
            };
            if wanted {
                self.store.restore(kind, kept, kind.is_wildcard(), now);
                // What it makes wanted has to be known before the next one is judged; nothing is published in between.
                self.deadline = self.store.resolve(now);
            }
        }
        keeper.restored(last_word, missing);
        self.settle(now);
    }

    /// Writes what is not on the disk yet; `done` when it is, or cannot be.
    pub(super) fn flush(&mut self, done: oneshot::Sender<()>, now: Now) {
        self.flushing.push(done);
        self.flushed(now);
    }

    /// Goes on with a flush, if there is one.
    pub(super) fn flushed(&mut self, now: Now) {
        if self.flushing.is_empty() {
            return;
        }
        match &mut self.keeper {
            Some(keeper) if keeper.is_behind() => {
                keeper.hurry(now);
                self.keep(now);
            }
            _ => {
                for done in self.flushing.drain(..) {
                    // Who did not wait for it needs no answer.
                    let _ = done.send(());
                }
            }
        }
    }
}

/// What a snapshot changed of what is kept.
pub(super) fn change(before: &Snapshot, now: &Snapshot) -> Change {
    let rules = before.listeners.is_same(&now.listeners)
        && before.routes.is_same(&now.routes)
        && before.clusters.is_same(&now.clusters);
    match (rules, before.endpoints.is_same(&now.endpoints)) {
        (false, _) => Change::Rules,
        (true, false) => Change::Endpoints,
        (true, true) => Change::Nothing,
    }
}

/// What the keeper has to know of a stream.
pub(super) fn heard(keeper: &mut Option<Keeper>, label: &str, failed: bool, now: Now) {
    match keeper {
        Some(keeper) if failed => keeper.failed(label, now),
        Some(keeper) => keeper.connected(label, now),
        None => {}
    }
}

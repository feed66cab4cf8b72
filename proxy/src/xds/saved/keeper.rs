//! When the file is used and when it is written. The driver tells what happens and does what comes back.
//!
//! Knows no clock of its own. The invariants: written is only what a control plane confirmed in full since the start, and
//! no file outlives a change that could not be written.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant, SystemTime},
};

use super::{
    super::{
        config::StartConfig,
        kind::Kind,
        store::{Now, Store},
    },
    KINDS, Owner, Restorable, SavedConfig, SavedStatus,
    awaited::Awaited,
    disk, format,
    secrecy::secret_in,
};
use crate::ir::ConfigSource;

/// Changes this close together are written once.
const QUIET: Duration = Duration::from_secs(1);
/// A configuration that never comes to rest is written as often as this; so are mere changes of endpoints.
const AT_LEAST: Duration = Duration::from_secs(30);
/// What is confirmed and unchanged gets a new date: its age is that of the last word of the control plane.
const REFRESH: Duration = Duration::from_secs(600);
const REFRESH_LEAST: Duration = Duration::from_secs(10);
/// How long a change waits for what is missing of it before it is written as it is.
const WHOLE: Duration = Duration::from_secs(20);
/// The longest pause before another attempt.
const RETRY: Duration = Duration::from_secs(300);

/// What differs from the configuration before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::xds) enum Change {
    /// Nothing that is kept.
    Nothing,
    /// Which hosts there are, and nothing else.
    Endpoints,
    /// Perhaps who may do what.
    Rules,
}

/// The state of the file and of the control plane that outranks it.
#[derive(Debug)]
pub(in crate::xds) struct Keeper {
    config: SavedConfig,
    owner: Owner,
    awaited: Awaited,
    /// When the control plane has had its time; `None` once the file was asked for, or is not needed.
    patience: Option<Instant>,
    /// Since when the file is not what is in force.
    dirty_since: Option<Instant>,
    due: Option<Instant>,
    /// What the file is dated, if it was written by this process.
    dated: Option<SystemTime>,
    last_write: Option<Instant>,
    writing: bool,
    /// Attempts in a row that failed.
    failures: u32,
    pub(in crate::xds) status: SavedStatus,
}

impl Keeper {
    /// `None` where nothing is to be kept, or nothing comes from a control plane.
    pub(in crate::xds) fn new(config: &StartConfig, now: Now) -> Option<Self> {
        let saved = config.saved.clone()?;
        let awaited = Awaited::new(config);
        if awaited.is_empty() {
            tracing::warn!("nothing comes from a control plane here: no configuration is kept on disk");
            return None;
        }
        let patience = now.mono.checked_add(saved.patience);
        Some(Self {
            config: saved,
            owner: Owner::new(config),
            awaited,
            patience,
            dirty_since: None,
            due: None,
            dated: None,
            last_write: None,
            writing: false,
            failures: 0,
            status: SavedStatus::default(),
        })
    }

    /// A stream is up.
    pub(in crate::xds) fn connected(&mut self, label: &str, now: Now) {
        self.awaited.connected(label, now);
    }

    /// A stream failed. What is awaited from it may be away.
    pub(in crate::xds) fn failed(&mut self, label: &str, now: Now) {
        if let Some(at) = self.awaited.failed(label, now) {
            self.patience = self.patience.map(|patience| patience.min(at));
        }
    }

    /// Where to read from, and for whom: once, when the control plane had its time.
    pub(in crate::xds) fn overdue(&mut self, now: Now) -> Option<(SavedConfig, Owner)> {
        self.patience.take_if(|at| *at <= now.mono)?;
        Some((self.config.clone(), self.owner.clone()))
    }

    /// What the disk had to offer. Comes back with the types that nobody delivered meanwhile, to be restored.
    pub(in crate::xds) fn loaded(
        &mut self,
        found: Option<Result<Restorable, String>>,
    ) -> Option<(Restorable, BTreeSet<Kind>)> {
        match found {
            None => tracing::info!(dir = %self.config.dir.display(), "no configuration kept on disk yet"),
            Some(Ok(restorable)) if !self.awaited.is_confirmed() => return Some((restorable, self.awaited.missing())),
            Some(Ok(_)) => {}
            Some(Err(reason)) => self.refused(reason),
        }
        None
    }

    /// The file is not used, or not all of it could be.
    pub(in crate::xds) fn refused(&mut self, reason: String) {
        tracing::warn!(reason, "the configuration kept on disk is not used");
        self.status.refused = Some(reason);
    }

    /// The file is in force.
    pub(in crate::xds) fn restored(&mut self, last_word: SystemTime, kinds: &BTreeSet<Kind>) {
        self.status.in_force = Some(last_word);
        tracing::warn!(
            ?last_word,
            ?kinds,
            "the control plane does not deliver: using the last good configuration from disk"
        );
    }

    /// A source delivered something; `taken`: and not all of it was refused. True when with that all comes from the
    /// control plane again, after a restoration.
    pub(in crate::xds) fn delivered(&mut self, source: &ConfigSource, kind: Kind, taken: bool, now: Now) -> bool {
        if !self.awaited.delivered(source, kind, taken, now) {
            return false;
        }
        self.patience = None;
        // What came before it does not count: from here on the file is awaited.
        self.dirty_since = None;
        self.changed(Change::Rules, now);
        let restored = self.status.in_force.take().is_some();
        if restored {
            tracing::info!("the control plane is back: the configuration is its own again");
        }
        restored
    }

    /// What is in force may differ from what is on disk.
    pub(in crate::xds) fn changed(&mut self, change: Change, now: Now) {
        let since = *match change {
            Change::Nothing => return,
            Change::Endpoints | Change::Rules => self.dirty_since.get_or_insert(now.mono),
        };
        let quiet = (now.mono + QUIET).min(since + AT_LEAST);
        let due = match (change, self.last_write) {
            (Change::Endpoints, Some(last)) => {
                let rare = quiet.max(last + AT_LEAST);
                self.due.map_or(rare, |due| due.min(rare))
            }
            _ => quiet,
        };
        self.status.pending = true;
        self.due = Some(due);
    }

    /// When to ask again.
    pub(in crate::xds) fn due(&self) -> Option<Instant> {
        let due = self.due.filter(|_| !self.writing && self.awaited.is_confirmed());
        [self.patience, due].into_iter().flatten().min()
    }

    /// Whether a change is not on the disk yet and may still get there.
    pub(in crate::xds) fn is_behind(&self) -> bool {
        self.writing || self.dirty_since.is_some() && self.awaited.is_confirmed() && self.failures == 0
    }

    /// The end is near: what is to be written is due.
    pub(in crate::xds) fn hurry(&mut self, now: Now) {
        if self.dirty_since.is_some() {
            self.due = Some(now.mono);
        }
    }

    /// Writing that is due now, to be done where blocking is allowed.
    pub(in crate::xds) fn take_due(
        &mut self,
        store: &Store,
        now: Now,
    ) -> Option<impl FnOnce() -> Result<(), String> + Send + use<>> {
        if self.writing || !self.awaited.is_confirmed() || self.due.is_none_or(|at| at > now.mono) {
            return None;
        }
        let last_word = self.awaited.last_word(now.wall)?;
        let connected = self.awaited.are_connected();
        let waited = self.dirty_since.map(|since| now.mono.saturating_duration_since(since));
        if let Some(waited) = waited
            && !store.is_whole()
        {
            // Half of something is no better than the whole that is there, unless there will never be more.
            let late = waited >= WHOLE;
            if !(late && connected) {
                self.due = Some(now.mono + if late { AT_LEAST } else { QUIET });
                return None;
            }
        }
        let refresh = REFRESH.min(self.config.max_age / 4).max(REFRESH_LEAST);
        self.due = Some(now.mono + refresh);
        let outdated = waited.is_some();
        if !outdated && (!connected || self.dated.is_some_and(|dated| dated >= last_word)) {
            // Nobody confirmed it since.
            return None;
        }
        (self.dirty_since, self.dated, self.last_write) = (None, Some(last_word), Some(now.mono));
        self.writing = true;
        let (dir, owner, entries) = (self.config.dir.clone(), self.owner.clone(), store.keeping(&KINDS));
        Some(move || {
            let secret = entries.iter().find_map(|entry| Some((entry, secret_in(&entry.resource, &entry.raw)?)));
            let written = match secret {
                // Without it the rest might let in more than the whole.
                Some((entry, what)) => {
                    let reason = format!("{} {} holds {what}: nothing is kept", entry.kind, entry.name);
                    Err(disk::remove(&dir, std::io::Error::other(reason), outdated))
                }
                None => disk::replace(&dir, outdated, |out| format::write(&owner, &entries, last_word, out)),
            };
            written.map_err(|e| format!("{}: {e}", dir.display()))
        })
    }

    /// How writing went.
    pub(in crate::xds) fn written(&mut self, result: Result<(), String>, now: Now) {
        self.writing = false;
        match result {
            Ok(()) => {
                self.failures = 0;
                self.status.writes += 1;
                self.status.written = Some(now.wall);
                self.status.last_error = None;
            }
            Err(reason) => {
                self.status.write_failures += 1;
                if self.status.last_error.as_ref() != Some(&reason) {
                    tracing::warn!(reason, "the configuration is not kept on disk");
                }
                self.status.last_error = Some(reason);
                // What was tried is still to be written, the sooner the fewer attempts failed.
                self.dirty_since.get_or_insert(now.mono);
                self.dated = None;
                let pause = Duration::from_secs(1 << self.failures.min(9)).min(RETRY);
                self.failures += 1;
                self.due = Some(now.mono + pause);
            }
        }
        self.status.pending = self.dirty_since.is_some();
    }
}

//! When the file is used and when it is written. The driver tells what happens and does what comes back.
//!
//! Knows no clock of its own. The invariant: written is only what a control plane confirmed in full since the start.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant, SystemTime},
};

use super::{
    super::{
        client::Update,
        config::StartConfig,
        kind::Kind,
        store::{Now, Origin, Store},
    },
    KINDS, Restorable, SavedConfig, SavedStatus, VERSION, disk,
    format::{self, Entry, Owner},
    secrecy::secret_in,
};
use crate::ir::ConfigSource;

/// Changes this close together are written once.
const QUIET: Duration = Duration::from_secs(1);
/// A configuration that never comes to rest is written as often as this.
const AT_LEAST: Duration = Duration::from_secs(30);
/// What is confirmed and unchanged gets a new date: its age is that of the last word of the control plane.
const REFRESH: Duration = Duration::from_secs(600);

/// The state of the file and of the control plane that outranks it.
#[derive(Debug)]
pub(in crate::xds) struct Keeper {
    config: SavedConfig,
    owner: Owner,
    /// Of the wildcard types those that a control plane delivers, and where from.
    awaited: BTreeMap<Kind, ConfigSource>,
    /// Read from disk and not needed so far.
    restorable: Option<Restorable>,
    /// When the control plane has had its time.
    patience: Option<Instant>,
    confirmed: BTreeSet<Kind>,
    dirty_since: Option<Instant>,
    due: Option<Instant>,
    writing: bool,
    pub(in crate::xds) status: SavedStatus,
}

impl Keeper {
    /// `None` where nothing is to be kept, or nothing comes from a control plane.
    pub(in crate::xds) fn new(config: &StartConfig, now: Now) -> Option<Self> {
        let saved = config.saved.clone()?;
        let kinds = [(Kind::Cluster, &config.cds), (Kind::Listener, &config.lds)];
        let served = |source: &ConfigSource| match source {
            ConfigSource::Ads | ConfigSource::SelfSource => Some(ConfigSource::Ads),
            ConfigSource::Grpc { .. } => Some(source.clone()),
            ConfigSource::Static | ConfigSource::Path { .. } => None,
        };
        let awaited: BTreeMap<_, _> =
            kinds.into_iter().filter_map(|(kind, source)| Some((kind, served(source.as_ref()?)?))).collect();
        if awaited.is_empty() {
            tracing::warn!("nothing comes from a control plane here: no configuration is kept on disk");
            return None;
        }
        let owner = Owner { id: config.node.id.clone(), cluster: config.node.cluster.clone() };
        let patience = now.mono.checked_add(saved.patience);
        Some(Self {
            config: saved,
            owner,
            awaited,
            restorable: None,
            patience,
            confirmed: BTreeSet::new(),
            dirty_since: None,
            due: None,
            writing: false,
            status: SavedStatus::default(),
        })
    }

    pub(in crate::xds) fn source(&self) -> (SavedConfig, Owner) {
        (self.config.clone(), self.owner.clone())
    }

    /// What the disk had to offer.
    pub(in crate::xds) fn loaded(&mut self, found: Option<Result<Restorable, String>>) {
        match found {
            None => tracing::info!(dir = %self.config.dir.display(), "no configuration kept on disk yet"),
            Some(Ok(restorable)) if !self.is_confirmed() => self.restorable = Some(restorable),
            Some(Ok(_)) => {}
            Some(Err(reason)) => {
                tracing::warn!(reason, "the configuration kept on disk is not used");
                self.status.refused = Some(reason);
            }
        }
    }

    /// The control plane cannot be reached: there is no use in waiting.
    pub(in crate::xds) fn failed(&mut self, now: Now) {
        self.patience = self.patience.map(|_| now.mono);
    }

    /// What is to be put in force, once the control plane had its time.
    pub(in crate::xds) fn overdue(&mut self, now: Now) -> Option<Restorable> {
        if self.is_confirmed() || self.patience.is_none_or(|at| at > now.mono) {
            return None;
        }
        let mut restorable = self.restorable.take()?;
        for (kind, source) in self.awaited.iter().rev() {
            if !restorable.updates.iter().any(|(_, update)| update.kind == *kind) {
                // There was none of them, which is an answer too.
                restorable.updates.insert(0, (source.clone(), empty(*kind)));
            }
        }
        self.patience = None;
        self.confirmed.clear();
        self.status.in_force = Some(restorable.written);
        tracing::warn!(
            written = ?restorable.written,
            "the control plane does not deliver: using the last good configuration from disk"
        );
        Some(restorable)
    }

    /// The control plane delivered a type. True when with that all comes from it again, after a restoration.
    pub(in crate::xds) fn confirm(&mut self, kind: Kind) -> bool {
        if !self.awaited.contains_key(&kind) || !self.confirmed.insert(kind) || !self.is_confirmed() {
            return false;
        }
        (self.restorable, self.patience) = (None, None);
        let restored = self.status.in_force.take().is_some();
        if restored {
            tracing::info!("the control plane is back: the configuration is its own again");
        }
        restored
    }

    fn is_confirmed(&self) -> bool {
        self.awaited.keys().all(|kind| self.confirmed.contains(kind))
    }

    /// What is in force may differ from what is on disk.
    pub(in crate::xds) fn changed(&mut self, now: Now) {
        self.status.pending = true;
        let since = *self.dirty_since.get_or_insert(now.mono);
        self.due = Some((now.mono + QUIET).min(since + AT_LEAST));
    }

    /// When to ask again.
    pub(in crate::xds) fn due(&self) -> Option<Instant> {
        let patience = self.patience.filter(|_| self.restorable.is_some());
        let due = self.due.filter(|_| !self.writing && self.is_confirmed());
        [patience, due].into_iter().flatten().min()
    }

    /// Writing that is due now, to be done where blocking is allowed.
    pub(in crate::xds) fn take_due(
        &mut self,
        store: &Store,
        connected: bool,
        now: Now,
    ) -> Option<impl FnOnce() -> Result<(), String> + Send + use<>> {
        if self.writing || !self.is_confirmed() || self.due.is_none_or(|at| at > now.mono) {
            return None;
        }
        let refresh = REFRESH.min(self.config.max_age / 4);
        self.due = Some(now.mono + refresh);
        if !connected && self.dirty_since.is_none() {
            // Nobody confirmed it since.
            return None;
        }
        self.dirty_since = None;
        self.writing = true;
        let (dir, owner, entries) = (self.config.dir.clone(), self.owner.clone(), entries(store));
        Some(move || {
            let secret = entries.iter().find_map(|entry| Some((entry, secret_in(entry.kind, &entry.raw)?)));
            if let Some((entry, what)) = secret {
                // Without it the rest might let in more than the whole.
                return Err(format!("{} {} holds {what}: nothing is kept", entry.kind, entry.name));
            }
            let file = format::encode(&owner, &entries, now.wall);
            disk::replace(&dir, &file).map_err(|e| format!("{}: {e}", dir.display()))
        })
    }

    /// How writing went.
    pub(in crate::xds) fn written(&mut self, result: Result<(), String>, now: SystemTime) {
        self.writing = false;
        self.status.pending = self.dirty_since.is_some();
        match result {
            Ok(()) => {
                self.status.writes += 1;
                self.status.written = Some(now);
                self.status.last_error = None;
            }
            Err(reason) => {
                self.status.write_failures += 1;
                if self.status.last_error.as_ref() != Some(&reason) {
                    tracing::warn!(reason, "the configuration is not kept on disk");
                }
                self.status.last_error = Some(reason);
            }
        }
    }
}

fn empty(kind: Kind) -> Update {
    let (version, nonce) = (VERSION.to_owned(), String::new());
    Update { kind, full: true, version, nonce, items: Vec::new(), removed: Vec::new() }
}

/// What sources delivered and still say: the version in force, or the one that waits where there is none.
fn entries(store: &Store) -> Vec<Entry> {
    let mut entries = Vec::new();
    for kind in KINDS {
        for (name, slot) in store.table(kind) {
            let Some(version) = slot.latest.as_ref().map(|latest| slot.active.as_ref().unwrap_or(latest)) else {
                continue;
            };
            let (Origin::Source(source), Some(raw)) = (&version.origin, &version.raw) else { continue };
            if matches!(source, ConfigSource::Ads | ConfigSource::Grpc { .. }) {
                entries.push(Entry {
                    kind,
                    source: source.clone(),
                    name: name.clone(),
                    version: version.version.clone(),
                    raw: raw.clone(),
                });
            }
        }
    }
    entries
}

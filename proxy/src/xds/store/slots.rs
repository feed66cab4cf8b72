//! The only ways to change a slot, keeping up what is derived from all slots: who waits, who leaves, who is referred
//! to, what is published.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use super::{
    super::{decode::Resource, kind::Kind},
    Slot, Store, Version, same,
};
use crate::ir::{Name, snapshot::Snapshot};

/// Slots that are not at rest, by type; those at rest cost nothing.
#[derive(Debug, Default)]
pub(super) struct Unrest {
    /// The latest version is not in force.
    pub(super) pending: [BTreeSet<Name>; 5],
    /// Still in force, but gone: clusters and listeners only.
    pub(super) leaving: [BTreeSet<Name>; 5],
    /// Perhaps nobody refers to them, or nobody has for a while: named types only.
    pub(super) idle: BTreeSet<(Kind, Name)>,
    /// Times to live.
    pub(super) expiring: BTreeSet<(Instant, Kind, Name)>,
    /// Slots with an accepted version.
    pub(super) known: [usize; 5],
}

fn hold<T: Ord + Clone>(set: &mut BTreeSet<T>, item: &T, held: bool) {
    if !held {
        set.remove(item);
    } else if !set.contains(item) {
        set.insert(item.clone());
    }
}

impl Store {
    /// Changes a slot, made if there is none. Versions are changed by [`Self::set_latest`] and [`Self::set_active`].
    pub(super) fn edit<R>(&mut self, kind: Kind, name: &Name, change: impl FnOnce(&mut Slot) -> R) -> R {
        let table = &mut self.tables[kind as usize];
        let slot = match table.get_mut(name) {
            Some(slot) => slot,
            None => table.entry(name.clone()).or_default(),
        };
        let expired = slot.expires;
        let result = change(slot);
        if slot.expires != expired {
            expired.map(|at| self.unrest.expiring.remove(&(at, kind, name.clone())));
            slot.expires.map(|at| self.unrest.expiring.insert((at, kind, name.clone())));
        }
        let (gone, pending) = (slot.latest.is_none() && slot.active.is_some(), slot.is_pending());
        let named = !kind.is_wildcard();
        hold(&mut self.unrest.pending[kind as usize], name, pending);
        hold(&mut self.unrest.leaving[kind as usize], name, gone && !named);
        if named && (slot.unwanted.is_some() || slot.since.is_none()) {
            // A name gets its `since` when it is first referred to.
            self.unrest.idle.insert((kind, name.clone()));
        }
        result
    }

    /// Forgets a name with all that is known of it.
    pub(super) fn discard(&mut self, kind: Kind, name: &Name) {
        self.set_latest(kind, name, None);
        self.set_active(kind, name, None);
        self.edit(kind, name, |slot| (slot.expires, slot.unwanted) = (None, None));
        self.unrest.idle.remove(&(kind, name.clone()));
        self.tables[kind as usize].remove(name);
    }

    pub(super) fn set_latest(&mut self, kind: Kind, name: &Name, version: Option<Arc<Version>>) {
        if let Some(version) = &version {
            self.refer(kind, version, true);
        }
        let old = self.edit(kind, name, |slot| std::mem::replace(&mut slot.latest, version.clone()));
        let known = &mut self.unrest.known[kind as usize];
        *known = *known + usize::from(version.is_some()) - usize::from(old.is_some());
        if let Some(old) = old {
            self.refer(kind, &old, false);
        }
    }

    pub(super) fn set_active(&mut self, kind: Kind, name: &Name, version: Option<Arc<Version>>) {
        if let Some(version) = &version {
            self.refer(kind, version, true);
            self.employ(kind, version, true);
        }
        let old = self.edit(kind, name, |slot| std::mem::replace(&mut slot.active, version.clone()));
        let unchanged = match (&old, &version) {
            (Some(old), Some(new)) => same(&old.resource, &new.resource),
            (None, None) => true,
            _ => false,
        };
        if !unchanged {
            self.changed = true;
            match &version {
                Some(version) => put(&mut self.snapshot, &version.resource),
                None => take(&mut self.snapshot, kind, name),
            }
        }
        if let Some(old) = old {
            self.refer(kind, &old, false);
            self.employ(kind, &old, false);
        }
    }

    /// References count from clusters and listeners, whatever their state; route configurations refer to none.
    fn refer(&mut self, kind: Kind, version: &Version, counts: bool) {
        match (kind.is_wildcard(), counts) {
            (true, true) => self.references.add(version.needs(), &version.origin),
            (true, false) => self.references.subtract(version.needs(), &version.origin),
            (false, _) => {}
        }
    }

    /// Clusters are in use by what is in force.
    fn employ(&mut self, kind: Kind, version: &Version, counts: bool) {
        match (matches!(kind, Kind::Listener | Kind::Routes), counts) {
            (true, true) => self.references.add_users(version.needs()),
            (true, false) => self.references.subtract_users(version.needs()),
            (false, _) => {}
        }
    }
}

pub(super) fn put(snapshot: &mut Snapshot, resource: &Resource) {
    match resource.clone() {
        Resource::Cluster(c) => drop(snapshot.clusters.insert(Arc::clone(&c.name), c)),
        Resource::Listener(l) => drop(snapshot.listeners.insert(Arc::clone(&l.name), l)),
        Resource::Endpoints { name, assignment } => drop(snapshot.endpoints.insert(name, assignment)),
        Resource::Routes { name, routes } => drop(snapshot.routes.insert(name, routes)),
        Resource::Secret { name, secret } => drop(snapshot.secrets.insert(name, secret)),
    }
}

fn take(snapshot: &mut Snapshot, kind: Kind, name: &str) {
    match kind {
        Kind::Cluster => drop(snapshot.clusters.remove(name)),
        Kind::Endpoints => drop(snapshot.endpoints.remove(name)),
        Kind::Listener => drop(snapshot.listeners.remove(name)),
        Kind::Routes => drop(snapshot.routes.remove(name)),
        Kind::Secret => drop(snapshot.secrets.remove(name)),
    }
}

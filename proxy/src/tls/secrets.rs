//! The secrets in force, by name, and the contexts built from them.
//!
//! Owns the map and the duty to tell every context that uses a changed secret or file. Knows nothing of how secrets
//! arrive. Invariant: a context registered here sees every change made after its registration.

use std::{
    collections::{HashMap, VecDeque},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError, RwLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::Notify;

use super::{
    client,
    context::Core,
    expiry::{self, Expiration},
    shown::InUse,
};
use crate::ir::{Name, secret::Secret};

/// Something built from secrets and files.
pub(super) trait Dependent: Send + Sync {
    fn uses(&self, secret: &str) -> bool;
    /// Builds anew when an input changed. Reads files, so it belongs on the control side.
    fn refresh(&self);
    /// Directories whose changes call for a refresh; empty when no file is used.
    fn watched(&self) -> Vec<PathBuf>;
    /// Whether the inputs at hand could not be used, so that another look is due soon.
    fn failing(&self) -> bool;
    /// When the certificates in use end.
    fn expirations(&self) -> Vec<Expiration>;
    /// The certificates in use.
    fn certificates(&self) -> InUse;
}

/// Different sets of certificates that are shown.
const MOST_SHOWN: usize = 256;

/// All secrets, shared by every context.
#[derive(Default)]
pub struct Secrets {
    map: RwLock<HashMap<Name, Arc<Secret>>>,
    generation: AtomicU64,
    dependents: RwLock<Vec<Weak<dyn Dependent>>>,
    registered: Notify,
    /// What client contexts with equal rules share, latest first.
    pub(super) clients: Mutex<VecDeque<Weak<Core<client::Builder>>>>,
}

impl Secrets {
    /// Puts a secret in force and rebuilds the contexts that use it; an equal one changes nothing.
    pub fn set(&self, name: Name, secret: Arc<Secret>) {
        {
            let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
            if map.get(&name).is_some_and(|old| **old == *secret) {
                return;
            }
            map.insert(name.clone(), secret);
        }
        self.changed(&name);
    }

    /// Forgets a secret. Contexts built from it go on with what they have.
    pub fn remove(&self, name: &str) {
        let removed = self.map.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        if removed.is_some() {
            self.changed(name);
        }
    }

    pub fn get(&self, name: &str) -> Option<Arc<Secret>> {
        self.map.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Grows with every change.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn changed(&self, name: &str) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        for dependent in self.dependents() {
            if dependent.uses(name) {
                dependent.refresh();
            }
        }
        // A secret may name other files than before.
        self.registered.notify_one();
    }

    pub(super) fn register(&self, dependent: Weak<dyn Dependent>) {
        let mut dependents = self.dependents.write().unwrap_or_else(PoisonError::into_inner);
        if dependents.len() == dependents.capacity() {
            dependents.retain(|d| d.strong_count() > 0);
        }
        dependents.push(dependent);
        drop(dependents);
        self.registered.notify_one();
    }

    pub(super) fn dependents(&self) -> Vec<Arc<dyn Dependent>> {
        self.dependents.read().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect()
    }

    /// When the certificates in use end, the earliest per name.
    pub fn expirations(&self) -> Vec<Expiration> {
        expiry::merged(self.dependents().iter().flat_map(|d| d.expirations()).collect())
    }

    /// The certificates in use, each set of them once, of a bounded number of contexts.
    pub fn certificates(&self) -> Vec<InUse> {
        let mut all: Vec<InUse> = Vec::new();
        for dependent in self.dependents() {
            let one = dependent.certificates();
            if one != InUse::default() && !all.contains(&one) {
                all.push(one);
            }
            if all.len() >= MOST_SHOWN {
                break;
            }
        }
        all
    }

    /// Waits until the set of watched files may have changed.
    pub(super) async fn registration(&self) {
        self.registered.notified().await;
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        f.debug_struct("Secrets").field("names", &map.keys().collect::<Vec<_>>()).finish_non_exhaustive()
    }
}

//! The buckets of a descriptor with blank values: one for each combination of values, as many as configured.
//!
//! Behind a lock: values come and go with the requests. Invariant: never more buckets than configured; the one that was
//! used longest ago makes room.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use super::{Entry, hash, local::Drawn, same};
use crate::ir::rate_limit::LimitedDescriptor;

#[derive(Debug)]
pub(super) struct Wildcard {
    config: LimitedDescriptor,
    max: usize,
    state: foldhash::fast::RandomState,
    buckets: Mutex<Buckets>,
}

#[derive(Debug, Default)]
struct Buckets {
    slots: Vec<Slot>,
    by_hash: HashMap<u64, usize, foldhash::fast::RandomState>,
    /// Slots by their last use.
    by_use: BTreeMap<u64, usize>,
    uses: u64,
}

#[derive(Debug)]
struct Slot {
    hash: u64,
    entries: Box<[(Box<str>, Box<str>)]>,
    drawn: Arc<Drawn>,
    used: u64,
}

impl Wildcard {
    pub(super) fn new(config: &LimitedDescriptor, max: u32) -> Self {
        let max = usize::try_from(max.max(1)).unwrap_or(usize::MAX);
        Self { config: config.clone(), max, state: Default::default(), buckets: Mutex::default() }
    }

    pub(super) fn matches(&self, entries: &[Entry<'_>]) -> bool {
        let config = &self.config.entries;
        config.len() == entries.len()
            && config.iter().zip(entries).all(|(c, e)| *c.0 == *e.0 && (c.1.is_empty() || *c.1 == *e.1))
    }

    /// What the bucket of these values has, or would have; none is made or kept longer for it.
    pub(super) fn peek(&self, entries: &[Entry<'_>]) -> Arc<Drawn> {
        let hash = hash(&self.state, entries);
        let buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let known = buckets.by_hash.get(&hash).map(|at| &buckets.slots[*at]);
        match known.filter(|slot| same(&slot.entries, entries)) {
            Some(slot) => slot.drawn.clone(),
            None => Drawn::new(&self.config.bucket, self.config.shadow),
        }
    }

    /// The bucket of these values.
    pub(super) fn bucket(&self, entries: &[Entry<'_>]) -> Arc<Drawn> {
        let hash = hash(&self.state, entries);
        let mut guard = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let buckets = &mut *guard;
        buckets.uses += 1;
        let known = buckets.by_hash.get(&hash).copied();
        if let Some(at) = known
            && same(&buckets.slots[at].entries, entries)
        {
            return buckets.touch(at);
        }
        let slot = Slot {
            hash,
            entries: entries.iter().map(|(k, v)| (k.as_ref().into(), v.as_ref().into())).collect(),
            drawn: Drawn::new(&self.config.bucket, self.config.shadow),
            used: 0,
        };
        // Two sets of values with one hash take turns, which chance makes once in ages.
        let taken = known.or_else(|| {
            let full = buckets.slots.len() >= self.max;
            full.then(|| buckets.by_use.first_key_value().map(|(_, at)| *at)).flatten()
        });
        let at = match taken {
            Some(at) => {
                let old = std::mem::replace(&mut buckets.slots[at], slot);
                buckets.by_hash.remove(&old.hash);
                buckets.by_use.remove(&old.used);
                at
            }
            None => {
                buckets.slots.push(slot);
                buckets.slots.len() - 1
            }
        };
        buckets.by_hash.insert(hash, at);
        buckets.touch(at)
    }
}

impl Buckets {
    fn touch(&mut self, at: usize) -> Arc<Drawn> {
        let slot = &mut self.slots[at];
        self.by_use.remove(&slot.used);
        slot.used = self.uses;
        self.by_use.insert(self.uses, at);
        slot.drawn.clone()
    }
}

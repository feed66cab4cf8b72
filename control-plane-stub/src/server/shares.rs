//! How many of something each of many holders has at once: connections of an address, streams of an identity.
//!
//! Invariant: memory follows what is held; who holds nothing is not remembered.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

pub(crate) struct Shares<K: Hash + Eq> {
    most: usize,
    held: Mutex<HashMap<K, usize>>,
}

/// One of them, given back when dropped.
pub(crate) struct Share<K: Hash + Eq> {
    of: Arc<Shares<K>>,
    key: K,
}

impl<K: Hash + Eq + Clone> Shares<K> {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, held: Mutex::default() })
    }

    /// One more for `key`, unless it has as many as anybody may.
    pub(crate) fn take(self: &Arc<Self>, key: K) -> Option<Share<K>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.get(&key).copied().unwrap_or(0);
        if count >= self.most {
            return None;
        }
        held.insert(key.clone(), count + 1);
        Some(Share { of: Arc::clone(self), key })
    }
}

impl<K: Hash + Eq> Drop for Share<K> {
    fn drop(&mut self) {
        let mut held = self.of.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_share_and_gives_it_back() {
        let shares = Shares::new(2);
        let (one, two) = (shares.take("a").unwrap(), shares.take("a").unwrap());
        assert!(shares.take("a").is_none());
        assert!(shares.take("b").is_some());
        drop(one);
        assert!(shares.take("a").is_some());
        drop(two);
        assert!(shares.held.lock().unwrap().is_empty());
    }
}

//! Which labels may be in a book, to be asked without its lock: never wrong about those that are, seldom about others.

use std::{
    hash::BuildHasher,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// With as many series as are kept by default one in thirteen unknown labels is taken for a known one.
const WORDS: usize = 1024;

#[derive(Debug)]
pub(super) struct Filter {
    bits: Box<[AtomicU64]>,
    hasher: foldhash::fast::RandomState,
}

impl Default for Filter {
    fn default() -> Self {
        Self { bits: (0..WORDS).map(|_| AtomicU64::new(0)).collect(), hasher: foldhash::fast::RandomState::default() }
    }
}

impl Filter {
    fn place(&self, labels: &str) -> (usize, u64) {
        let hash = self.hasher.hash_one(labels);
        (usize::try_from(hash >> 6).unwrap_or(usize::MAX) % WORDS, 1 << (hash & 63))
    }

    /// Remembers labels.
    pub(super) fn add(&self, labels: &str) {
        let (word, bit) = self.place(labels);
        if self.bits[word].load(Relaxed) & bit == 0 {
            self.bits[word].fetch_or(bit, Relaxed);
        }
    }

    pub(super) fn may_have(&self, labels: &str) -> bool {
        let (word, bit) = self.place(labels);
        self.bits[word].load(Relaxed) & bit != 0
    }

    /// Forgets all but these; nobody may add others at the same time.
    pub(super) fn replace<'l>(&self, labels: impl Iterator<Item = &'l str>) {
        let mut words = vec![0u64; WORDS];
        for (word, bit) in labels.map(|labels| self.place(labels)) {
            words[word] |= bit;
        }
        self.bits.iter().zip(words).for_each(|(bits, word)| bits.store(word, Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_found_and_little_else() {
        let filter = Filter::default();
        let text = |n: u32| format!("label=\"{n}\"");
        (0..5000).for_each(|n| filter.add(&text(n)));
        assert!((0..5000).all(|n| filter.may_have(&text(n))));
        let wrong = (5000..15_000).filter(|n| filter.may_have(&text(*n))).count();
        assert!(wrong < 1500, "{wrong}");
        filter.replace([text(7)].iter().map(|text| &**text));
        assert!(filter.may_have(&text(7)) && (0..5000).filter(|n| filter.may_have(&text(*n))).count() < 10);
    }
}

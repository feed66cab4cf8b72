//! Which hosts a request could go to: found by asking the balancer many times.

use std::sync::atomic::AtomicU64;

use super::{Cluster, PickContext};

/// How often a balancer is asked to find all the hosts that it may choose.
const DRAWS_EACH: usize = 16;
const MOST_DRAWS: usize = 4096;
/// Spreads consecutive draws over all numbers.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

impl Cluster {
    /// The members that picks for such a request came to, by their places, and of how many picks; who is not among them
    /// is hardly ever chosen, if at all. Nothing moves or is counted for it.
    pub fn eligible(&self, context: &PickContext<'_>) -> (Vec<usize>, usize) {
        let parts = self.parts();
        if parts.is_broken() || parts.members().is_empty() {
            return (Vec::new(), 0);
        }
        let cursor = AtomicU64::new(0);
        let draws = (parts.members().len() * DRAWS_EACH).clamp(DRAWS_EACH, MOST_DRAWS);
        let mut found: Vec<usize> = (0..draws)
            .filter_map(|draw| {
                let random = context.random.wrapping_add((draw as u64).wrapping_mul(GOLDEN));
                self.choose(&PickContext { random, ..*context }, (&cursor, true), &|_| {})
            })
            .collect();
        found.sort_unstable();
        found.dedup();
        (found, draws)
    }
}

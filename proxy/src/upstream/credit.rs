//! Credit for retries: as long as retries pay off they are bounded by the budget alone, where they do not they end.
//!
//! A share of what is in flight (the budget) bounds one proxy; it does not bound a chain of them, where each multiplies
//! what the one before it let through. What tells a bad replica from a bad service is whether retries succeed: a retry
//! takes a unit of credit, a good answer gives some back, and a retry that succeeds gives back the unit it took. A
//! service that fails altogether gets, for each request, no more than a hundredth of a retry from each of its callers.
//! Pure arithmetic, one per cluster and worker.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use crate::telemetry::metrics::{Block, Kind};

/// Thousandths of a retry.
const RETRY: i64 = 1000;
/// What may be saved up, and what a cluster starts with.
const MOST: i64 = 20 * RETRY;
/// What every request brings, whatever comes of it: a service that recovers is noticed.
const REQUEST: i64 = RETRY / 100;

/// See the module's head.
#[derive(Debug)]
pub struct Credit(AtomicI64);

impl Default for Credit {
    fn default() -> Self {
        Self(AtomicI64::new(MOST))
    }
}

/// No statistics: it only has to be one per worker.
impl Block for Credit {
    fn visit(&self, _: &mut dyn FnMut(&'static str, Kind, u64)) {}
}

impl Credit {
    fn add(&self, amount: i64) {
        // One worker alone writes here.
        self.0.store((self.0.load(Relaxed) + amount).min(MOST), Relaxed);
    }

    /// A request that may be retried came to its end. `good`: with an answer that no retry was wanted for; `share`: of
    /// requests that may be retries, in thousandths.
    pub fn ended(&self, good: bool, share: u32) {
        self.add(REQUEST + if good { RETRY * i64::from(share.min(1000)) / 1000 } else { 0 });
    }

    /// Takes a retry's worth, if it is there.
    pub fn take(&self) -> bool {
        let enough = self.0.load(Relaxed) >= RETRY;
        if enough {
            self.add(-RETRY);
        }
        enough
    }

    /// A retry was worth it, or was not made.
    pub fn give_back(&self) {
        self.add(RETRY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_that_fail_use_it_up_and_those_that_succeed_do_not() {
        let credit = Credit::default();
        assert_eq!((0..100).filter(|_| credit.take()).count(), 20);
        for _ in 0..99 {
            credit.ended(false, 200);
        }
        assert!(!credit.take());
        credit.ended(false, 200);
        assert!(credit.take(), "one in a hundred");
        for _ in 0..5 {
            credit.ended(true, 200);
        }
        assert!(credit.take(), "one for five that were good");
        let credit = Credit::default();
        for _ in 0..10_000 {
            assert!(credit.take());
            credit.give_back();
            credit.ended(true, 200);
        }
        assert_eq!((0..100).filter(|_| credit.take()).count(), 20, "it does not pile up");
    }
}

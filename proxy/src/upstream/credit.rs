//! Credit for retries: as long as retries pay off they are bounded by the budget alone, where they do not they end.
//!
//! A share of what is in flight (the budget) bounds one proxy; it does not bound a chain of them, where each multiplies
//! what the one before it let through. What tells a bad replica from a bad service is whether retries succeed: a retry
//! takes a unit of credit, a good answer gives some back, and a retry that succeeds gives back the unit it took. A
//! service that fails altogether gets, for each request, no more than a hundredth of a retry from each of its callers.
//! What tells it sooner are the hosts: where one fails again and again and most of the others answer well it is one
//! replica, and however many requests it takes with it at once, each may go elsewhere. Pure arithmetic.

use std::sync::atomic::{AtomicI64, AtomicU32, Ordering::Relaxed};

use crate::telemetry::metrics::{Block, Kind};

/// Thousandths of a retry.
const RETRY: i64 = 1000;
/// What may be saved up, and what a cluster starts with: each worker of each proxy in a chain may spend it on a service
/// that fails.
const MOST: i64 = 10 * RETRY;
/// What every request brings, whatever comes of it: a service that recovers is noticed.
const REQUEST: i64 = RETRY / 100;

/// Good answers in a row after which a host is well: where only some requests succeed hardly any host gets there.
const WELL: u32 = 5;

/// One per cluster and worker; see the module's head.
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

/// How a host did lately, by the results of all workers. Read with every result, written only while it changes.
#[derive(Debug, Default)]
pub struct Streak(AtomicU32);

impl Streak {
    /// A try came to its end. `good`: with an answer that no retry was wanted for. Says whether the host was failing
    /// before: a host that is well and fails once stumbled over the request.
    pub fn ended(&self, good: bool) -> bool {
        let now = self.0.load(Relaxed);
        // 0: nothing is known; 1: the last one was bad; then the good ones since.
        let next = if good { (now.max(1) + 1).min(1 + WELL) } else { 1 };
        // Workers that overwrite each other lose a result, which the next makes up for.
        if next != now {
            self.0.store(next, Relaxed);
        }
        (1..=WELL).contains(&now)
    }

    /// Whether the host answers well, if it was ever asked.
    pub fn is_well(&self) -> Option<bool> {
        match self.0.load(Relaxed) {
            0 => None,
            good => Some(good > WELL),
        }
    }
}

/// Whether it is one host that fails and not the service, by how the other hosts do: at least half of those that
/// anything is known of are well.
pub fn is_own_fault(others: impl Iterator<Item = Option<bool>>) -> bool {
    let (well, known) = others.flatten().fold((0u32, 0u32), |(well, known), is| (well + u32::from(is), known + 1));
    well > 0 && well * 2 >= known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_that_fail_use_it_up_and_those_that_succeed_do_not() {
        let credit = Credit::default();
        assert_eq!((0..100).filter(|_| credit.take()).count(), 10);
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
        assert_eq!((0..100).filter(|_| credit.take()).count(), 10, "it does not pile up");
    }

    #[test]
    fn a_host_is_well_after_good_answers_in_a_row() {
        let streak = Streak::default();
        assert_eq!(streak.is_well(), None);
        for good in 1..10 {
            streak.ended(true);
            assert_eq!(streak.is_well(), Some(good >= 5), "{good}");
        }
        assert!(!streak.ended(false), "it was well");
        assert!(streak.ended(false) && streak.ended(true) && streak.ended(false), "it was failing");
        for good in 1..10 {
            streak.ended(true);
            assert_eq!(streak.is_well(), Some(good >= 5), "{good} after a bad one");
        }
    }

    #[test]
    fn half_of_the_known_others_have_to_be_well() {
        let fault = |others: &[Option<bool>]| is_own_fault(others.iter().copied());
        let (well, bad, idle) = (Some(true), Some(false), None);
        assert!(fault(&[well, well]) && fault(&[well, bad]) && fault(&[well, idle, idle, bad]));
        assert!(!fault(&[]), "a single host");
        assert!(!fault(&[idle, idle]) && !fault(&[bad, bad, well]) && !fault(&[bad, idle]));
    }
}

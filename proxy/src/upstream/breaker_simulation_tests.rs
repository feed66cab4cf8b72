//! Breakers under random use: what must hold whatever happens, from one integer each.

use super::*;
use crate::ir::cluster::RetryBudget;

fn random_thresholds(rng: &mut fastrand::Rng) -> BreakerThresholds {
    BreakerThresholds {
        max_connections: rng.u32(0..6),
        max_pending_requests: rng.u32(0..6),
        max_requests: rng.u32(0..20),
        max_retries: rng.u32(0..8),
        max_connection_pools: rng.u32(0..4),
        track_remaining: false,
        retry_budget: RetryBudget { permille: rng.u32(0..=1000), min_concurrency: rng.u32(0..4), yields: false },
    }
}

/// Retries that may be out with so many requests in flight and waiting.
fn retries_allowed(thresholds: &BreakerThresholds, in_flight: u32) -> u32 {
    let share = in_flight * thresholds.retry_budget.permille / 1000;
    share.max(thresholds.retry_budget.min_concurrency).min(thresholds.max_retries)
}

#[test]
fn no_limit_is_exceeded_and_every_permit_comes_back() {
    let (mut granted, mut refused) = (0u64, 0u64);
    for seed in 0..10_000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut thresholds = random_thresholds(&mut rng);
        let breaker = Breaker::new(&thresholds);
        let mut held: [Vec<Permit>; 5] = Default::default();
        for _ in 0..80 {
            let at = rng.usize(0..5);
            if rng.u32(0..100) == 0 {
                thresholds = random_thresholds(&mut rng);
                breaker.configure(&thresholds);
                continue;
            }
            if rng.u32(0..3) == 0 {
                if !held[at].is_empty() {
                    let index = rng.usize(0..held[at].len());
                    drop(held[at].swap_remove(index));
                }
                continue;
            }
            let in_flight = (held[1].len() + held[2].len()) as u32;
            let (permit, max) = match at {
                0 => (breaker.try_connection(), thresholds.max_connections),
                1 => (breaker.try_pending(), thresholds.max_pending_requests),
                2 => (breaker.try_request(), thresholds.max_requests),
                3 => (breaker.try_retry(), retries_allowed(&thresholds, in_flight)),
                _ => (breaker.try_pool(), thresholds.max_connection_pools),
            };
            let room = (held[at].len() as u32) < max;
            assert_eq!(permit.is_some(), room, "seed {seed}: exactly as many as allowed ({at})");
            if room {
                granted += 1
            } else {
                refused += 1
            }
            held[at].extend(permit);
            let used = breaker.levels().map(|level| level.used);
            assert_eq!(used, std::array::from_fn(|i| held[i].len() as u32), "seed {seed}");
        }
        drop(held);
        assert_eq!(breaker.levels().map(|level| level.used), [0; 5], "seed {seed}: every permit is back");
    }
    assert!(granted > 100_000 && refused > 100_000, "{granted} granted, {refused} refused");
}

//! Hosts, draws and statistics for the tests of balancers.

use std::sync::LazyLock;

use super::*;
use crate::ir::balancing::LeastRequest;

pub(super) const ONE: &[Group<'_>] = &[Group { priority: 0, weight: None, place: None }];

pub(super) const LEAST: Policy =
    Policy::LeastRequest(LeastRequest { choices: 2, full_scan: false, bias: crate::ir::balancing::Number::ONE });

pub(super) fn options(policy: Policy) -> Options<'static> {
    static PLAIN: LazyLock<Arc<LbOptions>> = LazyLock::new(Arc::default);
    let (now, callers) = (Duration::ZERO, None);
    Options { policy, more: &PLAIN, panic_threshold: 50, overprovisioning: 140, now, callers }
}

/// Without panic.
pub(super) fn calm(policy: Policy) -> Options<'static> {
    Options { panic_threshold: 0, ..options(policy) }
}

pub(super) fn host(weight: u32, health: Health, locality: u32) -> Host<'static> {
    Host { weight, health, locality, key: "", metadata: None, since: Duration::ZERO }
}

pub(super) fn group(priority: u32, weight: Option<u32>) -> Group<'static> {
    Group { priority, weight, place: None }
}

/// Healthy hosts of weight 1 with these keys.
pub(super) fn keyed(keys: &[String]) -> Vec<Host<'_>> {
    keys.iter().map(|key| Host { key, ..host(1, Health::Healthy, 0) }).collect()
}

/// A draw of an idle cluster.
pub(super) fn draw(random: u64) -> Draw<'static> {
    static CURSOR: AtomicU64 = AtomicU64::new(0);
    Draw {
        random,
        hash: None,
        criteria: None,
        cursor: &CURSOR,
        attempts: 3,
        active: &|_| 0,
        total: &|| 0,
        latency: &|_, _| None,
        now: &|| Duration::ZERO,
        excluded: &|_| false,
        excludes: false,
        event: &|_| {},
        tried: None,
        imagined: false,
    }
}

/// `n` picks; counts per host.
pub(super) fn counts(balancer: &Balancer, hosts: usize, n: u64, active: &dyn Fn(usize) -> u32) -> Vec<u64> {
    let cursor = AtomicU64::new(0);
    count(hosts, n, &|random| balancer.pick(&Draw { cursor: &cursor, active, ..draw(random) }))
}

/// `n` picks of seeded draws.
pub(super) fn count(hosts: usize, n: u64, pick: &dyn Fn(u64) -> Option<usize>) -> Vec<u64> {
    let mut seeds = SplitMix(7);
    let mut counts = vec![0; hosts];
    (0..n).for_each(|_| counts[pick(seeds.next()).expect("a host")] += 1);
    counts
}

/// Each count within `tolerance` (relative) of its expected share.
pub(super) fn assert_shares(counts: &[u64], shares: &[f64], tolerance: f64) {
    let (n, total) = (counts.iter().sum::<u64>() as f64, shares.iter().sum::<f64>());
    for (i, (count, share)) in counts.iter().zip(shares).enumerate() {
        let expected = n * share / total;
        assert!(
            (*count as f64 - expected).abs() <= expected * tolerance + 1.0,
            "host {i}: {count} of {expected}: {counts:?}"
        );
    }
}

/// That independent draws could come from these shares: Pearson's test at the level of one in a thousand.
pub(super) fn assert_chi_squared(counts: &[u64], shares: &[f64]) {
    let (n, total) = (counts.iter().sum::<u64>() as f64, shares.iter().sum::<f64>());
    let expected = |share: f64| n * share / total;
    let zero = counts.iter().zip(shares).all(|(count, share)| *share > 0.0 || *count == 0);
    assert!(zero, "a host without a share was picked: {counts:?} of {shares:?}");
    let some: Vec<(f64, f64)> =
        counts.iter().zip(shares).filter(|(_, s)| **s > 0.0).map(|(c, s)| (*c as f64, expected(*s))).collect();
    let statistic: f64 = some.iter().map(|(count, expected)| (count - expected).powi(2) / expected).sum();
    // Wilson and Hilferty's approximation of the quantile.
    let freedom = (some.len() - 1).max(1) as f64;
    let bound = freedom * (1.0 - 2.0 / (9.0 * freedom) + 3.09 * (2.0 / (9.0 * freedom)).sqrt()).powi(3);
    assert!(statistic <= bound, "chi-squared {statistic} of {bound}: {counts:?} for {shares:?}");
}

//! Ten thousand seeded clusters, and a simulated service with one slow replica.
//!
//! Invariants: outside panic nobody is picked who is unhealthy, and never who is draining; whoever picks gets somebody
//! as long as anybody may take traffic; equal inputs give equal picks; an excluded host is avoided while there is
//! another of its kind.

use std::{cell::RefCell, cmp::Reverse, collections::BinaryHeap};

use super::{testing::*, *};
use crate::ir::balancing::{HashKeys, LeastRequest, Maglev, Number, PeakEwma, RingHash, SlowStart};

const SEEDS: u64 = 10_000;

fn policies() -> [Policy; 8] {
    let keys = HashKeys { hostname: false, balance_factor: 120 };
    [
        Policy::RoundRobin,
        Policy::Random,
        LEAST,
        Policy::LeastRequest(LeastRequest { full_scan: true, ..LeastRequest::default() }),
        Policy::LeastRequest(LeastRequest { bias: Number::new(0.3).unwrap(), choices: 5, full_scan: false }),
        Policy::PeakEwma(PeakEwma::default()),
        Policy::RingHash(RingHash { min_size: 16, max_size: 64, murmur: false, keys }),
        Policy::Maglev(Maglev { table_size: 31, keys: HashKeys::default() }),
    ]
}

#[test]
fn seeded_clusters_keep_the_invariants() {
    for seed in 0..SEEDS {
        let mut random = SplitMix(seed);
        let mut below = |n: u64| random.next() % n;
        let localities = 1 + below(4);
        let weighted = below(2) == 0;
        let groups: Vec<_> =
            (0..localities).map(|_| group(below(3) as u32, weighted.then(|| below(5) as u32))).collect();
        let keys: Vec<String> = (0..below(12)).map(|i| format!("10.0.0.{i}:80")).collect();
        let hosts: Vec<_> = keyed(&keys)
            .into_iter()
            .map(|h| Host {
                weight: 1 + below(9) as u32,
                health: [Health::Healthy, Health::Healthy, Health::Degraded, Health::Unhealthy, Health::Draining]
                    [below(5) as usize],
                locality: below(localities) as u32,
                since: Duration::from_secs(below(100)),
                ..h
            })
            .collect();
        let slow = SlowStart { window: Duration::from_secs(30), aggression: Number::ONE, min_permille: 100 };
        let more = Arc::new(LbOptions { slow_start: (below(2) == 0).then_some(slow), ..LbOptions::default() });
        let policy = policies()[below(8) as usize];
        let panic_threshold = [0, 50, 100][below(3) as usize];
        let now = Duration::from_secs(100);
        let options = Options { more: &more, panic_threshold, now, ..options(policy) };
        let balancer = Balancer::new(&hosts, &groups, &options);
        let mut ranks: Vec<u32> = groups.iter().map(|g| g.priority).collect();
        ranks.sort_unstable();
        ranks.dedup();
        let rank = |h: usize| ranks.iter().position(|r| *r == groups[hosts[h].locality as usize].priority).unwrap();
        let load: Vec<u32> = hosts.iter().map(|_| below(7) as u32).collect();
        for _ in 0..8 {
            let (excluded, seed, hash) = (below(14) as usize, below(u64::MAX), below(u64::MAX));
            let cursor = AtomicU64::new(below(1000));
            let draw = Draw {
                hash: (hash % 3 > 0).then_some(hash),
                cursor: &cursor,
                active: &|h| load[h],
                total: &|| load.iter().map(|l| u64::from(*l)).sum(),
                latency: &|h, _| (h % 3 > 0).then_some(h as f64),
                now: &|| now,
                excluded: &|h| h == excluded,
                excludes: excluded < hosts.len(),
                ..draw(seed)
            };
            let at = cursor.load(std::sync::atomic::Ordering::Relaxed);
            let picked = balancer.pick(&draw);
            cursor.store(at, std::sync::atomic::Ordering::Relaxed);
            assert_eq!(picked, balancer.pick(&draw), "seed {seed}: a pick replays");
            let able = |h: &Host<'_>| matches!(h.health, Health::Healthy | Health::Degraded);
            let Some(picked) = picked else {
                // All able hosts may sit in localities of weight zero beside others; without weights there is somebody.
                assert!(weighted || !hosts.iter().any(able), "nobody picked, seed {seed}, {policy:?}, {hosts:?}");
                continue;
            };
            assert_ne!(hosts[picked].health, Health::Draining, "seed {seed}");
            assert!(able(&hosts[picked]) || balancer.in_panic(rank(picked)), "seed {seed}: {hosts:?}");
            let twins = hosts.iter().enumerate().filter(|(h, host)| {
                rank(*h) == rank(picked)
                    && host.health == hosts[picked].health
                    && host.locality == hosts[picked].locality
            });
            let consistent = policy.is_hashed();
            assert!(picked != excluded || consistent || twins.count() == 1, "seed {seed}: an excluded host");
        }
    }
}

/// A service of four replicas, the last one slow, under a constant rate: the 99th percentile in milliseconds.
fn p99(policy: Policy, seed: u64) -> u64 {
    const REPLICAS: usize = 4;
    const REQUESTS: usize = 6_000;
    let balancer = Balancer::new(&[host(1, Health::Healthy, 0); REPLICAS], ONE, &options(policy));
    let latency: [Latency; REPLICAS] = Default::default();
    let active = RefCell::new([0u32; REPLICAS]);
    let cursor = AtomicU64::new(0);
    let mut random = SplitMix(seed);
    // Ends of requests, in microseconds: when, by whom, how long it took.
    let mut ends: BinaryHeap<Reverse<(u64, usize, u64)>> = BinaryHeap::new();
    let mut took = Vec::with_capacity(REQUESTS);
    let decay = Duration::from_secs(10);
    for i in 0..REQUESTS {
        let now = i as u64 * 1_000;
        while let Some(Reverse((end, replica, micros))) = ends.peek().copied()
            && end <= now
        {
            ends.pop();
            active.borrow_mut()[replica] -= 1;
            latency[replica].observe(Duration::from_micros(micros), Duration::from_micros(end), decay);
        }
        let at = Duration::from_micros(now);
        let replica = balancer
            .pick(&Draw {
                cursor: &cursor,
                active: &|h| active.borrow()[h],
                latency: &|h, decay| latency[h].estimate(at, decay),
                ..draw(random.next())
            })
            .unwrap();
        let base = if replica == 3 { 100_000 } else { 2_000 };
        let micros = base / 2 + random.next() % base;
        active.borrow_mut()[replica] += 1;
        ends.push(Reverse((now + micros, replica, micros)));
        took.push(micros);
    }
    took.sort_unstable();
    took[REQUESTS * 99 / 100] / 1000
}

#[test]
fn latency_aware_policies_avoid_the_slow_replica() {
    for seed in 0..20 {
        let (turns, least, ewma) =
            (p99(Policy::RoundRobin, seed), p99(LEAST, seed), p99(Policy::PeakEwma(PeakEwma::default()), seed));
        assert!(turns >= 100, "a quarter of the requests is slow: {turns}");
        assert!(least < turns, "seed {seed}: least request {least} against {turns}");
        assert!(ewma <= 10, "seed {seed}: peak EWMA {ewma}");
    }
}

use super::{
    load::{Availability, Loads},
    testing::*,
    *,
};

fn weighted(weights: &[u32], policy: Policy) -> Balancer {
    let hosts: Vec<_> = weights.iter().map(|w| host(*w, Health::Healthy, 0)).collect();
    Balancer::new(&hosts, ONE, &options(policy))
}

#[test]
fn round_robin_takes_exact_turns() {
    let balancer = weighted(&[1, 1, 1], Policy::RoundRobin);
    assert_eq!(counts(&balancer, 3, 300, &|_| 0), [100, 100, 100]);
    let balancer = weighted(&[90, 10], Policy::RoundRobin);
    assert_eq!(counts(&balancer, 2, 1000, &|_| 0), [900, 100]);
}

#[test]
fn round_robin_is_smooth() {
    let balancer = weighted(&[5, 1, 1], Policy::RoundRobin);
    let cursor = AtomicU64::new(0);
    let turns: Vec<usize> = (0..7)
        .map(|_| {
            let draw = Draw { cursor: &cursor, attempts: 0, ..draw(0) };
            balancer.pick(&draw).unwrap()
        })
        .collect();
    let mut sorted = turns.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, [0, 0, 0, 0, 0, 1, 2]);
    let longest = turns.chunk_by(|a, b| a == b).map(<[usize]>::len).max();
    assert!(longest <= Some(3), "heavy hosts are interleaved: {turns:?}");
}

#[test]
fn weights_beyond_any_schedule_keep_their_proportions() {
    let weights = [1_000_003, 500_009, 250_007, 7];
    let balancer = weighted(&weights, Policy::RoundRobin);
    let shares: Vec<f64> = weights.iter().map(|w| f64::from(*w)).collect();
    assert_shares(&counts(&balancer, 4, 1_000_000, &|_| 0), &shares, 0.001);
}

#[test]
fn random_follows_weights() {
    let balancer = weighted(&[1, 2, 3, 4], Policy::Random);
    assert_shares(&counts(&balancer, 4, 200_000, &|_| 0), &[1.0, 2.0, 3.0, 4.0], 0.02);
    let balancer = weighted(&[2, 2, 2], Policy::Random);
    assert_shares(&counts(&balancer, 3, 200_000, &|_| 0), &[1.0, 1.0, 1.0], 0.02);
}

#[test]
fn least_request_prefers_the_idle() {
    let policy = LEAST;
    let balancer = weighted(&[1; 4], policy);
    let busy = counts(&balancer, 4, 20_000, &|i| if i == 2 { 10 } else { 0 });
    assert_eq!(busy[2], 0, "of two different hosts the busy one never wins: {busy:?}");
    assert_shares(&[busy[0], busy[1], busy[3]], &[1.0; 3], 0.05);
    let balancer = weighted(&[1, 3], policy);
    assert_shares(&counts(&balancer, 2, 100_000, &|_| 0), &[1.0, 3.0], 0.03);
    let even = counts(&balancer, 2, 100_000, &|i| [10, 30][i]);
    assert_shares(&even, &[1.0, 3.0], 0.03);
    let skewed = counts(&balancer, 2, 100_000, &|i| [5, 30][i]);
    assert!(skewed[0] > even[0] + 10_000, "load per weight decides: {skewed:?} against {even:?}");
}

#[test]
fn least_request_balances_a_closed_loop() {
    use std::cell::RefCell;
    let weights = [1u32, 2, 4, 8];
    let balancer = weighted(&weights, LEAST);
    let active = RefCell::new(vec![0u32; 4]);
    let cursor = AtomicU64::new(0);
    let mut seeds = SplitMix(3);
    for _ in 0..1500 {
        let draw = Draw { cursor: &cursor, attempts: 0, active: &|i| active.borrow()[i], ..draw(seeds.next()) };
        let host = balancer.pick(&draw).unwrap();
        active.borrow_mut()[host] += 1;
    }
    for (active, weight) in active.borrow().iter().zip(weights) {
        assert!((90..=110).contains(&(active / weight)), "{active} on weight {weight}");
    }
}

#[test]
fn priority_loads_are_envoys() {
    // Healthy percentages of the priorities, expected loads: the tables of Envoy's documentation.
    let cases: &[(&[usize], &[u32])] = &[
        (&[100, 100], &[100, 0]),
        (&[72, 100], &[100, 0]),
        (&[71, 100], &[99, 1]),
        (&[50, 100], &[70, 30]),
        (&[25, 100], &[35, 65]),
        (&[0, 100], &[0, 100]),
        (&[72, 72, 100], &[100, 0, 0]),
        (&[71, 71, 100], &[99, 1, 0]),
        (&[50, 50, 100], &[70, 30, 0]),
        (&[25, 100, 100], &[35, 65, 0]),
        (&[25, 25, 100], &[35, 35, 30]),
        // Less than 100 in sum is scaled up; what rounding leaves goes to the first.
        (&[20, 20], &[50, 50]),
        (&[5, 65], &[8, 92]),
    ];
    for (healthy, expected) in cases {
        let availability: Vec<_> =
            healthy.iter().map(|h| Availability { hosts: 100, healthy: *h, degraded: 0, draining: 0 }).collect();
        let loads = Loads::new(&availability, 140, 0);
        assert_eq!(loads.healthy, *expected, "{healthy:?}");
        assert!(loads.degraded.iter().all(|d| *d == 0));
    }
}

#[test]
fn degraded_hosts_take_the_overflow() {
    for (healthy, degraded, expected) in
        [(100, 0, (100, 0)), (71, 29, (99, 1)), (25, 65, (35, 65)), (5, 0, (100, 0)), (0, 100, (0, 100))]
    {
        let loads = Loads::new(&[Availability { hosts: 100, healthy, degraded, draining: 0 }], 140, 0);
        assert_eq!((loads.healthy[0], loads.degraded[0]), expected, "{healthy}/{degraded}");
    }
}

#[test]
fn retries_go_where_no_try_went() {
    let hosts = [0, 1, 2].map(|locality| host(1, Health::Healthy, locality));
    let groups = [group(0, None), group(3, None), group(9, None)];
    let pick = |policy: Policy, priorities: &[u32], hash: Option<u64>| {
        let balancer = Balancer::new(&hosts, &groups, &options(policy));
        let priorities: Vec<Option<u32>> = priorities.iter().copied().map(Some).collect();
        let tried = Some(Tried { priorities: &priorities, update_frequency: 1 });
        balancer.pick(&Draw { tried, hash, ..draw(1) })
    };
    for policy in [Policy::RoundRobin, Policy::Random, LEAST] {
        assert_eq!(pick(policy, &[], None), Some(0));
        assert_eq!(pick(policy, &[0], None), Some(1));
        assert_eq!(pick(policy, &[0, 3], None), Some(2));
        assert_eq!(pick(policy, &[0, 3, 9], None), Some(0));
    }
    assert_eq!(pick(Policy::Maglev(Default::default()), &[0], Some(5)), Some(0), "a key stays with its host");
}

#[test]
fn panic_is_envoys() {
    let cases: &[(&[usize], &[bool])] = &[
        (&[72, 72], &[false, false]),
        (&[50, 60], &[false, false]),
        (&[25, 100], &[false, false]),
        (&[25, 25], &[true, true]),
        (&[5, 65], &[true, false]),
    ];
    for (healthy, expected) in cases {
        let availability: Vec<_> =
            healthy.iter().map(|h| Availability { hosts: 100, healthy: *h, degraded: 0, draining: 0 }).collect();
        let loads = Loads::new(&availability, 140, 50);
        let panic: Vec<bool> = (0..healthy.len()).map(|i| loads.in_panic(i)).collect();
        assert_eq!(panic, *expected, "{healthy:?}");
    }
    let sizes = [
        Availability { hosts: 30, healthy: 0, degraded: 0, draining: 0 },
        Availability { hosts: 10, healthy: 0, degraded: 0, draining: 0 },
    ];
    assert_eq!(Loads::new(&sizes, 140, 50).healthy, [75, 25], "in total panic traffic goes by size");
}

#[test]
fn health_decides_who_gets_traffic() {
    let hosts = [
        host(1, Health::Healthy, 0),
        host(1, Health::Unhealthy, 0),
        host(1, Health::Draining, 0),
        host(1, Health::Healthy, 0),
    ];
    let balancer = Balancer::new(&hosts, ONE, &options(Policy::RoundRobin));
    assert_eq!(counts(&balancer, 4, 100, &|_| 0), [50, 0, 0, 50]);

    let sick = [host(1, Health::Unhealthy, 0), host(1, Health::Unhealthy, 0), host(1, Health::Draining, 0)];
    let panicking = Balancer::new(&sick, ONE, &options(Policy::RoundRobin));
    assert_eq!(counts(&panicking, 3, 100, &|_| 0), [50, 50, 0], "panic spares draining hosts");
    let calm = Balancer::new(&sick, ONE, &calm(Policy::RoundRobin));
    let cursor = AtomicU64::new(0);
    let draw = Draw { cursor: &cursor, ..draw(1) };
    assert_eq!(calm.pick(&draw), None, "without panic nobody is left");
    let draining = Balancer::new(&[host(1, Health::Draining, 0)], ONE, &options(Policy::Random));
    assert_eq!(draining.pick(&draw), None);
}

#[test]
fn failover_by_priority() {
    let groups = [group(0, None), group(3, None)];
    let mut hosts: Vec<_> =
        (0..4).map(|i| host(1, if i < 2 { Health::Healthy } else { Health::Unhealthy }, 0)).collect();
    hosts.extend((0..2).map(|_| host(1, Health::Healthy, 1)));
    let balancer = Balancer::new(&hosts, &groups, &options(Policy::Random));
    let counts = counts(&balancer, 6, 100_000, &|_| 0);
    assert_eq!(&counts[2..4], [0, 0]);
    assert_shares(&[counts[0] + counts[1], counts[4] + counts[5]], &[70.0, 30.0], 0.02);
}

#[test]
fn localities_share_by_their_weight() {
    let groups = [group(0, Some(1)), group(0, Some(3))];
    let mut hosts: Vec<_> = (0..4).map(|_| host(1, Health::Healthy, 0)).collect();
    hosts.push(host(1, Health::Healthy, 1));
    let balancer = Balancer::new(&hosts, &groups, &options(Policy::RoundRobin));
    assert_eq!(counts(&balancer, 5, 1600, &|_| 0), [100, 100, 100, 100, 1200]);

    // The second locality has lost most of its hosts: 1/4 * 140 % = 35 % of its weight is left.
    let mut hosts = vec![host(1, Health::Healthy, 0)];
    hosts.extend((0..4).map(|i| host(1, if i == 0 { Health::Healthy } else { Health::Unhealthy }, 1)));
    let groups = [group(0, Some(1)), group(0, Some(1))];
    let calm = calm(Policy::RoundRobin);
    let counts_of = counts(&Balancer::new(&hosts, &groups, &calm), 5, 13_500, &|_| 0);
    assert_shares(&counts_of, &[100.0, 35.0, 0.0, 0.0, 0.0], 0.001);

    let unweighted = [group(0, Some(5)), group(0, None)];
    let counts_of = counts(&Balancer::new(&hosts, &unweighted, &calm), 5, 100, &|_| 0);
    assert_eq!(counts_of, [50, 50, 0, 0, 0], "weights count only when all localities have one");
}

#[test]
fn excluded_hosts_are_avoided_when_possible() {
    for policy in [Policy::RoundRobin, Policy::Random, LEAST] {
        let balancer = weighted(&[1000, 1, 1], policy);
        let cursor = AtomicU64::new(0);
        let mut seeds = SplitMix(11);
        for _ in 0..200 {
            let mut draw = Draw { cursor: &cursor, excluded: &|i| i == 0, excludes: true, ..draw(seeds.next()) };
            assert_ne!(balancer.pick(&draw), Some(0), "{policy:?}");
            draw.excluded = &|_| true;
            assert!(balancer.pick(&draw).is_some(), "falls back rather than fails");
        }
    }
}

#[test]
fn exclusion_reaches_into_other_priorities() {
    let groups = [group(0, None), group(1, None)];
    let hosts = [host(1, Health::Healthy, 0), host(1, Health::Unhealthy, 0), host(1, Health::Healthy, 1)];
    let balancer = Balancer::new(&hosts, &groups, &options(Policy::Random));
    let cursor = AtomicU64::new(0);
    let mut seeds = SplitMix(5);
    for _ in 0..100 {
        let draw = Draw { cursor: &cursor, excluded: &|i| i == 0, excludes: true, ..draw(seeds.next()) };
        assert_eq!(balancer.pick(&draw), Some(2));
    }
}

#[test]
fn ten_thousand_hosts_with_odd_weights() {
    let weights: Vec<u32> = (0..10_000).map(|i| 1 + i * 7919 % 997).collect();
    for policy in [Policy::RoundRobin, Policy::Random] {
        let balancer = weighted(&weights, policy);
        let counts = counts(&balancer, weights.len(), 2_000_000, &|_| 0);
        let heavy: u64 = counts.iter().zip(&weights).filter(|(_, w)| **w > 500).map(|(c, _)| c).sum();
        let expected: u64 = weights.iter().filter(|w| **w > 500).map(|w| u64::from(*w)).sum();
        let total: u64 = weights.iter().map(|w| u64::from(*w)).sum();
        let (share, expected) = (heavy as f64 / 2e6, expected as f64 / total as f64);
        assert!((share - expected).abs() < 0.003, "{policy:?}: {share} of {expected}");
    }
}

//! Whether picks are distributed as configured: Pearson's test for everything that draws, exact counts for turns.

use std::cell::Cell;

use super::{testing::*, *};
use crate::ir::balancing::{LeastRequest, Maglev, Number, PeakEwma, RingHash, SlowStart};

const N: u64 = 40_000;

fn weighted(weights: &[u32], options: &Options<'_>) -> Balancer {
    let hosts: Vec<_> = weights.iter().map(|w| host(*w, Health::Healthy, 0)).collect();
    Balancer::new(&hosts, ONE, options)
}

fn least(config: LeastRequest) -> Policy {
    Policy::LeastRequest(config)
}

#[test]
fn policies_that_draw_follow_the_weights() {
    let latency = Policy::PeakEwma(PeakEwma::default());
    let scan = least(LeastRequest { full_scan: true, ..LeastRequest::default() });
    let biased = least(LeastRequest { bias: Number::new(2.5).unwrap(), ..LeastRequest::default() });
    let many: Vec<u32> = (1..=40).collect();
    for policy in [Policy::Random, LEAST, scan, biased, latency] {
        for weights in [&[1, 1, 1, 1][..], &[1, 2, 3, 4], &[1, 99], &[7], &many] {
            let balancer = weighted(weights, &options(policy));
            let shares: Vec<f64> = weights.iter().map(|w| f64::from(*w)).collect();
            let counts = counts(&balancer, weights.len(), N, &|_| 0);
            if shares.len() > 1 {
                assert_chi_squared(&counts, &shares);
            }
        }
    }
}

#[test]
fn turns_are_exact() {
    for weights in [&[1, 1, 1][..], &[1, 2, 5], &[3, 3, 10, 4]] {
        let balancer = weighted(weights, &options(Policy::RoundRobin));
        let total: u64 = weights.iter().map(|w| u64::from(*w)).sum();
        let counts = counts(&balancer, weights.len(), total * 50, &|_| 0);
        assert_eq!(counts, weights.iter().map(|w| u64::from(*w) * 50).collect::<Vec<_>>());
    }
    // A bias of zero makes turns of least request, whatever is in flight.
    let policy = least(LeastRequest { bias: Number::new(0.0).unwrap(), ..LeastRequest::default() });
    let balancer = weighted(&[1, 3], &options(policy));
    assert_eq!(counts(&balancer, 2, 400, &|i| [0, 1000][i]), [100, 300]);
}

#[test]
fn priorities_and_localities_draw_their_share() {
    // Seven of ten healthy: 98 % stay.
    let mut hosts: Vec<_> =
        (0..10).map(|i| host(1, if i < 7 { Health::Healthy } else { Health::Unhealthy }, 0)).collect();
    hosts.extend((0..5).map(|_| host(1, Health::Healthy, 1)));
    let groups = [group(0, None), group(1, None)];
    let counts_of = counts(&Balancer::new(&hosts, &groups, &options(Policy::Random)), 15, N, &|_| 0);
    let shares: Vec<f64> =
        (0..15).map(|i| [98.0 / 7.0, 0.0, 2.0 / 5.0][(i >= 7) as usize + (i >= 10) as usize]).collect();
    assert_chi_squared(&counts_of, &shares);

    let hosts: Vec<_> = [(1, 0), (3, 0), (1, 1), (1, 2)].map(|(w, l)| host(w, Health::Healthy, l)).to_vec();
    let groups = [group(0, Some(2)), group(0, Some(1)), group(0, Some(0))];
    let counts_of = counts(&Balancer::new(&hosts, &groups, &options(Policy::Random)), 4, N, &|_| 0);
    assert_chi_squared(&counts_of, &[2.0 * 0.25, 2.0 * 0.75, 1.0, 0.0]);
}

#[test]
fn keys_spread_over_hosts_by_their_share_of_the_table() {
    let keys: Vec<String> = (0..10).map(|i| format!("10.0.0.{i}:80")).collect();
    let maglev = Policy::Maglev(Maglev::default());
    let balancer = Balancer::new(&keyed(&keys), ONE, &options(maglev));
    let spread = count(10, N, &|random| {
        let hash = hash::xxhash64(&random.to_le_bytes(), 0);
        balancer.pick(&Draw { hash: Some(hash), ..draw(0) })
    });
    assert_chi_squared(&spread, &[1.0; 10]);
    // A ring of 1024 points is coarser: within a quarter of the even share.
    let balancer = Balancer::new(&keyed(&keys), ONE, &options(Policy::RingHash(RingHash::default())));
    let spread = count(10, N, &|random| {
        let hash = hash::xxhash64(&random.to_le_bytes(), 0);
        balancer.pick(&Draw { hash: Some(hash), ..draw(0) })
    });
    assert_shares(&spread, &[1.0; 10], 0.3);
}

#[test]
fn an_active_request_bias_weighs_as_documented() {
    // weight / (active + 1)^bias, with one candidate of each kind: shares within the pair that was drawn.
    let bias = Number::new(0.5).unwrap();
    let policy = least(LeastRequest { choices: 32, bias, ..LeastRequest::default() });
    let balancer = weighted(&[1, 2], &options(policy));
    let counts = counts(&balancer, 2, N, &|i| [0, 3][i]);
    assert_shares(&counts, &[1.0, 2.0 / 2.0], 0.06);
}

#[test]
fn a_full_scan_finds_the_least_of_all() {
    let policy = least(LeastRequest { full_scan: true, ..LeastRequest::default() });
    let balancer = weighted(&[1; 100], &options(policy));
    let counts_of = counts(&balancer, 100, 1000, &|i| u32::from(i != 42 && i != 77));
    assert_eq!(counts_of[42] + counts_of[77], 1000);
    assert_chi_squared(&[counts_of[42], counts_of[77]], &[1.0, 1.0]);
    let balancer = weighted(&[1, 4], &options(policy));
    assert_eq!(counts(&balancer, 2, 100, &|i| [2, 7][i]), [0, 100], "per weight");
}

#[test]
fn slow_start_gives_young_hosts_part_of_their_weight() {
    let second = Duration::from_secs;
    let config = |aggression, min_permille| SlowStart {
        window: second(100),
        aggression: Number::new(aggression).unwrap(),
        min_permille,
    };
    let at = |config: SlowStart, policy: Policy, now: Duration| {
        let more = Arc::new(LbOptions { slow_start: Some(config), ..LbOptions::default() });
        let hosts = [0, 0, 1000].map(|since| Host { since: second(since), ..host(2, Health::Healthy, 0) });
        let options = Options { more: &more, now: second(1000), ..options(policy) };
        let balancer = Balancer::new(&hosts, ONE, &options);
        let cursor = AtomicU64::new(0);
        count(3, N, &|random| balancer.pick(&Draw { now: &|| now, cursor: &cursor, ..draw(random) }))
    };
    let full_scan = least(LeastRequest { full_scan: true, ..LeastRequest::default() });
    for policy in [Policy::Random, LEAST, full_scan] {
        assert_chi_squared(&at(config(1.0, 100), policy, second(1050)), &[1.0, 1.0, 0.5]);
        assert_chi_squared(&at(config(1.0, 100), policy, second(1001)), &[1.0, 1.0, 0.1]);
        assert_chi_squared(&at(config(2.0, 100), policy, second(1025)), &[1.0, 1.0, 0.5]);
        assert_chi_squared(&at(config(1.0, 0), policy, second(1100)), &[1.0, 1.0, 1.0]);
    }
    assert_shares(&at(config(1.0, 100), Policy::RoundRobin, second(1050)), &[1.0, 1.0, 0.5], 0.05);
    // All of the same age: all the same.
    let more = Arc::new(LbOptions { slow_start: Some(config(1.0, 1)), ..LbOptions::default() });
    let balancer = weighted(&[1, 2], &Options { more: &more, ..options(Policy::Random) });
    let draws = Cell::new(0);
    let counts = count(2, N, &|random| {
        draws.set(draws.get() + 1);
        balancer.pick(&Draw { now: &|| second(1), ..draw(random) })
    });
    assert_chi_squared(&counts, &[1.0, 2.0]);
    assert_eq!(draws.get(), N);
}

#[test]
fn latency_decides_between_idle_hosts() {
    let balancer = weighted(&[1; 4], &options(Policy::PeakEwma(PeakEwma::default())));
    let latency = |host: usize, _: Duration| [Some(5.0), Some(5.0), Some(80.0), None][host];
    let counts_of = count(4, N, &|random| balancer.pick(&Draw { latency: &latency, ..draw(random) }));
    assert_eq!(counts_of[2], 0, "always the slower of two");
    // Never measured and idle: 10 ms, slower than 5 and faster than 80.
    assert_chi_squared(&[counts_of[0] + counts_of[1], counts_of[3]], &[5.0, 1.0]);
    let busy = |host: usize| [0, 0, 0, 1][host];
    let counts_of = count(4, N, &|random| balancer.pick(&Draw { latency: &latency, active: &busy, ..draw(random) }));
    assert_eq!(counts_of[3], 0, "requests but not one answer");
}

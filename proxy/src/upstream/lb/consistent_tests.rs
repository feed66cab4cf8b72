//! Against the tables that Envoy's own tests spell out, and what consistent hashing promises.

use super::{testing::*, *};
use crate::ir::balancing::{HashKeys, Maglev, RingHash};

fn ports(from: u16, n: u16) -> Vec<String> {
    (from..from + n).map(|port| format!("127.0.0.1:{port}")).collect()
}

fn at(balancer: &Balancer, hash: u64) -> Option<usize> {
    balancer.pick(&Draw { hash: Some(hash), ..draw(1) })
}

fn ring(config: RingHash) -> Options<'static> {
    options(Policy::RingHash(RingHash { min_size: 12, ..config }))
}

fn maglev(table_size: u32) -> Policy {
    Policy::Maglev(Maglev { table_size, keys: HashKeys::default() })
}

/// The slots of a Maglev table, by key modulo its size.
fn slots(hosts: &[Host<'_>], groups: &[Group<'_>], size: u32, options: &Options<'_>) -> Vec<Option<usize>> {
    let balancer = Balancer::new(hosts, groups, options);
    (0..u64::from(size)).map(|hash| at(&balancer, hash)).collect()
}

#[test]
fn rings_are_envoys() {
    let keys = ports(90, 6);
    let balancer = Balancer::new(&keyed(&keys), ONE, &ring(RingHash::default()));
    let cases = [
        (0, 4),
        (833_437_586_790_550_860, 4),
        (833_437_586_790_550_861, 2),
        (3_551_244_743_356_806_947, 5),
        (3_551_244_743_356_806_948, 3),
        (5_583_722_120_771_150_862, 1),
        (16_117_243_373_044_804_880, 0),
        (16_117_243_373_044_804_890, 4),
        (u64::MAX, 4),
    ];
    for (hash, host) in cases {
        assert_eq!(at(&balancer, hash), Some(host), "{hash}");
    }
    let keys = ports(80, 6);
    let murmur = RingHash { murmur: true, ..RingHash::default() };
    let balancer = Balancer::new(&keyed(&keys), ONE, &ring(murmur));
    let cases = [
        (0, 5),
        (1_358_027_074_129_602_068, 5),
        (1_358_027_074_129_602_069, 3),
        (10_150_910_876_324_007_730, 2),
        (u64::MAX, 5),
    ];
    for (hash, host) in cases {
        assert_eq!(at(&balancer, hash), Some(host), "{hash}");
    }
    let names: Vec<String> = (90..96).map(|n: u32| n.to_string()).collect();
    let balancer = Balancer::new(&keyed(&names), ONE, &ring(RingHash::default()));
    for (hash, host) in [(0, 5), (7_225_015_537_174_310_577, 2), (6_803_900_775_736_438_537, 3), (u64::MAX, 5)] {
        assert_eq!(at(&balancer, hash), Some(host), "{hash}");
    }
}

#[test]
fn rings_have_the_configured_size() {
    for (hosts, min, max, expected) in [(3, 1024, 1 << 23, 1026), (6, 12, 1 << 23, 12), (4, 1, 6, 4), (4, 100, 6, 6)] {
        let keys = ports(1, hosts);
        let hosts = keyed(&keys);
        let config = RingHash { min_size: min, max_size: max, ..RingHash::default() };
        let members: Vec<u32> = (0..hosts.len() as u32).collect();
        let points = consistent::ring_points(config, &hosts, ONE, &members);
        assert_eq!(points.len(), expected, "{} hosts, {min}..{max}", hosts.len());
        assert!(points.is_sorted_by_key(|(point, _)| *point));
    }
}

#[test]
fn maglev_tables_are_envoys() {
    let keys = ports(90, 6);
    let some = |hosts: &[usize]| hosts.iter().map(|h| Some(*h)).collect::<Vec<_>>();
    let hosts = keyed(&keys);
    assert_eq!(slots(&hosts, ONE, 7, &options(maglev(7))), some(&[2, 4, 0, 1, 5, 0, 3]));
    let names: Vec<String> = (90..96).map(|n: u32| n.to_string()).collect();
    assert_eq!(slots(&keyed(&names), ONE, 7, &options(maglev(7))), some(&[2, 5, 0, 3, 4, 1, 0]));
    // Whatever the order of the assignment.
    let mut turned = hosts.clone();
    turned.reverse();
    let back: Vec<_> = slots(&turned, ONE, 7, &options(maglev(7))).into_iter().flatten().map(|h| 5 - h).collect();
    assert_eq!(back, [2, 4, 0, 1, 5, 0, 3]);

    let weighted: Vec<_> = hosts[..2].iter().zip([1, 2]).map(|(h, weight)| Host { weight, ..*h }).collect();
    let expected = some(&[1, 0, 0, 1, 0, 1, 1, 0, 1, 1, 1, 1, 1, 0, 1, 0, 1]);
    assert_eq!(slots(&weighted, ONE, 17, &options(maglev(17))), expected);
    let apart: Vec<_> = weighted.iter().zip(0..).map(|(h, locality)| Host { locality, ..*h }).collect();
    let groups = [group(0, Some(1)), group(0, Some(1))];
    let expected = some(&[1, 0, 0, 1, 0, 1, 1, 0, 0, 1, 0, 1, 0, 0, 1, 0, 1]);
    assert_eq!(slots(&apart, &groups, 17, &options(maglev(17))), expected, "localities of equal weight");
    let sick: Vec<_> = apart.iter().map(|h| Host { health: Health::Unhealthy, ..*h }).collect();
    assert_eq!(slots(&sick, &groups, 17, &options(maglev(17))), expected, "in panic, too");
    let three =
        hosts[..3].iter().zip([(0, 1), (2, 2), (1, 3)]).map(|(h, (locality, weight))| Host { locality, weight, ..*h });
    let groups = [group(0, Some(8)), group(0, Some(0)), group(0, Some(2))];
    let expected = some(&[1, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0]);
    assert_eq!(slots(&three.collect::<Vec<_>>(), &groups, 17, &options(maglev(17))), expected);
}

#[test]
fn a_retry_asks_for_the_slots_that_envoy_asks_for() {
    let keys = ports(90, 6);
    let balancer = Balancer::new(&keyed(&keys), ONE, &options(maglev(7)));
    let retry =
        |excluded: &dyn Fn(usize) -> bool| balancer.pick(&Draw { hash: Some(10), excluded, excludes: true, ..draw(1) });
    assert_eq!(retry(&|_| false), Some(1));
    assert_eq!(retry(&|h| h == 1), Some(0));
    assert_eq!(retry(&|h| h == 1 || h == 0), Some(5));
    assert_eq!(retry(&|_| true), Some(1), "rather than nobody");
    let balancer = Balancer::new(&keyed(&keys), ONE, &ring(RingHash::default()));
    let draw = Draw { hash: Some(0), excluded: &|h| h == 4, excludes: true, ..draw(1) };
    assert_eq!(balancer.pick(&draw), Some(2), "the next point of the ring");
}

/// How many of many keys another host answers for, in thousandths; keys of `gone` may move.
fn moved(policy: Policy, hosts: usize, gone: usize) -> (u64, u64) {
    let keys: Vec<String> = (0..hosts).map(|i| format!("10.0.{}.{}:80", i / 250, i % 250)).collect();
    let before = Balancer::new(&keyed(&keys), ONE, &options(policy));
    let mut left = keyed(&keys);
    left[gone].health = Health::Unhealthy;
    let after = Balancer::new(&left, ONE, &options(policy));
    let (mut of_gone, mut of_others) = (0, 0);
    const KEYS: u64 = 20_000;
    for key in 0..KEYS {
        let hash = hash::xxhash64(&key.to_le_bytes(), 0);
        let (was, is) = (at(&before, hash).unwrap(), at(&after, hash).unwrap());
        assert_ne!(is, gone);
        match was == gone {
            true => of_gone += 1,
            false if was != is => of_others += 1,
            false => {}
        }
    }
    (of_gone * 1000 / KEYS, of_others * 1000 / KEYS)
}

#[test]
fn a_host_that_leaves_takes_only_its_share() {
    let (own, others) = moved(Policy::RingHash(RingHash::default()), 10, 3);
    assert!((50..=150).contains(&own), "a tenth: {own}");
    // The others share 1024 points anew: a host more or less changes how many each has, as in Envoy.
    assert!(others <= 100, "few others move: {others}");
    let (own, others) = moved(Policy::Maglev(Maglev::default()), 10, 3);
    assert!((95..=105).contains(&own), "a tenth, and closely: {own}");
    assert!(others <= 30, "few others move: {others}");
}

#[test]
fn weights_are_shares_of_the_keys() {
    let weights = [1u32, 2, 3, 10];
    let keys = ports(90, 4);
    let hosts: Vec<_> = keyed(&keys).into_iter().zip(weights).map(|(h, weight)| Host { weight, ..h }).collect();
    for (policy, tolerance) in [
        (Policy::Maglev(Maglev::default()), 0.03),
        (Policy::RingHash(RingHash { min_size: 1 << 16, ..RingHash::default() }), 0.05),
    ] {
        let balancer = Balancer::new(&hosts, ONE, &options(policy));
        // Without a key the choice is random, by weight.
        assert_shares(&counts(&balancer, 4, 100_000, &|_| 0), &weights.map(f64::from), tolerance);
    }
}

#[test]
fn keys_decide_on_the_priority_too() {
    let keys = ports(80, 3);
    let mut hosts = keyed(&keys);
    hosts[1].health = Health::Unhealthy;
    hosts[2].locality = 1;
    let groups = [group(0, None), group(1, None)];
    let balancer = Balancer::new(&hosts, &groups, &options(Policy::RingHash(RingHash::default())));
    assert_eq!(at(&balancer, 69), Some(0));
    assert_eq!(at(&balancer, 71), Some(2));
    assert_eq!(at(&balancer, 169), Some(0));
    let degraded: Vec<_> = hosts.iter().map(|h| Host { health: Health::Degraded, ..*h }).collect();
    let balancer = Balancer::new(&degraded, &groups, &calm(Policy::Maglev(Maglev::default())));
    assert!(at(&balancer, 5).is_some(), "degraded hosts are better than none");
    let sick: Vec<_> = hosts.iter().map(|h| Host { health: Health::Unhealthy, ..*h }).collect();
    assert_eq!(at(&Balancer::new(&sick, &groups, &calm(Policy::Maglev(Maglev::default()))), 5), None);
}

#[test]
fn bounded_loads_spill_over() {
    let keys = ports(90, 4);
    let bounded = HashKeys { balance_factor: 125, ..HashKeys::default() };
    let policy = Policy::RingHash(RingHash { keys: bounded, ..RingHash::default() });
    let balancer = Balancer::new(&keyed(&keys), ONE, &options(policy));
    let own = at(&balancer, 42).unwrap();
    // 40 requests at 125 %: each of four hosts may have 13.
    let pick = |busy: u32| {
        let active = move |h: usize| if h == own { busy } else { 5 };
        balancer.pick(&Draw { hash: Some(42), active: &active, total: &|| 39, ..draw(1) })
    };
    assert_eq!(pick(13), Some(own));
    let other = pick(14).unwrap();
    assert_ne!(other, own);
    assert_eq!(pick(14), Some(other), "always the same other one");
}

#[test]
fn a_host_is_known_by_its_hash_key() {
    let labels = |value: serde_json::Value| {
        let labels = serde_json::Map::from_iter([("hash_key".to_owned(), value)]);
        Metadata::from([("envoy.lb".to_owned(), labels)])
    };
    let by_name = HashKeys { hostname: true, balance_factor: 0 };
    assert_eq!(key(None, "name", "1.2.3.4:5", HashKeys::default()), "1.2.3.4:5");
    assert_eq!(key(None, "name", "1.2.3.4:5", by_name), "name");
    assert_eq!(key(None, "", "1.2.3.4:5", by_name), "1.2.3.4:5");
    assert_eq!(key(Some(&labels("own".into())), "name", "1.2.3.4:5", by_name), "own");
    for wrong in [1337.into(), "".into()] {
        assert_eq!(key(Some(&labels(wrong)), "name", "1.2.3.4:5", HashKeys::default()), "1.2.3.4:5");
    }
}

#[test]
fn extreme_weights_and_many_hosts_build_in_bounded_time() {
    let keys: Vec<String> = (0..10_000).map(|i| format!("10.{}.{}.1:80", i / 250, i % 250)).collect();
    let mut hosts = keyed(&keys);
    hosts[0].weight = u32::MAX / 2;
    let last = hosts.len() - 1;
    hosts[last].locality = 1;
    let groups = [group(0, Some(u32::MAX / 2)), group(0, Some(1))];
    for policy in
        [Policy::Maglev(Maglev::default()), Policy::RingHash(RingHash { max_size: 1 << 14, ..RingHash::default() })]
    {
        for groups in [ONE, &groups] {
            let balancer = Balancer::new(&hosts, groups, &options(policy));
            assert!(at(&balancer, 77).is_some());
        }
    }
}

use super::{Descriptor, bucket_tests::config, local::LocalLimiter};
use crate::ir::rate_limit::{LimitedDescriptor, TokenBucket};

fn limited(entries: &[(&str, &str)], bucket: TokenBucket) -> LimitedDescriptor {
    let entries = entries.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    LimitedDescriptor { entries, bucket, shadow: false }
}

fn asks<'a>(entries: &[(&'a str, &'a str)]) -> Descriptor<'a> {
    let entries = entries.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    Descriptor { entries, ..Descriptor::default() }
}

/// How many of a hundred requests at one moment pass.
fn burst(limiter: &LocalLimiter, descriptors: &[Descriptor<'_>]) -> usize {
    (0..100).filter(|_| limiter.decide(0.0, descriptors, 1).allowed).count()
}

#[test]
fn only_verbatim_descriptors_match() {
    let limiter = LocalLimiter::new(
        Some(&config(9, 1, 60_000)),
        false,
        &[limited(&[("a", "1")], config(3, 1, 60_000)), limited(&[("a", "1"), ("b", "2")], config(2, 1, 60_000))],
        20,
    );
    assert_eq!(burst(&limiter, &[asks(&[("a", "1")])]), 3);
    assert_eq!(burst(&limiter, &[asks(&[("a", "1"), ("b", "2")])]), 2);
    // All others share the default bucket.
    assert_eq!(burst(&limiter, &[asks(&[("b", "2"), ("a", "1")])]), 9);
    assert_eq!(burst(&limiter, &[asks(&[("a", "2")])]), 0);
    assert_eq!(burst(&limiter, &[]), 0);
}

#[test]
fn the_slowest_bucket_is_asked_first_and_the_default_one_last() {
    let limiter = |always| {
        LocalLimiter::new(
            Some(&config(5, 5, 60_000)),
            always,
            &[limited(&[("k", "fast")], config(50, 50, 1000)), limited(&[("k", "slow")], config(2, 1, 60_000))],
            20,
        )
    };
    let both = [asks(&[("k", "fast")]), asks(&[("k", "slow")])];
    let one = limiter(true);
    assert_eq!(burst(&one, &both), 2);
    let refused = one.decide(0.0, &both, 1);
    assert_eq!(refused.drawn.unwrap().bucket.max(), 2, "the one that refused");
    // What the slow one refused took nothing from the others.
    assert_eq!(burst(&one, &[asks(&[("k", "fast")])]), 3);
    assert_eq!(burst(&limiter(false), &[asks(&[("k", "fast")])]), 50, "without the default one");
}

#[test]
fn what_has_no_bucket_is_not_limited() {
    let nothing = LocalLimiter::new(None, true, &[limited(&[("k", "v")], config(1, 1, 60_000))], 20);
    let decision = nothing.decide(0.0, &[], 1);
    assert!(decision.allowed && decision.unlimited && decision.drawn.is_none());
    assert_eq!(burst(&nothing, &[asks(&[("k", "v")])]), 1);
    let never = LocalLimiter::new(Some(&config(0, 1, 60_000)), true, &[], 20);
    let decision = never.decide(0.0, &[], 1);
    assert!(!decision.allowed && !decision.unlimited && decision.drawn.is_none());
}

#[test]
fn hits_count_and_can_be_given_back() {
    let limiter = LocalLimiter::new(None, true, &[limited(&[("k", "v")], config(10, 1, 60_000))], 20);
    let hits = |number, negative| Descriptor { hits: Some(number), negative, ..asks(&[("k", "v")]) };
    assert!(limiter.decide(0.0, &[hits(8, false)], 1).allowed);
    assert!(!limiter.decide(0.0, &[hits(8, false)], 1).allowed);
    assert!(limiter.decide(0.0, &[hits(6, true)], 1).allowed);
    assert!(limiter.decide(0.0, &[hits(8, false)], 1).allowed);
}

#[test]
fn shadow_buckets_count_only() {
    let shadow = LimitedDescriptor { shadow: true, ..limited(&[("k", "v")], config(3, 1, 60_000)) };
    let enforced = LimitedDescriptor { shadow: false, ..shadow.clone() };
    let counts = |config| {
        let limiter = LocalLimiter::new(None, true, &[config], 20);
        let all: Vec<_> = (0..10).map(|_| limiter.decide(0.0, &[asks(&[("k", "v")])], 1)).collect();
        let refused = all.iter().filter(|d| !d.allowed).count();
        (refused, all.iter().map(|d| d.shadowed as usize).sum::<usize>())
    };
    assert_eq!(counts(enforced), (7, 0));
    assert_eq!(counts(shadow), (0, 7), "as many as would have been refused");
}

#[test]
fn each_value_of_a_wildcard_has_a_bucket_and_there_are_so_many() {
    let wildcard = limited(&[("ip", ""), ("path", "/x")], config(2, 1, 60_000));
    let fixed = limited(&[("ip", "vip"), ("path", "/x")], config(7, 1, 60_000));
    let limiter = LocalLimiter::new(None, true, &[wildcard, fixed], 3);
    let of = |ip: &'static str| burst(&limiter, &[asks(&[("ip", ip), ("path", "/x")])]);
    assert_eq!((of("1"), of("2"), of("3"), of("1")), (2, 2, 2, 0));
    assert_eq!(of("vip"), 7, "an exact descriptor goes before");
    assert_eq!(burst(&limiter, &[asks(&[("ip", "1"), ("path", "/y")])]), 100, "not this one");
    // 2 was used longest ago: the fourth takes its place, so 2 begins anew and 3 has to go.
    assert_eq!((of("4"), of("1"), of("2"), of("3"), of("2")), (2, 0, 2, 2, 0));
    // However many come, what is used all the time stays.
    for i in 0..1000 {
        let other = i.to_string();
        assert!(limiter.decide(0.0, &[asks(&[("ip", &format!("x{other}")), ("path", "/x")])], 1).allowed);
        assert!(!limiter.decide(0.0, &[asks(&[("ip", "2"), ("path", "/x")])], 1).allowed);
    }
}

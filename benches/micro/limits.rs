//! A local rate limit: what a request counts as, and whether the buckets have room for it.

use std::{hint::black_box, time::Duration};

use criterion::{BenchmarkId, Criterion};
use http::{HeaderMap, HeaderValue, Method};
use outrigger_proxy::{
    ir::{
        format::Template,
        rate_limit::{Action, LimitedDescriptor, Rule, TokenBucket},
    },
    policy::{
        rate_limit::{Descriptors, bucket::Bucket, descriptors::Facts, local::LocalLimiter},
        router::RequestFacts,
    },
};

/// Never empty, so that every decision takes from it.
const PLENTY: TokenBucket =
    TokenBucket { max_tokens: u32::MAX, tokens_per_fill: u32::MAX, fill_interval: Duration::from_secs(1) };

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("limits");
    let bucket = Bucket::new(&PLENTY);
    let mut now = 0.0;
    group.bench_function("bucket", |b| {
        b.iter(|| {
            now += 1e-6;
            bucket.take(black_box(now), 1.0, 1)
        });
    });
    let rules: Vec<Rule> = [
        Action::Generic { key: "generic_key".into(), value: "all".into() },
        Action::RequestHeader { name: "x-user".into(), key: "user".into(), skip_if_absent: false },
        Action::MaskedRemoteAddress { v4: 24, v6: 64 },
    ]
    .into_iter()
    .map(|action| Rule { actions: vec![action], ..Rule::default() })
    .collect();
    let mut headers = HeaderMap::new();
    headers.insert("x-user", HeaderValue::from_static("user-77"));
    let request = RequestFacts {
        certificate: Default::default(),
        authority: "service",
        path: "/api/v1/items?page=3",
        method: &Method::GET,
        scheme: "http",
        headers: &headers,
        random: 7,
    };
    let render = |_: &Template| String::new();
    let facts = Facts {
        request: &request,
        remote: "10.1.2.3".parse().expect("an address"),
        service_cluster: "me",
        cluster: Some("up"),
        route: None,
        cluster_metadata: &|| None,
        dynamic: None,
        render: &render,
    };
    let describe = || {
        let mut descriptors = Descriptors::new();
        rules.iter().for_each(|rule| rule.describe(black_box(&facts), &mut descriptors));
        descriptors
    };
    assert_eq!(describe().len(), 3, "the bench measures whole descriptors");
    group.bench_function("three_descriptors", |b| b.iter(|| describe().len()));
    let limited = |key: &str, value: &str| LimitedDescriptor {
        entries: vec![(key.into(), value.into())],
        bucket: PLENTY,
        shadow: false,
    };
    for count in [1, 100, 1000] {
        let users: Vec<_> = (0..count).map(|n| limited("user", &format!("user-{}", n + 77))).collect();
        let limiter = LocalLimiter::new(Some(&PLENTY), true, &users, 20);
        let descriptors = describe();
        group.bench_function(BenchmarkId::new("decision_of_descriptors", count), |b| {
            b.iter(|| {
                now += 1e-6;
                limiter.decide(black_box(now), &descriptors, 1).allowed
            });
        });
    }
    let limiter = LocalLimiter::new(Some(&PLENTY), true, &[limited("user", "")], 10_000);
    let descriptors = describe();
    group.bench_function("decision_of_a_wildcard", |b| {
        b.iter(|| {
            now += 1e-6;
            limiter.decide(black_box(now), &descriptors, 1).allowed
        });
    });
    group.finish();
}

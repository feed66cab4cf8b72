//! Load balancer picks by policy and number of endpoints.

use std::{hint::black_box, sync::Arc};

use criterion::{BenchmarkId, Criterion};
use outrigger_proxy::{
    tls::Secrets,
    upstream::{Cluster, Deps, PickContext},
};
use serde_json::json;

use crate::support;

pub(crate) fn bench(criterion: &mut Criterion) {
    let deps = Deps { secrets: Arc::new(Secrets::default()), ..Deps::default() };
    let mut group = criterion.benchmark_group("pick");
    for policy in ["ROUND_ROBIN", "LEAST_REQUEST", "RANDOM"] {
        for count in [1, 10, 10_000] {
            let cluster = support::cluster("app", count, &json!({"lb_policy": policy}));
            let bootstrap = support::load(&json!({"static_resources": {"clusters": [cluster]}}));
            let cluster = Cluster::build(bootstrap.clusters[0].clone(), None, &deps, None).expect("a plain cluster");
            assert_eq!(cluster.members().len(), count);
            let mut random = 0u64;
            group.bench_function(BenchmarkId::new(policy.to_ascii_lowercase(), count), |b| {
                b.iter(|| {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let context = PickContext { random, ..PickContext::default() };
                    cluster.pick(black_box(&context)).is_ok()
                });
            });
        }
    }
    group.finish();
}

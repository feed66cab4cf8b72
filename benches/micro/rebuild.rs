//! An update on its way into use: decoding what arrived, and the new `Live` when one of 5000 clusters changed.

use std::{collections::HashMap, hint::black_box, sync::Arc};

use criterion::{BatchSize, Criterion};
use outrigger_proxy::{
    ir::snapshot::Snapshot,
    live::{Builder, Live},
    telemetry::{access_log::Sinks, registry::Registry},
    tls::Secrets,
    upstream::Deps,
    xds::decode::{self, Notes},
};
use outrigger_wire::{json as wire, pb::envoy::config::cluster::v3::Cluster as PbCluster};
use serde_json::{Value, json};

use crate::support;

const CLUSTERS: usize = 5000;

fn names() -> impl Iterator<Item = String> {
    (0..CLUSTERS).map(|n| format!("outbound|8080||service-{n}.default.svc.cluster.local"))
}

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("update");
    let messages: Vec<PbCluster> = names()
        .map(|name| {
            wire::from_value(support::cluster(&name, 4, &json!({"lb_policy": "LEAST_REQUEST"})))
                .expect("a valid cluster")
        })
        .collect();
    group.bench_function("decode_cluster", |b| {
        b.iter(|| decode::cluster(black_box(&messages[0]), &mut Notes::default()).is_ok())
    });
    group.sample_size(10);
    group.bench_function("decode_5000_clusters", |b| {
        b.iter(|| messages.iter().all(|m| decode::cluster(black_box(m), &mut Notes::default()).is_ok()));
    });

    let clusters: Vec<Value> = names().map(|name| support::cluster(&name, 4, &json!({}))).collect();
    let clusters = support::load(&json!({"static_resources": {"clusters": clusters}})).clusters;
    let secrets = Arc::new(Secrets::default());
    let builder = Builder {
        secrets: secrets.clone(),
        registry: Arc::new(Registry::default()),
        sinks: Sinks::start().expect("a thread can be started"),
        tracers: Arc::default(),
        upstream: Deps { secrets, ..Deps::default() },
        debug: None,
    };
    let mut snapshot = Snapshot { version: 1, ..Snapshot::default() };
    snapshot.clusters = clusters.iter().map(|c| (c.name.clone(), c.clone())).collect();
    let resolved = Arc::new(HashMap::new());
    let build = |snapshot: &Arc<Snapshot>, before: &Live| {
        let (live, problems) = builder.build(snapshot, &resolved, before);
        assert!(problems.is_empty(), "{problems:?}");
        live
    };
    let snapshot = Arc::new(snapshot);
    let live = build(&snapshot, &Live::default());
    // The same cluster with one endpoint more.
    let changed = support::cluster(&clusters[CLUSTERS / 2].name, 5, &json!({}));
    let changed = support::load(&json!({"static_resources": {"clusters": [changed]}})).clusters.remove(0);
    let mut next = Snapshot::clone(&snapshot);
    next.version = 2;
    next.clusters.insert(changed.name.clone(), changed);
    let next = Arc::new(next);
    group.bench_function("build_5000_first", |b| {
        b.iter_batched(Live::default, |nothing| build(black_box(&snapshot), &nothing), BatchSize::PerIteration);
    });
    group.bench_function("build_one_of_5000_changed", |b| b.iter(|| build(black_box(&next), &live)));
    group.finish();
}

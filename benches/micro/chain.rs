//! Filter chain match over 1000 chains, by address as sidecars have them and by server name as gateways do.

use std::{hint::black_box, net::SocketAddr};

use criterion::Criterion;
use outrigger_proxy::{
    ir::listener::Transport,
    policy::chain::{ChainFacts, ChainIndex},
};
use serde_json::{Value, json};

use crate::support;

const COUNT: usize = 1000;

pub(crate) fn bench(criterion: &mut Criterion) {
    let tcp = |n: usize, matches: Value| {
        json!({
            "name": format!("chain-{n}"),
            "filter_chain_match": matches,
            "filters": [{
                "name": "envoy.filters.network.tcp_proxy",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                    "stat_prefix": "t", "cluster": "app",
                },
            }],
        })
    };
    let chains: Vec<Value> = (0..COUNT)
        .map(|n| {
            let range = json!({"address_prefix": format!("10.0.{}.{}", n / 250, n % 250 + 1), "prefix_len": 32});
            tcp(n, json!({"prefix_ranges": [range], "destination_port": 8000 + n % 7}))
        })
        .chain([tcp(COUNT, json!({}))])
        .collect();
    let by_address = support::load(&support::listener(json!(chains), &["app"]));
    let chains: Vec<Value> = (0..COUNT)
        .map(|n| tcp(n, json!({"transport_protocol": "tls", "server_names": [format!("s{n}.example.org"), format!("*.s{n}.example.org")]})))
        .collect();
    let by_name = support::load(&support::listener(json!(chains), &["app"]));

    let mut group = criterion.benchmark_group("chain");
    let source = SocketAddr::from(([10, 9, 9, 9], 40_000));
    let facts = |destination, server_name| ChainFacts {
        destination,
        server_name,
        transport: if server_name.is_some() { Transport::Tls } else { Transport::RawBuffer },
        alpn: &[],
        direct_source: source.ip(),
        source,
    };
    // Number 502: address 10.0.2.3, port 8000 + 502 % 7.
    let hit = facts(SocketAddr::from(([10, 0, 2, 3], 8005)), None);
    let miss = facts(SocketAddr::from(([10, 200, 2, 3], 9999)), None);
    let name = facts(SocketAddr::from(([1, 1, 1, 1], 443)), Some("a.b.s700.example.org"));
    for (what, bootstrap, facts, expected) in [
        ("address", &by_address, hit, 502),
        ("catch_all", &by_address, miss, COUNT),
        ("wildcard_name", &by_name, name, 700),
    ] {
        let index = ChainIndex::new(&bootstrap.listeners[0].chains).expect("the chains differ");
        assert_eq!(index.select(&facts), Some(expected), "{what}");
        group.bench_function(format!("{what}_of_1000"), |b| b.iter(|| index.select(black_box(&facts))));
    }
    group.bench_function("build_1000", |b| {
        b.iter(|| ChainIndex::new(black_box(&by_address.listeners[0].chains)).is_ok())
    });
    group.finish();
}

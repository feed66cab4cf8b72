//! A decision over 1, 100 and 1000 rules of the shapes that a mesh's authorization policies become, for the peer of the
//! last rule and for one that no rule knows.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion};
use http::{HeaderMap, Method};
use outrigger_proxy::{
    ir::{http::FilterKind, rbac::Engine},
    policy::{
        rbac::{Facts, decide},
        router::RequestFacts,
    },
    telemetry::record::PeerInfo,
};
use serde_json::{Value, json};

use crate::support;

/// Rule `n`: from a service account, or a namespace, or a network, to some paths with some method.
fn policy(shape: &str, n: usize) -> Value {
    let principal = match shape {
        "principals" => {
            json!({"authenticated": {"principal_name": {"exact": format!("spiffe://cluster.local/ns/ns-{n}/sa/client")}}})
        }
        "namespaces" => {
            json!({"authenticated": {"principal_name": {"safe_regex": {"regex": format!(".*/ns/ns-{n}/.*")}}}})
        }
        "networks" => {
            json!({"direct_remote_ip": {"address_prefix": format!("10.{}.{}.0", n / 250, n % 250), "prefix_len": 24}})
        }
        _ => json!({"any": true}),
    };
    let path = match shape {
        "paths" => json!({"url_path": {"path": {"prefix": format!("/api/v{n}/")}}}),
        "regexes" => json!({"url_path": {"path": {"safe_regex": {"regex": format!("/api/v{n}/[a-z]+")}}}}),
        _ => json!({"url_path": {"path": {"prefix": "/"}}}),
    };
    let method = json!({"or_rules": {"rules": [{"header": {"name": ":method", "string_match": {"exact": "GET"}}}]}});
    json!({
        "permissions": [{"and_rules": {"rules": [method, {"or_rules": {"rules": [path]}}]}}],
        "principals": [{"and_ids": {"ids": [{"or_ids": {"ids": [principal]}}]}}],
    })
}

fn engine(shape: &str, count: usize) -> Engine {
    let policies: serde_json::Map<String, Value> =
        (0..count).map(|n| (format!("ns[ns]-policy[p]-rule[{n:04}]"), policy(shape, n))).collect();
    let filters = json!([
        {"name": "envoy.filters.http.rbac", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC", "rules": {"policies": policies},
        }},
        {"name": "envoy.filters.http.router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
        }},
    ]);
    let chain = support::http_chain(json!([]), &json!({"http_filters": filters}));
    let manager = support::connection_manager(&support::listener(json!([chain]), &[]));
    let FilterKind::Rbac(rbac) = &manager.filters[0].kind else { unreachable!("it is the first filter") };
    rbac.rules.clone().expect("it has rules")
}

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rbac");
    for shape in ["principals", "namespaces", "networks", "paths", "regexes"] {
        for count in [1, 100, 1000] {
            let engine = engine(shape, count);
            for (who, n, allowed) in [("last", count - 1, true), ("stranger", count + 7, false)] {
                let peer = PeerInfo {
                    certificate: Some([1u8].as_slice().into()),
                    verified: true,
                    uri_sans: vec![format!("spiffe://cluster.local/ns/ns-{n}/sa/client").into()],
                    ..PeerInfo::default()
                };
                let (headers, path) = (HeaderMap::new(), format!("/api/v{n}/items?page=3"));
                let http = RequestFacts {
                    certificate: Default::default(),
                    authority: "app",
                    path: &path,
                    method: &Method::GET,
                    scheme: "http",
                    headers: &headers,
                    random: 7,
                };
                let address = format!("10.{}.{}.9:4000", n / 250, n % 250).parse().expect("an address");
                let facts = Facts {
                    tls: Some(&peer),
                    local: "10.0.0.1:80".parse().expect("an address"),
                    peer: address,
                    client: address,
                    server_name: "",
                    http: Some(http),
                    dynamic: None,
                    route: None,
                };
                assert_eq!(decide(&engine, &facts).allowed, allowed, "{shape} {count} {who}");
                group.bench_function(BenchmarkId::new(format!("{shape}_{who}"), count), |b| {
                    b.iter(|| decide(black_box(&engine), black_box(&facts)).allowed)
                });
            }
        }
    }
    group.finish();
}

//! Routing over 1, 100 and 5000 virtual hosts, and the last of 1000 routes in one.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion};
use http::{HeaderMap, HeaderValue, Method};
use outrigger_proxy::policy::router::{RequestFacts, RouteTable};
use serde_json::{Value, json};

use crate::support;

fn virtual_host(n: usize, routes: Value) -> Value {
    let fqdn = format!("service-{n}.default.svc.cluster.local");
    let domains = [fqdn.clone(), format!("{fqdn}:8080"), format!("service-{n}"), format!("service-{n}:8080")];
    json!({"name": fqdn, "domains": domains, "routes": routes})
}

pub(crate) fn bench(criterion: &mut Criterion) {
    let route = json!({"match": {"prefix": "/"}, "route": {"cluster": "app"}});
    let mut group = criterion.benchmark_group("router");
    for count in [1, 100, 5000] {
        let hosts: Vec<Value> = (0..count).map(|n| virtual_host(n, json!([route]))).collect();
        let table = RouteTable::new(support::routes(json!(hosts)));
        let authority = format!("service-{}.default.svc.cluster.local:8080", count / 2);
        group.bench_function(BenchmarkId::new("virtual_hosts", count), |b| {
            select(b, &table, &authority, "/api/v1/items?page=3")
        });
    }
    let mut routes: Vec<Value> = (0..999)
        .map(|n| match n % 4 {
            0 => json!({"match": {"path": format!("/exact/{n}")}, "route": {"cluster": "app"}}),
            1 => json!({"match": {"prefix": format!("/prefix/{n}/")}, "route": {"cluster": "app"}}),
            2 => json!({"match": {"safe_regex": {"regex": format!("/regex/{n}/[0-9]+")}}, "route": {"cluster": "app"}}),
            _ => json!({
                "match": {"prefix": "/", "headers": [{"name": "x-tenant", "string_match": {"exact": format!("t{n}")}}]},
                "route": {"cluster": "app"},
            }),
        })
        .collect();
    routes.push(route);
    let table = RouteTable::new(support::routes(json!([virtual_host(0, json!(routes))])));
    group.bench_function("last_of_1000_routes", |b| select(b, &table, "service-0", "/somewhere/else?q=1"));
    group.finish();
}

fn select(b: &mut criterion::Bencher<'_>, table: &RouteTable, authority: &str, path: &str) {
    let mut headers = HeaderMap::new();
    headers.insert("x-tenant", HeaderValue::from_static("somebody"));
    headers.insert("accept", HeaderValue::from_static("*/*"));
    let facts = RequestFacts {
        authority,
        path,
        method: &Method::GET,
        scheme: "http",
        headers: &headers,
        certificate: Default::default(),
        random: 7,
    };
    assert!(table.select(&facts).is_ok(), "the bench measures hits");
    b.iter(|| table.select(black_box(&facts)).is_ok());
}

//! Header work of one request.

use std::hint::black_box;

use criterion::{BatchSize, Criterion};
use http::{HeaderMap, HeaderValue, Method};
use outrigger_proxy::l7::headers::{Pseudo, apply_request, strip_hop_by_hop};
use serde_json::json;

use crate::support;

fn request() -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("host", "app.default.svc.cluster.local"),
        ("user-agent", "bench/1.0"),
        ("accept", "*/*"),
        ("accept-encoding", "gzip, br"),
        ("x-request-id", "0b1f5d2a-6a0e-4d49-9d38-0c0a5b8d9e11"),
        ("cookie", "session=0123456789abcdef"),
        ("x-remove-me", "1"),
        ("connection", "keep-alive"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
}

pub(crate) fn bench(criterion: &mut Criterion) {
    let host = json!([{
        "name": "h", "domains": ["*"],
        "routes": [{
            "match": {"prefix": "/"},
            "route": {"cluster": "app"},
            "request_headers_to_add": [
                {"header": {"key": "x-static", "value": "value"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"},
                {"header": {"key": "x-client", "value": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% via %PROTOCOL%"}},
                {"header": {"key": "x-was-host", "value": "%REQ(:AUTHORITY)%"}},
            ],
            "request_headers_to_remove": ["x-remove-me"],
        }],
    }]);
    let routes = support::routes(host);
    let ops = &routes.virtual_hosts[0].routes[0].headers;
    let (kept, none) = (request(), HeaderMap::new());
    let facts = support::facts(&kept, &none);
    let pseudo = Pseudo { method: &Method::GET, path: "/api", scheme: "http" };
    let mut once = request();
    apply_request(ops, &mut once, pseudo, &facts);
    assert!(once["x-client"] == "10.0.0.1 via HTTP/1.1" && !once.contains_key("x-remove-me"));
    let mut group = criterion.benchmark_group("headers");
    group.bench_function("mutate_request", |b| {
        b.iter_batched_ref(request, |h| apply_request(black_box(ops), h, pseudo, &facts), BatchSize::SmallInput);
    });
    group.bench_function("strip_hop_by_hop", |b| b.iter_batched_ref(request, strip_hop_by_hop, BatchSize::SmallInput));
    group.finish();
}

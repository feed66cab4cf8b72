//! One access log line: Envoy's default format as text, and the usual fields as JSON.

use std::hint::black_box;

use criterion::Criterion;
use http::{HeaderMap, HeaderValue, Method};
use outrigger_proxy::{
    l7::headers::{Pseudo, RequestView},
    telemetry::access_log::{Logger, Sinks},
};
use serde_json::{Value, json};

use crate::support;

pub(crate) fn bench(criterion: &mut Criterion) {
    let fields: Value = json!({
        "start_time": "%START_TIME%", "method": "%REQ(:METHOD)%", "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
        "protocol": "%PROTOCOL%", "response_code": "%RESPONSE_CODE%", "response_flags": "%RESPONSE_FLAGS%",
        "bytes_received": "%BYTES_RECEIVED%", "bytes_sent": "%BYTES_SENT%", "duration": "%DURATION%",
        "user_agent": "%REQ(USER-AGENT)%", "request_id": "%REQ(X-REQUEST-ID)%", "authority": "%REQ(:AUTHORITY)%",
        "upstream_host": "%UPSTREAM_HOST%", "upstream_cluster": "%UPSTREAM_CLUSTER%",
    });
    let mut request = HeaderMap::new();
    request.insert("host", HeaderValue::from_static("app.default.svc.cluster.local"));
    request.insert("user-agent", HeaderValue::from_static("bench/1.0"));
    request.insert("x-request-id", HeaderValue::from_static("0b1f5d2a-6a0e-4d49-9d38-0c0a5b8d9e11"));
    let pseudo = Pseudo { method: &Method::GET, path: "/api/v1/items", scheme: "http" };
    let request = RequestView { pseudo, headers: &request };
    let response = HeaderMap::new();
    let facts = support::facts(&request, &response);
    // Lines go the whole way to the writer's thread and end there.
    let sinks = Sinks::start().expect("a thread can be started");
    let mut group = criterion.benchmark_group("access_log");
    for (what, format) in [("text", json!({})), ("json", json!({"log_format": {"json_format": fields}}))] {
        let mut config = json!({
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": "/dev/null",
        });
        for (key, value) in format.as_object().expect("an object") {
            config[key] = value.clone();
        }
        let logs = json!({"access_log": [{"name": "envoy.access_loggers.file", "typed_config": config}]});
        let hosts = json!([{
            "name": "h", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "app"}}],
        }]);
        let file = support::listener(json!([support::http_chain(hosts, &logs)]), &["app"]);
        let manager = support::connection_manager(&file);
        let logger = Logger::new(&manager.access_log[0], &sinks);
        group.bench_function(what, |b| b.iter(|| logger.log(black_box(&facts))));
    }
    group.finish();
}

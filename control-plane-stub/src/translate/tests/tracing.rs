use super::*;

const COLLECTOR: &str = "apiVersion: v1
kind: Service
metadata: {name: otel, namespace: obs}
spec: {clusterIP: 10.96.9.9, ports: [{name: grpc-otlp, port: 4317}, {name: http-otlp, port: 4318}]}
---
";

fn traced(spec: &str) -> World {
    let bookinfo = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/tasks/bookinfo.yaml");
    let text = std::fs::read_to_string(bookinfo).unwrap();
    let mesh = "apiVersion: outrigger.dev/v1alpha1\nkind: MeshConfig\nmetadata: {name: m, namespace: istio-system}";
    world_of(&format!("{text}---\n{COLLECTOR}{mesh}\nspec: {{{spec}}}\n"))
}

fn tracing(resources: &Resources, listener: &str) -> Vec<Value> {
    let mut found = Vec::new();
    let mut pending = vec![get(&resources.listeners, listener)];
    while let Some(value) = pending.pop() {
        match value {
            Value::Object(mut fields) => {
                found.extend(fields.remove("tracing"));
                pending.extend(fields.into_iter().map(|(_, value)| value));
            }
            Value::Array(values) => pending.extend(values),
            _ => {}
        }
    }
    found
}

#[test]
fn connection_managers_send_their_spans_to_the_provider() {
    let world = traced(
        "extensionProviders: [{name: otel, opentelemetry: {service: otel.obs.svc.cluster.local, port: 4317, maxTagLength: 99}}], \
         defaultProviders: {tracing: [otel]}, defaultConfig: {tracing: {sampling: 12.5}}",
    );
    let resources = sidecar(&world, "default", "10.244.0.21");
    for listener in ["virtualInbound", "0.0.0.0_9080"] {
        let found = tracing(&resources, listener);
        assert!(!found.is_empty(), "{listener}");
        for of in found {
            assert_eq!(at(&of, "/random_sampling/value").as_f64(), Some(12.5));
            assert_eq!(at(&of, "/max_path_tag_length"), &json!(99));
            let config = at(&of, "/provider/typed_config");
            let cluster = "outbound|4317||otel.obs.svc.cluster.local";
            assert_eq!(at(config, "/grpc_service/envoy_grpc/cluster_name"), cluster);
            let name = at(config, "/service_name").as_str().unwrap();
            assert!(name.ends_with(".default"), "{name}");
            assert!(of.to_string().contains("istio.canonical_service"), "{of}");
        }
    }
    assert!(resources.clusters.contains_key("outbound|4317||otel.obs.svc.cluster.local"));
    super::envoy::validate(&resources, "tracing");
}

#[test]
fn traces_go_over_http_where_it_says_so_and_nowhere_where_it_does_not() {
    let http = "extensionProviders: [{name: otel, opentelemetry: {service: otel.obs.svc.cluster.local, port: 4318, \
                http: {path: /v1/traces, timeout: 3s}}}]";
    let on = traced(&format!("{http}, defaultProviders: {{tracing: [otel]}}"));
    let found = tracing(&sidecar(&on, "default", "10.244.0.21"), "virtualInbound");
    let uri = at(&found[0], "/provider/typed_config/http_service/http_uri");
    assert_eq!(at(uri, "/uri"), "http://otel.obs.svc.cluster.local:4318/v1/traces");
    assert_eq!(at(uri, "/timeout"), "3s");
    assert_eq!(at(&found[0], "/random_sampling/value").as_f64(), Some(1.0));
    let (unnamed, off) = (traced(http), format!("{http}, defaultProviders: {{tracing: [otel]}}, enableTracing: false"));
    for world in [unnamed, traced(&off)] {
        assert_eq!(tracing(&sidecar(&world, "default", "10.244.0.21"), "virtualInbound"), Vec::<Value>::new());
    }
}

//! What our own proxy is told for Istio's metrics.

use super::*;

const HTTPBIN: &str = "apiVersion: v1
kind: Service
metadata: {name: httpbin, namespace: shop}
spec:
  clusterIP: 10.96.0.20
  selector: {app: httpbin}
  ports: [{name: http, port: 80, targetPort: 8080}, {name: tcp-raw, port: 90, targetPort: 9090}]
---
apiVersion: v1
kind: Pod
metadata:
  name: httpbin-74fb669cc6-x7k2p
  namespace: shop
  labels: {app: httpbin, version: v2, pod-template-hash: 74fb669cc6, security.istio.io/tlsMode: istio}
spec: {serviceAccountName: httpbin}
status: {podIP: 10.244.0.30, podIPs: [{ip: 10.244.0.30}]}
";

fn filters(listener: &Value, wanted: &str) -> Vec<Value> {
    let chains = listener["filter_chains"].as_array().into_iter().flatten().chain(listener.get("default_filter_chain"));
    let filters = chains.flat_map(|chain| chain["filters"].as_array().cloned().unwrap_or_default());
    let all = filters.flat_map(|filter| {
        let inner = filter["typed_config"]["http_filters"].as_array().cloned().unwrap_or_default();
        std::iter::once(filter).chain(inner)
    });
    all.filter(|filter| filter["name"] == wanted).collect()
}

#[test]
fn services_and_workloads_have_names_and_every_chain_counts() {
    let world = world_of(HTTPBIN);
    let ours = translate(&world, &node(ClientKind::Outrigger, "shop", "10.244.0.30"));
    let host = "httpbin.shop.svc.cluster.local";
    let cluster = format!("outbound|80||{host}");
    let service = json!([{"host": host, "name": "httpbin", "namespace": "shop"}]);
    for name in [cluster.as_str(), "inbound|8080||"] {
        let cluster = get(&ours.clusters, name);
        assert_eq!(*at(&cluster, "/metadata/filter_metadata/istio/services"), service, "{name}");
    }
    let endpoint = get(&ours.endpoints, &cluster);
    let noted = at(&endpoint, "/endpoints/0/lb_endpoints/0/metadata/filter_metadata");
    assert_eq!(noted["istio"]["workload"], "httpbin;shop;httpbin;v2;");
    assert_eq!(noted["envoy.transport_socket_match"]["tlsMode"], "istio");
    for (name, any) in &ours.listeners {
        let listener = json_of(any);
        let count = |filter: &str| filters(&listener, filter).len();
        let terminal = count("envoy.filters.network.tcp_proxy") + count("envoy.filters.http.router");
        assert_eq!(count("istio.stats"), terminal, "{name}");
        for filter in filters(&listener, "istio.stats") {
            let off = at(&filter, "/typed_config/value").get("disable_host_header_fallback");
            assert_eq!(off.is_some(), name == "virtualInbound", "{name}");
        }
    }
}

#[test]
fn others_are_told_nothing_and_what_is_told_stays_the_same_bytes() {
    let world = world_of(HTTPBIN);
    let of = |kind| translate(&world, &node(kind, "shop", "10.244.0.30"));
    for kind in [ClientKind::Envoy, ClientKind::Grpc] {
        let Resources { clusters, endpoints, listeners, .. } = of(kind);
        let all = clusters.values().chain(endpoints.values()).chain(listeners.values());
        assert!(
            all.map(json_of)
                .all(|value| !value.to_string().contains("\"istio\":{") && !value.to_string().contains("istio.stats"))
        );
    }
    let first = of(ClientKind::Outrigger);
    (0..20).for_each(|_| assert_eq!(of(ClientKind::Outrigger), first));
}

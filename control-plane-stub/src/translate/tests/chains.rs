//! `virtualInbound`: which chains there are for each mode and protocol.

use super::*;

fn mesh(mode: &str) -> World {
    world_of(&format!(
        "apiVersion: v1
kind: Service
metadata: {{name: app}}
spec: {{clusterIP: 10.0.0.1, selector: {{app: a}}, ports: [{{name: http, port: 80, targetPort: 8080}}, {{name: tcp, port: 81}}, {{name: any, port: 82}}, {{name: grpc, port: 83}}, {{name: https, port: 84}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: p, labels: {{app: a, security.istio.io/tlsMode: istio}}}}
spec: {{serviceAccountName: acc}}
status: {{podIPs: [{{ip: 10.1.0.1}}, {{ip: 'fd00::1'}}]}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: p}}
spec: {{mtls: {{mode: {mode}}}}}
"
    ))
}

fn inbound(world: &World) -> Value {
    get(&sidecar(world, "default", "fd00::1").listeners, "virtualInbound")
}

/// Each chain of a port as `transport alpn,... > filter[+mtls]`.
fn chains(listener: &Value, port: Option<u16>) -> Vec<String> {
    let chains = listener["filter_chains"].as_array().unwrap();
    let of_port = |chain: &&Value| chain["filter_chain_match"]["destination_port"].as_u64() == port.map(u64::from);
    let line = |chain: &Value| {
        let matched = &chain["filter_chain_match"];
        let alpn: Vec<_> =
            matched["application_protocols"].as_array().into_iter().flatten().map(|a| a.as_str().unwrap()).collect();
        let filter = chain["filters"][0]["name"].as_str().unwrap().rsplit('.').next().unwrap();
        let filter = if filter == "http_connection_manager" { "http" } else { "tcp" };
        let mtls = if chain.get("transport_socket").is_some() { "+mtls" } else { "" };
        format!("{} {} > {filter}{mtls}", matched["transport_protocol"].as_str().unwrap(), alpn.join(","))
    };
    chains.iter().filter(of_port).map(line).collect()
}

const HTTP: &str = "istio-http/1.0,istio-http/1.1,istio-h2";
const ALL: &str = "istio-http/1.0,istio-http/1.1,istio-h2,istio-peer-exchange,istio";
const PLAIN: &str = "http/1.0,http/1.1,h2c";

#[test]
fn permissive() {
    let listener = inbound(&mesh("PERMISSIVE"));
    let auto = [
        format!("tls {HTTP} > http+mtls"),
        format!("raw_buffer {PLAIN} > http"),
        "tls istio-peer-exchange,istio > tcp+mtls".to_owned(),
        "raw_buffer  > tcp".to_owned(),
        "tls  > tcp".to_owned(),
    ];
    assert_eq!(chains(&listener, Some(82)), auto);
    assert_eq!(chains(&listener, None), auto);
    assert_eq!(chains(&listener, Some(8080)), [format!("tls {ALL} > http+mtls"), "raw_buffer  > http".to_owned()]);
    assert_eq!(chains(&listener, Some(83)), chains(&listener, Some(8080)));
    let tcp = [format!("tls {ALL} > tcp+mtls"), "tls  > tcp".to_owned(), "raw_buffer  > tcp".to_owned()];
    assert_eq!(chains(&listener, Some(81)), tcp);
    assert_eq!(chains(&listener, Some(84)), tcp);
    // The service's own port is nothing here.
    assert_eq!(chains(&listener, Some(80)), Vec::<String>::new());
}

#[test]
fn strict() {
    let listener = inbound(&mesh("STRICT"));
    let auto = [format!("tls {HTTP} > http+mtls"), "tls  > tcp+mtls".to_owned()];
    assert_eq!(chains(&listener, Some(82)), auto);
    assert_eq!(chains(&listener, None), auto);
    assert_eq!(chains(&listener, Some(8080)), ["tls  > http+mtls"]);
    assert_eq!(chains(&listener, Some(81)), ["tls  > tcp+mtls"]);
    let plain = |chain: &&Value| chain["filter_chain_match"]["transport_protocol"] == "raw_buffer";
    assert_eq!(listener["filter_chains"].as_array().unwrap().iter().filter(plain).count(), 0);
}

#[test]
fn disable() {
    let listener = inbound(&mesh("DISABLE"));
    let auto = [format!("raw_buffer {PLAIN} > http"), "raw_buffer  > tcp".to_owned()];
    assert_eq!(chains(&listener, Some(82)), auto);
    assert_eq!(chains(&listener, None), auto);
    assert_eq!(chains(&listener, Some(8080)), ["raw_buffer  > http"]);
    assert_eq!(chains(&listener, Some(81)), ["raw_buffer  > tcp"]);
    let names: Vec<_> =
        listener["listener_filters"].as_array().unwrap().iter().map(|f| f["name"].as_str().unwrap()).collect();
    // Nobody looks for TLS: the application's own must look like any bytes.
    assert_eq!(names, ["envoy.filters.listener.original_dst", "envoy.filters.listener.http_inspector"]);
}

#[test]
fn inspectors_look_only_where_they_must() {
    let world = world("bookinfo");
    let listener = get(&sidecar(&world, "default", "10.244.0.13").listeners, "virtualInbound");
    assert_eq!(chains(&listener, Some(9080)), ["tls  > http+mtls"]);
    assert_eq!(chains(&listener, Some(9090)), [format!("raw_buffer {PLAIN} > http"), "raw_buffer  > tcp".to_owned()]);
    let filters = listener["listener_filters"].as_array().unwrap();
    assert_eq!(filters[1]["filter_disabled"], json!({"destination_port_range": {"start": 9090, "end": 9091}}));
    // STRICT elsewhere: only the port with plaintext of unknown protocol needs HTTP detection.
    assert_eq!(
        filters[2]["filter_disabled"],
        json!({"not_match": {"destination_port_range": {"start": 9090, "end": 9091}}})
    );
}

#[test]
fn an_inspector_off_on_several_ports() {
    let listener = inbound(&mesh("PERMISSIVE"));
    let http = &listener["listener_filters"][2];
    let ports: Vec<_> = http["filter_disabled"]["or_match"]["rules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["destination_port_range"]["start"].as_u64().unwrap())
        .collect();
    assert_eq!(ports, [81, 83, 84, 8080]);
    assert_eq!(listener["listener_filters"][1].get("filter_disabled"), None);
    assert_eq!(listener["continue_on_listener_filters_timeout"], true);
}

#[test]
fn the_client_certificate_is_demanded_and_told() {
    let listener = inbound(&mesh("STRICT"));
    let chain = listener["filter_chains"].as_array().unwrap().iter().find(|c| c["name"] == "0.0.0.0_8080").unwrap();
    let tls = at(chain, "/transport_socket/typed_config");
    assert_eq!(tls["require_client_certificate"], true);
    let common = &tls["common_tls_context"];
    assert_eq!(common["alpn_protocols"], json!(["h2", "http/1.1"]));
    let sds = json!({"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"});
    assert_eq!(common["tls_certificate_sds_secret_configs"], json!([{"name": "default", "sds_config": sds}]));
    assert_eq!(
        common["combined_validation_context"],
        json!({
            "default_validation_context": {"match_typed_subject_alt_names": [
                {"san_type": "URI", "matcher": {"prefix": "spiffe://cluster.local/"}}]},
            "validation_context_sds_secret_config": {"name": "ROOTCA", "sds_config": sds},
        })
    );
    let http = at(chain, "/filters/0/typed_config");
    assert_eq!(http["forward_client_cert_details"], "APPEND_FORWARD");
    assert_eq!(http["set_current_client_cert_details"], json!({"subject": true, "dns": true, "uri": true}));
    assert_eq!(at(http, "/route_config/virtual_hosts/0/routes/0/route/cluster"), "inbound|8080||");
    // Plaintext must not bring a certificate of its own.
    let listener = inbound(&mesh("DISABLE"));
    let chain = listener["filter_chains"].as_array().unwrap().iter().find(|c| c["name"] == "0.0.0.0_8080").unwrap();
    assert_eq!(at(chain, "/filters/0/typed_config").get("forward_client_cert_details"), None);
}

#[test]
fn the_application_is_reached_past_the_capture() {
    let resources = sidecar(&mesh("PERMISSIVE"), "default", "10.1.0.1");
    for name in ["inbound|8080||", "inbound|81||", "InboundPassthroughCluster"] {
        let cluster = get(&resources.clusters, name);
        assert_eq!(cluster["type"], "ORIGINAL_DST", "{name}");
        assert_eq!(at(&cluster, "/upstream_bind_config/source_address/address"), "127.0.0.6", "{name}");
        assert_eq!(at(&cluster, "/upstream_bind_config/extra_source_addresses/0/address/address"), "::6", "{name}");
    }
    let options = |name: &str| {
        let cluster = get(&resources.clusters, name);
        cluster["typed_extension_protocol_options"]["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"].clone()
    };
    assert!(options("inbound|8080||").get("use_downstream_protocol_config").is_some());
    assert!(options("inbound|83||").pointer("/explicit_http_config/http2_protocol_options").is_some());
    assert_eq!(options("inbound|81||"), Value::Null);
    assert!(get(&resources.clusters, "PassthroughCluster").get("upstream_bind_config").is_none());
}

#[test]
fn a_stranger_gets_the_catch_all_only() {
    let world = mesh("STRICT");
    let resources = sidecar(&world, "elsewhere", "10.1.0.1");
    assert!(!resources.clusters.keys().any(|name| name.starts_with("inbound|")));
    let listener = get(&resources.listeners, "virtualInbound");
    assert_eq!(chains(&listener, None).len(), 5, "the policy is another namespace's");
    assert!(resources.clusters.contains_key("outbound|80||app.default.svc.cluster.local"));
}

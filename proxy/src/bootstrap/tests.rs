use std::time::Duration;

use prost::Message;

use super::*;
use crate::{
    ir::{cluster::UpstreamProtocol, format::Sink, listener::Terminal},
    xds::decode::{NoteKind, Notes},
};

const STATIC: &str = include_str!("tests/static.yaml");
const ADS: &str = include_str!("tests/ads.yaml");
const ISTIO: &str = include_str!("tests/istio.json");

fn accepted(text: &str) -> (Bootstrap, Notes) {
    load(text, None).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

/// The path and the reason of a refusal.
fn refused(text: &str) -> (String, String) {
    match load(text, None) {
        Ok(_) => panic!("accepted\n{text}"),
        Err(BootstrapError::Rejected(r)) => (r.path, r.reason),
        Err(BootstrapError::Syntax(outrigger_wire::json::Error::Field { path, reason })) => (path, reason),
        Err(e) => (String::new(), e.to_string()),
    }
}

#[test]
fn a_static_bootstrap() {
    let (b, notes) = accepted(STATIC);
    assert_eq!((b.listeners.len(), b.clusters.len(), b.secrets.len()), (2, 2, 1));
    assert_eq!(b.dynamic, Dynamic::default());
    assert_eq!(b.admin.as_ref().unwrap().address, AdminAddress::Tcp("127.0.0.1:15000".parse().unwrap()));
    assert!(b.admin.as_ref().unwrap().access_log.is_empty(), "/dev/null is nothing");
    assert_eq!((b.node.id.as_str(), b.node.user_agent_name.as_str()), ("edge-1", "outrigger"));
    let loaded = outrigger_wire::pb::envoy::config::bootstrap::v3::Bootstrap::decode(&*b.packed.unpack()).unwrap();
    assert!(loaded.node.unwrap().user_agent_name.is_empty(), "the dump shows what was loaded");
    assert_eq!((b.listeners[0].connection_limit, b.listeners[1].connection_limit), (Some(100), None));
    let Terminal::Http(m) = &b.listeners[0].chains[0].terminal else { panic!() };
    assert_eq!(m.access_log[0].sink, Sink::Stdout);
    assert_eq!(b.clusters[0].connect_timeout, Duration::from_millis(250));
    assert!(notes.contains("admin.access_log_path", NoteKind::Deprecated));
    let key = "layered_runtime.layers[0].static_layer[\"re2.max_program_size.error_level\"]";
    assert!(notes.contains(key, NoteKind::Unsupported), "{notes:?}");
    assert!(validate(STATIC, None).is_ok() || !std::path::Path::new("/etc/ssl/certs/ca-certificates.crt").exists());
}

#[test]
fn the_shipped_access_log_is_what_its_readers_look_for() {
    let shipped = include_str!("../../../deploy/observability/logs/access-log.yaml");
    let (b, notes) = accepted(shipped);
    let Terminal::Http(m) = &b.listeners[0].chains[0].terminal else { panic!() };
    assert!(matches!(&m.access_log[0].sink, Sink::File(_)), "{:?}", m.access_log);
    assert_eq!(notes, Notes::default());
    for reader in [
        include_str!("../../../deploy/observability/logs/fluent-bit.yaml"),
        include_str!("../../../deploy/observability/logs/fluentd.conf"),
    ] {
        assert!(
            reader.contains("/var/log/outrigger/access.log")
                && reader.contains("time_key: start_time") | reader.contains("time_key start_time")
        );
    }
}

#[test]
fn an_ads_bootstrap_with_deprecated_fields() {
    let (b, notes) = accepted(ADS);
    let ads = b.dynamic.ads.clone().unwrap();
    assert_eq!((&*ads.cluster, ads.delta, ads.node_on_first_message_only), ("xds_cluster", false, true));
    assert_eq!((b.dynamic.lds.clone(), b.dynamic.cds.clone()), (Some(ConfigSource::Ads), Some(ConfigSource::Ads)));
    assert_eq!(b.clusters[0].http.protocol, UpstreamProtocol::Http2);
    assert!(notes.contains("static_resources.clusters[0].http2_protocol_options", NoteKind::Deprecated));
    assert!(notes.contains("layered_runtime.layers[0].rtds_layer", NoteKind::Unsupported));
    assert!(b.require_node().is_ok());
}

#[test]
fn the_bootstrap_of_an_istio_agent() {
    let (b, notes) = accepted(ISTIO);
    assert!(b.dynamic.ads.as_ref().unwrap().delta);
    assert_eq!(b.max_downstream_connections, Some(2_147_483_647));
    assert_eq!(&*b.listeners[0].name, "0.0.0.0:15090");
    assert_eq!(b.admin.as_ref().unwrap().access_log[0].sink, Sink::File("/dev/null".into()));
    assert!(notes.contains("bootstrap_extensions[0].typed_config", NoteKind::Harmless));
    assert!(notes.contains("application_log_config", NoteKind::Unsupported));
    assert_eq!(b.node.client_features, ["xds.config.resource-in-sotw"]);
}

#[test]
fn an_overlay_is_merged_as_protobuf_merges() {
    let overlay = "node: {id: other}\nstatic_resources: {clusters: [{name: more}]}\nadmin: {access_log_path: /tmp/a}";
    let (b, _) = load(ADS, Some(overlay)).unwrap();
    assert_eq!((b.node.id.as_str(), b.node.cluster.as_str()), ("other", "test-cluster"));
    let names: Vec<_> = b.clusters.iter().map(|c| &*c.name).collect();
    assert_eq!(names, ["xds_cluster", "als_cluster", "more"]);
    let admin = b.admin.unwrap();
    assert_eq!(admin.access_log[0].sink, Sink::File("/tmp/a".into()));
    assert_eq!(admin.address, AdminAddress::Tcp("127.0.0.1:19000".parse().unwrap()));
    let (alone, _) = load("", Some(overlay)).unwrap();
    assert_eq!(alone.clusters.len(), 1);
    assert!(load("", None).is_err());
    assert!(load(ADS, Some("nodde: {}")).unwrap_err().to_string().starts_with("nodde: unknown field"));
}

#[test]
fn refusals_have_paths() {
    let clusters = |list: &str| format!("static_resources: {{clusters: [{list}]}}");
    let ads = |service: &str| format!("dynamic_resources: {{ads_config: {{api_type: GRPC, {service}}}}}");
    let tcp = "filter_chains: [{filters: [{name: t, typed_config: {\"@type\": \
               type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: s, cluster: c}}]}]";
    let listener = |name: &str, port: u32| {
        format!("{{name: {name}, address: {{socket_address: {{address: 1.1.1.1, port_value: {port}}}}}, {tcp}}}")
    };
    let listeners = |list: &str| format!("static_resources: {{listeners: [{list}]}}");
    let eds =
        |source: &str| clusters(&format!("{{name: a, type: EDS, eds_cluster_config: {{eds_config: {{{source}}}}}}}"));
    let sds = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, \
               common_tls_context: {validation_context_sds_secret_config: {name: nope}}";
    for (text, path, reason) in [
        ("static_resources: {listeners: [{foo: 1}]}".to_owned(), "static_resources.listeners[0].foo", "unknown field"),
        ("node: {id: a}\nnode: {id: b}".into(), "", "uplicate"),
        ("- a".into(), "(document)", "must be an object"),
        (clusters("{name: a}, {name: a}"), "static_resources.clusters[1].name", "twice"),
        (clusters("{name: a, connect_timeout: 0s}"), "static_resources.clusters[0].connect_timeout", "greater than zero"),
        (listeners(&format!("{}, {}", listener("a", 1), listener("a", 2))), "static_resources.listeners[1].name", "twice"),
        (listeners(&format!("{}, {}", listener("a", 1), listener("b", 1))), "static_resources.listeners[1].address", "1.1.1.1:1"),
        ("static_resources: {secrets: [{name: s, validation_context: {}}, {name: s, validation_context: {}}]}".into(), "static_resources.secrets[1].name", "twice"),
        (ads("grpc_services: [{envoy_grpc: {cluster_name: x}}]"), "dynamic_resources.ads_config", "not one of the static clusters"),
        (ads("grpc_services: [{google_grpc: {target_uri: u, stat_prefix: s}}]"), "dynamic_resources.ads_config.grpc_services[0].google_grpc", "not supported"),
        (ads(""), "dynamic_resources.ads_config.grpc_services", "exactly one"),
        ("dynamic_resources: {cds_config: {ads: {}}}".into(), "dynamic_resources.cds_config", "needs dynamic_resources.ads_config"),
        ("dynamic_resources: {cds_config: {self: {}}}".into(), "dynamic_resources.cds_config", "means nothing"),
        (eds("ads: {}"), "static_resources.clusters[0].eds_cluster_config", "ads_config"),
        (eds("api_config_source: {api_type: GRPC, grpc_services: [{envoy_grpc: {cluster_name: a}}]}"), "static_resources.clusters[0].eds_cluster_config", "to carry configuration"),
        (clusters(&format!("{{name: a, transport_socket: {{name: t, typed_config: {{\"@type\": {sds}}}}}}}")), "static_resources.clusters[0].transport_socket", "unknown static secret"),
        ("admin: {allow_paths: [{exact: /ready}]}".into(), "admin.allow_paths", "not supported"),
        ("admin: {address: {socket_address: {address: localhost, port_value: 1}}}".into(), "admin.address.socket_address.address", "malformed IP"),
        ("bootstrap_extensions: [{name: w, typed_config: {\"@type\": a/my.Wasm}}]".into(), "bootstrap_extensions[0].typed_config", "my.Wasm"),
        ("overload_manager: {resource_monitors: [{name: m, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig}}]}".into(), "overload_manager.resource_monitors[0].typed_config.max_active_downstream_connections", "greater than zero"),
        ("layered_runtime: {layers: [{name: a, static_layer: {overload.global_downstream_max_connections: many}}]}".into(), "layered_runtime.layers[0].static_layer[\"overload.global_downstream_max_connections\"]", "not a number"),
    ] {
        let (found_path, found_reason) = refused(&text);
        assert_eq!(found_path, path, "{found_reason}\n{text}");
        assert!(found_reason.contains(reason), "{found_reason}: expected {reason:?}\n{text}");
    }
}

#[test]
fn overload_and_bind_settings_arrive() {
    let (b, notes) = accepted(
        "overload_manager: {resource_monitors: [{name: m, typed_config: {\"@type\": \
         type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig, \
         max_active_downstream_connections: 7}}, {name: h, typed_config: {\"@type\": \
         type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig, max_heap_size_bytes: 9}}]}\n\
         cluster_manager: {upstream_bind_config: {source_address: {address: 127.0.0.9, port_value: 0}}}\n\
         static_resources: {clusters: [{name: a}, {name: b, upstream_bind_config: {source_address: {address: 127.0.0.8, port_value: 0}}}]}",
    );
    assert_eq!(b.max_downstream_connections, Some(7));
    assert!(notes.contains("overload_manager.resource_monitors[1].typed_config", NoteKind::Unsupported));
    let source = |i: usize| b.clusters[i].bind.as_ref().unwrap().source.to_string();
    assert_eq!((source(0), source(1)), ("127.0.0.9:0".into(), "127.0.0.8:0".into()));
}

#[test]
fn what_a_route_points_to_is_looked_at() {
    let text = STATIC.replace("cluster: service}", "cluster: nowhere}");
    let error = load(&text, None).unwrap_err().to_string();
    assert!(error.contains("route_config: unknown cluster \"nowhere\""), "{error}");
    // Said to be meant so, or still to come.
    accepted(&text.replace("route_config:", "route_config:\n            validate_clusters: false"));
}

#[test]
fn whom_a_filter_asks_is_looked_at() {
    let kind = "type.googleapis.com/envoy.extensions.filters";
    let grpc = "transport_api_version: V3, grpc_service: {envoy_grpc: {cluster_name: nowhere}}";
    let limit = format!("domain: d, rate_limit_service: {{{grpc}}}");
    let http = |filter: &str| {
        let filter = format!("http_filters:\n          - {{name: f, typed_config: {{'@type': {kind}.http.{filter}}}}}");
        STATIC.replacen("http_filters:", &filter, 1)
    };
    for filter in [format!("ratelimit.v3.RateLimit, {limit}"), format!("ext_authz.v3.ExtAuthz, {grpc}")] {
        let (path, reason) = refused(&http(&filter));
        assert!(
            path.ends_with("http_filters") && reason.contains("gRPC client cluster \"nowhere\""),
            "{path}: {reason}"
        );
        accepted(&http(&filter.replace("nowhere", "local")));
    }
    let network = format!(
        "    - filters:\n      - {{name: f, typed_config: {{'@type': {kind}.network.ratelimit.v3.RateLimit, stat_prefix: p, \
         descriptors: [{{entries: [{{key: k, value: v}}]}}], {limit}}}}}\n      - name: tcp"
    );
    let network = STATIC.replace("    - filters:\n      - name: tcp", &network);
    let noted = |text: &str| {
        accepted(text).1.contains("static_resources.listeners[1].filter_chains[0].filters", NoteKind::Unsupported)
    };
    assert!(noted(&network) && !noted(&network.replace("nowhere", "local")));
}

#[test]
fn a_node_is_required_for_a_control_plane_only() {
    assert!(accepted("{}").0.require_node().is_ok());
    let text = ADS.replace("  id: test-id\n", "");
    assert_eq!(accepted(&text).0.require_node().unwrap_err().path, "node.id");
}

#[test]
fn validation_reads_the_files() {
    let text = STATIC.replace("/etc/ssl/certs/ca-certificates.crt", "/nonexistent/ca.pem");
    assert!(load(&text, None).is_ok());
    match validate(&text, None) {
        Err(BootstrapError::File { path, .. }) => assert_eq!(path.to_str(), Some("/nonexistent/ca.pem")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn damaged_text_never_panics() {
    let mut random = fastrand::Rng::with_seed(0x0b00_7574);
    for round in 0..300 {
        let source = [STATIC, ADS, ISTIO][round % 3];
        let mut bytes = source.as_bytes().to_vec();
        for _ in 0..random.usize(1..6) {
            let at = random.usize(..bytes.len());
            match random.u8(0..3) {
                0 => bytes[at] = random.u8(b' '..0x7f),
                1 => drop(bytes.remove(at)),
                _ => bytes.truncate(at.max(1)),
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        // Either outcome is fine: that there is one is the point.
        let outcome = load(&*text, None).map(|(b, _)| b.clusters.len());
        assert!(outcome.is_ok() || !outcome.unwrap_err().to_string().is_empty());
    }
}

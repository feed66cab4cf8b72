mod compare;

use envoy_types::pb::envoy::config::{bootstrap::v3::Bootstrap, cluster::v3::Cluster};

use super::*;

fn complaint(text: &str) -> (String, String) {
    match from_value::<Bootstrap>(parse(text).expect("syntax")) {
        Err(Error::Field { path, reason }) => (path, reason),
        other => panic!("expected a complaint with a path, got {other:?}"),
    }
}

#[test]
fn complaints_have_paths() {
    for (text, path, reason) in [
        ("static_resources: {listeners: [{name: a}, {foo: 1}]}", "static_resources.listeners[1].foo", "unknown field"),
        ("node: {id: 7}", "node.id", "must be a string (quoted text), not 7"),
        ("node: [a]", "node", "must be an object (Node), not a list"),
        ("static_resources: {clusters: {}}", "static_resources.clusters", "must be a list, not an object"),
        ("enable_dispatcher_stats: 1", "enable_dispatcher_stats", "must be true or false, not 1"),
        ("stats_flush_interval: 5", "stats_flush_interval", "must be google.protobuf.Duration (quoted text), not 5"),
        (
            "static_resources: {clusters: [{name: a, type: FOO}]}",
            "static_resources.clusters[0].type",
            "\"FOO\" is none of STATIC, STRICT_DNS, LOGICAL_DNS, EDS, ORIGINAL_DST",
        ),
        (
            "static_resources: {clusters: [{per_connection_buffer_limit_bytes: -1}]}",
            "static_resources.clusters[0].per_connection_buffer_limit_bytes",
            "must be an unsigned 32-bit whole number, not -1",
        ),
        (
            "admin: {address: {socket_address: {address: a, port_value: 1, named_port: b}}}",
            "admin.address.socket_address.named_port",
            "excludes \"port_value\", which is given too",
        ),
        ("{\"nodeContextParams\": [], \"node_context_params\": []}", "node_context_params", "is given twice"),
        (
            "static_resources: {clusters: [{transport_socket: {name: t, typed_config: {}}}]}",
            "static_resources.clusters[0].transport_socket.typed_config",
            "\"@type\" is required",
        ),
        (
            "static_resources: {clusters: [{transport_socket: {typed_config: {\"@type\": \
             type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, snj: a}}}]}",
            "static_resources.clusters[0].transport_socket.typed_config.snj",
            "unknown field",
        ),
        (
            "static_resources: {clusters: [{typed_extension_protocol_options: {a: {\"@type\": \
             type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, x: a}}}]}",
            "static_resources.clusters[0].typed_extension_protocol_options[\"a\"].x",
            "unknown field",
        ),
        ("[1]", "(document)", "must be an object (Bootstrap), not a list"),
    ] {
        let (found_path, found_reason) = complaint(text);
        // A map's key is part of the path without a dot.
        assert_eq!(found_path, path, "{text}");
        assert!(found_reason.starts_with(reason), "{text}: {found_reason}");
    }
}

#[test]
fn an_unknown_any_becomes_a_typed_struct() {
    let text =
        "name: a\ntransport_socket: {name: t, typed_config: {\"@type\": example.com/my.Type, a: [1, {b: null}]}}";
    let cluster: Cluster = from_value(parse(text).unwrap()).unwrap();
    let json = to_value(&cluster).unwrap();
    let config = &json["transport_socket"]["typed_config"];
    assert_eq!(config["@type"], "type.googleapis.com/xds.type.v3.TypedStruct");
    assert_eq!(config["type_url"], "example.com/my.Type");
    assert_eq!(config["value"]["a"][0], 1.0);
}

#[test]
fn duplicate_keys_are_refused_in_both_grammars() {
    for text in ["{\"node\": {}, \"node\": {}}", "node: {}\nnode: {}\n", "node:\n  id: a\n  id: b\n"] {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.to_lowercase().contains("duplicate"), "{text}: {error}");
    }
}

#[test]
fn bombs_and_depth_are_refused() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..12 {
        let refs = vec![format!("*a{}", i - 1); 10].join(", ");
        bomb.push_str(&format!("a{i}: &a{i} [{refs}]\n"));
    }
    assert!(matches!(parse(&bomb), Err(Error::Syntax(_))));
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = format!("{}1{}", open.repeat(20_000), close.repeat(20_000));
        assert!(matches!(parse(&deep), Err(Error::Syntax(_))), "{open}");
    }
    // Deep, but within the grammar's bound: the walk's own.
    let predicate = "{\"not_match\":".repeat(110);
    let text = format!(
        "{{\"static_resources\":{{\"listeners\":[{{\"listener_filters\":[{{\"filter_disabled\":{predicate}{{}}{}}}]}}]}}}}",
        "}".repeat(110)
    );
    match parse(&text) {
        Err(Error::Syntax(_)) => {}
        Ok(value) => assert!(from_value::<Bootstrap>(value).is_err()),
        Err(e) => panic!("{e}"),
    }
}

#[test]
fn scalars_in_their_json_forms() {
    let text = r#"{"name": "a", "connectTimeout": "0.25s", "per_connection_buffer_limit_bytes": "32768",
        "type": 3, "lb_policy": "RANDOM", "health_checks": null, "outlier_detection": {"interval": "1s"}}"#;
    let cluster: Cluster = from_value(parse(text).unwrap()).unwrap();
    assert_eq!(cluster.connect_timeout.unwrap().nanos, 250_000_000);
    assert_eq!(cluster.per_connection_buffer_limit_bytes.unwrap().value, 32768);
    assert_eq!(cluster.lb_policy, 3);
}

#[test]
fn a_wrong_duration_is_named_with_its_place() {
    for wrong in ["soon", "1", "1m", "s", "1.5.5s", "1e3s", "--1s", "0.1234567890s"] {
        let text = format!("{{name: a, connect_timeout: \"{wrong}\"}}");
        let error = from_value::<Cluster>(parse(&text).unwrap()).unwrap_err().to_string();
        assert!(error.starts_with("connect_timeout: must be a duration") && error.contains(wrong), "{error}");
    }
    for right in ["0s", "1.5s", "-2s", "315576000000s"] {
        let text = format!("{{name: a, connect_timeout: {right}}}");
        assert!(from_value::<Cluster>(parse(&text).unwrap()).is_ok(), "{right}");
    }
}

use std::time::Duration;

use super::*;
use crate::ir::listener::{Direction, PortPredicate, SourceType, Terminal, Transport};

fn filter(kind: &str, fields: &str) -> String {
    format!("{{name: x, typed_config: {{\"@type\": {T}/{kind}, {fields}}}}}")
}

fn chains(list: &str) -> String {
    format!(
        "{{\"@type\": {T}/{LISTENER}, name: l, address: {{socket_address: {{address: '::', port_value: 0}}}}, \
         filter_chains: [{list}]}}"
    )
}

fn matching(criteria: &str) -> String {
    format!("{{filter_chain_match: {{{criteria}}}, filters: [{}]}}", tcp("cluster: c"))
}

#[test]
fn defaults_are_envoys() {
    let l = the_listener(&listener_of(&tcp("cluster: c"), ""));
    assert_eq!((&*l.name, l.addresses[0].to_string().as_str()), ("l", "10.0.0.1:80"));
    assert_eq!(&*l.stat_prefix, "10.0.0.1_80");
    assert!(l.bind_to_port && !l.use_original_dst && !l.transparent && !l.freebind);
    assert_eq!(l.inspection_timeout, Some(Duration::from_secs(15)));
    assert_eq!((l.buffer_limit, l.direction), (1 << 20, Direction::Unspecified));
    assert!(l.inspectors.tls.is_none() && l.inspectors.http.is_none() && !l.inspectors.original_dst);
    let Terminal::Tcp(tcp) = &l.chains[0].terminal else { panic!("{l:?}") };
    assert_eq!((tcp.idle_timeout, tcp.max_connect_attempts), (Some(Duration::from_secs(3600)), 1));
    assert_eq!((&*tcp.targets[0].cluster, tcp.targets[0].weight), ("c", 1));
    assert_eq!(tcp.max_connection_duration, None);
}

#[test]
fn fields_arrive() {
    let fields = "listener_filters_timeout: 0s, continue_on_listener_filters_timeout: true, use_original_dst: true, \
                  bind_to_port: false, traffic_direction: INBOUND, transparent: true, freebind: true, stat_prefix: p, \
                  per_connection_buffer_limit_bytes: 4096, tcp_backlog_size: 7, tcp_keepalive: {keepalive_time: 9}, \
                  additional_addresses: [{address: {socket_address: {address: '::', port_value: 1, ipv4_compat: true}}}],";
    let l = the_listener(&listener_of(&tcp("cluster: c, idle_timeout: 0s, max_connect_attempts: 3"), fields));
    assert_eq!(l.inspection_timeout, None);
    assert!(l.continue_on_inspection_timeout && l.use_original_dst && !l.bind_to_port && l.transparent && l.freebind);
    // The hand-off needs the original destination: Envoy adds the filter as well.
    assert!(l.inspectors.original_dst);
    assert_eq!((l.direction, &*l.stat_prefix, l.buffer_limit, l.backlog), (Direction::Inbound, "p", 4096, 7));
    assert_eq!(l.keepalive.unwrap().time, Some(Duration::from_secs(9)));
    let addresses: Vec<_> = l.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.0.0.1:80", "[::]:1", "0.0.0.0:1"]);
    let Terminal::Tcp(tcp) = &l.chains[0].terminal else { panic!("{l:?}") };
    assert_eq!((tcp.idle_timeout, tcp.max_connect_attempts), (None, 3));
}

#[test]
fn inspectors_and_their_predicates() {
    let kind = "envoy.extensions.filters.listener";
    let yaml = listener_of(
        &tcp("cluster: c"),
        &format!(
            "listener_filters: [{}, {}, {}],",
            filter(&format!("{kind}.original_dst.v3.OriginalDst"), ""),
            format_args!(
                "{{name: t, filter_disabled: {{or_match: {{rules: [{{destination_port_range: {{start: 80, end: 81}}}}, \
                 {{not_match: {{any_match: true}}}}]}}}}, typed_config: {{\"@type\": {T}/{kind}.tls_inspector.v3.TlsInspector}}}}"
            ),
            filter(&format!("{kind}.http_inspector.v3.HttpInspector"), ""),
        ),
    );
    let l = the_listener(&yaml);
    assert!(l.inspectors.original_dst);
    let tls = l.inspectors.tls.clone().unwrap();
    assert!(!tls.enabled_for(80) && tls.enabled_for(81));
    assert_eq!(
        tls.disabled,
        Some(PortPredicate::Or(vec![
            PortPredicate::DestinationPort { start: 80, end: 81 },
            PortPredicate::Not(Box::new(PortPredicate::Any)),
        ]))
    );
    assert!(l.inspectors.http.clone().unwrap().enabled_for(1));
}

#[test]
fn a_chain_that_matches_tls_brings_the_inspector() {
    for (criteria, wanted) in [
        ("transport_protocol: tls", true),
        ("server_names: [a.b]", true),
        ("application_protocols: [h2]", true),
        ("transport_protocol: raw_buffer, application_protocols: [h2c]", false),
        ("destination_port: 1", false),
    ] {
        assert_eq!(the_listener(&chains(&matching(criteria))).inspectors.tls.is_some(), wanted, "{criteria}");
    }
}

#[test]
fn chain_matches_arrive() {
    let criteria = "destination_port: 80, prefix_ranges: [{address_prefix: 10.1.2.3, prefix_len: 8}], \
                    server_names: [A.example, '*.B.example'], transport_protocol: tls, application_protocols: [istio], \
                    source_type: EXTERNAL, source_prefix_ranges: [{address_prefix: '::1', prefix_len: 128}], source_ports: [5]";
    let l = the_listener(&chains(&matching(criteria)));
    let m = &l.chains[0].matches;
    assert_eq!(m.destination_port, Some(80));
    assert_eq!(m.destination_ranges[0].address.to_string(), "10.0.0.0");
    assert_eq!(m.server_names, [Box::from("a.example"), Box::from("*.b.example")]);
    assert_eq!((m.transport, m.source_type), (Some(Transport::Tls), SourceType::External));
    assert_eq!((m.application_protocols[0].as_ref(), m.source_ports.as_slice()), ("istio", &[5][..]));
}

#[test]
fn overlapping_chains_are_refused() {
    let overlap = |a: &str, b: &str| decode(&chains(&format!("{}, {}", matching(a), matching(b)))).err();
    for (a, b) in [
        ("", ""),
        ("destination_port: 1", "destination_port: 1"),
        ("server_names: [a.b, c.d]", "server_names: [c.d]"),
        (
            "prefix_ranges: [{address_prefix: 10.0.0.1, prefix_len: 8}]",
            "prefix_ranges: [{address_prefix: 10.9.9.9, prefix_len: 8}]",
        ),
        ("application_protocols: [h2, http/1.1]", "application_protocols: [http/1.1]"),
    ] {
        let reject = overlap(a, b).unwrap_or_else(|| panic!("{a} / {b}"));
        assert_eq!(reject.path, "filter_chains[1].filter_chain_match");
        assert!(reject.reason.contains("overlap"), "{reject}");
    }
    for (a, b) in [
        ("", "destination_port: 1"),
        ("transport_protocol: tls", "transport_protocol: raw_buffer"),
        ("server_names: [a.b]", "server_names: ['*.b']"),
        ("application_protocols: [h2]", "server_names: [a.b]"),
        (
            "prefix_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]",
            "prefix_ranges: [{address_prefix: 10.0.0.0, prefix_len: 16}]",
        ),
        ("source_type: EXTERNAL", "source_type: SAME_IP_OR_LOOPBACK"),
    ] {
        assert_eq!(overlap(a, b), None, "{a} / {b}");
    }
}

#[test]
fn refusals() {
    let l = |fields: &str| listener_of(&tcp("cluster: c"), fields);
    let m = |criteria: &str| chains(&matching(criteria));
    let bare = |fields: &str| format!("{{\"@type\": {T}/{LISTENER}, {fields}}}");
    let address = "address: {socket_address: {address: 10.0.0.1, port_value: 80}}";
    refused(&[
        (bare("name: l"), "address", "is required"),
        (bare(&format!("name: l, {address}")), "filter_chains", "no filter chains"),
        (
            bare("name: l, address: {socket_address: {address: x, port_value: 80}}"),
            "address.socket_address.address",
            "malformed IP",
        ),
        (
            bare("name: l, address: {socket_address: {address: 1.1.1.1, port_value: 65536}}"),
            "address.socket_address.port_value",
            "not a port",
        ),
        (
            bare("name: l, address: {socket_address: {address: 1.1.1.1, named_port: x}}"),
            "address.socket_address.named_port",
            "not supported",
        ),
        (
            bare("name: l, address: {socket_address: {protocol: UDP, address: 1.1.1.1, port_value: 1}}"),
            "address.socket_address.protocol",
            "UDP",
        ),
        (bare("name: l, address: {pipe: {path: /x}}"), "address.pipe", "Unix sockets"),
        (l("listener_filters_timeout: -1s,"), "listener_filters_timeout", "must not be negative"),
        (l("api_listener: {api_listener: {\"@type\": a/b}},"), "api_listener", "not supported"),
        (l("internal_listener: {},"), "listener_specifier", "not supported"),
        (l("filter_chain_matcher: {on_no_match: {}},"), "filter_chain_matcher", "not supported"),
        (l("listener_filters: [{name: x}],"), "listener_filters[0].typed_config", "is required"),
        (
            l(&format!(
                "listener_filters: [{}],",
                filter("envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol", "")
            )),
            "listener_filters[0].typed_config",
            "ProxyProtocol is not supported",
        ),
        (m("transport_protocol: quic"), "filter_chains[0].filter_chain_match.transport_protocol", "not known"),
        (m("server_names: ['*x.a']"), "filter_chains[0].filter_chain_match.server_names[0]", "partial wildcards"),
        (m("destination_port: 70000"), "filter_chains[0].filter_chain_match.destination_port", "not a port"),
        (m("source_ports: [0]"), "filter_chains[0].filter_chain_match.source_ports[0]", "must not be 0"),
        (
            m("prefix_ranges: [{address_prefix: 1.1.1.1, prefix_len: 33}]"),
            "filter_chains[0].filter_chain_match.prefix_ranges[0].prefix_len",
            "longer",
        ),
        (m("address_suffix: x"), "filter_chains[0].filter_chain_match.address_suffix", "not supported"),
        (chains("{filters: []}"), "filter_chains[0].filters", "terminal filter"),
        (
            chains(&format!("{{use_proxy_proto: true, filters: [{}]}}", tcp("cluster: c"))),
            "filter_chains[0].use_proxy_proto",
            "PROXY",
        ),
        (listener_of(&format!("{0}, {0}", tcp("cluster: c")), ""), "filter_chains[0].filters[1]", "must be the last"),
        (listener_of(&tcp(""), ""), "filter_chains[0].filters[0].typed_config.cluster_specifier", "is required"),
        (
            listener_of(&tcp("cluster: c, tunneling_config: {hostname: h}"), ""),
            "filter_chains[0].filters[0].typed_config.tunneling_config",
            "not supported",
        ),
        (
            listener_of(&tcp("weighted_clusters: {clusters: [{name: a, weight: 0}]}"), ""),
            "filter_chains[0].filters[0].typed_config.weighted_clusters.clusters[0].weight",
            "at least 1",
        ),
        (
            listener_of(
                &tcp("weighted_clusters: {clusters: [{name: a, weight: 4294967295}, {name: b, weight: 1}]}"),
                "",
            ),
            "filter_chains[0].filters[0].typed_config.weighted_clusters.clusters",
            "too large",
        ),
        (
            listener_of(&tcp("cluster: c, max_connect_attempts: 0"), ""),
            "filter_chains[0].filters[0].typed_config.max_connect_attempts",
            "between",
        ),
    ]);
}

#[test]
fn security_filters_are_never_skipped() {
    for kind in [
        "envoy.extensions.filters.network.ext_authz.v3.ExtAuthz",
        "envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit",
        "envoy.extensions.filters.network.wasm.v3.Wasm",
        "some.filter.nobody.Knows",
    ] {
        let yaml = listener_of(&format!("{}, {}", filter(kind, ""), tcp("cluster: c")), "");
        let reject = decode(&yaml).unwrap_err();
        assert_eq!(reject.path, "filter_chains[0].filters[0].typed_config");
        assert!(reject.reason.contains(kind), "{reject}");
        assert_eq!((&*reject.resource, &*reject.kind), ("l", LISTENER));
    }
}

#[test]
fn notes() {
    let l = |fields: &str| listener_of(&tcp("cluster: c"), fields);
    noted(&[
        (l("connection_balance_config: {exact_balance: {}},"), "connection_balance_config", NoteKind::Harmless),
        (l("socket_options: [{level: 1}],"), "socket_options", NoteKind::Unsupported),
        (l("deprecated_v1: {bind_to_port: false},"), "deprecated_v1", NoteKind::Deprecated),
        (
            listener_of(&format!("{}, {}", filter("stats.PluginConfig", "a: b"), tcp("cluster: c")), ""),
            "filter_chains[0].filters[0].typed_config.a",
            NoteKind::Unsupported,
        ),
        (
            listener_of(
                &format!(
                    "{}, {}",
                    filter("envoy.extensions.filters.network.mongo_proxy.v3.MongoProxy", "stat_prefix: m"),
                    tcp("cluster: c")
                ),
                "",
            ),
            "filter_chains[0].filters[0].typed_config",
            NoteKind::Harmless,
        ),
    ]);
    assert!(accepted(&l("")).1.is_empty(), "a plain listener needs no notes");
}

#[test]
fn access_logs() {
    let log = |fields: &str| {
        let yaml = format!("access_log: [{{name: a, {fields}}}],");
        listener_of(&tcp("cluster: c"), &yaml)
    };
    let file = |fields: &str| {
        format!(
            "typed_config: {{\"@type\": {T}/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: /dev/stdout, {fields}}}"
        )
    };
    use crate::ir::format::{Comparison, JsonField, LogFilter, LogFormat, Sink, Template};
    let l = the_listener(&log(&file("")));
    assert_eq!(l.access_log[0].sink, Sink::Stdout);
    assert_eq!(l.access_log[0].format, LogFormat::Text(Template::default_access_log()));
    let l = the_listener(&log(&file("log_format: {json_format: {b: '%PROTOCOL%', a: {c: x}}}")));
    let LogFormat::Json(fields) = &l.access_log[0].format else { panic!("{l:?}") };
    assert_eq!((&*fields[0].0, &*fields[1].0), ("a", "b"));
    assert!(matches!(fields[0].1, JsonField::Object(_)));
    let filter = "filter: {and_filter: {filters: [{status_code_filter: {comparison: {op: GE, value: {default_value: 500}}}}, \
                  {response_flag_filter: {flags: [NR]}}, {extension_filter: {name: cel}}]}}, ";
    let (Resource::Listener(l), notes) = accepted(&log(&format!("{filter}{}", file("")))) else { panic!() };
    assert_eq!(
        l.access_log[0].filter,
        Some(LogFilter::And(vec![
            LogFilter::StatusCode(Comparison::Ge, 500),
            LogFilter::ResponseFlags(vec!["NR".into()]),
        ]))
    );
    assert!(notes.contains("access_log[0].filter.and_filter.filters[2].extension_filter", NoteKind::Unsupported));
    refused(&[
        (
            log(&file("log_format: {text_format: '%NOPE%'}")),
            "access_log[0].typed_config.log_format.text_format",
            "unknown operator `NOPE`",
        ),
        (
            log(&file("log_format: {json_format: {a: {b: '%X'}}}")),
            "access_log[0].typed_config.log_format.json_format.a.b",
            "incorrect operator",
        ),
        (log(""), "access_log[0].typed_config", "is required"),
        (log(&format!("typed_config: {{\"@type\": {T}/my.Logger}}")), "access_log[0].typed_config", "my.Logger"),
    ]);
    noted(&[(
        log(&format!(
            "typed_config: {{\"@type\": {T}/envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig}}"
        )),
        "access_log[0].typed_config",
        NoteKind::Harmless,
    )]);
}

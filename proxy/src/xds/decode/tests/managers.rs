use std::time::Duration;

use super::*;
use crate::ir::{
    ConfigSource,
    http::{
        Codec, ConnectionManager, EscapedSlashes, FilterKind, ForwardClientCert, RouteSource, ServerHeader, StripPort,
        Underscores,
    },
    listener::{IstioStats, Terminal},
};

fn manager(yaml: &str) -> Arc<ConnectionManager> {
    match &the_listener(yaml).chains[0].terminal {
        Terminal::Http(m) => Arc::clone(m),
        other => panic!("{other:?}"),
    }
}

fn filter(kind: &str, fields: &str) -> String {
    format!("{{name: x, typed_config: {{\"@type\": {T}/{kind}, {fields}}}}},")
}

fn at(rest: &str) -> String {
    format!("{HCM}.{rest}")
}

#[test]
fn defaults_are_envoys() {
    let m = manager(&hcm("", ""));
    assert_eq!(
        (m.codec, m.server_name.to_str().unwrap(), m.server_header),
        (Codec::Auto, "envoy", ServerHeader::Overwrite)
    );
    assert_eq!(m.idle_timeout, Some(Duration::from_secs(3600)));
    assert_eq!(m.stream_idle_timeout, Some(Duration::from_secs(300)));
    assert_eq!((m.request_timeout, m.request_headers_timeout, m.max_stream_duration), (None, None, None));
    assert_eq!(m.drain_timeout, Duration::from_secs(5));
    assert_eq!((m.max_header_bytes, m.max_header_count), (60 * 1024, 100));
    assert!(m.generate_request_id && !m.normalize_path && !m.use_remote_address && m.http1.preserve_case);
    assert_eq!(m.client_cert, ForwardClientCert::Sanitize);
    assert!(matches!(m.routes, RouteSource::Inline(_)));
    assert!(matches!(m.filters.as_slice(), [f] if matches!(f.kind, FilterKind::Router(_))));
}

#[test]
fn zero_disables() {
    let m = manager(&hcm(
        "",
        "stream_idle_timeout: 0s, common_http_protocol_options: {idle_timeout: 0s, max_stream_duration: 0s},",
    ));
    assert_eq!((m.stream_idle_timeout, m.idle_timeout, m.max_stream_duration), (None, None, None));
}

#[test]
fn fields_arrive() {
    let m = manager(&hcm(
        "",
        "codec_type: HTTP2, server_name: me, server_header_transformation: PASS_THROUGH, via: v, use_remote_address: true, \
         xff_num_trusted_hops: 2, skip_xff_append: true, internal_address_config: {cidr_ranges: [{address_prefix: 10.0.0.0, \
         prefix_len: 8}]}, generate_request_id: false, preserve_external_request_id: true, \
         always_set_request_id_in_response: true, forward_client_cert_details: APPEND_FORWARD, proxy_100_continue: true, \
         set_current_client_cert_details: {subject: true, dns: true, uri: true}, normalize_path: true, merge_slashes: true, \
         path_with_escaped_slashes_action: UNESCAPE_AND_REDIRECT, strip_any_host_port: true, max_request_headers_kb: 1, \
         upgrade_configs: [{upgrade_type: WebSocket}, {upgrade_type: CONNECT, enabled: false}], request_timeout: 1s, \
         append_x_forwarded_port: true, common_http_protocol_options: {max_headers_count: 5, max_requests_per_connection: 6, \
         headers_with_underscores_action: DROP_HEADER}, http2_protocol_options: {max_concurrent_streams: 9, \
         initial_stream_window_size: 65535, connection_keepalive: {interval: 1s, timeout: 2s}},",
    ));
    assert_eq!(
        (m.codec, m.server_name.to_str().unwrap(), m.server_header, &*m.via),
        (Codec::Http2, "me", ServerHeader::PassThrough, "v")
    );
    assert!(m.use_remote_address && m.skip_xff_append && !m.generate_request_id && m.preserve_external_request_id);
    assert!(m.request_id_in_response && m.proxy_100_continue && m.normalize_path && m.merge_slashes);
    assert_eq!((m.xff_trusted_hops, m.client_cert), (2, ForwardClientCert::AppendForward));
    let d = m.client_cert_details;
    assert!(d.subject && d.dns && d.uri && !d.cert && !d.chain);
    assert!(matches!(m.internal_networks[..], [net] if net.contains([10, 1, 2, 3].into())));
    assert_eq!((m.escaped_slashes, m.strip_port), (EscapedSlashes::UnescapeAndRedirect, StripPort::Any));
    assert_eq!((m.max_header_bytes, m.max_header_count, m.underscores), (1024, 5, Underscores::DropHeader));
    assert_eq!(m.upgrades, [(Box::from("websocket"), true), (Box::from("connect"), false)]);
    assert_eq!((m.request_timeout, m.max_requests_per_connection), (Some(Duration::from_secs(1)), Some(6)));
    assert_eq!((m.http2.max_concurrent_streams, m.http2.stream_window), (9, 65535));
    assert_eq!(m.http2.keepalive_interval, Some(Duration::from_secs(1)));
}

#[test]
fn rds_sources() {
    let kind = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    let rds = |source: &str| {
        let filter = format!(
            "{{name: h, typed_config: {{\"@type\": {T}/{kind}, stat_prefix: s, http_filters: [{ROUTER}], \
             rds: {{route_config_name: r, config_source: {{{source}}}}}}}}}"
        );
        listener_of(&filter, "")
    };
    let grpc = "grpc_services: [{envoy_grpc: {cluster_name: x}}]";
    for (source, expected) in [
        ("ads: {}, initial_fetch_timeout: 0s, resource_api_version: V3", ConfigSource::Ads),
        ("self: {}", ConfigSource::SelfSource),
        (
            "path_config_source: {path: /a, watched_directory: {path: /b}}",
            ConfigSource::Path { path: "/a".into(), watched_directory: Some("/b".into()) },
        ),
        (
            &format!("api_config_source: {{api_type: DELTA_GRPC, transport_api_version: V3, {grpc}}}"),
            ConfigSource::Grpc { cluster: "x".into(), delta: true },
        ),
        (
            &format!("api_config_source: {{api_type: GRPC, transport_api_version: V3, {grpc}}}"),
            ConfigSource::Grpc { cluster: "x".into(), delta: false },
        ),
    ] {
        assert_eq!(manager(&rds(source)).routes, RouteSource::Rds { name: "r".into(), source: expected }, "{source}");
    }
    let path = |rest: &str| at(&format!("rds.config_source.{rest}"));
    refused(&[
        (rds(""), &path("config_source_specifier"), "is required"),
        (rds(&format!("api_config_source: {{api_type: REST, {grpc}}}")), &path("api_config_source.api_type"), "REST"),
        (rds("api_config_source: {api_type: GRPC}"), &path("api_config_source.grpc_services"), "exactly one"),
        (
            rds("api_config_source: {api_type: GRPC, grpc_services: [{google_grpc: {target_uri: x, stat_prefix: z}}]}"),
            &path("api_config_source.grpc_services[0].google_grpc"),
            "envoy_grpc",
        ),
        (rds("ads: {}, resource_api_version: V2"), &path("resource_api_version"), "V2"),
    ]);
}

#[test]
fn the_alpn_filter_as_message_and_as_typed_struct() {
    let kind = "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig";
    // The type is not in the descriptor pool, so YAML yields a TypedStruct; the bytes are what istiod sends.
    let list = "alpn_override: [{upstream_protocol: HTTP10, alpn_override: [istio-http/1.0, istio, istio-peer-exchange]}, \
                {upstream_protocol: HTTP2, alpn_override: [istio-h2, istio]}]";
    let wrapped = format!("\"@type\": {T}/udpa.type.v1.TypedStruct, type_url: {T}/{kind}, value: {{{list}}}");
    for yaml in [filter(kind, list), format!("{{name: z, typed_config: {{{wrapped}}}}},")] {
        let m = manager(&hcm(&yaml, ""));
        let FilterKind::Alpn(alpn) = &m.filters[0].kind else { panic!("{m:?}") };
        let list = |l: &[Box<str>]| l.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(list(&alpn.http10), ["istio-http/1.0", "istio"], "the peer exchange is stripped");
        assert!(alpn.http11.is_empty());
        assert_eq!(list(&alpn.http2), ["istio-h2", "istio"]);
    }
    let entry = [0x08, 0x01, 0x12, 0x02, b'h', b'2'];
    let mut bytes = vec![0x0a, 6];
    bytes.extend(entry);
    let extension = Any { type_url: format!("{T}/{kind}"), value: bytes };
    let decoded = at::rooted("t", "", &mut Notes::default(), |at| {
        use outrigger_wire::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
            HttpFilter, http_filter::ConfigType,
        };
        let router = outrigger_wire::pack_any(
            outrigger_wire::pb::envoy::extensions::filters::http::router::v3::Router::default(),
        );
        let filter = |any| HttpFilter { config_type: Some(ConfigType::TypedConfig(any)), ..HttpFilter::default() };
        http_filter::filters(&[filter(extension), filter(router)], at)
    })
    .unwrap();
    let FilterKind::Alpn(alpn) = &decoded[0].kind else { panic!("{decoded:?}") };
    assert_eq!(&*alpn.http11, [Box::from("h2")]);
    refused(&[
        (hcm(&filter(kind, "alpn_overrides: []"), ""), &at("http_filters[0].typed_config.value"), "unknown field"),
        (
            hcm(&filter(kind, "alpn_override: [{upstream_protocol: HTTP3}]"), ""),
            &at("http_filters[0].typed_config.value"),
            "HTTP3",
        ),
    ]);
}

#[test]
fn filters_that_always_come_are_harmless_when_empty() {
    for (kind, fields) in [
        ("envoy.extensions.filters.http.grpc_stats.v3.FilterConfig", "emit_filter_state: true"),
        ("io.istio.http.peer_metadata.Config", "downstream_discovery: [{istio_headers: {}}]"),
    ] {
        let yaml = hcm(&filter(kind, fields), "");
        assert_eq!(manager(&yaml).filters.len(), 1, "{kind}");
        noted(&[(yaml, &at("http_filters[0].typed_config"), NoteKind::Harmless)]);
    }
}

#[test]
fn istios_metrics_are_asked_for_by_a_filter() {
    let of = |fields: &str| manager(&hcm(&filter("stats.PluginConfig", fields), "")).istio_stats;
    let stats = |host_fallback, seconds| Some(IstioStats { host_fallback, tcp_interval: Duration::from_secs(seconds) });
    assert_eq!(of("metrics: []"), stats(true, 15));
    assert_eq!(of("disable_host_header_fallback: true, tcp_reporting_duration: 5s"), stats(false, 5));
    assert_eq!(of("tcpReportingDuration: 0s"), stats(true, 1), "bounded");
    assert_eq!(manager(&hcm("", "")).istio_stats, None);
    let place = |name: &str| at(&format!("http_filters[0].typed_config.{name}"));
    for (fields, name) in [
        ("metrics: [{drop: true}]", "metrics"),
        ("definitions: [{name: x}]", "definitions"),
        ("reporter: SERVER_GATEWAY", "reporter"),
        ("later: 1", "later"),
    ] {
        noted(&[(hcm(&filter("stats.PluginConfig", fields), ""), &place(name), NoteKind::Unsupported)]);
    }
    let wrong = hcm(&filter("stats.PluginConfig", "disable_host_header_fallback: 3"), "");
    refused(&[(wrong, &at("http_filters[0].typed_config.value"), "neither true nor false")]);
}

#[test]
fn security_filters_are_never_skipped() {
    let http = "envoy.extensions.filters.http";
    for kind in [
        "bandwidth_limit.v3.BandwidthLimit",
        "rate_limit_quota.v3.RateLimitQuotaFilterConfig",
        "lua.v3.Lua",
        "wasm.v3.Wasm",
        "health_check.v3.HealthCheck",
        "unheard.v3.Of",
    ] {
        let yaml = hcm(&filter(&format!("{http}.{kind}"), ""), "");
        let reject = decode(&yaml).unwrap_err();
        assert_eq!(reject.path, at("http_filters[0].typed_config"));
        assert!(reject.reason.contains(kind), "{reject}");
        // `is_optional` says that Envoy may skip what it does not know: skipping authorization is not for us to do.
        let optional = yaml.replacen("{name: x,", "{name: x, is_optional: true,", 1);
        assert_eq!(decode(&optional).unwrap_err(), reject);
    }
}

#[test]
fn refusals() {
    let discovery = "{name: x, config_discovery: {config_source: {ads: {}}}},";
    refused(&[
        (hcm(discovery, ""), &at("http_filters[0].config_discovery"), "not supported"),
        (hcm(&format!("{ROUTER},"), ""), &at("http_filters[1]"), "must be the last"),
        (hcm("", "codec_type: HTTP3,"), &at("codec_type"), "HTTP/3"),
        (hcm("", "local_reply_config: {mappers: [{}]},"), &at("local_reply_config.mappers[0].filter"), "is required"),
        (
            hcm("", "local_reply_config: {mappers: [{filter: {metadata_filter: {}}}]},"),
            &at("local_reply_config.mappers[0].filter"),
            "cannot be evaluated",
        ),
        (
            hcm(
                "",
                "local_reply_config: {mappers: [{filter: {and_filter: {filters: [{not_health_check_filter: {}}, \
                 {log_type_filter: {}}]}}}]},",
            ),
            &at("local_reply_config.mappers[0].filter"),
            "cannot be evaluated",
        ),
        (
            hcm("", "local_reply_config: {mappers: [{filter: {not_health_check_filter: {}}, status_code: 600}]},"),
            &at("local_reply_config.mappers[0].status_code"),
            "between",
        ),
        (hcm("", "max_request_headers_kb: 9000,"), &at("max_request_headers_kb"), "between"),
        (
            hcm("", "strip_any_host_port: true, strip_matching_host_port: true,"),
            &at("strip_matching_host_port"),
            "excludes",
        ),
        (
            hcm("", "original_ip_detection_extensions: [{name: x}],"),
            &at("original_ip_detection_extensions"),
            "not supported",
        ),
        (
            hcm("", "upgrade_configs: [{upgrade_type: a, filters: [{name: b}]}],"),
            &at("upgrade_configs[0].filters"),
            "not supported",
        ),
        (
            hcm("", "set_current_client_cert_details: {format: JSON},"),
            &at("set_current_client_cert_details.format"),
            "text form",
        ),
        (
            hcm("", "http2_protocol_options: {initial_stream_window_size: 1},"),
            &at("http2_protocol_options.initial_stream_window_size"),
            "between",
        ),
        (
            hcm("", "http2_protocol_options: {connection_keepalive: {interval: 1s}},"),
            &at("http2_protocol_options.connection_keepalive.timeout"),
            "required",
        ),
        (hcm("", "server_name: \"a\\nb\","), &at("server_name"), "not a header value"),
        (
            hcm("", "request_id_extension: {typed_config: {\"@type\": a/my.Ids}},"),
            &at("request_id_extension.typed_config"),
            "my.Ids",
        ),
        (hcm("", "stream_idle_timeout: -5s,"), &at("stream_idle_timeout"), "negative"),
    ]);
}

#[test]
fn notes() {
    let h = |fields: &str| hcm("", fields);
    noted(&[
        (
            h("http_protocol_options: {allow_chunked_length: true},"),
            &at("http_protocol_options.allow_chunked_length"),
            NoteKind::Unsupported,
        ),
        (
            h(
                "http_protocol_options: {header_key_format: {stateful_formatter: {name: p, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig}}}},",
            ),
            &at("http_protocol_options.header_key_format.stateful_formatter.typed_config"),
            NoteKind::Harmless,
        ),
    ]);
}

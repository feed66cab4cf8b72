use std::time::Duration;

use super::*;
use crate::ir::{
    ConfigSource,
    balancing::LeastRequest,
    cluster::{Discovery, LbPolicy, LookupFamily, UpstreamProtocol},
    endpoint::{Address, Health},
};

fn endpoint(address: &str) -> String {
    format!("{{endpoint: {{address: {{socket_address: {{address: {address}, port_value: 80}}}}}}}}")
}

fn load(endpoints: &str) -> String {
    format!("load_assignment: {{cluster_name: c, endpoints: [{{lb_endpoints: [{endpoints}]}}]}}")
}

fn http(fields: &str) -> String {
    cluster_of(&format!(
        "typed_extension_protocol_options: {{any-key: {{\"@type\": {T}/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, {fields}}}}}"
    ))
}

#[test]
fn defaults_are_envoys() {
    let c = the_cluster(&cluster_of(""));
    assert_eq!((&*c.name, &*c.stat_name, c.connect_timeout), ("c", "c", Duration::from_secs(5)));
    assert_eq!((c.lb, c.panic_threshold, c.locality_weighted), (LbPolicy::RoundRobin, 50, false));
    assert!(matches!(&c.discovery, Discovery::Static(a) if a.localities.is_empty()), "no type is STATIC");
    assert_eq!(c.http.protocol, UpstreamProtocol::Http1);
    assert_eq!((c.breaker.max_connections, c.breaker.max_retries), (1024, 3));
    assert!(c.tls.is_none() && c.bind.is_none() && c.keepalive.is_none());
}

#[test]
fn discovery_types() {
    let d = |fields: &str| the_cluster(&cluster_of(fields)).discovery.clone();
    let Discovery::Eds { service_name, source } = d("type: EDS, eds_cluster_config: {eds_config: {ads: {}}}") else {
        panic!()
    };
    assert_eq!((&*service_name, source), ("c", ConfigSource::Ads));
    let Discovery::Eds { service_name, .. } =
        d("type: EDS, eds_cluster_config: {service_name: s, eds_config: {ads: {}}}")
    else {
        panic!()
    };
    assert_eq!(&*service_name, "s");
    let dns =
        format!("type: STRICT_DNS, dns_lookup_family: V4_ONLY, respect_dns_ttl: true, {}", load(&endpoint("a.b")));
    let Discovery::StrictDns(a, o) = d(&dns) else { panic!() };
    assert_eq!(a.localities[0].endpoints[0].address, Address::Host { host: "a.b".into(), port: 80 });
    assert_eq!((o.family, o.refresh_rate, o.respect_ttl), (LookupFamily::V4Only, Duration::from_secs(5), true));
    let new = format!(
        "cluster_type: {{name: x, typed_config: {{\"@type\": {T}/envoy.extensions.clusters.dns.v3.DnsCluster, dns_lookup_family: ALL, \
         dns_refresh_rate: 7s, all_addresses_in_single_endpoint: true}}}}, {}",
        load(&endpoint("a.b"))
    );
    let Discovery::LogicalDns(_, o) = d(&new) else { panic!() };
    assert_eq!((o.family, o.refresh_rate), (LookupFamily::All, Duration::from_secs(7)));
    let original =
        "type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED, original_dst_lb_config: {upstream_port_override: 81}";
    assert_eq!(d(original), Discovery::OriginalDst { port_override: Some(81) });
}

#[test]
fn balancing() {
    let lb = |fields: &str| {
        let c = the_cluster(&cluster_of(fields));
        (c.lb, c.locality_weighted, c.panic_threshold)
    };
    let common = "common_lb_config: {healthy_panic_threshold: {value: 0}, locality_weighted_lb_config: {}}";
    assert_eq!(
        lb(&format!("lb_policy: LEAST_REQUEST, {common}")),
        (LbPolicy::LeastRequest(LeastRequest::default()), true, 0)
    );
    assert_eq!(
        lb("lb_policy: LEAST_REQUEST, least_request_lb_config: {choice_count: 5}").0,
        LbPolicy::LeastRequest(LeastRequest { choices: 5, ..LeastRequest::default() })
    );
    assert_eq!(lb("lb_policy: RANDOM").0, LbPolicy::Random);
    let kind = "envoy.extensions.load_balancing_policies";
    let list = |list: &str| format!("load_balancing_policy: {{policies: [{list}]}}");
    let policy = |name: &str, fields: &str| {
        format!("{{typed_extension_config: {{name: p, typed_config: {{\"@type\": {T}/{kind}.{name}, {fields}}}}}}}")
    };
    let random = policy("random.v3.Random", "");
    assert_eq!(lb(&list(&format!("{}, {random}", policy("not.Known", "")))).0, LbPolicy::Random, "the first known one");
    let wrr = policy("wrr_locality.v3.WrrLocality", &format!("endpoint_picking_policy: {{policies: [{random}]}}"));
    assert_eq!(lb(&list(&wrr)), (LbPolicy::Random, true, 50));
    refused(&[
        (cluster_of(&list(&policy("not.Known", ""))), "load_balancing_policy.policies", "not.Known"),
        (cluster_of("lb_policy: LOAD_BALANCING_POLICY_CONFIG"), "load_balancing_policy", "required"),
        (cluster_of("lb_policy: CLUSTER_PROVIDED"), "lb_policy", "ORIGINAL_DST"),
        (cluster_of("type: ORIGINAL_DST"), "lb_policy", "CLUSTER_PROVIDED"),
    ]);
}

#[test]
fn http_options() {
    let h = |yaml: &str| the_cluster(yaml).http.clone();
    let o = h(&http(
        "explicit_http_config: {http2_protocol_options: {max_concurrent_streams: 7}}, upstream_http_protocol_options: {auto_sni: true, auto_san_validation: true}, common_http_protocol_options: {idle_timeout: 0s, max_requests_per_connection: 3}",
    ));
    assert_eq!((o.protocol, o.http2.max_concurrent_streams), (UpstreamProtocol::Http2, 7));
    assert!(o.auto_sni && o.auto_san_validation);
    assert_eq!((o.idle_timeout, o.max_requests_per_connection), (None, Some(3)));
    assert_eq!(h(&http("use_downstream_protocol_config: {}")).protocol, UpstreamProtocol::UseDownstream);
    assert_eq!(h(&http("auto_config: {}")).protocol, UpstreamProtocol::Auto);
    let (Resource::Cluster(c), notes) =
        accepted(&cluster_of("http2_protocol_options: {}, max_requests_per_connection: 9"))
    else {
        panic!()
    };
    assert_eq!((c.http.protocol, c.http.max_requests_per_connection), (UpstreamProtocol::Http2, Some(9)));
    assert!(notes.contains("http2_protocol_options", NoteKind::Deprecated));
    assert_eq!(h(&cluster_of("protocol_selection: USE_DOWNSTREAM_PROTOCOL")).protocol, UpstreamProtocol::UseDownstream);
    let at = "typed_extension_protocol_options[\"any-key\"]";
    refused(&[
        (http(""), &format!("{at}.upstream_protocol_options"), "is required"),
        (
            http("explicit_http_config: {http3_protocol_options: {}}"),
            &format!("{at}.explicit_http_config.http3_protocol_options"),
            "HTTP/3",
        ),
        (
            http(&format!(
                "explicit_http_config: {{http_protocol_options: {{}}}}, http_filters: [{{name: l, typed_config: {{\"@type\": {T}/a.Lua}}}}]"
            )),
            &format!("{at}.http_filters[0].typed_config"),
            "a.Lua",
        ),
    ]);
}

#[test]
fn breakers_bind_keepalive_metadata() {
    let c = the_cluster(&cluster_of(
        "alt_stat_name: 'outbound|80||a:b', circuit_breakers: {thresholds: [{max_connections: 4294967295, max_retries: 7}, \
         {priority: HIGH, retry_budget: {budget_percent: {value: 25}, min_retry_concurrency: 9}}]}, \
         upstream_bind_config: {source_address: {address: 127.0.0.6, port_value: 0}, extra_source_addresses: [{address: {address: '::6', port_value: 0}}]}, \
         upstream_connection_options: {tcp_keepalive: {keepalive_probes: 3, keepalive_interval: 4}}, \
         metadata: {filter_metadata: {istio: {alpn_override: 'false', n: 5}}}",
    ));
    assert_eq!(&*c.stat_name, "outbound|80||a_b");
    assert_eq!((c.breaker.max_connections, c.breaker.max_retries, c.breaker.max_requests), (u32::MAX, 7, 1024));
    assert_eq!((c.breaker_high.retry_budget.permille, c.breaker_high.retry_budget.min_concurrency), (250, 9));
    assert_eq!(c.breaker_high.max_retries, u32::MAX, "a configured budget replaces the fixed limit");
    let bind = c.bind.clone().unwrap();
    assert_eq!(bind.source_for("10.0.0.1".parse().unwrap()).unwrap().to_string(), "127.0.0.6:0");
    assert_eq!(bind.source_for("fd00::1".parse().unwrap()).unwrap().to_string(), "[::6]:0");
    assert_eq!(c.keepalive.unwrap().probes, Some(3));
    assert_eq!(c.metadata.as_ref().unwrap()["istio"]["alpn_override"], "false");
    assert_eq!(c.metadata.as_ref().unwrap()["istio"]["n"], 5);
}

#[test]
fn assignments() {
    let eds = |endpoints: &str| format!("{{\"@type\": {T}/{ASSIGNMENT}, cluster_name: e, {endpoints}}}");
    let yaml = eds(
        "policy: {overprovisioning_factor: 150}, endpoints: [{locality: {region: r, zone: z}, priority: 1, load_balancing_weight: 5, lb_endpoints: [\
         {health_status: DRAINING, load_balancing_weight: 3, metadata: {filter_metadata: {envoy.transport_socket_match: {tlsMode: istio}}}, \
         endpoint: {hostname: h, address: {socket_address: {address: '::1', port_value: 80}}}}, \
         {endpoint: {address: {pipe: {path: '@abstract'}}}}, {endpoint: {address: {envoy_internal_address: {server_listener_name: x}}}}]}]",
    );
    let (Resource::Endpoints { name, assignment }, notes) = accepted(&yaml) else { panic!() };
    assert_eq!((&*name, assignment.overprovisioning), ("e", 150));
    let l = &assignment.localities[0];
    assert_eq!((&*l.region, l.priority, l.weight, l.endpoints.len()), ("r", 1, Some(5), 2));
    let e = &l.endpoints[0];
    assert_eq!((e.health, e.weight, &*e.hostname), (Health::Draining, 3, "h"));
    assert_eq!(e.metadata.as_ref().unwrap()["envoy.transport_socket_match"]["tlsMode"], "istio");
    assert!(matches!(&l.endpoints[1].address, Address::Pipe(p) if p.to_str() == Some("@abstract")));
    assert!(notes.iter().any(|n| n.reason.contains("left out")));
    let one = |e: &str| eds(&format!("endpoints: [{{lb_endpoints: [{e}]}}]"));
    let p = "endpoints[0].lb_endpoints[0]";
    refused(&[
        (one(&endpoint("host.name")), &format!("{p}.endpoint.address.socket_address.address"), "malformed IP"),
        (one("{}"), &format!("{p}.host_identifier"), "is required"),
        (one("{endpoint: {}}"), &format!("{p}.endpoint.address"), "is required"),
        (one("{endpoint_name: a}"), &format!("{p}.endpoint_name"), "not supported"),
        (one("{load_balancing_weight: 0, endpoint: {}}"), &format!("{p}.load_balancing_weight"), "between"),
        (eds("endpoints: [{priority: 129}]"), "endpoints[0].priority", "128"),
        (
            eds("endpoints: [{leds_cluster_locality_config: {}}]"),
            "endpoints[0].leds_cluster_locality_config",
            "not supported",
        ),
        (eds("endpoints: [{load_balancing_weight: 4294967295}, {load_balancing_weight: 1}]"), "endpoints", "exceeds"),
        (eds("policy: {overprovisioning_factor: 0}"), "policy.overprovisioning_factor", "between"),
    ]);
}

#[test]
fn refusals() {
    let c = |fields: &str| cluster_of(fields);
    refused(&[
        (format!("{{\"@type\": {T}/{CLUSTER}}}"), "name", "must not be empty"),
        (c("connect_timeout: 0s"), "connect_timeout", "greater than zero"),
        (c("type: EDS"), "eds_cluster_config", "is required"),
        (
            c(&format!("type: EDS, eds_cluster_config: {{eds_config: {{ads: {{}}}}}}, {}", load(&endpoint("1.1.1.1")))),
            "load_assignment",
            "come from EDS",
        ),
        (c("type: EDS, eds_cluster_config: {}"), "eds_cluster_config.eds_config", "is required"),
        (c("eds_cluster_config: {eds_config: {ads: {}}}"), "eds_cluster_config", "type EDS"),
        (c("type: LOGICAL_DNS"), "load_assignment", "single endpoint"),
        (
            c(&format!("type: STATIC, {}", load(&endpoint("a.b")))),
            "load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address",
            "malformed IP",
        ),
        (
            c(&format!("type: STRICT_DNS, {}", load(&endpoint("'a b'")))),
            "load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address",
            "not a host name",
        ),
        (
            c(&format!(
                "cluster_type: {{name: x, typed_config: {{\"@type\": {T}/envoy.extensions.clusters.aggregate.v3.ClusterConfig, clusters: [a]}}}}"
            )),
            "cluster_type.typed_config",
            "aggregate",
        ),
        (
            c("type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED, original_dst_lb_config: {use_http_header: true}"),
            "original_dst_lb_config.use_http_header",
            "not supported",
        ),
        (c("transport_socket_matches: [{name: a}]"), "transport_socket_matches[0].transport_socket", "is required"),
        (
            c(&format!(
                "filters: [{{name: f, typed_config: {{\"@type\": {T}/envoy.extensions.filters.network.rbac.v3.RBAC}}}}]"
            )),
            "filters[0].typed_config",
            "RBAC",
        ),
        (
            c("common_lb_config: {healthy_panic_threshold: {value: 101}}"),
            "common_lb_config.healthy_panic_threshold",
            "between",
        ),
        (
            c(
                "upstream_bind_config: {source_address: {address: 1.1.1.1, port_value: 0}, extra_source_addresses: [{address: {address: 1.1.1.2, port_value: 0}}]}",
            ),
            "upstream_bind_config.extra_source_addresses",
            "other address family",
        ),
        (
            c("upstream_connection_options: {tcp_keepalive: {keepalive_time: 40000}}"),
            "upstream_connection_options.tcp_keepalive.keepalive_time",
            "32767",
        ),
        (c("dns_refresh_rate: 0s, type: STRICT_DNS"), "dns_refresh_rate", "longer than"),
    ]);
}

#[test]
fn notes() {
    noted(&[(cluster_of("cleanup_interval: 9s"), "cleanup_interval", NoteKind::Harmless)]);
}

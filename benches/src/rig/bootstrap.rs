//! The bootstrap files: one generator, and the same file for every proxy that reads Envoy's format.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{
    APP_PORT, HOST, XDS_PORT,
    pki::{CLIENT_ID, SERVER_ID},
    plan::{App, Between, Extra, Features, Place, Plan, Sessions, Via},
};
use crate::account::Side;

/// The cluster that is used.
pub(crate) const PROBE: &str = "app";

const NETWORK: &str = "type.googleapis.com/envoy.extensions.filters.network";

/// Clusters have no bound that a bench would meet: Istio's value.
const NO_LIMIT: u32 = u32::MAX;

/// Endpoints of each unused service.
pub(super) const ENDPOINTS_PER_SERVICE: usize = 4;

pub(super) fn bootstrap(side: Side, plan: &Plan, place: &Place<'_>) -> Value {
    let dir = place.dir.display().to_string();
    let (listener, mut clusters) = match side {
        Side::Out => (outbound(plan, &dir), outbound_clusters(plan, place, &dir)),
        Side::In => {
            let own = std::iter::once(inbound_cluster(plan));
            (inbound(plan, &dir), own.chain(plan.extra.clusters.iter().cloned()).collect())
        }
    };
    let mut file = json!({
        "node": {"id": format!("bench-{}", side.as_str()), "cluster": "bench"},
        "admin": {"address": address("127.0.0.1", 15_000)},
        "static_resources": {"listeners": [listener]},
    });
    if side == Side::Out && plan.via == Via::Xds {
        file["dynamic_resources"] = json!({"ads_config": {
            "api_type": "DELTA_GRPC",
            "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
        }});
        clusters.push(cluster("xds", &[("127.0.0.1".into(), XDS_PORT)], protocol(App::Http2, Sessions::Pooled)));
    }
    clusters.extend(plan.extra.both.clusters.iter().cloned());
    file["static_resources"]["clusters"] = Value::Array(clusters);
    file
}

fn address(ip: &str, port: u16) -> Value {
    json!({"socket_address": {"address": ip, "port_value": port}})
}

fn listener(name: &str, direction: &str, port: u16, filters: &[&str], chain: Value) -> Value {
    let filters: Vec<Value> = filters
        .iter()
        .map(|kind| {
            let message = if *kind == "original_dst" { "OriginalDst" } else { "TlsInspector" };
            let url = format!("type.googleapis.com/envoy.extensions.filters.listener.{kind}.v3.{message}");
            json!({"name": format!("envoy.filters.listener.{kind}"), "typed_config": {"@type": url}})
        })
        .collect();
    json!({
        "name": name,
        "traffic_direction": direction,
        "address": address("0.0.0.0", port),
        "listener_filters": filters,
        "filter_chains": [chain],
    })
}

fn outbound(plan: &Plan, dir: &str) -> Value {
    let filter = if plan.is_http() {
        let mut hosts = vec![virtual_host(PROBE, &domains(HOST), &plan.extra)];
        hosts.extend((0..plan.services).map(|n| {
            let name = service_name(n);
            virtual_host(&name, &domains(&format!("{name}.default.svc.cluster.local")), &Extra::default())
        }));
        http(plan, dir, Side::Out, json!({"name": "outbound", "virtual_hosts": hosts}))
    } else {
        tcp(PROBE)
    };
    listener("virtualOutbound", "OUTBOUND", 15_001, &["original_dst"], json!({"filters": [filter]}))
}

fn inbound(plan: &Plan, dir: &str) -> Value {
    let filter = if plan.is_http() {
        let mut action = json!({"cluster": "inbound", "timeout": "0s"});
        overlay(&mut action, &plan.extra.inbound);
        let mut route = json!({"name": "default", "match": {"prefix": "/"}, "route": action});
        overlay(&mut route, &plan.extra.routes);
        let host = json!({"name": "inbound", "domains": ["*"], "routes": [route]});
        http(plan, dir, Side::In, json!({"name": "inbound", "virtual_hosts": [host]}))
    } else {
        tcp("inbound")
    };
    let mut chain = json!({"filters": [filter]});
    let mut inspectors = vec!["original_dst"];
    if plan.is_tls() {
        inspectors.push("tls_inspector");
        chain["filter_chain_match"] = json!({"transport_protocol": "tls"});
        let mut context = common_tls(plan, dir, "server", CLIENT_ID);
        context["@type"] = json!("type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext");
        context["require_client_certificate"] = json!(true);
        chain["transport_socket"] = json!({"name": "envoy.transport_sockets.tls", "typed_config": context});
    }
    listener("virtualInbound", "INBOUND", 15_006, &inspectors, chain)
}

fn tcp(cluster: &str) -> Value {
    json!({
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": format!("{NETWORK}.tcp_proxy.v3.TcpProxy"),
            "stat_prefix": cluster,
            "cluster": cluster,
        },
    })
}

/// The names a Kubernetes service has.
fn domains(fqdn: &str) -> Vec<String> {
    let short = fqdn.split('.').next().unwrap_or(fqdn);
    let forms = [fqdn, short, &format!("{short}.default")].map(str::to_owned);
    forms.iter().cloned().chain(forms.iter().map(|f| format!("{f}:{APP_PORT}"))).collect()
}

/// Name of the unused service `n`, and of its cluster.
pub(crate) fn service_name(n: usize) -> String {
    format!("service-{n}")
}

/// Puts the fields of `more` in the place of those of `base`.
fn overlay(base: &mut Value, more: &Value) {
    for (name, value) in more.as_object().into_iter().flatten() {
        base[name] = value.clone();
    }
}

fn virtual_host(cluster: &str, domains: &[String], extra: &Extra) -> Value {
    let retry = json!({
        "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
        "num_retries": 2,
        "retriable_status_codes": [503],
        "retry_host_predicate": [{
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
        }],
        "host_selection_retry_max_attempts": 5,
    });
    let mut action = json!({"cluster": cluster, "timeout": "0s", "retry_policy": retry});
    overlay(&mut action, &extra.action);
    let canary = json!([{"name": "x-canary", "string_match": {"exact": "true"}}]);
    let matches = [
        ("admin", json!({"prefix": "/admin/"})),
        ("canary", json!({"prefix": "/", "headers": canary})),
        ("default", json!({"prefix": "/"})),
    ];
    let routes = matches.map(|(name, of)| {
        let mut route = json!({"name": name, "match": of, "route": action});
        overlay(&mut route, &extra.routes);
        route
    });
    json!({"name": cluster, "domains": domains, "routes": routes})
}

fn http(plan: &Plan, dir: &str, side: Side, routes: Value) -> Value {
    let router = json!({
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
    });
    let mut config = json!({
        "@type": format!("{NETWORK}.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": side.as_str(),
        "use_remote_address": false,
        "route_config": routes,
    });
    let own: &[Value] = if side == Side::In { &plan.extra.filters } else { &[] };
    config["http_filters"] = own.iter().chain(&plan.extra.both.filters).chain([&router]).cloned().collect();
    if side == Side::In {
        config["forward_client_cert_details"] = json!("SANITIZE_SET");
        config["set_current_client_cert_details"] = json!({"uri": true});
    }
    if plan.features != Features::Usual {
        let mut log = json!({
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": access_log_file(Path::new(dir), side),
        });
        if plan.features == Features::JsonLog {
            log["log_format"] = json!({"json_format": istio_format()});
        }
        config["access_log"] = json!([{"name": "envoy.access_loggers.file", "typed_config": log}]);
    }
    overlay(&mut config, &plan.extra.both.manager);
    json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": config})
}

/// Folder of the access logs: not that of the certificates, which is watched for changes.
pub(super) const LOGS: &str = "logs";

/// Where a proxy with such a log writes it.
pub(super) fn access_log_file(dir: &Path, side: Side) -> PathBuf {
    dir.join(LOGS).join(format!("access-{}.log", side.as_str()))
}

/// What Istio logs with `accessLogEncoding: JSON`.
fn istio_format() -> Value {
    json!({
        "start_time": "%START_TIME%",
        "route_name": "%ROUTE_NAME%",
        "method": "%REQ(:METHOD)%",
        "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
        "protocol": "%PROTOCOL%",
        "response_code": "%RESPONSE_CODE%",
        "response_flags": "%RESPONSE_FLAGS%",
        "response_code_details": "%RESPONSE_CODE_DETAILS%",
        "connection_termination_details": "%CONNECTION_TERMINATION_DETAILS%",
        "upstream_transport_failure_reason": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
        "bytes_received": "%BYTES_RECEIVED%",
        "bytes_sent": "%BYTES_SENT%",
        "duration": "%DURATION%",
        "upstream_service_time": "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
        "x_forwarded_for": "%REQ(X-FORWARDED-FOR)%",
        "user_agent": "%REQ(USER-AGENT)%",
        "request_id": "%REQ(X-REQUEST-ID)%",
        "authority": "%REQ(:AUTHORITY)%",
        "upstream_host": "%UPSTREAM_HOST%",
        "upstream_cluster": "%UPSTREAM_CLUSTER_RAW%",
        "upstream_local_address": "%UPSTREAM_LOCAL_ADDRESS%",
        "downstream_local_address": "%DOWNSTREAM_LOCAL_ADDRESS%",
        "downstream_remote_address": "%DOWNSTREAM_REMOTE_ADDRESS%",
        "requested_server_name": "%REQUESTED_SERVER_NAME%",
    })
}

fn common_tls(plan: &Plan, dir: &str, own: &str, peer: &str) -> Value {
    let mut common = json!({
        // Left alone, Envoy's client side would stay at TLS 1.2.
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_3",
            "tls_maximum_protocol_version": "TLSv1_3",
            "ecdh_curves": [plan.sessions.group()],
        },
        "tls_certificates": [{
            "certificate_chain": {"filename": format!("{dir}/{own}.crt")},
            "private_key": {"filename": format!("{dir}/{own}.key")},
        }],
        "validation_context": {
            "trusted_ca": {"filename": format!("{dir}/root.pem")},
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": peer}}],
        },
    });
    match plan.between {
        Between::Http2 => common["alpn_protocols"] = json!(["h2"]),
        Between::Http1 => common["alpn_protocols"] = json!(["http/1.1"]),
        Between::TcpTls | Between::Tcp => {}
    }
    json!({"common_tls_context": common})
}

fn cluster(name: &str, endpoints: &[(String, u16)], protocol: Value) -> Value {
    let endpoints: Vec<Value> =
        endpoints.iter().map(|(ip, port)| json!({"endpoint": {"address": address(ip, *port)}})).collect();
    let limits = json!({
        "max_connections": NO_LIMIT, "max_pending_requests": NO_LIMIT, "max_requests": NO_LIMIT, "max_retries": NO_LIMIT,
    });
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "10s",
        "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": {"thresholds": [limits]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": protocol,
        },
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
    })
}

fn protocol(app: App, sessions: Sessions) -> Value {
    let version = if app == App::Http2 { "http2_protocol_options" } else { "http_protocol_options" };
    let mut options = json!({
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {version: {}},
    });
    if sessions != Sessions::Pooled {
        options["common_http_protocol_options"] = json!({"max_requests_per_connection": 1});
    }
    options
}

fn outbound_clusters(plan: &Plan, place: &Place<'_>, dir: &str) -> Vec<Value> {
    let between = if plan.between == Between::Http2 { App::Http2 } else { App::Http1 };
    let secured = |name: &str, endpoints: &[(String, u16)]| {
        let mut cluster = cluster(name, endpoints, protocol(between, plan.sessions));
        if plan.via == Via::Xds {
            let fields = cluster.as_object_mut().expect("made of an object");
            fields.remove("load_assignment");
            fields["type"] = json!("EDS");
            fields.insert(
                "eds_cluster_config".into(),
                json!({"eds_config": {"ads": {}, "resource_api_version": "V3"}, "service_name": name}),
            );
        }
        if plan.is_tls() {
            let mut context = common_tls(plan, dir, "client", SERVER_ID);
            context["@type"] =
                json!("type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext");
            context["sni"] = json!(HOST);
            if !plan.sessions.resumes() {
                context["max_session_keys"] = json!(0);
            }
            cluster["transport_socket"] = json!({"name": "envoy.transport_sockets.tls", "typed_config": context});
        }
        cluster
    };
    let servers: Vec<_> = place.servers.iter().map(|ip| (ip.to_string(), APP_PORT)).collect();
    let mut clusters = vec![secured(PROBE, &servers)];
    overlay(&mut clusters[0], &plan.extra.cluster);
    clusters.extend((0..plan.services).map(|n| secured(&service_name(n), &service_endpoints(n))));
    clusters
}

/// A proxy in a row of them: whatever comes to the application's port goes on to `next`.
pub(super) fn hop(next: &[(String, u16)], extra: &Extra) -> Value {
    let plan = Plan::http(Between::Http1);
    let hosts = [virtual_host(PROBE, &["*".to_owned()], extra)];
    let chain = json!({"filters": [http(&plan, "", Side::Out, json!({"name": "hop", "virtual_hosts": hosts}))]});
    let mut cluster = cluster(PROBE, next, protocol(App::Http1, Sessions::Pooled));
    overlay(&mut cluster, &extra.cluster);
    json!({
        "node": {"id": "bench-hop", "cluster": "bench"},
        "admin": {"address": address("127.0.0.1", 15_000)},
        "static_resources": {"listeners": [listener("hop", "OUTBOUND", APP_PORT, &[], chain)], "clusters": [cluster]},
    })
}

/// A cluster of one host that speaks gRPC.
pub(crate) fn grpc_cluster(name: &str, ip: &str, port: u16) -> Value {
    cluster(name, &[(ip.into(), port)], protocol(App::Http2, Sessions::Pooled))
}

/// Endpoints that nobody is ever connected to.
pub(super) fn service_endpoints(service: usize) -> Vec<(String, u16)> {
    let first = service * ENDPOINTS_PER_SERVICE;
    (first..first + ENDPOINTS_PER_SERVICE)
        .map(|n| (format!("10.99.{}.{}", (n / 250) % 250, n % 250 + 1), APP_PORT))
        .collect()
}

fn inbound_cluster(plan: &Plan) -> Value {
    cluster("inbound", &[("127.0.0.1".into(), APP_PORT)], protocol(plan.app, Sessions::Pooled))
}

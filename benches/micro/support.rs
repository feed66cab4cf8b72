//! What several benches need: configurations from JSON, and a request's facts.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Instant, SystemTime},
};

use outrigger_proxy::{
    bootstrap::{self, Bootstrap},
    ir::{
        http::{ConnectionManager, RouteSource},
        listener::{Direction, Terminal},
        route::RouteConfiguration,
    },
    telemetry::{
        flags::Flags,
        format::{Facts, Headers, Known, Times},
        record::{ConnInfo, UpstreamFacts},
    },
};
use serde_json::{Value, json};

pub(crate) fn load(file: &Value) -> Bootstrap {
    bootstrap::load(file.to_string(), None).expect("the bench's bootstrap is valid").0
}

pub(crate) fn address(ip: &str, port: u16) -> Value {
    json!({"socket_address": {"address": ip, "port_value": port}})
}

/// A listener with the chains, and the clusters they mention.
pub(crate) fn listener(chains: Value, clusters: &[&str]) -> Value {
    let clusters: Vec<Value> = clusters.iter().map(|name| cluster(name, 1, &json!({}))).collect();
    json!({"static_resources": {
        "listeners": [{"name": "bench", "address": address("0.0.0.0", 15_001), "filter_chains": chains}],
        "clusters": clusters,
    }})
}

pub(crate) fn cluster(name: &str, endpoints: usize, more: &Value) -> Value {
    let endpoints: Vec<Value> = (0..endpoints)
        .map(|n| json!({"endpoint": {"address": address(&format!("10.{}.{}.{}", n / 62_500, n / 250 % 250, n % 250 + 1), 80)}}))
        .collect();
    let mut cluster = json!({
        "name": name, "type": "STATIC", "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
    });
    for (key, value) in more.as_object().expect("an object") {
        cluster[key] = value.clone();
    }
    cluster
}

/// A filter chain whose connection manager has these routes.
pub(crate) fn http_chain(virtual_hosts: Value, more: &Value) -> Value {
    let mut config = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "route_config": {"name": "bench", "virtual_hosts": virtual_hosts},
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
        }],
    });
    for (key, value) in more.as_object().expect("an object") {
        config[key] = value.clone();
    }
    json!({"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": config}]})
}

pub(crate) fn connection_manager(file: &Value) -> Arc<ConnectionManager> {
    let bootstrap = load(file);
    match &bootstrap.listeners[0].chains[0].terminal {
        Terminal::Http(manager) => manager.clone(),
        Terminal::Tcp(_) => unreachable!("the bench's chains end in HTTP"),
    }
}

pub(crate) fn routes(virtual_hosts: Value) -> Arc<RouteConfiguration> {
    let manager = connection_manager(&listener(json!([http_chain(virtual_hosts, &json!({}))]), &["app"]));
    match &manager.routes {
        RouteSource::Inline(routes) => routes.clone(),
        RouteSource::Rds { .. } => unreachable!("the bench's routes are inline"),
    }
}

thread_local! {
    /// A connection belongs to its worker.
    static CONNECTION: &'static (ConnInfo, UpstreamFacts) = Box::leak(Box::new({
        let info = ConnInfo {
            id: 7,
            remote: SocketAddr::from(([10, 0, 0, 1], 40_000)),
            local: SocketAddr::from(([10, 0, 0, 2], 8080)),
            original_dst: None,
            direction: Direction::Inbound,
            listener: "virtualInbound".into(),
            chain: "0.0.0.0_8080".into(),
            server_name: Some("app.default.svc.cluster.local".into()),
            tls: None,
            buffer_limit: 1 << 20,
            started: SystemTime::now(),
            started_at: Instant::now(),
            metadata: Default::default(),
        };
        let upstream = UpstreamFacts {
            cluster: Some("inbound|8080||".into()),
            host: Some("10.0.0.2:8080".into()),
            local: Some(SocketAddr::from(([127, 0, 0, 6], 41_000))),
            attempts: 1,
            transport_failure: None,
            protocol: Some("HTTP/2"),
        };
        (info, upstream)
    }));
}

fn connection() -> &'static (ConnInfo, UpstreamFacts) {
    CONNECTION.with(|known| *known)
}

/// The facts of an answered request.
pub(crate) fn facts<'a>(request: &'a dyn Headers, response: &'a dyn Headers) -> Facts<'a> {
    let (conn, upstream) = connection();
    Facts {
        conn,
        protocol: Some("HTTP/1.1"),
        status: 200,
        flags: Flags::default(),
        details: Some("via_upstream"),
        start: conn.started,
        times: Times { total: 12, request_done: Some(1), response_head: Some(11) },
        bytes_received: 345,
        bytes_sent: 6789,
        upstream,
        downstream_failure: None,
        termination: None,
        trace: None,
        route: Some("default"),
        remote: conn.remote,
        request: Some(request),
        response: Some(response),
        trailers: None,
        metadata: Known::default(),
    }
}

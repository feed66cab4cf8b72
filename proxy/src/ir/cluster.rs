//! Clusters (`envoy.config.cluster.v3`).

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

pub use super::balancing::{LbOptions, LbPolicy};
use super::{
    ConfigSource, Metadata, Name,
    endpoint::Assignment,
    health_check::HealthCheck,
    http::{Http1Options, Http2Options},
    listener::Keepalive,
    outlier::OutlierDetection,
    retry::RetryPolicy,
    secret::UpstreamTls,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    pub name: Name,
    /// The name in statistics: `alt_stat_name` or the name, with `:` replaced.
    pub stat_name: Name,
    pub discovery: Discovery,
    pub connect_timeout: Duration,
    pub lb: LbPolicy,
    pub lb_options: Arc<LbOptions>,
    /// Percentage of healthy hosts below which health is ignored; 0 switches panic off. Default 50.
    pub panic_threshold: u8,
    /// `locality_weighted_lb_config`: spread over the localities of a priority by their weights; otherwise ignore those.
    pub locality_weighted: bool,
    pub http: Arc<UpstreamHttp>,
    /// The transport socket of endpoints that no match claims; `None` is plaintext.
    pub tls: Option<Arc<UpstreamTls>>,
    pub transport_matches: Vec<TransportMatch>,
    pub breaker: BreakerThresholds,
    pub breaker_high: BreakerThresholds,
    pub bind: Option<Bind>,
    pub keepalive: Option<Keepalive>,
    /// Bound on bytes buffered per direction and connection.
    pub buffer_limit: u32,
    /// Close pooled connections to hosts that discovery removed once they are idle: Envoy always does.
    pub drain_on_host_removal: bool,
    pub metadata: Option<Arc<Metadata>>,
    /// What takes hosts out at run time; most clusters have nothing of it.
    pub health: Option<Arc<HealthPolicy>>,
}

impl Cluster {
    /// Outlier detection, where it is configured.
    pub fn outlier(&self) -> Option<&OutlierDetection> {
        self.health.as_deref()?.outlier.as_ref()
    }

    /// The active health check, where one is configured.
    pub fn check(&self) -> Option<&HealthCheck> {
        self.health.as_deref()?.check.as_ref()
    }
}

/// What takes hosts out of load balancing at run time, and limits of single hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthPolicy {
    pub outlier: Option<OutlierDetection>,
    pub check: Option<HealthCheck>,
    /// TCP connections to a host that turns out to be failing are cut.
    pub close_on_failure: bool,
    /// `per_host_thresholds.max_connections`.
    pub max_connections_per_host: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Discovery {
    Static(Arc<Assignment>),
    /// Every address a name resolves to is an endpoint.
    StrictDns(Arc<Assignment>, DnsOptions),
    /// One logical endpoint; each new connection takes the first address.
    LogicalDns(Arc<Assignment>, DnsOptions),
    Eds {
        /// The resource name asked for: `service_name` or the cluster's name.
        service_name: Name,
        source: ConfigSource,
    },
    /// Connect to the connection's original destination.
    OriginalDst {
        port_override: Option<u16>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsOptions {
    pub family: LookupFamily,
    pub refresh_rate: Duration,
    /// Use the record's own TTL instead of the refresh rate.
    pub respect_ttl: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LookupFamily {
    /// IPv6 if there is any, else IPv4: Envoy's AUTO.
    #[default]
    Auto,
    V4Only,
    V6Only,
    V4Preferred,
    All,
}

/// One entry of `transport_socket_matches`: claims endpoints whose `envoy.transport_socket_match` metadata has all pairs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportMatch {
    pub name: Name,
    pub criteria: serde_json::Map<String, serde_json::Value>,
    /// `None`: plaintext.
    pub tls: Option<Arc<UpstreamTls>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamHttp {
    pub protocol: UpstreamProtocol,
    pub http1: Http1Options,
    pub http2: Http2Options,
    /// Pooled connection without requests: default one hour, `None` never.
    pub idle_timeout: Option<Duration>,
    pub max_connection_duration: Option<Duration>,
    /// A stream to the upstream, from the moment it has a connection.
    pub max_stream_duration: Option<Duration>,
    pub max_requests_per_connection: Option<u32>,
    /// The retry policy of requests to this cluster, in place of their route's.
    pub retry: Option<Arc<RetryPolicy>>,
    /// SNI from the request's authority, SAN verified against it.
    pub auto_sni: bool,
    pub auto_san_validation: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamProtocol {
    Http1,
    Http2,
    UseDownstream,
    /// By ALPN: HTTP/2 when the server picks it, else HTTP/1.1.
    Auto,
}

impl Default for UpstreamHttp {
    fn default() -> Self {
        Self {
            protocol: UpstreamProtocol::Http1,
            http1: Http1Options::default(),
            http2: Http2Options::default(),
            idle_timeout: Some(Duration::from_secs(3600)),
            max_connection_duration: None,
            max_stream_duration: None,
            retry: None,
            max_requests_per_connection: None,
            auto_sni: false,
            auto_san_validation: false,
        }
    }
}

/// `CircuitBreakers.Thresholds`; Envoy's default is 1024 for each of the first three and 3 retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerThresholds {
    pub max_connections: u32,
    pub max_pending_requests: u32,
    pub max_requests: u32,
    pub max_retries: u32,
    /// HTTP connection pools over all workers, one per host and protocol each.
    pub max_connection_pools: u32,
    /// Whether statistics tell what is left.
    pub track_remaining: bool,
    /// The retry budget in force in addition to `max_retries`: always on.
    pub retry_budget: RetryBudget,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudget {
    /// Share of active requests that may be retries, in thousandths.
    pub permille: u32,
    /// Retries always allowed concurrently.
    pub min_concurrency: u32,
    /// Nobody configured it: it yields where what failed is one host and the others are well.
    pub yields: bool,
}

impl Default for BreakerThresholds {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_pending_requests: 1024,
            max_requests: 1024,
            max_retries: 3,
            max_connection_pools: u32::MAX,
            track_remaining: false,
            // A floor below which retries are no storm: with fewer, one host that goes down fails requests of a small
            // service although others could answer.
            retry_budget: RetryBudget { permille: 200, min_concurrency: 10, yields: true },
        }
    }
}

/// `upstream_bind_config`: the source address of connections, per family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    pub source: SocketAddr,
    pub extra: Vec<SocketAddr>,
    pub freebind: bool,
}

impl Bind {
    /// The source to bind for a connection to `peer`: the first of the same family, `None` leaves it to the kernel.
    pub fn source_for(&self, peer: IpAddr) -> Option<SocketAddr> {
        std::iter::once(&self.source).chain(&self.extra).find(|s| s.is_ipv4() == peer.is_ipv4()).copied()
    }
}

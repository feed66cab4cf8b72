//! Active health checks (`envoy.config.core.v3.HealthCheck`).

use std::{net::IpAddr, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, Method};

use super::{Metadata, matcher::StringMatcher};

/// `HealthCheck`: one active check that every host of a cluster is put to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    pub timeout: Duration,
    pub unhealthy_threshold: u32,
    pub healthy_threshold: u32,
    /// Whether one connection serves all checks of a host.
    pub reuse_connection: bool,
    pub always_log_failures: bool,
    pub always_log_successes: bool,
    pub pace: Pace,
    pub probe: Probe,
    /// `tls_options`: the protocols to offer instead of the transport socket's.
    pub alpn: Option<Arc<[Box<str>]>>,
    /// `transport_socket_match_criteria`, as the metadata that `transport_socket_matches` are held against.
    pub transport: Option<Arc<Metadata>>,
}

/// `Endpoint.HealthCheckConfig`: what is different for one host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointCheck {
    pub port: Option<u16>,
    pub address: Option<IpAddr>,
    /// Replaces the host of HTTP and gRPC checks; may be empty.
    pub hostname: Box<str>,
    /// The host is not checked, and taken for healthy.
    pub disabled: bool,
}

/// When the next check is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pace {
    pub interval: Duration,
    pub initial_jitter: Duration,
    pub interval_jitter: Duration,
    /// In percent of the interval.
    pub interval_jitter_percent: u32,
    /// As long as the cluster has never had traffic.
    pub no_traffic_interval: Duration,
    /// The same, of hosts that are healthy.
    pub no_traffic_healthy_interval: Duration,
    pub unhealthy_interval: Duration,
    /// Right after a host turned unhealthy.
    pub unhealthy_edge_interval: Duration,
    pub healthy_edge_interval: Duration,
}

/// What a check does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    Http(Box<HttpProbe>),
    Tcp(TcpProbe),
    Grpc(GrpcProbe),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpProbe {
    /// Empty: the cluster's name.
    pub host: Box<str>,
    pub path: Box<str>,
    pub method: Method,
    pub http2: bool,
    pub send: Vec<u8>,
    /// Blocks that the body must have, in this order.
    pub receive: Vec<Vec<u8>>,
    /// How much of the body is looked at.
    pub response_buffer: usize,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub remove: Vec<HeaderName>,
    pub expected: Vec<StatusRange>,
    /// Statuses that count towards the threshold instead of failing the host at once.
    pub retriable: Vec<StatusRange>,
    /// What `x-envoy-upstream-healthchecked-cluster` has to say.
    pub service_name: Option<StringMatcher>,
}

/// Statuses from `first` to before `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusRange {
    pub first: u16,
    pub end: u16,
}

impl StatusRange {
    pub fn contains(self, status: u16) -> bool {
        (self.first..self.end).contains(&status)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TcpProbe {
    pub send: Vec<u8>,
    pub receive: Vec<Vec<u8>>,
}

/// `grpc.health.v1.Health/Check`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrpcProbe {
    pub service: Box<str>,
    /// Empty: the cluster's name.
    pub authority: Box<str>,
    pub metadata: Vec<(HeaderName, HeaderValue)>,
}

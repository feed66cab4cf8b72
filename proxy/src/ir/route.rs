//! Route configuration (`envoy.config.route.v3`).

use std::{sync::Arc, time::Duration};

use http::{HeaderName, StatusCode};

pub use super::retry::{ResetHeader, RetryOn, RetryPolicy};
use super::{
    Fraction, Metadata, Name,
    format::Template,
    matcher::{HeaderMatcher, QueryMatcher, Regex},
};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteConfiguration {
    /// Empty for an inline configuration without a name.
    pub name: Box<str>,
    pub virtual_hosts: Vec<Arc<VirtualHost>>,
    pub headers: HeaderOps,
    /// `most_specific_header_mutations_wins`: evaluate configuration, virtual host, route in this order.
    pub most_specific_wins: bool,
    pub ignore_port_in_host: bool,
    /// `validate_clusters: false`: a static route may name a cluster that does not exist.
    pub unknown_clusters_allowed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualHost {
    pub name: Name,
    /// Lower case, unique in the configuration: exact, `*.suffix`, `prefix.*`, or `*`.
    pub domains: Vec<Box<str>>,
    pub routes: Vec<Arc<Route>>,
    pub headers: Arc<HeaderOps>,
    pub retry: Option<Arc<RetryPolicy>>,
    /// `hedge_policy.hedge_on_per_try_timeout`, for routes without a hedge policy.
    pub hedge: bool,
    /// `include_is_timeout_retry_header`.
    pub timeout_retry_header: bool,
    /// For routes without a limit of their own.
    pub body_buffer: Option<Box<BodyBuffer>>,
    /// `x-envoy-attempt-count` on upstream requests, on downstream responses.
    pub attempt_count_in_request: bool,
    pub attempt_count_in_response: bool,
    pub require_tls: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Empty when the operator gave none.
    pub name: Box<str>,
    pub matches: Arc<RouteMatch>,
    pub action: Action,
    pub headers: Arc<HeaderOps>,
    pub metadata: Option<Arc<Metadata>>,
}

/// How much of a request's body may be kept for retries. Without one it is the listener's buffer limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyBuffer {
    /// `request_body_buffer_limit`: whatever the connection's limit is.
    Exactly(u64),
    /// `per_request_buffer_limit_bytes`: but no more than the connection's limit.
    AtMost(u32),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteMatch {
    pub path: PathMatch,
    pub case_sensitive: bool,
    pub headers: Vec<HeaderMatcher>,
    pub query: Vec<QueryMatcher>,
    /// Only requests with a gRPC content type.
    pub grpc: bool,
    pub fraction: Option<Fraction>,
}

/// Without `case_sensitive` the patterns are stored in ASCII lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    Prefix(Box<str>),
    Exact(Box<str>),
    /// Matches the path itself or the path followed by `/`.
    SeparatedPrefix(Box<str>),
    Regex(Regex),
    /// `connect_matcher`: CONNECT requests only.
    Connect,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Forward(Arc<Forward>),
    Redirect(Arc<Redirect>),
    Direct(Arc<DirectResponse>),
    /// `non_forwarding_action`: used by API listeners; a proxy answers 404.
    NonForwarding,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    pub target: Target,
    /// Status when the chosen cluster does not exist: 503 unless configured.
    pub cluster_not_found: StatusCode,
    pub path_rewrite: Option<PathRewrite>,
    pub host_rewrite: Option<HostRewrite>,
    pub append_forwarded_host: bool,
    /// Total time for the upstream's response, from the end of the request. Default 15 s; `None` never.
    pub timeout: Option<Duration>,
    /// Overrides the connection manager's stream idle timeout: `Some(None)` switches it off.
    pub idle_timeout: Option<Option<Duration>>,
    /// `flush_timeout`: of a complete response that the client does not take; in place of the idle timeout.
    pub flush_timeout: Option<Option<Duration>>,
    /// `max_stream_duration`: with it `timeout` does not apply.
    pub stream: Option<Box<StreamDuration>>,
    /// `max_grpc_timeout`: honour `grpc-timeout` in place of `timeout`, bounded by the value (`Some(None)`: unbounded).
    pub grpc_timeout_max: Option<Option<Duration>>,
    /// `grpc_timeout_offset`: taken off `grpc-timeout`, where something is left of it.
    pub grpc_timeout_offset: Duration,
    pub retry: Option<Arc<RetryPolicy>>,
    /// `hedge_policy.hedge_on_per_try_timeout`; `None` leaves it to the virtual host.
    pub hedge: Option<bool>,
    pub body_buffer: Option<BodyBuffer>,
    /// Upgrade types switched on or off for this route, lower case.
    pub upgrades: Vec<(Box<str>, bool)>,
    pub hash_policy: Vec<HashPolicy>,
    /// `priority: HIGH`: which circuit breaker thresholds apply.
    pub high_priority: bool,
}

/// `RouteAction.MaxStreamDuration`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamDuration {
    /// Overrides the connection manager's; `Some(None)` is explicitly unlimited.
    pub max: Option<Option<Duration>>,
    /// `grpc_timeout_header_max`: `grpc-timeout` takes the place of `max`, bounded by the value (`Some(None)`: unbounded).
    pub grpc_max: Option<Option<Duration>>,
    /// Taken off `grpc-timeout`, down to nothing.
    pub grpc_offset: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Cluster(Name),
    /// The name is the value of this request header.
    Header(HeaderName),
    /// Never empty, total weight at least 1.
    Weighted(Vec<WeightedTarget>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedTarget {
    pub cluster: Name,
    pub weight: u32,
    pub headers: HeaderOps,
    pub host_rewrite: Option<Box<str>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathRewrite {
    /// Replaces the matched prefix (or the whole path for an exact match).
    Prefix(Box<str>),
    /// Substitution (`$1` groups) over the path without its query.
    Regex { pattern: Regex, substitution: Box<str> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostRewrite {
    Literal(Box<str>),
    /// The hostname of the chosen endpoint (`auto_host_rewrite`).
    Auto,
    /// The value of this request header.
    Header(HeaderName),
    PathRegex {
        pattern: Regex,
        substitution: Box<str>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    pub status: StatusCode,
    pub https: bool,
    pub scheme: Option<Box<str>>,
    pub host: Option<Box<str>>,
    pub port: Option<u16>,
    /// Replaces the whole path; it may carry a query of its own.
    pub path: Option<Box<str>>,
    pub rewrite: Option<PathRewrite>,
    pub strip_query: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectResponse {
    pub status: StatusCode,
    pub body: bytes::Bytes,
}

/// Header mutations of one level. Applied: removals after additions, as Envoy does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderOps {
    pub request_add: Vec<HeaderAdd>,
    pub request_remove: Vec<HeaderName>,
    pub response_add: Vec<HeaderAdd>,
    pub response_remove: Vec<HeaderName>,
}

impl HeaderOps {
    pub fn is_empty(&self) -> bool {
        self.request_add.is_empty()
            && self.request_remove.is_empty()
            && self.response_add.is_empty()
            && self.response_remove.is_empty()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderAdd {
    /// A regular name, or `host` for `:authority`; `:path` and `:method` are refused at decode time.
    pub name: HeaderName,
    pub value: Template,
    pub action: AppendAction,
    pub keep_empty_value: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendAction {
    AppendIfExistsOrAdd,
    AddIfAbsent,
    OverwriteIfExistsOrAdd,
    OverwriteIfExists,
}

/// `RouteAction.HashPolicy` and the TCP proxy's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashPolicy {
    Header { name: HeaderName, terminal: bool },
    Cookie { name: Box<str>, ttl: Option<Duration>, path: Box<str>, terminal: bool },
    SourceIp { terminal: bool },
    Query { name: Box<str>, terminal: bool },
}

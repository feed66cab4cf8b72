//! Route configuration (`envoy.config.route.v3`).

use std::{sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, StatusCode};

use super::{
    Fraction, Metadata, Name,
    filters::{Mutation, Overrides},
    format::{LogFormat, Template},
    matcher::{HeaderMatcher, QueryMatcher, Regex},
    path_template::{PathTemplate, TemplateRewrite},
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
    pub overrides: Option<Arc<Overrides>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualHost {
    pub name: Name,
    /// Lower case, unique in the configuration: exact, `*.suffix`, `prefix.*`, or `*`.
    pub domains: Vec<Box<str>>,
    pub routes: Vec<Arc<Route>>,
    pub headers: Arc<HeaderOps>,
    pub retry: Option<Arc<RetryPolicy>>,
    /// `x-envoy-attempt-count` on upstream requests, on downstream responses.
    pub attempt_count_in_request: bool,
    pub attempt_count_in_response: bool,
    pub require_tls: bool,
    pub overrides: Option<Arc<Overrides>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Empty when the operator gave none.
    pub name: Box<str>,
    pub matches: Arc<RouteMatch>,
    pub action: Action,
    pub headers: Arc<HeaderOps>,
    pub metadata: Option<Arc<Metadata>>,
    pub overrides: Option<Arc<Overrides>>,
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
    Template(PathTemplate),
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
    /// `max_stream_duration`, `Some(None)` is explicitly unlimited.
    pub max_stream_duration: Option<Option<Duration>>,
    /// `grpc_timeout_header_max`: honour `grpc-timeout`, bounded by the value (`Some(None)`: unbounded).
    pub grpc_timeout_max: Option<Option<Duration>>,
    pub retry: Option<Arc<RetryPolicy>>,
    /// Upgrade types switched on or off for this route, lower case.
    pub upgrades: Vec<(Box<str>, bool)>,
    pub hash_policy: Vec<HashPolicy>,
    /// `priority: HIGH`: which circuit breaker thresholds apply.
    pub high_priority: bool,
    /// Its own, else the virtual host's, else the route configuration's.
    pub mirrors: Arc<[Mirror]>,
    pub internal_redirect: Option<Arc<InternalRedirect>>,
}

/// `InternalRedirectPolicy`: redirects of the upstream that are followed here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InternalRedirect {
    /// Redirects of one request.
    pub max: u32,
    pub codes: Vec<StatusCode>,
    /// Also from http to https and back.
    pub cross_scheme: bool,
    /// Headers of the redirect that go into the next request, or are removed from it.
    pub copied_headers: Vec<HeaderName>,
    /// All have to agree.
    pub predicates: Vec<RedirectPredicate>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedirectPredicate {
    /// Not twice from one route to the same other one.
    PreviousRoutes,
    /// Only to routes of these names.
    AllowListedRoutes(Vec<Box<str>>),
    /// Not from http to https.
    SafeCrossScheme,
}

/// `RequestMirrorPolicy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    pub target: MirrorTarget,
    /// The share of requests; `None`: all.
    pub fraction: Option<Fraction>,
    /// `-shadow` is appended to the host.
    pub suffix: bool,
    pub host: Option<Box<str>>,
    pub mutations: Vec<Mutation>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MirrorTarget {
    Cluster(Name),
    /// The name is the first value of this request header.
    Header(HeaderName),
}

impl MirrorTarget {
    /// The cluster, where it is known before there is a request.
    pub fn cluster(&self) -> Option<&Name> {
        match self {
            Self::Cluster(name) => Some(name),
            Self::Header(_) => None,
        }
    }
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
    /// Empty where `cluster_header` names it.
    pub cluster: Name,
    /// The request header whose value is the cluster's name.
    pub cluster_header: Option<HeaderName>,
    pub weight: u32,
    pub headers: HeaderOps,
    pub host_rewrite: Option<Box<str>>,
    pub overrides: Option<Arc<Overrides>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathRewrite {
    /// Replaces the matched prefix (or the whole path for an exact match).
    Prefix(Box<str>),
    /// Substitution (`$1` groups) over the path without its query.
    Regex { pattern: Regex, substitution: Box<str> },
    /// Of a path that matched a [`PathMatch::Template`].
    Template(TemplateRewrite),
    /// The whole path, made of what is known of the request; nothing leaves the path as it is.
    Format(Template),
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
    /// As [`PathRewrite::Format`].
    Format(Template),
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
    /// Replaces the body, with what it knows of the request.
    pub format: Option<BodyFormat>,
}

/// `body_format`; the configured body is in it already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyFormat {
    pub format: LogFormat,
    pub content_type: Option<HeaderValue>,
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

/// `RetryPolicy`. What is provably safe is replayed without any policy; this is for everything else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    pub on: RetryOn,
    /// Retries after the first attempt.
    pub max_retries: u32,
    pub per_try_timeout: Option<Duration>,
    pub per_try_idle_timeout: Option<Duration>,
    pub retriable_status: Vec<u16>,
    pub retriable_headers: Vec<HeaderMatcher>,
    pub backoff_base: Duration,
    pub backoff_max: Duration,
    /// `retry_host_predicate: previous_hosts`.
    pub avoid_previous_hosts: bool,
    /// `host_selection_retry_max_attempts`.
    pub host_selection_attempts: u32,
}

/// The conditions of `x-envoy-retry-on` and `x-envoy-retry-grpc-on`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryOn(u32);

impl RetryOn {
    pub const SERVER_ERROR: Self = Self(1);
    pub const GATEWAY_ERROR: Self = Self(1 << 1);
    pub const RESET: Self = Self(1 << 2);
    pub const RESET_BEFORE_REQUEST: Self = Self(1 << 3);
    pub const CONNECT_FAILURE: Self = Self(1 << 4);
    pub const REFUSED_STREAM: Self = Self(1 << 5);
    pub const RETRIABLE_4XX: Self = Self(1 << 6);
    pub const RETRIABLE_STATUS: Self = Self(1 << 7);
    pub const RETRIABLE_HEADERS: Self = Self(1 << 8);
    pub const GRPC_CANCELLED: Self = Self(1 << 9);
    pub const GRPC_DEADLINE_EXCEEDED: Self = Self(1 << 10);
    pub const GRPC_INTERNAL: Self = Self(1 << 11);
    pub const GRPC_RESOURCE_EXHAUSTED: Self = Self(1 << 12);
    pub const GRPC_UNAVAILABLE: Self = Self(1 << 13);
    pub const ENVOY_RATE_LIMITED: Self = Self(1 << 14);
    pub const HTTP3_POST_CONNECT_FAILURE: Self = Self(1 << 15);

    const NAMES: &[(&str, Self)] = &[
        ("5xx", Self::SERVER_ERROR),
        ("gateway-error", Self::GATEWAY_ERROR),
        ("reset", Self::RESET),
        ("reset-before-request", Self::RESET_BEFORE_REQUEST),
        ("connect-failure", Self::CONNECT_FAILURE),
        ("refused-stream", Self::REFUSED_STREAM),
        ("retriable-4xx", Self::RETRIABLE_4XX),
        ("retriable-status-codes", Self::RETRIABLE_STATUS),
        ("retriable-headers", Self::RETRIABLE_HEADERS),
        ("cancelled", Self::GRPC_CANCELLED),
        ("deadline-exceeded", Self::GRPC_DEADLINE_EXCEEDED),
        ("internal", Self::GRPC_INTERNAL),
        ("resource-exhausted", Self::GRPC_RESOURCE_EXHAUSTED),
        ("unavailable", Self::GRPC_UNAVAILABLE),
        ("envoy-ratelimited", Self::ENVOY_RATE_LIMITED),
        ("http3-post-connect-failure", Self::HTTP3_POST_CONNECT_FAILURE),
    ];

    /// Parses a comma-separated list; the second value lists the names that are not known.
    pub fn parse(list: &str) -> (Self, Vec<&str>) {
        let mut on = Self::default();
        let mut unknown = Vec::new();
        for name in list.split(',').map(str::trim).filter(|n| !n.is_empty()) {
            match Self::NAMES.iter().find(|(known, _)| *known == name) {
                Some((_, flag)) => on.0 |= flag.0,
                None => unknown.push(name),
            }
        }
        (on, unknown)
    }

    pub fn contains(self, flag: Self) -> bool {
        self.0 & flag.0 != 0
    }

    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

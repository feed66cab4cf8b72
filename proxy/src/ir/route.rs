//! Route configuration (`envoy.config.route.v3`).

use std::{sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, StatusCode};

pub use super::retry::{ResetHeader, RetryOn, RetryPolicy};
use super::{
    Fraction, Metadata, Name,
    balancing::SharedCriteria,
    filters::{Mutation, Overrides},
    format::{LogFormat, Template},
    matcher::{CookieMatcher, HeaderMatcher, QueryMatcher, Regex},
    path_template::{PathTemplate, TemplateRewrite},
    tracing::RouteTracing,
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
    pub tracing: Option<Arc<RouteTracing>>,
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
    /// What few routes ask for.
    pub further: Option<Box<FurtherMatch>>,
}

/// Rare conditions of a [`RouteMatch`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FurtherMatch {
    pub cookies: Vec<CookieMatcher>,
    /// `tls_context.presented` and `tls_context.validated`, of the client's certificate.
    pub presented: Option<bool>,
    pub validated: Option<bool>,
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
    /// `metadata_match`: which subset of the cluster's hosts.
    pub criteria: SharedCriteria,
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
    /// Empty where `cluster_header` names it.
    pub cluster: Name,
    /// The request header whose value is the cluster's name.
    pub cluster_header: Option<HeaderName>,
    pub weight: u32,
    pub headers: HeaderOps,
    pub host_rewrite: Option<Box<str>>,
    pub overrides: Option<Arc<Overrides>>,
    /// The route's criteria with the target's own in front.
    pub criteria: SharedCriteria,
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

/// `body_format`; that of a direct response has the configured body in it already.
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
    /// All values of the header, each first rewritten if there is a rewrite.
    Header {
        name: HashHeader,
        rewrite: Option<Rewrite>,
        terminal: bool,
    },
    Cookie(HashCookie),
    SourceIp {
        terminal: bool,
    },
    Query {
        name: Box<str>,
        terminal: bool,
    },
}

/// A header or, in the spelling of HTTP/2, a part of the request line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashHeader {
    Regular(HeaderName),
    Authority,
    Method,
    Path,
    Scheme,
}

/// A substitution (`$1` groups) in all places that match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    pub pattern: Regex,
    pub substitution: Box<str>,
}

/// A cookie to hash; with a `ttl` it is made for a client that has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashCookie {
    pub name: Box<str>,
    /// In whole seconds; zero makes a session cookie.
    pub ttl: Option<u64>,
    /// Every attribute of the cookie after name and value, as it goes into `set-cookie`.
    pub attributes: Box<str>,
    pub terminal: bool,
}

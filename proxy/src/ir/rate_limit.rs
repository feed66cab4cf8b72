//! Rate limits: what is counted (`envoy.config.route.v3.RateLimit`), and the filters that limit it, local and global.
//!
//! **Local fallback.** A global limit filter named `X` uses a local one for requests that the rate limit service gives
//! no answer for: an HTTP filter `X.fallback` of the same chain, `envoy.extensions.filters.http.local_ratelimit.v3
//! .LocalRateLimit` with `disabled: true` (or such a per-route configuration under that name; the most specific one
//! counts). Its `descriptors` are matched with the descriptors that the service would have been asked about, entries
//! with a blank value being wildcards; it needs no `rate_limits` of its own. What matches no bucket is decided by
//! `failure_mode_deny`. Its buckets hold the whole limit: each proxy takes its share, one part of as many as the cluster
//! `X.replicas` has hosts; without such a cluster all of it. An Envoy takes the same file: to it the filter is off and
//! the cluster unused.

use std::time::Duration;

use http::{HeaderName, StatusCode};

use super::{
    Fraction, Name,
    format::Template,
    matcher::{Cidr, HeaderMatcher, QueryMatcher},
    route::HeaderAdd,
};

/// `rate_limits` of a route or virtual host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RateLimits {
    pub rules: Vec<Rule>,
    /// `include_vh_rate_limits` of a route.
    pub include_virtual_host: bool,
}

/// One `RateLimit`: how requests become descriptors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    pub stage: u32,
    /// It has a `disable_key`: local limits leave it out, and there is no runtime that could disable it for global ones.
    pub disable_key: bool,
    pub actions: Vec<Action>,
    pub limit: Option<LimitOverride>,
    pub hits: Option<Hits>,
    /// Counted when the request is over, without limiting it.
    pub on_stream_done: bool,
    /// `x_ratelimit_option`: instead of what the filter says.
    pub headers: Option<bool>,
}

/// One `RateLimit.Action`, which makes an entry of the descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    SourceCluster,
    DestinationCluster,
    RequestHeader { name: Box<str>, key: Box<str>, skip_if_absent: bool },
    QueryParameter { name: Box<str>, key: Box<str>, skip_if_absent: bool },
    RemoteAddress,
    MaskedRemoteAddress { v4: u8, v6: u8 },
    Generic { key: Box<str>, value: Box<str> },
    HeaderMatch { key: Box<str>, value: Box<str>, expect: bool, headers: Vec<HeaderMatcher> },
    QueryMatch { key: Box<str>, value: Box<str>, expect: bool, parameters: Vec<QueryMatcher> },
    AddressMatch { key: Box<str>, value: Template, default: Box<str>, ranges: Vec<Cidr>, invert: bool },
    Metadata { key: Box<str>, from: MetadataSource, at: MetadataKey, default: Box<str>, skip_if_absent: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetadataSource {
    Dynamic,
    Route,
    Cluster,
}

/// `envoy.type.metadata.v3.MetadataKey`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetadataKey {
    pub namespace: Box<str>,
    pub path: Vec<Box<str>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LimitOverride {
    Fixed(Limit),
    /// A struct with `requests_per_unit` and `unit` in the dynamic metadata.
    Metadata(MetadataKey),
}

/// `RateLimitOverride`; the unit is the number of `envoy.type.v3.RateLimitUnit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub requests: u32,
    pub unit: i32,
}

/// `hits_addend`: what a request counts for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hits {
    pub number: HitsNumber,
    /// They are given back instead.
    pub negative: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HitsNumber {
    Fixed(u64),
    /// Rendered for each request; what is no number leaves the descriptor out.
    Format(Template),
}

/// `envoy.type.v3.TokenBucket`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenBucket {
    /// 0: nothing passes.
    pub max_tokens: u32,
    pub tokens_per_fill: u32,
    pub fill_interval: Duration,
}

/// `LocalRateLimitDescriptor`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitedDescriptor {
    /// Key and value; a blank value stands for every value, each with a bucket of its own.
    pub entries: Vec<(Box<str>, Box<str>)>,
    pub bucket: TokenBucket,
    /// Counted, not enforced.
    pub shadow: bool,
}

/// Which limits of the virtual host count beside the route's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VirtualHostLimits {
    /// Only where the route has none.
    #[default]
    Override,
    Include,
    Ignore,
}

/// `envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalRateLimit {
    /// Where it is configured: equal limits at different places have buckets of their own.
    pub place: Box<str>,
    pub stat_prefix: Name,
    pub status: StatusCode,
    pub bucket: Option<TokenBucket>,
    pub enabled: Fraction,
    pub enforced: Fraction,
    pub request_headers: Vec<HeaderAdd>,
    pub response_headers: Vec<HeaderAdd>,
    pub descriptors: Vec<LimitedDescriptor>,
    pub stage: u32,
    pub per_connection: bool,
    /// `local_cluster_rate_limit`: the members of the local cluster share the buckets.
    pub shared: bool,
    /// `x-ratelimit-*` in responses.
    pub headers: bool,
    pub virtual_host: VirtualHostLimits,
    pub always_default: bool,
    pub resource_exhausted: bool,
    /// Instead of those of the routes.
    pub rules: Vec<Rule>,
    pub max_dynamic: u32,
    pub retry_after: bool,
}

/// `envoy.extensions.filters.http.ratelimit.v3.RateLimit`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GlobalRateLimit {
    pub service: LimitService,
    pub stage: u32,
    pub requests: RequestKind,
    pub failure_deny: Fraction,
    pub resource_exhausted: bool,
    /// `x-ratelimit-*` in responses.
    pub headers: bool,
    /// `x-envoy-ratelimited` in responses to limited requests.
    pub limited_header: bool,
    pub limited_status: StatusCode,
    pub response_headers: Vec<HeaderAdd>,
    pub status_on_error: StatusCode,
    pub enabled: Fraction,
    pub enforced: Fraction,
    /// Instead of those of the routes.
    pub rules: Vec<Rule>,
    pub metadata_namespace: Box<str>,
    pub retry_after: bool,
}

/// Which requests are limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestKind {
    #[default]
    Both,
    Internal,
    External,
}

/// The rate limit service of a filter, and what it is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitService {
    pub domain: Box<str>,
    pub cluster: Name,
    pub authority: Box<str>,
    /// `initial_metadata` of the calls.
    pub metadata: Vec<(HeaderName, Template)>,
    /// `None`: as long as it takes.
    pub timeout: Option<Duration>,
}

/// `RateLimitPerRoute`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteRateLimit {
    pub virtual_host: VirtualHostLimits,
    /// Instead of those of routes and filter.
    pub rules: Vec<Rule>,
    pub domain: Option<Box<str>>,
}

/// `envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionRateLimit {
    pub stat_prefix: Name,
    pub bucket: TokenBucket,
    pub enabled: bool,
    /// Filters with this key and an equal bucket have one bucket; empty: it is the filter's own.
    pub share_key: Box<str>,
}

/// `envoy.extensions.filters.network.ratelimit.v3.RateLimit`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GlobalConnectionRateLimit {
    pub stat_prefix: Name,
    pub service: LimitService,
    /// What a connection counts as.
    pub descriptors: Vec<Vec<(Box<str>, Template)>>,
    pub failure_deny: bool,
}

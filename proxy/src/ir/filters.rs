//! What HTTP filters are configured to do, and what routes override of that.

use std::{sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, StatusCode};

use super::{
    Fraction,
    format::Template,
    matcher::{HeaderMatcher, StringMatcher},
    rbac::Rbac,
    route::{AppendAction, HeaderAdd},
};

/// `typed_per_filter_config` of one level: route configuration, virtual host, route or weighted cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Ordered by filter name, each at most once.
    pub filters: Box<[Override]>,
    /// The `cors` field of older configurations; it counts only where no level overrides the filter by its name.
    pub cors: Option<Arc<Cors>>,
}

impl Overrides {
    pub fn is_empty(&self) -> bool {
        self.filters.is_empty() && self.cors.is_none()
    }

    pub fn get(&self, filter: &str) -> Option<&Setting> {
        self.filters.iter().find(|o| *o.filter == *filter).map(|o| &o.setting)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// The name of the filter in the connection manager.
    pub filter: Box<str>,
    pub setting: Setting,
}

/// What one level says about one filter. Any of them but `Disabled` switches a disabled filter on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    Disabled,
    /// Nothing but that it runs.
    Enabled,
    Fault(Arc<Fault>),
    Cors(Arc<Cors>),
    HeaderMutation(Arc<Mutations>),
    /// `max_request_bytes`; `None` switches buffering off.
    Buffer(Option<u32>),
    /// `None`: nothing is decided here.
    Rbac(Option<Arc<Rbac>>),
}

/// `envoy.extensions.filters.http.fault.v3.HTTPFault`. The default injects nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    pub delay: Option<FaultDelay>,
    pub abort: Option<FaultAbort>,
    pub rate_limit: Option<FaultRate>,
    /// Only requests to this cluster.
    pub upstream_cluster: Option<Box<str>>,
    pub headers: Vec<HeaderMatcher>,
    /// Only requests whose `x-envoy-downstream-service-node` is among these; empty: all.
    pub downstream_nodes: Vec<Box<str>>,
    pub max_active: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultDelay {
    /// `None`: as the request's header says.
    pub duration: Option<Duration>,
    pub percentage: Fraction,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultAbort {
    pub kind: AbortKind,
    pub percentage: Fraction,
    /// Empty: Envoy's text.
    pub body: Box<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbortKind {
    Http(StatusCode),
    Grpc(u16),
    /// As the request's headers say.
    Header,
}

/// A limit on response bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultRate {
    /// KiB per second; `None`: as the request's header says.
    pub kbps: Option<u64>,
    pub percentage: Fraction,
}

/// A CORS policy of one level. What it leaves open, the next less specific level decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    pub allow_origins: Vec<StringMatcher>,
    pub allow_methods: Option<HeaderValue>,
    pub allow_headers: Option<HeaderValue>,
    pub expose_headers: Option<HeaderValue>,
    pub max_age: Option<HeaderValue>,
    pub allow_credentials: Option<bool>,
    pub allow_private_network: Option<bool>,
    pub forward_not_matching_preflights: Option<bool>,
    pub enabled: Fraction,
    /// Evaluated and counted, but not enforced.
    pub shadow: Option<Fraction>,
}

/// `envoy.extensions.filters.http.header_mutation.v3.Mutations`, in configured order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mutations {
    pub request: Vec<Mutation>,
    pub query: Vec<QueryMutation>,
    pub response: Vec<Mutation>,
    pub request_trailers: Vec<Mutation>,
    pub response_trailers: Vec<Mutation>,
}

impl Mutations {
    pub fn is_empty(&self) -> bool {
        self.query.is_empty()
            && [&self.request, &self.response, &self.request_trailers, &self.response_trailers]
                .iter()
                .all(|list| list.is_empty())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mutation {
    Add(HeaderAdd),
    Remove(HeaderName),
    /// Every header whose name matches.
    RemoveMatching(StringMatcher),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryMutation {
    Remove(Box<str>),
    Set { key: Box<str>, value: Template, action: AppendAction },
}

/// `envoy.extensions.filters.http.adaptive_concurrency.v3.AdaptiveConcurrency` with its gradient controller. Shares are
/// in millionths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Concurrency {
    /// Else the limit is only computed and reported.
    pub enforced: bool,
    /// Of the answer to a request beyond the limit.
    pub status: StatusCode,
    pub percentile: u32,
    pub max_limit: u32,
    pub min_limit: u32,
    pub update_interval: Duration,
    /// How often the least latency is measured; `None`: it is `fixed`.
    pub measurement_interval: Option<Duration>,
    pub fixed: Option<Duration>,
    /// Answers that a measurement takes.
    pub request_count: u32,
    pub jitter: u32,
    /// The limit while the least latency is measured.
    pub min_concurrency: u32,
    pub buffer: u32,
}

//! Tracing: which requests are sampled, what their spans say and who receives them.

use std::sync::Arc;

use http::{HeaderName, uri::PathAndQuery};

use super::{
    Fraction,
    format::Template,
    service::{GrpcService, HttpUri},
};

/// `HttpConnectionManager.tracing`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracing {
    pub shares: Shares,
    pub custom_tags: Vec<CustomTag>,
    /// Spans say when which part of the exchange passed.
    pub verbose: bool,
    /// Most characters of a path.
    pub max_path: usize,
    /// A span of its own for every try, below that of the request.
    pub spawn_upstream_span: bool,
    pub operation: Option<Template>,
    pub upstream_operation: Option<Template>,
    /// The context of the trace does not go into requests.
    pub no_context_propagation: bool,
    pub request_id: RequestId,
    /// `None`: the bootstrap's.
    pub provider: Option<Arc<OpenTelemetry>>,
}

/// Of all requests, the part that is traced: as the client asked, at random, and at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    pub client: Fraction,
    pub random: Fraction,
    pub overall: Fraction,
}

/// What tracing has to do with `x-request-id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId {
    /// The decision is noted in it.
    pub pack_reason: bool,
    /// It is what chance is taken from, so that all who see the request decide alike.
    pub decides: bool,
}

impl Default for RequestId {
    fn default() -> Self {
        Self { pack_reason: true, decides: true }
    }
}

/// A tag of every span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomTag {
    pub name: Box<str>,
    pub value: Template,
    /// Where the value is nothing.
    pub default: Box<str>,
}

/// What a route says of the traces of its requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteTracing {
    pub decorator: Option<Decorator>,
    /// Boxed: every route of a mesh has a decorator, few have more.
    pub own: Option<Box<OwnTracing>>,
}

/// `Route.tracing`: in place of what the connection manager says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnTracing {
    pub shares: Shares,
    /// Before those of the connection manager.
    pub custom_tags: Vec<CustomTag>,
    pub operation: Option<Template>,
    pub upstream_operation: Option<Template>,
}

/// `Route.decorator`: how the spans of a route are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decorator {
    pub operation: Box<str>,
    /// The proxy on the other side hears of it.
    pub propagate: bool,
}

/// `OpenTelemetryConfig`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenTelemetry {
    /// `None`: contexts go on, spans nowhere.
    pub collector: Option<Collector>,
    /// What spans say of the service, in the order of their sources; the last of a name counts.
    pub resource: Vec<(Box<str>, Box<str>)>,
    /// And what `OTEL_RESOURCE_ATTRIBUTES` of the environment has.
    pub detects_environment: bool,
    /// `set_instrumentation_scope`.
    pub scope: bool,
    pub sampler: Option<Sampler>,
    /// Spans that may wait.
    pub capacity: Option<usize>,
}

/// Who receives what is exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Collector {
    Grpc(GrpcService),
    Http(HttpCollector),
}

/// A collector that is sent requests with protobuf bodies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpCollector {
    pub uri: HttpUri,
    pub authority: Box<str>,
    pub path: PathAndQuery,
    pub headers: Vec<(HeaderName, Template)>,
}

/// OpenTelemetry's samplers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sampler {
    AlwaysOn,
    /// This part of all traces, by their ids.
    Ratio(Fraction),
    /// As the caller decided; where nobody did, as the inner one.
    ParentBased(Box<Sampler>),
    /// So many traces a second.
    RateLimited(u32),
}

//! The span of a request while it runs: what was seen of its heads, and its tries.

use std::{
    cell::RefCell,
    sync::Arc,
    time::{Instant, SystemTime},
};

use http::{HeaderMap, HeaderValue, Method};

use super::{
    DECORATOR, Tracing,
    context::{Extracted, SpanContext, SpanId, TraceId},
};
use crate::{
    ir::tracing::{OwnTracing, RouteTracing},
    telemetry::{
        access_log::{Captured, Names, collect},
        format::{Facts, Headers},
    },
};

/// Most bytes of a value that a request brought along.
const LONGEST: usize = 1024;
/// Tries that are told of, of one request.
const MOST_TRIES: usize = 16;

/// See the module's head. Shared like the record it belongs to.
#[derive(Debug)]
pub struct RequestSpan {
    pub(super) tracing: Arc<Tracing>,
    pub(super) origin: Origin,
    pub(super) start: SystemTime,
    pub(super) head: Head,
    pub(super) route: Option<Arc<RouteTracing>>,
    /// The headers that tags mention.
    pub(super) names: Arc<Names>,
    pub(super) seen: RefCell<Seen>,
}

/// Where a span hangs in its trace.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) context: SpanContext,
    pub(super) from: Extracted,
    pub(super) state: Option<Box<str>>,
    pub(super) started: Instant,
    pub(super) egress: bool,
}

/// A request's head as the span tells it.
#[derive(Debug)]
pub struct Head {
    pub method: Method,
    pub path: String,
    pub authority: String,
    pub scheme: &'static str,
    pub agent: Option<String>,
    pub request_id: Option<String>,
    pub downstream_cluster: Option<String>,
    pub client_trace: Option<String>,
    pub grpc: bool,
}

impl Head {
    /// From the parts of a request.
    pub fn new((method, path, scheme): (&Method, &str, &'static str), headers: &HeaderMap, grpc: bool) -> Self {
        let text = |name: &str| headers.get(name).map(bounded);
        Self {
            method: method.clone(),
            path: path.chars().take(LONGEST).collect(),
            authority: text("host").unwrap_or_default(),
            scheme,
            agent: text("user-agent"),
            request_id: text("x-request-id"),
            downstream_cluster: text("x-envoy-downstream-service-cluster"),
            client_trace: text("x-client-trace-id"),
            grpc,
        }
    }
}

fn bounded(value: &HeaderValue) -> String {
    let bytes = value.as_bytes();
    String::from_utf8_lossy(&bytes[..bytes.len().min(LONGEST)]).into_owned()
}

/// What was seen so far.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Another name, which the other side gave it.
    pub(super) operation: Option<Box<str>>,
    /// That name is not told to the client, who gave it.
    named_by_client: bool,
    pub(super) request: Captured,
    pub(super) response: Captured,
    pub(super) trailers: Captured,
    pub(super) grpc_status: Option<u16>,
    pub(super) tries: Vec<Try>,
}

/// One try of the request.
#[derive(Debug)]
pub(super) struct Try {
    pub(super) number: u32,
    pub(super) span: SpanId,
    pub(super) host: Arc<str>,
    pub(super) begin: Instant,
    pub(super) end: Option<Instant>,
    pub(super) result: Option<TryResult>,
}

/// What a try came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryResult {
    Status(u16),
    /// No response, for this kind of reason.
    Failed(&'static str),
}

impl RequestSpan {
    pub(super) fn new(
        tracing: Arc<Tracing>,
        origin: Origin,
        head: Head,
        (route, named): (Option<&Arc<RouteTracing>>, Option<HeaderValue>),
    ) -> Self {
        let mut names = tracing.names.clone();
        if let Some(own) = route.and_then(|route| route.own.as_ref()) {
            let templates = [&own.operation, &own.upstream_operation].into_iter().flatten();
            let names = Arc::make_mut(&mut names);
            templates.chain(own.custom_tags.iter().map(|tag| &tag.value)).for_each(|t| collect(t, names));
        }
        let named = named.as_ref().map(bounded).filter(|name| !name.is_empty());
        let seen = Seen { named_by_client: named.is_some(), operation: named.map(Into::into), ..Seen::default() };
        Self {
            start: SystemTime::now() - origin.started.elapsed(),
            tracing,
            origin,
            head,
            route: route.cloned(),
            names,
            seen: RefCell::new(seen),
        }
    }

    pub fn trace(&self) -> TraceId {
        self.origin.context.trace
    }

    /// The operation's name that the other side is to hear: of requests at an egress, of responses at an ingress.
    pub(super) fn announced(&self, egress: bool) -> Option<&str> {
        let decorator = self.route.as_ref()?.decorator.as_ref()?;
        let announces = decorator.propagate && self.origin.egress == egress && !self.has_own_name();
        announces.then_some(&*decorator.operation)
    }

    fn has_own_name(&self) -> bool {
        self.tracing.config.operation.is_some() || self.own().is_some_and(|own| own.operation.is_some())
    }

    /// What the route has in place of the connection manager's.
    pub(super) fn own(&self) -> Option<&OwnTracing> {
        self.route.as_ref()?.own.as_deref()
    }

    /// The request's head as it goes upstream, or stood when it was answered here.
    pub fn request_head(&self, head: &dyn Headers) {
        if !self.names.request.is_empty() {
            self.seen.borrow_mut().request.fill(&self.names.request, head);
        }
    }

    /// The response's head.
    pub fn response_head(&self, headers: &HeaderMap) {
        let mut seen = self.seen.borrow_mut();
        seen.response.fill(&self.names.response, headers);
        seen.note_grpc(headers);
    }

    pub fn trailers(&self, trailers: &HeaderMap) {
        let mut seen = self.seen.borrow_mut();
        seen.trailers.fill(&self.names.trailers, trailers);
        seen.note_grpc(trailers);
    }

    /// Names of operations travel with responses: one the upstream gave holds for this span, ours is told to clients.
    pub fn exchange_names(&self, headers: &mut HeaderMap) {
        if self.has_own_name() {
            return;
        }
        if self.origin.egress {
            if let Some(name) = headers.remove(&DECORATOR).map(|name| bounded(&name)).filter(|name| !name.is_empty()) {
                self.seen.borrow_mut().operation = Some(name.into());
            }
        } else if !self.seen.borrow().named_by_client
            && let Some(name) = self.announced(false).and_then(|name| HeaderValue::from_str(name).ok())
        {
            headers.insert(DECORATOR, name);
        }
    }

    /// A try goes to `host` with `headers`.
    pub fn try_begins(&self, number: u32, host: Arc<str>, headers: &mut HeaderMap) {
        let mut seen = self.seen.borrow_mut();
        if seen.tries.len() >= MOST_TRIES {
            return;
        }
        let span = SpanId::from_random(fastrand::u64(..));
        if self.tracing.config.spawn_upstream_span {
            let from = Extracted { parent: Some(self.parent()), ..self.origin.from };
            self.tracing.inject(SpanContext { span, ..self.origin.context }, &from, headers);
        }
        seen.tries.push(Try { number, span, host, begin: Instant::now(), end: None, result: None });
    }

    /// What became of a try; the one whose response goes to the client lasts as long as the request.
    pub fn try_ended(&self, number: u32, result: TryResult) {
        let mut seen = self.seen.borrow_mut();
        // From the latest: whoever is redirected counts from one again.
        if let Some(of) = seen.tries.iter_mut().rfind(|of| of.number == number && of.end.is_none()) {
            of.end = Some(Instant::now());
            of.result = Some(result);
        }
    }

    fn parent(&self) -> super::context::Parent {
        super::context::Parent { trace: self.origin.context.trace, span: self.origin.context.span }
    }

    /// The exchange is over.
    pub fn end(&self, facts: &Facts<'_>) {
        super::finish::end(self, facts);
    }
}

impl Seen {
    fn note_grpc(&mut self, headers: &HeaderMap) {
        let status = headers.get("grpc-status").and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
        self.grpc_status = status.or(self.grpc_status);
    }
}

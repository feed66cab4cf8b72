//! Tracing: the spans of requests, from the context a caller sent to the records a collector gets.
//!
//! [`Tracing`] is what a connection manager's configuration comes to. It decides once per request; a request that is
//! not sampled leaves nothing behind, one that is has a [`RequestSpan`] that its record ends. Refuses to know who asks
//! and how records are sent.

pub mod context;
mod finish;
mod redact;
pub mod sampling;
mod span;

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Instant,
};

use http::{HeaderMap, HeaderName, HeaderValue};

pub use self::span::{Head, RequestSpan, TryResult};
use self::{
    context::{Extracted, SpanContext, SpanId, TraceId},
    sampling::{Plea, RateLimit, Reason, Sample},
};
use super::{
    access_log::{Names, collect},
    format,
    metrics::Sharded,
    outbox::{CAPACITY, Counts, Destination, MOST, Outbox, Outboxes, Signal, resource},
    tracing_stats::TracingStats,
};
use crate::ir::{
    format::Template,
    tracing::{OpenTelemetry, RouteTracing, Sampler, Tracing as Config},
};

#[cfg(test)]
#[path = "trace/testing.rs"]
mod testing;
#[cfg(test)]
#[path = "trace/tests.rs"]
mod tests;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const CLIENT_TRACE: HeaderName = HeaderName::from_static("x-client-trace-id");
const FORCE_TRACE: HeaderName = HeaderName::from_static("x-envoy-force-trace");
const DECORATOR: HeaderName = HeaderName::from_static("x-envoy-decorator-operation");

/// The tracing of a connection manager.
#[derive(Debug)]
pub struct Tracing {
    config: Arc<Config>,
    provider: Arc<OpenTelemetry>,
    /// `None`: contexts go on, spans nowhere.
    outbox: Option<Arc<Outbox>>,
    /// The headers that its tags and names mention.
    names: Arc<Names>,
    stats: Arc<Sharded<TracingStats>>,
    limit: Arc<RateLimit>,
}

/// What the process has one of.
#[derive(Debug, Default)]
pub struct Tracers {
    pub outboxes: Outboxes,
    /// Bootstrap's `tracing`: for connection managers that name no provider.
    pub fallback: Option<Arc<OpenTelemetry>>,
    /// One for each rate that anybody named, for as long as somebody does.
    limits: Mutex<Vec<(u32, Weak<RateLimit>)>>,
}

impl Tracers {
    pub fn new(fallback: Option<Arc<OpenTelemetry>>, spans: Arc<Counts>) -> Self {
        Self { fallback, outboxes: Outboxes::new(spans), limits: Mutex::default() }
    }

    /// Tracing as configured; `None` where nobody was named that would receive anything.
    pub fn tracing(&self, config: &Arc<Config>, stats: impl FnOnce() -> Arc<Sharded<TracingStats>>) -> Option<Tracing> {
        let provider = config.provider.as_ref().or(self.fallback.as_ref())?.clone();
        let outbox = provider.collector.clone().map(|collector| {
            self.outboxes.of(Destination {
                collector,
                signal: Signal::Traces { resource: of_service(&provider), scope: provider.scope },
                capacity: provider.capacity.unwrap_or(CAPACITY).clamp(1, MOST),
            })
        });
        let mut names = Names::default();
        let templates = [&config.operation, &config.upstream_operation].into_iter().flatten();
        templates.chain(config.custom_tags.iter().map(|tag| &tag.value)).for_each(|t| collect(t, &mut names));
        Some(Tracing {
            config: config.clone(),
            outbox,
            names: Arc::new(names),
            stats: stats(),
            limit: self.limit(provider.sampler.as_ref().and_then(Sampler::rate)),
            provider,
        })
    }

    fn limit(&self, rate: Option<u32>) -> Arc<RateLimit> {
        let Some(rate) = rate else { return Arc::default() };
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        limits.retain(|(_, limit)| limit.strong_count() > 0);
        if let Some(known) = limits.iter().find(|(of, _)| *of == rate).and_then(|(_, limit)| limit.upgrade()) {
            return known;
        }
        let limit = Arc::default();
        limits.push((rate, Arc::downgrade(&limit)));
        limit
    }
}

/// A request about which is to be decided.
pub struct Request<'a> {
    pub headers: &'a mut HeaderMap,
    /// A look over the names found headers of a context.
    pub has_context: bool,
    /// The same for `x-client-trace-id`.
    pub has_client_id: bool,
    /// The same for what begins with `x-envoy-`.
    pub has_envoy: bool,
    /// The proxy calls for its application; otherwise somebody calls the application.
    pub egress: bool,
    pub route: Option<&'a Arc<RouteTracing>>,
    pub started: Instant,
}

impl Tracing {
    /// Decides about a request and puts the context of its span into its headers. `head` is asked for where it is
    /// sampled.
    pub fn open(
        self: &Arc<Self>,
        request: Request<'_>,
        head: impl FnOnce(&HeaderMap) -> Head,
    ) -> Option<Box<RequestSpan>> {
        let Request { headers, has_context, has_client_id, has_envoy, egress, route, started } = request;
        let (reason, noted) = self.reason(headers, (has_client_id, has_envoy), route);
        let from = if has_context { Extracted::of(headers) } else { Extracted::default() };
        let trace = from.parent.map_or_else(|| TraceId::from_random(fastrand::u128(..)), |parent| parent.trace);
        let sample = Sample { trace, now: nanos() };
        let sampled = sampling::sampled(self.provider.sampler.as_ref(), from.sampled, reason, &self.limit, &sample);
        if self.config.request_id.pack_reason && reason != noted {
            self.note(headers, reason);
        }
        // On the way in a caller may have named the operation; its name is for this proxy only.
        let named = (!egress && has_envoy).then(|| headers.remove(&DECORATOR)).flatten();
        if !sampled || self.outbox.is_none() {
            // A context that says what was decided goes on as it came: no span of ours stands between.
            if from.parent.is_none() || from.sampled != Some(sampled) {
                let span = from.parent.map_or_else(|| SpanId::from_random(fastrand::u64(..)), |parent| parent.span);
                self.inject(SpanContext { trace, span, sampled }, &from, headers);
            }
            return None;
        }
        let context = SpanContext { trace, span: SpanId::from_random(fastrand::u64(..)), sampled };
        let span = RequestSpan::new(
            self.clone(),
            span::Origin { context, from, state: from.state(headers), started, egress },
            head(headers),
            (route, named),
        );
        self.inject(context, &from, headers);
        if egress && let Some(operation) = span.announced(true).and_then(|name| HeaderValue::from_str(name).ok()) {
            headers.insert(DECORATOR, operation);
        }
        Some(Box::new(span))
    }

    /// Envoy's decision, and what the request id said before.
    fn reason(
        &self,
        headers: &HeaderMap,
        (has_client_id, has_envoy): (bool, bool),
        route: Option<&Arc<RouteTracing>>,
    ) -> (Reason, Reason) {
        let id = headers.get(&REQUEST_ID).and_then(|id| sampling::of_request_id(id.as_bytes()));
        let (draw, noted) = match id {
            Some((draw, noted)) if self.config.request_id.decides => (Some(draw), noted),
            Some((_, noted)) => (Some(fastrand::u32(..)), noted),
            None if self.config.request_id.decides => (None, Reason::NotTraceable),
            None => (Some(fastrand::u32(..)), Reason::NotTraceable),
        };
        let noted = if self.config.request_id.pack_reason { noted } else { Reason::NotTraceable };
        let plea = Plea {
            client_id: has_client_id && headers.contains_key(&CLIENT_TRACE),
            forced: has_envoy && headers.contains_key(&FORCE_TRACE),
        };
        let shares = route.and_then(|route| route.own.as_ref()).map_or(&self.config.shares, |own| &own.shares);
        let reason = sampling::reason(shares, plea, noted, draw);
        self.stats.local().count(reason);
        (reason, noted)
    }

    fn note(&self, headers: &mut HeaderMap, reason: Reason) {
        let id = headers.get(&REQUEST_ID).and_then(|id| sampling::with_reason(id.as_bytes(), reason));
        if let Some(Ok(mut id)) = id.map(|id| HeaderValue::from_maybe_shared(bytes::Bytes::from(id))) {
            id.set_sensitive(true);
            headers.insert(REQUEST_ID, id);
        }
    }

    fn inject(&self, context: SpanContext, from: &Extracted, headers: &mut HeaderMap) {
        if !self.config.no_context_propagation {
            context.inject(from, headers);
        }
    }
}

/// What spans say of the service: what is configured, and what the environment has.
fn of_service(provider: &OpenTelemetry) -> Box<[u8]> {
    let template = Template::parse("%ENVIRONMENT(OTEL_RESOURCE_ATTRIBUTES)%").unwrap_or_default();
    let environment = if provider.detects_environment { format::constant(&template) } else { String::new() };
    let decoded: Vec<_> = environment
        .split(',')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.trim(), percent_encoding::percent_decode_str(value.trim()).decode_utf8_lossy()))
        .collect();
    let configured = provider.resource.iter().map(|(key, value)| (&**key, &**value));
    resource(configured.chain(decoded.iter().map(|(key, value)| (*key, &**value))))
}

/// Nanoseconds of a clock that only goes forward.
fn nanos() -> u64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let since = START.get_or_init(Instant::now).elapsed().as_nanos();
    // Not from zero: what is saved up before the first request is not nothing.
    u64::try_from(since).unwrap_or(u64::MAX).saturating_add(10_000_000_000)
}

//! [`RequestRecord`]: the guard of one HTTP exchange that counts and logs.
//!
//! It is filled in while the exchange runs, through shared references, and speaks when the last holder drops it:
//! no exit path, cancelled futures and panics included, can forget to. What only a log line needs is not collected
//! when no logger is configured.

use std::{
    borrow::Cow,
    cell::{Cell, OnceCell, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Instant, SystemTime},
};

use http::{HeaderMap, Version};

use super::{
    access_log::{Captured, Loggers},
    flags::Flags,
    format::{Facts, Headers, Known, Times, millis},
    mesh::{self, Pair, Protocol},
    metadata::DynamicMetadata,
    metrics::{HttpStats, Sharded},
    record::{ConnInfo, UpstreamFacts},
    tap,
    trace::RequestSpan,
};
use crate::ir::Metadata;

mod counted;
mod failing;
mod finished;
#[cfg(test)]
#[path = "exchange_tests.rs"]
mod tests;

use self::failing::Telling;

/// What all requests of one downstream connection share.
#[derive(Debug)]
pub struct HttpScope {
    pub conn: Rc<ConnInfo>,
    pub stats: Arc<Sharded<HttpStats>>,
    pub logs: Arc<Loggers>,
    /// Istio's metrics, where they are wanted.
    pub mesh: Option<Box<mesh::Scope>>,
}

#[derive(Debug, Default)]
struct Seen {
    request: Captured,
    response: Captured,
    trailers: Captured,
    route: Option<Box<str>>,
    route_metadata: Option<Arc<Metadata>>,
    remote: Option<SocketAddr>,
    /// Somebody watched when the request began.
    tapped: bool,
    head: Option<Box<tap::Head>>,
}

/// One HTTP exchange. Shared between its request body, its response body and the pipeline.
#[derive(Debug)]
pub struct RequestRecord {
    scope: Rc<HttpScope>,
    version: Version,
    started: Instant,
    /// Asked of the clock only where a logger wants it.
    start_time: Option<SystemTime>,
    status: Cell<u16>,
    flags: Cell<Flags>,
    details: RefCell<Option<Cow<'static, str>>>,
    bytes_received: Cell<u64>,
    bytes_sent: Cell<u64>,
    request_done: Cell<Option<Instant>>,
    response_head: Cell<Option<Instant>>,
    response_done: Cell<bool>,
    ended: Cell<Option<Instant>>,
    upgraded: Cell<bool>,
    spoken: Cell<Protocol>,
    imagined: Cell<bool>,
    pair: RefCell<Option<Rc<Pair>>>,
    upstream: RefCell<UpstreamFacts>,
    seen: RefCell<Option<Box<Seen>>>,
    /// Of a request that is traced.
    span: OnceCell<Box<RequestSpan>>,
    /// Whether its failure, where it fails, is told to those who ask later.
    telling: RefCell<Telling>,
    /// What filters noted.
    pub metadata: DynamicMetadata,
}

impl RequestRecord {
    /// Opens the record of a request that just arrived.
    pub fn open(scope: Rc<HttpScope>, version: Version) -> Self {
        let stats = scope.stats.local();
        stats.downstream_rq_total.inc();
        stats.downstream_rq_active.inc();
        if version == Version::HTTP_2 { &stats.downstream_rq_http2_total } else { &stats.downstream_rq_http1_total }
            .inc();
        let tapped = tap::watched();
        let logged = tapped || !scope.logs.is_empty();
        Self {
            version,
            started: Instant::now(),
            start_time: logged.then(SystemTime::now),
            status: Cell::new(0),
            flags: Cell::default(),
            details: RefCell::default(),
            bytes_received: Cell::new(0),
            bytes_sent: Cell::new(0),
            request_done: Cell::new(None),
            response_head: Cell::new(None),
            response_done: Cell::new(false),
            ended: Cell::new(None),
            upgraded: Cell::new(false),
            spoken: Cell::new(Protocol::Http),
            imagined: Cell::new(false),
            pair: RefCell::default(),
            upstream: RefCell::default(),
            seen: RefCell::new(logged.then(|| Box::new(Seen { tapped, ..Seen::default() }))),
            span: OnceCell::new(),
            telling: RefCell::default(),
            metadata: DynamicMetadata::default(),
            scope,
        }
    }

    pub fn scope(&self) -> &Rc<HttpScope> {
        &self.scope
    }

    /// Whether somebody will want to know more than the counters do.
    pub fn logged(&self) -> bool {
        self.seen.borrow().is_some()
    }

    /// Notes from now on what a logger would want to know, even where there is none.
    pub fn watch(&self, remote: SocketAddr) {
        let mut seen = self.seen.borrow_mut();
        if seen.is_none() {
            *seen = Some(Box::new(Seen { remote: Some(remote), ..Seen::default() }));
        }
    }

    /// Traces the exchange from now on; `remote` is its client.
    pub fn trace(&self, span: Box<RequestSpan>, remote: SocketAddr) {
        self.watch(remote);
        // A request that goes on elsewhere stays the same one.
        let _ = self.span.set(span);
    }

    /// The span of a request that is traced.
    pub fn span(&self) -> Option<&RequestSpan> {
        self.span.get().map(|span| &**span)
    }

    pub fn version(&self) -> Version {
        self.version
    }

    pub fn started(&self) -> Instant {
        self.started
    }

    pub fn flag(&self, flag: Flags) {
        let mut flags = self.flags.get();
        flags.insert(flag);
        self.flags.set(flags);
    }

    /// Envoy's `response_code_details`.
    pub fn details(&self, details: impl Into<Cow<'static, str>>) {
        *self.details.borrow_mut() = Some(details.into());
    }

    /// Forgets flags and details of an attempt that a retry made good.
    pub fn clear_outcome(&self) {
        self.flags.set(Flags::default());
        self.details.borrow_mut().take();
    }

    /// The request is sent anew, its body with it.
    pub fn start_over(&self) {
        self.clear_outcome();
        self.metadata.clear();
        self.pair.take();
        self.bytes_received.set(0);
    }

    pub fn received(&self, bytes: usize) {
        self.bytes_received.set(self.bytes_received.get() + bytes as u64);
    }

    pub fn sent(&self, bytes: usize) {
        self.bytes_sent.set(self.bytes_sent.get() + bytes as u64);
    }

    /// The last byte of the request arrived.
    pub fn request_complete(&self) {
        if self.request_done.get().is_none() {
            self.request_done.set(Some(Instant::now()));
        }
    }

    pub fn request_done(&self) -> Option<Instant> {
        self.request_done.get()
    }

    /// The response's last byte (and trailers) left our hands.
    pub fn response_complete(&self) {
        self.response_done.set(true);
    }

    /// As [`Self::response_complete`], for what an upstream answered at this moment.
    pub fn response_complete_at(&self, now: Instant) {
        self.response_done.set(true);
        self.ended.set(Some(now));
    }

    /// Whether the response went out to its end.
    pub fn is_answered(&self) -> bool {
        self.response_done.get()
    }

    /// Whether all of a response was handed on; what became a tunnel has no end of its own.
    pub fn is_response_complete(&self) -> bool {
        self.response_done.get() && !self.upgraded.get()
    }

    /// Whether the response has begun and not ended.
    pub fn is_responding(&self) -> bool {
        self.status.get() != 0 && !self.response_done.get()
    }

    /// The exchange became a tunnel: its end is not a broken response.
    pub fn upgraded(&self) {
        self.upgraded.set(true);
        let stats = self.scope.stats.local();
        stats.downstream_cx_upgrades_total.inc();
        stats.downstream_cx_upgrades_active.inc();
    }

    /// Changes what is known of the upstream.
    pub fn upstream(&self, change: impl FnOnce(&mut UpstreamFacts)) {
        change(&mut self.upstream.borrow_mut());
    }

    /// Notes the request head as it goes upstream (or as it stood when a local reply was made).
    pub fn request_head(&self, head: &dyn Headers) {
        if let Some(seen) = &mut *self.seen.borrow_mut() {
            seen.request.fill(&self.scope.logs.names().request, head);
            if let Some(span) = self.span() {
                span.request_head(head);
            }
            if seen.tapped {
                seen.head = Some(Box::new(tap::Head::of(head)));
            }
        }
    }

    /// Notes the final response head.
    pub fn response_head(&self, status: u16, headers: &HeaderMap) {
        self.status.set(status);
        self.grpc_status(headers);
        if let Some(seen) = &mut *self.seen.borrow_mut() {
            self.response_head.set(Some(Instant::now()));
            seen.response.fill(&self.scope.logs.names().response, headers);
            if let Some(span) = self.span() {
                span.response_head(headers);
            }
        }
    }

    pub fn trailers(&self, trailers: &HeaderMap) {
        self.grpc_status(trailers);
        if let Some(seen) = &mut *self.seen.borrow_mut() {
            seen.trailers.fill(&self.scope.logs.names().trailers, trailers);
            if let Some(span) = self.span() {
                span.trailers(trailers);
            }
        }
    }

    pub fn route(&self, name: &str, metadata: &Option<Arc<Metadata>>) {
        if let Some(seen) = &mut *self.seen.borrow_mut() {
            seen.route = Some(name.into()).filter(|_| !name.is_empty());
            seen.route_metadata.clone_from(metadata);
        }
    }

    /// The client's address as trusted forwarding headers tell it.
    pub fn remote_address(&self, remote: SocketAddr) {
        if let Some(seen) = &mut *self.seen.borrow_mut() {
            seen.remote = Some(remote);
        }
    }

    /// Calls `with` with everything known so far.
    pub fn facts<T>(&self, request: Option<&dyn Headers>, with: impl FnOnce(&Facts<'_>) -> T) -> T {
        let (seen, upstream, details) = (self.seen.borrow(), self.upstream.borrow(), self.details.borrow());
        let since = |at: Option<Instant>| at.map(|at| millis(at.saturating_duration_since(self.started)));
        let names = self.scope.logs.names();
        let heads = seen.as_ref().map(|s| {
            (s.request.under(&names.request), s.response.under(&names.response), s.trailers.under(&names.trailers))
        });
        let dynamic = self.metadata.get();
        let via_upstream = (upstream.attempts > 0).then_some("via_upstream");
        with(&Facts {
            conn: &self.scope.conn,
            protocol: Some(protocol(self.version)),
            status: self.status.get(),
            flags: self.flags.get(),
            details: details.as_deref().or(via_upstream),
            start: self.start_time.unwrap_or_else(|| SystemTime::now() - self.started.elapsed()),
            times: Times {
                total: millis(self.started.elapsed()),
                request_done: since(self.request_done.get()),
                response_head: since(self.response_head.get()),
            },
            bytes_received: self.bytes_received.get(),
            bytes_sent: self.bytes_sent.get(),
            upstream: &upstream,
            downstream_failure: None,
            termination: None,
            trace: self.span().map(RequestSpan::trace),
            route: seen.as_ref().and_then(|s| s.route.as_deref()),
            remote: seen.as_ref().and_then(|s| s.remote).unwrap_or(self.scope.conn.remote),
            request: request.or(heads.as_ref().map(|h| &h.0 as &dyn Headers)),
            response: heads.as_ref().map(|h| &h.1 as &dyn Headers),
            trailers: heads.as_ref().map(|h| &h.2 as &dyn Headers),
            metadata: Known {
                dynamic: dynamic.as_deref(),
                route: seen.as_ref().and_then(|s| s.route_metadata.as_deref()),
            },
        })
    }
}

/// A protocol version as Envoy writes it.
pub fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        if !self.is_imagined() {
            self.finish();
        }
    }
}

mod imagined;

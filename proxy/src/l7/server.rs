//! One downstream HTTP connection from its first byte to its end.
//!
//! Decides the codec, runs it, and ends it in order: idle, too old, used up, drained or forced. Knows nothing of
//! routes. Invariant: a connection told to go away still gets answers to everything it had sent by then.

mod clocks;
mod drive;
mod filters;
mod http1;
mod http2;

use std::{
    cell::{Cell, RefCell},
    future::Future,
    rc::{Rc, Weak},
    sync::Arc,
    task::{Context, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Version;
use tokio::task::JoinSet;

use self::{
    clocks::Clocks,
    filters::{Filters, InForce},
};
use super::{engine::Engine, filters::OwnLimits, flow::Flow, headers::RequestView, reshape::Shape, wire};
use crate::{
    drain,
    ir::http::Codec,
    live::LiveHcm,
    net::io::Io,
    telemetry::{exchange::HttpScope, mesh, record::ConnInfo},
};

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::support as tests_support;

/// How long the first bytes (and an unfinished head) may take where nothing is configured.
const DEFAULT_HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a connection that never said anything is kept once the proxy drains.
const SILENT_AT_DRAIN: Duration = Duration::from_secs(1);
/// Resets of streams the application has not seen yet that are tolerated: more is the "rapid reset" attack.
const PENDING_RESETS: usize = 20;
/// Streams reset because of the peer's errors that are tolerated.
const ERROR_RESETS: usize = 256;

/// What the requests of a connection share.
pub(super) struct Connection {
    pub scope: Rc<HttpScope>,
    pub hcm: Arc<LiveHcm>,
    filters: Filters,
    pub engine: Rc<Engine>,
    wire: Arc<wire::Shared>,
    active: Cell<usize>,
    taken: Cell<u32>,
    idle_since: Cell<Instant>,
    closing: Cell<bool>,
    /// The newest exchange: on HTTP/1 the only one that can be writing its response.
    current: RefCell<Weak<Flow>>,
    /// Made for the first one.
    tunnels: RefCell<Option<Box<JoinSet<()>>>>,
    /// Rate limits that this connection has for itself.
    pub limits: OwnLimits,
    /// Its codec must not be given up.
    restless: Cell<bool>,
    /// What serves it is being polled.
    in_turn: Cell<bool>,
    /// Of what serves it, as long as it does not idle.
    waker: RefCell<Option<Waker>>,
    /// Tells that other filters are in force.
    pub changes: Option<Rc<drain::Changes>>,
}

/// An exchange that keeps its connection from being idle.
pub(super) struct Active(Rc<Connection>);

impl Connection {
    fn new(
        scope: Rc<HttpScope>,
        hcm: Arc<LiveHcm>,
        engine: Rc<Engine>,
        changes: Option<Rc<drain::Changes>>,
    ) -> Rc<Self> {
        Rc::new(Self {
            scope,
            filters: Filters::new(&hcm),
            hcm,
            engine,
            wire: wire::Shared::new(),
            active: Cell::new(0),
            taken: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
            closing: Cell::new(false),
            current: RefCell::default(),
            tunnels: RefCell::default(),
            limits: OwnLimits::default(),
            restless: Cell::new(false),
            in_turn: Cell::new(false),
            waker: RefCell::default(),
            changes,
        })
    }

    /// A connection that nobody made, to decide on a request as if it came that way. It counts nowhere.
    pub(super) fn imagined(info: Rc<ConnInfo>, hcm: Arc<LiveHcm>, engine: Rc<Engine>) -> Rc<Self> {
        let scope = HttpScope { conn: info, stats: Arc::default(), logs: Arc::default(), mesh: None };
        Self::new(Rc::new(scope), hcm, engine, None)
    }

    /// Opens the record of a new request.
    pub(super) fn open(self: &Rc<Self>, version: Version) -> Rc<Flow> {
        self.wire.busy();
        self.active.set(self.active.get() + 1);
        self.taken.set(self.taken.get().saturating_add(1));
        let flow = Flow::open(self.scope.clone(), version, Some(Active(self.clone())));
        *self.current.borrow_mut() = Rc::downgrade(&flow);
        flow
    }

    /// How our own answers to a request are to look, where that is configured.
    pub(super) fn shape<'a>(&'a self, request: &'a RequestView<'a>) -> Option<Shape<'a>> {
        self.hcm.config.local_reply.as_deref().map(|config| Shape { config, request })
    }

    /// The filters that are in force.
    pub(super) fn filters(&self) -> InForce {
        self.filters.get(&self.hcm.standing)
    }

    /// Whether the response under way should be the connection's last.
    pub(super) fn last_request(&self) -> bool {
        self.closing.get() || self.used_up()
    }

    fn used_up(&self) -> bool {
        self.hcm.config.max_requests_per_connection.is_some_and(|max| self.taken.get() >= max)
    }

    /// Whether the codec of an idle HTTP/1 connection may be given up: everything is written and nothing of a head came.
    fn may_rest(&self) -> bool {
        !self.restless.get() && self.wire.at_rest()
    }

    /// Polls what serves the connection. An exchange that ends elsewhere later on has it polled once more: only then is
    /// it seen that the connection idles.
    fn turn<T>(&self, cx: &mut Context<'_>, poll: impl FnOnce(&mut Context<'_>) -> T) -> T {
        self.in_turn.set(true);
        let result = poll(cx);
        self.in_turn.set(false);
        if self.active.get() > 0 {
            match &mut *self.waker.borrow_mut() {
                Some(known) => known.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
        }
        result
    }

    /// Runs a tunnel that lives and dies with the connection.
    pub(super) fn spawn(&self, tunnel: impl Future<Output = ()> + 'static) {
        let mut tunnels = self.tunnels.borrow_mut();
        let tunnels = tunnels.get_or_insert_default();
        while tunnels.try_join_next().is_some() {}
        tunnels.spawn_local(tunnel);
    }
}

impl Active {
    pub(super) fn connection(&self) -> &Rc<Connection> {
        &self.0
    }

    /// The request was read to its end: what comes next is another head.
    pub(super) fn next_is_head(&self) {
        self.0.wire.idle();
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        let active = self.0.active.get() - 1;
        self.0.active.set(active);
        if active == 0 {
            self.0.idle_since.set(Instant::now());
            if !self.0.in_turn.get()
                && let Some(waker) = &*self.0.waker.borrow()
            {
                waker.wake_by_ref();
            }
        }
    }
}

/// Counts a connection for as long as it is served.
struct Counted<'a>(&'a HttpScope);

impl<'a> Counted<'a> {
    fn new(scope: &'a HttpScope, http2: bool) -> Self {
        let stats = scope.stats.local();
        stats.downstream_cx_total.inc();
        stats.downstream_cx_active.inc();
        if http2 { &stats.downstream_cx_http2_total } else { &stats.downstream_cx_http1_total }.inc();
        Self(scope)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let stats = self.0.stats.local();
        stats.downstream_cx_active.dec();
        stats.downstream_cx_destroy.inc();
        stats.downstream_cx_length_ms.time(self.0.conn.started_at.elapsed());
    }
}

/// Serves a connection until it ends.
pub async fn serve(mut io: Io, info: Rc<ConnInfo>, hcm: Arc<LiveHcm>, engine: Rc<Engine>, signal: drain::Signal) {
    // Boxed, as all that is over soon or rare: a connection that idles for hours must not keep room for it.
    let Some((is_http2, prefix)) = Box::pin(codec(&mut io, &info, &hcm, &signal)).await else { return };
    let mesh = hcm.mesh.as_ref().map(|reporting| Box::new(mesh::Scope::new(reporting.clone(), &info)));
    let scope = Rc::new(HttpScope { conn: info, stats: hcm.stats.clone(), logs: hcm.logs.clone(), mesh });
    let _counted = Counted::new(&scope, is_http2);
    let conn = Connection::new(scope.clone(), hcm, engine, signal.changes());
    let clocks = Clocks::new(signal.clone());
    if is_http2 {
        Box::pin(http2::serve(io, prefix, &conn, clocks)).await;
    } else {
        http1::serve(io, prefix, &conn, clocks).await;
    }
    // An upgraded connection goes on without hyper; dropping the set ends its tunnel.
    if let Some(tunnels) = conn.tunnels.take() {
        Box::pin(finish(tunnels, signal)).await;
    }
}

async fn finish(mut tunnels: Box<JoinSet<()>>, mut signal: drain::Signal) {
    tokio::select! {
        () = async { while tunnels.join_next().await.is_some() {} } => {}
        () = signal.forced() => {}
    }
}

/// Ends the wait for a first byte when the proxy drains. Not at once: a connection accepted in the last moment is to be
/// served, and its first request is on its way.
async fn silent_at_drain(signal: &mut drain::Signal) {
    signal.draining().await;
    let _ = tokio::time::timeout(SILENT_AT_DRAIN, signal.forced()).await;
}

/// HTTP/2 or not, with what had to be read to know; `None` when nothing (in time) came.
async fn codec(io: &mut Io, info: &ConnInfo, hcm: &LiveHcm, signal: &drain::Signal) -> Option<(bool, Bytes)> {
    let alpn = info.tls.as_ref().and_then(|tls| tls.alpn.as_deref());
    match (hcm.config.codec, alpn) {
        (Codec::Http1, _) => Some((false, Bytes::new())),
        (Codec::Http2, _) | (Codec::Auto, Some("h2")) => Some((true, Bytes::new())),
        (Codec::Auto, Some("http/1.1" | "http/1.0")) => Some((false, Bytes::new())),
        (Codec::Auto, _) => {
            let patience =
                hcm.config.idle_timeout.or(hcm.config.request_headers_timeout).unwrap_or(DEFAULT_HEAD_TIMEOUT);
            let mut signal = signal.clone();
            let found = tokio::select! {
                found = tokio::time::timeout(patience, wire::detect(io)) => found.ok()?.ok()?,
                () = silent_at_drain(&mut signal) => return None,
            };
            // A peer that closed without a word.
            (!found.1.is_empty()).then_some(found)
        }
    }
}

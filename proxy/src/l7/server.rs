//! One downstream HTTP connection from its first byte to its end.
//!
//! Decides the codec, runs it, and ends it in order: idle, too old, used up, drained or forced. Knows nothing of
//! routes. Invariant: a connection told to go away still gets answers to everything it had sent by then.

mod drive;

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::pin,
    rc::{Rc, Weak},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Version;
use hyper::{
    rt::Executor,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::JoinSet;

use self::drive::drive;
use super::{
    MAX_FRAME,
    engine::Engine,
    flow::Flow,
    pipeline::handle,
    wire::{self, Wire},
};
use crate::{
    drain,
    ir::http::Codec,
    live::LiveHcm,
    net::io::Io,
    telemetry::{exchange::HttpScope, record::ConnInfo},
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
    pub engine: Rc<Engine>,
    wire: Arc<wire::Shared>,
    active: Cell<usize>,
    taken: Cell<u32>,
    idle_since: Cell<Instant>,
    closing: Cell<bool>,
    /// The newest exchange: on HTTP/1 the only one that can be writing its response.
    current: RefCell<Weak<Flow>>,
    tunnels: RefCell<JoinSet<()>>,
}

/// An exchange that keeps its connection from being idle.
pub(super) struct Active(Rc<Connection>);

impl Connection {
    /// Opens the record of a new request.
    pub(super) fn open(self: &Rc<Self>, version: Version) -> Rc<Flow> {
        self.wire.busy();
        self.active.set(self.active.get() + 1);
        self.taken.set(self.taken.get().saturating_add(1));
        let flow = Flow::open(self.scope.clone(), version, Some(Active(self.clone())));
        *self.current.borrow_mut() = Rc::downgrade(&flow);
        flow
    }

    /// Whether the response under way should be the connection's last.
    pub(super) fn last_request(&self) -> bool {
        self.closing.get() || self.used_up()
    }

    fn used_up(&self) -> bool {
        self.hcm.config.max_requests_per_connection.is_some_and(|max| self.taken.get() >= max)
    }

    /// Runs a tunnel that lives and dies with the connection.
    pub(super) fn spawn(&self, tunnel: impl Future<Output = ()> + 'static) {
        let mut tunnels = self.tunnels.borrow_mut();
        while tunnels.try_join_next().is_some() {}
        tunnels.spawn_local(tunnel);
    }
}

impl Active {
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
        }
    }
}

/// Spawns HTTP/2 streams onto the worker's own task set.
#[derive(Clone, Copy)]
struct Local;

impl<F: Future + 'static> Executor<F> for Local
where
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
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
    }
}

/// Serves a connection until it ends.
pub async fn serve(mut io: Io, info: Rc<ConnInfo>, hcm: Arc<LiveHcm>, engine: Rc<Engine>, signal: drain::Signal) {
    let Some((is_http2, prefix)) = codec(&mut io, &info, &hcm, &signal).await else { return };
    let scope = Rc::new(HttpScope { conn: info, stats: hcm.stats.clone(), logs: hcm.logs.clone() });
    let _counted = Counted::new(&scope, is_http2);
    let conn = Rc::new(Connection {
        scope: scope.clone(),
        hcm,
        engine,
        wire: wire::Shared::new(),
        active: Cell::new(0),
        taken: Cell::new(0),
        idle_since: Cell::new(Instant::now()),
        closing: Cell::new(false),
        current: RefCell::default(),
        tunnels: RefCell::default(),
    });
    if is_http2 {
        http2(io, prefix, &conn, &signal).await;
    } else {
        http1(io, prefix, &conn, &signal).await;
    }
    // An upgraded connection goes on without hyper; dropping the set ends its tunnel.
    let mut tunnels = conn.tunnels.take();
    let mut signal = signal;
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

async fn http1(io: Io, prefix: Bytes, conn: &Rc<Connection>, signal: &drain::Signal) {
    let config = &conn.hcm.config;
    let header_bytes = config.max_header_bytes.max(1024) as usize;
    let mut builder = http1::Builder::new();
    builder
        .keep_alive(true)
        // A client that closes its side has left, as Envoy and nginx see it: its request is cancelled.
        .half_close(false)
        .preserve_header_case(config.http1.preserve_case)
        .max_header_size(header_bytes)
        // Of bodies: heads have the limit above.
        .max_buf_size(header_bytes.max(240 * 1024) + 16 * 1024)
        .timer(TokioTimer::new())
        // Timed in `drive`: hyper's own timer also runs while a connection merely idles.
        .header_read_timeout(None);
    if config.max_header_count != 100 {
        builder.max_headers(config.max_header_count as usize);
    }
    let wire = Wire::http1(io, prefix, conn.wire.clone(), config.http1.trailers);
    let service = {
        let conn = conn.clone();
        service_fn(move |request| handle(conn.clone(), request))
    };
    let running = pin!(builder.serve_connection(TokioIo::new(wire), service).with_upgrades());
    drive(running, |running| running.graceful_shutdown(), (conn, false), signal).await;
}

async fn http2(io: Io, prefix: Bytes, conn: &Rc<Connection>, signal: &drain::Signal) {
    let config = &conn.hcm.config;
    let options = &config.http2;
    let mut builder = http2::Builder::new(Local);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(options.max_concurrent_streams)
        .max_frame_size(MAX_FRAME)
        .initial_stream_window_size(options.stream_window)
        .initial_connection_window_size(options.connection_window)
        .max_header_list_size(config.max_header_bytes)
        .keep_alive_interval(options.keepalive_interval)
        .keep_alive_timeout(options.keepalive_timeout)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(ERROR_RESETS);
    if options.allow_connect {
        builder.enable_connect_protocol();
    }
    let wire = Wire::http2(io, prefix, conn.wire.clone());
    let service = {
        let conn = conn.clone();
        service_fn(move |request| handle(conn.clone(), request))
    };
    let running = pin!(builder.serve_connection(TokioIo::new(wire), service));
    drive(running, |running| running.graceful_shutdown(), (conn, true), signal).await;
}

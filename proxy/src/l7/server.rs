//! One downstream HTTP connection from its first byte to its end.
//!
//! Decides the codec, runs it, and ends it in order: idle, too old, used up, drained or forced. Knows nothing of
//! routes. Invariant: a connection told to go away still gets answers to everything it had sent by then.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
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
use tokio::{task::JoinSet, time::Sleep};

use super::{
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

/// How long the first bytes (and an unfinished head) may take where nothing is configured.
const DEFAULT_HEAD_TIMEOUT: Duration = Duration::from_secs(60);
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
        Flow::open(self.scope.clone(), version, Some(Active(self.clone())))
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
                () = signal.forced() => return None,
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
        .max_buf_size(header_bytes.max(64 * 1024) + 16 * 1024)
        .timer(TokioTimer::new())
        // Timed in `drive`: hyper's own timer also runs while a connection merely idles.
        .header_read_timeout(None);
    if config.max_header_count != 100 {
        builder.max_headers(config.max_header_count as usize);
    }
    let wire = Wire::http1(io, prefix, conn.wire.clone());
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

/// Runs a codec to its end, with all the clocks on it.
async fn drive<F: Future<Output = hyper::Result<()>>>(
    mut running: Pin<&mut F>,
    shutdown: impl Fn(Pin<&mut F>),
    (conn, is_http2): (&Rc<Connection>, bool),
    signal: &drain::Signal,
) {
    let (mut draining, mut forced) = (signal.clone(), signal.clone());
    let mut draining = pin!(draining.draining());
    let mut forced = pin!(forced.forced());
    let mut timer = pin!(None::<Sleep>);
    let mut ending = Ending::default();
    let stats = conn.scope.stats.local();
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(result) = running.as_mut().poll(cx) {
                if let Err(error) = result {
                    note_error(conn, &error);
                }
                return Poll::Ready(());
            }
            if forced.as_mut().poll(cx).is_ready() {
                stats.downstream_cx_drain_close.inc();
                conn.wire.abort();
                return Poll::Ready(());
            }
            if !ending.begun {
                let drained = draining.as_mut().poll(cx).is_ready();
                if drained {
                    stats.downstream_cx_drain_close.inc();
                }
                if drained || conn.used_up() {
                    ending.begin(conn);
                    if is_http2 {
                        ending.shut = true;
                        shutdown(running.as_mut());
                        continue;
                    }
                }
            }
            let Some((at, due)) = ending.next(conn, is_http2) else { return Poll::Pending };
            if Instant::now() < at {
                if poll_timer(timer.as_mut(), at, cx).is_pending() {
                    return Poll::Pending;
                }
                continue;
            }
            match due {
                Due::Head => {
                    stats.downstream_rq_header_timeout.inc();
                    return Poll::Ready(());
                }
                Due::Idle => stats.downstream_cx_idle_timeout.inc(),
                Due::Old => {
                    stats.downstream_cx_max_duration_reached.inc();
                    ending.begin(conn);
                    if !is_http2 {
                        continue;
                    }
                }
                Due::Shutdown => {}
            }
            ending.begin(conn);
            ending.shut = true;
            shutdown(running.as_mut());
        }
    })
    .await;
}

fn note_error(conn: &Connection, error: &hyper::Error) {
    tracing::debug!(%error, "downstream connection ended with an error");
    if error.is_parse() || error.is_parse_too_large() || conn.wire.refused() {
        conn.scope.stats.local().downstream_cx_protocol_error.inc();
    }
    if error.is_user() {
        // A response was cut off: the close must not look like its end.
        conn.wire.abort();
    }
}

/// How far a connection's end has come.
#[derive(Default)]
struct Ending {
    /// Responses say `Connection: close` from now on.
    begun: bool,
    /// Close an HTTP/1 connection then, if no request used the last chance.
    shutdown_at: Option<Instant>,
    shut: bool,
}

enum Due {
    Head,
    Idle,
    Old,
    Shutdown,
}

impl Ending {
    fn begin(&mut self, conn: &Connection) {
        if !self.begun {
            self.begun = true;
            conn.closing.set(true);
            // Closing an idle HTTP/1 connection at once would race with a request already on its way.
            self.shutdown_at = Some(Instant::now() + conn.hcm.config.drain_timeout);
        }
    }

    /// What the clock brings next.
    fn next(&self, conn: &Connection, is_http2: bool) -> Option<(Instant, Due)> {
        if self.shut {
            return None;
        }
        let config = &conn.hcm.config;
        let idle =
            config.idle_timeout.filter(|_| conn.active.get() == 0).map(|t| (conn.idle_since.get() + t, Due::Idle));
        let old =
            config.max_connection_duration.filter(|_| !self.begun).map(|t| (conn.scope.conn.started_at + t, Due::Old));
        let head = (!is_http2)
            .then(|| conn.wire.head_since())
            .flatten()
            .map(|since| (since + config.request_headers_timeout.unwrap_or(DEFAULT_HEAD_TIMEOUT), Due::Head));
        let shutdown = self.shutdown_at.map(|at| (at, Due::Shutdown));
        [idle, old, head, shutdown].into_iter().flatten().min_by_key(|(at, _)| *at)
    }
}

fn poll_timer(mut timer: Pin<&mut Option<Sleep>>, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
    // A timer that fires early costs one look at the clock; resetting it per request would cost more.
    let late = timer.as_ref().as_pin_ref().is_none_or(|t| t.is_elapsed() || t.deadline() > at.into());
    if late {
        match timer.as_mut().as_pin_mut() {
            Some(sleep) => sleep.reset(at.into()),
            None => timer.set(Some(tokio::time::sleep_until(at.into()))),
        }
    }
    timer.as_pin_mut().expect("just set").poll(cx)
}

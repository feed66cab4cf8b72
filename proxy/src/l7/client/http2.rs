//! One HTTP/2 connection, shared by as many requests as both sides allow.
//!
//! Owns the count of streams and the decision whether the connection takes another. A connection that was told to go
//! away, lived too long or belongs to the past takes no new streams and ends with its last one.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    rc::{Rc, Weak},
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use http::Request;
use hyper::client::conn::http2::{Builder, Connection, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};

use super::{
    Payload,
    failure::{self, Stream},
    http1::MAX_HEADER_BYTES,
    lane::Lane,
    metered::{Meter, Metered},
    request::prepare,
    types::{Carrier, Facts, HttpProtocol, SendError, SendErrorKind, Sent, StreamGuard},
};
use crate::{
    ir,
    telemetry::metrics::{ClusterStats, Sharded},
    upstream::{Cluster, RequestPermit},
};

/// Runs hyper's tasks on the worker's own thread.
#[derive(Clone, Copy, Debug)]
struct Local;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

type Driven<B> = Connection<TokioIo<Metered>, B, Local>;

pub(super) struct H2<B: Payload> {
    lane: Weak<Lane<B>>,
    facts: Rc<Facts>,
    config: Arc<ir::cluster::Cluster>,
    stats: Arc<Sharded<ClusterStats>>,
    /// `None` once it takes no more streams; dropping it lets hyper end the connection after the last one.
    sender: RefCell<Option<SendRequest<B>>>,
    /// Shared with the task that runs it, to ask for the peer's limit on streams.
    driven: Rc<RefCell<Option<Driven<B>>>>,
    meter: Arc<Meter>,
    generation: Option<u64>,
    opened: Instant,
    parked: Cell<Instant>,
    active: Cell<u32>,
    served: Cell<u32>,
    /// Responses have come over it.
    proven: Cell<bool>,
}

/// Starts HTTP/2 on `io`.
pub(super) async fn open<B: Payload>(
    lane: &Rc<Lane<B>>,
    cluster: &Cluster,
    io: Metered,
    facts: Rc<Facts>,
    generation: Option<u64>,
) -> hyper::Result<Rc<H2<B>>> {
    let config = cluster.config.clone();
    let (options, meter) = (&config.http.http2, io.meter());
    let (sender, connection) = Builder::new(Local)
        .timer(TokioTimer::new())
        .max_frame_size(crate::l7::MAX_FRAME)
        .initial_stream_window_size(options.stream_window)
        .initial_connection_window_size(options.connection_window)
        .initial_max_send_streams(lane.peer_streams() as usize)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_send_buf_size((config.buffer_limit as usize).clamp(16 * 1024, 1024 * 1024))
        .keep_alive_interval(options.keepalive_interval)
        .keep_alive_timeout(options.keepalive_timeout)
        .keep_alive_while_idle(true)
        .handshake(TokioIo::new(io))
        .await?;
    cluster.stats.local().upstream_cx_http2_total.inc();
    let now = Instant::now();
    let driven = Rc::new(RefCell::new(Some(connection)));
    let shared = Rc::new(H2 {
        lane: Rc::downgrade(lane),
        facts,
        stats: cluster.stats.clone(),
        config,
        sender: RefCell::new(Some(sender)),
        driven: driven.clone(),
        meter,
        generation,
        opened: now,
        parked: Cell::new(now),
        active: Cell::new(0),
        served: Cell::new(0),
        proven: Cell::new(false),
    });
    tokio::task::spawn_local(Driver { driven, shared: shared.clone() });
    Ok(shared)
}

struct Driver<B: Payload> {
    driven: Rc<RefCell<Option<Driven<B>>>>,
    shared: Rc<H2<B>>,
}

impl<B: Payload> Future for Driver<B> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut driven = self.driven.borrow_mut();
        let Some(connection) = driven.as_mut() else { return Poll::Ready(()) };
        Pin::new(connection).poll(cx).map(|result| {
            if let Err(error) = result {
                tracing::debug!(host = %self.shared.facts.host, %error, "upstream HTTP/2 connection ended");
            }
        })
    }
}

impl<B: Payload> Drop for Driver<B> {
    fn drop(&mut self) {
        // Requests still queued in the connection get their answer (that they were not sent) when it is dropped.
        let ended = self.driven.try_borrow_mut().map(|mut d| d.take());
        drop(ended);
        self.shared.drain();
    }
}

impl<B: Payload> H2<B> {
    /// How many streams may be open now. Beyond the peer's limit h2 would queue them behind the others.
    fn limit(&self) -> u32 {
        let ours = self.config.http.http2.max_concurrent_streams.max(1);
        let Some(lane) = self.lane.upgrade() else { return ours };
        // Before its first frame, which is SETTINGS, a connection goes by what others of the lane were told. While it
        // is being polled nobody can ask it either.
        if self.meter.read() > 0
            && let Ok(driven) = self.driven.try_borrow()
            && let Some(connection) = driven.as_ref()
        {
            let peers = u32::try_from(connection.current_max_send_streams()).unwrap_or(u32::MAX);
            // A connection that allows none right now says nothing of the next: one stream can always be asked for.
            lane.learn_peer_streams(peers.max(1));
            return ours.min(peers);
        }
        ours.min(lane.peer_streams())
    }

    /// Reserves a stream.
    pub(super) fn lease(&self) -> bool {
        let open = self.sender.borrow().as_ref().is_some_and(|s| !s.is_closed());
        let usable = open && self.active.get() < self.limit() && !self.is_used_up();
        if usable {
            self.active.set(self.active.get() + 1);
            self.served.set(self.served.get().saturating_add(1));
        }
        usable
    }

    /// Gives a reservation back that was not used.
    pub(super) fn unlease(&self) {
        self.active.set(self.active.get() - 1);
        self.served.set(self.served.get().saturating_sub(1));
    }

    fn is_used_up(&self) -> bool {
        self.config.http.max_requests_per_connection.is_some_and(|max| self.served.get() >= max.max(1))
    }

    /// The stream is over.
    pub(super) fn release(self: Rc<Self>) {
        self.active.set(self.active.get() - 1);
        if self.active.get() == 0 {
            self.parked.set(Instant::now());
            if self.is_used_up() {
                return self.drain();
            }
        }
        if let Some(lane) = self.lane.upgrade() {
            lane.offer_http2(&self);
        }
    }

    /// Takes no more streams; the connection ends after its last one.
    pub(super) fn drain(self: &Rc<Self>) {
        if self.sender.borrow_mut().take().is_some()
            && let Some(lane) = self.lane.upgrade()
        {
            lane.forget_http2(self);
        }
    }

    pub(super) fn sweep(self: &Rc<Self>, now: Instant, removed: bool, generation: Option<u64>) {
        let http = &self.config.http;
        let idle = now.saturating_duration_since(self.parked.get());
        let timed_out = self.active.get() == 0 && http.idle_timeout.is_some_and(|limit| idle >= limit);
        if timed_out {
            self.stats.local().upstream_cx_idle_timeout.inc();
        }
        let aged = http.max_connection_duration.is_some_and(|l| now.saturating_duration_since(self.opened) >= l);
        if timed_out || aged || removed || generation != self.generation {
            self.drain();
        }
    }
}

impl<B: Payload> Carrier for H2<B> {
    fn release(self: Rc<Self>) {
        Self::release(self);
    }

    /// Dropping the response (or the wait for it) has reset the stream already; the connection goes on.
    fn abort(self: Rc<Self>) {
        Self::release(self);
    }
}

pub(super) async fn send<B: Payload>(
    connection: Rc<H2<B>>,
    mut request: Request<B>,
    permit: RequestPermit,
) -> Result<Sent, Box<SendError<B>>> {
    let facts = connection.facts.clone();
    let new_connection = !connection.proven.get();
    let guard = StreamGuard::new(connection.clone(), permit);
    let fail =
        |kind, reason: String, request| Box::new(SendError { kind, request, reason, facts: Some(facts.clone()) });
    if let Err(reason) = prepare(&mut request, HttpProtocol::Http2, facts.tls.is_some()) {
        return Err(fail(SendErrorKind::Protocol, reason.to_owned(), Some(request)));
    }
    let sent = match connection.sender.borrow_mut().as_mut() {
        Some(sender) => sender.try_send_request(request),
        None => return Err(fail(SendErrorKind::Unsent, "the connection is closed".to_owned(), Some(request))),
    };
    match sent.await {
        Ok(response) => {
            connection.proven.set(true);
            Ok(Sent { response, guard, facts, new_connection })
        }
        Err(mut error) => {
            if let Some(request) = error.take_message() {
                // hyper's side of the connection is gone: nobody else shall try it.
                connection.drain();
                return Err(fail(SendErrorKind::Unsent, error.error().to_string(), Some(request)));
            }
            let stream = Stream { reused: !new_connection, response_started: false, unwritten: false };
            let (kind, reason) = failure::classify(error.error(), stream);
            if failure::ends_connection(error.error()) {
                connection.drain();
            }
            Err(fail(kind, reason, None))
        }
    }
}

//! One HTTP/1 connection: one request at a time, parked in between.
//!
//! Owns the decision whether the connection may carry another request: hyper must have finished both messages, the
//! server must not have said otherwise, the socket must be quiet. A connection whose stream was given up is closed.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    os::fd::RawFd,
    pin::Pin,
    rc::{Rc, Weak},
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderName, Request, Response};
use http_body::Body as _;
use hyper::client::conn::{
    TrySendError,
    http1::{Builder, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::task::AbortHandle;

use super::{
    Payload,
    failure::{self, Stream},
    lane::Lane,
    metered::{Meter, Metered, is_dead},
    request::prepare,
    types::{Carrier, Facts, HttpProtocol, SendError, SendErrorKind, Sent, StreamGuard},
};
use crate::{
    ir,
    l7::{headers::chunked_at_most, incoming::Incoming},
    telemetry::metrics::{ClusterStats, Sharded},
    upstream::{Cluster, RequestPermit},
};

/// Envoy's default bound on response headers; their number is bounded by hyper's default of 100, which is Envoy's too.
pub(super) const MAX_HEADER_BYTES: u32 = 60 * 1024;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// How long ago a connection may have been given back for a replayable request to take it without asking the kernel.
const TRUSTED: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Carries a request, or is promised to one.
    Busy,
    /// The stream is over; hyper has not finished with it yet.
    Releasing,
    Idle,
    Closed,
}

pub(super) struct H1<B: Payload> {
    lane: Weak<Lane<B>>,
    facts: Rc<Facts>,
    config: Arc<ir::cluster::Cluster>,
    stats: Arc<Sharded<ClusterStats>>,
    /// `None` once it is closed; dropping it lets hyper end the connection in order.
    sender: RefCell<Option<SendRequest<B>>>,
    task: RefCell<Option<AbortHandle>>,
    state: Cell<State>,
    meter: Arc<Meter>,
    descriptor: RawFd,
    /// Of the TLS context, when the connection was made.
    generation: Option<u64>,
    opened: Instant,
    parked: Cell<Instant>,
    /// How long the server keeps idle connections, as it says.
    keep_alive: Cell<Option<Duration>>,
    served: Cell<u32>,
    /// Sweeps that found hyper not done with a stream that is over.
    unfinished: Cell<u8>,
}

/// Starts HTTP/1 on `io`.
pub(super) async fn open<B: Payload>(
    lane: &Rc<Lane<B>>,
    cluster: &Cluster,
    io: Metered,
    facts: Rc<Facts>,
    generation: Option<u64>,
) -> hyper::Result<Rc<H1<B>>> {
    let config = cluster.config.clone();
    let (meter, descriptor) = (io.meter(), io.descriptor());
    let (sender, connection) = Builder::new()
        .preserve_header_case(config.http.http1.preserve_case)
        .max_header_size(MAX_HEADER_BYTES as usize)
        .max_buf_size((config.buffer_limit as usize).clamp(64 * 1024, 256 * 1024))
        .handshake(TokioIo::new(io))
        .await?;
    cluster.stats.local().upstream_cx_http1_total.inc();
    let now = Instant::now();
    let connection_state = Rc::new(H1 {
        lane: Rc::downgrade(lane),
        facts,
        config,
        stats: cluster.stats.clone(),
        sender: RefCell::new(Some(sender)),
        task: RefCell::new(None),
        state: Cell::new(State::Idle),
        meter,
        descriptor,
        generation,
        opened: now,
        parked: Cell::new(now),
        keep_alive: Cell::new(None),
        served: Cell::new(0),
        unfinished: Cell::new(0),
    });
    let driver = Driver { connection: connection.with_upgrades(), shared: connection_state.clone() };
    let task = tokio::task::spawn_local(driver);
    *connection_state.task.borrow_mut() = Some(task.abort_handle());
    Ok(connection_state)
}

/// Runs the connection and notices when it is ready for the next request.
struct Driver<C, B: Payload> {
    connection: C,
    shared: Rc<H1<B>>,
}

impl<C: Future<Output = hyper::Result<()>> + Unpin, B: Payload> Future for Driver<C, B> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.connection).poll(cx);
        match polled {
            Poll::Pending => {
                if this.shared.state.get() == State::Releasing && this.shared.is_ready() {
                    this.shared.clone().finished();
                }
                Poll::Pending
            }
            Poll::Ready(result) => {
                if let Err(error) = result {
                    tracing::debug!(host = %this.shared.facts.host, %error, "upstream HTTP/1 connection ended");
                }
                Poll::Ready(())
            }
        }
    }
}

impl<C, B: Payload> Drop for Driver<C, B> {
    /// Also runs when the task is aborted, and when it panicked.
    fn drop(&mut self) {
        let shared = &self.shared;
        shared.state.set(State::Closed);
        shared.sender.borrow_mut().take();
        if let Some(lane) = shared.lane.upgrade() {
            lane.forget_http1(shared);
        }
    }
}

impl<B: Payload> H1<B> {
    fn is_ready(&self) -> bool {
        self.sender.borrow().as_ref().is_some_and(SendRequest::is_ready)
    }

    /// Takes an idle connection for a request, if it can be used.
    pub(super) fn lease(&self, now: Instant, replayable: bool) -> bool {
        // Under load a connection is used again before the next look at the sockets, and asking the kernel each time
        // whether it was closed meanwhile is a system call per request: done where being wrong could not be mended.
        let trusted = replayable && now.saturating_duration_since(self.parked.get()) < TRUSTED;
        let usable = self.state.get() == State::Idle
            && (self.served.get() == 0 || self.is_ready())
            && !self.is_worn(now)
            && (trusted || !is_dead(self.descriptor));
        if usable {
            self.state.set(State::Busy);
        }
        usable
    }

    /// [`Self::lease`] for a connection that was opened or became ready this moment.
    pub(super) fn lease_fresh(&self) -> bool {
        let usable = self.state.get() != State::Closed && (self.served.get() == 0 || !is_dead(self.descriptor));
        if usable {
            self.state.set(State::Busy);
        }
        usable
    }

    /// Whether idling or living has lasted too long.
    fn is_worn(&self, now: Instant) -> bool {
        let idle = now.saturating_duration_since(self.parked.get());
        let http = &self.config.http;
        http.idle_timeout.is_some_and(|limit| idle >= limit)
            || self.keep_alive.get().is_some_and(|limit| idle >= limit)
            || http.max_connection_duration.is_some_and(|limit| now.saturating_duration_since(self.opened) >= limit)
    }

    pub(super) fn park(&self) {
        self.parked.set(Instant::now());
        self.state.set(State::Idle);
    }

    /// Ends the connection after what it still carries.
    pub(super) fn close(&self) {
        self.state.set(State::Closed);
        self.sender.borrow_mut().take();
    }

    /// The stream is over.
    pub(super) fn release(self: Rc<Self>) {
        if self.state.get() != State::Busy {
            return;
        }
        if self.is_ready() || self.served.get() == 0 {
            self.finished();
        } else {
            self.unfinished.set(0);
            self.state.set(State::Releasing);
        }
    }

    /// Both messages are complete: the connection goes back, unless it is not to be used again.
    fn finished(self: Rc<Self>) {
        let worn = self.config.http.max_requests_per_connection.is_some_and(|max| self.served.get() >= max);
        match self.lane.upgrade() {
            Some(lane) if !worn && !lane.endpoint.is_removed() => lane.offer_http1(self),
            _ => self.close(),
        }
    }

    fn failure(&self, kind: SendErrorKind, reason: String, request: Option<Request<B>>) -> Box<SendError<B>> {
        Box::new(SendError { kind, request, reason, facts: Some(self.facts.clone()) })
    }

    fn abort_now(&self) {
        self.close();
        if let Some(task) = self.task.borrow_mut().take() {
            task.abort();
        }
    }

    /// Whether the connection is to be closed now; also ends what hyper does not finish by itself.
    pub(super) fn sweep(&self, now: Instant, removed: bool, generation: Option<u64>) -> bool {
        match self.state.get() {
            State::Idle => {
                let timed_out = self.is_worn(now);
                if timed_out {
                    self.stats.local().upstream_cx_idle_timeout.inc();
                }
                timed_out || removed || generation != self.generation
            }
            State::Releasing => {
                // The response ended before our request did (or the server stalls the end): not worth waiting for.
                self.unfinished.set(self.unfinished.get() + 1);
                if self.unfinished.get() > 2 {
                    self.abort_now();
                }
                false
            }
            State::Busy | State::Closed => false,
        }
    }
}

impl<B: Payload> Carrier for H1<B> {
    fn release(self: Rc<Self>) {
        Self::release(self);
    }

    fn abort(self: Rc<Self>) {
        if matches!(self.state.get(), State::Busy | State::Releasing) {
            self.abort_now();
        }
    }
}

/// Gives the stream up unless it got as far as response headers.
struct Sending(Option<StreamGuard>);

impl Drop for Sending {
    fn drop(&mut self) {
        if let Some(guard) = self.0.take() {
            guard.abort();
        }
    }
}

/// A request on its way, until the head of its response.
struct Exchange<B: Payload> {
    connection: Rc<H1<B>>,
    sending: Sending,
    new_connection: bool,
    /// What the connection's meter said before.
    written: u64,
    read: u64,
}

/// What hyper makes of a request.
type Answer<B> = Result<Response<hyper::body::Incoming>, TrySendError<Request<B>>>;

/// Sends a request over a leased connection. Not an async function: it would hold the request for as long as it waits.
pub(super) fn send<B: Payload>(
    connection: Rc<H1<B>>,
    request: Request<B>,
    permit: RequestPermit,
) -> impl Future<Output = Result<Sent, Box<SendError<B>>>> {
    let started = start(connection, request, permit);
    async move {
        let (exchange, answer) = started?;
        exchange.finish(answer.await)
    }
}

#[allow(clippy::type_complexity, reason = "hyper's future has no name")]
fn start<B: Payload>(
    connection: Rc<H1<B>>,
    mut request: Request<B>,
    permit: RequestPermit,
) -> Result<(Exchange<B>, impl Future<Output = Answer<B>>), Box<SendError<B>>> {
    let new_connection = connection.served.get() == 0;
    let guard = StreamGuard::new(connection.clone(), permit);
    if let Err(reason) = prepare(&mut request, HttpProtocol::Http1, connection.facts.tls.as_deref()) {
        return Err(connection.failure(SendErrorKind::Protocol, reason.to_owned(), Some(request)));
    }
    let (written, read) = (connection.meter.written(), connection.meter.read());
    let answer = match connection.sender.borrow_mut().as_mut() {
        Some(sender) => sender.try_send_request(request),
        None => {
            let reason = "the connection is closed".to_owned();
            return Err(connection.failure(SendErrorKind::Unsent, reason, Some(request)));
        }
    };
    connection.served.set(connection.served.get().saturating_add(1));
    Ok((Exchange { connection, sending: Sending(Some(guard)), new_connection, written, read }, answer))
}

impl<B: Payload> Exchange<B> {
    fn finish(mut self, answer: Answer<B>) -> Result<Sent, Box<SendError<B>>> {
        let connection = &self.connection;
        match answer {
            Ok(mut response) => {
                if !is_understood(&mut response) {
                    let reason = "unsupported transfer encoding".to_owned();
                    return Err(connection.failure(SendErrorKind::Protocol, reason, None));
                }
                learn_keep_alive(connection, response.headers());
                let guard = self.sending.0.take().expect("taken only here");
                let (facts, new_connection) = (connection.facts.clone(), self.new_connection);
                Ok(Sent { response: response.map(Incoming::Http1), guard, facts, new_connection })
            }
            Err(mut error) => {
                // Dropping `sending` ends the connection, which is beyond use.
                if let Some(request) = error.take_message() {
                    return Err(connection.failure(SendErrorKind::Unsent, error.error().to_string(), Some(request)));
                }
                let stream = Stream {
                    reused: !self.new_connection,
                    response_started: connection.meter.read() > self.read,
                    unwritten: connection.meter.written() == self.written,
                };
                let (kind, reason) = failure::classify_http1(error.error(), stream);
                Err(connection.failure(kind, reason, None))
            }
        }
    }
}

/// Whether the body of a response is framed as it will go on. A length that is not 0 excludes all codings.
fn is_understood(response: &mut Response<hyper::body::Incoming>) -> bool {
    response.body().size_hint().exact().is_some_and(|length| length > 0) || chunked_at_most(response.headers_mut())
}

/// `Keep-Alive: timeout=N`: the server closes after N seconds, so we stop using the connection one second before.
fn learn_keep_alive<B: Payload>(connection: &H1<B>, headers: &HeaderMap) {
    let Some(value) = headers.get(KEEP_ALIVE).and_then(|v| v.to_str().ok()) else { return };
    let seconds = value
        .split(',')
        .filter_map(|p| p.trim().split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("timeout"))
        .and_then(|(_, seconds)| seconds.trim().parse::<u32>().ok());
    if let Some(seconds) = seconds {
        connection.keep_alive.set(Some(Duration::from_secs(u64::from(seconds.saturating_sub(1)))));
    }
}

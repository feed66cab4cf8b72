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
    task::{Context, Poll, Waker, ready},
    time::Instant,
};

use bytes::Bytes;
use h2::{
    Reason,
    client::{Builder, Connection, ResponseFuture, SendRequest},
};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use tokio::task::AbortHandle;

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
    l7::{
        expect::Opener,
        http2::{KeepAlive, Pump, Received, Tunnel, content_length, strip_connection_headers},
        incoming::Incoming,
        respond::is_grpc,
    },
    telemetry::metrics::{ClusterStats, Sharded},
    upstream::{Cluster, RequestPermit},
};

pub(super) struct H2<B: Payload> {
    lane: Weak<Lane<B>>,
    facts: Rc<Facts>,
    config: Arc<ir::cluster::Cluster>,
    stats: Arc<Sharded<ClusterStats>>,
    /// `None` once it takes no more streams; the connection ends after the last one.
    sender: RefCell<Option<SendRequest<Bytes>>>,
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
) -> Result<Rc<H2<B>>, h2::Error> {
    let config = cluster.config.clone();
    let (options, meter) = (&config.http.http2, io.meter());
    let (sender, mut connection) = Builder::new()
        .enable_push(false)
        .max_frame_size(crate::l7::MAX_FRAME)
        .initial_window_size(options.stream_window)
        .initial_connection_window_size(options.connection_window)
        .initial_max_send_streams(lane.peer_streams() as usize)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_send_buffer_size((config.buffer_limit as usize).clamp(16 * 1024, 1024 * 1024))
        .handshake(io)
        .await?;
    cluster.stats.local().upstream_cx_http2_total.inc();
    let pings = options.keepalive_interval.and_then(|interval| Some((interval, connection.ping_pong()?)));
    let keepalive = pings.map(|(interval, pings)| KeepAlive::new(pings, interval, options.keepalive_timeout));
    let now = Instant::now();
    let shared = Rc::new(H2 {
        lane: Rc::downgrade(lane),
        facts,
        stats: cluster.stats.clone(),
        config,
        sender: RefCell::new(Some(sender)),
        meter,
        generation,
        opened: now,
        parked: Cell::new(now),
        active: Cell::new(0),
        served: Cell::new(0),
        proven: Cell::new(false),
    });
    tokio::task::spawn_local(Driver { connection, keepalive, shared: shared.clone(), started: false });
    Ok(shared)
}

/// Moves the frames of a connection until it ends.
struct Driver<B: Payload> {
    connection: Connection<Metered, Bytes>,
    keepalive: Option<KeepAlive>,
    shared: Rc<H2<B>>,
    /// The requests that wait for the connection have had their turn.
    started: bool,
}

impl<B: Payload> Future for Driver<B> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if !this.started {
            // They are woken by now: what they send shares a packet with our preface.
            this.started = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let shared = &this.shared;
        if shared.active.get() == 0 && shared.sender.borrow().is_none() {
            shared.meter.end();
        }
        if let Poll::Ready(ended) = Pin::new(&mut this.connection).poll(cx) {
            if let Err(error) = ended {
                tracing::debug!(host = %shared.facts.host, %error, "upstream HTTP/2 connection ended");
            }
            return Poll::Ready(());
        }
        if !shared.is_open() {
            // Told to go away: what comes next goes over another connection.
            shared.drain();
        }
        let dead = this.keepalive.as_mut().map(|k| k.poll_dead(cx, shared.meter.read()));
        if dead.is_some_and(|d| d.is_ready()) {
            tracing::debug!(host = %shared.facts.host, "upstream HTTP/2 connection does not answer pings");
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

impl<B: Payload> Drop for Driver<B> {
    fn drop(&mut self) {
        self.shared.drain();
    }
}

impl<B: Payload> H2<B> {
    /// How many streams may be open now. Beyond the peer's limit h2 would queue them behind the others.
    fn limit(&self) -> u32 {
        let ours = self.config.http.http2.max_concurrent_streams.max(1);
        let Some(lane) = self.lane.upgrade() else { return ours };
        // Before its first frame, which is SETTINGS, a connection goes by what others of the lane were told.
        if self.meter.read() > 0
            && let Some(sender) = self.sender.borrow().as_ref()
        {
            let peers = u32::try_from(sender.current_max_send_streams()).unwrap_or(u32::MAX);
            // A connection that allows none right now says nothing of the next: one stream can always be asked for.
            lane.learn_peer_streams(peers.max(1));
            return ours.min(peers);
        }
        ours.min(lane.peer_streams())
    }

    /// Whether the connection takes new streams.
    fn is_open(&self) -> bool {
        let mut sender = self.sender.borrow_mut();
        let mut cx = Context::from_waker(Waker::noop());
        // A sender that never sent has nothing to wait for: it is ready, or the connection is over.
        sender.as_mut().is_some_and(|s| !matches!(s.poll_ready(&mut cx), Poll::Ready(Err(_))))
    }

    fn failure(&self, kind: SendErrorKind, reason: String, request: Option<Request<B>>) -> Box<SendError<B>> {
        Box::new(SendError { kind, request, reason, facts: Some(self.facts.clone()) })
    }

    /// Reserves a stream.
    pub(super) fn lease(&self) -> bool {
        let open = self.sender.borrow().is_some();
        let usable = open && self.active.get() < self.limit() && !self.is_used_up();
        if usable {
            self.active.set(self.active.get() + 1);
            self.served.set(self.served.get().saturating_add(1));
        }
        usable
    }

    /// Gives a reservation back that was not used.
    pub(super) fn is_busy(&self) -> bool {
        self.active.get() > 0
    }

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

    /// The response (or the wait for it) and the upload are dropped, which resets the stream; the connection goes on.
    fn abort(self: Rc<Self>) {
        Self::release(self);
    }
}

/// Sends a request over a leased connection. Not an async function: it would hold the request for as long as it waits.
pub(super) fn send<B: Payload>(
    connection: Rc<H2<B>>,
    request: Request<B>,
    permit: RequestPermit,
) -> impl Future<Output = Result<Sent, Box<SendError<B>>>> {
    let mut guard = StreamGuard::new(connection.clone(), permit);
    let started = start(&connection, request);
    async move {
        let new_connection = !connection.proven.get();
        let answer = match started? {
            Ok(exchange) => exchange.await,
            Err(error) => Err(error),
        };
        let facts = connection.facts.clone();
        match answer {
            Ok((response, upload)) => {
                connection.proven.set(true);
                guard.uploading(upload);
                Ok(Sent { response, guard, facts, new_connection })
            }
            Err(error) => {
                let stream = Stream { reused: !new_connection, response_started: false, unwritten: false };
                let (kind, reason) = failure::classify_http2(&error, stream);
                if failure::ends_connection(&error) {
                    connection.drain();
                }
                Err(connection.failure(kind, reason, None))
            }
        }
    }
}

/// The outer error gives the request back, the inner one is h2's about a request it has taken.
fn start<B: Payload>(
    connection: &Rc<H2<B>>,
    mut request: Request<B>,
) -> Result<Result<Exchange<B>, h2::Error>, Box<SendError<B>>> {
    if let Err(reason) = prepare(&mut request, HttpProtocol::Http2, connection.facts.tls.as_deref()) {
        return Err(connection.failure(SendErrorKind::Protocol, reason.to_owned(), Some(request)));
    }
    if *request.method() == Method::CONNECT && content_length(request.headers()).is_some_and(|length| length != 0) {
        let reason = "CONNECT with content".to_owned();
        return Err(connection.failure(SendErrorKind::Protocol, reason, Some(request)));
    }
    // Each request has a sender of its own: one that waits to be opened does not hold up the next.
    let sender = if connection.is_open() { connection.sender.borrow().clone() } else { None };
    let Some(mut sender) = sender else {
        connection.drain();
        let reason = "the connection is closed".to_owned();
        return Err(connection.failure(SendErrorKind::Unsent, reason, Some(request)));
    };
    Ok(Exchange::start(&mut sender, request))
}

/// A request on its stream, until the head of its response. Dropping it resets the stream.
struct Exchange<B> {
    response: ResponseFuture,
    /// What is still to be sent.
    pump: Option<Pump<B>>,
    /// Our half of a stream that may become a tunnel.
    tunnel: Option<h2::SendStream<Bytes>>,
    /// To be told when the peer wants the body.
    opener: Option<Opener>,
}

impl<B: Payload> Exchange<B> {
    fn start(sender: &mut SendRequest<Bytes>, request: Request<B>) -> Result<Self, h2::Error> {
        let (mut head, body) = request.into_parts();
        strip_connection_headers(&mut head.headers, true);
        let connect = head.method == Method::CONNECT;
        if !connect
            && let Some(length) = body.size_hint().exact()
            && (length != 0 || matches!(head.method, Method::POST | Method::PUT | Method::PATCH))
            // Its messages say themselves how long they are.
            && !is_grpc(&head.headers)
        {
            head.headers.entry(header::CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
        }
        if let Some(protocol) = head.extensions.remove::<hyper::ext::Protocol>() {
            head.extensions.insert(h2::ext::Protocol::from(protocol.as_str()));
        }
        let opener = head.extensions.remove::<Opener>();
        let whole = !connect && body.is_end_stream();
        let (response, stream) = sender.send_request(Request::from_parts(head, ()), whole)?;
        let (mut pump, mut tunnel) = (None, None);
        if connect {
            tunnel = Some(stream);
        } else if !whole {
            pump = Some(Pump::new(body, stream, Reason::CANCEL));
        }
        Ok(Self { response, pump, tunnel, opener })
    }

    fn hear_informational(&mut self, cx: &mut Context<'_>) {
        let Some(opener) = &self.opener else { return };
        while let Poll::Ready(Some(Ok(response))) = self.response.poll_informational(cx) {
            if response.status() == StatusCode::CONTINUE {
                opener.open();
            }
        }
    }
}

impl<B: Payload> Future for Exchange<B> {
    /// The response, and what goes on with the request's body.
    type Output = Result<(Response<Incoming>, Option<AbortHandle>), h2::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.hear_informational(cx);
        if let Some(pump) = &mut this.pump
            && Pin::new(pump).poll(cx).is_ready()
        {
            this.pump = None;
        }
        let (head, stream) = ready!(Pin::new(&mut this.response).poll(cx))?.into_parts();
        // From here on both directions go their own pace.
        let upload = this.pump.take().map(|pump| tokio::task::spawn_local(pump).abort_handle());
        let body = match this.tunnel.take() {
            Some(ours) if head.status.is_success() => Incoming::Tunnel(Box::new(Tunnel::new(ours, stream))),
            refused => {
                if let Some(mut ours) = refused {
                    ours.send_data(Bytes::new(), true)?;
                }
                Incoming::Http2(Received::new(stream, &head.headers))
            }
        };
        Poll::Ready(Ok((Response::from_parts(head, body), upload)))
    }
}

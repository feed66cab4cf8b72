//! The server side of HTTP/2: a task per stream, an answer per request.
//!
//! Straight on `h2`. Knows nothing of what a request means; [`super::drive`] decides when the connection ends.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use h2::{
    Reason, SendStream,
    server::{Builder, Handshake, SendResponse},
};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body as _;
use tokio::sync::oneshot;

use super::{
    Connection, ERROR_RESETS, PENDING_RESETS,
    clocks::{Clocks, Served},
    drive::drive,
};
use crate::{
    ir::http::Http2Options,
    l7::{
        Body, MAX_FRAME,
        expect::{Awaited, is_expected},
        http2::{KeepAlive, Pump, Received, Tunnel, content_length, strip_connection_headers},
        incoming::Incoming,
        pipeline::handle,
        timer::Timer,
        upgrade::Promise,
        wire::Wire,
    },
    net::io::Io,
};

/// Serves a connection until it ends. `prefix` was read from it already.
pub(super) async fn serve(io: Io, prefix: Bytes, conn: &Rc<Connection>, mut clocks: Clocks) {
    let running = pin!(Streams::new(Wire::http2(io, prefix, conn.wire.clone()), conn));
    drive(running, |running| running.shutdown(), (conn, Served::Http2), &mut clocks).await;
}

/// The streams of a connection; ends with the connection.
struct Streams {
    conn: Rc<Connection>,
    state: State,
    closing: bool,
}

enum State {
    Handshake(Box<Handshake<Wire, Bytes>>),
    Open(Box<h2::server::Connection<Wire, Bytes>>, Option<KeepAlive>),
}

impl Streams {
    fn new(wire: Wire, conn: &Rc<Connection>) -> Self {
        let (config, options) = (&conn.hcm.config, &conn.hcm.config.http2);
        let mut builder = Builder::new();
        builder
            .max_frame_size(MAX_FRAME)
            .max_concurrent_streams(options.max_concurrent_streams)
            .initial_window_size(options.stream_window)
            .initial_connection_window_size(options.connection_window)
            .max_header_list_size(config.max_header_bytes)
            .max_pending_accept_reset_streams(PENDING_RESETS)
            .max_local_error_reset_streams(Some(ERROR_RESETS));
        if options.allow_connect {
            builder.enable_connect_protocol();
        }
        Self { conn: conn.clone(), state: State::Handshake(Box::new(builder.handshake(wire))), closing: false }
    }

    /// Tells the peer to go away; streams it opened by then are served.
    fn shutdown(mut self: Pin<&mut Self>) {
        self.closing = true;
        if let State::Open(connection, _) = &mut self.state {
            connection.graceful_shutdown();
        }
    }

    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        loop {
            match &mut self.state {
                State::Handshake(handshake) => {
                    let mut connection = ready!(Pin::new(&mut **handshake).poll(cx))?;
                    let keepalive = keepalive(&mut connection, &self.conn.hcm.config.http2);
                    if self.closing {
                        connection.graceful_shutdown();
                    }
                    self.state = State::Open(Box::new(connection), keepalive);
                }
                State::Open(connection, keepalive) => {
                    // What came in beside the answer to a ping is not counted here: the answer has to come in time.
                    if keepalive.as_mut().is_some_and(|k| k.poll_dead(cx, 0).is_ready()) {
                        tracing::debug!("downstream HTTP/2 connection does not answer pings");
                        return Poll::Ready(Ok(()));
                    }
                    match ready!(connection.poll_accept(cx)) {
                        Some(Ok((request, respond))) => {
                            tokio::task::spawn_local(stream(self.conn.clone(), request, respond));
                        }
                        Some(Err(error)) => return Poll::Ready(Err(error)),
                        None => return Poll::Ready(Ok(())),
                    }
                }
            }
        }
    }
}

impl Future for Streams {
    type Output = hyper::Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.get_mut().poll_ended(cx).map(|ended| {
            if let Err(error) = ended {
                tracing::debug!(%error, "downstream HTTP/2 connection ended with an error");
            }
            Ok(())
        })
    }
}

fn keepalive(connection: &mut h2::server::Connection<Wire, Bytes>, options: &Http2Options) -> Option<KeepAlive> {
    let interval = options.keepalive_interval?;
    Some(KeepAlive::new(connection.ping_pong()?, interval, options.keepalive_timeout))
}

/// Serves one stream. A reset by the peer ends the work on its request.
async fn stream(conn: Rc<Connection>, request: Request<h2::RecvStream>, mut respond: SendResponse<Bytes>) {
    let (mut head, received) = request.into_parts();
    if let Some(protocol) = head.extensions.remove::<h2::ext::Protocol>() {
        head.extensions.insert(hyper::ext::Protocol::from(protocol.as_str()));
    }
    let mut asked = None;
    let (body, tunnel, promise) = if head.method == Method::CONNECT {
        if content_length(&head.headers).is_some_and(|length| length != 0) {
            // A tunnel has no content.
            return respond.send_reset(Reason::PROTOCOL_ERROR);
        }
        let (keep, promise) = oneshot::channel();
        (Incoming::None, Some((keep, received)), Some(Promise::Http2(promise)))
    } else {
        let received = Received::new(received, &head.headers);
        let body = if !received.is_end_stream() && is_expected(&head.headers) {
            let (awaited, wanted) = Awaited::new(received);
            asked = Some(wanted);
            Incoming::Awaited(Box::new(awaited))
        } else {
            Incoming::Http2(received)
        };
        (body, None, None)
    };
    let answer = {
        let mut handling = handle(conn, Request::from_parts(head, body), promise);
        poll_fn(|cx| {
            if let Poll::Ready(answer) = handling.as_mut().poll(cx) {
                return Poll::Ready(Some(answer));
            }
            if asked.take_if(|asked| asked.poll(cx).is_ready()).is_some() {
                go_on(&mut respond);
            }
            respond.poll_reset(cx).map(|_| None)
        })
        .await
    };
    let (mut head, body) = match answer {
        None => return,
        Some(Ok(response)) => response.into_parts(),
        Some(Err(error)) => {
            tracing::debug!(%error, "a request could not be answered");
            return respond.send_reset(Reason::INTERNAL_ERROR);
        }
    };
    strip_connection_headers(&mut head.headers, false);
    head.headers.entry(header::DATE).or_insert_with(date);
    // Without anybody who waits for it, it is an answer like any other.
    let tunnel = tunnel.filter(|(keep, _)| head.status.is_success() && !keep.is_closed());
    let whole = tunnel.is_none() && body.is_end_stream();
    if tunnel.is_some() {
        head.headers.remove(header::CONTENT_LENGTH);
    } else if !whole && let Some(length) = body.size_hint().exact() {
        head.headers.entry(header::CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
    match respond.send_response(Response::from_parts(head, ()), whole) {
        Err(error) => {
            tracing::debug!(%error, "a response could not be sent");
            respond.send_reset(Reason::INTERNAL_ERROR);
        }
        Ok(ours) => match tunnel {
            // Nobody may wait for it any more; the stream is then reset.
            Some((keep, received)) => drop(keep.send(Box::new(Tunnel::of_client(ours, received)))),
            None if whole => {}
            None => send(body, ours).await,
        },
    }
}

/// Tells a client that waits for it to send its body.
fn go_on(respond: &mut SendResponse<Bytes>) {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::CONTINUE;
    if let Err(error) = respond.send_informational(response) {
        tracing::debug!(%error, "a client could not be told to go on");
    }
}

/// Sends a response's body. A peer that takes nothing of it runs into the response's limits: then the stream is reset.
async fn send(body: Body, stream: SendStream<Bytes>) {
    let flow = body.flow().cloned();
    let mut pump = Pump::new(body, stream, Reason::INTERNAL_ERROR);
    let mut timer = Timer::default();
    poll_fn(|cx| {
        if Pin::new(&mut pump).poll(cx).is_ready() {
            return Poll::Ready(());
        }
        // As long as the body itself is waited for, it minds its limits.
        let Some(flow) = flow.as_ref().filter(|_| pump.waits_for_room()) else { return Poll::Pending };
        let Some(at) = flow.limit_at() else { return Poll::Pending };
        let now = Instant::now();
        if now < at && timer.poll_until(at, cx).is_pending() {
            return Poll::Pending;
        }
        flow.expire(at.max(now), None);
        Poll::Ready(())
    })
    .await
}

/// The `date` of this second (RFC 9110 section 6.6.1), for responses that come without one.
fn date() -> HeaderValue {
    thread_local! {
        static NOW: RefCell<Option<(Instant, HeaderValue)>> = const { RefCell::new(None) };
    }
    const FRESH: Duration = Duration::from_millis(500);
    NOW.with_borrow_mut(|now| match now {
        Some((made, value)) if made.elapsed() < FRESH => value.clone(),
        _ => {
            let text = httpdate::fmt_http_date(SystemTime::now());
            let value = HeaderValue::try_from(text).expect("a date is ASCII");
            *now = Some((Instant::now(), value.clone()));
            value
        }
    })
}

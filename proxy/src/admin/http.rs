//! The small HTTP/1.1 server of the admin interface: bounded, local, never on the data path.

use std::{
    convert::Infallible,
    future::Future,
    io,
    os::{fd::OwnedFd, unix::fs::FileTypeExt},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use http::{Method, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{Notify, OwnedSemaphorePermit, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    Inner,
    body::{Content, Pieces, Turn},
    origin,
    places::{Busy, Place, Places},
    tap::Lines,
};
use crate::bootstrap::AdminAddress;

/// Connections at once; more wait in the accept queue, once none of these just waits.
const MAX_CONNECTIONS: u32 = 64;

/// A client that does not finish its request head, or sends none, is dropped after this.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// No connection lives longer: one whose client does not read its answer would hold its place for ever.
const LIFETIME: Duration = Duration::from_secs(60);

/// How long an answer under way may take once a connection is to end.
const LAST_ANSWER: Duration = Duration::from_secs(2);

/// Its own script and style, and answers of this interface: nothing from anywhere else.
const PAGE_MAY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; \
                        frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// Largest request head.
const MAX_HEAD: usize = 64 << 10;

pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A listening socket that somebody may be served on.
pub(super) enum Socket {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

impl Socket {
    /// Binds and listens.
    pub(super) fn bind(address: &AdminAddress) -> anyhow::Result<Self> {
        let socket = match address {
            AdminAddress::Tcp(address) => {
                // Sets SO_REUSEADDR: an address whose last connections are in TIME-WAIT is free.
                let listener =
                    std::net::TcpListener::bind(address).with_context(|| format!("cannot bind {address}"))?;
                listener.set_nonblocking(true)?;
                tracing::info!(address = %listener.local_addr()?, "admin interface");
                Self::Tcp(listener)
            }
            AdminAddress::Pipe(path) => {
                // A socket left by a former process would make every restart fail; any other file is not ours to remove.
                if std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
                    let _ = std::fs::remove_file(path);
                }
                let listener = std::os::unix::net::UnixListener::bind(path)
                    .with_context(|| format!("cannot bind {}", path.display()))?;
                listener.set_nonblocking(true)?;
                Self::Unix(listener)
            }
        };
        Ok(socket)
    }

    /// The socket of a predecessor.
    pub(super) fn inherited(address: &AdminAddress, socket: OwnedFd) -> Self {
        match address {
            AdminAddress::Tcp(_) => Self::Tcp(socket.into()),
            AdminAddress::Pipe(_) => Self::Unix(socket.into()),
        }
    }

    /// To accept on.
    pub(super) fn listener(&self) -> std::io::Result<Listener> {
        Ok(match self {
            Self::Tcp(socket) => Listener::Tcp(TcpListener::from_std(socket.try_clone()?)?),
            Self::Unix(socket) => Listener::Unix(UnixListener::from_std(socket.try_clone()?)?),
        })
    }

    /// Another handle of it.
    pub(super) fn shared(&self) -> std::io::Result<OwnedFd> {
        match self {
            Self::Tcp(socket) => socket.try_clone().map(OwnedFd::from),
            Self::Unix(socket) => socket.try_clone().map(OwnedFd::from),
        }
    }
}

/// A parsed request: method, path, and query parameters decoded.
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: Vec<(String, String)>,
    /// The formats that the client likes.
    pub(super) accept: String,
    /// A browser asks.
    pub(super) html: bool,
}

impl Call {
    fn new(request: &http::Request<Incoming>) -> Self {
        let decode =
            |text: &str| percent_encoding::percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
        let query = request.uri().query().unwrap_or_default();
        Self {
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            html: request.headers().get(header::ACCEPT).is_some_and(|v| v.as_bytes().starts_with(b"text/html")),
            accept: {
                let values = request.headers().get_all(header::ACCEPT).into_iter();
                values.filter_map(|value| value.to_str().ok()).collect::<Vec<_>>().join(",")
            },
            query: query
                .split('&')
                .filter(|pair| !pair.is_empty())
                .map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(key), decode(value))
                })
                .collect(),
        }
    }

    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl Call {
    /// Whether a switch such as `?usedonly` is on; `=off` and `=false` are heard.
    pub(super) fn has(&self, name: &str) -> bool {
        self.parameter(name).is_some_and(|value| !matches!(value, "off" | "false" | "0"))
    }

    pub(super) fn is_json(&self) -> bool {
        self.parameter("format") == Some("json")
    }
}

/// An answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) content_type: &'static str,
    content: Content,
}

impl Answer {
    pub(super) fn text(body: impl Into<String>) -> Self {
        let content_type = "text/plain; charset=UTF-8";
        Self { status: StatusCode::OK, content_type, content: Content::Whole(body.into().into(), None) }
    }

    pub(super) fn json(value: &serde_json::Value) -> Self {
        let body = serde_json::to_string_pretty(value).unwrap_or_default();
        Self { content_type: "application/json", ..Self::text(body) }
    }

    pub(super) fn lines(lines: Lines) -> Self {
        Self { content_type: "application/x-ndjson", content: Content::Lines(Box::new(lines)), ..Self::text("") }
    }

    pub(super) fn with(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    pub(super) fn pieces(content_type: &'static str, pieces: Pieces) -> Self {
        Self { content_type, content: Content::Pieces(pieces), ..Self::text("") }
    }

    /// Holds the turn that this was made in until the client has it.
    pub(super) fn delivered(mut self, permit: OwnedSemaphorePermit) -> Self {
        if let Content::Whole(_, turn) = &mut self.content {
            *turn = Some(Turn::new(permit));
        }
        self
    }

    pub(super) fn html(page: &str) -> Self {
        Self { content_type: "text/html; charset=UTF-8", ..Self::text(page) }
    }

    pub(super) fn error(status: StatusCode, body: impl Into<String>) -> Self {
        Self::text(body).with(status)
    }
}

/// The body of an answer that is being given.
struct Answered {
    content: Content,
    _busy: Busy,
}

impl Body for Answered {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Pin::new(&mut self.content).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.content.size_hint()
    }
}

/// A server that is running.
pub(super) struct Server {
    /// `None` for a Unix socket.
    #[cfg(test)]
    address: Option<std::net::SocketAddr>,
    places: Arc<Places>,
    /// Ends the accepting only.
    accepting: CancellationToken,
    stop: CancellationToken,
}

impl Server {
    #[cfg(test)]
    pub(super) fn address(&self) -> Option<std::net::SocketAddr> {
        self.address
    }

    /// Stops accepting; connections end with their next answers.
    pub(super) fn stop_accepting(&self) {
        self.accepting.cancel();
    }

    /// Stops accepting and waits a moment for answers that are under way.
    pub(super) async fn stop(&self) {
        self.stop.cancel();
        // Who says nothing, or does not read the answer by then has to do without.
        let _ = tokio::time::timeout(2 * LAST_ANSWER, self.places.all_free()).await;
    }
}

/// Serves until it is stopped.
pub(super) fn serve<F, Fut>(listener: Listener, inner: Arc<Inner>, handler: F) -> Server
where
    F: Fn(Arc<Inner>, Call) -> Fut + Copy + Send + Sync + 'static,
    Fut: Future<Output = Answer> + Send + 'static,
{
    let places = Places::new(MAX_CONNECTIONS);
    let stop = CancellationToken::new();
    let accepting = stop.child_token();
    let server = Server {
        #[cfg(test)]
        address: match &listener {
            Listener::Tcp(listener) => listener.local_addr().ok(),
            Listener::Unix(_) => None,
        },
        places: places.clone(),
        accepting: accepting.clone(),
        stop: stop.clone(),
    };
    let last = accepting.clone();
    tokio::spawn(accepting.run_until_cancelled_owned(async move {
        loop {
            let accepted = match &listener {
                Listener::Tcp(listener) => listener.accept().await.map(|(io, _)| Accepted::Tcp(io)),
                Listener::Unix(listener) => listener.accept().await.map(|(io, _)| Accepted::Unix(io)),
            };
            let accepted = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    accept_failed(&error).await;
                    continue;
                }
            };
            let Some(place) = places.take().await else { return };
            let (inner, stop) = (inner.clone(), (last.clone(), stop.clone()));
            match accepted {
                Accepted::Tcp(io) => drop(tokio::spawn(connection(TokioIo::new(io), inner, handler, stop, place))),
                Accepted::Unix(io) => drop(tokio::spawn(connection(TokioIo::new(io), inner, handler, stop, place))),
            }
        }
    }));
    server
}

async fn accept_failed(error: &std::io::Error) {
    tracing::warn!(%error, "admin interface cannot accept");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

async fn connection<I, F, Fut>(
    io: I,
    inner: Arc<Inner>,
    handler: F,
    (last, stop): (CancellationToken, CancellationToken),
    place: Place,
) where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    F: Fn(Arc<Inner>, Call) -> Fut + Copy + Send + Sync + 'static,
    Fut: Future<Output = Answer> + Send + 'static,
{
    // Who watches may do so for longer than others have for their answer.
    let (lasts, mut ends) = watch::channel(Instant::now() + LIFETIME);
    let (lasts, place) = (Arc::new(lasts), Arc::new(place));
    let serves = place.clone();
    let asked = Arc::new(Notify::new());
    let first = asked.clone();
    let service = hyper::service::service_fn(move |request: http::Request<Incoming>| {
        let (inner, lasts, busy, last) = (inner.clone(), lasts.clone(), serves.busy(), last.clone());
        asked.notify_one();
        async move {
            let foreign = origin::refusal(request.headers());
            let answer = match *request.method() {
                _ if foreign.is_some() => Answer::error(StatusCode::FORBIDDEN, foreign.unwrap_or_default()),
                Method::GET | Method::HEAD | Method::POST => handler(inner, Call::new(&request)).await,
                _ => Answer::error(StatusCode::METHOD_NOT_ALLOWED, "only GET, HEAD and POST\n"),
            };
            let end = match &answer.content {
                Content::Lines(lines) => lines.deadline() + LAST_ANSWER,
                // Whoever watched before has no more time than others.
                Content::Whole(..) | Content::Pieces(_) => lasts.borrow().min(Instant::now() + LIFETIME),
            };
            lasts.send_replace(end);
            let mut response = Response::new(Answered { content: answer.content, _busy: busy });
            *response.status_mut() = answer.status;
            let headers = response.headers_mut();
            if last.is_cancelled() {
                headers.insert(header::CONNECTION, http::HeaderValue::from_static("close"));
            }
            headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static(answer.content_type));
            headers.insert(header::CACHE_CONTROL, http::HeaderValue::from_static("no-cache, max-age=0"));
            headers.insert(header::X_CONTENT_TYPE_OPTIONS, http::HeaderValue::from_static("nosniff"));
            if answer.content_type.starts_with("text/html") {
                headers.insert(header::CONTENT_SECURITY_POLICY, http::HeaderValue::from_static(PAGE_MAY));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(MAX_HEAD);
    let mut serving = pin!(builder.serve_connection(io, service));
    // A client that goes away is its own affair.
    loop {
        let end = *ends.borrow_and_update();
        tokio::select! {
            _ = serving.as_mut() => return,
            () = stop.cancelled() => break,
            () = place.wanted() => return,
            () = tokio::time::sleep_until(end) => break,
            Ok(()) = ends.changed() => {}
        }
    }
    // Who was let in at the last moment is about to say what it wants.
    tokio::select! {
        _ = serving.as_mut() => return,
        () = first.notified() => {}
        () = tokio::time::sleep(LAST_ANSWER) => {}
    }
    serving.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(LAST_ANSWER, serving).await;
}

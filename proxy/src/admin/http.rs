//! The small HTTP/1.1 server of the admin interface: bounded, local, never on the data path.

use std::{
    convert::Infallible,
    future::Future,
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
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::{Notify, Semaphore, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{Inner, tap::Lines};
use crate::bootstrap::AdminAddress;

/// Connections served at once; more wait in the accept queue.
const MAX_CONNECTIONS: usize = 64;

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
    pub(super) body: String,
    /// In place of the body: lines as they come.
    pub(super) lines: Option<Box<Lines>>,
}

impl Answer {
    pub(super) fn text(body: impl Into<String>) -> Self {
        let content_type = "text/plain; charset=UTF-8";
        Self { status: StatusCode::OK, content_type, body: body.into(), lines: None }
    }

    pub(super) fn json(value: &serde_json::Value) -> Self {
        let body = serde_json::to_string_pretty(value).unwrap_or_default();
        Self { content_type: "application/json", ..Self::text(body) }
    }

    pub(super) fn lines(lines: Lines) -> Self {
        Self { content_type: "application/x-ndjson", lines: Some(Box::new(lines)), ..Self::text("") }
    }

    pub(super) fn html(page: &str) -> Self {
        Self { content_type: "text/html; charset=UTF-8", ..Self::text(page) }
    }

    pub(super) fn error(status: StatusCode, body: impl Into<String>) -> Self {
        Self { status, ..Self::text(body) }
    }
}

/// The body of an answer.
enum Content {
    Whole(Full<Bytes>),
    Lines(Box<Lines>),
}

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Whole(whole) => Pin::new(whole).poll_frame(cx),
            Self::Lines(lines) => lines.poll(cx).map(|line| line.map(|line| Ok(Frame::data(line)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.is_end_stream(),
            Self::Lines(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => whole.size_hint(),
            Self::Lines(_) => SizeHint::default(),
        }
    }
}

/// A server that is running.
pub(super) struct Server {
    /// `None` for a Unix socket.
    #[cfg(test)]
    address: Option<std::net::SocketAddr>,
    permits: Arc<Semaphore>,
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
        let all = self.permits.acquire_many(MAX_CONNECTIONS as u32);
        // Who says nothing, or does not read the answer, has to do without.
        let _ = tokio::time::timeout(2 * LAST_ANSWER, all).await;
    }
}

/// Serves until it is stopped.
pub(super) fn serve<F, Fut>(listener: Listener, inner: Arc<Inner>, handler: F) -> Server
where
    F: Fn(Arc<Inner>, Call) -> Fut + Copy + Send + Sync + 'static,
    Fut: Future<Output = Answer> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let stop = CancellationToken::new();
    let accepting = stop.child_token();
    let server = Server {
        #[cfg(test)]
        address: match &listener {
            Listener::Tcp(listener) => listener.local_addr().ok(),
            Listener::Unix(_) => None,
        },
        permits: permits.clone(),
        accepting: accepting.clone(),
        stop: stop.clone(),
    };
    let last = accepting.clone();
    tokio::spawn(accepting.run_until_cancelled_owned(async move {
        loop {
            let Ok(permit) = permits.clone().acquire_owned().await else { return };
            let (inner, stop) = (inner.clone(), (last.clone(), stop.clone()));
            match &listener {
                Listener::Tcp(listener) => match listener.accept().await {
                    Ok((io, _)) => drop(tokio::spawn(connection(TokioIo::new(io), inner, handler, stop, permit))),
                    Err(error) => accept_failed(&error).await,
                },
                Listener::Unix(listener) => match listener.accept().await {
                    Ok((io, _)) => drop(tokio::spawn(connection(TokioIo::new(io), inner, handler, stop, permit))),
                    Err(error) => accept_failed(&error).await,
                },
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
    _permit: tokio::sync::OwnedSemaphorePermit,
) where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    F: Fn(Arc<Inner>, Call) -> Fut + Copy + Send + Sync + 'static,
    Fut: Future<Output = Answer> + Send + 'static,
{
    // Who watches may do so for longer than others have for their answer.
    let (lasts, mut ends) = watch::channel(Instant::now() + LIFETIME);
    let lasts = Arc::new(lasts);
    let asked = Arc::new(Notify::new());
    let first = asked.clone();
    let service = hyper::service::service_fn(move |request: http::Request<Incoming>| {
        let (inner, lasts, last) = (inner.clone(), lasts.clone(), last.clone());
        asked.notify_one();
        async move {
            let answer = match *request.method() {
                Method::GET | Method::HEAD | Method::POST => handler(inner, Call::new(&request)).await,
                _ => Answer::error(StatusCode::METHOD_NOT_ALLOWED, "only GET, HEAD and POST\n"),
            };
            let body = match answer.lines {
                Some(lines) => {
                    lasts.send_replace(lines.deadline() + LIFETIME);
                    Content::Lines(lines)
                }
                None => Content::Whole(Full::new(Bytes::from(answer.body))),
            };
            let mut response = Response::new(body);
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

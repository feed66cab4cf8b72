//! Servers and clusters to test against.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::LocalSet,
};

pub(super) use crate::{
    ir::{
        cluster::{Cluster as Config, Discovery},
        endpoint::Address,
    },
    l7::client::{Attempt, HttpProtocol, Pool, Protocol, SendError, SendErrorKind, Sent},
    upstream::{Cluster, ConnectErrorKind, Deps, PickContext, testing},
};

pub(super) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Runs `test` as a worker would, and fails it when it hangs.
pub(super) fn worker<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = LocalSet::new();
    // Within the runtime: the timer needs it.
    let bounded = async { tokio::time::timeout(Duration::from_secs(60), local.run_until(test)).await };
    runtime.block_on(bounded).expect("the test does not hang");
}

/// Waits until `done`, letting everything else run.
pub(super) async fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..20_000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("waited too long: {what}");
}

pub(super) fn full(text: &'static str) -> Body {
    Full::from(text).map_err(|never: Infallible| match never {}).boxed_unsync()
}

pub(super) fn get(path: &str) -> Request<Body> {
    Request::get(path).header("host", "test.example").body(full("")).unwrap()
}

pub(super) async fn text(sent: Sent) -> String {
    let Sent { response, guard, .. } = sent;
    let body = response.into_body().collect().await.unwrap().to_bytes();
    drop(guard);
    String::from_utf8(body.to_vec()).unwrap()
}

pub(super) fn address(address: SocketAddr) -> Address {
    Address::Ip(address)
}

/// An attempt at the only endpoint of a cluster.
pub(super) fn attempt(at: Address, protocol: Protocol, adjust: impl FnOnce(&mut Config)) -> Attempt {
    let mut config = testing::config("test", Discovery::Static(testing::assignment(vec![testing::endpoint(at)])));
    adjust(&mut config);
    let cluster = Cluster::build(Arc::new(config), None, &Deps::default(), None).unwrap();
    attempt_of(cluster, protocol)
}

pub(super) fn attempt_of(cluster: Arc<Cluster>, protocol: Protocol) -> Attempt {
    let endpoint = cluster.pick(&PickContext::default()).unwrap();
    Attempt {
        cluster,
        endpoint,
        protocol,
        alpn: None,
        sni: None,
        downstream: None,
        replayable: false,
        high_priority: false,
        clock: None,
    }
}

/// A statistic of the attempt's cluster.
pub(super) fn stat(attempt: &Attempt, name: &str) -> u64 {
    attempt.cluster.stats.totals().iter().find(|(n, ..)| *n == name).map_or(0, |(_, _, v)| *v)
}

/// Nothing is in flight any more: every permit and gauge is back.
pub(super) async fn settled(attempt: &Attempt, connections: u32) {
    use std::sync::atomic::Ordering::Relaxed;
    let endpoint = &attempt.endpoint;
    until("permits come back", || {
        attempt.cluster.breaker(false).used() == [connections, 0, 0, 0]
            && endpoint.rq_active.load(Relaxed) == 0
            && endpoint.cx_active.load(Relaxed) == connections
    })
    .await;
    for gauge in ["upstream_rq_active", "upstream_rq_pending_active"] {
        assert_eq!(stat(attempt, gauge), 0, "{gauge}");
    }
    assert_eq!(stat(attempt, "upstream_cx_active"), u64::from(connections));
}

/// A server whose connections are counted.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) accepted: Rc<Cell<usize>>,
}

/// Serves each accepted connection with `serve`, on this thread.
pub(super) async fn server<F>(serve: impl Fn(TcpStream, usize) -> F + 'static) -> Server
where
    F: Future<Output = ()> + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepted = Rc::new(Cell::new(0));
    let count = accepted.clone();
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.set(count.get() + 1);
            tokio::task::spawn_local(serve(stream, count.get()));
        }
    });
    Server { address, accepted }
}

/// Answers with the method, path, host and body of the request.
pub(super) async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let host = head.uri.authority().map(ToString::to_string);
    let host = host.or_else(|| head.headers.get("host").map(|h| h.to_str().unwrap().to_owned())).unwrap_or_default();
    let body = body.collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    let answer = format!("{} {} {host} {}", head.method, head.uri.path(), String::from_utf8_lossy(&body));
    Ok(Response::new(Full::from(answer)))
}

pub(super) async fn serve_http1(io: impl AsyncRead + AsyncWrite + Unpin + 'static) {
    let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(io), service_fn(echo));
    let _ = served.await;
}

pub(super) async fn serve_http2(io: impl AsyncRead + AsyncWrite + Unpin + 'static) {
    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    let _ = builder.serve_connection(TokioIo::new(io), service_fn(echo)).await;
}

/// Reads one HTTP/1 head.
pub(super) async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

/// A value that tests and servers share.
pub(super) fn shared<T>(value: T) -> Rc<RefCell<T>> {
    Rc::new(RefCell::new(value))
}

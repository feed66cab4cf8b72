//! HTTP/2 on either side or both, gRPC in particular.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{body::Incoming, client::conn::http2, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};

use super::{
    peer::{Upstream, header},
    support::{Proxy, Setup, pair, run, until},
};

pub(super) type Out = BoxBody<Bytes, Infallible>;

/// Runs tasks on the test's thread.
#[derive(Clone, Copy)]
struct Local;

impl<F: Future + 'static> hyper::rt::Executor<F> for Local
where
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

pub(super) fn full(text: &'static str) -> Out {
    Full::new(Bytes::from_static(text.as_bytes())).boxed()
}

/// A body fed by hand.
fn fed() -> (mpsc::UnboundedSender<Frame<Bytes>>, Out) {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let stream = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx).map(|f| f.map(Ok::<_, Infallible>)));
    (sender, BodyExt::boxed(StreamBody::new(stream)))
}

pub(super) async fn client(proxy: &Proxy) -> http2::SendRequest<Out> {
    let stream = TcpStream::connect(proxy.address).await.unwrap();
    let (sender, connection) = http2::handshake(Local, TokioIo::new(stream)).await.unwrap();
    tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    sender
}

/// Serves HTTP/2 on every connection to `upstream`.
pub(super) fn serve<F, R>(upstream: Upstream, respond: F)
where
    F: Fn(Request<Incoming>) -> R + Clone + 'static,
    R: Future<Output = Result<Response<Out>, Box<dyn std::error::Error + Send + Sync>>> + 'static,
{
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = upstream.0.accept().await {
            let respond = respond.clone();
            tokio::task::spawn_local(async move {
                let mut builder = hyper::server::conn::http2::Builder::new(Local);
                builder.enable_connect_protocol();
                let _ = builder.serve_connection(TokioIo::new(stream), service_fn(respond)).await;
            });
        }
    });
}

fn post(path: &str, body: Out) -> Request<Out> {
    Request::builder()
        .method(Method::POST)
        .uri(format!("http://shop.example{path}"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(body)
        .unwrap()
}

#[test]
fn grpc_streams_both_ways_with_trailers() {
    run(async {
        let (upstream, address) = Upstream::bind().await;
        let proxy = Setup::new(&[address]).upstream_http2().start().await;
        // Echoes every message as it comes, then says OK in trailers.
        serve(upstream, |mut request| async move {
            assert_eq!(request.version(), Version::HTTP_2);
            assert_eq!(request.uri().authority().unwrap().as_str(), "shop.example");
            assert_eq!(request.headers()[header::TE], "trailers");
            let (sender, body) = fed();
            tokio::task::spawn_local(async move {
                while let Some(Ok(frame)) = request.body_mut().frame().await {
                    if let Ok(data) = frame.into_data() {
                        sender.send(Frame::data(data)).unwrap();
                    }
                }
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                sender.send(Frame::trailers(trailers)).unwrap();
            });
            Ok(Response::builder().header(header::CONTENT_TYPE, "application/grpc").body(body).unwrap())
        });
        let mut client = client(&proxy).await;
        let (sender, body) = fed();
        let mut response = client.send_request(post("/svc/Chat", body)).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert!(response.headers().contains_key(header::DATE));
        for i in 0..100u32 {
            sender.send(Frame::data(Bytes::from(i.to_string()))).unwrap();
            let frame = response.body_mut().frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), i.to_string());
        }
        drop(sender);
        let trailers = response.body_mut().frame().await.unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(trailers["grpc-status"], "0");
        assert!(response.body_mut().frame().await.is_none());
        assert_eq!(proxy.log(1).await, ["200 - via_upstream 1 190 190 /svc/Chat"]);
    });
}

#[test]
fn http2_clients_reach_http1_servers() {
    run(async {
        let (proxy, upstream) = pair(|_| {}).await;
        let mut client = client(&proxy).await;
        let (sender, body) = fed();
        let mut request = post("/up?x=1", body);
        request.headers_mut().append(header::COOKIE, HeaderValue::from_static("a=1"));
        request.headers_mut().append(header::COOKIE, HeaderValue::from_static("b=2"));
        let response = tokio::task::spawn_local(client.send_request(request));
        let mut server = upstream.accept().await;
        let head = server.head().await;
        assert!(head.starts_with("POST /up?x=1 HTTP/1.1\r\n"), "{head}");
        assert_eq!(header(&head, "host"), Some("shop.example"));
        assert_eq!(header(&head, "cookie"), Some("a=1; b=2"));
        assert_eq!(header(&head, "transfer-encoding"), Some("chunked"), "{head}");
        sender.send(Frame::data(Bytes::from_static(b"abc"))).unwrap();
        assert_eq!(server.until("abc\r\n").await, "3\r\nabc\r\n");
        drop(sender);
        server.until("0\r\n\r\n").await;
        server
            .send(
                "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\nTransfer-Encoding: chunked\r\n\r\n\
                 2\r\nok\r\n0\r\ngrpc-status: 0\r\n\r\n",
            )
            .await;
        let response = response.await.unwrap().unwrap();
        assert!(!response.headers().contains_key(header::TRANSFER_ENCODING));
        let collected = response.into_body().collect().await.unwrap();
        assert_eq!(collected.trailers().unwrap()["grpc-status"], "0");
        assert_eq!(collected.to_bytes(), "ok");
    });
}

#[test]
fn http1_clients_reach_http2_servers_and_get_grpc_trailers() {
    run(async {
        let (upstream, address) = Upstream::bind().await;
        let proxy = Setup::new(&[address]).upstream_http2().start().await;
        serve(upstream, |request| async move {
            assert_eq!(request.uri().to_string(), "http://shop/x?y=1");
            let body = request.into_body().collect().await?.to_bytes();
            let (sender, out) = fed();
            sender.send(Frame::data(body)).unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("5"));
            sender.send(Frame::trailers(trailers)).unwrap();
            Ok(Response::new(out))
        });
        let mut client = proxy.connect().await;
        client
            .send(
                "POST /x?y=1 HTTP/1.1\r\nHost: shop\r\nTE: trailers\r\nContent-Type: application/grpc\r\n\
                 Content-Length: 3\r\n\r\nabc",
            )
            .await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert_eq!(client.until("grpc-status: 5\r\n\r\n").await, "3\r\nabc\r\n0\r\ngrpc-status: 5\r\n\r\n");
    });
}

#[test]
fn an_upstream_that_dies_resets_the_stream_only() {
    run(async {
        let (proxy, upstream) = pair(|_| {}).await;
        let mut client = client(&proxy).await;
        let pending = tokio::task::spawn_local(client.send_request(post("/dies", full(""))));
        let mut server = upstream.accept().await;
        server.head().await;
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
        let response = pending.await.unwrap().unwrap();
        drop(server);
        let error = response.into_body().collect().await.unwrap_err();
        assert!(error.to_string().contains("stream") || std::error::Error::source(&error).is_some(), "{error}");
        // The connection goes on.
        let pending = tokio::task::spawn_local(client.send_request(post("/lives", full(""))));
        let mut server = upstream.accept().await;
        server.head().await;
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        assert_eq!(pending.await.unwrap().unwrap().status(), StatusCode::OK);
        assert_eq!(proxy.stats.local().downstream_cx_total.get(), 1);
        assert_eq!(proxy.stats.local().downstream_cx_http2_total.get(), 1);
    });
}

#[test]
fn an_early_answer_ends_the_upload_behind_it() {
    run(async {
        for answer in ["", "no"] {
            let (upstream, address) = Upstream::bind().await;
            let proxy = Setup::new(&[address]).upstream_http2().start().await;
            let (ended, mut ends) = mpsc::unbounded_channel();
            serve(upstream, move |request| {
                let ended = ended.clone();
                async move {
                    // Neither reads the upload nor says that it will not.
                    tokio::task::spawn_local(async move {
                        let _ = ended.send(request.into_body().collect().await.is_err());
                    });
                    Ok(Response::builder().status(404).body(full(answer))?)
                }
            });
            let (upload, body) = fed();
            upload.send(Frame::data(Bytes::from_static(b"part"))).unwrap();
            let mut client = client(&proxy).await;
            let response = client.send_request(post("/early", body)).await.unwrap();
            assert_eq!(response.status(), StatusCode::NOT_FOUND);
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), answer);
            assert_eq!(ends.recv().await, Some(true), "the upstream's stream was reset");
            until(|| proxy.stats.local().downstream_rq_active.get() == 0).await;
        }
    });
}

#[test]
fn a_stream_reset_by_the_client_cancels_upstream() {
    run(async {
        let (proxy, upstream) = pair(|_| {}).await;
        let mut client = client(&proxy).await;
        let pending = tokio::task::spawn_local(client.send_request(post("/slow", full(""))));
        let mut server = upstream.accept().await;
        server.head().await;
        pending.abort();
        assert_eq!(server.rest().await.unwrap_or_default(), "");
        assert_eq!(proxy.log(1).await, ["0 DC downstream_remote_disconnect 1 0 0 /slow"]);
        until(|| proxy.stats.local().downstream_rq_active.get() == 0).await;
    });
}

#[test]
fn draining_sends_goaway_and_finishes_what_runs() {
    run(async {
        let (proxy, upstream) = pair(|_| {}).await;
        let mut client = client(&proxy).await;
        let pending = tokio::task::spawn_local(client.send_request(post("/last", full(""))));
        let mut server = upstream.accept().await;
        server.head().await;
        proxy.drain.advance(crate::drain::Phase::Drain);
        until(|| proxy.stats.local().downstream_cx_drain_close.get() == 1).await;
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        let response = pending.await.unwrap().unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "ok");
        until(|| proxy.stats.local().downstream_cx_active.get() == 0).await;
        assert!(client.ready().await.is_err());
    });
}

#[test]
fn a_client_that_answers_no_ping_is_let_go_all_the_same() {
    run(async {
        let (proxy, upstream) = pair(|s| s.hcm.drain_timeout = Duration::from_millis(20)).await;
        let mut client = TcpStream::connect(proxy.address).await.unwrap();
        client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        // GET / of "x" on stream 1.
        client.write_all(b"\0\0\x06\x01\x05\0\0\0\x01\x82\x84\x86\x41\x01x").await.unwrap();
        let mut server = upstream.accept().await;
        server.head().await;
        proxy.drain.advance(crate::drain::Phase::Drain);
        until(|| proxy.stats.local().downstream_cx_drain_close.get() == 1).await;
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        let mut heard = Vec::new();
        // Its answer, before or after it is sent away, and then the end, with or without a reset.
        let _ = client.read_to_end(&mut heard).await;
        assert!(heard.windows(11).any(|frame| frame == b"\0\0\x02\0\x01\0\0\0\x01ok"), "{heard:?}");
        until(|| proxy.stats.local().downstream_cx_active.get() == 0).await;
    });
}

/// A raw connection to the proxy, which tells what hyper keeps to itself.
pub(super) async fn bare(proxy: &Proxy) -> h2::client::SendRequest<Bytes> {
    let stream = TcpStream::connect(proxy.address).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    sender.ready().await.unwrap()
}

fn expecting() -> Request<()> {
    let request =
        Request::builder().method(Method::POST).uri("http://shop.example/up").header("expect", "100-continue");
    request.header("content-length", "4").body(()).unwrap()
}

/// `passed`: it is the upstream that wants the body, else this proxy.
fn asked(passed: bool) {
    run(async move {
        let (proxy, upstream) = pair(|s| s.hcm.proxy_100_continue = passed).await;
        let mut sender = bare(&proxy).await;
        let (mut response, mut stream) = sender.send_request(expecting(), false).unwrap();
        let mut server = upstream.accept().await;
        let head = server.head().await;
        assert_eq!(header(&head, "expect").is_some(), passed, "{head}");
        if passed {
            server.send("HTTP/1.1 100 Continue\r\n\r\n").await;
        }
        let interim = std::future::poll_fn(|cx| response.poll_informational(cx)).await.unwrap().unwrap();
        assert_eq!(interim.status(), StatusCode::CONTINUE);
        stream.send_data(Bytes::from_static(b"body"), true).unwrap();
        assert_eq!(server.exactly(4).await, "body");
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        assert_eq!(response.await.unwrap().status(), StatusCode::OK);
    });
}

#[test]
fn clients_that_wait_are_asked_for_their_body() {
    asked(false);
}

#[test]
fn clients_that_wait_are_asked_when_the_upstream_asks() {
    asked(true);
}

#[test]
fn a_final_answer_to_a_client_that_waits_comes_alone() {
    run(async {
        let (proxy, upstream) = pair(|_| {}).await;
        let mut sender = bare(&proxy).await;
        let (mut response, _stream) = sender.send_request(expecting(), false).unwrap();
        let mut server = upstream.accept().await;
        server.head().await;
        server.send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n").await;
        assert!(std::future::poll_fn(|cx| response.poll_informational(cx)).await.is_none());
        assert_eq!(response.await.unwrap().status(), StatusCode::EXPECTATION_FAILED);
    });
}

#[test]
fn the_end_of_a_bodiless_answer_may_come_in_a_frame_of_its_own() {
    run(async {
        for (method, status) in [("HEAD", 200), ("GET", 204), ("GET", 304)] {
            let (upstream, address) = Upstream::bind().await;
            let proxy = Setup::new(&[address]).upstream_http2().start().await;
            let (ended, mut reset) = mpsc::unbounded_channel();
            tokio::task::spawn_local(async move {
                let stream = upstream.0.accept().await.unwrap().0;
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    let mut stream =
                        respond.send_response(Response::builder().status(status).body(()).unwrap(), false).unwrap();
                    let ended = ended.clone();
                    tokio::task::spawn_local(async move {
                        // Only once the client was answered: it is not the end that makes the answer.
                        tokio::task::yield_now().await;
                        let sent = stream.send_data(Bytes::new(), true).map_err(|e| e.to_string());
                        ended.send(sent).unwrap();
                    });
                }
            });
            let mut client = proxy.connect().await;
            for path in ["/1", "/2"] {
                client.send(&format!("{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
                let head = client.head().await;
                assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
                assert_eq!(reset.recv().await.unwrap(), Ok(()), "{method} {status}");
            }
            let line = |path| format!("{status} - via_upstream 1 0 0 {path}");
            assert_eq!(proxy.log(2).await, [line("/1"), line("/2")], "{method} {status}");
            until(|| proxy.cluster_stats.local().upstream_rq_active.get() == 0).await;
            assert_eq!(proxy.cluster_stats.local().upstream_cx_total.get(), 1);
        }
    });
}

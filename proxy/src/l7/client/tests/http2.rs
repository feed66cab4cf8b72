use std::{
    cell::Cell,
    rc::Rc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Barrier,
};

use super::support::*;

#[test]
fn a_hundred_requests_share_one_dial() {
    worker(async {
        // Answers only when all hundred are there.
        let barrier = Rc::new(Barrier::new(100));
        let server = server(move |stream, _| {
            let barrier = barrier.clone();
            async move {
                let service = service_fn(move |request| {
                    let barrier = barrier.clone();
                    async move {
                        barrier.wait().await;
                        echo(request).await
                    }
                });
                let builder = hyper::server::conn::http2::Builder::new(Local);
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            }
        })
        .await;
        let attempt = attempt(address(server.address), Protocol::Http2, |_| {});
        let pool = Pool::<Body>::new();
        let requests = (0..100).map(|i| {
            let (pool, attempt) = (&pool, &attempt);
            async move { text(pool.send(attempt, get(&format!("/{i}"))).await.unwrap()).await }
        });
        let answers = futures_util::future::join_all(requests).await;
        for (i, answer) in answers.iter().enumerate() {
            assert_eq!(*answer, format!("GET /{i} test.example "));
        }
        assert_eq!((server.accepted.get(), stat(&attempt, "upstream_cx_http2_total")), (1, 1));
        assert_eq!(pool.counts(), [0, 0, 1]);
        settled(&attempt, 1).await;
        pool.sweep(Instant::now() + Duration::from_secs(3600));
        settled(&attempt, 0).await;
        assert_eq!(stat(&attempt, "upstream_cx_idle_timeout"), 1);
    });
}

/// Runs tasks on the test's thread.
#[derive(Clone)]
struct Local;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

#[test]
fn full_connections_get_company() {
    for (ours, peers) in [(2, 100), (100, 2)] {
        worker(async move {
            let barrier = Rc::new(Barrier::new(6));
            let server = server(move |stream, _| {
                let barrier = barrier.clone();
                async move {
                    let service = service_fn(move |request| {
                        let barrier = barrier.clone();
                        async move {
                            barrier.wait().await;
                            echo(request).await
                        }
                    });
                    let mut builder = hyper::server::conn::http2::Builder::new(Local);
                    builder.max_concurrent_streams(peers);
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                }
            })
            .await;
            let attempt = attempt(address(server.address), Protocol::Http2, |c| {
                std::sync::Arc::make_mut(&mut c.http).http2.max_concurrent_streams = ours;
            });
            let pool = Pool::<Body>::new();
            let one = || async { text(pool.send(&attempt, get("/")).await.unwrap()).await };
            let mut running = FuturesUnordered::new();
            running.push(one());
            // The first alone, so that the peer's settings are known when the others come.
            let settings = until("the settings are there", || stat(&attempt, "upstream_cx_rx_bytes_total") > 0);
            tokio::select! {
                biased;
                _ = running.next() => panic!("answered before all were there"),
                () = settings => {}
            }
            (1..6).for_each(|_| running.push(one()));
            while running.next().await.is_some() {}
            assert_eq!(server.accepted.get(), 3, "six requests, two per connection");
            settled(&attempt, 3).await;
        });
    }
}

/// Reads frames until HEADERS; its stream id.
async fn read_headers(stream: &mut TcpStream) -> Option<u32> {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await.ok()?;
        if head[3] == 1 {
            return Some(u32::from_be_bytes([head[5], head[6], head[7], head[8]]));
        }
    }
}

fn frame(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(id.to_be_bytes());
    frame.extend(payload);
    frame
}

fn settings() -> Vec<u8> {
    frame(4, 0, 0, &[])
}

/// `:status 200` and the stream's end.
fn ok(id: u32) -> Vec<u8> {
    frame(1, 0x5, id, &[0x88])
}

fn go_away(last: u32, code: u32) -> Vec<u8> {
    frame(7, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat())
}

fn reset(id: u32, code: u32) -> Vec<u8> {
    frame(3, 0, id, &code.to_be_bytes())
}

/// A server that speaks frames: `answer` gives the bytes for the n-th request of the c-th connection.
async fn frames(answer: impl Fn(usize, usize, u32) -> Vec<u8> + Clone + 'static) -> Server {
    server(move |mut stream, connection| {
        let answer = answer.clone();
        async move {
            let mut preface = [0; 24];
            stream.read_exact(&mut preface).await.unwrap();
            stream.write_all(&settings()).await.unwrap();
            for n in 1.. {
                let Some(id) = read_headers(&mut stream).await else { return };
                let bytes = answer(connection, n, id);
                if bytes.is_empty() || stream.write_all(&bytes).await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

#[test]
fn go_away_below_the_stream_is_a_refusal() {
    worker(async {
        let server = frames(|connection, n, id| match (connection, n) {
            (1, 1) => ok(id),
            (1, _) => go_away(1, 0),
            _ => ok(id),
        })
        .await;
        let attempt = attempt(address(server.address), Protocol::Http2, |_| {});
        let pool = Pool::<Body>::new();
        text(pool.send(&attempt, get("/")).await.unwrap()).await;
        let error = pool.send(&attempt, get("/")).await.unwrap_err();
        assert_eq!(error.kind, SendErrorKind::Refused, "{}", error.reason);
        let sent = pool.send(&attempt, get("/")).await.unwrap();
        assert!(sent.new_connection, "the old connection takes nothing more");
        text(sent).await;
        assert_eq!(server.accepted.get(), 2);
        settled(&attempt, 1).await;
    });
}

#[test]
fn a_stream_that_go_away_covers_is_not_refused() {
    worker(async {
        // The peer may have processed it: it names the stream as its last, and hangs up.
        let server = server(|mut stream, _| async move {
            let mut preface = [0; 24];
            stream.read_exact(&mut preface).await.unwrap();
            let id = read_headers(&mut stream).await.unwrap();
            stream.write_all(&[settings(), go_away(id, 0)].concat()).await.unwrap();
        })
        .await;
        let attempt = attempt(address(server.address), Protocol::Http2, |_| {});
        let error = Pool::<Body>::new().send(&attempt, get("/")).await.unwrap_err();
        assert_eq!(error.kind, SendErrorKind::Reset { response_started: false, reused: false }, "{}", error.reason);
        settled(&attempt, 0).await;
    });
}

#[test]
fn after_go_away_requests_go_elsewhere() {
    worker(async {
        let server = frames(|connection, _, id| match connection {
            1 => [ok(id), go_away(id, 0)].concat(),
            _ => ok(id),
        })
        .await;
        let attempt = attempt(address(server.address), Protocol::Http2, |_| {});
        let pool = Pool::<Body>::new();
        text(pool.send(&attempt, get("/")).await.unwrap()).await;
        // Whether the GOAWAY is known by now is a race; either way nothing is lost.
        match pool.send(&attempt, get("/again")).await {
            Ok(sent) => assert!(sent.new_connection),
            Err(error) => {
                assert!(matches!(error.kind, SendErrorKind::Unsent | SendErrorKind::Refused), "{error:?}");
                assert!(pool.send(&attempt, get("/again")).await.unwrap().new_connection);
            }
        }
        assert_eq!(server.accepted.get(), 2);
    });
}

#[test]
fn refused_streams_leave_the_connection_alone() {
    worker(async {
        let server = frames(|_, n, id| match n {
            1 => reset(id, 7),
            2 => reset(id, 2),
            _ => ok(id),
        })
        .await;
        let attempt = attempt(address(server.address), Protocol::Http2, |_| {});
        let pool = Pool::<Body>::new();
        let error = pool.send(&attempt, get("/")).await.unwrap_err();
        assert_eq!(error.kind, SendErrorKind::Refused, "{}", error.reason);
        let error = pool.send(&attempt, get("/")).await.unwrap_err();
        assert_eq!(error.kind, SendErrorKind::StreamReset, "{}", error.reason);
        text(pool.send(&attempt, get("/")).await.unwrap()).await;
        assert_eq!(server.accepted.get(), 1);
        settled(&attempt, 1).await;
    });
}

#[test]
fn a_body_cut_without_an_error_is_cut() {
    worker(async {
        let server = frames(|_, _, id| {
            let head = frame(1, 0x4, id, &[0x88]);
            [head, frame(0, 0, id, b"half"), reset(id, 0)].concat()
        })
        .await;
        let attempt = attempt(address(server.address), Protocol::Http2, |_| {});
        let sent = Pool::<Body>::new().send(&attempt, get("/")).await.unwrap();
        assert!(sent.response.into_body().collect().await.is_err(), "NO_ERROR is no end");
    });
}

#[test]
fn garbage_is_a_protocol_error() {
    worker(async {
        let server = frames(|_, _, _| b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n".to_vec()).await;
        let attempt = attempt(address(server.address), Protocol::Http2, |_| {});
        let error = Pool::<Body>::new().send(&attempt, get("/")).await.unwrap_err();
        assert_eq!(error.kind, SendErrorKind::Protocol, "{}", error.reason);
        settled(&attempt, 0).await;
    });
}

#[test]
fn a_given_up_stream_is_reset_and_the_connection_stays() {
    worker(async {
        let server = server(|stream, _| async move {
            let service = service_fn(|request: http::Request<hyper::body::Incoming>| async move {
                if request.uri().path() == "/never" {
                    std::future::pending::<()>().await;
                }
                Ok::<_, std::convert::Infallible>(http::Response::new(Full::<bytes::Bytes>::from("ok")))
            });
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        })
        .await;
        let attempt = attempt(address(server.address), Protocol::Http2, |_| {});
        let pool = Pool::<Body>::new();
        text(pool.send(&attempt, get("/")).await.unwrap()).await;
        tokio::select! {
            biased;
            _ = pool.send(&attempt, get("/never")) => panic!("there is no answer"),
            () = until("nothing", || attempt.cluster.breaker(false).used()[2] == 1) => {}
        }
        text(pool.send(&attempt, get("/")).await.unwrap()).await;
        assert_eq!(server.accepted.get(), 1);
        settled(&attempt, 1).await;
    });
}

#[test]
fn an_answer_before_the_requests_end_ends_the_stream() {
    use http_body_util::BodyExt;
    // Without content, and with.
    for content in [&b""[..], b"no"] {
        worker(async move {
            let gone = Rc::new(Cell::new(0));
            let resets = gone.clone();
            let server = server(move |stream, _| {
                let gone = gone.clone();
                async move {
                    let mut builder = h2::server::Builder::new();
                    builder.max_concurrent_streams(2);
                    let mut connection = builder.handshake::<_, bytes::Bytes>(stream).await.unwrap();
                    while let Some(Ok((request, mut respond))) = connection.accept().await {
                        let gone = gone.clone();
                        tokio::task::spawn_local(async move {
                            let mut answer =
                                respond.send_response(http::Response::new(()), content.is_empty()).unwrap();
                            if !content.is_empty() {
                                answer.send_data(bytes::Bytes::from_static(content), true).unwrap();
                            }
                            let mut body = request.into_body();
                            while let Some(Ok(_)) = body.data().await {}
                            gone.set(gone.get() + 1);
                        });
                    }
                }
            })
            .await;
            let attempt = attempt(address(server.address), Protocol::Http2, |_| {});
            let pool = Pool::<Body>::new();
            // More than the peer has room for at once.
            for n in 1..=5 {
                let endless = http_body_util::StreamBody::new(tokio_stream::pending());
                let request = http::Request::post("http://a.example/").body(BodyExt::boxed_unsync(endless)).unwrap();
                text(pool.send(&attempt, request).await.unwrap()).await;
                until("the stream is gone", || resets.get() == n).await;
            }
            assert_eq!(server.accepted.get(), 1);
            settled(&attempt, 1).await;
        });
    }
}

#[test]
fn a_connect_with_content_is_refused_here() {
    worker(async {
        let server = server(|stream, _| serve_http2(stream)).await;
        let attempt = attempt(address(server.address), Protocol::Http2, |_| {});
        let pool = Pool::<Body>::new();
        let mut request = get("/");
        *request.method_mut() = http::Method::CONNECT;
        *request.uri_mut() = http::Uri::from_static("test.example:443");
        request.headers_mut().insert(http::header::CONTENT_LENGTH, http::HeaderValue::from_static("5"));
        let error = pool.send(&attempt, request).await.unwrap_err();
        // Our own refusal must not look like a reset by the peer, which could be worth another try.
        assert_eq!(error.kind, SendErrorKind::Protocol);
        assert!(error.request.is_some());
        assert_eq!(pool.counts(), [0, 0, 1], "the connection goes on");
    });
}

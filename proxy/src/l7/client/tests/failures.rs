use std::{net::SocketAddr, time::Instant};

use http::Request;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::support::*;

async fn failure(pool: &Pool<Body>, attempt: &Attempt) -> SendError<Body> {
    match pool.send(attempt, get("/x")).await {
        Ok(sent) => panic!("{sent:?}"),
        Err(error) => *error,
    }
}

#[test]
fn a_refused_connection_gives_the_request_back() {
    worker(async {
        let closed: SocketAddr = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap()
        };
        for protocol in [Protocol::Http1, Protocol::Http2, Protocol::Auto] {
            let attempt = attempt(address(closed), protocol, |_| {});
            let pool = Pool::<Body>::new();
            let error = failure(&pool, &attempt).await;
            let SendErrorKind::Connect(connect) = &error.kind else { panic!("{error:?}") };
            assert_eq!(connect.kind, ConnectErrorKind::Refused);
            assert_eq!(error.reason, "delayed connect error: Connection refused");
            assert_eq!(error.request.unwrap().uri(), "/x");
            assert_eq!(stat(&attempt, "upstream_cx_connect_fail"), 1);
            settled(&attempt, 0).await;
            pool.sweep(Instant::now());
            assert!(format!("{:?}", pool.counts()).contains("0, 0, 0"));
        }
    });
}

#[test]
fn one_failed_dial_fails_all_that_waited_for_it() {
    worker(async {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let attempt = attempt(address(closed), Protocol::Http2, |_| {});
        let pool = Pool::<Body>::new();
        let errors = futures_util::future::join_all((0..30).map(|_| failure(&pool, &attempt))).await;
        assert!(errors.iter().all(|e| matches!(e.kind, SendErrorKind::Connect(_)) && e.request.is_some()));
        assert_eq!(stat(&attempt, "upstream_cx_total"), 1);
        settled(&attempt, 0).await;
    });
}

#[test]
fn a_leased_connection_that_died_gives_the_request_back() {
    worker(async {
        let server = server(|mut stream, _| async move {
            read_head(&mut stream).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            // Stays until the client's next byte would come, then closes.
            let _ = stream.read_u8().await;
        })
        .await;
        let attempt = attempt(address(server.address), Protocol::Http1, |_| {});
        let pool = Pool::<Body>::new();
        text(pool.send(&attempt, get("/")).await.unwrap()).await;
        until("it is idle", || pool.counts()[0] == 1).await;
        let lane = pool.lane(&attempt).unwrap();
        let lease = lane.checkout(false).unwrap();
        // Between the checkout and the send the connection goes away.
        let crate::l7::client::lane::Lease::Http1(connection) = lease else { panic!() };
        connection.close();
        until("the connection ends", || pool.counts()[1] == 0).await;
        let permit = lane.scope.try_request(false).unwrap();
        let error = crate::l7::client::http1::send(connection, get("/again"), permit).await.unwrap_err();
        assert_eq!(error.kind, SendErrorKind::Unsent);
        assert_eq!(error.request.unwrap().uri(), "/again");
        settled(&attempt, 0).await;
    });
}

#[test]
fn broken_answers_are_told_apart() {
    let reset = |response_started| SendErrorKind::Reset { response_started, reused: false };
    for (answer, kind) in [
        ("", reset(false)),
        ("HTTP/1.1 200 O", reset(true)),
        ("HTTP/1.1 200 OK\r\ncontent-le", reset(true)),
        ("SSH-2.0-OpenSSH_9.2\r\n\r\n", SendErrorKind::Protocol),
        ("HTTP/1.1 200 OK\r\nbad header\r\n\r\n", SendErrorKind::Protocol),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", SendErrorKind::Protocol),
    ] {
        worker(async move {
            let server = server(move |mut stream, _| async move {
                read_head(&mut stream).await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
            })
            .await;
            let attempt = attempt(address(server.address), Protocol::Http1, |_| {});
            let error = failure(&Pool::new(), &attempt).await;
            assert_eq!(error.kind, kind, "{answer:?}: {}", error.reason);
            assert!(error.request.is_none(), "it was sent");
            settled(&attempt, 0).await;
        });
    }
}

#[test]
fn floods_of_headers_are_refused() {
    for headers in [format!("x: {}\r\n", "y".repeat(70 * 1024)), (0..101).map(|i| format!("x{i}: y\r\n")).collect()] {
        worker(async move {
            let server = server(move |mut stream, _| {
                let headers = headers.clone();
                async move {
                    read_head(&mut stream).await.unwrap();
                    let answer = format!("HTTP/1.1 200 OK\r\n{headers}content-length: 0\r\n\r\n");
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            })
            .await;
            let attempt = attempt(address(server.address), Protocol::Http1, |_| {});
            let error = failure(&Pool::new(), &attempt).await;
            assert_eq!(error.kind, SendErrorKind::Protocol, "{}", error.reason);
            settled(&attempt, 0).await;
        });
    }
}

#[test]
fn a_reset_on_a_reused_connection_says_so() {
    worker(async {
        let server = server(|mut stream, _| async move {
            read_head(&mut stream).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            // The next request is read and not answered.
            read_head(&mut stream).await;
        })
        .await;
        let attempt = attempt(address(server.address), Protocol::Http1, |_| {});
        let pool = Pool::<Body>::new();
        text(pool.send(&attempt, get("/")).await.unwrap()).await;
        until("it is idle", || pool.counts()[0] == 1).await;
        let error = failure(&pool, &attempt).await;
        assert_eq!(error.kind, SendErrorKind::Reset { response_started: false, reused: true });
    });
}

#[test]
fn a_request_that_is_given_up_takes_its_connection_along() {
    worker(async {
        let closed = shared(0);
        let server = {
            let closed = closed.clone();
            server(move |mut stream, _| {
                let closed = closed.clone();
                async move {
                    read_head(&mut stream).await.unwrap();
                    let _ = stream.read_u8().await;
                    *closed.borrow_mut() += 1;
                }
            })
            .await
        };
        let attempt = attempt(address(server.address), Protocol::Http1, |_| {});
        let pool = Pool::<Body>::new();
        let wait = async {
            until("the request is under way", || stat(&attempt, "upstream_cx_tx_bytes_total") > 0).await;
        };
        tokio::select! {
            _ = pool.send(&attempt, get("/")) => panic!("there is no answer"),
            () = wait => {}
        }
        until("the server sees the end", || *closed.borrow() == 1).await;
        settled(&attempt, 0).await;
        assert_eq!(pool.counts(), [0; 3]);
    });
}

#[test]
fn waiting_requests_can_be_given_up() {
    worker(async {
        // Accepted by the kernel, and never answered.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let tls = super::transports::trusting_nobody();
        let attempt = attempt(address(listener.local_addr().unwrap()), Protocol::Http1, |c| c.tls = Some(tls));
        let pool = Pool::<Body>::new();
        for _ in 0..100 {
            tokio::select! {
                biased;
                _ = pool.send(&attempt, get("/")) => panic!("there is no answer"),
                () = tokio::task::yield_now() => {}
            }
        }
        let used = attempt.cluster.breaker(false).used();
        assert_eq!(used[1..], [0, 0, 0], "nobody waits: {used:?}");
        assert_eq!(stat(&attempt, "upstream_rq_pending_active"), 0);
        assert!(used[0] <= 100);
    });
}

#[test]
fn a_failing_request_body_is_our_own_fault() {
    worker(async {
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let server = server(move |stream, _| async move {
                match protocol {
                    Protocol::Http2 => serve_http2(stream).await,
                    _ => serve_http1(stream).await,
                }
            })
            .await;
            let attempt = attempt(address(server.address), protocol, |_| {});
            let frames = [Ok(Frame::data("part".into())), Err(std::io::Error::other("the client went away"))];
            let body: Body = BodyExt::boxed_unsync(StreamBody::new(tokio_stream::iter(frames)));
            let request = Request::post("http://a.example/").body(body).unwrap();
            let error = Pool::new().send(&attempt, request).await.unwrap_err();
            assert_eq!(error.kind, SendErrorKind::Body, "{protocol:?}: {}", error.reason);
        }
    });
}

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::support::*;

#[test]
fn connections_carry_so_many_requests_and_no_more() {
    worker(async {
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let server = server(move |stream, _| async move {
                match protocol {
                    Protocol::Http2 => serve_http2(stream).await,
                    _ => serve_http1(stream).await,
                }
            })
            .await;
            let attempt = attempt(address(server.address), protocol, |c| {
                std::sync::Arc::make_mut(&mut c.http).max_requests_per_connection = Some(2);
            });
            let pool = Pool::<Body>::new();
            for _ in 0..6 {
                text(pool.send(&attempt, get("/")).await.unwrap()).await;
                until("it is released", || attempt.cluster.breaker(false).used()[2] == 0).await;
            }
            assert_eq!(server.accepted.get(), 3, "{protocol:?}");
            settled(&attempt, 0).await;
        }
    });
}

#[test]
fn requests_beyond_the_limit_are_shed() {
    worker(async {
        let server = server(|stream, _| serve_http1(stream)).await;
        let attempt = attempt(address(server.address), Protocol::Http1, |c| c.breaker.max_requests = 1);
        let pool = Pool::<Body>::new();
        let first = pool.send(&attempt, get("/")).await.unwrap();
        let error = pool.send(&attempt, get("/x")).await.unwrap_err();
        assert_eq!(error.kind, SendErrorKind::PoolOverflow);
        assert_eq!(error.request.unwrap().uri(), "/x");
        assert_eq!(stat(&attempt, "upstream_rq_pending_overflow"), 1);
        let important = Attempt { high_priority: true, ..attempt.clone() };
        text(pool.send(&important, get("/")).await.unwrap()).await;
        text(first).await;
        text(pool.send(&attempt, get("/")).await.unwrap()).await;
    });
}

#[test]
fn at_the_connection_limit_requests_wait_for_a_connection() {
    worker(async {
        let server = server(|stream, _| serve_http1(stream)).await;
        let attempt = attempt(address(server.address), Protocol::Http1, |c| c.breaker.max_connections = 2);
        let pool = Pool::<Body>::new();
        let requests = (0..30).map(|_| async { text(pool.send(&attempt, get("/")).await.unwrap()).await });
        let answers = futures_util::future::join_all(requests).await;
        assert_eq!(answers.len(), 30);
        assert_eq!(server.accepted.get(), 2);
        assert!(stat(&attempt, "upstream_cx_overflow") > 0);
        settled(&attempt, 2).await;
    });
}

#[test]
fn a_pool_without_a_connection_opens_one_past_the_limit() {
    worker(async {
        let server = server(|stream, _| serve_http1(stream)).await;
        let attempt = attempt(address(server.address), Protocol::Http1, |c| c.breaker.max_connections = 0);
        let pool = Pool::<Body>::new();
        let requests = (0..5).map(|_| async { text(pool.send(&attempt, get("/")).await.unwrap()).await });
        futures_util::future::join_all(requests).await;
        assert_eq!(server.accepted.get(), 1);
        settled(&attempt, 1).await;
        assert!(stat(&attempt, "upstream_cx_overflow") > 0);
    });
}

#[test]
fn connections_to_one_host_have_a_limit_of_their_own() {
    worker(async {
        let server = server(|stream, _| serve_http1(stream)).await;
        let attempt = attempt(address(server.address), Protocol::Http1, |c| {
            let policy = crate::ir::cluster::HealthPolicy { max_connections_per_host: Some(3), ..Default::default() };
            c.health = Some(Arc::new(policy));
        });
        let pool = Pool::<Body>::new();
        let requests = (0..20).map(|_| async { text(pool.send(&attempt, get("/")).await.unwrap()).await });
        futures_util::future::join_all(requests).await;
        assert_eq!(server.accepted.get(), 3);
        settled(&attempt, 3).await;
    });
}

#[test]
fn who_waits_for_a_connection_is_no_request_yet() {
    worker(async {
        let server = server(|stream, _| serve_http1(stream)).await;
        let attempt = attempt(address(server.address), Protocol::Http1, |c| {
            c.breaker.max_connections = 1;
            c.breaker.max_requests = 2;
        });
        let pool = Pool::<Body>::new();
        let requests = (0..10).map(|_| async { text(pool.send(&attempt, get("/")).await.unwrap()).await });
        assert_eq!(futures_util::future::join_all(requests).await.len(), 10, "one after the other");
        assert_eq!(stat(&attempt, "upstream_rq_pending_overflow"), 0);
        assert_eq!(stat(&attempt, "upstream_rq_total"), 10);
        settled(&attempt, 1).await;
    });
}

#[test]
fn pools_are_bounded_and_an_idle_one_makes_room() {
    worker(async {
        let server = server(|stream, _| serve_http1(stream)).await;
        let attempt = attempt(address(server.address), Protocol::Http1, |c| c.breaker.max_connection_pools = 1);
        let pool = Pool::<Body>::new();
        let other = Attempt { sni: Some("other".into()), ..attempt.clone() };
        let busy = pool.send(&attempt, get("/")).await.unwrap();
        let error = pool.send(&other, get("/")).await.unwrap_err();
        assert_eq!(error.kind, SendErrorKind::PoolOverflow);
        assert_eq!(stat(&attempt, "upstream_cx_pool_overflow"), 1);
        text(busy).await;
        until("it is idle", || pool.counts()[0] == 1).await;
        text(pool.send(&other, get("/")).await.unwrap()).await;
        assert_eq!(server.accepted.get(), 2);
        assert_eq!(attempt.cluster.breaker(false).levels()[4].used, 1);
        settled(&attempt, 1).await;
    });
}

#[test]
fn waiting_requests_are_bounded() {
    worker(async {
        let server = server(|stream, _| serve_http1(stream)).await;
        let attempt = attempt(address(server.address), Protocol::Http1, |c| c.breaker.max_pending_requests = 3);
        let pool = Pool::<Body>::new();
        let requests = (0..10).map(|_| async {
            match pool.send(&attempt, get("/")).await {
                Ok(sent) => text(sent).await.len(),
                Err(error) => {
                    assert_eq!(error.kind, SendErrorKind::PoolOverflow);
                    0
                }
            }
        });
        let answers = futures_util::future::join_all(requests).await;
        assert_eq!(answers.iter().filter(|a| **a > 0).count(), 3);
        assert_eq!(stat(&attempt, "upstream_rq_pending_overflow"), 7);
    });
}

#[test]
fn a_sweep_lets_go_of_what_is_old_or_removed() {
    worker(async {
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let server = server(move |stream, _| async move {
                match protocol {
                    Protocol::Http2 => serve_http2(stream).await,
                    _ => serve_http1(stream).await,
                }
            })
            .await;
            let attempt = attempt(address(server.address), protocol, |c| {
                std::sync::Arc::make_mut(&mut c.http).idle_timeout = Some(Duration::from_secs(10));
            });
            let pool = Pool::<Body>::new();
            let busy = pool.send(&attempt, get("/")).await.unwrap();
            pool.sweep(Instant::now() + Duration::from_secs(9999));
            assert_eq!(text(busy).await, "GET / test.example ", "what is in use is left alone");
            until("it is idle", || pool.counts()[0] + pool.counts()[2] == 1).await;
            pool.sweep(Instant::now() + Duration::from_secs(8));
            assert_eq!(attempt.cluster.breaker(false).used()[0], 1);
            pool.sweep(Instant::now() + Duration::from_secs(11));
            settled(&attempt, 0).await;

            text(pool.send(&attempt, get("/")).await.unwrap()).await;
            let empty = Some(Arc::default());
            let eds = Discovery::Eds { service_name: "s".into(), source: crate::ir::ConfigSource::Ads };
            let config = Arc::new(Config { discovery: eds, ..(*attempt.cluster.config).clone() });
            Cluster::build(config, empty, &Deps::default(), Some(&attempt.cluster)).unwrap();
            pool.sweep(Instant::now());
            settled(&attempt, 0).await;
            pool.sweep(Instant::now());
            assert!(pool.is_empty(), "nothing is left of the host");
        }
    });
}

#[test]
fn a_response_that_ends_before_the_request_costs_the_connection() {
    worker(async {
        use http_body_util::BodyExt;
        use tokio::io::AsyncWriteExt;
        let server = server(|mut stream, _| async move {
            read_head(&mut stream).await.unwrap();
            stream.write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            std::future::pending::<()>().await;
        })
        .await;
        let attempt = attempt(address(server.address), Protocol::Http1, |_| {});
        let pool = Pool::<Body>::new();
        let endless = http_body_util::StreamBody::new(tokio_stream::pending());
        let request = http::Request::post("http://a.example/").body(BodyExt::boxed_unsync(endless)).unwrap();
        let sent = pool.send(&attempt, request).await.unwrap();
        assert_eq!(sent.response.status(), 413);
        text(sent).await;
        (0..3).for_each(|_| pool.sweep(Instant::now()));
        settled(&attempt, 0).await;
    });
}

#[test]
fn draining_closes_what_is_idle() {
    worker(async {
        let server = server(|stream, _| serve_http1(stream)).await;
        let attempt = attempt(address(server.address), Protocol::Http1, |_| {});
        let pool = Pool::<Body>::new();
        text(pool.send(&attempt, get("/")).await.unwrap()).await;
        until("it is idle", || pool.counts()[0] == 1).await;
        pool.close_idle();
        settled(&attempt, 0).await;
    });
}

#[test]
fn connections_to_a_host_that_fails_are_let_go_of_once() {
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
            let pool = Pool::<Body>::new();
            text(pool.send(&attempt, get("/")).await.unwrap()).await;
            until("it is idle", || pool.counts()[0] + pool.counts()[2] == 1).await;
            pool.sweep(Instant::now());
            assert_eq!(attempt.cluster.breaker(false).used()[0], 1);
            testing::fail(&attempt.endpoint);
            pool.sweep(Instant::now());
            settled(&attempt, 0).await;
            text(pool.send(&attempt, get("/")).await.unwrap()).await;
            until("it is idle", || pool.counts()[0] + pool.counts()[2] == 1).await;
            pool.sweep(Instant::now());
            assert_eq!(attempt.cluster.breaker(false).used()[0], 1, "what was made since then stays");
        }
    });
}

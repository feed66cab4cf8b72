use std::time::Instant;

use http::{Request, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::support::*;
use crate::l7::client::tunnel;

#[test]
fn connections_are_kept_alive_and_reused() {
    worker(async {
        let server = server(|stream, _| serve_http1(stream)).await;
        let attempt = attempt(address(server.address), Protocol::Http1, |_| {});
        let pool = Pool::<Body>::new();
        for round in 0..5 {
            let sent = pool.send(&attempt, get("http://a.example/path")).await.unwrap();
            assert_eq!(sent.new_connection, round == 0);
            assert_eq!(sent.facts.protocol, HttpProtocol::Http1);
            assert_eq!(sent.facts.remote, Some(server.address));
            assert_eq!(text(sent).await, "GET /path a.example ");
        }
        assert_eq!(server.accepted.get(), 1);
        assert_eq!((stat(&attempt, "upstream_cx_total"), stat(&attempt, "upstream_rq_total")), (1, 5));
        assert!(stat(&attempt, "upstream_cx_rx_bytes_total") > 0 && stat(&attempt, "upstream_cx_tx_bytes_total") > 0);
        settled(&attempt, 1).await;
        assert_eq!(pool.counts(), [1, 1, 0]);
    });
}

#[test]
fn concurrent_requests_have_a_connection_each_and_share_them_later() {
    worker(async {
        let server = server(|stream, _| serve_http1(stream)).await;
        let attempt = attempt(address(server.address), Protocol::Http1, |_| {});
        let pool = Pool::<Body>::new();
        for _ in 0..3 {
            let requests = (0..20).map(|_| async { text(pool.send(&attempt, get("/")).await.unwrap()).await });
            let answers = futures_util::future::join_all(requests).await;
            assert!(answers.iter().all(|a| a == "GET / test.example "));
        }
        assert!(server.accepted.get() <= 20, "{} connections", server.accepted.get());
        until("all are idle", || pool.counts()[0] == pool.counts()[1]).await;
        settled(&attempt, pool.counts()[1] as u32).await;
    });
}

/// A server that answers each request with the next of `answers` and closes after `per_connection`.
async fn scripted(answers: &'static [&'static str], per_connection: usize) -> Server {
    server(move |mut stream, n| async move {
        for answer in answers.iter().cycle().skip((n - 1) * per_connection).take(per_connection) {
            if read_head(&mut stream).await.is_none() {
                return;
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await
}

#[test]
fn a_connection_that_the_server_closed_is_not_used_again() {
    worker(async {
        // Closes without a word: the FIN may not have been noticed by the reactor when the next request comes.
        let server = scripted(&["HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"], 1).await;
        let attempt = attempt(address(server.address), Protocol::Http1, |_| {});
        let pool = Pool::<Body>::new();
        for round in 1..50 {
            assert_eq!(text(pool.send(&attempt, get("/")).await.unwrap()).await, "ok");
            assert_eq!(server.accepted.get(), round);
        }
        settled(&attempt, 0).await;
    });
}

#[test]
fn connections_end_when_the_server_says_so() {
    worker(async {
        for answer in [
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
            "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nKeep-Alive: max=5, timeout=1\r\ncontent-length: 2\r\n\r\nok",
        ] {
            let answers: &'static [&'static str] = Box::leak(Box::new([answer]));
            let server = scripted(answers, 9).await;
            let attempt = attempt(address(server.address), Protocol::Http1, |_| {});
            let pool = Pool::<Body>::new();
            for round in 1..4 {
                assert_eq!(text(pool.send(&attempt, get("/")).await.unwrap()).await, "ok");
                assert_eq!(server.accepted.get(), round, "{answer:?}");
            }
        }
    });
}

#[test]
fn the_servers_keep_alive_is_within_reach() {
    worker(async {
        let server = scripted(&["HTTP/1.1 200 OK\r\nKeep-Alive: timeout=60\r\ncontent-length: 2\r\n\r\nok"], 9).await;
        let attempt = attempt(address(server.address), Protocol::Http1, |_| {});
        let pool = Pool::<Body>::new();
        for _ in 0..3 {
            assert_eq!(text(pool.send(&attempt, get("/")).await.unwrap()).await, "ok");
        }
        assert_eq!(server.accepted.get(), 1);
        pool.sweep(Instant::now() + std::time::Duration::from_secs(58));
        assert_eq!(pool.counts()[0], 1);
        pool.sweep(Instant::now() + std::time::Duration::from_secs(59));
        settled(&attempt, 0).await;
    });
}

#[test]
fn informational_answers_are_skipped_and_case_is_kept() {
    worker(async {
        let seen = shared(String::new());
        let server = {
            let seen = seen.clone();
            server(move |mut stream, _| {
                let seen = seen.clone();
                async move {
                    *seen.borrow_mut() = read_head(&mut stream).await.unwrap();
                    let answer = "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 Fine\r\nX-CaSe: 1\r\ncontent-length: 0\r\n\r\n";
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            })
            .await
        };
        let attempt = attempt(address(server.address), Protocol::Http1, |_| {});
        let pool = Pool::<Body>::new();
        let sent = pool.send(&attempt, get("http://up.example:81/x?y")).await.unwrap();
        assert_eq!(sent.response.status(), StatusCode::OK);
        assert_eq!(sent.response.headers()["x-case"], "1");
        assert!(seen.borrow().starts_with("GET /x?y HTTP/1.1\r\nhost: up.example:81\r\n"), "{}", seen.borrow());
    });
}

#[test]
fn upgrades_hand_the_connection_out() {
    worker(async {
        let server = server(|mut stream, _| async move {
            read_head(&mut stream).await.unwrap();
            let answer = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nfirst";
            stream.write_all(answer.as_bytes()).await.unwrap();
            let (mut read, mut write) = stream.split();
            tokio::io::copy(&mut read, &mut write).await.unwrap();
        })
        .await;
        let attempt = attempt(address(server.address), Protocol::Http1, |_| {});
        let pool = Pool::<Body>::new();
        let request = Request::get("http://a.example/")
            .header("connection", "upgrade")
            .header("upgrade", "echo")
            .body(full(""))
            .unwrap();
        let mut sent = pool.send(&attempt, request).await.unwrap();
        assert_eq!(sent.response.status(), StatusCode::SWITCHING_PROTOCOLS);
        let upgraded = hyper::upgrade::on(&mut sent.response).await.unwrap();
        let mut tunnel = tunnel(upgraded).unwrap();
        let mut came = tunnel.read.to_vec();
        tunnel.io.write_all(b" second").await.unwrap();
        while came.len() < 12 {
            tunnel.io.read_buf(&mut came).await.unwrap();
        }
        assert_eq!(came, b"first second");
        assert_eq!(stat(&attempt, "upstream_cx_active"), 1, "the tunnel counts as a connection");
        assert_eq!(pool.counts(), [0; 3]);
        drop((tunnel, sent));
        settled(&attempt, 0).await;
    });
}

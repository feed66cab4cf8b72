//! What clients see when upstreams misbehave, and what is sent again.

use std::time::Duration;

use super::{
    peer::{Upstream, header},
    support::{Setup, pair, retry, run, until},
};
use crate::ir::route::BodyBuffer;

#[test]
fn death_in_mid_response_is_a_broken_response() {
    run(async {
        let (proxy, upstream) = pair(|_| {}).await;
        for chunked in [false, true] {
            let mut client = proxy.connect().await;
            client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
            let mut server = upstream.accept().await;
            server.head().await;
            if chunked {
                server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n").await;
            } else {
                server.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
            }
            client.until("half").await;
            drop(server);
            match client.rest().await {
                Ok(rest) => assert!(!rest.contains("0\r\n\r\n"), "looks complete: {rest:?}"),
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
            }
        }
        let log = proxy.log(2).await;
        for line in log {
            assert!(
                line.starts_with("200 UC upstream_reset_after_response_started{connection_termination} 1 0 4"),
                "{line}"
            );
        }
    });
}

#[test]
fn a_client_that_leaves_cancels_its_request() {
    run(async {
        let (proxy, upstream) = pair(|_| {}).await;
        let mut client = proxy.connect().await;
        client.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let mut server = upstream.accept().await;
        server.head().await;
        drop(client);
        assert_eq!(server.rest().await.unwrap_or_default(), "", "the upstream connection is closed");
        assert_eq!(proxy.log(1).await, ["0 DC downstream_remote_disconnect 1 0 0 /slow"]);
        assert_eq!(proxy.stats.local().downstream_rq_rx_reset.get(), 1);
        until(|| proxy.stats.local().downstream_rq_active.get() == 0).await;
    });
}

#[test]
fn refused_connections_are_503_uf() {
    run(async {
        let (upstream, address) = Upstream::bind().await;
        drop(upstream);
        let proxy = Setup::new(&[address]).start().await;
        let mut client = proxy.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let (head, body) = client.message().await;
        assert!(head.starts_with("HTTP/1.1 503"), "{head}");
        assert!(
            body.starts_with(
                "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure"
            ),
            "{body}"
        );
        assert!(
            proxy.log(1).await[0]
                .starts_with("503 UF upstream_reset_before_response_started{remote_connection_failure|")
        );
    });
}

#[test]
fn no_endpoints_are_503_uh() {
    run(async {
        let proxy = Setup::new(&[]).start().await;
        let mut client = proxy.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let (head, body) = client.message().await;
        assert!(head.starts_with("HTTP/1.1 503") && body == "no healthy upstream", "{head}{body}");
        assert_eq!(proxy.log(1).await, ["503 UH no_healthy_upstream 1 0 19 /"]);
    });
}

#[test]
fn a_post_on_a_dead_idle_connection_is_sent_again() {
    run(async {
        let (proxy, upstream) = pair(|_| {}).await;
        let mut client = proxy.connect().await;
        client.send("GET /first HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let mut server = upstream.accept().await;
        server.head().await;
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        client.head().await;
        drop(server);
        client.send("POST /second HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody").await;
        let mut server = upstream.accept().await;
        assert!(server.head().await.starts_with("POST /second "));
        assert_eq!(server.exactly(4).await, "body");
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        assert!(client.head().await.starts_with("HTTP/1.1 200"));
    });
}

#[test]
fn an_idempotent_request_survives_a_connection_that_dies_under_it() {
    run(async {
        let (proxy, upstream) = pair(|_| {}).await;
        let mut client = proxy.connect().await;
        client.send("GET /first HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let mut server = upstream.accept().await;
        server.head().await;
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        client.head().await;
        // The keep-alive race: the server closes just as the next request arrives.
        client.send("GET /second HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(server.head().await.starts_with("GET /second "));
        drop(server);
        let mut server = upstream.accept().await;
        assert!(server.head().await.starts_with("GET /second "));
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        assert!(client.head().await.starts_with("HTTP/1.1 200"));
        assert_eq!(proxy.cluster_stats.local().upstream_rq_replayed.get(), 1);
        // A POST in the same place is not repeated: it may have had its effect.
        client.send("POST /third HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx").await;
        server.head().await;
        drop(server);
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    });
}

#[test]
fn policies_retry_with_the_body_and_elsewhere() {
    run(async {
        let (first, first_address) = Upstream::bind().await;
        let (second, second_address) = Upstream::bind().await;
        let mut setup = Setup::new(&[first_address, second_address]);
        setup.forward.retry = Some(retry("5xx", 2));
        setup.vhost.attempt_count_in_response = true;
        let proxy = setup.start().await;
        let mut client = proxy.connect().await;
        client.send("POST /r HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody").await;
        let (mut failing, other) = tokio::select! {
            peer = first.accept() => (peer, &second),
            peer = second.accept() => (peer, &first),
        };
        failing.head().await;
        assert_eq!(failing.exactly(4).await, "body");
        failing.send("HTTP/1.1 502 Bad\r\nContent-Length: 3\r\n\r\nbad").await;
        let mut good = other.accept().await;
        good.head().await;
        assert_eq!(good.exactly(4).await, "body", "the whole body again, on the other host");
        good.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        let (head, body) = client.message().await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert_eq!((header(&head, "x-envoy-attempt-count"), body.as_str()), (Some("2"), "ok"));
        let stats = proxy.cluster_stats.local();
        assert_eq!((stats.upstream_rq_retry.get(), stats.upstream_rq_retry_success.get()), (1, 1));
    });
}

#[test]
fn bodies_beyond_the_limit_are_streamed_but_not_retried() {
    run(async {
        let (proxy, upstream) = pair(|s| {
            s.forward.retry = Some(retry("5xx", 2));
            s.forward.body_buffer = Some(BodyBuffer::AtMost(100_000));
        })
        .await;
        let mut client = proxy.connect().await;
        let body = "z".repeat(200_000);
        client.send(&format!("POST /big HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len())).await;
        let mut server = upstream.accept().await;
        server.head().await;
        client.send(&body).await;
        assert_eq!(server.exactly(body.len()).await, body);
        server.send("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n").await;
        assert!(client.head().await.starts_with("HTTP/1.1 503"));
        let stats = proxy.cluster_stats.local();
        assert_eq!((stats.upstream_rq_retry.get(), stats.retry_or_shadow_abandoned.get()), (0, 1));
        assert_eq!(proxy.log(1).await, ["503 - via_upstream 1 200000 0 /big"]);
    });
}

#[test]
fn the_retry_limit_is_flagged() {
    run(async {
        let (proxy, upstream) = pair(|s| s.forward.retry = Some(retry("gateway-error", 1))).await;
        let mut client = proxy.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let mut server = upstream.accept().await;
        for _ in 0..2 {
            server.head().await;
            server.send("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n").await;
        }
        assert!(client.head().await.starts_with("HTTP/1.1 503"));
        assert_eq!(proxy.log(1).await, ["503 URX via_upstream 2 0 0 /"]);
        assert_eq!(proxy.cluster_stats.local().upstream_rq_retry_limit_exceeded.get(), 1);
    });
}

#[test]
fn the_route_timeout_is_a_504_and_for_grpc_a_status() {
    run(async {
        let (proxy, upstream) = pair(|s| s.forward.timeout = Some(Duration::from_millis(30))).await;
        let mut client = proxy.connect().await;
        client.send("GET /t HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let mut server = upstream.accept().await;
        server.head().await;
        let (head, body) = client.message().await;
        assert!(head.starts_with("HTTP/1.1 504") && body == "upstream request timeout", "{head}{body}");
        client.send("POST /t HTTP/1.1\r\nHost: x\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n").await;
        let (head, _) = client.message().await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert_eq!(header(&head, "grpc-status"), Some("14"), "{head}");
        assert_eq!(header(&head, "grpc-message"), Some("upstream request timeout"));
        assert!(proxy.log(2).await.iter().all(|l| l.contains("UT response_timeout")));
        assert_eq!(proxy.cluster_stats.local().upstream_rq_timeout.get(), 2);
    });
}

#[test]
fn the_route_timeout_also_cuts_a_body_that_stalls() {
    run(async {
        let (proxy, upstream) = pair(|s| s.forward.timeout = Some(Duration::from_millis(50))).await;
        let mut client = proxy.connect().await;
        client.send("GET /t HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let mut server = upstream.accept().await;
        server.head().await;
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart").await;
        client.until("part").await;
        assert!(client.rest().await.unwrap_or_default().is_empty());
        assert!(proxy.log(1).await[0].starts_with("200 UT response_timeout"));
    });
}

#[test]
fn each_try_has_its_own_timeout() {
    run(async {
        let (proxy, upstream) = pair(|s| {
            let mut policy = (*retry("5xx", 1)).clone();
            policy.per_try_timeout = Some(Duration::from_millis(30));
            s.forward.retry = Some(policy.into());
        })
        .await;
        let mut client = proxy.connect().await;
        client.send("GET /t HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let mut slow = upstream.accept().await;
        slow.head().await;
        let mut quick = upstream.accept().await;
        quick.head().await;
        quick.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        assert!(client.head().await.starts_with("HTTP/1.1 200"));
        assert_eq!(slow.rest().await.unwrap_or_default(), "", "the first try was given up");
        assert_eq!(proxy.cluster_stats.local().upstream_rq_per_try_timeout.get(), 1);
        assert_eq!(proxy.log(1).await, ["200 - via_upstream 2 0 0 /t"]);
    });
}

#[test]
fn retries_have_a_budget() {
    run(async {
        let (proxy, upstream) = pair(|s| {
            s.forward.retry = Some(retry("5xx", 5));
            s.cluster.breaker.max_retries = 0;
        })
        .await;
        let mut client = proxy.connect().await;
        client.send("GET /t HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let mut server = upstream.accept().await;
        server.head().await;
        server.send("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n").await;
        assert!(client.head().await.starts_with("HTTP/1.1 500"));
        assert_eq!(proxy.cluster_stats.local().upstream_rq_retry_overflow.get(), 1);
    });
}

#[test]
fn an_early_answer_ends_the_connection_and_what_is_left_of_the_request() {
    run(async {
        let (proxy, upstream) = pair(|_| {}).await;
        let mut client = proxy.connect().await;
        client.send("POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\npart").await;
        let mut server = upstream.accept().await;
        server.head().await;
        server.send("HTTP/1.1 413 Too Much\r\nContent-Length: 1\r\n\r\na").await;
        let answer = client.rest().await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
        assert!(answer.to_ascii_lowercase().contains("connection: close") && answer.ends_with("\r\n\r\na"), "{answer}");
        assert_eq!(proxy.log(1).await, ["413 - via_upstream 1 4 1 /early"]);
        assert!(server.rest().await.is_ok_and(|rest| rest == "part"), "the upstream is told, too");
    });
}

/// As Envoy does: the body's coding is of one connection, and the next reader would not know of it.
#[test]
fn codings_that_are_not_understood_are_502_upe() {
    run(async {
        let (proxy, upstream) = pair(|_| {}).await;
        let lines = [
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: gzip",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        ];
        for line in lines {
            let mut client = proxy.connect().await;
            client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
            let mut server = upstream.accept().await;
            server.head().await;
            server.send(&format!("HTTP/1.1 200 OK\r\n{line}\r\n\r\n0\r\n\r\n")).await;
            drop(server);
            let (head, body) = client.message().await;
            assert!(head.starts_with("HTTP/1.1 502"), "{line}: {head}");
            assert!(body.ends_with("reset reason: protocol error"), "{line}: {body}");
        }
        for line in proxy.log(lines.len()).await {
            assert!(line.starts_with("502 UPE upstream_reset_before_response_started{protocol_error} 1 "), "{line}");
        }
    });
}

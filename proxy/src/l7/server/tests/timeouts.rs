//! Limits on time, from socket to socket: what the client hears, what is logged and counted.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::{
    peer::{Peer, header},
    support::{Proxy, Setup, pair, retry, run},
};
use crate::ir::{matcher::Cidr, route::StreamDuration};

const GRPC: &str = "Content-Type: application/grpc\r\n";
const SHORT: Option<Duration> = Some(Duration::from_millis(200));

async fn ask(proxy: &Proxy, headers: &str) -> Peer {
    let mut client = proxy.connect().await;
    client.send(&format!("GET / HTTP/1.1\r\nHost: x\r\n{headers}\r\n")).await;
    client
}

/// Sends a plain and a gRPC request to an upstream that says nothing, and returns the heads that come back with what
/// was logged.
async fn silent(change: impl FnOnce(&mut Setup)) -> ([String; 2], Vec<String>, Proxy) {
    let (proxy, upstream) = pair(change).await;
    let mut heads = Vec::new();
    let mut servers = Vec::new();
    for headers in ["", GRPC] {
        let mut client = ask(&proxy, headers).await;
        let mut server = upstream.accept().await;
        server.head().await;
        servers.push(server);
        heads.push(client.head().await);
    }
    let log = proxy.log(2).await;
    (heads.try_into().unwrap(), log, proxy)
}

#[test]
fn every_limit_has_its_status_its_flag_and_its_details() {
    run(async {
        type Change = fn(&mut Setup);
        let cases: [(Change, &str, &str, &str); 6] = [
            (|s| s.forward.timeout = SHORT, "504", "14", "504 UT response_timeout 1"),
            (
                |s| {
                    let mut policy = (*retry("retriable-4xx", 1)).clone();
                    policy.per_try_timeout = SHORT;
                    s.forward.retry = Some(policy.into());
                },
                "504",
                "14",
                "504 UT upstream_per_try_timeout 1",
            ),
            (
                |s| {
                    let mut policy = (*retry("retriable-4xx", 1)).clone();
                    policy.per_try_idle_timeout = SHORT;
                    s.forward.retry = Some(policy.into());
                },
                "504",
                "14",
                "504 UT upstream_per_try_idle_timeout 1",
            ),
            (|s| s.forward.idle_timeout = Some(SHORT), "504", "14", "504 SI stream_idle_timeout 1"),
            (|s| s.hcm.max_stream_duration = SHORT, "504", "4", "504 DT max_duration_timeout 1"),
            (
                |s| Arc::make_mut(&mut s.cluster.http).max_stream_duration = SHORT,
                "504",
                "14",
                "504 UMSDR upstream_max_stream_duration_reached 1",
            ),
        ];
        for (change, status, grpc, logged) in cases {
            let ([plain, rpc], log, _proxy) = silent(change).await;
            assert!(plain.starts_with(&format!("HTTP/1.1 {status}")), "{logged}: {plain}");
            assert!(rpc.starts_with("HTTP/1.1 200"), "{logged}: {rpc}");
            assert_eq!(header(&rpc, "grpc-status"), Some(grpc), "{logged}: {rpc}");
            assert!(log[0].starts_with(logged), "{log:?}");
        }
    });
}

#[test]
fn limits_are_counted() {
    run(async {
        let (_, _, proxy) = silent(|s| Arc::make_mut(&mut s.cluster.http).max_stream_duration = SHORT).await;
        assert_eq!(proxy.cluster_stats.local().upstream_rq_max_duration_reached.get(), 2);
        let idle = |s: &mut Setup| {
            let mut policy = (*retry("reset", 1)).clone();
            policy.per_try_idle_timeout = SHORT;
            s.forward.retry = Some(policy.into());
        };
        let (proxy, upstream) = pair(idle).await;
        let mut client = ask(&proxy, "").await;
        for _ in 0..2 {
            let mut server = upstream.accept().await;
            server.head().await;
            tokio::task::spawn_local(async move { server.rest().await });
        }
        assert!(client.head().await.starts_with("HTTP/1.1 504"));
        let stats = proxy.cluster_stats.local();
        let counts = (stats.upstream_rq_per_try_idle_timeout.get(), stats.upstream_rq_per_try_timeout.get());
        assert_eq!((counts, stats.upstream_rq_retry.get()), ((2, 0), 1));
        assert!(proxy.log(1).await[0].starts_with("504 URX,UT upstream_per_try_idle_timeout 2"));
    });
}

#[test]
fn a_request_that_is_late_itself_is_a_408() {
    run(async {
        for (change, logged) in [
            ((|s| s.hcm.request_timeout = SHORT) as fn(&mut Setup), "408 - request_overall_timeout"),
            (|s| s.forward.idle_timeout = Some(SHORT), "408 SI stream_idle_timeout"),
            (|s| s.hcm.max_stream_duration = SHORT, "408 DT max_duration_timeout"),
        ] {
            let (proxy, _upstream) = pair(change).await;
            let mut client = proxy.connect().await;
            client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc").await;
            assert!(client.head().await.starts_with("HTTP/1.1 408"), "{logged}");
            assert!(proxy.log(1).await[0].starts_with(logged));
        }
    });
}

#[test]
fn responses_that_stall_are_cut_by_every_limit() {
    run(async {
        type Change = fn(&mut Setup);
        let cases: [(Change, &str); 4] = [
            (|s| s.forward.timeout = SHORT, "200 UT response_timeout"),
            (
                |s| {
                    let mut policy = (*retry("5xx", 1)).clone();
                    policy.per_try_idle_timeout = SHORT;
                    s.forward.retry = Some(policy.into());
                },
                "200 UT upstream_per_try_idle_timeout",
            ),
            (
                |s| Arc::make_mut(&mut s.cluster.http).max_stream_duration = SHORT,
                "200 UMSDR upstream_max_stream_duration_reached",
            ),
            (|s| s.hcm.max_stream_duration = SHORT, "200 DT max_duration_timeout"),
        ];
        for (change, logged) in cases {
            let (proxy, upstream) = pair(change).await;
            let mut client = ask(&proxy, "").await;
            let mut server = upstream.accept().await;
            server.head().await;
            server.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart").await;
            client.until("part").await;
            assert!(client.rest().await.unwrap_or_default().is_empty());
            assert!(proxy.log(1).await[0].starts_with(logged), "{logged}");
        }
    });
}

/// The route's timeout counts from the end of the request: a stream in both directions may last.
#[test]
fn the_route_timeout_waits_for_the_end_of_the_request() {
    run(async {
        let (proxy, upstream) = pair(|s| s.forward.timeout = SHORT).await;
        let mut client = proxy.connect().await;
        client.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n").await;
        let mut server = upstream.accept().await;
        server.until("\r\na\r\n").await;
        server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nb\r\n").await;
        let head = client.until("\r\nb\r\n").await;
        assert_eq!(header(&head, "x-envoy-upstream-service-time"), None, "half a request says nothing of that");
        tokio::time::sleep(Duration::from_millis(600)).await;
        server.send("1\r\nc\r\n").await;
        client.until("\r\nc\r\n").await;
        client.send("0\r\n\r\n").await;
        server.until("0\r\n\r\n").await;
        assert!(!client.rest().await.unwrap_or_default().contains("0\r\n\r\n"), "now it counts");
        assert!(proxy.log(1).await[0].starts_with("200 UT response_timeout"));
        assert_eq!(proxy.cluster_stats.local().upstream_rq_timeout.get(), 1);
    });
}

#[test]
fn a_try_counts_from_its_connection() {
    run(async {
        let (proxy, upstream) = pair(|s| {
            s.cluster.breaker.max_connections = 1;
            let mut policy = (*retry("retriable-4xx", 1)).clone();
            policy.per_try_timeout = Some(Duration::from_secs(1));
            s.forward.retry = Some(policy.into());
        })
        .await;
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n";
        let mut first = ask(&proxy, "").await;
        let mut server = upstream.accept().await;
        server.head().await;
        server.send(answer).await;
        first.head().await;
        // The only connection is taken up by a body for longer than a try may last.
        let mut second = ask(&proxy, "").await;
        tokio::time::sleep(Duration::from_millis(1300)).await;
        server.send("x").await;
        server.head().await;
        server.send(answer).await;
        assert!(second.head().await.starts_with("HTTP/1.1 200"));
    });
}

#[test]
fn grpc_deadlines_become_limits_and_are_passed_on() {
    run(async {
        let (proxy, upstream) = pair(|s| {
            s.forward.stream = Some(Box::new(StreamDuration {
                max: None,
                grpc_max: Some(Some(Duration::from_secs(5))),
                grpc_offset: Duration::from_millis(20),
            }));
        })
        .await;
        let mut client = ask(&proxy, &format!("{GRPC}grpc-timeout: 1020m\r\n")).await;
        let mut server = upstream.accept().await;
        assert_eq!(header(&server.head().await, "grpc-timeout"), Some("1000m"));
        let head = client.head().await;
        assert_eq!(header(&head, "grpc-status"), Some("4"), "{head}");
        assert_eq!(header(&head, "grpc-message"), Some("downstream duration timeout"));
        let mut client = ask(&proxy, "").await;
        let mut server = upstream.accept().await;
        assert_eq!(header(&server.head().await, "x-envoy-expected-rq-timeout-ms"), None, "no route timeout");
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        assert!(client.head().await.starts_with("HTTP/1.1 200"));
    });
}

#[test]
fn a_timeout_can_be_asked_for_as_a_204() {
    run(async {
        let (proxy, upstream) = pair(|s| {
            s.hcm.use_remote_address = true;
            s.hcm.internal_networks = vec![Cidr::new([127, 0, 0, 0].into(), 8).unwrap()];
            s.forward.timeout = SHORT;
        })
        .await;
        let mut client = ask(&proxy, "x-envoy-upstream-rq-timeout-alt-response: 1\r\n").await;
        let mut server = upstream.accept().await;
        assert!(!server.head().await.contains("alt-response"));
        let (head, body) = client.message().await;
        assert!(head.starts_with("HTTP/1.1 204") && body.is_empty(), "{head}{body}");
        assert_eq!(proxy.log(1).await, ["204 UT response_timeout 1 0 0 /"]);
    });
}

/// What does not go out is not asked for either: no body is polled then that could mind its limits.
#[test]
fn clients_that_read_nothing_run_into_every_limit() {
    run(async {
        for (change, logged) in [
            ((|s| s.forward.timeout = SHORT) as fn(&mut Setup), "200 UT response_timeout"),
            (|s| s.hcm.max_stream_duration = SHORT, "200 DT max_duration_timeout"),
        ] {
            let (proxy, upstream) = pair(change).await;
            let _client = ask(&proxy, "").await;
            let mut server = upstream.accept().await;
            server.head().await;
            server.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").await;
            let chunk = vec![b'x'; 1 << 20];
            while server.stream.write_all(&chunk).await.is_ok() {}
            let log = proxy.log(1).await;
            assert!(log[0].starts_with(logged), "{log:?}");
        }
    });
}

#[test]
fn http2_clients_that_open_no_window_run_into_every_limit() {
    run(async {
        type Change = fn(&mut Setup);
        let cases: [(Change, usize, &str); 5] = [
            (|s| s.hcm.stream_idle_timeout = SHORT, 8, "200 SI stream_idle_timeout"),
            (|s| s.hcm.max_stream_duration = SHORT, 8, "200 DT max_duration_timeout"),
            (|s| s.forward.timeout = SHORT, 8, "200 UT response_timeout"),
            // Of a response that is there as a whole no upstream is to blame any more.
            (|s| s.forward.flush_timeout = Some(SHORT), 4, "200 SI stream_idle_timeout"),
            (
                |s| {
                    s.forward.timeout = SHORT;
                    s.hcm.stream_flush_timeout = Some(Some(Duration::from_millis(600)));
                },
                4,
                "200 SI stream_idle_timeout",
            ),
        ];
        for (change, length, logged) in cases {
            let (proxy, upstream) = pair(change).await;
            let stream = TcpStream::connect(proxy.address).await.unwrap();
            let mut builder = h2::client::Builder::new();
            let (mut client, connection) = builder.initial_window_size(0).handshake::<_, Bytes>(stream).await.unwrap();
            tokio::task::spawn_local(connection);
            let request = http::Request::get("http://x/").body(()).unwrap();
            let (response, _stream) = client.send_request(request, true).unwrap();
            let mut server = upstream.accept().await;
            server.head().await;
            server.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\nbody")).await;
            let mut response = response.await.unwrap();
            let log = proxy.log(1).await;
            assert!(log[0].starts_with(logged), "{log:?}");
            assert!(response.body_mut().data().await.is_none_or(|data| data.is_err()), "reset");
        }
    });
}

//! What outlier detection hears of tries.

use std::{sync::Arc, time::Duration};

use super::{
    peer::{Peer, Upstream},
    support::{Proxy, Setup, pair, run, until},
};
use crate::{
    ir::{cluster::HealthPolicy, outlier::OutlierDetection},
    upstream::outlier::Window,
};

fn watched(split: bool) -> impl FnOnce(&mut Setup) {
    move |setup| {
        let outlier = OutlierDetection { split_local_origin: split, ..OutlierDetection::default() };
        setup.cluster.health = Some(Arc::new(HealthPolicy { outlier: Some(outlier), ..HealthPolicy::default() }));
    }
}

/// Requests and good ones since the last time, external and local.
fn heard(proxy: &Proxy) -> [(u32, u32); 2] {
    let monitor = proxy.cluster.members()[0].endpoint.monitor_if_used();
    monitor.unwrap().take_windows().map(|Window { total, success }| (total, success))
}

async fn ask(proxy: &Proxy, path: &str) -> Peer {
    let mut client = proxy.connect().await;
    client.send(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
    client
}

/// One exchange with a scripted answer, after which the upstream closes.
async fn exchange(proxy: &Proxy, upstream: &Upstream, answer: &str) -> Peer {
    let client = ask(proxy, "/").await;
    let mut server = upstream.accept().await;
    server.head().await;
    server.send(answer).await;
    client
}

const CLOSED: &str = "Connection: close\r\nContent-Length: 0\r\n\r\n";

#[test]
fn answers_count_by_their_status() {
    run(async {
        let (proxy, upstream) = pair(watched(false)).await;
        for status in ["200 OK", "404 Not Found", "500 Oops", "503 Busy"] {
            exchange(&proxy, &upstream, &format!("HTTP/1.1 {status}\r\n{CLOSED}")).await.message().await;
        }
        assert_eq!(heard(&proxy), [(4, 2), (0, 0)]);
        let grpc = "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nGrpc-Status: 14\r\n";
        exchange(&proxy, &upstream, &format!("{grpc}{CLOSED}")).await.message().await;
        assert_eq!(heard(&proxy), [(1, 0), (0, 0)], "unavailable is a 503");
    });
}

#[test]
fn failures_of_connections_count_and_those_of_clients_do_not() {
    run(async {
        for split in [false, true] {
            let (proxy, upstream) = pair(watched(split)).await;
            // Reset before an answer.
            let mut client = exchange(&proxy, &upstream, "").await;
            client.message().await;
            assert_eq!(heard(&proxy)[usize::from(split)], (1, 0), "{split}");
            // Broken off in its middle: an answer, and a failure.
            let mut client = exchange(&proxy, &upstream, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").await;
            let _ = client.rest().await;
            let expected = if split { [(1, 1), (2, 1)] } else { [(2, 1), (0, 0)] };
            assert_eq!(heard(&proxy), expected);
            // The client leaves.
            let client = ask(&proxy, "/").await;
            let mut server = upstream.accept().await;
            server.head().await;
            drop(client);
            assert_eq!(server.rest().await.unwrap_or_default(), "");
            until(|| proxy.stats.local().downstream_rq_active.get() == 0).await;
            assert_eq!(heard(&proxy), [(0, 0); 2]);
            // Nobody listens.
            drop(upstream);
            ask(&proxy, "/").await.message().await;
            assert_eq!(heard(&proxy)[usize::from(split)], (1, 0));
        }
    });
}

#[test]
fn a_host_that_does_not_answer_in_time_fails() {
    run(async {
        let (proxy, upstream) = pair(|setup| {
            watched(false)(setup);
            setup.forward.timeout = Some(Duration::from_millis(30));
        })
        .await;
        let mut client = ask(&proxy, "/").await;
        let mut server = upstream.accept().await;
        server.head().await;
        assert!(client.message().await.0.starts_with("HTTP/1.1 504"));
        assert_eq!(heard(&proxy), [(1, 0), (0, 0)]);
    });
}

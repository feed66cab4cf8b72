//! HTTP/1 connections that idle: nobody sees from outside that their codec is gone.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::{
    peer::{Peer, Upstream, header},
    support::{Proxy, pair, run, until},
};
use crate::{
    drain::Phase,
    ir::{
        http::Codec,
        route::{Action, DirectResponse},
    },
};

/// Until no connection, but `others`, has a codec.
async fn rested(proxy: &Proxy, others: usize) {
    until(|| proxy.codecs.counts().0 == others).await;
}

/// One answered request on a new connection to the upstream or on one that there is.
async fn exchange(
    client: &mut Peer,
    upstream: &Upstream,
    server: &mut Option<Peer>,
    request: &str,
) -> (String, String) {
    client.send(request).await;
    if server.is_none() {
        *server = Some(upstream.accept().await);
    }
    let server = server.as_mut().unwrap();
    let asked = server.head().await;
    server.send("HTTP/1.1 200 OK\r\nX-ReplyCase: y\r\nContent-Length: 2\r\n\r\nok").await;
    let (head, body) = client.message().await;
    assert!(head.starts_with("HTTP/1.1 200") && body == "ok", "{head}{body}");
    (asked, head)
}

const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

#[test]
fn a_connection_that_rested_is_the_same_connection() {
    run(async {
        let (proxy, upstream) = pair(|s| s.hcm.max_requests_per_connection = Some(3)).await;
        let mut client = proxy.connect().await;
        let mut server = None;
        for n in 1..=3 {
            let request = format!("GET /{n} HTTP/1.1\r\nHost: x\r\nX-CamelCase: One\r\n\r\n");
            let (asked, head) = exchange(&mut client, &upstream, &mut server, &request).await;
            assert!(asked.contains("\r\nX-CamelCase: One\r\n"), "{asked}");
            assert!(head.contains("\r\nX-ReplyCase: y\r\n"), "{head}");
            assert_eq!(header(&head, "connection"), (n == 3).then_some("close"), "requests are counted on: {head}");
            rested(&proxy, 0).await;
            assert_eq!(proxy.codecs.counts().1, n, "each of them with a codec of its own");
        }
        assert_eq!(client.rest().await.unwrap(), "");
        assert_eq!(proxy.stats.local().downstream_cx_total.get(), 1);
    });
}

#[test]
fn requests_with_bodies_come_to_rest_too() {
    run(async {
        let (proxy, upstream) = pair(|_| {}).await;
        let mut client = proxy.connect().await;
        client.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n").await;
        let mut server = upstream.accept().await;
        server.head().await;
        server.until("2\r\nhi\r\n0\r\n\r\n").await;
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        client.message().await;
        rested(&proxy, 0).await;
        exchange(&mut client, &upstream, &mut Some(server), GET).await;
    });
}

#[test]
fn pipelines_come_to_rest_too() {
    run(async {
        let direct = DirectResponse { status: http::StatusCode::OK, body: "ok".into(), format: None };
        let (proxy, _upstream) = pair(|s| s.action = Some(Action::Direct(direct.into()))).await;
        let mut client = proxy.connect().await;
        for round in 1..=2 {
            client.send(&format!("{GET}{GET}{GET}")).await;
            for _ in 0..3 {
                assert_eq!(client.message().await.1, "ok");
            }
            rested(&proxy, 0).await;
            assert_eq!(proxy.codecs.counts().1, round);
        }
    });
}

#[test]
fn what_was_read_beyond_a_request_survives_the_rest() {
    run(async {
        let (proxy, upstream) = pair(|_| {}).await;
        let mut client = proxy.connect().await;
        let mut server = None;
        // The codec has the start of the next head in its buffer when it is given up.
        exchange(&mut client, &upstream, &mut server, &format!("{GET}GET /sec")).await;
        until(|| proxy.codecs.counts() == (1, 2)).await;
        let (asked, head) = exchange(&mut client, &upstream, &mut server, "ond HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(asked.starts_with("GET /second HTTP/1.1\r\n"), "{asked}");
        assert_eq!(header(&head, "connection"), None, "{head}");
    });
}

#[test]
fn a_trickled_head_is_timed_after_a_rest_as_before() {
    run(async {
        for pipelined in [false, true] {
            let (proxy, upstream) = pair(|s| s.hcm.request_headers_timeout = Some(Duration::from_millis(100))).await;
            let mut client = proxy.connect().await;
            if pipelined {
                exchange(&mut client, &upstream, &mut None, &format!("{GET}GET /slow")).await;
            } else {
                exchange(&mut client, &upstream, &mut None, GET).await;
                rested(&proxy, 0).await;
                client.send("GET /slow").await;
            }
            let answer = client.rest().await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 408") && answer.ends_with("request header timeout"), "{answer}");
            assert_eq!(proxy.stats.local().downstream_rq_header_timeout.get(), 1);
            rested(&proxy, 0).await;
        }
    });
}

#[test]
fn an_ambiguous_head_is_refused_after_a_rest_too() {
    run(async {
        let (proxy, upstream) = pair(|_| {}).await;
        let mut client = proxy.connect().await;
        exchange(&mut client, &upstream, &mut None, GET).await;
        rested(&proxy, 0).await;
        client
            .send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
            .await;
        assert!(client.head().await.starts_with("HTTP/1.1 400"));
    });
}

#[test]
fn a_client_that_leaves_at_rest_is_noticed() {
    run(async {
        let (proxy, upstream) = pair(|_| {}).await;
        for reset in [false, true] {
            let mut client = proxy.connect().await;
            exchange(&mut client, &upstream, &mut None, GET).await;
            rested(&proxy, 0).await;
            if reset {
                client.stream.set_zero_linger().unwrap();
                drop(client);
            } else {
                client.stream.shutdown().await.unwrap();
                assert_eq!(client.rest().await.unwrap(), "");
            }
            until(|| proxy.stats.local().downstream_cx_active.get() == 0).await;
        }
        assert_eq!(proxy.codecs.counts().1, 2, "no codec is made for an end");
    });
}

#[test]
fn clocks_go_on_at_rest() {
    run(async {
        // Longer than it takes to come to rest.
        let while_resting = Some(Duration::from_millis(900));
        let (idling, upstream) = pair(|s| s.hcm.idle_timeout = while_resting).await;
        let mut client = idling.connect().await;
        exchange(&mut client, &upstream, &mut None, GET).await;
        assert_eq!(client.rest().await.unwrap(), "");
        assert_eq!(idling.stats.local().downstream_cx_idle_timeout.get(), 1);

        let (old, upstream) = pair(|s| {
            s.hcm.max_connection_duration = while_resting;
            s.hcm.drain_timeout = Duration::from_millis(50);
        })
        .await;
        let mut client = old.connect().await;
        exchange(&mut client, &upstream, &mut None, GET).await;
        assert_eq!(client.rest().await.unwrap(), "");
        assert_eq!(old.stats.local().downstream_cx_max_duration_reached.get(), 1);
    });
}

#[test]
fn draining_is_heard_at_rest_and_wakes_no_codec() {
    run(async {
        let (proxy, upstream) = pair(|_| {}).await;
        let (mut client, mut silent) = (proxy.connect().await, proxy.connect().await);
        let mut server = None;
        exchange(&mut client, &upstream, &mut server, GET).await;
        exchange(&mut silent, &upstream, &mut server, GET).await;
        rested(&proxy, 0).await;
        proxy.drain.advance(Phase::Drain);
        until(|| proxy.stats.local().downstream_cx_drain_close.get() == 2).await;
        assert_eq!(proxy.codecs.counts(), (0, 2));
        // A request may have been on its way: it is answered, with a word of farewell.
        let (_, head) = exchange(&mut client, &upstream, &mut server, GET).await;
        assert_eq!(header(&head, "connection"), Some("close"), "{head}");
        assert_eq!(client.rest().await.unwrap(), "");
        proxy.drain.advance(Phase::Force);
        assert_eq!(silent.rest().await.unwrap_or_default(), "");
    });
}

#[test]
fn a_drained_connection_at_rest_is_closed_in_the_end() {
    run(async {
        let (proxy, upstream) = pair(|s| s.hcm.drain_timeout = Duration::from_millis(50)).await;
        let mut client = proxy.connect().await;
        exchange(&mut client, &upstream, &mut None, GET).await;
        rested(&proxy, 0).await;
        proxy.drain.advance(Phase::Drain);
        assert_eq!(client.rest().await.unwrap(), "");
    });
}

#[test]
fn a_refused_upgrade_keeps_its_codec() {
    run(async {
        let (proxy, upstream) = pair(|s| s.hcm.upgrades.clear()).await;
        let mut refused = proxy.connect().await;
        refused.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").await;
        let (head, _) = refused.message().await;
        assert!(head.starts_with("HTTP/1.1 403"), "{head}");
        // Idle for longer than another connection that has come to rest.
        let mut client = proxy.connect().await;
        let mut server = None;
        exchange(&mut client, &upstream, &mut server, GET).await;
        rested(&proxy, 1).await;
        exchange(&mut refused, &upstream, &mut server, GET).await;
    });
}

#[test]
fn a_connection_does_not_rest_in_mid_response() {
    const SIZE: usize = 12 << 20;
    run(async {
        let (proxy, upstream) = pair(|s| s.hcm.stream_idle_timeout = None).await;
        let mut client = proxy.connect().await;
        client.send(GET).await;
        let mut server = upstream.accept().await;
        server.head().await;
        server.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n")).await;
        let body = "b".repeat(SIZE);
        let sending = tokio::task::spawn_local(async move { server.send(&body).await });
        client.head().await;
        let mut other = proxy.connect().await;
        exchange(&mut other, &upstream, &mut None, GET).await;
        rested(&proxy, 1).await;
        assert_eq!(client.exactly(SIZE).await.len(), SIZE);
        sending.await.unwrap();
        rested(&proxy, 0).await;
    });
}

#[test]
fn there_is_no_codec_before_the_first_byte() {
    run(async {
        for codec in [Codec::Auto, Codec::Http1] {
            let (proxy, upstream) = pair(|s| s.hcm.codec = codec).await;
            let (silent, mut client) = (proxy.connect().await, proxy.connect().await);
            exchange(&mut client, &upstream, &mut None, GET).await;
            assert_eq!(proxy.codecs.counts(), (1, 1));
            drop(silent);
        }
    });
}

//! What is refused, what is bounded, and how connections end.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    peer::header,
    support::{pair, run, until},
};
use crate::{
    drain::Phase,
    ir::route::{Action, DirectResponse, PathRewrite, Redirect},
};

/// Each of these could be read in two ways by two servers in a row.
#[test]
fn smuggling_attempts_are_refused() {
    run(async {
        let (proxy, upstream) = pair(|_| {}).await;
        for attack in [
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: x\r\ncontent-length: 3\r\nTRANSFER-ENCODING: identity, chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +3\r\n\r\nabc",
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3,4\r\n\r\nabc",
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
            "GET / HTTP/1.1\nHost: x\n\n",
            "GET / HTTP/1.1\r\nHost: x\nX: y\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\n X: folded\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: \r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nA\0B: c\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n",
            "GET / HTTP/3.7\r\nHost: x\r\n\r\n",
            "G\u{7f}T / HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /%00 HTTP/1.1\r\nHost: x\r\n\r\n",
            "POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ] {
            let mut client = proxy.connect().await;
            client.send(attack).await;
            let (head, _) = client.message().await;
            assert!(head.starts_with("HTTP/1.1 400") || head.starts_with("HTTP/1.0 400"), "{attack:?} got {head:?}");
        }
        assert!(
            tokio::time::timeout(Duration::from_millis(20), upstream.accept()).await.is_err(),
            "nothing of it reached the upstream"
        );
    });
}

#[test]
fn an_ambiguous_head_is_caught_in_pieces_and_after_others() {
    run(async {
        let (proxy, upstream) = pair(|_| {}).await;
        let mut client = proxy.connect().await;
        client.send("POST /ok HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\na\nb\r\n0\r\n\r\n").await;
        let mut server = upstream.accept().await;
        server.head().await;
        server.until("0\r\n\r\n").await;
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        assert!(client.head().await.starts_with("HTTP/1.1 200"), "a bare LF in a body is data");
        for piece in
            ["POST /bad HTTP/1.1\r\nHost: x\r\nContent-Le", "ngth: 5\r", "\nTransfer-Enc", "oding: chunked\r\n"]
        {
            client.send(piece).await;
            tokio::task::yield_now().await;
        }
        assert!(client.head().await.starts_with("HTTP/1.1 400"));
        until(|| proxy.stats.local().downstream_cx_protocol_error.get() == 1).await;
        assert_eq!(proxy.log(2).await[1], "400 DPE http1.codec_error 0 0 0 -");
    });
}

#[test]
fn oversized_heads_are_431() {
    run(async {
        let (proxy, _upstream) = pair(|s| s.hcm.max_header_count = 20).await;
        let mut client = proxy.connect().await;
        client.send(&format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(61 * 1024))).await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 431"), "{head}");
        let mut client = proxy.connect().await;
        let many: String = (0..30).map(|i| format!("X-{i}: v\r\n")).collect();
        client.send(&format!("GET / HTTP/1.1\r\nHost: x\r\n{many}\r\n")).await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 431"), "{head}");
    });
}

#[test]
fn an_unfinished_head_is_timed() {
    run(async {
        let (proxy, _upstream) = pair(|s| s.hcm.request_headers_timeout = Some(Duration::from_millis(30))).await;
        let mut client = proxy.connect().await;
        client.send("GET / HTTP/1.1\r\nHost").await;
        let answer = client.rest().await.unwrap_or_default();
        assert!(answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{answer}");
        assert!(answer.ends_with("connection: close\r\n\r\nrequest header timeout"), "{answer}");
        assert_eq!(proxy.stats.local().downstream_rq_header_timeout.get(), 1);
    });
}

#[test]
fn an_unfinished_request_is_timed() {
    run(async {
        let (proxy, upstream) = pair(|s| s.hcm.request_timeout = Some(Duration::from_millis(30))).await;
        let mut client = proxy.connect().await;
        client.send("POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc").await;
        let mut server = upstream.accept().await;
        server.head().await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 408"), "{head}");
        assert!(proxy.log(1).await[0].starts_with("408 - request_overall_timeout 1 3"));
        assert_eq!(proxy.stats.local().downstream_rq_timeout.get(), 1);
    });
}

#[test]
fn idle_streams_and_idle_connections_end() {
    run(async {
        // Whether it hears of the request before that is over or not.
        let (proxy, _silent) = pair(|s| {
            s.hcm.stream_idle_timeout = Some(Duration::from_millis(40));
            s.hcm.idle_timeout = Some(Duration::from_millis(60));
        })
        .await;
        let mut client = proxy.connect().await;
        client.send("GET /idle HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let (head, body) = client.message().await;
        assert!(head.starts_with("HTTP/1.1 504") && body == "stream timeout", "{head}{body}");
        assert!(proxy.log(1).await[0].starts_with("504 SI stream_idle_timeout"));
        assert_eq!(client.rest().await.unwrap(), "", "then the connection idles and is closed");
        assert_eq!(proxy.stats.local().downstream_cx_idle_timeout.get(), 1);
    });
}

#[test]
fn a_client_that_reads_nothing_is_cut() {
    run(async {
        let (proxy, upstream) = pair(|s| s.hcm.stream_idle_timeout = Some(Duration::from_millis(100))).await;
        let mut client = proxy.connect().await;
        client.send("GET /flood HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let mut server = upstream.accept().await;
        server.head().await;
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").await;
        let chunk = vec![b'x'; 1 << 20];
        while server.stream.write_all(&chunk).await.is_ok() {}
        let log = proxy.log(1).await;
        assert!(log[0].starts_with("200 SI stream_idle_timeout"), "{log:?}");
        until(|| proxy.stats.local().downstream_cx_active.get() == 0).await;
    });
}

#[test]
fn the_last_request_of_a_connection_says_close() {
    run(async {
        let (proxy, upstream) = pair(|s| s.hcm.max_requests_per_connection = Some(2)).await;
        let mut client = proxy.connect().await;
        client.send("GET /1 HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let mut server = upstream.accept().await;
        for (path, last) in [("/1", false), ("/2", true)] {
            if last {
                client.send("GET /2 HTTP/1.1\r\nHost: x\r\n\r\n").await;
            }
            assert!(server.head().await.contains(path));
            server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            let head = client.head().await;
            assert_eq!(header(&head, "connection"), last.then_some("close"), "{head}");
        }
        assert_eq!(client.rest().await.unwrap(), "");
    });
}

#[test]
fn draining_says_close_on_the_next_response_and_force_cuts() {
    run(async {
        let (proxy, upstream) = pair(|_| {}).await;
        let mut client = proxy.connect().await;
        let mut stuck = proxy.connect().await;
        client.send("GET /1 HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let mut server = upstream.accept().await;
        server.head().await;
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        client.head().await;
        stuck.send("GET /stuck HTTP/1.1\r\nHost: x\r\n\r\n").await;
        server.head().await;
        proxy.drain.advance(Phase::Drain);
        until(|| proxy.stats.local().downstream_cx_drain_close.get() == 2).await;
        // Idle, but a request may be on its way: it is answered, with a word of farewell.
        client.send("GET /2 HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let mut other = upstream.accept().await;
        other.head().await;
        other.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        let head = client.head().await;
        assert_eq!(header(&head, "connection"), Some("close"), "{head}");
        assert_eq!(client.rest().await.unwrap(), "");
        proxy.drain.advance(Phase::Force);
        assert_eq!(stuck.rest().await.unwrap_or_default(), "");
    });
}

#[test]
fn redirects_direct_responses_and_misses() {
    run(async {
        let redirect = Redirect {
            status: http::StatusCode::PERMANENT_REDIRECT,
            https: true,
            scheme: None,
            host: Some("new.example".into()),
            port: None,
            path: None,
            rewrite: Some(PathRewrite::Prefix("/v2/".into())),
            strip_query: false,
        };
        let (proxy, _upstream) = pair(|s| s.action = Some(Action::Redirect(redirect.into()))).await;
        let mut client = proxy.connect().await;
        client.send("GET /a?b=1 HTTP/1.1\r\nHost: old\r\n\r\n").await;
        let (head, _) = client.message().await;
        assert!(head.starts_with("HTTP/1.1 308"), "{head}");
        assert_eq!(header(&head, "location"), Some("https://new.example/v2/a?b=1"));

        let direct =
            DirectResponse { status: http::StatusCode::IM_A_TEAPOT, body: "short and stout".into(), format: None };
        let (proxy, _upstream) = pair(|s| s.action = Some(Action::Direct(direct.into()))).await;
        let mut client = proxy.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let (head, body) = client.message().await;
        assert!(head.starts_with("HTTP/1.1 418"), "{head}");
        assert_eq!(body, "short and stout");
        assert_eq!(proxy.log(1).await, ["418 - direct_response 0 0 15 /"]);

        let (proxy, _upstream) = pair(|s| s.vhost.domains = vec!["only.example".into()]).await;
        let mut client = proxy.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: other\r\n\r\n").await;
        let (head, _) = client.message().await;
        assert!(head.starts_with("HTTP/1.1 404"), "{head}");
        assert_eq!(proxy.log(1).await, ["404 NR route_not_found 0 0 0 /"]);
        assert_eq!(proxy.stats.local().no_route.get(), 1);

        let (proxy, _upstream) = pair(|s| s.forward.target = crate::ir::route::Target::Cluster("gone".into())).await;
        let mut client = proxy.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(client.message().await.0.starts_with("HTTP/1.1 503"));
        assert_eq!(proxy.log(1).await, ["503 NC cluster_not_found 0 0 0 /"]);
    });
}

/// Every request allocates and moves one of these.
#[test]
fn the_future_of_a_request_is_small() {
    fn size<A, B, C, D, F: Future>(_: impl Fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }
    let size = size(crate::l7::pipeline::serve);
    assert!(size <= 3200, "{size} bytes");
}

#[test]
fn garbage_harms_nobody_else() {
    run(async {
        let (proxy, upstream) = pair(|_| {}).await;
        let mut good = proxy.connect().await;
        let mut random = fastrand::Rng::with_seed(7);
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
        for round in 0..150 {
            let mut client = proxy.connect().await;
            let mut bytes = match round % 3 {
                0 => Vec::new(),
                1 => preface.to_vec(),
                _ => head.to_vec(),
            };
            bytes.extend((0..random.usize(1..400)).map(|_| random.u8(..)));
            // The peer may close before all of it is written.
            let _ = client.stream.write_all(&bytes).await;
            let _ = client.stream.shutdown().await;
            let mut answer = Vec::new();
            let _ = client.stream.read_to_end(&mut answer).await;
        }
        good.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        loop {
            let mut server = upstream.accept().await;
            let Ok(head) = tokio::time::timeout(Duration::from_millis(200), server.head_or_end()).await else {
                continue;
            };
            if head.starts_with("GET / ") {
                server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
                break;
            }
        }
        assert!(good.head().await.starts_with("HTTP/1.1 200"));
        until(|| proxy.stats.local().downstream_cx_active.get() == 1).await;
        assert_eq!(proxy.stats.local().downstream_rq_active.get(), 0);
    });
}

//! HTTP/1 on both sides, byte for byte.

use super::{
    peer::{Upstream, header},
    support::{Setup, pair, run},
};
use crate::ir::{
    format::{Operator, Segment, Template},
    route::{AppendAction, HeaderAdd, HostRewrite, PathRewrite},
};

#[test]
fn keep_alive_case_and_one_upstream_connection() {
    run(async {
        let (proxy, upstream) = pair(|_| {}).await;
        let mut client = proxy.connect().await;
        client.send("GET /a HTTP/1.1\r\nHost: x\r\nX-CamelCase: One\r\nx-other: two\r\n\r\n").await;
        let mut server = upstream.accept().await;
        let head = server.head().await;
        assert!(head.starts_with("GET /a HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("\r\nX-CamelCase: One\r\nx-other: two\r\n"), "{head}");
        assert!(header(&head, "x-request-id").is_some_and(|id| id.len() == 36), "{head}");
        assert_eq!(header(&head, "x-forwarded-proto"), Some("http"));
        assert_eq!(header(&head, "connection"), None, "{head}");
        server.send("HTTP/1.1 200 Fine\r\nX-ReplyCase: y\r\nContent-Length: 2\r\nServer: app\r\n\r\nok").await;
        let (head, body) = client.message().await;
        assert!(head.starts_with("HTTP/1.1 200 Fine\r\n"), "{head}");
        assert!(head.contains("X-ReplyCase: y"), "{head}");
        assert_eq!(header(&head, "server"), Some("outrigger"));
        assert!(header(&head, "x-envoy-upstream-service-time").is_some());
        assert_eq!(body, "ok");
        // The same connections again.
        client.send("GET /b HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(server.head().await.starts_with("GET /b "));
        server.send("HTTP/1.1 204 No Content\r\n\r\n").await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 204"), "{head}");
        assert_eq!(header(&head, "content-length"), None);
        assert_eq!(proxy.stats.local().downstream_cx_total.get(), 1);
        assert_eq!(proxy.cluster_stats.local().upstream_cx_total.get(), 1);
        let log = proxy.log(2).await;
        assert_eq!(log, ["200 - via_upstream 1 0 2 /a", "204 - via_upstream 1 0 0 /b"]);
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    run(async {
        let (proxy, upstream) = pair(|_| {}).await;
        let mut client = proxy.connect().await;
        let all: String = (0..5).map(|i| format!("GET /{i} HTTP/1.1\r\nHost: x\r\n\r\n")).collect();
        client.send(&all).await;
        let mut server = upstream.accept().await;
        for i in 0..5 {
            assert!(server.head().await.starts_with(&format!("GET /{i} ")));
            server.send(&format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{i}")).await;
            assert_eq!(client.message().await.1, i.to_string());
        }
    });
}

#[test]
fn a_pipelined_head_may_come_in_any_two_pieces() {
    run(async {
        let second = "GET /second HTTP/1.1\r\nHost: x\r\n\r\n";
        let (proxy, upstream) = pair(|_| {}).await;
        let mut client = proxy.connect().await;
        let mut server = None;
        for first in [
            "GET /first HTTP/1.1\r\nHost: x\r\n\r\n",
            "POST /first HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
        ] {
            for cut in 1..second.len() {
                client.send(&format!("{first}{}", &second[..cut])).await;
                if server.is_none() {
                    server = Some(upstream.accept().await);
                }
                let server = server.as_mut().unwrap();
                assert!(server.message().await.0.contains(" /first "));
                // The rest comes while the first request is under way, or behind it.
                if cut % 2 == 0 {
                    client.send(&second[cut..]).await;
                }
                server.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1").await;
                assert_eq!(client.message().await.1, "1", "cut at {cut}");
                if cut % 2 == 1 {
                    client.send(&second[cut..]).await;
                }
                assert!(server.head().await.starts_with("GET /second "), "cut at {cut}");
                server.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n2").await;
                assert_eq!(client.message().await.1, "2", "cut at {cut}");
            }
        }
    });
}

/// What is refused where it comes alone is refused behind another request, however it is cut.
#[test]
fn a_pipelined_head_that_is_ambiguous_is_refused() {
    run(async {
        let first = "GET /first HTTP/1.1\r\nHost: x\r\n\r\n";
        let second =
            "POST /second HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n";
        let (proxy, upstream) = pair(|_| {}).await;
        let mut server = None;
        for cut in (0..78).step_by(6) {
            let mut client = proxy.connect().await;
            client.send(&format!("{first}{}", &second[..cut])).await;
            if server.is_none() {
                server = Some(upstream.accept().await);
            }
            let server = server.as_mut().unwrap();
            assert!(server.head().await.contains(" /first "));
            if cut % 4 == 0 {
                client.send(&second[cut..]).await;
            }
            server.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1").await;
            assert_eq!(client.message().await.1, "1", "cut at {cut}");
            if cut % 4 != 0 {
                client.send(&second[cut..]).await;
            }
            let head = client.head().await;
            assert!(head.starts_with("HTTP/1.1 400 "), "cut at {cut}: {head}");
        }
    });
}

#[test]
fn chunked_bodies_and_trailers_pass_both_ways() {
    run(async {
        let (proxy, upstream) = pair(|_| {}).await;
        let mut client = proxy.connect().await;
        client
            .send(
                "POST /up HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
                 3\r\nabc\r\n0\r\nX-Sum: 6\r\n\r\n",
            )
            .await;
        let mut server = upstream.accept().await;
        let head = server.head().await;
        assert_eq!(header(&head, "transfer-encoding"), Some("chunked"), "{head}");
        assert_eq!(header(&head, "te"), Some("trailers"));
        assert_eq!(server.until("x-sum: 6\r\n\r\n").await, "3\r\nabc\r\n0\r\nx-sum: 6\r\n\r\n");
        server
            .send(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-End\r\n\r\n\
                 2\r\nhi\r\n0\r\nX-End: yes\r\n\r\n",
            )
            .await;
        let head = client.head().await;
        assert_eq!(header(&head, "transfer-encoding"), Some("chunked"), "{head}");
        assert_eq!(client.until("x-end: yes\r\n\r\n").await, "2\r\nhi\r\n0\r\nx-end: yes\r\n\r\n");
        assert_eq!(proxy.log(1).await, ["200 - via_upstream 1 3 2 /up"]);
    });
}

#[test]
fn expect_continue_is_end_to_end() {
    run(async {
        let (proxy, upstream) = pair(|_| {}).await;
        let mut client = proxy.connect().await;
        client.send("PUT /x HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n").await;
        let mut server = upstream.accept().await;
        let head = server.head().await;
        assert_eq!(header(&head, "expect"), Some("100-continue"), "{head}");
        server.send("HTTP/1.1 100 Continue\r\n\r\n").await;
        assert!(client.head().await.starts_with("HTTP/1.1 100"));
        client.send("data").await;
        assert_eq!(server.exactly(4).await, "data");
        server.send("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n").await;
        assert!(client.head().await.starts_with("HTTP/1.1 201"));
        // Refused: the client never sends its body.
        client.send("PUT /y HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n").await;
        server.head().await;
        server.send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
        assert!(client.head().await.starts_with("HTTP/1.1 417"));
    });
}

#[test]
fn http10_clients_are_served() {
    run(async {
        let (proxy, upstream) = pair(|_| {}).await;
        let mut client = proxy.connect().await;
        client.send("GET /old HTTP/1.0\r\n\r\n").await;
        let mut server = upstream.accept().await;
        let head = server.head().await;
        assert!(head.starts_with("GET /old HTTP/1.1\r\n"), "{head}");
        assert_eq!(header(&head, "host"), Some(proxy.address.to_string().as_str()), "where it connected to");
        server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n").await;
        let all = client.rest().await.unwrap();
        let (head, body) = all.split_once("\r\n\r\n").unwrap();
        assert_eq!(header(head, "transfer-encoding"), None, "{head}");
        assert_eq!(body, "hello", "framed by the close");
    });
}

#[test]
fn http10_can_be_switched_off() {
    run(async {
        let (proxy, _upstream) = pair(|s| s.hcm.http1.accept_http_10 = false).await;
        let mut client = proxy.connect().await;
        client.send("GET / HTTP/1.0\r\nHost: x\r\n\r\n").await;
        let all = client.rest().await.unwrap();
        assert!(all.contains(" 426 "), "{all}");
    });
}

#[test]
fn announced_lengths_survive_bodiless_responses() {
    run(async {
        let (proxy, upstream) = pair(|_| {}).await;
        let mut client = proxy.connect().await;
        client.send("HEAD /h HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let mut server = upstream.accept().await;
        server.head().await;
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 4711\r\n\r\n").await;
        let head = client.head().await;
        assert_eq!(header(&head, "content-length"), Some("4711"), "{head}");
        client.send("GET /c HTTP/1.1\r\nHost: x\r\nIf-None-Match: \"a\"\r\n\r\n").await;
        server.head().await;
        server.send("HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\nETag: \"a\"\r\n\r\n").await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 304"), "{head}");
        assert_eq!(header(&head, "content-length"), Some("99"), "{head}");
        // Nothing of a body follows either: the next response comes right after.
        client.send("GET /d HTTP/1.1\r\nHost: x\r\n\r\n").await;
        server.head().await;
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx").await;
        assert_eq!(client.message().await.1, "x");
    });
}

#[test]
fn hop_by_hop_fields_stop_here() {
    run(async {
        let (proxy, upstream) = pair(|_| {}).await;
        let mut client = proxy.connect().await;
        client
            .send(
                "GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, X-Hop, Content-Length, Host\r\nX-Hop: 1\r\n\
                 Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: gzip\r\nX-End: 2\r\n\r\n",
            )
            .await;
        let mut server = upstream.accept().await;
        let head = server.head().await.to_ascii_lowercase();
        for gone in ["connection", "x-hop", "keep-alive", "te:"] {
            assert!(!head.contains(gone), "{gone} in {head}");
        }
        assert!(head.contains("x-end: 2") && head.contains("host: x"), "{head}");
        server
            .send("HTTP/1.1 200 OK\r\nConnection: X-Back\r\nX-Back: 1\r\nKeep-Alive: timeout=9\r\nContent-Length: 0\r\n\r\n")
            .await;
        let head = client.head().await.to_ascii_lowercase();
        assert!(!head.contains("x-back") && !head.contains("keep-alive"), "{head}");
    });
}

#[test]
fn rewrites_and_header_mutations_apply() {
    run(async {
        let (upstream, address) = Upstream::bind().await;
        let mut setup = Setup::new(&[address]);
        setup.forward.path_rewrite = Some(PathRewrite::Prefix("/v2/".into()));
        setup.forward.host_rewrite = Some(HostRewrite::Auto);
        setup.vhost.attempt_count_in_request = true;
        let add = |name: &'static str, op: Operator| HeaderAdd {
            name: http::HeaderName::from_static(name),
            value: Template { segments: vec![Segment::Op { op, max_len: None }] },
            action: AppendAction::OverwriteIfExistsOrAdd,
            keep_empty_value: false,
        };
        setup.headers.request_add = vec![add("x-path", Operator::Req(":path".into(), None))];
        setup.headers.request_remove = vec![http::HeaderName::from_static("x-secret")];
        setup.headers.response_add = vec![
            add("x-asked", Operator::Req(":authority".into(), None)),
            add("x-code", Operator::ResponseCode),
            add("x-none", Operator::Req("x-missing".into(), None)),
        ];
        let proxy = setup.start().await;
        let mut client = proxy.connect().await;
        client.send("GET /one?q=1 HTTP/1.1\r\nHost: shop\r\nX-Secret: s\r\n\r\n").await;
        let mut server = upstream.accept().await;
        let head = server.head().await;
        assert!(head.starts_with("GET /v2/one?q=1 HTTP/1.1\r\n"), "{head}");
        assert_eq!(header(&head, "host"), Some("backend.internal"));
        assert_eq!(header(&head, "x-envoy-original-path"), Some("/one?q=1"));
        assert_eq!(header(&head, "x-path"), Some("/one?q=1"), "evaluated before the rewrite");
        assert_eq!(header(&head, "x-envoy-attempt-count"), Some("1"));
        assert_eq!(header(&head, "x-envoy-expected-rq-timeout-ms"), Some("15000"));
        assert_eq!(header(&head, "x-secret"), None);
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        let head = client.head().await;
        assert_eq!(header(&head, "x-asked"), Some("shop"), "{head}");
        assert_eq!(header(&head, "x-none"), None, "empty values are left out");
    });
}

#[test]
fn trailers_reach_clients_that_did_not_ask_in_so_many_words() {
    run(async {
        let (proxy, upstream) = pair(|_| {}).await;
        let mut client = proxy.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let mut server = upstream.accept().await;
        let head = server.head().await;
        assert_eq!(header(&head, "te"), None, "the upstream hears nothing of it: {head}");
        server
            .send(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-End\r\n\r\n\
                 2\r\nhi\r\n0\r\nX-End: yes\r\n\r\n",
            )
            .await;
        client.head().await;
        assert_eq!(client.until("x-end: yes\r\n\r\n").await, "2\r\nhi\r\n0\r\nx-end: yes\r\n\r\n");
    });
}

#[test]
fn old_protocol_versions_stay_between_neighbours() {
    run(async {
        let (proxy, upstream) = pair(|_| {}).await;
        let mut client = proxy.connect().await;
        client.send("GET /a HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let mut server = upstream.accept().await;
        server.head().await;
        server.send("HTTP/1.0 200 OK\r\n\r\nuntil the end").await;
        drop(server);
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert_eq!(header(&head, "transfer-encoding"), Some("chunked"), "{head}");
        client.until("0\r\n\r\n").await;
        // A client of the old version that keeps its connection.
        let mut client = proxy.connect().await;
        for _ in 0..2 {
            client.send("GET /b HTTP/1.0\r\nHost: x\r\nConnection: Keep-Alive\r\n\r\n").await;
            let mut server = upstream.accept().await;
            server.head().await;
            server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
            let (head, body) = client.message().await;
            assert_eq!((header(&head, "connection"), body.as_str()), (Some("keep-alive"), "ok"), "{head}");
        }
    });
}

/// Both readers may compare letters: what one of them took for a coding that it does not know, the other sends in chunks.
#[test]
fn chunked_is_spelt_in_one_way() {
    run(async {
        let (proxy, upstream) = pair(|_| {}).await;
        let mut client = proxy.connect().await;
        client.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chuNKed\r\n\r\n1\r\na\r\n0\r\n\r\n").await;
        let mut server = upstream.accept().await;
        let head = server.head().await;
        assert_eq!(header(&head, "transfer-encoding"), Some("chunked"), "{head}");
        server.until("0\r\n\r\n").await;
        server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: CHUNKED\r\n\r\n1\r\na\r\n0\r\n\r\n").await;
        let head = client.head().await;
        assert_eq!(header(&head, "transfer-encoding"), Some("chunked"), "{head}");
    });
}

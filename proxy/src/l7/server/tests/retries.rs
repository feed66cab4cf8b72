//! What requests and policies ask of the retry loop, from socket to socket.

use std::{sync::Arc, time::Duration};

use super::{
    peer::{Peer, Upstream, header},
    support::{Proxy, Setup, pair, retry, run, until},
};
use crate::ir::{
    matcher::{Cidr, HeaderMatcher, HeaderRule, StringMatcher},
    route::{BodyBuffer, Forward, HostRewrite, ResetHeader, RetryPolicy},
};

pub(super) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
pub(super) const NO: &str = "HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno";

fn internal(setup: &mut Setup) {
    setup.hcm.use_remote_address = true;
    setup.hcm.internal_networks = vec![Cidr::new([127, 0, 0, 0].into(), 8).unwrap()];
}

pub(super) fn policy(forward: &mut Forward, change: impl FnOnce(&mut RetryPolicy)) {
    let mut policy = forward.retry.take().unwrap_or_else(|| retry("5xx", 1));
    change(Arc::make_mut(&mut policy));
    forward.retry = Some(policy);
}

pub(super) async fn ask(proxy: &Proxy, headers: &str) -> Peer {
    let mut client = proxy.connect().await;
    client.send(&format!("GET / HTTP/1.1\r\nHost: x\r\n{headers}\r\n")).await;
    client
}

#[test]
fn internal_requests_steer_the_proxy_and_others_do_not() {
    run(async {
        for suppressed in [false, true] {
            let (proxy, upstream) = pair(|s| {
                internal(s);
                s.vhost.attempt_count_in_request = true;
                s.vhost.timeout_retry_header = true;
                let router = crate::ir::http::Router { suppress_envoy_headers: suppressed, ..Default::default() };
                s.hcm.filters[0].kind = crate::ir::http::FilterKind::Router(router);
            })
            .await;
            let steer = "x-envoy-retry-on: 5xx\r\nx-envoy-max-retries: 2\r\nx-envoy-upstream-rq-timeout-ms: 9000\r\n\
                         x-envoy-upstream-rq-per-try-timeout-ms: 4000\r\nx-envoy-hedge-on-per-try-timeout: false\r\n\
                         x-envoy-retriable-header-names: a\r\nx-envoy-upstream-rq-timeout-alt-response: 1\r\n";
            let mut client = ask(&proxy, steer).await;
            for count in ["1", "2", "3"] {
                let mut server = upstream.accept().await;
                let head = server.head().await;
                assert_eq!(header(&head, "x-envoy-attempt-count"), Some(count));
                assert_eq!(header(&head, "x-envoy-is-timeout-retry"), (count != "1").then_some("false"));
                let expected = header(&head, "x-envoy-expected-rq-timeout-ms");
                assert_eq!(expected, (!suppressed).then_some("4000"), "{head}");
                assert!(!head.contains("retry-on") && !head.contains("x-envoy-upstream-rq"), "{head}");
                assert!(!head.contains("hedge") && !head.contains("retriable"), "{head}");
                server.send(if count == "3" { OK } else { NO }).await;
            }
            assert!(client.head().await.starts_with("HTTP/1.1 200"));
        }
        let (proxy, upstream) = pair(|s| s.hcm.use_remote_address = true).await;
        let mut client = ask(&proxy, "x-envoy-retry-on: 5xx\r\nx-envoy-upstream-rq-timeout-ms: 1\r\n").await;
        let mut server = upstream.accept().await;
        assert_eq!(header(&server.head().await, "x-envoy-expected-rq-timeout-ms"), Some("15000"));
        server.send(NO).await;
        assert!(client.head().await.starts_with("HTTP/1.1 503"));
    });
}

#[test]
fn the_most_specific_policy_counts_alone() {
    run(async {
        for (host, route, cluster, tries) in
            [(Some(2), None, None, 3), (Some(2), Some(1), None, 2), (Some(2), Some(1), Some(0), 1)]
        {
            let (proxy, upstream) = pair(|s| {
                s.vhost.retry = host.map(|n| retry("5xx", n));
                s.forward.retry = route.map(|n| retry("5xx", n));
                Arc::make_mut(&mut s.cluster.http).retry = cluster.map(|n| retry("5xx", n));
            })
            .await;
            let mut client = ask(&proxy, "").await;
            for _ in 0..tries {
                let mut server = upstream.accept().await;
                server.head().await;
                server.send(NO).await;
            }
            assert!(client.head().await.starts_with("HTTP/1.1 503"));
            assert_eq!(proxy.cluster_stats.local().upstream_rq_total.get(), tries);
        }
    });
}

#[test]
fn a_request_that_came_back_is_the_next_hosts_alone() {
    run(async {
        let (upstream, address) = Upstream::bind().await;
        // Nobody listens there: the request comes back whole.
        let gone = Upstream::bind().await.1;
        let mut setup = Setup::new(&[gone, address]);
        setup.forward.host_rewrite = Some(HostRewrite::Auto);
        setup.forward.append_forwarded_host = true;
        setup.forward.retry = Some(retry("connect-failure", 3));
        let proxy = setup.start().await;
        for _ in 0..2 {
            let mut client = ask(&proxy, "").await;
            let mut server = upstream.accept().await;
            let head = server.head().await;
            assert_eq!(header(&head, "x-envoy-original-host"), Some("x"), "{head}");
            assert_eq!(header(&head, "x-forwarded-host"), Some("x"), "{head}");
            server.send(OK).await;
            assert!(client.head().await.starts_with("HTTP/1.1 200"));
        }
        assert!(proxy.cluster_stats.local().upstream_rq_retry.get() > 0, "one try met the host that is gone");
    });
}

#[test]
fn trailers_are_sent_again_too() {
    run(async {
        let (proxy, upstream) = pair(|s| s.forward.retry = Some(retry("5xx", 1))).await;
        let mut client = proxy.connect().await;
        let head = "POST / HTTP/1.1\r\nHost: x\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.send(&format!("{head}3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n")).await;
        for answer in [NO, OK] {
            let mut server = upstream.accept().await;
            server.head().await;
            assert_eq!(server.until("x-sum: 1\r\n\r\n").await, "3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n");
            server.send(answer).await;
        }
        assert!(client.head().await.starts_with("HTTP/1.1 200"));
    });
}

#[test]
fn a_policy_may_be_for_some_requests_only() {
    run(async {
        let (proxy, upstream) = pair(|s| {
            policy(&mut s.forward, |p| {
                p.retriable_request_headers = vec![HeaderMatcher {
                    name: ":method".into(),
                    rule: HeaderRule::Value(StringMatcher::exact("GET")),
                    invert: false,
                    treat_missing_as_empty: false,
                }];
            });
        })
        .await;
        for (method, retried) in [("GET", true), ("POST", false)] {
            let mut client = proxy.connect().await;
            client.send(&format!("{method} / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")).await;
            let mut server = upstream.accept().await;
            server.head().await;
            server.send("HTTP/1.1 503 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
            if retried {
                let mut server = upstream.accept().await;
                server.head().await;
                server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
            }
            assert!(client.head().await.starts_with(if retried { "HTTP/1.1 200" } else { "HTTP/1.1 503" }));
        }
    });
}

#[test]
fn retries_wait_as_long_as_the_upstream_asks_them_to() {
    run(async {
        let (proxy, upstream) = pair(|s| {
            policy(&mut s.forward, |p| {
                p.reset_headers =
                    vec![ResetHeader { name: http::HeaderName::from_static("retry-after"), unix_time: false }];
                p.reset_max = Duration::from_secs(1);
            });
        })
        .await;
        for (asked, limited) in [("1", 1), ("2", 1)] {
            let mut client = ask(&proxy, "").await;
            let mut server = upstream.accept().await;
            server.head().await;
            let refused = std::time::Instant::now();
            server
                .send(&NO.replace("\r\n\r\n", &format!("\r\nRetry-After: {asked}\r\nConnection: close\r\n\r\n")))
                .await;
            let mut server = upstream.accept().await;
            server.head().await;
            if asked == "1" {
                assert!(refused.elapsed() >= Duration::from_secs(1));
            }
            server.send(&OK.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).await;
            assert!(client.head().await.starts_with("HTTP/1.1 200"));
            assert_eq!(proxy.cluster_stats.local().upstream_rq_retry_backoff_ratelimited.get(), limited);
        }
        assert_eq!(proxy.cluster_stats.local().upstream_rq_retry_backoff_exponential.get(), 1);
    });
}

#[test]
fn a_retry_without_a_place_in_the_budget_is_flagged() {
    run(async {
        let (proxy, upstream) = pair(|s| {
            s.forward.retry = Some(retry("5xx", 3));
            s.cluster.breaker.max_retries = 0;
        })
        .await;
        let mut client = ask(&proxy, "").await;
        let mut server = upstream.accept().await;
        server.head().await;
        server.send(NO).await;
        assert!(client.head().await.starts_with("HTTP/1.1 503"));
        assert_eq!(proxy.log(1).await, ["503 UO via_upstream 1 0 2 /"]);
    });
}

#[test]
fn the_last_of_several_failures_says_so() {
    run(async {
        let (proxy, upstream) = pair(|s| {
            s.forward.retry = Some(retry("reset", 1));
            s.vhost.attempt_count_in_response = true;
        })
        .await;
        let mut client = ask(&proxy, "").await;
        for _ in 0..2 {
            let mut server = upstream.accept().await;
            server.head().await;
        }
        let (head, body) = client.message().await;
        assert!(head.starts_with("HTTP/1.1 503"), "{head}");
        assert_eq!(header(&head, "x-envoy-attempt-count"), Some("2"));
        let told = "disconnect/reset before headers. retried and the latest reset reason: connection termination";
        assert!(body.ends_with(told), "{body}");
        assert!(proxy.log(1).await[0].starts_with("503 URX,UC upstream_reset_before_response_started{"));
    });
}

#[test]
fn refusals_have_the_headers_of_their_route() {
    run(async {
        let (proxy, _upstream) = pair(|s| {
            let add = crate::ir::route::HeaderAdd {
                name: http::HeaderName::from_static("x-route"),
                value: crate::ir::format::Template {
                    segments: vec![crate::ir::format::Segment::Op {
                        op: crate::ir::format::Operator::Req(":path".into(), None),
                        max_len: None,
                    }],
                },
                action: crate::ir::route::AppendAction::AppendIfExistsOrAdd,
                keep_empty_value: false,
            };
            s.headers.response_add.push(add);
            s.cluster.breaker.max_requests = 0;
            s.vhost.attempt_count_in_response = true;
        })
        .await;
        let mut client = ask(&proxy, "").await;
        let (head, body) = client.message().await;
        assert!(head.starts_with("HTTP/1.1 503") && body.ends_with("reset reason: overflow"), "{head}{body}");
        for (name, value) in [("x-route", "/"), ("x-envoy-overloaded", "true"), ("x-envoy-attempt-count", "1")] {
            assert_eq!(header(&head, name), Some(value), "{head}");
        }
    });
}

#[test]
fn only_as_much_of_a_body_is_kept_as_may_be() {
    run(async {
        for (limit, length, retried) in [
            (Some(BodyBuffer::AtMost(1000)), 1000, true),
            (Some(BodyBuffer::AtMost(1000)), 1001, false),
            (Some(BodyBuffer::Exactly(3_000_000)), 2_000_000, true),
            (Some(BodyBuffer::AtMost(3_000_000)), 2_000_000, false),
            (None, 1 << 20, true),
            (None, (1 << 20) + 1, false),
        ] {
            let (proxy, upstream) = pair(|s| {
                s.forward.retry = Some(retry("5xx", 1));
                s.forward.body_buffer = limit;
            })
            .await;
            let mut client = proxy.connect().await;
            // Chunked: its length is not known beforehand.
            let head = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
            let body = format!("{head}{length:x}\r\n{}\r\n0\r\n\r\n", "z".repeat(length));
            let sending = tokio::task::spawn_local(async move {
                client.send(&body).await;
                client
            });
            let mut server = upstream.accept().await;
            server.head().await;
            server.until("\r\n0\r\n\r\n").await;
            server.send(NO).await;
            if retried {
                let mut server = upstream.accept().await;
                server.head().await;
                let again = server.until("\r\n0\r\n\r\n").await;
                assert_eq!(again.matches('z').count(), length, "{limit:?}");
                server.send(OK).await;
            }
            let mut client = sending.await.unwrap();
            let status = if retried { "HTTP/1.1 200" } else { "HTTP/1.1 503" };
            assert!(client.head().await.starts_with(status), "{limit:?} {length}");
        }
    });
}

#[test]
fn the_response_that_is_replaced_does_not_hold_its_connection() {
    run(async {
        let (proxy, upstream) = pair(|s| s.forward.retry = Some(retry("5xx", 1))).await;
        let mut client = ask(&proxy, "").await;
        let mut first = upstream.accept().await;
        first.head().await;
        first.send("HTTP/1.1 503 No\r\nContent-Length: 1000\r\n\r\npart").await;
        let mut second = upstream.accept().await;
        second.head().await;
        second.send(OK).await;
        assert!(client.head().await.starts_with("HTTP/1.1 200"));
        assert_eq!(first.rest().await.unwrap_or_default(), "", "closed: nobody reads the rest");
        until(|| proxy.cluster_stats.local().upstream_rq_active.get() == 0).await;
    });
}

/// Once the response is there nothing is kept any more: an upload of any size may go on beside it.
#[test]
fn a_body_goes_on_after_the_response_began() {
    run(async {
        let (proxy, upstream) = pair(|s| s.forward.retry = Some(retry("5xx", 1))).await;
        let mut client = proxy.connect().await;
        client.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n").await;
        let mut server = upstream.accept().await;
        server.until("one\r\n").await;
        server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n").await;
        client.until("\r\na\r\n").await;
        for _ in 0..40 {
            client.send(&format!("{:x}\r\n{}\r\n", 100_000, "z".repeat(100_000))).await;
            server.until("z\r\n").await;
        }
        client.send("0\r\n\r\n").await;
        server.until("\r\n0\r\n\r\n").await;
        server.send("0\r\n\r\n").await;
        client.until("0\r\n\r\n").await;
        assert_eq!(proxy.cluster_stats.local().retry_or_shadow_abandoned.get(), 0);
    });
}

/// Whatever such a header says: it is obeyed within limits, or it counts as absent.
#[test]
fn headers_that_make_no_sense_harm_nobody() {
    run(async {
        let (proxy, upstream) = pair(internal).await;
        tokio::task::spawn_local(async move {
            loop {
                let mut server = upstream.accept().await;
                tokio::task::spawn_local(async move {
                    while !server.head_or_end().await.is_empty() {
                        server.head().await;
                        server.send(OK).await;
                    }
                });
            }
        });
        let names = [
            "x-envoy-retry-on",
            "x-envoy-retry-grpc-on",
            "x-envoy-max-retries",
            "x-envoy-retriable-status-codes",
            "x-envoy-retriable-header-names",
            "x-envoy-upstream-rq-timeout-ms",
            "x-envoy-upstream-rq-per-try-timeout-ms",
            "x-envoy-upstream-stream-duration-ms",
            "x-envoy-hedge-on-per-try-timeout",
            "grpc-timeout",
        ];
        let long = "5xx,".repeat(2000);
        let values =
            ["18446744073709551615", "99999999999999999999999", "-1", "1e9", "", ",,,", "\u{663}", "99999999H", &long];
        let mut client = proxy.connect().await;
        for name in names {
            for value in values {
                client
                    .send(&format!("GET / HTTP/1.1\r\nHost: x\r\nx-envoy-retry-on: 5xx\r\n{name}: {value}\r\n\r\n"))
                    .await;
                let (head, _) = client.message().await;
                assert!(head.starts_with("HTTP/1.1 200"), "{name}: {value:.40}: {head}");
            }
        }
    });
}

//! Tries that race each other.

use std::{cell::Cell, rc::Rc, time::Duration};

use http::Response;

use super::{
    http2::{full, serve},
    peer::{Upstream, header},
    retries::{NO, OK, ask, policy},
    support::{Setup, pair, retry, run, until},
};

pub(super) fn hedge(setup: &mut Setup, retries: u32) {
    setup.forward.hedge = Some(true);
    setup.forward.retry = Some(retry("5xx", retries));
    policy(&mut setup.forward, |p| p.per_try_timeout = Some(Duration::from_millis(30)));
}

#[test]
fn the_first_good_answer_wins_and_the_others_are_reset() {
    run(async {
        for first_wins in [true, false] {
            let (proxy, upstream) = pair(|s| hedge(s, 1)).await;
            let mut client = proxy.connect().await;
            client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody").await;
            let mut first = upstream.accept().await;
            let head = first.head().await;
            assert_eq!(header(&head, "x-envoy-expected-rq-timeout-ms"), Some("15000"), "it may take all the time");
            assert_eq!(first.exactly(4).await, "body");
            let mut second = upstream.accept().await;
            second.head().await;
            assert_eq!(second.exactly(4).await, "body");
            let (mut winner, mut loser) = if first_wins { (first, second) } else { (second, first) };
            winner.send(OK).await;
            let (head, body) = client.message().await;
            assert!(head.starts_with("HTTP/1.1 200") && body == "ok", "{head}");
            assert_eq!(loser.rest().await.unwrap_or_default(), "", "reset");
            let stats = proxy.cluster_stats.local();
            assert_eq!((stats.upstream_rq_retry.get(), stats.upstream_rq_per_try_timeout.get()), (1, 0));
            let log = proxy.log(1).await;
            assert!(log[0].starts_with("200 ") && log[0].ends_with(" via_upstream 2 4 2 /"), "{log:?}");
            until(|| stats.upstream_rq_active.get() == 0).await;
        }
    });
}

#[test]
fn a_bad_answer_waits_for_a_better_one() {
    run(async {
        let (proxy, upstream) = pair(|s| hedge(s, 1)).await;
        let mut client = ask(&proxy, "").await;
        let mut first = upstream.accept().await;
        first.head().await;
        let mut second = upstream.accept().await;
        second.head().await;
        second.send(NO).await;
        until(|| proxy.cluster_stats.local().upstream_rq_retry_limit_exceeded.get() > 0).await;
        first.send(OK).await;
        assert!(client.head().await.starts_with("HTTP/1.1 200"));
    });
}

#[test]
fn the_last_bad_answer_is_the_answer() {
    run(async {
        let (proxy, upstream) = pair(|s| hedge(s, 1)).await;
        let mut client = ask(&proxy, "").await;
        let mut first = upstream.accept().await;
        first.head().await;
        let mut second = upstream.accept().await;
        second.head().await;
        first.send(NO).await;
        second.send(&NO.replace("503", "502")).await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 50"), "{head}");
        until(|| proxy.cluster_stats.local().upstream_rq_active.get() == 0).await;
    });
}

#[test]
fn the_budget_and_the_route_timeout_hold() {
    run(async {
        let (proxy, upstream) = pair(|s| {
            hedge(s, 5);
            s.cluster.breaker.max_retries = 2;
            s.forward.timeout = Some(Duration::from_millis(1500));
        })
        .await;
        let mut client = ask(&proxy, "").await;
        let mut servers = Vec::new();
        for _ in 0..3 {
            let mut server = upstream.accept().await;
            server.head().await;
            servers.push(server);
        }
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 504"), "{head}");
        let stats = proxy.cluster_stats.local();
        assert_eq!((stats.upstream_rq_retry.get(), stats.upstream_rq_total.get()), (2, 3));
        assert!(stats.upstream_rq_retry_overflow.get() > 0);
        assert_eq!(stats.upstream_rq_timeout.get(), 3, "one for each try");
        assert!(proxy.log(1).await[0].contains("UT"));
        for mut server in servers {
            assert_eq!(server.rest().await.unwrap_or_default(), "");
        }
    });
}

#[test]
fn without_a_policy_nothing_is_hedged() {
    run(async {
        let (proxy, upstream) = pair(|s| {
            s.forward.hedge = Some(true);
            s.forward.retry = Some(retry("", 3));
            policy(&mut s.forward, |p| p.per_try_timeout = Some(Duration::from_millis(10)));
        })
        .await;
        let mut client = ask(&proxy, "").await;
        let mut server = upstream.accept().await;
        server.head().await;
        assert!(tokio::time::timeout(Duration::from_millis(60), upstream.accept()).await.is_err());
        server.send(OK).await;
        assert!(client.head().await.starts_with("HTTP/1.1 200"));
    });
}

#[test]
fn replicas_that_differ_are_asked() {
    run(async {
        let (first, one) = Upstream::bind().await;
        let (second, two) = Upstream::bind().await;
        let mut setup = Setup::new(&[one, two]);
        hedge(&mut setup, 1);
        let proxy = setup.start().await;
        let mut client = ask(&proxy, "").await;
        let mut a = first.accept().await;
        let mut b = second.accept().await;
        a.head().await;
        b.head().await;
        b.send(OK).await;
        assert!(client.head().await.starts_with("HTTP/1.1 200"));
    });
}

/// Notes that it is gone.
struct Gone(Rc<Cell<bool>>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

#[test]
fn over_http2_the_loser_is_one_stream_of_many() {
    run(async {
        let (upstream, address) = Upstream::bind().await;
        let mut setup = Setup::new(&[address]).upstream_http2();
        hedge(&mut setup, 1);
        let proxy = setup.start().await;
        let (calls, reset) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
        serve(upstream, {
            let reset = reset.clone();
            move |_| {
                let first = calls.replace(calls.get() + 1) == 0;
                let guard = first.then(|| Gone(reset.clone()));
                async move {
                    if let Some(_guard) = guard {
                        std::future::pending::<()>().await;
                    }
                    Ok(Response::new(full("ok")))
                }
            }
        });
        let mut client = ask(&proxy, "").await;
        assert!(client.head().await.starts_with("HTTP/1.1 200"));
        until(|| reset.get()).await;
        let stats = proxy.cluster_stats.local();
        assert_eq!((stats.upstream_cx_total.get(), stats.upstream_rq_total.get()), (1, 2));
    });
}

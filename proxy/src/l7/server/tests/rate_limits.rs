//! Rate limits on the way of a request: dry run, the rate limit service, and what stands in for it.

use std::{cell::Cell, rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Response, StatusCode};
use tokio::net::TcpListener;

use super::{
    faults::{GET, OK, chain},
    peer::Upstream,
    support::{Proxy, Setup, pair, run},
};
use crate::ir::{
    Fraction,
    http::FilterKind,
    rate_limit::{
        Action, GlobalRateLimit, LimitService, LimitedDescriptor, LocalRateLimit, RequestKind, Rule, TokenBucket,
        VirtualHostLimits,
    },
};

fn share(percent: u32) -> Fraction {
    Fraction { numerator: percent, denominator: 100 }
}

fn bucket(max_tokens: u32) -> TokenBucket {
    TokenBucket { max_tokens, tokens_per_fill: 1, fill_interval: Duration::from_secs(3600) }
}

fn local(tokens: u32, enforced: u32) -> LocalRateLimit {
    LocalRateLimit {
        place: "here".into(),
        stat_prefix: "p".into(),
        status: StatusCode::TOO_MANY_REQUESTS,
        bucket: Some(bucket(tokens)),
        enabled: share(100),
        enforced: share(enforced),
        request_headers: Vec::new(),
        response_headers: Vec::new(),
        descriptors: Vec::new(),
        stage: 0,
        per_connection: false,
        shared: false,
        headers: false,
        virtual_host: VirtualHostLimits::Override,
        always_default: true,
        resource_exhausted: false,
        rules: Vec::new(),
        max_dynamic: 20,
        retry_after: false,
    }
}

/// Upstream connections are answered whatever they ask.
fn serve(upstream: Upstream) {
    tokio::task::spawn_local(async move {
        loop {
            let mut server = upstream.accept().await;
            tokio::task::spawn_local(async move {
                while server.head_or_end().await.contains("\r\n\r\n") {
                    server.head().await;
                    server.send(OK).await;
                }
            });
        }
    });
}

/// The statuses of so many requests on one connection.
async fn statuses(proxy: &Proxy, requests: usize) -> Vec<String> {
    let mut client = proxy.connect().await;
    let mut statuses = Vec::new();
    for _ in 0..requests {
        client.send(GET).await;
        statuses.push(client.message().await.0.split(' ').nth(1).unwrap_or_default().to_owned());
    }
    statuses
}

#[test]
fn a_dry_run_counts_what_would_be_denied() {
    run(async {
        let mut counted = Vec::new();
        for enforced in [100, 0] {
            let limit = FilterKind::LocalRateLimit(Arc::new(local(3, enforced)));
            let (proxy, upstream) = pair(|s| chain(s, [("l", limit)])).await;
            serve(upstream);
            let denied = statuses(&proxy, 10).await.iter().filter(|s| *s == "429").count();
            let stats = proxy.limit_stats.local();
            assert_eq!((stats.enabled.get(), stats.enforced.get()), (10, denied as u64));
            counted.push((stats.ok.get(), stats.rate_limited.get()));
            assert_eq!(denied, if enforced == 100 { 7 } else { 0 });
        }
        assert_eq!(counted, [(3, 7), (3, 7)], "the same traffic, the same counts");
    });
}

/// What the scripted rate limit service does.
#[derive(Clone, Copy)]
enum Mode {
    Says(u8),
    Fails,
    /// Hangs up on everybody.
    Gone,
}

/// A rate limit service, and what it is to do.
async fn service() -> (std::net::SocketAddr, Rc<Cell<Mode>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, mode) = (listener.local_addr().unwrap(), Rc::new(Cell::new(Mode::Says(1))));
    let asked = mode.clone();
    tokio::task::spawn_local(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let mode = asked.clone();
            tokio::task::spawn_local(async move {
                let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    let head = Response::builder().header("content-type", "application/grpc");
                    match mode.get() {
                        Mode::Says(code) => {
                            let mut sending = respond.send_response(head.body(()).unwrap(), false).unwrap();
                            sending.send_data(Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 8, code]), false).unwrap();
                            let trailers = [("grpc-status".parse().unwrap(), "0".parse().unwrap())];
                            sending.send_trailers(trailers.into_iter().collect()).unwrap();
                        }
                        Mode::Fails => {
                            let head = head.header("grpc-status", "14").body(()).unwrap();
                            respond.send_response(head, true).unwrap();
                        }
                        Mode::Gone => return,
                    }
                }
            });
        }
    });
    (address, mode)
}

fn rule() -> Rule {
    let action = Action::RequestHeader { name: ":path".into(), key: "path".into(), skip_if_absent: false };
    Rule { actions: vec![action], ..Rule::default() }
}

fn global() -> GlobalRateLimit {
    GlobalRateLimit {
        service: LimitService {
            domain: "d".into(),
            cluster: "rls".into(),
            authority: "".into(),
            metadata: Vec::new(),
            timeout: Some(Duration::from_secs(10)),
        },
        stage: 0,
        requests: RequestKind::Both,
        failure_deny: share(0),
        resource_exhausted: false,
        headers: false,
        limited_header: true,
        limited_status: StatusCode::TOO_MANY_REQUESTS,
        response_headers: Vec::new(),
        status_on_error: StatusCode::INTERNAL_SERVER_ERROR,
        enabled: share(100),
        enforced: share(100),
        rules: vec![rule()],
        metadata_namespace: "ns".into(),
        retry_after: false,
    }
}

/// A proxy with a global limit, and with a fallback of so many requests that are `/p`.
async fn limited(fallback: Option<u32>, change: impl FnOnce(&mut Setup)) -> (Proxy, Rc<Cell<Mode>>) {
    let (address, mode) = service().await;
    let (proxy, upstream) = pair(|s| {
        chain(s, [("x", FilterKind::RateLimit(Arc::new(global())))]);
        if let Some(tokens) = fallback {
            let of_path = |path: &str| LimitedDescriptor {
                entries: vec![("path".into(), path.into())],
                bucket: bucket(tokens),
                shadow: false,
            };
            let local = LocalRateLimit { bucket: None, descriptors: vec![of_path("/p")], ..local(0, 100) };
            let mut filter = s.hcm.filters[0].clone();
            (filter.name, filter.kind) = ("x.fallback".into(), FilterKind::LocalRateLimit(Arc::new(local)));
            filter.disabled = true;
            s.hcm.filters.insert(1, filter);
        }
        s.others.push(("rls", address));
        change(s);
    })
    .await;
    serve(upstream);
    (proxy, mode)
}

#[test]
fn each_proxy_enforces_its_part_while_the_service_is_away() {
    run(async {
        for gone in [Mode::Fails, Mode::Gone] {
            let (proxy, mode) = limited(Some(2), |_| {}).await;
            assert_eq!(statuses(&proxy, 3).await, ["200", "200", "200"], "the service says so");
            mode.set(Mode::Says(2));
            assert_eq!(statuses(&proxy, 1).await, ["429"]);
            mode.set(gone);
            assert_eq!(statuses(&proxy, 4).await, ["200", "200", "429", "429"], "the fallback has two");
            mode.set(Mode::Says(1));
            assert_eq!(statuses(&proxy, 3).await, ["200", "200", "200"], "at once what the service says");
            let stats = proxy.cluster_stats.local();
            assert_eq!((stats.ratelimit_ok.get(), stats.ratelimit_over_limit.get()), (6, 1));
            let fallback = (stats.ratelimit_fallback_ok.get(), stats.ratelimit_fallback_over_limit.get());
            assert_eq!((stats.ratelimit_error.get(), fallback), (4, (2, 2)));
        }
    });
}

#[test]
fn without_a_fallback_that_has_a_say_the_failure_mode_decides() {
    run(async {
        for fallback in [None, Some(5)] {
            let deny = |percent| {
                move |s: &mut Setup| {
                    let global = GlobalRateLimit {
                        failure_deny: share(percent),
                        rules: vec![Rule {
                            actions: vec![Action::Generic { key: "other".into(), value: "one".into() }],
                            ..Rule::default()
                        }],
                        ..global()
                    };
                    s.hcm.filters[0].kind = FilterKind::RateLimit(Arc::new(global));
                }
            };
            let (open, mode) = limited(fallback, deny(0)).await;
            mode.set(Mode::Fails);
            assert_eq!(statuses(&open, 2).await, ["200", "200"]);
            assert_eq!(open.cluster_stats.local().ratelimit_failure_mode_allowed.get(), 2);
            let (closed, mode) = limited(fallback, deny(100)).await;
            mode.set(Mode::Fails);
            assert_eq!(statuses(&closed, 2).await, ["500", "500"]);
            assert_eq!(closed.log(2).await[0], "500 RLSE rate_limiter_error 0 0 0 /p");
        }
    });
}

#[test]
fn the_service_hears_of_a_request_that_is_over() {
    run(async {
        let (proxy, mode) = limited(None, |s| {
            let later = Rule { on_stream_done: true, ..rule() };
            s.hcm.filters[0].kind = FilterKind::RateLimit(Arc::new(GlobalRateLimit { rules: vec![later], ..global() }));
        })
        .await;
        // Whatever it says then: the request has passed.
        mode.set(Mode::Says(2));
        assert_eq!(statuses(&proxy, 2).await, ["200", "200"]);
        let asked = || proxy.other("rls").stats.local().upstream_rq_total.get();
        super::support::until(|| asked() == 2).await;
    });
}

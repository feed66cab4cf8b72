//! Faults from socket to socket, and which level of a route decides on a filter.

use std::{sync::Arc, time::Duration};

use http::StatusCode;

use super::{
    peer::header,
    support::{Setup, pair, run, until},
};
use crate::ir::{
    Fraction,
    filters::{AbortKind, Fault, FaultAbort, FaultDelay, FaultRate, Override, Overrides, Setting},
    http::{FilterKind, HttpFilter},
    route::{Action, DirectResponse, HeaderOps, Target, WeightedTarget},
};

pub(super) const ALL: Fraction = Fraction { numerator: 100, denominator: 100 };
pub(super) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
pub(super) const GET: &str = "GET /p HTTP/1.1\r\nHost: x\r\n\r\n";

pub(super) fn chain(setup: &mut Setup, filters: impl IntoIterator<Item = (&'static str, FilterKind)>) {
    let filters = filters.into_iter().map(|(name, kind)| HttpFilter { name: name.into(), kind, disabled: false });
    setup.hcm.filters.splice(0..0, filters);
}

pub(super) fn level(entries: impl IntoIterator<Item = (&'static str, Setting)>) -> Option<Arc<Overrides>> {
    let filters = entries.into_iter().map(|(name, setting)| Override { filter: name.into(), setting }).collect();
    Some(Arc::new(Overrides { filters, ..Overrides::default() }))
}

pub(super) fn aborting(kind: AbortKind) -> Arc<Fault> {
    let abort = FaultAbort { kind, percentage: ALL, body: "".into() };
    Arc::new(Fault { abort: Some(abort), ..Fault::default() })
}

fn delaying(millis: u64) -> Fault {
    let delay = FaultDelay { duration: Some(Duration::from_millis(millis)), percentage: ALL };
    Fault { delay: Some(delay), ..Fault::default() }
}

#[test]
fn a_request_is_aborted() {
    run(async {
        let fault = aborting(AbortKind::Http(StatusCode::IM_A_TEAPOT));
        let (proxy, _upstream) = pair(|s| chain(s, [("f", FilterKind::Fault(fault))])).await;
        let mut client = proxy.connect().await;
        client.send(GET).await;
        let (head, body) = client.message().await;
        assert!(head.starts_with("HTTP/1.1 418"), "{head}");
        assert_eq!(body, "fault filter abort");
        assert_eq!(header(&head, "content-type"), Some("text/plain"));
        client.send("GET /g HTTP/1.1\r\nHost: x\r\nContent-Type: application/grpc\r\n\r\n").await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert_eq!(
            (header(&head, "grpc-status"), header(&head, "grpc-message")),
            (Some("2"), Some("fault filter abort"))
        );
        assert_eq!(proxy.log(2).await[0], "418 FI fault_filter_abort 0 0 18 /p");
        until(|| proxy.filter_stats.local().active_faults.get() == 0).await;
        assert_eq!(proxy.filter_stats.local().aborts_injected.get(), 2);
    });
}

#[test]
fn a_grpc_abort_is_200_for_all_and_a_status_for_grpc() {
    run(async {
        let fault = aborting(AbortKind::Grpc(5));
        let (proxy, _upstream) = pair(|s| chain(s, [("f", FilterKind::Fault(fault))])).await;
        let mut client = proxy.connect().await;
        client.send(GET).await;
        let (head, body) = client.message().await;
        assert!(head.starts_with("HTTP/1.1 200") && body == "fault filter abort", "{head}{body}");
        client.send("GET /g HTTP/1.1\r\nHost: x\r\nContent-Type: application/grpc\r\n\r\n").await;
        assert_eq!(header(&client.head().await, "grpc-status"), Some("5"));
    });
}

#[test]
fn a_delay_is_not_on_the_routes_clock() {
    run(async {
        let (proxy, upstream) = pair(|s| {
            chain(s, [("f", FilterKind::Fault(Arc::default()))]);
            s.overrides = level([("f", Setting::Fault(delaying(300).into()))]);
            s.forward.timeout = Some(Duration::from_millis(250));
        })
        .await;
        let mut client = proxy.connect().await;
        let started = std::time::Instant::now();
        client.send(GET).await;
        let mut server = upstream.accept().await;
        assert!(started.elapsed() >= Duration::from_millis(300));
        server.head().await;
        server.send(OK).await;
        assert!(client.head().await.starts_with("HTTP/1.1 200"));
        assert_eq!(proxy.log(1).await, ["200 DI via_upstream 1 0 2 /p"]);
        assert_eq!(proxy.filter_stats.local().delays_injected.get(), 1);
    });
}

#[test]
fn only_so_many_faults_are_active() {
    run(async {
        let fault = Fault { max_active: Some(1), ..delaying(60_000) };
        let (proxy, upstream) = pair(|s| chain(s, [("f", FilterKind::Fault(fault.into()))])).await;
        let mut held = proxy.connect().await;
        held.send(GET).await;
        until(|| proxy.filter_stats.local().active_faults.get() == 1).await;
        let mut client = proxy.connect().await;
        client.send(GET).await;
        let mut server = upstream.accept().await;
        server.head().await;
        server.send(OK).await;
        assert!(client.head().await.starts_with("HTTP/1.1 200"));
        assert_eq!(proxy.filter_stats.local().faults_overflow.get(), 1);
        // A client that leaves gives its place back.
        drop(held);
        until(|| proxy.filter_stats.local().active_faults.get() == 0).await;
    });
}

#[test]
fn the_most_specific_level_decides() {
    run(async {
        let status = |code| Setting::Fault(aborting(AbortKind::Http(StatusCode::from_u16(code).unwrap())));
        for (host, route, expected) in [
            (level([("f", status(501))]), None, "501"),
            (level([("f", status(501))]), level([("f", status(502))]), "502"),
            (level([("f", status(501))]), level([("f", Setting::Disabled)]), "200"),
            (level([("f", Setting::Disabled)]), level([("f", status(502))]), "502"),
            (None, level([("g", status(502))]), "500"),
        ] {
            let (proxy, _upstream) = pair(|s| {
                let base = aborting(AbortKind::Http(StatusCode::INTERNAL_SERVER_ERROR));
                chain(s, [("f", FilterKind::Fault(base))]);
                s.vhost.overrides = host;
                s.overrides = route;
                let direct = DirectResponse { status: StatusCode::OK, body: "hi".into(), format: None };
                s.action = Some(Action::Direct(Arc::new(direct)));
            })
            .await;
            let mut client = proxy.connect().await;
            client.send(GET).await;
            let head = client.head().await;
            assert_eq!(head.split(' ').nth(1), Some(expected), "{head}");
        }
    });
}

#[test]
fn the_chosen_weighted_cluster_decides_before_its_route() {
    run(async {
        let status = |code| Setting::Fault(aborting(AbortKind::Http(StatusCode::from_u16(code).unwrap())));
        let (proxy, _upstream) = pair(|s| {
            chain(s, [("f", FilterKind::Fault(Arc::default()))]);
            s.overrides = level([("f", status(502))]);
            let target = |weight, code| WeightedTarget {
                cluster: "up".into(),
                cluster_header: None,
                weight,
                headers: HeaderOps::default(),
                host_rewrite: None,
                criteria: None,
                overrides: level([("f", status(code))]),
            };
            s.forward.target = Target::Weighted(vec![target(0, 503), target(1, 504)]);
        })
        .await;
        let mut client = proxy.connect().await;
        client.send(GET).await;
        assert!(client.head().await.starts_with("HTTP/1.1 504"));
    });
}

#[test]
fn a_disabled_filter_runs_where_a_route_says_so() {
    run(async {
        for (route, expected) in [(None, "200"), (level([("f", Setting::Enabled)]), "418")] {
            let (proxy, _upstream) = pair(|s| {
                let base = aborting(AbortKind::Http(StatusCode::IM_A_TEAPOT));
                chain(s, [("f", FilterKind::Fault(base))]);
                s.hcm.filters[0].disabled = true;
                s.overrides = route;
                let direct = DirectResponse { status: StatusCode::OK, body: "hi".into(), format: None };
                s.action = Some(Action::Direct(Arc::new(direct)));
            })
            .await;
            let mut client = proxy.connect().await;
            client.send(GET).await;
            assert_eq!(client.head().await.split(' ').nth(1), Some(expected));
        }
    });
}

#[test]
fn a_response_is_slowed_down_and_complete() {
    run(async {
        let rate = FaultRate { kbps: Some(64), percentage: ALL };
        let fault = Fault { rate_limit: Some(rate), ..Fault::default() };
        let (proxy, upstream) = pair(|s| chain(s, [("f", FilterKind::Fault(fault.into()))])).await;
        let mut client = proxy.connect().await;
        client.send(GET).await;
        let mut server = upstream.accept().await;
        server.head().await;
        let started = std::time::Instant::now();
        // 16 KiB at 4 KiB a share: three more shares have to come.
        server.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: 16384\r\n\r\n{}", "x".repeat(16384))).await;
        let (head, body) = client.message().await;
        assert!(started.elapsed() >= Duration::from_millis(180), "{:?}", started.elapsed());
        assert_eq!((header(&head, "content-length"), body.len()), (Some("16384"), 16384));
        assert_eq!(proxy.filter_stats.local().response_rl_injected.get(), 1);
        assert!(proxy.log(1).await[0].starts_with("200 - via_upstream 1 0 16384"));
    });
}

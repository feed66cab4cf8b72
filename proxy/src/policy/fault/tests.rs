use http::Method;

use super::*;
use crate::ir::filters::{FaultAbort, FaultDelay, FaultRate};

const ALL: Fraction = Fraction { numerator: 100, denominator: 100 };
const NONE: Fraction = Fraction { numerator: 0, denominator: 100 };

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs.iter().map(|(n, v)| (http::HeaderName::from_static(n), http::HeaderValue::from_static(v))).collect()
}

fn abort(kind: AbortKind, percentage: Fraction) -> Fault {
    Fault { abort: Some(FaultAbort { kind, percentage, body: "".into() }), ..Fault::default() }
}

#[test]
fn shares_are_exact_over_all_draws() {
    let tenth = Fraction { numerator: 1000, denominator: 10_000 };
    let delay = FaultDelay { duration: Some(Duration::from_secs(1)), percentage: tenth };
    let fault = Fault { delay: Some(delay), ..abort(AbortKind::Http(StatusCode::IM_A_TEAPOT), NONE) };
    let none = HeaderMap::new();
    let hit =
        (0..10_000).filter(|draw| inject(&fault, &none, Draws { delay: *draw, ..Draws::default() }).delay.is_some());
    assert_eq!(hit.count(), 1000);
    assert_eq!(inject(&fault, &none, Draws::default()).abort, None, "nothing is nothing even for the lowest draw");
    assert_eq!(inject(&Fault::default(), &none, Draws::default()), Injected::default());
}

#[test]
fn headers_ask_and_may_lower_the_share() {
    let by_header = Fault {
        delay: Some(FaultDelay { duration: None, percentage: ALL }),
        rate_limit: Some(FaultRate { kbps: None, percentage: ALL }),
        ..abort(AbortKind::Header, Fraction { numerator: 50, denominator: 100 })
    };
    assert_eq!(inject(&by_header, &HeaderMap::new(), Draws::default()), Injected::default());
    let asked = headers(&[(DELAY, "20"), (ABORT, "418"), (RATE, "7")]);
    let injected = inject(&by_header, &asked, Draws::default());
    let abort = Some(Abort::Http(StatusCode::IM_A_TEAPOT));
    assert_eq!(injected, Injected { delay: Some(Duration::from_millis(20)), abort, kbps: Some(7) });
    let draw = |draw| Draws { delay: draw, abort: draw, rate: draw };
    let more = headers(&[(ABORT, "418"), (ABORT_PERCENTAGE, "100")]);
    assert_eq!(inject(&by_header, &more, draw(50)).abort, None, "a header never raises the share");
    let less = headers(&[(DELAY, "20"), (DELAY_PERCENTAGE, "10"), (RATE, "7"), (RATE_PERCENTAGE, "10")]);
    assert!(inject(&by_header, &less, draw(9)).delay.is_some());
    assert_eq!(inject(&by_header, &less, draw(10)), Injected::default());
    // What is fixed does not listen to headers.
    let fixed = super::tests::abort(AbortKind::Http(StatusCode::BAD_GATEWAY), ALL);
    assert!(inject(&fixed, &headers(&[(ABORT, "418"), (ABORT_PERCENTAGE, "0")]), draw(99)).abort.is_some());
}

#[test]
fn hostile_headers_ask_for_nothing() {
    let by_header = Fault {
        delay: Some(FaultDelay { duration: None, percentage: ALL }),
        rate_limit: Some(FaultRate { kbps: None, percentage: ALL }),
        ..abort(AbortKind::Header, ALL)
    };
    for value in ["", "-1", "x", "99999999999999999999", "0"] {
        let asked = headers(&[(DELAY, value), (ABORT, value), (RATE, value)]);
        assert_eq!(inject(&by_header, &asked, Draws::default()), Injected::default(), "{value}");
    }
    for code in ["199", "600", "1000"] {
        assert_eq!(inject(&by_header, &headers(&[(ABORT, code)]), Draws::default()).abort, None, "{code}");
    }
    let long = inject(&by_header, &headers(&[(DELAY, "18446744073709551615")]), Draws::default());
    assert_eq!(long.delay, Some(LONGEST_DELAY));
    let grpc = inject(&by_header, &headers(&[(ABORT_GRPC, "14")]), Draws::default());
    assert_eq!(grpc.abort, Some(Abort::Grpc(14)));
}

#[test]
fn a_fault_concerns_cluster_nodes_and_headers_together() {
    let fault = Fault {
        upstream_cluster: Some("c".into()),
        downstream_nodes: vec!["n1".into(), "n2".into()],
        headers: vec![crate::ir::matcher::HeaderMatcher {
            name: ":path".into(),
            rule: crate::ir::matcher::HeaderRule::Value(crate::ir::matcher::StringMatcher::exact("/p")),
            invert: false,
            treat_missing_as_empty: false,
        }],
        ..Fault::default()
    };
    let ask = |path, cluster, node: &'static str| {
        let headers = headers(&[(NODE, node)]);
        let facts = RequestFacts {
            authority: "h",
            path,
            method: &Method::GET,
            scheme: "http",
            headers: &headers,
            certificate: Default::default(),
            random: 0,
        };
        concerns(&fault, &facts, cluster)
    };
    assert!(ask("/p", Some("c"), "n2"));
    assert!(!ask("/q", Some("c"), "n2") && !ask("/p", Some("d"), "n2") && !ask("/p", Some("c"), "n3"));
    assert!(!ask("/p", None, "n1"));
}

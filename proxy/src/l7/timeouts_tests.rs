use super::*;
use crate::ir::route::StreamDuration;
use crate::l7::server::tests_support::{forward, hcm};

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
}

#[test]
fn grpc_timeouts_are_read() {
    for (text, expected) in [
        ("1S", Some(Duration::from_secs(1))),
        ("99999999m", Some(Duration::from_millis(99_999_999))),
        ("5u", Some(Duration::from_micros(5))),
        ("2H", Some(Duration::from_secs(7200))),
        ("100000000m", None),
        ("m", None),
        ("", None),
        ("5", None),
        ("-5S", None),
        ("5é", None),
    ] {
        assert_eq!(parse_grpc_timeout(text), expected, "{text:?}");
    }
}

/// What a route, as `change` makes it, and a request's headers come to.
fn timeouts(change: impl FnOnce(&mut Forward), given: &[(&'static str, &'static str)], grpc: bool) -> Timeouts {
    let mut route = forward();
    change(&mut route);
    let (hcm, retry) = (hcm(), route.retry.clone());
    let sources =
        Sources { hcm: &hcm, route: &route, retry: retry.as_deref(), router: None, upstream: None, steered: true };
    Timeouts::new(sources, &headers(given), grpc)
}

const fn secs(n: u64) -> Option<Duration> {
    Some(Duration::from_secs(n))
}

const fn millis(n: u64) -> Option<Duration> {
    Some(Duration::from_millis(n))
}

#[test]
fn which_timeout_applies() {
    // route, max_grpc_timeout, its offset, headers, grpc, expected
    for (route, max, offset, given, grpc, expected) in [
        (secs(15), None, None, &[][..], false, secs(15)),
        (secs(15), None, None, &[("x-envoy-upstream-rq-timeout-ms", "2000")], false, secs(2)),
        (secs(15), None, None, &[("x-envoy-upstream-rq-timeout-ms", "0")], false, None),
        (secs(15), None, None, &[("x-envoy-upstream-rq-timeout-ms", "junk")], false, secs(15)),
        (secs(15), None, None, &[("grpc-timeout", "3S")], true, secs(15)),
        (secs(15), Some(None), None, &[("grpc-timeout", "3S")], true, secs(3)),
        (secs(15), Some(None), None, &[], true, None),
        (secs(15), Some(secs(2)), None, &[("grpc-timeout", "3S")], true, secs(2)),
        (secs(15), Some(secs(2)), None, &[], true, secs(2)),
        (secs(15), Some(secs(2)), None, &[("grpc-timeout", "3S")], false, secs(15)),
        (secs(5), Some(secs(2)), millis(100), &[("grpc-timeout", "500m")], true, millis(400)),
        (secs(5), Some(secs(2)), millis(100), &[("grpc-timeout", "50m")], true, millis(50)),
        (secs(5), Some(secs(2)), millis(100), &[("grpc-timeout", "0m")], true, secs(2)),
    ] {
        let change = |f: &mut Forward| {
            (f.timeout, f.grpc_timeout_max, f.grpc_timeout_offset) = (route, max, offset.unwrap_or_default());
        };
        assert_eq!(timeouts(change, given, grpc).response, expected, "{given:?} grpc={grpc}");
    }
}

#[test]
fn a_limit_on_streams_takes_the_place_of_the_timeout() {
    let limit = |max, grpc_max, offset: Option<Duration>, given: &[(&'static str, &'static str)]| {
        let stream = StreamDuration { max, grpc_max, grpc_offset: offset.unwrap_or_default() };
        let found = timeouts(|f| f.stream = Some(Box::new(stream)), given, false);
        assert_eq!(found.response, None);
        found.stream
    };
    assert_eq!(limit(Some(secs(1)), None, None, &[]), secs(1));
    assert_eq!(limit(Some(None), None, None, &[]), None, "explicitly none");
    let asked = &[("grpc-timeout", "500m")][..];
    assert_eq!(limit(Some(secs(1)), None, None, asked), secs(1), "the header is not looked at");
    assert_eq!(limit(Some(secs(1)), Some(secs(5)), millis(100), asked), millis(400));
    assert_eq!(limit(Some(secs(1)), Some(secs(5)), millis(100), &[("grpc-timeout", "100S")]), millis(4900));
    assert_eq!(limit(Some(secs(1)), Some(None), None, &[("grpc-timeout", "100S")]), secs(100));
    assert_eq!(limit(None, Some(None), millis(600), asked), Some(Duration::ZERO), "out of time at once");
    assert_eq!(limit(Some(secs(1)), Some(secs(5)), millis(100), &[]), secs(1), "nothing was asked for");
    let steered = &[("x-envoy-upstream-rq-timeout-ms", "70")][..];
    assert_eq!(timeouts(|f| f.stream = Some(Box::default()), steered, false).response, millis(70));
}

#[test]
fn the_upstream_is_told_how_long_is_left() {
    let told = |timeouts: &Timeouts, elapsed: u64, hedged, grpc| {
        let mut map = HeaderMap::new();
        let audience = Audience { envoy_headers: true, hedged, grpc };
        timeouts.announce(&mut map, Duration::from_millis(elapsed), &audience);
        let text = |name| map.get(name).map(|v: &HeaderValue| v.to_str().unwrap().to_owned()).unwrap_or_default();
        (text("x-envoy-expected-rq-timeout-ms"), text("grpc-timeout"))
    };
    let both = Timeouts { response: millis(1000), per_try: millis(300), ..Timeouts::default() };
    let pair = |expected: &str, grpc: &str| (expected.to_owned(), grpc.to_owned());
    assert_eq!(told(&both, 0, false, GrpcTimeout::Untouched), pair("300", ""));
    assert_eq!(told(&both, 800, false, GrpcTimeout::Response), pair("200", "200m"));
    assert_eq!(told(&both, 5000, false, GrpcTimeout::Untouched), pair("1", ""), "nothing would mean no limit");
    assert_eq!(told(&both, 200, true, GrpcTimeout::Untouched), pair("800", ""), "a hedged try goes on");
    let stream = Timeouts { stream: Some(Duration::from_secs(200_000)), ..Timeouts::default() };
    assert_eq!(told(&stream, 0, false, GrpcTimeout::Stream), pair("", "200000S"));
    assert_eq!(told(&Timeouts::default(), 0, false, GrpcTimeout::Stream), pair("", ""));
}

#[test]
fn a_per_try_timeout_beyond_the_whole_is_none() {
    let per_try = |ms, whole: Option<Duration>, given: &[(&'static str, &'static str)]| {
        let policy = RetryPolicy { per_try_timeout: millis(ms), ..RetryPolicy::default() };
        timeouts(|f| (f.timeout, f.retry) = (whole, Some(policy.into())), given, false).per_try
    };
    assert_eq!(per_try(50, millis(100), &[]), millis(50));
    assert_eq!(per_try(100, millis(100), &[]), None);
    assert_eq!(per_try(100, None, &[]), millis(100));
    let header = |value| [("x-envoy-upstream-rq-per-try-timeout-ms", value)];
    assert_eq!(per_try(50, millis(100), &header("20")), millis(20));
    assert_eq!(per_try(50, millis(100), &header("0")), None);
    assert_eq!(timeouts(|f| f.timeout = None, &header("20"), false).per_try, millis(20), "without any policy");
}

#[test]
fn the_cluster_or_the_request_limits_its_stream() {
    let upstream = |configured, given: &[(&'static str, &'static str)]| {
        let (hcm, route) = (hcm(), forward());
        let sources =
            Sources { hcm: &hcm, route: &route, retry: None, router: None, upstream: configured, steered: true };
        Timeouts::new(sources, &headers(given), false).upstream
    };
    let header = |value| [("x-envoy-upstream-stream-duration-ms", value)];
    assert_eq!(upstream(None, &[]), None);
    assert_eq!(upstream(secs(1), &[]), secs(1));
    assert_eq!(upstream(secs(1), &header("20")), millis(20));
    assert_eq!(upstream(secs(1), &header("0")), None);
    assert_eq!(upstream(secs(1), &header("x")), secs(1));
}

#[test]
fn the_proxy_before_is_respected_where_configured() {
    let response = |respect| {
        let router = Router { respect_expected_rq_timeout: respect, ..Router::default() };
        let map = headers(&[("x-envoy-expected-rq-timeout-ms", "700"), ("x-envoy-upstream-rq-timeout-ms", "900")]);
        let (hcm, route) = (hcm(), forward());
        let sources =
            Sources { hcm: &hcm, route: &route, retry: None, router: Some(&router), upstream: None, steered: true };
        Timeouts::new(sources, &map, false).response
    };
    assert_eq!(response(true), Some(Duration::from_millis(700)));
    assert_eq!(response(false), Some(Duration::from_millis(900)));
}

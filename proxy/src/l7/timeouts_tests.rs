use super::*;
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

#[test]
fn which_timeout_applies() {
    let secs = |n| Some(Duration::from_secs(n));
    // route, grpc_timeout_max, headers, grpc, expected
    for (route, max, given, grpc, expected) in [
        (secs(15), None, &[][..], false, secs(15)),
        (secs(15), None, &[("x-envoy-upstream-rq-timeout-ms", "2000")], false, secs(2)),
        (secs(15), None, &[("x-envoy-upstream-rq-timeout-ms", "0")], false, None),
        (secs(15), None, &[("x-envoy-upstream-rq-timeout-ms", "junk")], false, secs(15)),
        (secs(15), None, &[("grpc-timeout", "3S")], true, secs(15)),
        (secs(15), Some(None), &[("grpc-timeout", "3S")], true, secs(3)),
        (secs(15), Some(None), &[], true, None),
        (secs(15), Some(secs(2)), &[("grpc-timeout", "3S")], true, secs(2)),
        (secs(15), Some(secs(2)), &[], true, secs(2)),
        (secs(15), Some(secs(2)), &[("grpc-timeout", "3S")], false, secs(15)),
    ] {
        let mut route_action = forward();
        route_action.timeout = route;
        route_action.grpc_timeout_max = max;
        let mut map = headers(given);
        let timeouts = Timeouts::new(&hcm(), &route_action, None, (&map, grpc), None);
        assert_eq!(timeouts.response, expected, "{given:?} grpc={grpc}");
        timeouts.announce(&route_action, (&mut map, grpc), true);
        let announced = map.get("x-envoy-expected-rq-timeout-ms").map(|v| v.to_str().unwrap().to_owned());
        assert_eq!(announced, expected.map(|t| t.as_millis().to_string()));
    }
}

#[test]
fn a_per_try_timeout_beyond_the_whole_is_none() {
    let rules = |ms| Rules { per_try_timeout: Some(Duration::from_millis(ms)), ..Rules::default() };
    let mut route = forward();
    route.timeout = Some(Duration::from_millis(100));
    let per_try =
        |ms, route: &Forward| Timeouts::new(&hcm(), route, Some(&rules(ms)), (&HeaderMap::new(), false), None).per_try;
    assert_eq!(per_try(50, &route), Some(Duration::from_millis(50)));
    assert_eq!(per_try(100, &route), None);
    route.timeout = None;
    assert_eq!(per_try(100, &route), Some(Duration::from_millis(100)));
}

#[test]
fn the_proxy_before_is_respected_where_configured() {
    let response = |respect| {
        let router = Router { respect_expected_rq_timeout: respect, ..Router::default() };
        let map = headers(&[("x-envoy-expected-rq-timeout-ms", "700"), ("x-envoy-upstream-rq-timeout-ms", "900")]);
        Timeouts::new(&hcm(), &forward(), None, (&map, false), Some(&router)).response
    };
    assert_eq!(response(true), Some(Duration::from_millis(700)));
    assert_eq!(response(false), Some(Duration::from_millis(900)));
}

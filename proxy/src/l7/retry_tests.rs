use super::*;
use Failure::*;
use Verdict::*;

fn rules(on: &str) -> Rules {
    Rules { on: RetryOn::parse(on).0, max_retries: 2, status: vec![418], ..Rules::default() }
}

fn request(method: &Method, replayable: bool, has_body: bool) -> super::Request<'_> {
    super::Request { method, replayable, has_body }
}

#[test]
fn what_never_happened_is_replayed_without_a_policy() {
    let (get, post) = (Method::GET, Method::POST);
    let replay =
        |failure, request: &super::Request<'_>, done| decide(None, None, request, &Outcome::Failed(failure), (done, 0));
    assert_eq!(replay(Unsent, &request(&post, true, true), 0), Replay);
    assert_eq!(replay(Refused, &request(&post, true, true), 0), Replay);
    assert_eq!(replay(Refused, &request(&post, false, true), 0), GiveUp);
    assert_eq!(replay(Reset { reused: true }, &request(&get, true, false), 0), Replay);
    for (failure, request) in [
        (Reset { reused: true }, request(&post, true, false)),
        (Reset { reused: true }, request(&Method::PUT, true, true)),
        (Reset { reused: false }, request(&get, true, false)),
        (Connect, request(&get, true, false)),
        (PerTryTimeout, request(&get, true, false)),
        (Overflow, request(&get, true, false)),
    ] {
        assert_eq!(replay(failure, &request, 0), GiveUp, "{failure:?} {request:?}");
    }
    assert_eq!(replay(Unsent, &request(&get, true, false), MAX_REPLAYS), GiveUp, "bounded");
}

#[test]
fn policies_name_their_conditions() {
    let post = Method::POST;
    let request = request(&post, true, true);
    let failed = |on: &str, failure| decide(Some(&rules(on)), None, &request, &Outcome::Failed(failure), (3, 0));
    for (on, failure, expected) in [
        ("connect-failure", Connect, Retry),
        ("connect-failure", Reset { reused: false }, GiveUp),
        ("refused-stream", Refused, Retry),
        ("refused-stream", Connect, GiveUp),
        ("reset", Reset { reused: false }, Retry),
        ("reset-before-request", Unsent, Retry),
        ("reset-before-request", Reset { reused: true }, GiveUp),
        ("5xx", PerTryTimeout, Retry),
        ("gateway-error", Connect, Retry),
        ("retriable-4xx", Connect, GiveUp),
        ("5xx,reset,connect-failure", Overflow, GiveUp),
    ] {
        assert_eq!(failed(on, failure), expected, "{on} {failure:?}");
    }
    let answered = |on: &str, status: u16, extra: &[(&'static str, &'static str)]| {
        let headers = extra
            .iter()
            .map(|(n, v)| (http::HeaderName::from_static(n), http::HeaderValue::from_static(v)))
            .collect::<HeaderMap>();
        let outcome = Outcome::Response { status: StatusCode::from_u16(status).unwrap(), headers: &headers };
        decide(Some(&rules(on)), None, &request, &outcome, (0, 0))
    };
    for (on, status, extra, expected) in [
        ("5xx", 500, &[][..], Retry),
        ("5xx", 404, &[], GiveUp),
        ("gateway-error", 500, &[], GiveUp),
        ("gateway-error", 503, &[], Retry),
        ("retriable-4xx", 409, &[], Retry),
        ("retriable-status-codes", 418, &[], Retry),
        ("retriable-status-codes", 500, &[], GiveUp),
        ("unavailable", 200, &[("grpc-status", "14")], Retry),
        ("unavailable", 200, &[("grpc-status", "13")], GiveUp),
        ("cancelled,internal", 200, &[("grpc-status", "13")], Retry),
        ("deadline-exceeded", 200, &[("grpc-status", "4")], Retry),
        ("resource-exhausted", 200, &[("grpc-status", "8")], Retry),
        ("5xx", 503, &[("x-envoy-overloaded", "true")], GiveUp),
        ("5xx", 503, &[("x-envoy-ratelimited", "true")], GiveUp),
        ("envoy-ratelimited", 429, &[("x-envoy-ratelimited", "true")], Retry),
    ] {
        assert_eq!(answered(on, status, extra), expected, "{on} {status} {extra:?}");
    }
}

#[test]
fn limits_hold() {
    let post = Method::POST;
    let outcome = Outcome::Failed(Connect);
    let rules = rules("connect-failure");
    let whole = request(&post, true, true);
    assert_eq!(decide(Some(&rules), None, &whole, &outcome, (0, 2)), LimitExceeded);
    assert_eq!(decide(Some(&rules), None, &request(&post, false, true), &outcome, (0, 0)), GiveUp);
}

#[test]
fn headers_add_to_the_policy() {
    let mut headers = HeaderMap::new();
    assert_eq!(Rules::new(None, Some(&headers)), None);
    headers.insert("x-envoy-retry-on", "5xx,nonsense".parse().unwrap());
    headers.insert("x-envoy-max-retries", "7".parse().unwrap());
    headers.insert("x-envoy-retriable-status-codes", "418, 429,x".parse().unwrap());
    headers.insert("x-envoy-upstream-rq-per-try-timeout-ms", "20".parse().unwrap());
    let rules = Rules::new(None, Some(&headers)).unwrap();
    assert!(rules.on.contains(RetryOn::SERVER_ERROR));
    assert_eq!((rules.max_retries, rules.status.as_slice()), (7, &[418, 429][..]));
    assert_eq!(rules.per_try_timeout, Some(Duration::from_millis(20)));
    assert_eq!(Rules::new(None, None), None, "suppressed");
}

#[test]
fn backoff_grows_within_its_ceiling() {
    let rules = Rules { base: Duration::from_millis(25), max: Duration::from_millis(250), ..Rules::default() };
    for (retry, ceiling) in [(1, 25), (2, 75), (3, 175), (4, 250), (60, 250)] {
        let draws = (0..200).map(|i| backoff(&rules, retry, i * 7_919_391)).max().unwrap();
        assert!(draws < Duration::from_millis(ceiling), "{retry}: {draws:?}");
        assert!(draws > Duration::from_millis(ceiling) / 2, "{retry}: {draws:?}");
    }
    assert_eq!(backoff(&Rules::default(), 1, 99), Duration::ZERO);
}

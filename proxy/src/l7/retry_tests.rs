use super::*;
use Failure::*;
use Verdict::*;

fn policy(on: &str) -> RetryPolicy {
    RetryPolicy { on: RetryOn::parse(on).0, max_retries: 2, retriable_status: vec![418], ..RetryPolicy::default() }
}

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let pair = |(n, v): &(&'static str, &'static str)| (HeaderName::from_static(n), http::HeaderValue::from_static(v));
    pairs.iter().map(pair).collect()
}

/// Rules of a policy alone.
fn rules(policy: &RetryPolicy) -> Option<Rules<'_>> {
    Rules::new(Some(policy), &HeaderMap::new(), false, |_| true)
}

fn request(method: &Method, replayable: bool, has_body: bool) -> super::Request<'_> {
    super::Request { method, replayable, has_body, age: Duration::from_millis(1) }
}

#[test]
fn what_never_happened_is_replayed_without_a_policy() {
    let (get, post) = (Method::GET, Method::POST);
    let replay =
        |failure, request: &super::Request<'_>, done| decide(None, request, &Outcome::Failed(failure), (done, 0));
    assert_eq!(replay(Unsent, &request(&post, true, true), 0), Replay);
    assert_eq!(replay(Refused, &request(&post, true, true), 0), Replay);
    assert_eq!(replay(Refused, &request(&post, false, true), 0), Enough);
    let young = request(&get, true, false);
    assert_eq!(replay(Reset { reused: true }, &young, 0), ReplayOnce);
    assert_eq!(replay(Reset { reused: true }, &young, 1), Enough, "what killed one may kill all");
    let old = super::Request { age: IDLE_RACE, ..young };
    assert_eq!(replay(Reset { reused: true }, &old, 0), Enough, "the application has had it");
    for (failure, request) in [
        (Reset { reused: true }, request(&post, true, false)),
        (Reset { reused: true }, request(&Method::PUT, true, true)),
        (Reset { reused: false }, request(&get, true, false)),
        (Connect, request(&get, true, false)),
        (TryTimeout, request(&get, true, false)),
        (Overflow, request(&get, true, false)),
    ] {
        assert_eq!(replay(failure, &request, 0), Enough, "{failure:?} {request:?}");
    }
    assert_eq!(replay(Unsent, &request(&get, true, false), MAX_REPLAYS), Enough, "bounded");
}

#[test]
fn policies_name_their_conditions() {
    let post = Method::POST;
    let request = request(&post, true, true);
    let failed = |on: &str, failure| decide(rules(&policy(on)).as_ref(), &request, &Outcome::Failed(failure), (3, 0));
    for (on, failure, expected) in [
        ("connect-failure", Connect, Retry),
        ("connect-failure", Reset { reused: false }, Enough),
        ("refused-stream", Refused, Retry),
        ("refused-stream", Connect, Enough),
        ("reset", Reset { reused: false }, Retry),
        ("reset-before-request", Unsent, Retry),
        ("reset-before-request", Reset { reused: true }, Enough),
        ("5xx", TryTimeout, Retry),
        ("gateway-error", Connect, Retry),
        ("retriable-4xx", Connect, Enough),
        ("5xx,reset,connect-failure", Overflow, Enough),
    ] {
        assert_eq!(failed(on, failure), expected, "{on} {failure:?}");
    }
    let answered = |on: &str, status: u16, extra: &[(&'static str, &'static str)]| {
        let headers = headers(extra);
        let outcome = Outcome::Response { status: StatusCode::from_u16(status).unwrap(), headers: &headers };
        decide(rules(&policy(on)).as_ref(), &request, &outcome, (0, 0))
    };
    for (on, status, extra, expected) in [
        ("5xx", 500, &[][..], Retry),
        ("5xx", 404, &[], Enough),
        ("gateway-error", 500, &[], Enough),
        ("gateway-error", 503, &[], Retry),
        ("retriable-4xx", 409, &[], Retry),
        ("retriable-status-codes", 418, &[], Retry),
        ("retriable-status-codes", 500, &[], Enough),
        ("unavailable", 200, &[("grpc-status", "14")], Retry),
        ("unavailable", 200, &[("grpc-status", "13")], Enough),
        ("cancelled,internal", 200, &[("grpc-status", "13")], Retry),
        ("deadline-exceeded", 200, &[("grpc-status", "4")], Retry),
        ("resource-exhausted", 200, &[("grpc-status", "8")], Retry),
        ("5xx", 503, &[("x-envoy-overloaded", "true")], Retry),
        ("5xx", 503, &[("x-envoy-ratelimited", "true")], Enough),
        ("envoy-ratelimited", 429, &[("x-envoy-ratelimited", "true")], Retry),
    ] {
        assert_eq!(answered(on, status, extra), expected, "{on} {status} {extra:?}");
    }
}

#[test]
fn limits_hold() {
    let post = Method::POST;
    let outcome = Outcome::Failed(Connect);
    let policy = policy("connect-failure");
    let rules = rules(&policy);
    let whole = request(&post, true, true);
    assert_eq!(decide(rules.as_ref(), &whole, &outcome, (0, 1)), Retry);
    assert_eq!(decide(rules.as_ref(), &whole, &outcome, (0, 2)), LimitExceeded);
    assert_eq!(decide(rules.as_ref(), &request(&post, false, true), &outcome, (0, 0)), Unable);
}

#[test]
fn headers_add_to_the_policy() {
    let asked = headers(&[
        ("x-envoy-retry-on", "5xx,nonsense,unavailable"),
        ("x-envoy-retry-grpc-on", "cancelled,reset"),
        ("x-envoy-max-retries", "7"),
        ("x-envoy-retriable-status-codes", "418, 429,x"),
        ("x-envoy-retriable-header-names", "x-a, X-B,no name"),
    ]);
    assert_eq!(Rules::new(None, &HeaderMap::new(), true, |_| true), None);
    assert_eq!(Rules::new(None, &asked, false, |_| true), None, "nothing that steers was seen");
    let rules = Rules::new(None, &asked, true, |_| true).unwrap();
    assert_eq!(rules.on, RetryOn::SERVER_ERROR.union(RetryOn::GRPC_CANCELLED), "each list has its own names");
    assert_eq!((rules.max_retries, rules.status.as_slice()), (7, &[418, 429][..]));
    assert_eq!(rules.headers, ["x-a", "x-b"]);
    let configured = RetryPolicy { on: RetryOn::RESET, max_retries: 0, ..RetryPolicy::default() };
    let rules = Rules::new(Some(&configured), &headers(&[("x-envoy-retry-on", "5xx")]), true, |_| true).unwrap();
    assert_eq!((rules.on, rules.max_retries), (RetryOn::RESET.union(RetryOn::SERVER_ERROR), 0));
    let huge = headers(&[("x-envoy-max-retries", "99999999999999999999"), ("x-envoy-retry-on", "5xx")]);
    assert_eq!(Rules::new(None, &huge, true, |_| true).unwrap().max_retries, 1, "what is no number does not count");
}

#[test]
fn listed_codes_and_headers_need_their_condition() {
    let wants = |on: &'static str, status: u16| {
        let asked = headers(&[
            ("x-envoy-retry-on", on),
            ("x-envoy-retriable-status-codes", "418"),
            ("x-envoy-retriable-header-names", "x-again"),
        ]);
        let given = headers(&[("x-again", "1")]);
        let outcome = Outcome::Response { status: StatusCode::from_u16(status).unwrap(), headers: &given };
        Rules::new(None, &asked, true, |_| true).is_some_and(|rules| rules.wants(&outcome))
    };
    assert!(wants("retriable-headers", 200));
    assert!(wants("retriable-status-codes", 418));
    assert!(!wants("retriable-status-codes", 200) && !wants("5xx", 418));
}

#[test]
fn a_request_can_be_excluded_from_retries() {
    let only = HeaderMatcher {
        name: ":method".into(),
        rule: crate::ir::matcher::HeaderRule::Present(true),
        invert: false,
        treat_missing_as_empty: false,
    };
    let policy = RetryPolicy { retriable_request_headers: vec![only.clone()], ..policy("5xx") };
    let asked = headers(&[("x-envoy-retry-on", "reset")]);
    let rules = |matched| {
        Rules::new(Some(&policy), &asked, true, |matchers| {
            assert_eq!(matchers, std::slice::from_ref(&only));
            matched
        })
    };
    assert!(rules(true).is_some());
    assert_eq!(rules(false), None, "it holds for what the request asks for too");
}

#[test]
fn hosts_are_omitted_by_their_metadata() {
    let metadata = |json: serde_json::Value| -> Metadata {
        [("envoy.lb".to_owned(), json.as_object().unwrap().clone())].into_iter().collect()
    };
    let host = metadata(serde_json::json!({"canary": true, "stage": ["a", "b"], "n": 1}));
    let canary = RetryPolicy { omit_canary: true, ..RetryPolicy::default() };
    assert!(is_omitted(&canary, Some(&host)) && !is_omitted(&canary, None));
    for (wanted, omitted) in [
        (serde_json::json!({"stage": "b", "n": 1}), true),
        (serde_json::json!({"stage": "c"}), false),
        (serde_json::json!({"n": 1, "other": 2}), false),
        (serde_json::json!({}), false),
    ] {
        let policy = RetryPolicy { omit_metadata: vec![metadata(wanted.clone()).into()], ..RetryPolicy::default() };
        assert_eq!(is_omitted(&policy, Some(&host)), omitted, "{wanted}");
    }
}

#[test]
fn backoff_grows_within_its_ceiling() {
    let policy = RetryPolicy::default();
    for (retry, ceiling) in [(1, 25), (2, 75), (3, 175), (4, 250), (60, 250)] {
        let draws = (0..200).map(|i| backoff(&policy, retry, i * 7_919_391)).max().unwrap();
        assert!(draws < Duration::from_millis(ceiling), "{retry}: {draws:?}");
        assert!(draws > Duration::from_millis(ceiling) / 2, "{retry}: {draws:?}");
    }
    let none = RetryPolicy { backoff_base: Duration::ZERO, backoff_max: Duration::ZERO, ..RetryPolicy::default() };
    assert_eq!(backoff(&none, 1, 99), Duration::ZERO);
}

#[test]
fn upstreams_say_when_to_come_back() {
    let reset = |name, unix_time| crate::ir::route::ResetHeader { name: HeaderName::from_static(name), unix_time };
    let policy = RetryPolicy {
        reset_headers: vec![reset("retry-after", false), reset("x-ratelimit-reset", true)],
        reset_max: Duration::from_secs(10),
        ..RetryPolicy::default()
    };
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_500);
    for (given, expected) in [
        (&[("retry-after", "4")][..], Some(4)),
        (&[("retry-after", "10")], Some(10)),
        (&[("retry-after", "11")], None),
        (&[("retry-after", "0")], None),
        (&[("retry-after", "-1")], None),
        (&[("retry-after", "Fri, 20 Nov 2026 10:00:00 GMT")], None),
        (&[("retry-after", "18446744073709551615")], None),
        (&[("x-ratelimit-reset", "1003")], Some(3)),
        (&[("x-ratelimit-reset", "999")], None),
        (&[("retry-after", "600"), ("x-ratelimit-reset", "1002")], Some(2)),
        (&[], None),
    ] {
        let map = headers(given);
        for random in [0, 1, u64::MAX, 0x1234_5678_9abc_def0] {
            match (wait(&policy, 1, Some(&map), now, random), expected) {
                (Wait::RateLimited(wait), Some(seconds)) => {
                    let asked = Duration::from_secs(seconds);
                    assert!(wait >= asked && wait < asked * 3 / 2, "{given:?}: {wait:?}");
                }
                (Wait::Exponential(wait), None) => assert!(wait < Duration::from_millis(25)),
                other => panic!("{given:?}: {other:?}"),
            }
        }
    }
}

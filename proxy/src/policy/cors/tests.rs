use super::*;
use crate::ir::{
    Fraction,
    matcher::{Pattern, StringMatcher},
};

const ALL: Fraction = Fraction { numerator: 100, denominator: 100 };
const NONE: Fraction = Fraction { numerator: 0, denominator: 100 };

fn empty() -> Cors {
    Cors {
        allow_origins: Vec::new(),
        allow_methods: None,
        allow_headers: None,
        expose_headers: None,
        max_age: None,
        allow_credentials: None,
        allow_private_network: None,
        forward_not_matching_preflights: None,
        enabled: ALL,
        shadow: None,
    }
}

fn policy() -> Cors {
    let value = |text| Some(HeaderValue::from_static(text));
    Cors {
        allow_origins: vec![StringMatcher::exact("http://a")],
        allow_methods: value("GET,POST"),
        allow_headers: value("x-a"),
        expose_headers: value("x-e"),
        max_age: value("5"),
        allow_credentials: Some(true),
        ..empty()
    }
}

fn ask(policies: &[&Cors], method: Method, pairs: &[(&'static str, &'static str)]) -> Verdict {
    let headers =
        pairs.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect::<HeaderMap>();
    decide(&policies.iter().copied().collect(), &method, &headers, Draws::default())
}

fn text(headers: &HeaderMap) -> Vec<String> {
    let mut all: Vec<_> = headers.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
    all.sort();
    all
}

#[test]
fn a_preflight_is_answered() {
    let ask_method = ("access-control-request-method", "PUT");
    let Verdict::Preflight { valid: true, answer } =
        ask(&[&policy()], Method::OPTIONS, &[("origin", "http://a"), ask_method])
    else {
        panic!("not answered")
    };
    assert_eq!(
        text(&answer),
        [
            "access-control-allow-credentials: true",
            "access-control-allow-headers: x-a",
            "access-control-allow-methods: GET,POST",
            "access-control-allow-origin: http://a",
            "access-control-expose-headers: x-e",
            "access-control-max-age: 5",
        ]
    );
    // A foreign origin's goes on to the upstream, unless configured otherwise; then it is told nothing about origins.
    let foreign = [("origin", "http://b"), ask_method];
    assert_eq!(ask(&[&policy()], Method::OPTIONS, &foreign), Verdict::Simple { grant: None });
    let strict = Cors { forward_not_matching_preflights: Some(false), ..policy() };
    let Verdict::Preflight { valid: false, answer } = ask(&[&strict], Method::OPTIONS, &foreign) else { panic!() };
    assert!(!answer.contains_key("access-control-allow-origin") && answer.contains_key("access-control-allow-methods"));
    // Without a method asked for, or with another method, it is no preflight.
    assert!(matches!(ask(&[&policy()], Method::OPTIONS, &foreign[..1]), Verdict::Simple { .. }));
    assert!(matches!(ask(&[&policy()], Method::GET, &foreign), Verdict::Simple { .. }));
}

#[test]
fn stars_echo_what_was_asked_and_private_networks_are_granted() {
    let star = HeaderValue::from_static("*");
    let open = Cors {
        allow_origins: vec![StringMatcher::exact("*")],
        allow_methods: Some(star.clone()),
        allow_headers: Some(star),
        allow_private_network: Some(true),
        ..empty()
    };
    let asked = [
        ("origin", "null"),
        ("access-control-request-method", "PATCH"),
        ("access-control-request-headers", "x-q"),
        ("access-control-request-private-network", "true"),
    ];
    let Verdict::Preflight { valid: true, answer } = ask(&[&open], Method::OPTIONS, &asked) else { panic!() };
    assert_eq!(
        text(&answer),
        [
            "access-control-allow-headers: x-q",
            "access-control-allow-methods: PATCH",
            "access-control-allow-origin: null",
            "access-control-allow-private-network: true",
        ]
    );
}

#[test]
fn fields_come_from_the_first_level_that_sets_them_and_shares_from_the_first() {
    let route = Cors { max_age: Some(HeaderValue::from_static("9")), allow_credentials: Some(false), ..empty() };
    let preflight = [("origin", "http://a"), ("access-control-request-method", "PUT")];
    let Verdict::Preflight { answer, .. } = ask(&[&route, &policy()], Method::OPTIONS, &preflight) else { panic!() };
    assert_eq!(answer["access-control-max-age"], "9");
    assert!(
        !answer.contains_key("access-control-allow-credentials") && answer.contains_key("access-control-allow-origin")
    );
    let off = Cors { enabled: NONE, ..policy() };
    assert_eq!(ask(&[&off, &policy()], Method::OPTIONS, &preflight), Verdict::Pass);
    let shadow = Cors { shadow: Some(ALL), ..off };
    assert_eq!(ask(&[&shadow], Method::OPTIONS, &preflight), Verdict::Counted { valid: true });
    assert_eq!(ask(&[&shadow], Method::GET, &[("origin", "http://b")]), Verdict::Counted { valid: false });
    assert_eq!(ask(&[], Method::GET, &preflight), Verdict::Pass);
    assert_eq!(ask(&[&policy()], Method::GET, &[("origin", "")]), Verdict::Pass);
}

#[test]
fn origins_match_by_pattern() {
    let suffix = StringMatcher { pattern: Pattern::Suffix(".example.org".into()), ignore_case: true };
    let policy = Cors { allow_origins: vec![suffix], ..empty() };
    let Verdict::Simple { grant: Some(grant) } = ask(&[&policy], Method::GET, &[("origin", "https://A.Example.org")])
    else {
        panic!()
    };
    assert_eq!(text(&grant), ["access-control-allow-origin: https://A.Example.org"]);
    assert_eq!(ask(&[&policy], Method::GET, &[("origin", "https://example.com")]), Verdict::Simple { grant: None });
}

use serde_json::json;

use super::*;
use crate::ir::matcher::{Pattern, StringMatcher};

fn metadata() -> Metadata {
    let json =
        json!({"a.b": {"s": "text", "n": 1.5, "t": true, "null": null, "list": ["x", 7], "deep": {"er": {"k": "v"}}}});
    serde_json::from_value(json).unwrap()
}

fn path(path: &str) -> Vec<Box<str>> {
    path.split('/').map(Box::from).collect()
}

fn matches(at: &str, value: ValueMatcher) -> bool {
    let matcher = MetadataMatcher { filter: "a.b".into(), path: path(at), value, invert: false };
    let inverted = MetadataMatcher { invert: true, ..matcher.clone() };
    assert_ne!(matcher.matches(Some(&metadata())), inverted.matches(Some(&metadata())));
    matcher.matches(Some(&metadata()))
}

#[test]
fn a_path_leads_through_structs_only() {
    let all = metadata();
    let at = |namespace, text: &str| value_at(&all, namespace, &path(text)).cloned();
    assert_eq!(at("a.b", "s"), Some(json!("text")));
    assert_eq!(at("a.b", "deep/er/k"), Some(json!("v")));
    for (namespace, text) in [("a", "s"), ("a.b", "s/x"), ("a.b", "deep/x/k"), ("a.b", "list/0"), ("a.b", "")] {
        assert_eq!(at(namespace, text), None, "{namespace} {text}");
    }
    assert_eq!(value_at(&all, "a.b", &[]), None);
}

#[test]
fn every_kind_of_value_has_its_matcher() {
    let text = |t: &str| ValueMatcher::String(StringMatcher::exact(t));
    let prefix = StringMatcher { pattern: Pattern::Prefix("te".into()), ignore_case: false };
    let range = |start, end| ValueMatcher::Double(DoubleMatcher::Range { start, end });
    for (at, matcher, wanted) in [
        ("s", text("text"), true),
        ("s", text("other"), false),
        ("s", ValueMatcher::String(prefix), true),
        ("n", text("1.5"), false),
        ("n", ValueMatcher::Double(DoubleMatcher::Exact(1.5)), true),
        ("n", range(1.5, 2.0), true),
        ("n", range(1.0, 1.5), false),
        ("s", range(f64::MIN, f64::MAX), false),
        ("t", ValueMatcher::Bool(true), true),
        ("t", ValueMatcher::Bool(false), false),
        ("none", ValueMatcher::Bool(false), false),
        ("null", ValueMatcher::Null, true),
        ("none", ValueMatcher::Null, false),
        ("null", ValueMatcher::Present(true), true),
        ("none", ValueMatcher::Present(true), false),
        ("none", ValueMatcher::Present(false), false),
        ("s", ValueMatcher::Present(false), false),
        ("list", ValueMatcher::List(Box::new(text("x"))), true),
        ("list", ValueMatcher::List(Box::new(ValueMatcher::Double(DoubleMatcher::Exact(7.0)))), true),
        ("list", ValueMatcher::List(Box::new(text("7"))), false),
        ("s", ValueMatcher::List(Box::new(text("text"))), false),
        ("s", ValueMatcher::Or(vec![ValueMatcher::Null, text("text")]), true),
        ("s", ValueMatcher::Or(vec![]), false),
        ("deep/er/k", text("v"), true),
    ] {
        assert_eq!(matches(at, matcher.clone()), wanted, "{at} {matcher:?}");
    }
}

#[test]
fn without_metadata_only_the_inverted_matches() {
    let value = ValueMatcher::Present(true);
    let mut matcher = MetadataMatcher { filter: "a".into(), path: path("b"), value, invert: false };
    assert!(!matcher.matches(None));
    matcher.invert = true;
    assert!(matcher.matches(None));
}

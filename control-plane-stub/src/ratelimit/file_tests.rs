use super::{
    file::parse,
    rate::{Algorithm, Rate, Unit},
    rules::{Found, Objects, Rules},
};
use outrigger_wire::pb::envoy::extensions::common::ratelimit::v3::{
    RateLimitDescriptor,
    rate_limit_descriptor::{Entry, RateLimitOverride},
};

const FILE: &str = "
domain: web
descriptors:
- key: remote_address
  rate_limit: {unit: second, requests_per_unit: 10}
- key: remote_address
  value: 10.0.0.9
- key: tenant
  value: gold*
  rate_limit: {unit: Minute, requests_per_unit: 300, algorithm: gcra, burst: 20, name: gold}
  descriptors:
  - key: path
    rate_limit: {unit: hour, requests_per_unit: 5}
    shadow_mode: true
- key: tenant
  value: golden
  rate_limit: {unlimited: true}
---
domain: mail
descriptors:
- key: from
  rate_limit: {unit: day, requests_per_unit: 7}
";

fn descriptor(entries: &[(&str, &str)]) -> RateLimitDescriptor {
    let entry = |(key, value): &(&str, &str)| Entry { key: (*key).to_owned(), value: (*value).to_owned() };
    RateLimitDescriptor { entries: entries.iter().map(entry).collect(), ..Default::default() }
}

fn find(domain: &str, entries: &[(&str, &str)]) -> Option<Found> {
    let (objects, domains) = (Objects::new(), parse(FILE).unwrap());
    Rules { objects: &objects, domains: &domains }.find(domain, &descriptor(entries), None).unwrap()
}

#[test]
fn exact_goes_before_prefix_before_any() {
    assert_eq!(find("web", &[("remote_address", "1.2.3.4")]).unwrap().rate.requests, 10);
    assert_eq!(find("web", &[("remote_address", "10.0.0.9")]), None, "listed without a limit");
    let gold = find("web", &[("tenant", "gold-1")]).unwrap();
    let rate = Rate { requests: 300, unit: Unit::Minute, burst: 20, algorithm: Algorithm::Gcra };
    assert_eq!((gold.rate, &*gold.rule, gold.enforced), (rate, "gold", true));
    assert_eq!(find("web", &[("tenant", "golden")]), None, "unlimited");
    assert_eq!(find("web", &[("tenant", "silver")]), None);
    assert_eq!(find("mail", &[("from", "x")]).unwrap().rate.unit, Unit::Day);
    assert_eq!(find("none", &[("from", "x")]), None);
}

#[test]
fn a_limit_holds_at_its_own_depth() {
    let path = find("web", &[("tenant", "gold-1"), ("path", "/a")]).unwrap();
    assert_eq!((path.rate.requests, path.enforced, &*path.rule), (5, false, "web.tenant_gold*.path"));
    assert_eq!(find("web", &[("tenant", "gold-1"), ("path", "/a"), ("more", "x")]), None);
    let other = find("web", &[("tenant", "gold-2"), ("path", "/a")]).unwrap();
    assert_ne!(path.key, other.key);
}

#[test]
fn a_descriptor_may_bring_its_own_limit() {
    let (objects, domains) = (Objects::new(), parse(FILE).unwrap());
    let rules = Rules { objects: &objects, domains: &domains };
    let own = |entries, requests_per_unit, unit| {
        let limit = Some(RateLimitOverride { requests_per_unit, unit });
        rules.find("web", &RateLimitDescriptor { limit, ..descriptor(entries) }, None)
    };
    let gold = own(&[("tenant", "gold-1")], 4, 3).unwrap().unwrap();
    assert_eq!((gold.rate.requests, gold.rate.unit, gold.rate.algorithm), (4, Unit::Hour, Algorithm::Gcra));
    assert_eq!(&*own(&[("unknown", "x")], 4, 1).unwrap().unwrap().rule, "override");
    assert!(own(&[("tenant", "gold-1")], 4, 0).is_err());
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    for (text, part) in [
        (
            "domain: a\ndescriptors:\n- key: k\n  rate_limit: {unit: fortnight, requests_per_unit: 1}",
            "descriptors[0].rate_limit.unit",
        ),
        ("domain: a\ndescriptors:\n- key: k\n  rate_limit: {unit: day}", "requests_per_unit: is missing"),
        ("domain: a\ndescriptors:\n- key: k\n  rate_limit: {requests_per_unit: 1}", "unit: is missing"),
        ("domain: a\ndescriptors:\n- key: k\n  ratelimit: {}", "unknown field `ratelimit`"),
        (
            "domain: a\ndescriptors:\n- key: k\n  rate_limit: {unit: day, requests_per_unit: 1, replaces: [{name: x}]}",
            "replaces",
        ),
        (
            "domain: a\ndescriptors:\n- key: k\n  rate_limit: {unit: day, requests_per_unit: 1, burst: 3}",
            "a fixed window has none",
        ),
        ("domain: a\ndescriptors:\n- {key: k, value: x}\n- {key: k, value: x}", "descriptors[1]"),
        ("domain: a\ndescriptors:\n- {key: k, value: 'x*'}\n- {key: k, value: 'x*'}", "twice"),
        ("domain: a\n---\ndomain: a", "document 2"),
        ("domain: outrigger", "not for rules files"),
        ("domain: a\ndescriptors:\n- {value: x}", "missing field `key`"),
        ("- a", "document 1"),
        ("domain: [", "not valid YAML"),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
}

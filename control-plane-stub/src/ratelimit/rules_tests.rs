use super::{
    rate::{Algorithm, Rate, Unit},
    rules::{Accounts, Branch, DOMAIN, Domains, Found, OBJECT, ObjectRule, Objects, Refusal, Rules},
};
use outrigger_wire::pb::envoy::extensions::common::ratelimit::v3::{
    RateLimitDescriptor,
    rate_limit_descriptor::{Entry, RateLimitOverride},
};

fn objects() -> Objects {
    let rate = Rate { requests: 5, unit: Unit::Second, burst: 5, algorithm: Algorithm::Gcra };
    let keys = ["source_identity", "header:x-user", "path"].map(str::to_owned).to_vec();
    let rule = ObjectRule { namespace: Some("shop".into()), accounts: None, rate, enforced: true, keys };
    let mesh = ObjectRule { namespace: None, keys: Vec::new(), ..rule.clone() };
    [("shop/a".to_owned(), rule), ("istio-system/m".to_owned(), mesh)].into()
}

fn find(entries: &[(&str, &str)], namespace: Option<&str>) -> Result<Option<Found>, Refusal> {
    let entry = |(key, value): &(&str, &str)| Entry { key: (*key).to_owned(), value: (*value).to_owned() };
    let descriptor =
        RateLimitDescriptor { entries: entries.iter().map(entry).collect(), ..RateLimitDescriptor::default() };
    Rules { objects: &objects(), domains: &Domains::new() }.find(
        DOMAIN,
        &descriptor,
        namespace.map(|namespace| (namespace, "web")),
    )
}

#[test]
fn an_object_is_found_by_its_name_and_its_keys_may_be_absent() {
    let key = |entries: &[(&str, &str)]| find(entries, Some("shop")).unwrap().map(|found| found.key);
    let name = ("ratelimit", "shop/a");
    let all = key(&[name, ("source_identity", "a"), ("header:x-user", "u"), ("path", "/p")]);
    let without = key(&[name, ("source_identity", "a"), ("path", "/p")]);
    assert!(all.is_some() && without.is_some() && all != without);
    assert_eq!(key(&[name, ("path", "/p"), ("source_identity", "a")]), None, "another order is another thing");
    assert_eq!(key(&[name, ("colour", "red")]), None);
    assert_eq!(key(&[("ratelimit", "shop/b")]), None);
    assert_eq!(key(&[("generic_key", "shop/a")]), None);
}

#[test]
fn only_workloads_that_the_object_may_select_are_counted() {
    assert_eq!(find(&[("ratelimit", "shop/a")], Some("bank")), Err(Refusal::Foreign));
    assert!(find(&[("ratelimit", "istio-system/m")], Some("bank")).unwrap().is_some());
    assert!(find(&[("ratelimit", "shop/a")], None).unwrap().is_some(), "no identity was asked for");
}

#[test]
fn a_selector_parts_the_callers_of_a_namespace() {
    let account = |name: &str| ("shop".to_owned(), name.to_owned());
    let known = std::sync::Arc::new([account("web"), account("other")].into());
    let accounts = Accounts { selected: [account("web")].into(), known };
    let rule = ObjectRule { accounts: Some(accounts), ..objects().remove("shop/a").unwrap() };
    let objects = Objects::from([("shop/a".to_owned(), rule)]);
    let entries = vec![Entry { key: OBJECT.into(), value: "shop/a".into() }];
    let descriptor = RateLimitDescriptor { entries, ..RateLimitDescriptor::default() };
    let find = |caller| Rules { objects: &objects, domains: &Domains::new() }.find(DOMAIN, &descriptor, caller);
    assert!(find(Some(("shop", "web"))).unwrap().is_some());
    assert_eq!(find(Some(("shop", "other"))), Err(Refusal::Foreign));
    assert!(find(Some(("shop", "nobody-wrote-down"))).unwrap().is_some());
    let back = RateLimitDescriptor { is_negative_hits: true, ..descriptor.clone() };
    let found = Rules { objects: &objects, domains: &Domains::new() }.find(DOMAIN, &back, Some(("shop", "web")));
    assert_eq!(found, Err(Refusal::Return));
}

#[test]
fn separators_in_values_join_no_keys() {
    let key = |identity, user| {
        let entries = [("ratelimit", "shop/a"), ("source_identity", identity), ("header:x-user", user)];
        find(&entries, Some("shop")).unwrap().unwrap().key
    };
    assert_ne!(key("a|1:b", "c"), key("a", "b|1:c"));
    assert_ne!(key("", "x"), key("x", ""));
    let long = "x".repeat(5000);
    assert!(key(&long, "c").len() < 100 && key(&long, "c") != key(&long, "d"));
}

#[test]
fn hostile_descriptors() {
    assert_eq!(find(&[], None), Err(Refusal::Malformed));
    assert_eq!(find(&[("", "x")], None), Err(Refusal::Malformed));
    assert_eq!(find(&[("k", "v"); 33], None), Err(Refusal::Malformed));
    let limit = Some(RateLimitOverride { requests_per_unit: 1_000_000, unit: 1 });
    let entries = vec![Entry { key: "ratelimit".into(), value: "shop/a".into() }];
    let own = RateLimitDescriptor { entries, limit, ..RateLimitDescriptor::default() };
    let found = Rules { objects: &objects(), domains: &Domains::new() }.find(DOMAIN, &own, Some(("shop", "web")));
    assert_eq!(found, Err(Refusal::Override));
}

#[test]
fn a_domain_that_nobody_declared_has_no_counters() {
    let limit = Some(RateLimitOverride { requests_per_unit: 5, unit: 1 });
    let entries = vec![Entry { key: "any".into(), value: "thing".into() }];
    let own = RateLimitDescriptor { entries, limit, ..RateLimitDescriptor::default() };
    let mut domains = Domains::new();
    let find = |domains: &Domains| Rules { objects: &objects(), domains }.find("made-up", &own, Some(("shop", "web")));
    assert_eq!(find(&domains), Ok(None));
    domains.insert("made-up".to_owned(), Branch::default());
    assert!(find(&domains).unwrap().is_some(), "where the operator has it, a descriptor may bring its limit");
}

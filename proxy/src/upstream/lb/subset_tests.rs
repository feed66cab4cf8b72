//! Subsets against what Envoy documents of them.

use serde_json::{Value, json};

use super::{testing::*, *};
use crate::ir::balancing::{Criteria, SelectorFallback, SubsetFallback, SubsetSelector, Subsets as Config};

fn metadata(labels: Value) -> Metadata {
    let Value::Object(labels) = labels else { panic!("labels are an object") };
    Metadata::from([("envoy.lb".to_owned(), labels)])
}

fn selector(keys: &[&str], fallback: SelectorFallback) -> SubsetSelector {
    SubsetSelector { keys: keys.iter().map(|k| Box::from(*k)).collect(), fallback, single_host: false }
}

fn asked(labels: Value) -> Criteria {
    let Value::Object(labels) = labels else { panic!("labels are an object") };
    Criteria::new(labels.into_iter().map(|(key, value)| (key.into(), value)))
}

/// A cluster of hosts with these labels.
struct Fixture {
    labels: Vec<Metadata>,
    health: Vec<Health>,
    config: Config,
}

impl Fixture {
    fn new(labels: &[Value], config: Config) -> Self {
        let labels: Vec<_> = labels.iter().cloned().map(metadata).collect();
        Self { health: vec![Health::Healthy; labels.len()], labels, config }
    }

    fn balancer(&self) -> Balancer {
        let hosts: Vec<_> = self
            .labels
            .iter()
            .zip(&self.health)
            .map(|(labels, health)| Host { metadata: Some(labels), ..host(1, *health, 0) })
            .collect();
        let more = Arc::new(LbOptions { subsets: Some(self.config.clone()), ..LbOptions::default() });
        Balancer::new(&hosts, ONE, &Options { more: &more, ..calm(Policy::Random) })
    }

    /// Whom `labels` reach, in order; `None` is a request without criteria.
    fn reach(&self, labels: Option<Value>) -> Vec<usize> {
        let (balancer, criteria) = (self.balancer(), labels.map(asked));
        let draws = (0..200).map(|i| draw(i * 0x0123_4567_89AB_CDEF));
        let mut found: Vec<usize> =
            draws.filter_map(|draw| balancer.pick(&Draw { criteria: criteria.as_ref(), ..draw })).collect();
        found.sort_unstable();
        found.dedup();
        found
    }
}

fn stages() -> [Value; 4] {
    [
        json!({"stage": "prod", "version": "1.0"}),
        json!({"stage": "prod", "version": "1.1"}),
        json!({"stage": "dev", "version": "1.1"}),
        json!({"other": true}),
    ]
}

fn config(fallback: SubsetFallback) -> Config {
    Config {
        fallback,
        default: vec![("stage".into(), json!("dev"))],
        selectors: vec![
            selector(&["stage"], SelectorFallback::Inherit),
            selector(&["stage", "version"], SelectorFallback::Inherit),
        ],
        ..Config::default()
    }
}

#[test]
fn criteria_find_their_subset() {
    let f = Fixture::new(&stages(), config(SubsetFallback::None));
    assert_eq!(f.reach(Some(json!({"stage": "prod"}))), [0, 1]);
    assert_eq!(f.reach(Some(json!({"version": "1.1", "stage": "prod"}))), [1], "in any order of keys");
    assert_eq!(f.reach(Some(json!({"version": "1.1"}))), [0usize; 0], "no selector has just this key");
    assert_eq!(f.reach(Some(json!({"stage": "prod", "x": 1}))), [0usize; 0], "more keys than any selector");
    assert_eq!(f.reach(Some(json!({"stage": 1}))), [0usize; 0], "another value");
    assert_eq!(f.reach(None), [0usize; 0]);
}

#[test]
fn fallbacks() {
    let any = Fixture::new(&stages(), config(SubsetFallback::Any));
    assert_eq!(any.reach(Some(json!({"stage": "test"}))), [0, 1, 2, 3]);
    assert_eq!(any.reach(None), [0, 1, 2, 3]);
    let default = Fixture::new(&stages(), config(SubsetFallback::Default));
    assert_eq!(default.reach(Some(json!({"stage": "test"}))), [2]);
    assert_eq!(default.reach(Some(json!({}))), [2]);
    let nobody = Config { default: vec![("stage".into(), json!("no"))], ..config(SubsetFallback::Default) };
    assert_eq!(Fixture::new(&stages(), nobody.clone()).reach(None), [0usize; 0]);
    let panic_any = Config { panic_any: true, ..nobody };
    assert_eq!(Fixture::new(&stages(), panic_any).reach(None), [0, 1, 2, 3]);
    let empty = Config { default: Vec::new(), ..config(SubsetFallback::Default) };
    assert_eq!(Fixture::new(&stages(), empty).reach(None), [0, 1, 2, 3], "every host has no labels at all");
}

#[test]
fn a_subset_that_exists_has_no_fallback() {
    let mut f = Fixture::new(&stages(), config(SubsetFallback::Any));
    f.health[2] = Health::Unhealthy;
    assert_eq!(f.reach(Some(json!({"stage": "dev"}))), [0usize; 0], "its hosts are all sick");
    f.health[1] = Health::Unhealthy;
    assert_eq!(f.reach(Some(json!({"stage": "prod"}))), [0], "health counts within the subset");
}

#[test]
fn selectors_have_fallbacks_of_their_own() {
    let of = |fallback| {
        let selectors = vec![
            selector(&["stage", "version"], fallback),
            selector(&["stage"], SelectorFallback::Of(SubsetFallback::None)),
        ];
        Fixture::new(&stages(), Config { selectors, ..config(SubsetFallback::Default) })
    };
    let missing = || Some(json!({"stage": "prod", "version": "9"}));
    assert_eq!(of(SelectorFallback::Inherit).reach(missing()), [2]);
    assert_eq!(of(SelectorFallback::Of(SubsetFallback::None)).reach(missing()), [0usize; 0]);
    assert_eq!(of(SelectorFallback::Of(SubsetFallback::Any)).reach(missing()), [0, 1, 2, 3]);
    assert_eq!(of(SelectorFallback::Of(SubsetFallback::Default)).reach(missing()), [2]);
    let fewer = of(SelectorFallback::Keys(vec!["stage".into()]));
    assert_eq!(fewer.reach(missing()), [0, 1]);
    assert_eq!(fewer.reach(Some(json!({"stage": "no", "version": "9"}))), [0usize; 0], "then that selector's fallback");
}

#[test]
fn lists_count_as_any_of_their_elements() {
    let labels = [json!({"v": ["a", "b"], "w": ["x", "y"]}), json!({"v": "b", "w": "x"})];
    let selectors = vec![selector(&["v"], SelectorFallback::Inherit), selector(&["v", "w"], SelectorFallback::Inherit)];
    let config = Config { selectors, list_as_any: true, ..Config::default() };
    let f = Fixture::new(&labels, config.clone());
    assert_eq!(f.reach(Some(json!({"v": "a"}))), [0]);
    assert_eq!(f.reach(Some(json!({"v": "b"}))), [0, 1]);
    assert_eq!(f.reach(Some(json!({"v": "a", "w": "y"}))), [0]);
    assert_eq!(f.reach(Some(json!({"v": "b", "w": "x"}))), [0, 1]);
    assert_eq!(f.reach(Some(json!({"v": ["a", "b"]}))), [0usize; 0]);
    let f = Fixture::new(&labels, Config { list_as_any: false, ..config });
    assert_eq!(f.reach(Some(json!({"v": ["a", "b"]}))), [0], "a list is a value like another");
    assert_eq!(f.reach(Some(json!({"v": "a"}))), [0usize; 0]);
    // A host in a great many subsets stays affordable.
    let many: Vec<Value> = (0..200).map(Value::from).collect();
    let labels = [json!({"v": many, "w": many})];
    let selectors = vec![selector(&["v", "w"], SelectorFallback::Inherit)];
    let f = Fixture::new(&labels, Config { selectors, list_as_any: true, ..Config::default() });
    assert_eq!(f.reach(Some(json!({"v": 0, "w": 0}))), [0]);
}

#[test]
fn alternatives_redundant_keys_and_single_hosts() {
    let f = Fixture::new(&stages(), Config { fallback_list: true, ..config(SubsetFallback::None) });
    let asked = json!({"stage": "test", "fallback_list": [{"stage": "none"}, {"version": "1.0", "stage": "prod"}, {"stage": "dev"}]});
    assert_eq!(f.reach(Some(asked.clone())), [0], "the first alternative that has a host");
    assert_eq!(f.reach(Some(json!({"stage": "dev", "fallback_list": []}))), [2]);
    let f = Fixture::new(&stages(), config(SubsetFallback::None));
    assert_eq!(f.reach(Some(asked)), [0usize; 0], "a key like another where the cluster does not say so");

    let redundant = Config { redundant_keys: true, ..config(SubsetFallback::None) };
    assert_eq!(Fixture::new(&stages(), redundant).reach(Some(json!({"stage": "prod", "x": 1}))), [0, 1]);

    let mut single = config(SubsetFallback::None);
    single.selectors = vec![SubsetSelector { single_host: true, ..selector(&["stage"], SelectorFallback::Inherit) }];
    assert_eq!(Fixture::new(&stages(), single).reach(Some(json!({"stage": "prod"}))), [0]);
}

#[test]
fn locality_weights_count_only_where_asked_for() {
    let labels = metadata(json!({"v": "a"}));
    let groups = [group(0, Some(1)), group(0, Some(3))];
    let other = metadata(json!({"v": "b"}));
    let of = |metadata, locality| Host { metadata: Some(metadata), ..host(1, Health::Healthy, locality) };
    // The second locality has half of its hosts in the subset.
    let hosts = [of(&labels, 0), of(&labels, 1), of(&other, 1)];
    let shares = |aware: bool, scale: bool| {
        let config = Config {
            selectors: vec![selector(&["v"], SelectorFallback::Inherit)],
            locality_weight_aware: aware,
            scale_locality_weight: scale,
            ..Config::default()
        };
        let more = Arc::new(LbOptions { subsets: Some(config), ..LbOptions::default() });
        let balancer = Balancer::new(&hosts, &groups, &Options { more: &more, ..calm(Policy::RoundRobin) });
        let (criteria, cursor) = (asked(json!({"v": "a"})), AtomicU64::new(0));
        let counts = count(3, 1200, &|random| {
            balancer.pick(&Draw { criteria: Some(&criteria), cursor: &cursor, ..draw(random) })
        });
        (counts[0], counts[1], counts[2])
    };
    assert_eq!(shares(false, false), (600, 600, 0));
    assert_eq!(shares(true, false), (300, 900, 0));
    assert_eq!(shares(true, true), (400, 800, 0), "3 * 1/2, rounded");
}

#[test]
fn subsets_take_turns_apart_from_each_other() {
    let labels: Vec<_> = ["a", "a", "b", "b"].map(|v| metadata(json!({"v": v}))).to_vec();
    let hosts: Vec<_> = labels.iter().map(|l| Host { metadata: Some(l), ..host(1, Health::Healthy, 0) }).collect();
    let config = Config { selectors: vec![selector(&["v"], SelectorFallback::Inherit)], ..Config::default() };
    let more = Arc::new(LbOptions { subsets: Some(config), ..LbOptions::default() });
    let balancer = Balancer::new(&hosts, ONE, &Options { more: &more, ..calm(Policy::RoundRobin) });
    let (a, b) = (asked(json!({"v": "a"})), asked(json!({"v": "b"})));
    let mut counts = [0; 4];
    for _ in 0..10 {
        for criteria in [&a, &b] {
            counts[balancer.pick(&Draw { criteria: Some(criteria), ..draw(1) }).unwrap()] += 1;
        }
    }
    assert_eq!(counts, [5; 4]);
}

#[test]
fn no_pick_leaves_the_labels_that_were_asked_for() {
    let mut seeds = SplitMix(99);
    for _ in 0..300 {
        let hosts = 1 + (seeds.next() % 20) as usize;
        let labels: Vec<Value> = (0..hosts).map(|_| json!({"a": seeds.next() % 3, "b": seeds.next() % 3})).collect();
        let selectors = vec![
            selector(&["a"], SelectorFallback::Inherit),
            selector(&["a", "b"], SelectorFallback::Keys(vec!["a".into()])),
        ];
        let mut f = Fixture::new(&labels, Config { selectors, ..Config::default() });
        for health in &mut f.health {
            *health =
                [Health::Healthy, Health::Unhealthy, Health::Draining, Health::Degraded][(seeds.next() % 4) as usize];
        }
        let balancer = f.balancer();
        for _ in 0..20 {
            let (a, b) = (seeds.next() % 4, seeds.next() % 4);
            let criteria = asked(json!({"a": a, "b": b}));
            if let Some(host) = balancer.pick(&Draw { criteria: Some(&criteria), ..draw(seeds.next()) }) {
                assert_eq!(labels[host]["a"], a);
                let exact = labels.iter().any(|l| l["a"] == a && l["b"] == b);
                assert!(!exact || labels[host]["b"] == b);
                assert!(matches!(f.health[host], Health::Healthy | Health::Degraded));
            }
        }
    }
}

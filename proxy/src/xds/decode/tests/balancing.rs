//! Policies, their options, subsets and what routes ask of them.

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::ir::{
    balancing::*,
    cluster::LbPolicy,
    listener::Terminal,
    route::{Action, Forward, HashHeader, HashPolicy, Target},
};

const KIND: &str = "envoy.extensions.load_balancing_policies";

fn policy(name: &str, fields: &str) -> String {
    format!("{{typed_extension_config: {{name: p, typed_config: {{\"@type\": {T}/{KIND}.{name}, {fields}}}}}}}")
}

fn list(policy: &str) -> String {
    cluster_of(&format!("load_balancing_policy: {{policies: [{policy}]}}"))
}

fn lb(yaml: &str) -> (LbPolicy, LbOptions, bool) {
    let c = the_cluster(yaml);
    (c.lb, LbOptions::clone(&c.lb_options), c.locality_weighted)
}

#[test]
fn ring_hash_and_maglev() {
    let common =
        "common_lb_config: {consistent_hashing_lb_config: {use_hostname_for_hashing: true, hash_balance_factor: 150}}";
    let keys = HashKeys { hostname: true, balance_factor: 150 };
    assert_eq!(lb(&cluster_of("lb_policy: RING_HASH")).0, LbPolicy::RingHash(RingHash::default()));
    let ring = "ring_hash_lb_config: {minimum_ring_size: 5, maximum_ring_size: 50, hash_function: MURMUR_HASH_2}";
    let expected = RingHash { min_size: 5, max_size: 50, murmur: true, keys };
    assert_eq!(lb(&cluster_of(&format!("lb_policy: RING_HASH, {ring}, {common}"))).0, LbPolicy::RingHash(expected));
    let maglev = format!("lb_policy: MAGLEV, maglev_lb_config: {{table_size: 17}}, {common}");
    assert_eq!(lb(&cluster_of(&maglev)).0, LbPolicy::Maglev(Maglev { table_size: 17, keys }));

    let (found, options, weighted) = lb(&list(&policy(
        "ring_hash.v3.RingHash",
        "consistent_hashing_lb_config: {hash_balance_factor: 120, hash_policy: [{header: {header_name: ':path'}}]}, \
         locality_weighted_lb_config: {}",
    )));
    let keys = HashKeys { hostname: false, balance_factor: 120 };
    assert_eq!((found, weighted), (LbPolicy::RingHash(RingHash { keys, ..RingHash::default() }), true));
    let path = HashPolicy::Header { name: HashHeader::Path, rewrite: None, terminal: false };
    assert_eq!(options.hash_policy, [path]);
    assert_eq!(options.zone_aware, None, "hashing knows no zones");
    assert_eq!(lb(&list(&policy("maglev.v3.Maglev", ""))).0, LbPolicy::Maglev(Maglev::default()));
    refused(&[
        (
            cluster_of("lb_policy: RING_HASH, ring_hash_lb_config: {minimum_ring_size: 5, maximum_ring_size: 4}"),
            "ring_hash_lb_config.minimum_ring_size",
            "maximum_ring_size",
        ),
        (
            cluster_of("lb_policy: RING_HASH, ring_hash_lb_config: {maximum_ring_size: 8388609}"),
            "ring_hash_lb_config.maximum_ring_size",
            "between",
        ),
        (
            cluster_of("lb_policy: MAGLEV, maglev_lb_config: {table_size: 65536}"),
            "maglev_lb_config.table_size",
            "prime",
        ),
        (
            cluster_of("common_lb_config: {consistent_hashing_lb_config: {hash_balance_factor: 99}}"),
            "common_lb_config.consistent_hashing_lb_config.hash_balance_factor",
            "between",
        ),
    ]);
}

#[test]
fn least_request_slow_start_and_peak_ewma() {
    let slow =
        "slow_start_config: {slow_start_window: 30s, aggression: {default_value: 2.0}, min_weight_percent: {value: 5}}";
    let fields = format!("choice_count: 3, active_request_bias: {{default_value: 0.5}}, {slow}");
    let expected = LeastRequest { choices: 3, full_scan: false, bias: Number::new(0.5).unwrap() };
    let start = SlowStart { window: Duration::from_secs(30), aggression: Number::new(2.0).unwrap(), min_permille: 50 };
    let (found, options, _) =
        lb(&cluster_of(&format!("lb_policy: LEAST_REQUEST, least_request_lb_config: {{{fields}}}")));
    assert_eq!((found, options.slow_start), (LbPolicy::LeastRequest(expected), Some(start)));
    let (found, options, _) =
        lb(&list(&policy("least_request.v3.LeastRequest", &format!("{fields}, selection_method: FULL_SCAN"))));
    let expected = LeastRequest { full_scan: true, ..expected };
    assert_eq!((found, options.slow_start), (LbPolicy::LeastRequest(expected), Some(start)));
    let (found, options, _) = lb(&cluster_of(&format!("round_robin_lb_config: {{{slow}}}")));
    assert_eq!((found, options.slow_start), (LbPolicy::RoundRobin, Some(start)));

    let ewma = "decay_time: 3s, default_rtt: 0.5s, penalty_value: 7";
    let config = PeakEwma {
        choices: 2,
        decay: Duration::from_secs(3),
        default_rtt: Duration::from_millis(500),
        penalty: Number::new(7.0).unwrap(),
    };
    let typed = |kind: &str, fields: &str| {
        format!(
            "{{typed_extension_config: {{name: p, typed_config: {{\"@type\": {T}/xds.type.v3.TypedStruct, \
             type_url: {T}/{KIND}.{kind}, value: {{{fields}}}}}}}}}"
        )
    };
    assert_eq!(lb(&list(&typed("peak_ewma.v3.PeakEwma", ewma))).0, LbPolicy::PeakEwma(config));
    let upgrade = "metadata: {filter_metadata: {outrigger.load_balancing: {latency_aware: true}}}";
    let (found, ..) =
        lb(&cluster_of(&format!("lb_policy: LEAST_REQUEST, least_request_lb_config: {{choice_count: 4}}, {upgrade}")));
    assert_eq!(found, LbPolicy::PeakEwma(PeakEwma { choices: 4, ..PeakEwma::default() }));
    assert_eq!(lb(&cluster_of(&format!("lb_policy: RANDOM, {upgrade}"))).0, LbPolicy::Random);
    let at = "load_balancing_policy.policies[0].typed_extension_config.typed_config";
    let at = at.strip_suffix(".typed_config").unwrap();
    refused(&[
        (list(&typed("peak_ewma.v3.PeakEwma", "decay_time: 0s")), &format!("{at}.decay_time"), "greater than zero"),
        (list(&typed("peak_ewma.v3.PeakEwma", "decay: 1s")), &format!("{at}.value"), "decay is not a field"),
        (
            cluster_of("lb_policy: LEAST_REQUEST, least_request_lb_config: {active_request_bias: {default_value: -1}}"),
            "least_request_lb_config.active_request_bias.default_value",
            "negative",
        ),
    ]);
}

#[test]
fn zones() {
    let zone = |fields: &str| {
        let fields = format!("common_lb_config: {{zone_aware_lb_config: {{{fields}}}}}");
        lb(&cluster_of(&fields)).1.zone_aware
    };
    assert_eq!(lb(&cluster_of("")).1.zone_aware, Some(ZoneAware::default()), "on as soon as there is a local cluster");
    let config = ZoneAware { enabled_percent: 40, min_cluster_size: 3, fail_on_panic: true, ..ZoneAware::default() };
    assert_eq!(zone("routing_enabled: {value: 40}, min_cluster_size: 3, fail_traffic_on_panic: true"), Some(config));
    let (_, options, weighted) = lb(&cluster_of("common_lb_config: {locality_weighted_lb_config: {}}"));
    assert_eq!((options.zone_aware, weighted), (None, true));
    let fields = "locality_lb_config: {zone_aware_lb_config: {force_local_zone: {min_size: 3}, locality_basis: HEALTHY_HOSTS_WEIGHT}}";
    let (_, options, _) = lb(&list(&policy("round_robin.v3.RoundRobin", fields)));
    assert_eq!(options.zone_aware, Some(ZoneAware { force_local: 3, by_weight: true, ..ZoneAware::default() }));
}

#[test]
fn subsets() {
    let fields = "fallback_policy: DEFAULT_SUBSET, default_subset: {v: d}, list_as_any: true, panic_mode_any: true, \
         subset_selectors: [{keys: [z, v], fallback_policy: KEYS_SUBSET, fallback_keys_subset: [v]}, \
         {keys: [v], fallback_policy: NO_FALLBACK}, {keys: []}], metadata_fallback_policy: FALLBACK_LIST";
    let expected = Subsets {
        fallback: SubsetFallback::Default,
        default: vec![("v".into(), json!("d"))],
        selectors: vec![
            SubsetSelector {
                keys: vec!["v".into(), "z".into()],
                fallback: SelectorFallback::Keys(vec!["v".into()]),
                single_host: false,
            },
            SubsetSelector {
                keys: vec!["v".into()],
                fallback: SelectorFallback::Of(SubsetFallback::None),
                single_host: false,
            },
        ],
        panic_any: true,
        list_as_any: true,
        fallback_list: true,
        ..Subsets::default()
    };
    assert_eq!(lb(&cluster_of(&format!("lb_subset_config: {{{fields}}}"))).1.subsets, Some(expected.clone()));
    let inner = policy("random.v3.Random", "");
    let outer = policy(
        "subset.v3.Subset",
        &format!("{fields}, allow_redundant_keys: true, subset_lb_policy: {{policies: [{inner}]}}"),
    );
    let (found, options, _) = lb(&list(&outer));
    assert_eq!(found, LbPolicy::Random);
    assert_eq!(options.subsets, Some(Subsets { redundant_keys: true, ..expected }));
    assert_eq!(lb(&cluster_of("lb_subset_config: {fallback_policy: ANY_ENDPOINT}")).1.subsets, None);
    let c = |selector: &str| cluster_of(&format!("lb_subset_config: {{subset_selectors: [{{{selector}}}]}}"));
    let at = "lb_subset_config.subset_selectors[0]";
    refused(&[
        (
            c("keys: [a], fallback_policy: KEYS_SUBSET, fallback_keys_subset: [a]"),
            &format!("{at}.fallback_keys_subset"),
            "not all",
        ),
        (
            c("keys: [a, b], fallback_policy: KEYS_SUBSET, fallback_keys_subset: [c]"),
            &format!("{at}.fallback_keys_subset"),
            "some of the keys",
        ),
        (c("keys: [a, b], single_host_per_subset: true"), &format!("{at}.keys"), "one key"),
        (
            cluster_of(&format!(
                "load_balancing_policy: {{policies: [{}]}}, lb_subset_config: {{subset_selectors: [{{keys: [a]}}]}}",
                policy("random.v3.Random", "")
            )),
            "lb_subset_config",
            "excludes",
        ),
    ]);
    noted(&[(c("keys: []"), &format!("{at}.keys"), NoteKind::Harmless)]);
}

fn labels(labels: &str) -> String {
    format!("metadata_match: {{filter_metadata: {{envoy.lb: {{{labels}}}}}}}")
}

fn forward(fields: &str) -> Arc<Forward> {
    match &the_routes(&route_of(&format!("route: {{{fields}}}"))).virtual_hosts[0].routes[0].action {
        Action::Forward(f) => Arc::clone(f),
        other => panic!("{other:?}"),
    }
}

#[test]
fn criteria() {
    let pairs = |criteria: &SharedCriteria| {
        criteria.as_ref().map(|c| c.pairs().iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>())
    };
    assert_eq!(pairs(&forward("cluster: c").criteria), None);
    assert_eq!(pairs(&forward("cluster: c, metadata_match: {filter_metadata: {other: {a: b}}}").criteria), None);
    let f = forward(&format!("cluster: c, {}", labels("z: 1, a: x")));
    assert_eq!(pairs(&f.criteria).unwrap(), ["a=\"x\"", "z=1"]);
    let f = forward(&format!(
        "weighted_clusters: {{clusters: [{{name: a, weight: 1, {}}}, {{name: b, weight: 1}}]}}, {}",
        labels("v: own"),
        labels("v: route, w: route")
    ));
    let Target::Weighted(targets) = &f.target else { panic!("{f:?}") };
    assert_eq!(pairs(&targets[0].criteria).unwrap(), ["v=\"own\"", "w=\"route\""], "the target's own come first");
    assert_eq!(pairs(&targets[1].criteria), pairs(&f.criteria));
    assert_eq!(targets[1].criteria.as_ref().unwrap().hash(), f.criteria.as_ref().unwrap().hash());

    let tcp = tcp(&format!(
        "{}, weighted_clusters: {{clusters: [{{name: a, weight: 1, {}}}]}}, hash_policy: [{{source_ip: {{}}}}]",
        labels("v: all"),
        labels("w: one")
    ));
    let Resource::Listener(listener) = accepted(&listener_of(&tcp, "")).0 else { panic!() };
    let Terminal::Tcp(proxy) = &listener.chains[0].terminal else { panic!() };
    assert_eq!(pairs(&proxy.targets[0].criteria).unwrap(), ["v=\"all\"", "w=\"one\""]);
    assert_eq!(proxy.hash_policy, [HashPolicy::SourceIp { terminal: false }]);
}

#[test]
fn hash_policies() {
    let of = |fields: &str| forward(&format!("cluster: c, hash_policy: [{fields}]")).hash_policy.clone();
    let cookie =
        of("{cookie: {name: k, ttl: 90s, path: /p, attributes: [{name: SameSite, value: Strict}, {name: Secure}]}}");
    let HashPolicy::Cookie(cookie) = &cookie[0] else { panic!("{cookie:?}") };
    assert_eq!(&*cookie.attributes, "; Max-Age=90; Path=/p; SameSite=Strict; Secure; HttpOnly");
    let session = of("{cookie: {name: k, ttl: 0s}}");
    let HashPolicy::Cookie(session) = &session[0] else { panic!("{session:?}") };
    assert_eq!((session.ttl, &*session.attributes), (Some(0), "; HttpOnly"));
    let rewrite = of("{header: {header_name: x-h, regex_rewrite: {pattern: {regex: '(.)x'}, substitution: '\\1'}}}");
    assert!(matches!(&rewrite[0], HashPolicy::Header { rewrite: Some(r), .. } if &*r.substitution == "${1}"));
    let bad = |fields: &str| route_of(&format!("route: {{cluster: c, hash_policy: [{fields}]}}"));
    let at = "virtual_hosts[0].routes[0].route.hash_policy[0]";
    refused(&[
        (bad("{cookie: {name: 'a b'}}"), &format!("{at}.cookie.name"), "cookie name"),
        (bad("{cookie: {name: a, path: 'x;y'}}"), &format!("{at}.cookie.path"), "cookie path"),
        (
            bad("{cookie: {name: a, attributes: [{name: b, value: \"c;\\r\\nd\"}]}}"),
            &format!("{at}.cookie.attributes[0]"),
            "cookie attribute",
        ),
        (bad("{header: {header_name: 'a b'}}"), &format!("{at}.header.header_name"), "header name"),
    ]);
}

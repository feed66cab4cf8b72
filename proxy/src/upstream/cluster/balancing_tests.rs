//! What a view hands to its balancer: keys, labels, ages, zones, latencies.

use super::*;
use crate::{
    ir::{
        Metadata,
        balancing::{
            Criteria, HashKeys, LbOptions, Maglev, PeakEwma, SelectorFallback, SlowStart, SubsetFallback,
            SubsetSelector, Subsets, ZoneAware,
        },
        cluster::Discovery,
        endpoint::{Address, Locality},
    },
    upstream::testing::{assignment, config, endpoint},
};

fn ip(last: u8) -> ir::endpoint::Endpoint {
    endpoint(Address::Ip(SocketAddr::from(([10, 0, 0, last], 80))))
}

fn eds(name: &str) -> ir::cluster::Cluster {
    config(name, Discovery::Eds { service_name: name.into(), source: ir::ConfigSource::Ads })
}

fn build(config: ir::cluster::Cluster, assignment: Arc<Assignment>, deps: &Deps) -> Arc<Cluster> {
    Cluster::build(Arc::new(config), Some(assignment), deps, None).unwrap()
}

fn picks(cluster: &Cluster, n: u64) -> Vec<String> {
    let pick =
        |i: u64| cluster.pick(&PickContext { random: i.wrapping_mul(0x9E37_79B9_7F4A_7C15), ..PickContext::default() });
    (0..n).map(|i| pick(i).unwrap().label.to_string()).collect()
}

#[test]
fn keys_belong_to_what_hosts_are_known_by() {
    let host = |last: u8, key: Option<&str>| {
        let labels = key.map(|key| serde_json::Map::from_iter([("hash_key".to_owned(), key.into())]));
        let metadata = labels.map(|labels| Arc::new(Metadata::from([("envoy.lb".to_owned(), labels)])));
        ir::endpoint::Endpoint { hostname: format!("host-{last}").into(), metadata, ..ip(last) }
    };
    let reached = |hosts: Vec<ir::endpoint::Endpoint>, hostname: bool| -> Vec<String> {
        let keys = HashKeys { hostname, balance_factor: 0 };
        let lb = LbPolicy::Maglev(Maglev { table_size: 1009, keys });
        let cluster = build(ir::cluster::Cluster { lb, ..eds("c") }, assignment(hosts), &Deps::default());
        let pick = |hash: u64| cluster.pick(&PickContext { hash: Some(hash), ..PickContext::default() }).unwrap();
        (0..50).map(|hash| pick(hash * 7919).hostname.to_string()).collect()
    };
    let by_address = reached((1..=4).map(|i| host(i, None)).collect(), false);
    assert_ne!(by_address, reached((1..=4).map(|i| host(i, None)).collect(), true), "names are other keys");
    // Addresses that moved on to other hosts: whoever has the key of the first has its keys.
    let named: Vec<_> = (1..=4)
        .map(|i| host(i, Some(["10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80", "10.0.0.1:80"][i as usize - 1])))
        .collect();
    let moved: Vec<String> = by_address
        .iter()
        .map(|name| format!("host-{}", [4, 1, 2, 3][name[5..].parse::<usize>().unwrap() - 1]))
        .collect();
    assert_eq!(reached(named, false), moved);
}

#[test]
fn the_local_cluster_decides_on_zones() {
    let place = lb::Place { zone: "a".into(), ..lb::Place::default() };
    let deps = Deps { callers: Arc::new(lb::Callers::new(Some("me".into()), place)), ..Deps::default() };
    let zones = |hosts: &[(&str, std::ops::Range<u8>)]| {
        let locality = |(zone, hosts): &(&str, std::ops::Range<u8>)| Locality {
            zone: (*zone).into(),
            endpoints: hosts.clone().map(ip).collect(),
            ..Locality::default()
        };
        Arc::new(Assignment { localities: hosts.iter().map(locality).collect(), overprovisioning: 140 })
    };
    let zone_aware = Some(ZoneAware { min_cluster_size: 2, ..ZoneAware::default() });
    let lb_options = Arc::new(LbOptions { zone_aware, ..LbOptions::default() });
    let config = ir::cluster::Cluster { lb_options, locality_weighted: false, ..eds("up") };
    let cluster = build(config, zones(&[("b", 1..2), ("a", 2..3)]), &deps);
    let reached =
        |cluster: &Cluster| -> std::collections::BTreeSet<String> { picks(cluster, 64).into_iter().collect() };
    assert_eq!(reached(&cluster).len(), 2, "nothing is known of the local cluster");
    let local = build(eds("me"), zones(&[("a", 11..12), ("b", 12..13)]), &deps);
    assert_eq!(stat(&cluster, "lb_zone_routing_all_directly"), None, "nothing was counted yet");
    assert_eq!(reached(&cluster), ["10.0.0.2:80".to_owned()].into(), "its first view counts, used or not");
    assert_eq!(stat(&cluster, "lb_zone_routing_all_directly"), Some(64));
    Cluster::build(local.config.clone(), Some(zones(&[("b", 12..13)])), &deps, Some(&local)).unwrap();
    assert_eq!(reached(&cluster).len(), 2, "this proxy is not in it any more");
}

/// A statistic, if it is there.
fn stat(cluster: &Cluster, metric: &str) -> Option<u64> {
    let mut found = None;
    cluster.visit_stats(&mut |name, _, value| {
        if name == metric {
            found = Some(value);
        }
    });
    found
}

#[test]
fn subsets_and_members_are_counted_as_they_come_and_go() {
    let host = |last: u8, stage: &str| {
        let labels = serde_json::Map::from_iter([("stage".to_owned(), stage.into())]);
        let metadata = Some(Arc::new(Metadata::from([("envoy.lb".to_owned(), labels)])));
        ir::endpoint::Endpoint { metadata, ..ip(last) }
    };
    let selector =
        SubsetSelector { keys: vec!["stage".into()], fallback: SelectorFallback::Inherit, single_host: false };
    let subsets = Subsets { fallback: SubsetFallback::Any, selectors: vec![selector], ..Subsets::default() };
    let lb_options = Arc::new(LbOptions { subsets: Some(subsets), ..LbOptions::default() });
    let config = ir::cluster::Cluster { lb_options, ..eds("c") };
    let first = build(config, assignment(vec![host(1, "a"), host(2, "b"), host(3, "b")]), &Deps::default());
    let to = |cluster: &Cluster, stage: &str| {
        let criteria = Criteria::new([("stage".into(), stage.into())]);
        cluster.pick(&PickContext { criteria: Some(&criteria), ..PickContext::default() }).unwrap()
    };
    assert_eq!(&*to(&first, "a").label, "10.0.0.1:80");
    to(&first, "b");
    to(&first, "c");
    first.pick(&PickContext::default()).unwrap();
    let stats = |cluster: &Cluster| {
        ["selected", "fallback", "fallback_panic", "created", "removed", "active"]
            .map(|name| stat(cluster, &format!("lb_subsets_{name}")).unwrap())
    };
    assert_eq!(stats(&first), [2, 2, 0, 2, 0, 2]);
    assert_eq!(stat(&first, "membership_change"), Some(1));
    let hosts = assignment(vec![host(1, "a"), host(3, "d")]);
    let second = Cluster::build(first.config.clone(), Some(hosts), &Deps::default(), Some(&first)).unwrap();
    to(&second, "d");
    assert_eq!(stats(&second), [3, 2, 0, 3, 1, 2]);
    assert_eq!(stat(&second, "membership_change"), Some(2));
    let plain = build(eds("p"), assignment(vec![ip(1)]), &Deps::default());
    assert_eq!((stat(&plain, "membership_change"), stat(&plain, "lb_subsets_active")), (Some(1), None));
}

#[test]
fn latencies_belong_to_endpoints_and_survive_a_view() {
    let config = ir::cluster::Cluster { lb: LbPolicy::PeakEwma(PeakEwma::default()), ..eds("c") };
    let first = build(config, assignment(vec![ip(1), ip(2)]), &Deps::default());
    assert!(first.observes_latency());
    first.answered(&first.members()[0].endpoint, Duration::from_millis(500));
    first.answered(&first.members()[1].endpoint, Duration::from_millis(5));
    let only = |cluster: &Cluster| picks(cluster, 50).iter().all(|label| label == "10.0.0.2:80");
    assert!(only(&first));
    let hosts = Some(assignment(vec![ip(2), ip(1)]));
    let second = Cluster::build(first.config.clone(), hosts, &Deps::default(), Some(&first)).unwrap();
    assert!(only(&second));
    let plain = build(eds("c"), assignment(vec![ip(1)]), &Deps::default());
    assert!(!plain.observes_latency());
    plain.answered(&plain.members()[0].endpoint, Duration::from_secs(1));
    assert_eq!(plain.members()[0].endpoint.latency.estimate(uptime(), Duration::from_secs(10)), None);
}

#[test]
fn a_host_that_comes_later_starts_slowly() {
    let window = Duration::from_millis(20);
    let slow_start = SlowStart { window, aggression: ir::balancing::Number::ONE, min_permille: 100 };
    let lb_options = Arc::new(LbOptions { slow_start: Some(slow_start), ..LbOptions::default() });
    let config = ir::cluster::Cluster { lb: LbPolicy::Random, lb_options, ..eds("c") };
    let hosts = || Some(assignment(vec![ip(1), ip(2)]));
    let first = build(config, assignment(vec![ip(1), ip(2)]), &Deps::default());
    let [old, young] = [0, 1].map(|i| first.members()[i].endpoint.clone());
    while uptime() <= old.since() + 2 * window {
        std::thread::yield_now();
    }
    young.begins(uptime() + Duration::from_secs(3600));
    let second = Cluster::build(first.config.clone(), hosts(), &Deps::default(), Some(&first)).unwrap();
    let of_young = picks(&second, 2200).into_iter().filter(|label| **label == *young.label).count();
    assert!((120..=280).contains(&of_young), "a tenth of its weight: {of_young} of 2200");
}

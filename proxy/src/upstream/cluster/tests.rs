use std::collections::BTreeMap;

use super::*;
use crate::{
    ir::{Metadata, cluster::TransportMatch, endpoint::Address},
    upstream::{
        testing::{assignment, config, endpoint},
        transport::Transports,
    },
};

fn deps() -> Deps {
    Deps::default()
}

fn eds() -> Discovery {
    Discovery::Eds { service_name: "s".into(), source: ir::ConfigSource::Ads }
}

fn ip(last: u8) -> ir::endpoint::Endpoint {
    endpoint(Address::Ip(SocketAddr::from(([10, 0, 0, last], 80))))
}

fn build(endpoints: Vec<ir::endpoint::Endpoint>, previous: Option<&Arc<Cluster>>) -> Arc<Cluster> {
    Cluster::build(Arc::new(config("c", eds())), Some(assignment(endpoints)), &deps(), previous).unwrap()
}

fn labelled(last: u8, key: &str, value: &str) -> ir::endpoint::Endpoint {
    let labels = serde_json::Map::from_iter([(key.to_owned(), value.into())]);
    let metadata: Metadata = BTreeMap::from([("envoy.transport_socket_match".to_owned(), labels)]);
    ir::endpoint::Endpoint { metadata: Some(Arc::new(metadata)), ..ip(last) }
}

#[test]
fn equal_endpoints_are_the_same_objects_in_the_next_view() {
    let first = build(vec![ip(1), ip(2), labelled(3, "a", "b")], None);
    let held = first.breaker(false).try_request().unwrap();
    first.stats.local().upstream_rq_total.inc();
    let changed = ir::endpoint::Endpoint { weight: 5, health: Health::Degraded, ..ip(2) };
    let second = build(vec![changed, labelled(3, "a", "b"), labelled(1, "x", "y")], Some(&first));
    let (old, new) = (first.members(), second.members());
    assert!(Arc::ptr_eq(&old[1].endpoint, &new[0].endpoint), "weight and health are of the view");
    assert_eq!((new[0].weight, new[0].health), (5, Health::Degraded));
    assert_eq!((old[1].weight, old[1].health), (1, Health::Healthy), "the old view is untouched");
    assert!(Arc::ptr_eq(&old[2].endpoint, &new[1].endpoint), "equal metadata");
    assert!(Arc::ptr_eq(&old[0].endpoint, &new[2].endpoint), "new labels make no new host");
    assert_eq!(new[2].endpoint.metadata(), labelled(1, "x", "y").metadata);
    let third = build(vec![labelled(1, "x", "y"), labelled(3, "a", "b")], Some(&second));
    let removed: Vec<_> = new.iter().map(|m| m.endpoint.is_removed()).collect();
    assert_eq!(removed, [true, false, false]);
    drop(third);
    assert_eq!(second.breaker(false).used()[2], 1, "permits carry over");
    assert!(Arc::ptr_eq(&first.stats, &second.stats));
    drop(held);
    assert_eq!(second.breaker(false).used()[2], 0);
    second.retire();
    assert!(new.iter().all(|m| m.endpoint.is_removed()));
}

#[test]
fn duplicates_stay_apart() {
    let first = build(vec![ip(1), ip(1)], None);
    let second = build(vec![ip(1), ip(1)], Some(&first));
    let [a, b] = second.members() else { panic!() };
    assert!(!Arc::ptr_eq(&a.endpoint, &b.endpoint));
    assert!(first.members().iter().all(|m| !m.endpoint.is_removed()));
}

#[test]
fn picks_avoid_what_was_tried() {
    let cluster = build(vec![ip(1), ip(2)], None);
    for random in 0..100 {
        let first = cluster.pick(&PickContext { random, attempts: 3, ..PickContext::default() }).unwrap();
        let exclude = [first.clone()];
        let context = PickContext { random, attempts: 3, exclude: &exclude, ..PickContext::default() };
        assert!(!Arc::ptr_eq(&cluster.pick(&context).unwrap(), &first));
    }
    assert_eq!(build(vec![], None).pick(&PickContext::default()).unwrap_err(), PickError::NoEndpoints);
    let sick = ir::endpoint::Endpoint { health: Health::Draining, ..ip(1) };
    let sick = build(vec![sick], None);
    assert_eq!(sick.pick(&PickContext::default()).unwrap_err(), PickError::NoneHealthy);
    assert_eq!(sick.stats.local().upstream_cx_none_healthy.get(), 1);
}

#[test]
fn names_are_refused_where_nobody_resolves_them() {
    let named = endpoint(Address::Host { host: "a.example".into(), port: 1 });
    let config = Arc::new(config("c", Discovery::Static(assignment(vec![named]))));
    assert!(Cluster::build(config, None, &deps(), None).unwrap_err().contains("a.example:1"));
}

#[test]
fn the_first_matching_transport_socket_wins() {
    let matching = |criteria: &[(&str, &str)]| TransportMatch {
        name: "m".into(),
        criteria: criteria.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect(),
        tls: None,
    };
    let mut config = config("c", eds());
    config.transport_matches = vec![matching(&[("tlsMode", "istio"), ("v", "2")]), matching(&[("tlsMode", "istio")])];
    let transports = Transports::new(&config, &deps().secrets, &[], None).unwrap();
    let selected = |e: &ir::endpoint::Endpoint| transports.position(e.metadata.as_deref());
    assert_eq!(selected(&labelled(1, "tlsMode", "istio")), Some(1));
    assert_eq!(selected(&labelled(1, "tlsMode", "disabled")), None);
    assert_eq!(selected(&ip(1)), None, "no metadata satisfies no criteria");
}

#[test]
fn original_destinations_keep_their_endpoint() {
    let config = config("o", Discovery::OriginalDst { port_override: Some(15008) });
    let cluster = Cluster::build(Arc::new(config), None, &deps(), None).unwrap();
    let to = |port: u16| PickContext {
        original_dst: Some(SocketAddr::from(([10, 1, 1, 1], port))),
        ..PickContext::default()
    };
    let first = cluster.pick(&to(80)).unwrap();
    assert_eq!(&*first.label, "10.1.1.1:15008");
    assert!(Arc::ptr_eq(&first, &cluster.pick(&to(81)).unwrap()), "the port is overridden");
    assert_eq!(cluster.pick(&PickContext::default()).unwrap_err(), PickError::NoOriginalDst);
    // Held from outside (a pooled connection, a request): stays, however many sweeps.
    (0..5).for_each(|_| original_dst::sweep());
    assert!(Arc::ptr_eq(&first, &cluster.pick(&to(80)).unwrap()));
    cluster.retire();
    assert!(!first.is_removed());
    original_dst::sweep();
    assert!(first.is_removed(), "pools are to let go of a cluster that is gone");
    let weak = Arc::downgrade(&first);
    assert!(Arc::ptr_eq(&first, &cluster.pick(&to(80)).unwrap()));
    drop(first);
    original_dst::sweep();
    assert!(weak.upgrade().is_some(), "used since the last sweep but one");
    original_dst::sweep();
    original_dst::sweep();
    assert!(weak.upgrade().is_none(), "unused and forgotten");
}

#[test]
fn ten_thousand_endpoints_rebuild_by_lookup() {
    let many =
        |n: u32| (0..n).map(|i| endpoint(Address::Ip(SocketAddr::from((i.to_be_bytes(), 80))))).collect::<Vec<_>>();
    let first = build(many(10_000), None);
    let second = build(many(10_001), Some(&first));
    assert!(first.members().iter().zip(second.members()).all(|(a, b)| Arc::ptr_eq(&a.endpoint, &b.endpoint)));
    assert!(second.members().iter().all(|m| m.endpoint.stats_if_used().is_none()), "statistics are lazy");
}

fn to(port: u16) -> ir::endpoint::Endpoint {
    endpoint(Address::Ip(SocketAddr::from(([10, 0, 0, 1], port))))
}

#[test]
fn a_cluster_has_no_parts_before_its_first_use_and_looking_at_it_is_none() {
    let first = build(vec![ip(1)], None);
    let second = build(vec![ip(1), ip(2)], Some(&first));
    assert_eq!(second.inspect().members().len(), 2);
    assert!(first.parts.get().is_none() && second.parts.get().is_none());
    assert!(second.stats.totals().is_empty());
    second.pick(&PickContext::default()).unwrap();
    assert!(Arc::ptr_eq(&second.inspect(), second.parts()));
    let third = build(vec![ip(2)], Some(&second));
    assert!(third.parts.get().is_some(), "what is in use is made at once");
    assert!(second.members()[0].endpoint.is_removed() && !third.members()[0].endpoint.is_removed());
}

#[test]
fn a_view_used_late_does_not_undo_a_newer_one() {
    let first = build(vec![to(1), to(2)], None);
    let second = build(vec![to(2), to(3)], Some(&first));
    let third = build(vec![to(3), to(4)], Some(&second));
    // A worker goes on with the snapshot it has, another has the next already.
    let new = second.members();
    let old = first.members();
    assert!(Arc::ptr_eq(&old[1].endpoint, &new[0].endpoint), "equal endpoints are the same whoever made them");
    let removed = |members: &[Member]| members.iter().map(|m| m.endpoint.is_removed()).collect::<Vec<_>>();
    assert_eq!((removed(old), removed(new)), (vec![true, false], vec![false, false]));
    assert!(Arc::ptr_eq(first.breaker(false), second.breaker(false)));
    assert_eq!(removed(third.members()), [false, false]);
    assert_eq!(removed(new), [true, false]);
    third.retire();
    assert_eq!(removed(third.members()), [true, true]);
    let fourth = build(vec![to(9)], Some(&third));
    assert_eq!(removed(fourth.members()), [true], "retired for good");
}

#[test]
fn thresholds_are_those_of_the_newest_view_in_use() {
    let with = |max_requests: u32, previous: Option<&Arc<Cluster>>| {
        let mut config = config("c", eds());
        config.breaker.max_requests = max_requests;
        Cluster::build(Arc::new(config), None, &deps(), previous).unwrap()
    };
    let first = with(1, None);
    let second = with(2, Some(&first));
    let permits: Vec<_> = std::iter::from_fn(|| second.breaker(false).try_request()).collect();
    assert_eq!(permits.len(), 2);
    assert!(first.breaker(false).try_request().is_none());
    drop(permits);
    let again: Vec<_> = std::iter::from_fn(|| first.breaker(false).try_request()).collect();
    assert_eq!(again.len(), 2, "the older view changes nothing");
}

#[test]
fn without_its_tls_a_cluster_connects_to_nobody() {
    let config = Arc::new(config("o", Discovery::OriginalDst { port_override: None }));
    let mut cluster = Cluster::build(config, None, &deps(), None).unwrap();
    let context = PickContext { original_dst: Some(SocketAddr::from(([10, 0, 0, 1], 80))), ..PickContext::default() };
    cluster.pick(&context).unwrap();
    // What `build` refuses and only a fault could bring about.
    let mut tls = ir::secret::UpstreamTls {
        common: ir::secret::CommonTls::default(),
        sni: Some("not a name".into()),
        auto_host_sni: false,
        max_session_keys: 1,
    };
    let mut broken = (*cluster.config).clone();
    broken.tls = Some(Arc::new(tls.clone()));
    assert!(Cluster::build(Arc::new(broken.clone()), None, &deps(), None).unwrap_err().contains("not a name"));
    let inner = Arc::get_mut(&mut cluster).unwrap();
    (inner.config, inner.parts, inner.turn) = (Arc::new(broken), OnceLock::new(), 1);
    assert_eq!(cluster.pick(&context).unwrap_err(), PickError::NoneHealthy);
    tls.sni = None;
    let mut good = (*cluster.config).clone();
    good.tls = Some(Arc::new(tls));
    assert!(Cluster::build(Arc::new(good), None, &deps(), Some(&cluster)).unwrap().pick(&context).is_ok());
}

#[test]
fn an_unused_cluster_is_small() {
    let sizes = [size_of::<Cluster>(), size_of::<Life>(), size_of::<Sharded<ClusterStats>>(), size_of::<Member>()];
    let bounds = [104, 48, 24, 24];
    assert!(sizes.iter().zip(bounds).all(|(size, bound)| *size <= bound), "{sizes:?} of at most {bounds:?}");
}

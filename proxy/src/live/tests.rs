use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    testing::{builder, cluster, snapshot, statics, tcp_listener, tcp_proxy},
    *,
};
use crate::{
    ir::{
        ConfigSource,
        cluster::Discovery,
        endpoint::{Address, Assignment},
    },
    upstream::testing as up,
};

fn endpoint(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// `count` EDS clusters with one endpoint each.
fn mesh(count: u16) -> Snapshot {
    let mut snapshot = Snapshot { version: 1, ..Snapshot::default() };
    for i in 0..count {
        let name: Name = format!("outbound|80||service-{i:05}.default.svc.cluster.local").into();
        let discovery = Discovery::Eds { service_name: name.clone(), source: ConfigSource::Ads };
        snapshot.clusters.insert(name.clone(), Arc::new(up::config(&name, discovery)));
        snapshot.endpoints.insert(name, assignment(i));
    }
    snapshot
}

fn assignment(port: u16) -> Arc<Assignment> {
    up::assignment(vec![up::endpoint(Address::Ip(endpoint(port)))])
}

fn same_clusters(before: &Live, after: &Live) -> usize {
    after.clusters().filter(|c| before.cluster(&c.config.name).is_some_and(|b| Arc::ptr_eq(b, c))).count()
}

#[test]
fn one_endpoint_update_rebuilds_one_cluster_and_shares_every_other_table() {
    let builder = builder();
    let mut next = mesh(300);
    let (before, problems) = builder.build(&Arc::new(next.clone()), &Resolved::default(), &Live::default());
    assert_eq!((problems, before.clusters().len()), (vec![], 300));
    let name = next.endpoints.keys().nth(123).unwrap().clone();
    next.endpoints.insert(name.clone(), assignment(9999));
    next.version = 2;
    let (after, _) = builder.build(&Arc::new(next), &Resolved::default(), &before);
    assert_eq!((after.version, after.clusters().len()), (2, 300));
    assert_eq!(same_clusters(&before, &after), 299);
    assert_eq!(after.cluster(&name).unwrap().members()[0].endpoint.address, Address::Ip(endpoint(9999)));
    assert!(after.same_listeners(&before) && Arc::ptr_eq(&after.addresses, &before.addresses));
    assert!(after.routes.is_same(&before.routes));
    assert!(!after.clusters_reconfigured(&before));
}

#[test]
fn a_change_of_health_rebuilds_its_cluster_and_nothing_else() {
    let builder = builder();
    let snapshot = Arc::new(mesh(50));
    let (before, _) = builder.build(&snapshot, &Resolved::default(), &Live::default());
    let name = snapshot.clusters.keys().nth(7).unwrap().clone();
    let endpoint = before.cluster(&name).unwrap().members()[0].endpoint.clone();
    let after = builder.refresh(&[name.clone(), "gone".into()], &before);
    assert_eq!((after.version, same_clusters(&before, &after)), (1, 49));
    assert!(Arc::ptr_eq(&after.cluster(&name).unwrap().members()[0].endpoint, &endpoint));
    assert!(after.same_listeners(&before) && !after.clusters_reconfigured(&before));
    let (next, _) = builder.build(&snapshot, &Resolved::default(), &after);
    assert_eq!(same_clusters(&after, &next), 50, "the next build has nothing to do");
}

#[test]
fn nothing_new_is_nothing_built() {
    let builder = builder();
    let snapshot = Arc::new(mesh(10));
    let (before, _) = builder.build(&snapshot, &Resolved::default(), &Live::default());
    let (after, _) = builder.build(&Arc::new((*snapshot).clone()), &Resolved::default(), &before);
    assert!(before.clusters.is_same(&after.clusters));
    assert!(after.removed_clusters(&before).is_empty() && before.removed_chains(&after).is_empty());
}

#[test]
fn an_endpoint_update_of_a_large_mesh_rebuilds_one_cluster() {
    let builder = builder();
    let mut next = mesh(500);
    let (mut live, _) = builder.build(&Arc::new(next.clone()), &Resolved::default(), &Live::default());
    let name = next.endpoints.keys().nth(250).unwrap().clone();
    for port in 0..20 {
        next.endpoints.insert(name.clone(), assignment(port));
        let (after, _) = builder.build(&Arc::new(next.clone()), &Resolved::default(), &live);
        let removed = live.removed_clusters(&after).len() + live.removed_chains(&after).len();
        assert_eq!((same_clusters(&live, &after), removed), (499, 0));
        live = after;
    }
}

#[test]
fn endpoints_reach_every_cluster_that_uses_them_whatever_its_name() {
    let builder = builder();
    let eds = |name: &str, service: &str| {
        Arc::new(up::config(name, Discovery::Eds { service_name: service.into(), source: ConfigSource::Ads }))
    };
    let mut next = Snapshot::default();
    for (name, service) in [("a", "shared"), ("b", "shared"), ("shared", "shared"), ("c", "c")] {
        next.clusters.insert(name.into(), eds(name, service));
    }
    let none = Resolved::default();
    let ports = |live: &Live| {
        let port = |name: &str| match live.cluster(name)?.members().first()?.endpoint.address {
            Address::Ip(address) => Some(address.port()),
            _ => None,
        };
        ["a", "b", "shared", "c"].map(port)
    };
    let (mut live, _) = builder.build(&Arc::new(next.clone()), &none, &Live::default());
    assert_eq!(ports(&live), [None; 4]);
    next.endpoints.insert("shared".into(), assignment(1));
    (live, _) = builder.build(&Arc::new(next.clone()), &none, &live);
    assert_eq!(ports(&live), [Some(1), Some(1), Some(1), None]);
    // One leaves, one goes.
    next.clusters.insert("a".into(), eds("a", "c"));
    next.clusters.remove("b");
    next.endpoints.insert("c".into(), assignment(2));
    (live, _) = builder.build(&Arc::new(next.clone()), &none, &live);
    assert_eq!(ports(&live), [Some(2), None, Some(1), Some(2)]);
    next.endpoints.insert("shared".into(), assignment(3));
    next.endpoints.insert("c".into(), assignment(4));
    (live, _) = builder.build(&Arc::new(next.clone()), &none, &live);
    assert_eq!(ports(&live), [Some(4), None, Some(3), Some(4)]);
    assert_eq!(live.services.keys().map(|n| &**n).collect::<Vec<_>>(), ["c"]);
    next.endpoints.remove("c");
    (live, _) = builder.build(&Arc::new(next.clone()), &none, &live);
    assert_eq!(ports(&live), [None, None, Some(3), None]);
}

#[test]
fn clusters_come_and_go() {
    let builder = builder();
    let (before, _) = builder.build(&Arc::new(mesh(3)), &Resolved::default(), &Live::default());
    let (after, _) = builder.build(&Arc::new(mesh(2)), &Resolved::default(), &before);
    assert_eq!(after.clusters().len(), 2);
    assert!(after.clusters_reconfigured(&before));
    let removed = before.removed_clusters(&after);
    assert_eq!(removed.len(), 1);
    assert!(!removed[0].members()[0].endpoint.is_removed());
    removed[0].retire();
    assert!(removed[0].members()[0].endpoint.is_removed());
}

#[test]
fn names_that_resolve_give_their_cluster_endpoints() {
    let builder = builder();
    let yaml = "static_resources: {clusters: [{name: dns, type: STRICT_DNS, load_assignment: {cluster_name: dns, \
                endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: a.test, port_value: 1}}}}]}]}}]}";
    let snapshot = snapshot(1, yaml);
    let (before, _) = builder.build(&snapshot, &Resolved::default(), &Live::default());
    assert!(before.cluster("dns").unwrap().members().is_empty());
    let resolved: Resolved = Arc::new(HashMap::from([("dns".into(), assignment(7))]));
    let (after, _) = builder.build(&snapshot, &resolved, &before);
    assert_eq!(after.cluster("dns").unwrap().members().len(), 1);
    let (again, _) = builder.build(&snapshot, &Arc::new((*resolved).clone()), &after);
    assert_eq!(same_clusters(&after, &again), 1, "the same answer is nothing new");
}

#[test]
fn chains_that_stay_equal_stay_the_same_object() {
    let builder = builder();
    let chain = |port: u16, cluster: &str| {
        format!("\n    - filter_chain_match: {{destination_port: {port}}}\n      filters: [{}]", tcp_proxy(cluster))
    };
    let listener = |chains: &[String]| {
        let text = format!(
            "static_resources:\n  listeners:\n  - name: l\n    address: {{socket_address: {{address: 127.0.0.1, \
             port_value: 1}}}}\n    filter_chains:{}\n  clusters:{}{}",
            chains.concat(),
            cluster("a", endpoint(1)),
            cluster("b", endpoint(2))
        );
        snapshot(1, &text)
    };
    let none = Resolved::default();
    let (before, problems) = builder.build(&listener(&[chain(1, "a"), chain(2, "a")]), &none, &Live::default());
    assert_eq!(problems, []);
    let (after, _) = builder.build(&listener(&[chain(2, "a"), chain(1, "b")]), &none, &before);
    let (old, new) = (&before.listeners["l"], &after.listeners["l"]);
    assert!(Arc::ptr_eq(&old.chains[1], &new.chains[0]), "moved, not changed");
    assert!(Arc::ptr_eq(&old.open, &new.open));
    let removed = before.removed_chains(&after);
    assert_eq!(removed.len(), 1);
    assert!(Arc::ptr_eq(&removed[0], &old.chains[0]));
    let (gone, _) = builder.build(&Arc::default(), &none, &after);
    assert_eq!(after.removed_chains(&gone).len(), 2);
}

#[test]
fn what_cannot_be_built_keeps_its_former_version_and_is_tried_again() {
    let builder = builder();
    let good = snapshot(1, &statics(&[tcp_listener("l", "127.0.0.1", 1, "c", "")], &[cluster("c", endpoint(1))]));
    let none = Resolved::default();
    let (first, _) = builder.build(&good, &none, &Live::default());
    let mut bad = (*good).clone();
    let mut listener = (*good.listeners["l"]).clone();
    listener.chains = vec![listener.chains[0].clone(), listener.chains[0].clone()];
    bad.listeners.insert("l".into(), Arc::new(listener.clone()));
    listener.name = "new".into();
    bad.listeners.insert("new".into(), Arc::new(listener));
    let bad = Arc::new(bad);
    let mut live = first;
    for _ in 0..2 {
        let kept = live.listeners["l"].clone();
        let (after, problems) = builder.build(&bad, &none, &live);
        let named: Vec<&str> = problems.iter().map(|p| &*p.resource).collect();
        assert_eq!(named, ["l", "new"], "said at every build as long as it lasts");
        assert!(problems[0].reason.contains("same matching rules"), "{problems:?}");
        assert!(Arc::ptr_eq(&after.listeners["l"], &kept) && after.listener("new").is_none());
        live = after;
    }
    let (healed, problems) = builder.build(&good, &none, &live);
    assert_eq!((problems, healed.listeners.len()), (vec![], 1));
    assert!(!check(&bad, &builder.secrets).is_empty() && check(&good, &builder.secrets).is_empty());
}

#[test]
fn addresses_are_found_exact_first_and_conflicts_are_named() {
    let builder = builder();
    let unbound = "bind_to_port: false";
    let listeners = [
        tcp_listener("capture", "0.0.0.0", 15001, "c", "use_original_dst: true"),
        tcp_listener("exact", "10.0.0.1", 80, "c", unbound),
        tcp_listener("port-80", "0.0.0.0", 80, "c", unbound),
        tcp_listener("port-90", "::", 90, "c", unbound),
    ];
    let mut snapshot = (*snapshot(1, &statics(&listeners, &[cluster("c", endpoint(1))]))).clone();
    let mut second = (*snapshot.listeners["capture"]).clone();
    second.name = "second".into();
    snapshot.listeners.insert("second".into(), Arc::new(second));
    let snapshot = Arc::new(snapshot);
    let (live, _) = builder.build(&snapshot, &Resolved::default(), &Live::default());
    let name = |to: &str| live.hand_off(to.parse().unwrap()).map(|l| l.config.name.to_string());
    assert_eq!(name("10.0.0.1:80").as_deref(), Some("exact"));
    assert_eq!(name("10.0.0.2:80").as_deref(), Some("port-80"));
    assert_eq!(name("[fd00::1]:80"), None, "an IPv4 wildcard is no IPv6 wildcard");
    assert_eq!(name("10.0.0.1:90").as_deref(), Some("port-90"));
    assert_eq!(name("10.0.0.1:91"), None);
    let bound = live.bound(&Claim::Address("0.0.0.0:15001".parse().unwrap())).unwrap();
    assert_eq!(&*bound.config.name, "capture");
    assert!(live.bound(&Claim::Address("0.0.0.0:80".parse().unwrap())).is_none(), "nothing is bound there");
    assert!(live.captures(15001) && !live.captures(80));
    assert_eq!(live.conflicts().iter().map(|(n, _)| &**n).collect::<Vec<_>>(), ["second"]);
}

#[test]
fn readers_on_other_threads_only_ever_see_newer_snapshots() {
    let publisher = Arc::new(Publisher::default());
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (publisher, done) = (publisher.clone(), done.clone());
            std::thread::spawn(move || {
                let reader = Reader::new(publisher);
                let mut last = 0;
                while !done.load(Ordering::Acquire) {
                    let version = reader.get().version;
                    assert!(version >= last, "{version} after {last}");
                    last = version;
                }
                reader.get().version
            })
        })
        .collect();
    for version in 1..=2000 {
        let previous = publisher.publish(Arc::new(Live { version, ..Live::default() }));
        assert_eq!(previous.version, version - 1);
    }
    done.store(true, Ordering::Release);
    for reader in readers {
        assert_eq!(reader.join().unwrap(), 2000);
    }
}

#[test]
fn a_reader_lets_go_of_the_old_snapshot_at_the_next_look() {
    let publisher = Arc::new(Publisher::default());
    let reader = Reader::new(publisher.clone());
    let old = publisher.publish(Arc::new(Live { version: 1, ..Live::default() }));
    assert_eq!(Arc::strong_count(&old), 2, "the reader's cache and ours");
    drop(reader.get());
    assert_eq!(Arc::strong_count(&old), 1);
}

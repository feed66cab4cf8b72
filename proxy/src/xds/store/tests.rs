use std::time::Instant;

use outrigger_wire::pb::google::protobuf::Any;

use super::*;
use crate::ir::secret::Secret;
use crate::xds::{
    client::Item,
    testing::{self, bare, eds, endpoints, fixed, listener, now, routes, secret},
};

/// A store with LDS and CDS over the aggregated stream, and a clock that moves by hand.
struct Bed {
    store: Store,
    start: Instant,
    seconds: u64,
    snapshot: Snapshot,
    deadline: Option<Instant>,
}

impl Bed {
    fn new(config: StartConfig) -> Self {
        let config = StartConfig { lds: Some(ConfigSource::Ads), cds: Some(ConfigSource::Ads), ..config };
        let start = Instant::now();
        let mut bed = Self {
            store: Store::new(&config, testing::decode, now(start, 0)),
            start,
            seconds: 0,
            snapshot: Snapshot::default(),
            deadline: None,
        };
        bed.at(0);
        bed
    }

    fn bare() -> Self {
        Self::new(StartConfig::default())
    }

    fn now(&self) -> Now {
        now(self.start, self.seconds)
    }

    /// Lets time pass; returns whether that published anything.
    fn at(&mut self, seconds: u64) -> bool {
        self.seconds = seconds;
        self.deadline = self.store.resolve(self.now());
        match self.store.publish() {
            Some(snapshot) => {
                self.snapshot = snapshot;
                true
            }
            None => false,
        }
    }

    fn deliver(&mut self, kind: Kind, version: &str, full: bool, items: Vec<Item>, removed: &[&str]) -> Applied {
        self.from(&ConfigSource::Ads, kind, version, full, items, removed)
    }

    fn from(
        &mut self,
        source: &ConfigSource,
        kind: Kind,
        version: &str,
        full: bool,
        items: Vec<Item>,
        removed: &[&str],
    ) -> Applied {
        let removed: Vec<String> = removed.iter().map(|r| (*r).to_owned()).collect();
        let prepared = items.into_iter().map(|item| prepare(&self.store, source, kind, item)).collect();
        let frame = Frame { source, kind, version, full, removed: &removed };
        let applied = self.store.apply(&frame, prepared, self.now());
        self.at(self.seconds);
        applied
    }

    /// A state-of-the-world response that must be accepted.
    fn sotw(&mut self, kind: Kind, resources: impl IntoIterator<Item = Any>) {
        let applied = self.deliver(kind, "1", true, resources.into_iter().map(bare).collect(), &[]);
        assert_eq!(applied.error(), None);
    }

    fn clusters(&self) -> Vec<&str> {
        self.snapshot.clusters.keys().map(|n| &**n).collect()
    }

    fn listeners(&self) -> Vec<&str> {
        self.snapshot.listeners.keys().map(|n| &**n).collect()
    }

    fn wanted(&self, kind: Kind) -> Vec<&str> {
        self.store
            .subscriptions()
            .iter()
            .filter(|((_, k), _)| *k == kind)
            .flat_map(|(_, w)| &w.names)
            .map(|n| &**n)
            .collect()
    }

    /// Which version of a cluster is in force.
    fn version_of(&self, cluster: &str) -> u64 {
        self.snapshot.clusters[cluster].connect_timeout.as_secs()
    }
}

#[test]
fn a_cluster_waits_for_its_endpoints() {
    let mut bed = Bed::bare();
    bed.sotw(Kind::Cluster, [eds("a", 1, ""), fixed("b", 1, "")]);
    assert_eq!(bed.clusters(), ["b"]);
    assert_eq!(bed.wanted(Kind::Endpoints), ["a"]);
    assert_eq!(bed.store.waiting(), [(Kind::Cluster, "a".into(), "eds a".to_owned())]);
    bed.sotw(Kind::Endpoints, [endpoints("a", 100)]);
    assert_eq!(bed.clusters(), ["a", "b"]);
    assert_eq!(bed.snapshot.endpoints["a"].overprovisioning, 100);
    assert!(bed.store.waiting().is_empty());
}

#[test]
fn endpoints_may_time_out_at_first_activation_only() {
    let mut bed = Bed::bare();
    bed.sotw(Kind::Cluster, [eds("a", 1, "")]);
    assert!(!bed.at(14));
    assert_eq!(bed.deadline, Some(bed.start + Duration::from_secs(15)));
    assert!(bed.at(15));
    assert_eq!(bed.clusters(), ["a"]);
    // Moving to another service must not lose the endpoints that work, however long it takes.
    bed.sotw(Kind::Endpoints, [endpoints("a", 100)]);
    bed.sotw(Kind::Cluster, [eds("a", 2, "service=other")]);
    assert_eq!(bed.wanted(Kind::Endpoints), ["a", "other"]);
    bed.at(1000);
    assert_eq!(bed.version_of("a"), 1);
    bed.sotw(Kind::Endpoints, [endpoints("other", 100)]);
    assert_eq!(bed.version_of("a"), 2);
    assert_eq!(bed.wanted(Kind::Endpoints), ["other"]);
    assert!(!bed.snapshot.endpoints.contains_key("a"));
}

#[test]
fn a_cluster_waits_for_its_secrets() {
    let mut bed = Bed::bare();
    bed.sotw(Kind::Cluster, [fixed("a", 1, "secrets=s,t")]);
    assert_eq!(bed.wanted(Kind::Secret), ["s", "t"]);
    bed.sotw(Kind::Secret, [secret("s", 1)]);
    assert!(bed.clusters().is_empty());
    bed.sotw(Kind::Secret, [secret("t", 1)]);
    assert_eq!(bed.clusters(), ["a"]);
    // A rotation does not touch the cluster.
    let before = Arc::clone(&bed.snapshot.clusters["a"]);
    bed.sotw(Kind::Secret, [secret("s", 2)]);
    assert!(Arc::ptr_eq(&before, &bed.snapshot.clusters["a"]));
    assert_ne!(bed.snapshot.secrets["s"], bed.snapshot.secrets["t"]);
}

#[test]
fn a_listener_waits_for_routes_and_their_clusters() {
    let mut bed = Bed::bare();
    bed.sotw(Kind::Cluster, [eds("a", 1, "")]);
    bed.sotw(Kind::Listener, [listener("l", "rds=r"), listener("m", "tcp=a"), listener("n", "inline=a")]);
    assert_eq!(bed.wanted(Kind::Routes), ["r"]);
    assert!(bed.listeners().is_empty());
    bed.sotw(Kind::Routes, [routes("r", "a,unknown")]);
    assert!(bed.listeners().is_empty());
    bed.sotw(Kind::Endpoints, [endpoints("a", 100)]);
    assert_eq!(bed.listeners(), ["l", "m", "n"]);
    assert!(bed.snapshot.routes.contains_key("r"));
}

#[test]
fn routes_are_waited_for_for_ever_unless_said_otherwise() {
    let mut bed = Bed::bare();
    bed.sotw(Kind::Cluster, []);
    bed.sotw(Kind::Listener, [listener("l", "rds=r")]);
    bed.at(100_000);
    assert!(bed.listeners().is_empty());
    let warming = Warming { routes: Some(Duration::from_secs(3)), ..Warming::default() };
    let mut bed = Bed::new(StartConfig { warming, ..StartConfig::default() });
    bed.sotw(Kind::Cluster, []);
    bed.sotw(Kind::Listener, [listener("l", "rds=r")]);
    bed.at(3);
    assert_eq!(bed.listeners(), ["l"]);
}

#[test]
fn listeners_wait_for_the_first_clusters_or_their_time() {
    let mut bed = Bed::bare();
    bed.sotw(Kind::Listener, [listener("l", "tcp=a"), listener("m", "")]);
    assert_eq!(bed.listeners(), ["m"]);
    bed.at(14);
    assert_eq!(bed.listeners(), ["m"]);
    assert!(!bed.store.settled(bed.now()));
    bed.at(15);
    assert_eq!(bed.listeners(), ["l", "m"]);
    assert!(bed.store.settled(bed.now()) && !bed.store.received(Kind::Cluster));
}

#[test]
fn a_replacement_waits_while_its_predecessor_serves() {
    let mut bed = Bed::bare();
    bed.sotw(Kind::Cluster, [fixed("a", 1, "")]);
    bed.sotw(Kind::Listener, [listener("l", "rds=r")]);
    bed.sotw(Kind::Routes, [routes("r", "a")]);
    let before = Arc::clone(&bed.snapshot.listeners["l"]);
    bed.sotw(Kind::Listener, [listener("l", "rds=q;secrets=s")]);
    assert!(Arc::ptr_eq(&before, &bed.snapshot.listeners["l"]));
    assert!(bed.snapshot.routes.contains_key("r"), "still in use");
    bed.sotw(Kind::Routes, [routes("q", "a")]);
    bed.at(1000);
    assert!(Arc::ptr_eq(&before, &bed.snapshot.listeners["l"]), "the secret is missing");
    bed.sotw(Kind::Secret, [secret("s", 1)]);
    assert!(!Arc::ptr_eq(&before, &bed.snapshot.listeners["l"]));
    assert_eq!(bed.snapshot.routes.keys().map(|n| &**n).collect::<Vec<_>>(), ["q"]);
}

#[test]
fn new_routes_wait_for_new_clusters_and_old_clusters_for_new_routes() {
    let mut bed = Bed::bare();
    bed.sotw(Kind::Cluster, [eds("v1", 1, "")]);
    bed.sotw(Kind::Endpoints, [endpoints("v1", 1)]);
    bed.sotw(Kind::Listener, [listener("l", "rds=r")]);
    bed.sotw(Kind::Routes, [routes("r", "v1")]);
    assert_eq!(bed.listeners(), ["l"]);
    // Every name changes, as go-control-plane's test server does it: clusters first, routes later.
    bed.sotw(Kind::Cluster, [eds("v2", 1, "")]);
    assert_eq!(bed.clusters(), ["v1"], "in use");
    assert!(bed.snapshot.endpoints.contains_key("v1"));
    let old = Arc::clone(&bed.snapshot.routes["r"]);
    bed.sotw(Kind::Routes, [routes("r", "v2")]);
    assert!(Arc::ptr_eq(&old, &bed.snapshot.routes["r"]), "v2 is not warm");
    assert_eq!(bed.clusters(), ["v1"]);
    bed.sotw(Kind::Endpoints, [endpoints("v2", 1)]);
    assert_eq!(bed.clusters(), ["v2"], "routes moved, v1 went");
    assert!(!Arc::ptr_eq(&old, &bed.snapshot.routes["r"]));
    assert!(!bed.snapshot.endpoints.contains_key("v1"));
}

#[test]
fn a_removed_cluster_that_routes_keep_naming_goes_after_the_grace() {
    let mut bed = Bed::bare();
    bed.sotw(Kind::Cluster, [fixed("a", 1, "")]);
    bed.sotw(Kind::Listener, [listener("l", "tcp=a")]);
    bed.sotw(Kind::Cluster, []);
    assert_eq!(bed.clusters(), ["a"]);
    bed.at(14);
    assert_eq!(bed.clusters(), ["a"]);
    assert!(bed.at(15));
    assert!(bed.clusters().is_empty());
    assert_eq!(bed.listeners(), ["l"]);
    // And comes back like any other.
    bed.sotw(Kind::Cluster, [fixed("a", 1, "")]);
    assert_eq!(bed.clusters(), ["a"]);
}

#[test]
fn a_removed_cluster_that_returns_in_time_never_left() {
    let mut bed = Bed::bare();
    bed.sotw(Kind::Cluster, [fixed("a", 1, "")]);
    bed.sotw(Kind::Listener, [listener("l", "tcp=a")]);
    let before = Arc::clone(&bed.snapshot.clusters["a"]);
    bed.sotw(Kind::Cluster, []);
    bed.at(10);
    bed.sotw(Kind::Cluster, [fixed("a", 1, "")]);
    bed.at(100);
    assert!(Arc::ptr_eq(&before, &bed.snapshot.clusters["a"]));
}

#[test]
fn removed_listeners_go_at_once_unless_their_address_has_a_successor() {
    let mut bed = Bed::bare();
    bed.sotw(Kind::Cluster, []);
    bed.sotw(Kind::Listener, [listener("l", "addr=127.0.0.1:80"), listener("m", "addr=127.0.0.1:81")]);
    assert_eq!(bed.listeners(), ["l", "m"]);
    bed.sotw(Kind::Listener, [listener("n", "addr=127.0.0.1:80;rds=r")]);
    assert_eq!(bed.listeners(), ["l"], "m has none");
    bed.sotw(Kind::Routes, [routes("r", "")]);
    assert_eq!(bed.listeners(), ["n"]);
}

#[test]
fn an_equal_update_publishes_nothing_and_keeps_the_objects() {
    let mut bed = Bed::bare();
    bed.sotw(Kind::Cluster, [eds("a", 1, "")]);
    bed.sotw(Kind::Endpoints, [endpoints("a", 1)]);
    let (version, before) = (bed.snapshot.version, Arc::clone(&bed.snapshot.clusters["a"]));
    let applied = bed.deliver(Kind::Cluster, "2", true, vec![bare(eds("a", 1, ""))], &[]);
    assert_eq!(applied.error(), None);
    // Other bytes, the same meaning: an unknown field is appended.
    let mut other = eds("a", 1, "");
    other.value.extend([0xf8, 0xff, 0x07, 0x01]);
    bed.deliver(Kind::Cluster, "3", true, vec![bare(other)], &[]);
    assert_eq!(bed.snapshot.version, version);
    assert!(Arc::ptr_eq(&before, &bed.snapshot.clusters["a"]));
    let slot = &bed.store.table(Kind::Cluster)["a"];
    assert_eq!(&*slot.active.as_ref().unwrap().version, "3");
}

#[test]
fn bad_resources_are_refused_alone_and_keep_their_last_good_version() {
    let mut bed = Bed::bare();
    bed.sotw(Kind::Cluster, [fixed("a", 1, ""), fixed("b", 1, "")]);
    let mut broken = fixed("a", 2, "");
    broken.value.extend([0xff, 0xff]);
    let wrong = Any { type_url: "type.googleapis.com/envoy.config.listener.v3.Listener".into(), ..fixed("w", 1, "") };
    let applied = bed.deliver(
        Kind::Cluster,
        "2",
        true,
        vec![bare(fixed("c", 1, "")), bare(fixed("bad1", 1, "")), bare(broken), bare(wrong), bare(fixed("b", 2, ""))],
        &[],
    );
    let names: Vec<&str> = applied.rejected.iter().map(|r| &*r.name).collect();
    assert_eq!(names, ["bad1", "resources[2]", "resources[3]"]);
    let error = applied.error().unwrap();
    assert!(error.contains("bad1: some.path: bad by name"), "{error}");
    assert!(error.contains("envoy.config.listener.v3.Listener"), "{error}");
    // One resource could not be named, so nothing may be taken for removed.
    assert_eq!(bed.clusters(), ["a", "b", "c"]);
    assert_eq!((bed.version_of("a"), bed.version_of("b")), (1, 2));
    let failure = bed.store.table(Kind::Cluster)["bad1"].failure.as_ref().unwrap();
    assert_eq!(&*failure.version, "2");
}

#[test]
fn a_bad_version_of_a_known_resource_keeps_the_good_one_and_heals() {
    let mut bed = Bed::bare();
    bed.sotw(Kind::Cluster, []);
    bed.sotw(Kind::Listener, [listener("l", "tcp=a")]);
    let mut broken = listener("l", "");
    // The name is readable, the rest is not: field 3 with a length beyond the end.
    broken.value.extend([0x1a, 0x7f]);
    let applied = bed.deliver(Kind::Listener, "2", true, vec![bare(broken.clone())], &[]);
    assert_eq!(applied.rejected.len(), 1);
    assert_eq!(bed.listeners(), ["l"]);
    let applied = bed.deliver(Kind::Listener, "3", true, vec![bare(listener("l", "tcp=b"))], &[]);
    assert_eq!(applied.error(), None);
    assert!(bed.store.table(Kind::Listener)["l"].failure.is_none());
}

#[test]
fn duplicates_and_misnamed_resources_are_refused() {
    let mut bed = Bed::bare();
    let applied = bed.deliver(Kind::Cluster, "1", true, vec![bare(fixed("a", 1, "")), bare(fixed("a", 2, ""))], &[]);
    assert!(applied.error().unwrap().contains("twice"));
    assert_eq!(bed.version_of("a"), 1);
    let item = Item { name: "x".into(), ..bare(fixed("y", 1, "")) };
    let applied = bed.deliver(Kind::Cluster, "2", false, vec![item], &[]);
    assert!(applied.error().unwrap().contains("`x`"), "{applied:?}");
    assert_eq!(bed.clusters(), ["a"]);
}

#[test]
fn the_error_text_is_bounded() {
    let mut bed = Bed::bare();
    let items = (0..500).map(|i| bare(fixed(&format!("bad{i}"), 1, ""))).collect();
    let applied = bed.deliver(Kind::Cluster, "1", true, items, &[]);
    assert_eq!((applied.rejected.len(), applied.more), (100, 400));
    assert!(applied.error().unwrap().ends_with("and 400 more"));
}

#[test]
fn absence_removes_wildcard_types_only() {
    let mut bed = Bed::bare();
    bed.sotw(Kind::Cluster, [eds("a", 1, ""), eds("b", 1, "")]);
    bed.sotw(Kind::Endpoints, [endpoints("a", 1)]);
    bed.sotw(Kind::Endpoints, [endpoints("b", 1)]);
    assert_eq!(bed.clusters(), ["a", "b"]);
    bed.sotw(Kind::Endpoints, []);
    assert_eq!(bed.snapshot.endpoints.len(), 2);
    bed.sotw(Kind::Cluster, [eds("b", 1, "")]);
    assert_eq!(bed.clusters(), ["b"]);
    assert_eq!(bed.wanted(Kind::Endpoints), ["b"]);
    assert_eq!(bed.snapshot.endpoints.len(), 1);
}

#[test]
fn delta_removal_of_what_is_still_referred_to_keeps_it_but_answers_the_wait() {
    let mut bed = Bed::bare();
    bed.deliver(Kind::Cluster, "", false, vec![bare(eds("a", 1, "")), bare(eds("b", 1, ""))], &[]);
    bed.deliver(Kind::Endpoints, "", false, vec![bare(endpoints("a", 1))], &[]);
    bed.deliver(Kind::Endpoints, "", false, vec![], &["a", "b", "nonsense"]);
    assert_eq!(bed.clusters(), ["a", "b"], "b exists without endpoints");
    assert_eq!(bed.snapshot.endpoints.len(), 1);
    bed.deliver(Kind::Cluster, "", false, vec![], &["a", "nonsense"]);
    assert_eq!(bed.clusters(), ["b"]);
}

#[test]
fn unwanted_resources_are_not_kept() {
    let mut bed = Bed::bare();
    bed.sotw(Kind::Cluster, [eds("a", 1, "")]);
    bed.sotw(Kind::Endpoints, [endpoints("a", 1), endpoints("stranger", 1)]);
    assert!(!bed.store.table(Kind::Endpoints).contains_key("stranger"));
    bed.sotw(Kind::Secret, [secret("s", 1)]);
    assert!(bed.store.table(Kind::Secret).is_empty());
}

#[test]
fn what_is_referred_to_again_within_a_moment_is_still_there() {
    let mut bed = Bed::bare();
    bed.sotw(Kind::Cluster, [eds("a", 1, "")]);
    bed.sotw(Kind::Endpoints, [endpoints("a", 1)]);
    bed.sotw(Kind::Cluster, []);
    assert!(bed.snapshot.endpoints.is_empty());
    // An update that crossed the unsubscription is taken.
    bed.sotw(Kind::Endpoints, [endpoints("a", 2)]);
    bed.sotw(Kind::Cluster, [eds("a", 1, "")]);
    assert_eq!(bed.clusters(), ["a"]);
    assert_eq!(bed.snapshot.endpoints["a"].overprovisioning, 2);
    bed.sotw(Kind::Cluster, []);
    bed.at(100);
    assert!(bed.store.table(Kind::Endpoints).is_empty());
}

#[test]
fn time_to_live_ends_and_heartbeats_extend_it() {
    let ttl = Some(Duration::from_secs(10));
    let mut bed = Bed::bare();
    bed.deliver(Kind::Cluster, "1", false, vec![Item { ttl, name: "a".into(), ..bare(eds("a", 1, "")) }], &[]);
    bed.deliver(Kind::Endpoints, "1", false, vec![Item { ttl, ..bare(endpoints("a", 1)) }], &[]);
    assert_eq!(bed.clusters(), ["a"]);
    bed.at(8);
    let beat = Item { name: "a".into(), version: "1".into(), body: None, ttl, error: None };
    bed.deliver(Kind::Cluster, "1", false, vec![beat], &[]);
    assert_eq!(bed.deadline, Some(bed.start + Duration::from_secs(10)));
    bed.at(10);
    assert_eq!(bed.clusters(), ["a"], "had a heartbeat");
    assert!(bed.snapshot.endpoints.is_empty(), "had none");
    bed.at(18);
    assert!(bed.clusters().is_empty());
}

#[test]
fn static_resources_stay_and_are_in_force_from_the_start() {
    let cluster = match testing::decode(&fixed("s", 7, ""), &mut Notes::default()).unwrap() {
        Resource::Cluster(cluster) => cluster,
        other => panic!("{other:?}"),
    };
    let statics = crate::xds::Statics { clusters: vec![cluster], ..Default::default() };
    let mut bed = Bed::new(StartConfig { statics, ..StartConfig::default() });
    assert_eq!((bed.clusters(), bed.snapshot.version), (vec!["s"], 1));
    bed.sotw(Kind::Cluster, [fixed("s", 8, ""), fixed("d", 1, "")]);
    assert_eq!((bed.clusters(), bed.version_of("s")), (vec!["d", "s"], 7));
    bed.sotw(Kind::Cluster, []);
    assert_eq!(bed.clusters(), ["s"]);
}

#[test]
fn names_of_our_own_identity_are_never_asked_for_nor_taken() {
    let identity = crate::xds::IdentityConfig::for_tests();
    let mut bed = Bed::new(StartConfig { identity: Some(identity), ..StartConfig::default() });
    bed.sotw(Kind::Cluster, [fixed("a", 1, "secrets=default,other")]);
    assert_eq!(bed.wanted(Kind::Secret), ["other"]);
    bed.sotw(Kind::Secret, [secret("default", 66), secret("other", 1)]);
    assert!(!bed.snapshot.secrets.contains_key("default"));
    assert!(bed.clusters().is_empty());
    let own = testing::decode(&secret("default", 1), &mut Notes::default()).unwrap();
    bed.store.set_local(own, bed.now());
    bed.at(1);
    assert_eq!(bed.clusters(), ["a"]);
    bed.sotw(Kind::Secret, [secret("default", 66)]);
    let Secret::Validation(v) = &*bed.snapshot.secrets["default"] else { panic!() };
    assert_eq!(v.spki_sha256[0][0], 1);
}

#[test]
fn references_to_the_bootstrap_ask_nobody() {
    let Resource::Secret { name, secret: own } = testing::decode(&secret("s", 1), &mut Notes::default()).unwrap()
    else {
        panic!()
    };
    let statics = crate::xds::Statics { secrets: vec![(name, own)], ..Default::default() };
    let mut bed = Bed::new(StartConfig { statics, ..StartConfig::default() });
    bed.sotw(Kind::Cluster, [fixed("a", 1, "secrets=s;via=static"), fixed("b", 1, "secrets=missing;via=static")]);
    assert_eq!(bed.wanted(Kind::Secret), [""; 0]);
    assert_eq!(bed.clusters(), ["a"]);
    bed.at(15);
    assert_eq!(bed.clusters(), ["a", "b"], "refuses handshakes, but is there");
}

#[test]
fn sources_are_kept_apart() {
    let mut bed = Bed::bare();
    bed.sotw(Kind::Cluster, [eds("a", 1, "via=grpc:x"), eds("b", 1, "via=self"), eds("c", 1, "via=file:/f")]);
    let grpc = ConfigSource::Grpc { cluster: "x".into(), delta: false };
    let keys: Vec<_> =
        bed.store.subscriptions().keys().filter(|(_, k)| *k == Kind::Endpoints).map(|(s, _)| s.clone()).collect();
    let path = ConfigSource::Path { path: "/f".into(), watched_directory: None };
    assert_eq!(keys, [ConfigSource::Ads, path, grpc.clone()]);
    bed.sotw(Kind::Endpoints, [endpoints("a", 1), endpoints("b", 1)]);
    assert_eq!(bed.clusters(), ["b"], "a is not the aggregated stream's to give");
    bed.from(&grpc, Kind::Endpoints, "1", true, vec![bare(endpoints("a", 1))], &[]);
    assert_eq!(bed.clusters(), ["a", "b"]);
    assert_eq!(bed.store.versions(&grpc, Kind::Endpoints), BTreeMap::from([("a".into(), "1".into())]));
    assert_eq!(bed.store.versions(&ConfigSource::Ads, Kind::Endpoints), BTreeMap::from([("b".into(), "1".into())]));
}

#[test]
fn the_default_source_address_reaches_dynamic_clusters() {
    let bind = Bind { source: "127.0.0.6:0".parse().unwrap(), extra: Vec::new(), freebind: false };
    let mut bed = Bed::new(StartConfig { upstream_bind: Some(bind.clone()), ..StartConfig::default() });
    bed.sotw(Kind::Cluster, [fixed("a", 1, "")]);
    assert_eq!(bed.snapshot.clusters["a"].bind, Some(bind));
}

#[test]
#[ignore = "prints figures; run by hand"]
fn five_thousand_clusters() {
    let mut bed = Bed::bare();
    let names: Vec<String> =
        (0..5000).map(|i| format!("outbound|8080||service-{i}.default.svc.cluster.local")).collect();
    let timed = |what: &str, from: Instant| println!("{what}: {:?}", from.elapsed());
    let from = Instant::now();
    bed.sotw(Kind::Cluster, names.iter().map(|n| eds(n, 1, "")));
    timed("clusters", from);
    let from = Instant::now();
    bed.sotw(Kind::Endpoints, names.iter().map(|n| endpoints(n, 1)));
    timed("endpoints", from);
    let from = Instant::now();
    bed.sotw(Kind::Cluster, names.iter().map(|n| eds(n, 1, "")));
    timed("equal clusters", from);
    let from = Instant::now();
    bed.sotw(Kind::Endpoints, [endpoints(&names[7], 2)]);
    timed("one assignment", from);
    assert_eq!(bed.clusters().len(), 5000);
}

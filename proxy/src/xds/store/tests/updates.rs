use super::*;

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
fn static_resources_are_replaced_together() {
    let decoded = |any: Any| testing::decode(&any, &mut Notes::default()).unwrap();
    let statics = |clusters: &[Any], listeners: &[Any], secrets: &[Any]| {
        let mut statics = crate::xds::Statics::default();
        for any in clusters.iter().chain(listeners).chain(secrets) {
            match decoded(any.clone()) {
                Resource::Cluster(cluster) => statics.clusters.push(cluster),
                Resource::Listener(listener) => statics.listeners.push(listener),
                Resource::Secret { name, secret } => statics.secrets.push((name, secret)),
                other => panic!("{other:?}"),
            }
        }
        statics
    };
    let before = statics(
        &[fixed("a", 1, "secrets=s;via=static"), fixed("gone", 1, "")],
        &[listener("l", "tcp=a"), listener("old", "tcp=gone")],
        &[secret("s", 1), secret("unused", 1)],
    );
    let mut bed = Bed::new(StartConfig { statics: before, ..StartConfig::default() });
    bed.sotw(Kind::Cluster, [fixed("d", 1, "")]);
    assert_eq!((bed.clusters(), bed.listeners()), (vec!["a", "d", "gone"], vec!["l", "old"]));
    let after = statics(
        &[fixed("a", 2, "secrets=s;via=static"), fixed("new", 1, "")],
        &[listener("l", "tcp=a"), listener("next", "tcp=new")],
        &[secret("s", 2)],
    );
    let kept = bed.snapshot.listeners["l"].clone();
    bed.store.replace_statics(&after, bed.now());
    bed.at(1);
    assert_eq!((bed.clusters(), bed.listeners()), (vec!["a", "d", "new"], vec!["l", "next"]));
    assert_eq!(bed.version_of("a"), 2);
    assert!(Arc::ptr_eq(&kept, &bed.snapshot.listeners["l"]), "what is equal is not touched");
    let Secret::Validation(v) = &*bed.snapshot.secrets["s"] else { panic!() };
    assert_eq!(v.spki_sha256[0][0], 2);
    assert!(!bed.snapshot.secrets.contains_key("unused"));
    bed.at(30);
    bed.audit();
    // The same again is nothing new.
    bed.store.replace_statics(&after, bed.now());
    assert!(!bed.at(31));
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

/// A resource in the wrapper that carries its time to live in state-of-the-world responses.
fn wrapped(name: &str, seconds: i64, resource: Option<Any>) -> Item {
    use outrigger_wire::pb::{envoy::service::discovery::v3 as pb, google::protobuf::Duration};
    use prost::Message;
    let wrapper =
        pb::Resource { name: name.into(), ttl: Some(Duration { seconds, nanos: 0 }), resource, ..Default::default() };
    bare(Any {
        type_url: "type.googleapis.com/envoy.service.discovery.v3.Resource".into(),
        value: wrapper.encode_to_vec(),
    })
}

#[test]
fn heartbeats_in_the_wrapper_remove_nothing() {
    let mut bed = Bed::bare();
    let items = vec![wrapped("a", 10, Some(fixed("a", 1, ""))), bare(fixed("b", 1, ""))];
    assert_eq!(bed.deliver(Kind::Cluster, "1", true, items, &[]).error(), None);
    assert_eq!(bed.clusters(), ["a", "b"]);
    bed.at(9);
    bed.deliver(Kind::Cluster, "1", true, vec![wrapped("a", 10, None)], &[]);
    bed.at(18);
    assert_eq!(bed.clusters(), ["a", "b"]);
    bed.at(19);
    assert_eq!(bed.clusters(), ["b"]);
    let applied = bed.deliver(Kind::Cluster, "1", true, vec![wrapped("x", 1, Some(fixed("y", 1, "")))], &[]);
    assert!(applied.error().unwrap().contains("`x`"));
}

#[test]
fn an_address_belongs_to_one_listener() {
    let mut bed = Bed::bare();
    bed.sotw(Kind::Cluster, []);
    let at = |name: &str, port: u16| listener(name, &format!("tcp=a;addr=127.0.0.1:{port}"));
    bed.sotw(Kind::Listener, [at("b", 1), at("c", 2)]);
    // Newcomers lose against who is there, before and after it in the update.
    let items = || vec![bare(at("a", 1)), bare(at("b", 1)), bare(at("c", 2)), bare(at("d", 2))];
    let applied = bed.deliver(Kind::Listener, "2", true, items(), &[]);
    let error = applied.error().unwrap();
    assert_eq!(
        error,
        "a: address: 127.0.0.1:1 is the listener `b`'s already\nd: address: 127.0.0.1:2 is the listener `c`'s already"
    );
    assert_eq!(bed.listeners(), ["b", "c"]);
    // An address moves within one update, to a new listener and in an exchange; the refused bytes are good now.
    let applied =
        bed.deliver(Kind::Listener, "3", true, vec![bare(at("a", 1)), bare(at("c", 3)), bare(at("d", 2))], &[]);
    assert_eq!(applied.error(), None);
    assert_eq!(bed.listeners(), ["a", "c", "d"]);
    let applied = bed.deliver(Kind::Listener, "4", false, vec![bare(at("a", 2)), bare(at("d", 1))], &[]);
    assert_eq!(applied.error(), None);
    // Delta: removed and taken at once; not removed and taken.
    let applied = bed.deliver(Kind::Listener, "5", false, vec![bare(at("e", 3))], &["c"]);
    assert_eq!(applied.error(), None);
    let applied = bed.deliver(Kind::Listener, "6", false, vec![bare(at("f", 3))], &[]);
    assert_eq!(applied.rejected.len(), 1);
}

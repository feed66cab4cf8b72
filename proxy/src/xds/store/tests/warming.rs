use super::*;

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

use std::time::{Instant, UNIX_EPOCH};

use super::{tests::owner, *};
use crate::{
    ir::ConfigSource,
    xds::{
        AdsConfig, StartConfig,
        client::Item,
        store::{Frame, Now, Store, prepare},
        testing::{decode, eds, endpoints, listener, routes},
    },
};

const AGE: Duration = Duration::from_secs(100_000);

struct Bench {
    start: Instant,
    config: StartConfig,
    keeper: Keeper,
    store: Store,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new(lds: ConfigSource, cds: ConfigSource) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let saved = SavedConfig { dir: dir.path().into(), max_age: AGE, patience: Duration::from_secs(5) };
        let ads = AdsConfig { cluster: "cp".into(), delta: false, metadata: vec![], authority: None };
        let config =
            StartConfig { saved: Some(saved), lds: Some(lds), cds: Some(cds), ads: Some(ads), ..Default::default() };
        let start = Instant::now();
        let now = Now { mono: start, wall: UNIX_EPOCH + Duration::from_secs(1_000_000) };
        let (keeper, store) = (Keeper::new(&config, now).unwrap(), Store::new(&config, decode, now));
        Self { start, config, keeper, store, _dir: dir }
    }

    fn ads() -> Self {
        Self::new(ConfigSource::Ads, ConfigSource::Ads)
    }

    fn now(&self, seconds: u64) -> Now {
        let wall = UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds);
        Now { mono: self.start + Duration::from_secs(seconds), wall }
    }

    /// As the driver takes an update.
    fn deliver(
        &mut self,
        source: &ConfigSource,
        kind: Kind,
        items: Vec<outrigger_wire::pb::google::protobuf::Any>,
        at: u64,
    ) {
        let now = self.now(at);
        let prepared = items.into_iter().map(|any| prepare(&self.store, source, kind, Item::bare(any))).collect();
        let frame = Frame { source, kind, version: "1", full: true, removed: &[] };
        self.store.apply(&frame, prepared, now);
        self.keeper.delivered(source, kind, true, now);
        self.store.resolve(now);
    }

    fn deliver_all(&mut self, at: u64) {
        let ads = ConfigSource::Ads;
        self.deliver(&ads, Kind::Cluster, vec![eds("a", 1, "")], at);
        self.deliver(&ads, Kind::Endpoints, vec![endpoints("a", 1)], at);
        self.deliver(&ads, Kind::Listener, vec![listener("l", "rds=r")], at);
        self.deliver(&ads, Kind::Routes, vec![routes("r", "a")], at);
    }

    /// Writes if that is due; whether it was.
    fn write(&mut self, at: u64) -> bool {
        let now = self.now(at);
        let Some(write) = self.keeper.take_due(&self.store, now) else { return false };
        let result = write();
        self.keeper.written(result, now);
        true
    }

    /// The date of the file, and how many resources it has.
    fn file(&self) -> Option<(u64, usize)> {
        let config = self.config.saved.as_ref().unwrap();
        let far = SavedConfig { max_age: Duration::from_secs(1 << 40), ..config.clone() };
        let wall = UNIX_EPOCH + Duration::from_secs(1_500_000);
        let found = load(&far, &Owner::new(&self.config), decode, wall)?.unwrap();
        let dated = found.last_word.duration_since(UNIX_EPOCH).unwrap().as_secs() - 1_000_000;
        Some((dated, found.kept.iter().flatten().count()))
    }
}

#[test]
fn only_what_nobody_delivered_is_to_be_restored() {
    let grpc = |cluster: &str| ConfigSource::Grpc { cluster: cluster.into(), delta: false };
    let found = || Some(Ok(Restorable { last_word: UNIX_EPOCH, kept: Default::default() }));
    let mut bench = Bench::new(grpc("x"), grpc("y"));
    bench.deliver(&grpc("x"), Kind::Listener, vec![listener("l", "")], 0);
    // Who delivers is not waited for, whatever becomes of its stream.
    bench.keeper.failed("grpc:x/lds", bench.now(1));
    bench.keeper.failed("grpc:x/lds", bench.now(1));
    assert!(bench.keeper.overdue(bench.now(4)).is_none());
    bench.keeper.failed("grpc:y/cds", bench.now(1));
    bench.keeper.failed("grpc:y/cds", bench.now(2));
    assert!(bench.keeper.overdue(bench.now(2)).is_some());
    let (_, missing) = bench.keeper.loaded(found()).unwrap();
    assert_eq!(missing, [Kind::Cluster].into());
    bench.keeper.restored(UNIX_EPOCH, &missing);
    assert!(bench.keeper.overdue(bench.now(60)).is_none(), "once");
    assert!(!bench.keeper.delivered(&grpc("x"), Kind::Cluster, true, bench.now(61)), "another source's");
    assert!(!bench.keeper.delivered(&grpc("y"), Kind::Cluster, false, bench.now(61)), "all of it refused");
    assert!(bench.keeper.delivered(&grpc("y"), Kind::Cluster, true, bench.now(61)), "all is its own again");
    assert_eq!(bench.keeper.status.in_force, None);

    let mut prompt = Bench::ads();
    prompt.deliver_all(0);
    assert!(prompt.keeper.overdue(prompt.now(60)).is_none());
    assert!(prompt.keeper.loaded(found()).is_none(), "read in vain");
}

#[test]
fn one_failure_is_none_and_other_streams_do_not_count() {
    let mut bench = Bench::ads();
    for _ in 0..9 {
        bench.keeper.failed("grpc:elsewhere/sds", bench.now(0));
        bench.keeper.failed("path:/a", bench.now(0));
    }
    assert_eq!(bench.keeper.due(), Some(bench.now(5).mono));
    bench.keeper.failed("ads:cp", bench.now(1));
    assert!(bench.keeper.overdue(bench.now(2)).is_none());
    assert_eq!(bench.keeper.due(), Some(bench.now(3).mono), "it has a moment to come back");
    bench.keeper.failed("ads:cp", bench.now(2));
    assert!(bench.keeper.overdue(bench.now(2)).is_some());
    assert_eq!(bench.keeper.due(), None);
}

#[test]
fn the_date_is_that_of_the_last_word_whoever_else_speaks() {
    let mut bench = Bench::ads();
    bench.keeper.connected("ads:cp", bench.now(0));
    bench.deliver_all(0);
    assert!(bench.write(2));
    assert_eq!(bench.file(), Some((2, 4)));
    assert!(bench.write(602), "as long as there is a stream nothing else is said");
    assert_eq!(bench.file(), Some((602, 4)));
    bench.keeper.failed("ads:cp", bench.now(700));
    // Certificates, files and expiries go on without it.
    bench.keeper.connected("path:/secrets", bench.now(800));
    bench.keeper.delivered(
        &ConfigSource::Path { path: "/s".into(), watched_directory: None },
        Kind::Secret,
        true,
        bench.now(800),
    );
    bench.keeper.changed(Change::Nothing, bench.now(800));
    assert!(!bench.write(90_000), "nobody confirmed it");
    bench.keeper.changed(Change::Rules, bench.now(90_000));
    assert!(bench.write(90_002));
    assert_eq!(bench.file(), Some((700, 4)), "changed, but not confirmed");
}

#[test]
fn what_is_missing_is_waited_for_and_never_replaces_the_whole() {
    let mut bench = Bench::ads();
    bench.keeper.connected("ads:cp", bench.now(0));
    bench.deliver_all(0);
    assert!(bench.write(2));
    // The next life: clusters and listeners come, and the stream dies before the rest.
    bench.store = Store::new(&bench.config, decode, bench.now(10));
    bench.keeper = Keeper::new(&bench.config, bench.now(10)).unwrap();
    bench.keeper.connected("ads:cp", bench.now(10));
    let ads = ConfigSource::Ads;
    bench.deliver(&ads, Kind::Cluster, vec![eds("a", 1, "")], 10);
    bench.deliver(&ads, Kind::Listener, vec![listener("l", "rds=r")], 10);
    assert!(!bench.write(12));
    bench.keeper.failed("ads:cp", bench.now(13));
    for at in [40, 100, 1000] {
        assert!(!bench.write(at));
    }
    assert_eq!(bench.file(), Some((2, 4)));
    // It comes back and has nothing more to say: that is all there is.
    bench.keeper.connected("ads:cp", bench.now(2000));
    assert!(bench.write(2000));
    assert_eq!(bench.file(), Some((2000, 2)));
    bench.deliver(&ads, Kind::Endpoints, vec![endpoints("a", 1)], 2001);
    bench.deliver(&ads, Kind::Routes, vec![routes("r", "a")], 2001);
    bench.keeper.changed(Change::Rules, bench.now(2001));
    assert!(bench.write(2002));
    assert_eq!(bench.file(), Some((2002, 4)));
}

#[test]
fn a_change_that_cannot_be_written_leaves_no_older_file() {
    let mut bench = Bench::ads();
    bench.keeper.connected("ads:cp", bench.now(0));
    bench.deliver_all(0);
    assert!(bench.write(2) && bench.file().is_some());
    let tight = b"-----BEGIN PRIVATE KEY-----";
    bench.deliver(
        &ConfigSource::Ads,
        Kind::Listener,
        vec![listener("l", "rds=r"), listener(std::str::from_utf8(tight).unwrap(), "")],
        3,
    );
    bench.keeper.changed(Change::Rules, bench.now(3));
    assert!(bench.write(4));
    assert_eq!(bench.file(), None);
    assert!(bench.keeper.status.pending && bench.keeper.status.last_error.as_ref().unwrap().contains("a private key"));
    assert!(!bench.keeper.is_behind(), "the end does not wait for it");
    // Again and again, ever later.
    assert_eq!(bench.keeper.due(), Some(bench.now(5).mono));
    assert!(bench.write(5) && !bench.write(6) && bench.write(7));
    assert_eq!(bench.keeper.status.write_failures, 3);
    bench.deliver(&ConfigSource::Ads, Kind::Listener, vec![listener("l", "rds=r")], 8);
    bench.keeper.changed(Change::Rules, bench.now(8));
    assert!(bench.write(9));
    assert_eq!((bench.file(), bench.keeper.status.pending), (Some((9, 4)), false));
}

#[test]
fn endpoints_alone_are_written_seldom_and_rules_soon() {
    let mut bench = Bench::ads();
    bench.keeper.connected("ads:cp", bench.now(0));
    bench.deliver_all(0);
    assert!(bench.write(1));
    for at in 2..20 {
        bench.keeper.changed(Change::Endpoints, bench.now(at));
    }
    assert_eq!(bench.keeper.due(), Some(bench.now(31).mono));
    bench.keeper.changed(Change::Rules, bench.now(20));
    assert_eq!(bench.keeper.due(), Some(bench.now(21).mono));
    assert!(bench.write(21));
    bench.keeper.changed(Change::Endpoints, bench.now(22));
    assert_eq!(bench.keeper.due(), Some(bench.now(51).mono));
    bench.keeper.hurry(bench.now(23));
    assert!(bench.keeper.is_behind() && bench.write(23) && !bench.keeper.is_behind());
}

#[test]
fn a_short_age_does_not_keep_the_disk_busy() {
    let mut bench = Bench::ads();
    bench.config.saved.as_mut().unwrap().max_age = Duration::ZERO;
    bench.keeper = Keeper::new(&bench.config, bench.now(0)).unwrap();
    bench.keeper.connected("ads:cp", bench.now(0));
    bench.deliver_all(0);
    assert!(bench.write(1));
    assert_eq!(bench.keeper.due(), Some(bench.now(11).mono));
}

#[test]
fn resources_that_expire_are_not_kept() {
    let mut bench = Bench::ads();
    bench.keeper.connected("ads:cp", bench.now(0));
    bench.deliver_all(0);
    let item = Item { ttl: Some(Duration::from_secs(5)), ..Item::bare(eds("b", 1, "")) };
    let ads = ConfigSource::Ads;
    let prepared = vec![prepare(&bench.store, &ads, Kind::Cluster, item)];
    let frame = Frame { source: &ads, kind: Kind::Cluster, version: "2", full: false, removed: &[] };
    bench.store.apply(&frame, prepared, bench.now(0));
    assert_eq!(bench.store.keeping(&KINDS).len(), 4);
}

#[test]
fn another_control_plane_place_or_identity_is_another_owner() {
    use outrigger_wire::pb::{
        envoy::config::core::v3::Locality,
        google::protobuf::{Struct, Value, value},
    };
    let base = Bench::ads().config;
    let owner_of = |change: &dyn Fn(&mut StartConfig)| {
        let mut config = base.clone();
        change(&mut config);
        Owner::new(&config)
    };
    let first = owner_of(&|_| {});
    assert_eq!(first, owner_of(&|c| c.ads.as_mut().unwrap().metadata = vec![("authorization".into(), "x".into())]));
    assert_ne!(first, owner());
    let field = |text: &str| (text.to_owned(), Value { kind: Some(value::Kind::StringValue(text.to_owned())) });
    let metadata = |names: &[&str]| Some(Struct { fields: names.iter().map(|name| field(name)).collect() });
    let two = owner_of(&|c| c.node.metadata = metadata(&["a", "b"]));
    assert_eq!(two, owner_of(&|c| c.node.metadata = metadata(&["b", "a"])), "in any order");
    for other in [
        two,
        owner_of(&|c| c.node.locality = Some(Locality { region: "r".into(), ..Default::default() })),
        owner_of(&|c| c.ads.as_mut().unwrap().cluster = "other".into()),
        owner_of(&|c| c.workload_api = true),
        owner_of(&|c| c.lds = None),
    ] {
        assert_ne!(first, other);
    }
}

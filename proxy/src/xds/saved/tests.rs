use std::{
    os::unix::fs::PermissionsExt,
    time::{Instant, UNIX_EPOCH},
};

use outrigger_wire::pb::google::protobuf::Any;

use super::{
    format::{Entry, Owner, encode},
    secrecy::secret_in,
    *,
};
use crate::xds::{
    store::Now,
    testing::{decode, eds, endpoints, listener, routes},
};

fn owner() -> Owner {
    Owner { id: "n".into(), cluster: "c".into() }
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

const AGE: Duration = Duration::from_secs(100);

fn entry(name: &str, any: Any) -> Entry {
    let kind = Kind::from_type_url(&any.type_url).unwrap();
    Entry { kind, source: ConfigSource::Ads, name: name.into(), version: "1".into(), raw: any.value.into() }
}

/// Out of order on purpose.
fn entries() -> Vec<Entry> {
    vec![
        entry("r", routes("r", "a")),
        entry("l", listener("l", "rds=r")),
        entry("a", endpoints("a", 1)),
        entry("a", eds("a", 1, "")),
        Entry { source: ConfigSource::Grpc { cluster: "x".into(), delta: true }, ..entry("b", endpoints("b", 1)) },
    ]
}

fn read(file: &[u8], owner: &Owner, now: u64) -> Result<Restorable, String> {
    format::decode(file, owner, AGE, at(now), decode)
}

#[test]
fn what_is_written_is_read_in_the_order_of_use() {
    let file = encode(&owner(), &entries(), at(1000));
    let read = read(&file, &owner(), 1100).unwrap();
    assert_eq!(read.written, at(1000));
    let kinds: Vec<_> = read.updates.iter().map(|(source, u)| (u.kind, source.clone())).collect();
    let other = ConfigSource::Grpc { cluster: "x".into(), delta: true };
    let ads = ConfigSource::Ads;
    assert_eq!(
        kinds,
        [
            (Kind::Cluster, ads.clone()),
            (Kind::Endpoints, ads.clone()),
            (Kind::Endpoints, other),
            (Kind::Listener, ads.clone()),
            (Kind::Routes, ads)
        ]
    );
    let item = &read.updates[0].1.items[0];
    assert_eq!((item.name.as_str(), item.version.as_str()), ("a", VERSION));
    assert_eq!(item.body, Some(eds("a", 1, "")));
}

#[test]
fn a_file_that_is_not_exactly_what_was_written_is_refused() {
    let file = encode(&owner(), &entries(), at(1000));
    for i in 0..file.len() {
        let mut changed = file.clone();
        changed[i] ^= 1;
        assert!(read(&changed, &owner(), 1000).is_err(), "byte {i}");
        assert!(read(&file[..i], &owner(), 1000).is_err(), "cut at {i}");
    }
    let longer = [&file[..], &[0]].concat();
    assert!(read(&longer, &owner(), 1000).unwrap_err().contains("checksum"));
    let mut other = file;
    other[11] = 9;
    assert!(read(&other, &owner(), 1000).unwrap_err().contains("format is 9"));
}

#[test]
fn age_clock_node_and_content_are_judged() {
    let file = encode(&owner(), &entries(), at(1000));
    assert!(read(&file, &owner(), 1101).unwrap_err().contains("101 s old"));
    assert!(read(&file, &owner(), 900).is_ok(), "a clock may be a little off");
    assert!(read(&file, &owner(), 600).unwrap_err().contains("clock"));
    for other in [Owner { id: "m".into(), ..owner() }, Owner { cluster: "d".into(), ..owner() }] {
        assert!(read(&file, &other, 1000).unwrap_err().contains("another node"));
    }
    // One resource that this program does not take spoils all: without it the rest may let in more.
    let mut with_bad = entries();
    with_bad.push(entry("bad", listener("bad", "")));
    let refused = read(&encode(&owner(), &with_bad, at(1000)), &owner(), 1000).unwrap_err();
    assert!(refused.contains("bad by name"), "{refused}");
    with_bad.pop();
    with_bad.push(entry("other", listener("l2", "")));
    let refused = read(&encode(&owner(), &with_bad, at(1000)), &owner(), 1000).unwrap_err();
    assert!(refused.contains("named `other`"), "{refused}");
}

#[test]
fn only_a_file_that_nobody_else_could_write_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let config = SavedConfig { dir: dir.path().join("a/b"), max_age: AGE, patience: Duration::ZERO };
    let load = || disk::load(&config, &owner(), decode, at(1000));
    assert!(load().is_none());
    for _ in 0..2 {
        disk::replace(&config.dir, &encode(&owner(), &entries(), at(1000))).unwrap();
    }
    let path = config.dir.join("last-good.bin");
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(&config.dir)), (0o600, 0o700));
    assert_eq!(std::fs::read_dir(&config.dir).unwrap().count(), 1, "nothing is left over");
    assert_eq!(load().unwrap().unwrap().updates.len(), 5);
    for mode in [0o620, 0o602] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        assert!(load().unwrap().unwrap_err().contains("others may write"));
    }
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let elsewhere = dir.path().join("elsewhere");
    std::fs::rename(&path, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    assert!(load().unwrap().is_err(), "a link");
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(load().unwrap().is_err(), "a folder");
}

#[test]
fn secrets_are_found_wherever_they_stand() {
    use outrigger_wire::pb::envoy::{
        config::{core::v3 as core, listener::v3 as pb},
        extensions::transport_sockets::tls::v3 as tls,
    };
    use prost::Message;
    let key = b"xx-----BEGIN EC PRIVATE KEY-----yy";
    assert_eq!(secret_in(Kind::Cluster, key), Some("a private key"));
    assert_eq!(secret_in(Kind::Listener, &listener("l", "rds=r").value), None);
    let keys =
        tls::downstream_tls_context::SessionTicketKeysType::SessionTicketKeys(tls::TlsSessionTicketKeys::default());
    let context = tls::DownstreamTlsContext { session_ticket_keys_type: Some(keys), ..Default::default() };
    let any = Any {
        type_url: "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext".into(),
        value: context.encode_to_vec(),
    };
    let socket = core::TransportSocket {
        config_type: Some(core::transport_socket::ConfigType::TypedConfig(any)),
        ..Default::default()
    };
    let chain = pb::FilterChain { transport_socket: Some(socket), ..Default::default() };
    let message = pb::Listener { default_filter_chain: Some(chain), ..Default::default() };
    assert_eq!(secret_in(Kind::Listener, &message.encode_to_vec()), Some("session ticket keys"));
}

#[test]
fn the_control_plane_has_its_time_and_goes_before_the_disk() {
    use crate::xds::StartConfig;
    let start = Instant::now();
    let now = |seconds| Now { mono: start + Duration::from_secs(seconds), wall: at(1000 + seconds) };
    let saved = SavedConfig { dir: "/nowhere".into(), max_age: AGE, patience: Duration::from_secs(5) };
    let config = StartConfig {
        saved: Some(saved),
        lds: Some(ConfigSource::Ads),
        cds: Some(ConfigSource::Ads),
        ..Default::default()
    };
    let restorable = || Some(Ok(Restorable { written: at(990), updates: Vec::new() }));
    let keeper = || Keeper::new(&config, now(0)).unwrap();

    let mut slow = keeper();
    slow.loaded(restorable());
    assert_eq!(slow.due(), Some(now(5).mono));
    assert!(slow.overdue(now(4)).is_none());
    let used = slow.overdue(now(5)).unwrap();
    assert_eq!(used.updates.len(), 2, "no clusters and no listeners is what there was");
    assert_eq!(slow.status.in_force, Some(at(990)));
    assert!(slow.overdue(now(6)).is_none(), "once");
    slow.changed(now(6));
    assert_eq!(slow.due(), None, "what came from disk is not written again");
    assert!(!slow.confirm(Kind::Endpoints) && !slow.confirm(Kind::Cluster) && slow.confirm(Kind::Listener));
    assert_eq!(slow.status.in_force, None);
    assert_eq!(slow.due(), Some(now(7).mono));

    let mut failing = keeper();
    failing.failed(now(1));
    assert!(failing.overdue(now(1)).is_none(), "not read yet");
    failing.loaded(restorable());
    failing.confirm(Kind::Cluster);
    assert!(failing.overdue(now(1)).is_some(), "half an answer is none");

    let mut prompt = keeper();
    prompt.loaded(restorable());
    assert!(!prompt.confirm(Kind::Cluster) && !prompt.confirm(Kind::Listener), "nothing was restored");
    prompt.failed(now(2));
    assert!(prompt.overdue(now(60)).is_none(), "what it said holds when it goes away");
}

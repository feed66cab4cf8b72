use std::{fs, os::unix::fs::symlink, path::Path, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;

use super::*;
use crate::{
    ir::snapshot::Snapshot,
    xds::{Connection, Handle, Kind, StartConfig, Status, Transport, driver, testing},
};

#[derive(Debug)]
struct Nowhere;

impl Transport for Nowhere {
    fn connect(self: Arc<Self>, _: &str) -> BoxFuture<'static, Result<Box<dyn Connection>, String>> {
        Box::pin(async { Err("nowhere".to_owned()) })
    }
}

fn start(path: &Path, watched: Option<&Path>) -> Handle {
    let cds = ConfigSource::Path {
        path: path.to_str().unwrap().to_owned(),
        watched_directory: watched.map(|w| w.to_str().unwrap().to_owned()),
    };
    let config = StartConfig { cds: Some(cds), ..Default::default() };
    driver::start_with(config, Arc::new(Nowhere), testing::decode)
}

async fn snapshot(handle: &Handle, what: &str, condition: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
    let mut watch = handle.snapshots();
    let found = tokio::time::timeout(Duration::from_secs(20), watch.wait_for(|s| condition(s))).await;
    Arc::clone(&found.unwrap_or_else(|_| panic!("never: {what}")).unwrap())
}

async fn status(handle: &Handle, what: &str, condition: impl Fn(&Status) -> bool) -> Arc<Status> {
    let mut watch = handle.status();
    let found = tokio::time::timeout(Duration::from_secs(20), watch.wait_for(|s| condition(s))).await;
    Arc::clone(&found.unwrap_or_else(|_| panic!("never: {what}")).unwrap())
}

fn cluster(name: &str) -> String {
    format!(r#"{{"@type": "{}", "name": "{name}", "connect_timeout": "1s"}}"#, Kind::Cluster.type_url())
}

fn document(version: &str, resources: &[String]) -> String {
    format!(r#"{{"version_info": "{version}", "resources": [{}]}}"#, resources.join(","))
}

/// Writes beside the file and renames over it.
fn replace(path: &Path, content: &str) {
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, content).unwrap();
    fs::rename(&temporary, path).unwrap();
}

fn clusters(snapshot: &Snapshot) -> Vec<&str> {
    snapshot.clusters.sorted().into_iter().map(|(name, _)| &**name).collect()
}

#[tokio::test]
async fn a_file_is_applied_and_followed_over_renames_and_rewrites() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cds.json");
    fs::write(&path, document("1", &[cluster("a")])).unwrap();
    let handle = start(&path, None);
    snapshot(&handle, "a", |s| s.clusters.contains_key("a")).await;
    replace(&path, &document("2", &[cluster("b"), cluster("c")]));
    snapshot(&handle, "b and c", |s| clusters(s) == ["b", "c"]).await;
    fs::write(&path, document("3", &[cluster("d")])).unwrap();
    snapshot(&handle, "d", |s| clusters(s) == ["d"]).await;
    let got = status(&handle, "version", |s| &*s.kinds[&Kind::Cluster].version == "3").await;
    assert!(got.clusters_received);
}

#[tokio::test]
async fn a_bad_file_keeps_the_last_good_one_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cds.yaml");
    let label = format!("path:{}", path.display());
    let handle = start(&path, None);
    let error = |s: &Status, part: &str| s.sources[&*label].last_error.as_ref().is_some_and(|e| e.contains(part));
    status(&handle, "missing", |s| s.sources.contains_key(&*label) && error(s, "No such file")).await;
    replace(&path, &format!("version_info: '1'\nresources:\n- {}\n", cluster("a")));
    snapshot(&handle, "a", |s| s.clusters.contains_key("a")).await;
    for (content, part) in [
        ("", "empty"),
        ("resources: [", ""),
        ("resources: 3", "not a list"),
        ("nonsense: 1", "nonsense"),
        ("just text", "neither"),
    ] {
        replace(&path, content);
        status(&handle, part, |s| s.sources[&*label].connected_since.is_none() && error(s, part)).await;
        assert!(handle.snapshot().clusters.contains_key("a"), "{content}");
        replace(&path, &format!("resources:\n- {}\n", cluster("a")));
        status(&handle, "recovered", |s| s.sources[&*label].last_error.is_none()).await;
    }
    // Bad resources spoil only themselves.
    let resources = [
        cluster("good"),
        cluster("bad"),
        r#"{"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "odd", "unknown_field": 1}"#
            .to_owned(),
        r#"{"@type": "type.googleapis.com/no.such.Type", "name": "strange"}"#.to_owned(),
        format!(r#"{{"@type": "{}", "name": "listener"}}"#, Kind::Listener.type_url()),
    ];
    replace(&path, &document("9", &resources));
    let got = snapshot(&handle, "good", |s| s.clusters.contains_key("good")).await;
    // The listener's name is not read, so it might have been `a`.
    assert_eq!(clusters(&got), ["a", "good"]);
    let got = status(&handle, "rejected", |s| s.kinds[&Kind::Cluster].rejected.len() == 4).await;
    let names: Vec<&str> = got.kinds[&Kind::Cluster].rejected.iter().map(|r| &*r.name).collect();
    assert_eq!(names, ["bad", "odd", "strange", "resources[4]"]);
    assert!(got.kinds[&Kind::Cluster].rejected[1].reason.contains("unknown_field"));
}

#[tokio::test]
async fn a_swapped_directory_link_is_followed() {
    let dir = tempfile::tempdir().unwrap();
    let make = |name: &str, content: &str| {
        let sub = dir.path().join(name);
        fs::create_dir(&sub).unwrap();
        fs::write(sub.join("cds.json"), content).unwrap();
    };
    make("..1", &document("1", &[cluster("a")]));
    symlink("..1", dir.path().join("..data")).unwrap();
    let path = dir.path().join("cds.json");
    symlink("..data/cds.json", &path).unwrap();
    let handle = start(&path, None);
    snapshot(&handle, "a", |s| s.clusters.contains_key("a")).await;
    make("..2", &document("2", &[cluster("b")]));
    symlink("..2", dir.path().join("..tmp")).unwrap();
    fs::rename(dir.path().join("..tmp"), dir.path().join("..data")).unwrap();
    snapshot(&handle, "b", |s| s.clusters.contains_key("b")).await;
}

#[tokio::test]
async fn a_watched_directory_triggers_for_any_rename_in_it() {
    let (dir, watched) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let target = watched.path().join("v1");
    fs::write(&target, document("1", &[cluster("a")])).unwrap();
    let link = watched.path().join("current");
    symlink(&target, &link).unwrap();
    let path = dir.path().join("cds.json");
    symlink(&link, &path).unwrap();
    let handle = start(&path, Some(watched.path()));
    snapshot(&handle, "a", |s| s.clusters.contains_key("a")).await;
    let next = watched.path().join("v2");
    fs::write(&next, document("2", &[cluster("b")])).unwrap();
    let temporary = watched.path().join("temporary");
    symlink(&next, &temporary).unwrap();
    fs::rename(&temporary, &link).unwrap();
    snapshot(&handle, "b", |s| s.clusters.contains_key("b")).await;
}

#[test]
fn all_formats_are_read() {
    use outrigger_wire::pb::envoy::service::discovery::v3::DiscoveryResponse;
    use prost::Message;
    let dir = tempfile::tempdir().unwrap();
    let read = |name: &str, content: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, content).unwrap();
        parse::read(&path)
    };
    let resource = testing::fixed("a", 1, "");
    let response =
        DiscoveryResponse { version_info: "7".into(), resources: vec![resource.clone()], ..Default::default() };
    let expected = parse::Document { version: "7".into(), items: vec![Item::bare(resource.clone())] };
    assert_eq!(read("x.pb", &response.encode_to_vec()).unwrap(), expected);
    let json = document("7", &[cluster("a")]);
    assert_eq!(read("x.json", json.as_bytes()).unwrap(), expected);
    assert_eq!(read("x.yaml", json.as_bytes()).unwrap(), expected);
    let list = format!("- {}\n", cluster("a"));
    assert_eq!(read("list.yaml", list.as_bytes()).unwrap().items, expected.items);
    assert!(read("x.pb_text", b"").unwrap_err().contains("text format"));
    assert!(read("empty.pb", b"").unwrap_err().contains("empty"));
    assert!(read("bad.pb", &[0xff; 64]).is_err());
    assert!(read("bad.yaml", &[0xff; 64]).unwrap_err().contains("utf-8"));
    assert!(parse::read(dir.path()).is_err());
}

#[test]
fn a_pipe_is_refused_and_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipe.yaml");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let (said, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || said.send(parse::read(&path)));
    let read = heard.recv_timeout(Duration::from_secs(60)).expect("it waits for a writer");
    assert_eq!(read.unwrap_err(), "not a regular file");
}

//! The last good configuration on disk, over ends and starts of the proxy and of its control plane.

use std::path::Path;

use super::*;
use crate::xds::SavedConfig;

fn kept(delta: bool, dir: &Path) -> StartConfig {
    let (max_age, patience) = (Duration::from_secs(3600), LONG * 10);
    StartConfig { saved: Some(SavedConfig { dir: dir.to_owned(), max_age, patience }), ..config(delta) }
}

async fn written(handle: &Handle) {
    status(handle, "a file", |s| s.saved.as_ref().is_some_and(|saved| saved.writes > 0)).await;
}

/// A first life with a control plane, which leaves a file behind.
async fn live_once(delta: bool, dir: &Path) -> Arc<Snapshot> {
    let net = Net::new();
    let handle = start(kept(delta, dir), &net);
    let mut call = net.call().await;
    serve_all(&mut call, "1").await;
    let before = snapshot(&handle, "listener", |s| s.listeners.contains_key("l")).await;
    written(&handle).await;
    assert_eq!(handle.status().borrow().saved.as_ref().unwrap().in_force, None);
    before
}

#[tokio::test]
async fn a_start_without_the_control_plane_uses_what_was_kept() {
    both(async |delta| {
        let dir = tempfile::tempdir().unwrap();
        let before = live_once(delta, dir.path()).await;
        let net = Net::new();
        net.refuse(Some("nobody home"));
        let handle = start(kept(delta, dir.path()), &net);
        let restored = snapshot(&handle, "listener", |s| s.listeners.contains_key("l")).await;
        assert_eq!(restored.clusters, before.clusters);
        assert_eq!(restored.endpoints, before.endpoints);
        assert_eq!((&restored.listeners, &restored.routes), (&before.listeners, &before.routes));
        let got = status(&handle, "said", |s| s.saved.as_ref().is_some_and(|s| s.in_force.is_some())).await;
        assert!(got.ready() && got.saved.as_ref().unwrap().writes == 0);
        // It comes back and has something new, and something is gone: no moment without the rest.
        net.refuse(None);
        let mut call = net.call().await;
        let clusters = call.expect(Kind::Cluster).await;
        for kind in [Kind::Endpoints, Kind::Listener, Kind::Routes] {
            call.expect(kind).await;
        }
        if delta {
            assert_eq!(clusters.initial, [("a".to_owned(), "last-good".to_owned())], "to be told what is gone");
        } else {
            assert_eq!(clusters.version, "", "nothing is claimed");
        }
        call.send(Kind::Cluster, "2", "c", vec![eds("a", 1, ""), fixed("new", 1, "")]).await;
        assert_eq!(call.expect(Kind::Cluster).await.ack(), ("c", None));
        call.send(Kind::Listener, "2", "l", vec![listener("l", "rds=r")]).await;
        let got = snapshot(&handle, "new", |s| s.clusters.contains_key("new")).await;
        assert!(Arc::ptr_eq(&got.listeners["l"], &restored.listeners["l"]), "what is equal goes on");
        status(&handle, "its own", |s| s.saved.as_ref().is_some_and(|s| s.in_force.is_none())).await;
        // The rest is from disk until it is said again.
        call.send(Kind::Endpoints, "2", "e", vec![endpoints("a", 1)]).await;
        call.send(Kind::Routes, "2", "r", vec![routes("r", "a")]).await;
        written(&handle).await;
    })
    .await;
}

#[tokio::test]
async fn what_is_gone_when_the_control_plane_is_back_goes() {
    both(async |delta| {
        let dir = tempfile::tempdir().unwrap();
        live_once(delta, dir.path()).await;
        let net = Net::new();
        net.refuse(Some("nobody home"));
        let handle = start(kept(delta, dir.path()), &net);
        snapshot(&handle, "listener", |s| s.listeners.contains_key("l")).await;
        net.refuse(None);
        let mut call = net.call().await;
        call.expect(Kind::Cluster).await;
        if delta {
            call.remove(Kind::Listener, "x", &["l"]).await;
        } else {
            call.send(Kind::Listener, "2", "x", vec![]).await;
        }
        snapshot(&handle, "gone", |s| s.listeners.is_empty()).await;
    })
    .await;
}

#[tokio::test]
async fn a_file_that_was_touched_is_not_used_and_named() {
    let dir = tempfile::tempdir().unwrap();
    live_once(true, dir.path()).await;
    let file = dir.path().join("outrigger/last-good.bin");
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let net = Net::new();
    net.refuse(Some("nobody home"));
    let handle = start(kept(true, dir.path()), &net);
    let got = status(&handle, "refused", |s| s.saved.as_ref().is_some_and(|s| s.refused.is_some())).await;
    let reason = got.not_ready_reason().unwrap();
    assert!(reason.contains("checksum"), "{reason}");
    assert!(handle.snapshot().listeners.is_empty());
    // And nothing is lost with it: the control plane is still waited for.
    net.refuse(None);
    serve_all(&mut net.call().await, "1").await;
    snapshot(&handle, "listener", |s| s.listeners.contains_key("l")).await;
}

#[tokio::test]
async fn a_control_plane_that_says_nothing_has_its_time() {
    let dir = tempfile::tempdir().unwrap();
    live_once(true, dir.path()).await;
    let net = Net::new();
    let mut config = kept(true, dir.path());
    config.saved.as_mut().unwrap().patience = Duration::from_millis(200);
    let handle = start(config, &net);
    let mut call = net.call().await;
    call.expect(Kind::Cluster).await;
    snapshot(&handle, "listener", |s| s.listeners.contains_key("l")).await;
    assert!(handle.status().borrow().sources["ads:cp"].connected_since.is_some());
}

/// What the file has of clusters, and what one says of listeners.
#[tokio::test]
async fn what_was_delivered_is_never_replaced_from_disk() {
    both(async |delta| {
        let dir = tempfile::tempdir().unwrap();
        live_once(delta, dir.path()).await;
        let net = Net::new();
        let handle = start(kept(delta, dir.path()), &net);
        let mut call = net.call().await;
        call.expect(Kind::Cluster).await;
        call.expect(Kind::Listener).await;
        // Another listener instead of the one on disk; then the control plane goes away without a word on clusters.
        call.send(Kind::Listener, "2", "l", vec![listener("tight", "")]).await;
        assert_eq!(call.expect(Kind::Listener).await.ack(), ("l", None));
        net.refuse(Some("nobody home"));
        drop(call);
        let got = snapshot(&handle, "clusters", |s| s.clusters.contains_key("a")).await;
        assert!(got.endpoints.contains_key("a"), "the file's clusters have their hosts");
        let got = snapshot(&handle, "listener", |s| s.listeners.contains_key("tight")).await;
        assert!(!got.listeners.contains_key("l") && got.routes.is_empty(), "what is revoked stays revoked");
        let got = status(&handle, "said", |s| s.saved.as_ref().is_some_and(|s| s.in_force.is_some())).await;
        assert!(got.ready());
        // Back, and the same again: now all is its own.
        net.refuse(None);
        let mut call = net.call().await;
        for kind in [Kind::Cluster, Kind::Endpoints, Kind::Listener] {
            call.expect(kind).await;
        }
        call.send(Kind::Cluster, "3", "c", vec![fixed("b", 1, "")]).await;
        assert_eq!(call.expect(Kind::Cluster).await.ack(), ("c", None));
        let got = snapshot(&handle, "b", |s| s.clusters.contains_key("b")).await;
        assert!(got.listeners.contains_key("tight"));
        status(&handle, "its own", |s| s.saved.as_ref().is_some_and(|s| s.in_force.is_none())).await;
    })
    .await;
}

#[tokio::test]
async fn a_flush_does_not_wait_for_the_quiet() {
    let dir = tempfile::tempdir().unwrap();
    let net = Net::new();
    let handle = start(kept(true, dir.path()), &net);
    let mut call = net.call().await;
    serve_all(&mut call, "1").await;
    snapshot(&handle, "listener", |s| s.listeners.contains_key("l")).await;
    handle.flush(LONG).await;
    let saved = handle.status().borrow().saved.clone().unwrap();
    assert!(saved.writes > 0 && !saved.pending);
    // Nothing more to do, and nobody to do it.
    handle.flush(LONG).await;
    let other = start(config(true), &Net::new());
    other.flush(LONG).await;
}

#[tokio::test]
async fn a_file_that_does_not_fit_what_is_there_is_refused_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    live_once(true, dir.path()).await;
    let net = Net::new();
    net.refuse(Some("nobody home"));
    let mut config = kept(true, dir.path());
    config.node.id = "other".into();
    let handle = start(config, &net);
    let got = status(&handle, "refused", |s| s.saved.as_ref().is_some_and(|s| s.refused.is_some())).await;
    assert!(got.not_ready_reason().unwrap().contains("another node"));
    assert!(handle.snapshot().listeners.is_empty() && handle.snapshot().clusters.is_empty());
}

//! The whole subscription against a scripted control plane in process: both protocols, hostile behaviour, separate streams.

mod real;
mod saved;
mod server;

use std::{sync::Arc, time::Duration};

use outrigger_wire::pb::google::protobuf::Any;
use tokio::sync::watch;

use self::server::{Call, Net, Request};
use crate::{
    ir::{ConfigSource, snapshot::Snapshot},
    xds::{
        AdsConfig, GrpcOptions, Handle, Kind, StartConfig, Status, TokenFile, driver,
        testing::{self, eds, endpoints, fixed, listener, routes, secret},
    },
};

const LONG: Duration = Duration::from_secs(20);

fn config(delta: bool) -> StartConfig {
    let ads = AdsConfig { cluster: "cp".into(), delta, metadata: vec![("x-a".into(), "b".into())], authority: None };
    let grpc = GrpcOptions {
        backoff_base: Duration::from_millis(5),
        backoff_max: Duration::from_millis(20),
        ..Default::default()
    };
    StartConfig {
        ads: Some(ads),
        lds: Some(ConfigSource::Ads),
        cds: Some(ConfigSource::Ads),
        grpc,
        ..Default::default()
    }
}

fn start(config: StartConfig, net: &Arc<Net>) -> Handle {
    driver::start_with(config, Arc::clone(net) as _, testing::decode)
}

/// Waits until the value satisfies the condition.
async fn until<T>(watch: watch::Receiver<Arc<T>>, what: &str, condition: impl FnMut(&Arc<T>) -> bool) -> Arc<T> {
    let mut watch = watch;
    match tokio::time::timeout(LONG, watch.wait_for(condition)).await {
        Ok(value) => Arc::clone(&value.unwrap()),
        Err(_) => panic!("never: {what}"),
    }
}

async fn snapshot(handle: &Handle, what: &str, condition: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
    until(handle.snapshots(), what, |s| condition(s)).await
}

async fn status(handle: &Handle, what: &str, condition: impl Fn(&Status) -> bool) -> Arc<Status> {
    until(handle.status(), what, |s| condition(s)).await
}

/// Serves a cluster, its endpoints, a listener and its routes, checking each acknowledgement; `names` are the EDS and
/// RDS names that must be asked for.
async fn serve(call: &mut Call, version: &str, resources: [Any; 4], names: [&str; 2]) {
    let [cluster, endpoints, listener, routes] = resources;
    let request = call.expect(Kind::Cluster).await;
    assert_eq!(request.names, [""; 0]);
    call.expect(Kind::Listener).await;
    call.send(Kind::Cluster, version, "c", vec![cluster]).await;
    assert_eq!(call.expect(Kind::Cluster).await.ack(), ("c", None));
    assert_eq!(call.expect(Kind::Endpoints).await.names, [names[0]]);
    call.send(Kind::Endpoints, version, "e", vec![endpoints]).await;
    assert_eq!(call.expect(Kind::Endpoints).await.ack(), ("e", None));
    call.send(Kind::Listener, version, "l", vec![listener]).await;
    assert_eq!(call.expect(Kind::Listener).await.ack(), ("l", None));
    assert_eq!(call.expect(Kind::Routes).await.names, [names[1]]);
    call.send(Kind::Routes, version, "r", vec![routes]).await;
    assert_eq!(call.expect(Kind::Routes).await.ack(), ("r", None));
}

async fn serve_all(call: &mut Call, version: &str) {
    let resources = [eds("a", 1, ""), endpoints("a", 1), listener("l", "rds=r"), routes("r", "a")];
    serve(call, version, resources, ["a", "r"]).await;
}

async fn both(test: impl AsyncFn(bool)) {
    test(false).await;
    test(true).await;
}

#[tokio::test]
async fn an_aggregated_stream_delivers_everything() {
    both(async |delta| {
        let net = Net::new();
        let handle = start(config(delta), &net);
        assert!(handle.status().borrow().not_ready_reason().unwrap().contains("clusters and listeners"));
        let mut call = net.call().await;
        assert!(call.path.ends_with(if delta { "DeltaAggregatedResources" } else { "StreamAggregatedResources" }));
        assert_eq!(call.metadata.get("x-a").unwrap(), "b");
        serve_all(&mut call, "1").await;
        let got = snapshot(&handle, "listener", |s| s.listeners.contains_key("l")).await;
        assert!(got.clusters.contains_key("a") && got.routes.contains_key("r") && got.endpoints.contains_key("a"));
        let status = status(&handle, "ready", Status::ready).await;
        assert_eq!(status.kinds[&Kind::Routes].update_success, 1);
        assert!(status.sources["ads:cp"].connected_since.is_some());
        // An equal update is acknowledged and publishes nothing.
        call.send(Kind::Cluster, "2", "c2", vec![eds("a", 1, "")]).await;
        assert_eq!(call.expect(Kind::Cluster).await.ack(), ("c2", None));
        assert_eq!(handle.snapshot().version, got.version);
    })
    .await;
}

#[tokio::test]
async fn responses_that_queue_up_are_answered_one_by_one_in_order() {
    both(async |delta| {
        let net = Net::new();
        let handle = start(config(delta), &net);
        let mut call = net.call().await;
        serve_all(&mut call, "1").await;
        let nonces: Vec<String> = (0..100).map(|n| format!("n{n}")).collect();
        for (n, nonce) in (0..).zip(&nonces) {
            // Some that nobody asked for: passed over, not refused.
            let name = if n % 10 == 3 { "other" } else { "a" };
            call.send(Kind::Endpoints, "2", nonce, vec![endpoints(name, 1000 + n)]).await;
        }
        for (n, nonce) in nonces.iter().enumerate() {
            let request = call.expect(Kind::Endpoints).await;
            assert_eq!(request.ack(), (nonce.as_str(), None), "{n}");
        }
        snapshot(&handle, "the last", |s| s.endpoints["a"].overprovisioning == 1099).await;
    })
    .await;
}

#[tokio::test]
async fn a_dead_control_plane_changes_nothing_and_is_named() {
    both(async |delta| {
        let net = Net::new();
        let handle = start(config(delta), &net);
        let mut call = net.call().await;
        serve_all(&mut call, "1").await;
        let before = snapshot(&handle, "listener", |s| s.listeners.contains_key("l")).await;
        net.refuse(Some("nobody home"));
        drop(call);
        let after = status(&handle, "failure", |s| {
            s.sources["ads:cp"].last_error.as_ref().is_some_and(|e| e.contains("nobody home"))
        })
        .await;
        assert!(after.sources["ads:cp"].connected_since.is_none() && after.ready());
        assert_eq!(*handle.snapshot(), *before);
        // It returns, and is told what is there.
        net.refuse(None);
        let mut call = net.call().await;
        let clusters = call.expect(Kind::Cluster).await;
        let endpoints_request = call.expect(Kind::Endpoints).await;
        assert!(clusters.node && !endpoints_request.node);
        assert_eq!(clusters.nonce, "");
        if delta {
            assert_eq!(clusters.initial, [("a".to_owned(), "1".to_owned())]);
            assert_eq!(endpoints_request.initial, [("a".to_owned(), "1".to_owned())]);
        } else {
            assert_eq!((clusters.version.as_str(), endpoints_request.version.as_str()), ("1", "1"));
        }
        assert_eq!(endpoints_request.names, ["a"]);
        call.send(Kind::Endpoints, "2", "e2", vec![endpoints("a", 2)]).await;
        snapshot(&handle, "new endpoints", |s| s.endpoints["a"].overprovisioning == 2).await;
    })
    .await;
}

#[tokio::test]
async fn bad_resources_are_refused_with_reasons_and_good_ones_apply() {
    both(async |delta| {
        let net = Net::new();
        let handle = start(config(delta), &net);
        let mut call = net.call().await;
        call.expect(Kind::Cluster).await;
        call.expect(Kind::Listener).await;
        let garbage = Any { type_url: Kind::Cluster.type_url().into(), value: vec![0xff; 1000] };
        call.send(Kind::Cluster, "1", "n1", vec![fixed("good", 1, ""), fixed("bad", 1, ""), garbage]).await;
        let nack = call.expect(Kind::Cluster).await;
        let (nonce, error) = nack.ack();
        assert_eq!(nonce, "n1");
        let error = error.unwrap();
        assert!(error.contains("bad: some.path: bad by name"), "{error}");
        assert_eq!(error.lines().count(), 2, "{error}");
        snapshot(&handle, "good", |s| s.clusters.contains_key("good")).await;
        let got = status(&handle, "rejected", |s| s.kinds[&Kind::Cluster].update_rejected == 1).await;
        assert_eq!(got.kinds[&Kind::Cluster].rejected.len(), 2);
        assert_eq!(got.kinds[&Kind::Cluster].acked, Some(false));
        call.send(Kind::Cluster, "2", "n2", vec![fixed("good", 2, "")]).await;
        assert_eq!(call.expect(Kind::Cluster).await.ack(), ("n2", None));
        let got = status(&handle, "healed", |s| s.kinds[&Kind::Cluster].acked == Some(true)).await;
        assert!(got.kinds[&Kind::Cluster].rejected.is_empty());
    })
    .await;
}

#[tokio::test]
async fn hostile_responses_do_not_disturb_the_stream() {
    both(async |delta| {
        let net = Net::new();
        let handle = start(config(delta), &net);
        let mut call = net.call().await;
        call.expect(Kind::Cluster).await;
        call.expect(Kind::Listener).await;
        call.send(Kind::Secret, "1", "s", vec![secret("stolen", 1)]).await;
        call.send_type("type.googleapis.com/evil.Type", "1", "x", vec![]).await;
        call.send_type("", "", "", vec![secret("", 1)]).await;
        call.send(Kind::Cluster, "", "", vec![fixed("a", 1, "")]).await;
        assert_eq!(call.expect(Kind::Cluster).await.ack(), ("", None));
        // The same nonce again, and an enormous one.
        let huge = "n".repeat(100_000);
        call.send(Kind::Cluster, "v", &huge, vec![fixed("a", 2, "")]).await;
        assert_eq!(call.expect(Kind::Cluster).await.ack(), (&*huge, None));
        call.send(Kind::Cluster, "v", &huge, vec![fixed("a", 3, "")]).await;
        call.expect(Kind::Cluster).await;
        let got = snapshot(&handle, "a", |s| s.clusters["a"].connect_timeout.as_secs() == 3).await;
        assert!(got.secrets.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_message_beyond_the_limit_ends_the_stream_not_the_proxy() {
    let net = Net::new();
    let mut config = config(false);
    config.grpc.max_message = 5 << 20;
    let handle = start(config, &net);
    let mut call = net.call().await;
    call.expect(Kind::Cluster).await;
    // Above tonic's own 4 MiB, below the limit.
    let many = |n: usize| (0..n).map(|i| fixed(&format!("{i}-{}", "x".repeat(1000)), 1, "")).collect::<Vec<_>>();
    call.send(Kind::Cluster, "1", "n", many(4500)).await;
    snapshot(&handle, "many", |s| s.clusters.len() == 4500).await;
    call.send(Kind::Cluster, "2", "n", many(6000)).await;
    let got = status(&handle, "failure", |s| s.sources["ads:cp"].failures > 0).await;
    assert_eq!(got.kinds[&Kind::Cluster].update_attempt, 1);
    assert_eq!(handle.snapshot().clusters.len(), 4500);
    net.call().await.expect(Kind::Cluster).await;
}

#[tokio::test]
async fn a_server_that_hangs_up_at_once_is_tried_again_and_again() {
    both(async |delta| {
        let net = Net::new();
        let handle = start(config(delta), &net);
        for round in 0..5 {
            let mut call = net.call().await;
            assert!(call.expect(Kind::Cluster).await.node);
            if round % 2 == 0 {
                call.fail(tonic::Status::unavailable("go away")).await;
            }
        }
        let got = status(&handle, "failures", |s| s.sources["ads:cp"].failures >= 4).await;
        assert!(got.sources["ads:cp"].connects >= 4);
        assert_eq!(got.kinds[&Kind::Cluster].update_failure, got.sources["ads:cp"].failures);
        let mut call = net.call().await;
        serve_all(&mut call, "1").await;
        snapshot(&handle, "listener", |s| s.listeners.contains_key("l")).await;
    })
    .await;
}

#[tokio::test]
async fn separate_streams_have_their_own_methods_and_lifetimes() {
    both(async |delta| {
        let net = Net::new();
        let source = ConfigSource::Grpc { cluster: "cp".into(), delta };
        let mut config = config(delta);
        (config.ads, config.lds, config.cds) = (None, None, Some(source));
        let dir = tempfile::tempdir().unwrap();
        let token = dir.path().join("token");
        std::fs::write(&token, "t1").unwrap();
        config.grpc.token = Some(TokenFile { path: token.clone(), clusters: vec!["cp".into()] });
        let handle = start(config, &net);
        let word = if delta { "Delta" } else { "Stream" };
        let mut cds = net.call().await;
        assert_eq!(cds.path, format!("/envoy.service.cluster.v3.ClusterDiscoveryService/{word}Clusters"));
        assert_eq!(cds.metadata.get("authorization").unwrap(), "Bearer t1");
        cds.expect(Kind::Cluster).await;
        std::fs::write(&token, "t2").unwrap();
        cds.send(Kind::Cluster, "1", "n", vec![eds("a", 1, "via=self"), fixed("b", 1, "via=delta:other;secrets=s")])
            .await;
        let (first, second) = (net.call().await, net.call().await);
        let (mut eds_call, mut sds_call) =
            if first.path.contains("Endpoint") { (first, second) } else { (second, first) };
        assert_eq!(eds_call.path, format!("/envoy.service.endpoint.v3.EndpointDiscoveryService/{word}Endpoints"));
        assert_eq!(eds_call.metadata.get("authorization").unwrap(), "Bearer t2");
        assert_eq!(sds_call.path, "/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets");
        assert!(sds_call.metadata.get("authorization").is_none(), "not this cluster's token");
        assert_eq!(eds_call.expect(Kind::Endpoints).await.names, ["a"]);
        eds_call.send(Kind::Endpoints, "1", "n", vec![endpoints("a", 1)]).await;
        assert_eq!(sds_call.expect(Kind::Secret).await.names, ["s"]);
        sds_call.send(Kind::Secret, "1", "n", vec![secret("s", 1)]).await;
        snapshot(&handle, "both", |s| s.clusters.len() == 2).await;
        // Without references the separate streams end.
        if delta {
            cds.remove(Kind::Cluster, "n2", &["a", "b"]).await;
        } else {
            cds.send(Kind::Cluster, "2", "n2", vec![]).await;
        }
        eds_call.closed().await;
        sds_call.closed().await;
        status(&handle, "only cds", |s| s.sources.keys().map(|k| &**k).eq(["grpc:cp/cds"])).await;
    })
    .await;
}

#[tokio::test]
async fn references_to_a_stream_that_is_not_configured_are_named() {
    let net = Net::new();
    let mut config = config(false);
    config.ads = None;
    let handle = start(config, &net);
    let got = status(&handle, "reason", |s| s.sources.contains_key("ads")).await;
    assert!(got.sources["ads"].last_error.as_ref().unwrap().contains("ads_config"));
    assert!(got.not_ready_reason().unwrap().contains("ads_config"));
}

#[tokio::test]
async fn dropping_the_handle_ends_the_stream() {
    let net = Net::new();
    let handle = start(config(true), &net);
    let mut call = net.call().await;
    call.expect(Kind::Cluster).await;
    drop(handle);
    call.closed().await;
}

#[tokio::test]
async fn delta_removals_apply_and_the_request_type_is_checked() {
    let net = Net::new();
    let handle = start(config(true), &net);
    let mut call = net.call().await;
    serve_all(&mut call, "1").await;
    call.remove(Kind::Listener, "x", &["l", "unknown"]).await;
    let request: Request = call.expect(Kind::Listener).await;
    assert_eq!(request.ack(), ("x", None));
    let got = snapshot(&handle, "gone", |s| s.listeners.is_empty()).await;
    assert!(got.routes.is_empty(), "nobody refers to them");
    assert_eq!(call.expect(Kind::Routes).await.unsubscribe, ["r"]);
}

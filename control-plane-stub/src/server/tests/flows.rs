//! What clients are sent, and when.

use std::collections::HashMap;

use super::*;

const C: TypeUrl = TypeUrl::Cluster;
const R: TypeUrl = TypeUrl::Route;

#[tokio::test]
async fn delta_from_first_world_to_reconnect() {
    let bench = Bench::start().await;
    let mut client = DeltaClient::open(bench.plain().await, None, delta(&C, &["*"])).await.unwrap();
    // Before the first world the stream is held, not answered with nothing.
    bench.until("listed", |s| types(s, &C).len() == 1).await;
    bench.publish(1, "c/a=1 c/b=1");
    let first = client.next().await.unwrap();
    let versions: HashMap<String, String> =
        first.resources.iter().map(|r| (r.name.clone(), r.version.clone())).collect();
    assert_eq!(versions.len(), 2);
    assert_eq!(first.control_plane.unwrap().identifier, concat!("outrigger-control/", env!("CARGO_PKG_VERSION")));
    client
        .send(DeltaDiscoveryRequest { type_url: first.type_url, response_nonce: first.nonce, ..Default::default() })
        .await;
    bench.publish(2, "c/b=2 c/c=1");
    assert_eq!(client.names().await, (vec!["b".into(), "c".into()], vec![]));
    assert_eq!(client.names().await, (vec![], vec!["a".into()]));
    bench.until("settled", |s| s.proxies()[0].state().sent == 2 && !types(s, &C)[0].waiting).await;
    let report = types(&bench.status, &C).remove(0);
    assert_eq!((report.sent == report.acked, report.resources, report.pushes), (true, 2, 3));

    drop(client);
    bench.until("gone", |s| s.proxies().is_empty()).await;
    let request = DeltaDiscoveryRequest { initial_resource_versions: versions, ..delta(&C, &["*"]) };
    let mut again = DeltaClient::open(bench.plain().await, None, request).await.unwrap();
    assert_eq!(again.names().await, (vec!["b".into(), "c".into()], vec![]));
    for kind in [TypeUrl::Listener, R] {
        again.send(delta(&kind, &["x"])).await;
        assert_eq!(again.names().await, (vec![], vec!["x".into()]));
    }
    assert_eq!(again.names().await, (vec![], vec!["a".into()]), "after what might have used it");
}

#[tokio::test]
async fn sotw_with_a_refusal() {
    let bench = Bench::start().await;
    bench.publish(1, "c/a=1 r/x=bad");
    let mut client = SotwClient::open(bench.plain().await, None, sotw(&C, &[])).await.unwrap();
    assert_eq!(client.values(true).await, ["1"]);
    client.requests.send(sotw(&R, &["x"])).await.unwrap();
    let response = client.next().await.unwrap();
    let nack =
        DiscoveryRequest { response_nonce: response.nonce, error_detail: error("no such thing"), ..sotw(&R, &["x"]) };
    client.requests.send(nack).await.unwrap();
    bench.until("refused", |s| types(s, &R).first().is_some_and(|t| t.refused)).await;
    let report = types(&bench.status, &R).remove(0);
    assert_eq!((report.last_nack.unwrap().message.as_str(), report.acked.as_str()), ("no such thing", ""));
    let mut metrics = String::new();
    bench.status.metrics.render(&mut metrics);
    assert!(metrics.contains("nacks_total{type=\"RDS\"} 1"), "{metrics}");

    bench.publish(2, "c/a=1 r/x=good");
    let response = client.next().await.unwrap();
    assert_eq!(response.resources[0].value, b"good");
    let ack = DiscoveryRequest { response_nonce: response.nonce, ..sotw(&R, &["x"]) };
    client.requests.send(ack).await.unwrap();
    bench.until("mended", |s| types(s, &R).first().is_some_and(|t| !t.refused && t.acked == t.sent)).await;
}

/// A client that does not read is not queued for: it gets what is latest when it reads again.
#[tokio::test]
async fn a_slow_client_skips_what_lies_between() {
    let bench = Bench::start().await;
    let filler = "x".repeat(64 << 10);
    bench.publish(1, &format!("c/a={filler}0"));
    let mut client = SotwClient::open(bench.plain().await, None, sotw(&C, &[])).await.unwrap();
    client.values(true).await;
    let worlds = 500;
    for version in 2..=worlds {
        bench.publish(version, &format!("c/a={filler}{version}"));
        tokio::task::yield_now().await;
    }
    let mut pushes = 0;
    loop {
        pushes += 1;
        if client.values(true).await[0].ends_with(&format!("x{worlds}")) {
            break;
        }
    }
    assert!(pushes < worlds / 2, "{pushes} pushes for {worlds} worlds");
    bench.until("current", |s| s.proxies()[0].state().sent == worlds).await;
}

#[tokio::test]
async fn messages_larger_than_grpcs_default_pass() {
    let bench = Bench::start().await;
    bench.publish(1, &format!("c/a={}", "y".repeat(9 << 20)));
    let mut client = SotwClient::open(bench.plain().await, None, sotw(&C, &[])).await.unwrap();
    assert_eq!(client.next().await.unwrap().resources[0].value.len(), 9 << 20);
    // And back: a reconnecting client lists much.
    let versions = (0..60_000).map(|i| (format!("{i:0>80}"), "v".repeat(32))).collect();
    let request = DeltaDiscoveryRequest { initial_resource_versions: versions, ..delta(&C, &["a"]) };
    assert!(prost::Message::encoded_len(&request) > 4 << 20);
    let mut client = DeltaClient::open(bench.plain().await, None, request).await.unwrap();
    assert_eq!(client.names().await.0, ["a"]);
}

#[tokio::test]
async fn shutdown_ends_streams_and_returns() {
    let bench = Bench::start().await;
    bench.publish(1, "c/a=1");
    let mut client = SotwClient::open(bench.plain().await, None, sotw(&C, &[])).await.unwrap();
    client.values(true).await;
    bench.shutdown.cancel();
    assert_eq!(client.next().await.unwrap_err().code(), tonic::Code::Unavailable);
    drop(client);
    soon(bench.served).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_number_of_streams_is_bounded() {
    let bench = Bench::start().await;
    bench.publish(1, "c/a=1");
    let channel = bench.plain().await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut client = SotwClient::open(channel.clone(), None, sotw(&C, &[])).await.unwrap();
        client.values(true).await;
        clients.push(client);
    }
    let refused = SotwClient::open(channel.clone(), None, sotw(&C, &[])).await.err().unwrap();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    clients.pop();
    bench.until("one left", |s| s.proxies().len() == 7).await;
    soon(async { while SotwClient::open(channel.clone(), None, sotw(&C, &[])).await.is_err() {} }).await;
}

#[tokio::test]
async fn one_identity_leaves_streams_to_the_others() {
    let bench = Bench::start().await;
    bench.publish(1, "c/a=1");
    let channel = bench.secure("localhost", None).await.unwrap();
    let (own, other) = (bench.token("shop", "reviews"), bench.token("shop", "web"));
    let mut clients = Vec::new();
    for _ in 0..6 {
        let mut client = SotwClient::open(channel.clone(), Some(&own), sotw(&C, &[])).await.unwrap();
        client.values(true).await;
        clients.push(client);
    }
    let refused = SotwClient::open(channel.clone(), Some(&own), sotw(&C, &[])).await.err().unwrap();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    let first = DiscoveryRequest { node: node("shop", "web"), ..sotw(&C, &[]) };
    assert_eq!(SotwClient::open(channel, Some(&other), first).await.unwrap().values(true).await, ["1"]);
}

#[tokio::test]
async fn status_pages() {
    let bench = Bench::start().await;
    bench.publish(1, "c/a=1");
    bench.status.update_config(|config| config.version = 1);
    let mut client = SotwClient::open(bench.plain().await, None, sotw(&C, &[])).await.unwrap();
    client.values(true).await;
    bench.until("acked", |s| types(s, &C)[0].acked == types(s, &C)[0].sent).await;
    let get = async |path: &str| {
        let stream = TcpStream::connect(bench.addresses.status).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = http::Request::get(path).header("host", "x").body(String::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        let code = response.status().as_u16();
        let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
        (code, String::from_utf8(body.to_vec()).unwrap())
    };
    let (code, body) = soon(get("/status")).await;
    let report: crate::status::report::Report = serde_json::from_str(&body).unwrap();
    let proxy = &report.proxies[0];
    assert_eq!((code, proxy.kind.as_str(), proxy.variant.as_str()), (200, "envoy", "sotw"));
    assert_eq!((proxy.namespace.as_str(), proxy.types["CDS"].resources), ("shop", 1));
    assert_eq!(proxy.types["CDS"].applied, proxy.types["CDS"].sent);
    assert_eq!(soon(get("/ready")).await.0, 200);
    let (_, metrics) = soon(get("/metrics")).await;
    assert!(metrics.contains("outrigger_control_connected_proxies{kind=\"envoy\"} 1"), "{metrics}");
    assert_eq!(soon(get("/nothing")).await.0, 404);
    bench.status.update_config(|config| config.version = 0);
    assert_eq!(soon(get("/ready")).await.0, 503);
}

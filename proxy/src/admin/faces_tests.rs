//! Who gets a place at the admin interface and the status port, and what probes hear there.

use super::{tests::start, *};

#[tokio::test]
async fn probes_have_a_place_whoever_else_is_connected() {
    let rig = start().await;
    rig.admin.state().applied(3);
    let address = lock(&rig.admin.servers)[1].address().unwrap();
    let silent: Vec<_> = (0..100).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
    assert_eq!(rig.send(1, "GET /healthz/ready HTTP/1.0\r\n\r\n").await.0, 200);
    drop(silent);
    let scrapes = rig.admin.state().scrapes.clone();
    let held = scrapes.acquire_many(MOST_SCRAPES as u32).await.unwrap();
    assert_eq!(rig.send(1, "GET /metrics HTTP/1.0\r\n\r\n").await.0, 503);
    assert_eq!(rig.send(1, "GET /healthz/ready HTTP/1.0\r\n\r\n").await.0, 200);
    drop(held);
    assert_eq!(rig.send(1, "GET /metrics HTTP/1.0\r\n\r\n").await.0, 200);
}

#[tokio::test]
async fn pages_of_others_get_nothing() {
    let rig = start().await;
    let ask = async |fields: &str| {
        rig.send(0, &format!("GET /stats HTTP/1.1\r\n{fields}\r\nconnection: close\r\n\r\n")).await.0
    };
    assert_eq!(ask("host: 127.0.0.1:1\r\nuser-agent: Mozilla/5.0").await, 200);
    assert_eq!(ask("host: 127.0.0.1:1\r\nsec-fetch-site: cross-site").await, 403);
    assert_eq!(ask("host: rebound.test\r\nuser-agent: Mozilla/5.0").await, 403);
}

#[tokio::test]
async fn who_has_started_has_started_whatever_becomes_of_readiness() {
    let rig = start().await;
    let ask = async |path: &str| rig.send(1, &format!("GET {path} HTTP/1.0\r\n\r\n")).await;
    let (status, _, body) = ask("/healthz/started").await;
    assert!(status == 503 && body.contains("listeners are not open yet"), "{body}");
    rig.admin.state().applied(3);
    assert_eq!(ask("/healthz/started").await.0, 503);
    rig.admin.state().set_open(true);
    rig.admin.state().set_sockets(Default::default(), vec!["taken".to_owned()]);
    assert_eq!(ask("/healthz/started").await.0, 503);
    rig.admin.state().set_sockets(Default::default(), Vec::new());
    assert_eq!(ask("/healthz/started").await.0, 200);
    rig.admin.state().set_open(false);
    rig.admin.state().set_sockets(Default::default(), vec!["taken".to_owned()]);
    assert_eq!((ask("/healthz/started").await.0, ask("/healthz/ready").await.0), (200, 503));
}

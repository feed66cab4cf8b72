use std::future::{pending, ready};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::tls::testing::tcp_pair;

const PLAN: InspectPlan = InspectPlan { tls: true, http: true, timeout: None, max_bytes: MAX_BYTES };

async fn read_back(inspected: Inspected, peer: TcpStream) -> Vec<u8> {
    drop(peer);
    let mut bytes = Vec::new();
    let mut plain = inspected.plain;
    plain.read_to_end(&mut bytes).await.unwrap();
    bytes
}

#[tokio::test]
async fn every_byte_read_is_given_back() {
    for (sent, alpn) in [
        (&b"GET / HTTP/1.1\r\nHost: a\r\n\r\nbody"[..], Some("http/1.1")),
        (b"GET / HTTP/1.0\r\n\r\n", Some("http/1.0")),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore", Some("h2c")),
        (b"\x00\x01binary", None),
    ] {
        let (mut near, far) = tcp_pair().await;
        near.write_all(sent).await.unwrap();
        let inspected = inspect(far, &PLAN, pending).await.unwrap();
        assert_eq!(inspected.transport, Transport::RawBuffer);
        assert_eq!(inspected.alpn.first().map(|a| &**a), alpn);
        assert!(!inspected.timed_out && !inspected.eof && !inspected.server_first);
        assert_eq!(read_back(inspected, near).await, sent);
    }
}

#[tokio::test]
async fn a_hello_in_single_bytes() {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let mut config = rustls::ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"istio".to_vec()];
    let name = "A.test".try_into().unwrap();
    let mut hello = Vec::new();
    rustls::ClientConnection::new(config.into(), name).unwrap().write_tls(&mut hello).unwrap();
    let (mut near, far) = tcp_pair().await;
    near.set_nodelay(true).unwrap();
    let send = async {
        for byte in &hello {
            near.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let (inspected, ()) = tokio::join!(inspect(far, &PLAN, pending), send);
    let inspected = inspected.unwrap();
    assert_eq!(inspected.transport, Transport::Tls);
    assert_eq!((inspected.server_name.as_deref(), &inspected.alpn[..]), (Some("a.test"), &["istio".into()][..]));
    assert_eq!(read_back(inspected, near).await, hello);
}

#[tokio::test]
async fn a_silent_client_is_decided_by_the_clock_or_the_server() {
    let (_near, far) = tcp_pair().await;
    let plan = InspectPlan { timeout: Some(Duration::from_millis(10)), ..PLAN };
    let inspected = inspect(far, &plan, pending).await.unwrap();
    assert!(inspected.timed_out && inspected.transport == Transport::RawBuffer && inspected.alpn.is_empty());

    let (near, far) = tcp_pair().await;
    let inspected = inspect(far, &PLAN, || ready(())).await.unwrap();
    assert!(inspected.server_first && !inspected.timed_out);
    assert_eq!(read_back(inspected, near).await, b"");

    // Once the client has begun, the server's first byte decides nothing.
    let (mut near, far) = tcp_pair().await;
    near.write_all(b"GET /").await.unwrap();
    far.readable().await.unwrap();
    let inspected = inspect(far, &plan, || ready(())).await.unwrap();
    assert!(inspected.timed_out && !inspected.server_first);
    assert_eq!(read_back(inspected, near).await, b"GET /");
}

#[tokio::test]
async fn ends_errors_and_excess() {
    let (mut near, far) = tcp_pair().await;
    near.write_all(b"GET").await.unwrap();
    near.shutdown().await.unwrap();
    let inspected = inspect(far, &PLAN, pending).await.unwrap();
    assert!(inspected.eof);
    assert_eq!(read_back(inspected, near).await, b"GET");

    let (near, far) = tcp_pair().await;
    near.set_zero_linger().unwrap();
    drop(near);
    far.readable().await.unwrap();
    assert!(matches!(inspect(far, &PLAN, pending).await, Err(InspectError::Io(_))));

    let (mut near, far) = tcp_pair().await;
    near.write_all(&[b"GET /".to_vec(), vec![b'a'; 9000]].concat()).await.unwrap();
    let plan = InspectPlan { max_bytes: 8192, ..PLAN };
    assert!(matches!(inspect(far, &plan, pending).await, Err(InspectError::TooLarge(8192))));
}

#[tokio::test]
async fn what_is_not_looked_for_is_not_awaited() {
    for plan in [InspectPlan { tls: false, http: false, ..PLAN }, InspectPlan { http: false, ..PLAN }] {
        let (mut near, far) = tcp_pair().await;
        near.write_all(b"G").await.unwrap();
        let inspected = inspect(far, &plan, pending).await.unwrap();
        assert_eq!(inspected.transport, Transport::RawBuffer);
        assert_eq!(read_back(inspected, near).await, b"G");
    }
}

//! What the first bytes are.

use std::hint::black_box;

use criterion::Criterion;
use outrigger_proxy::net::sniff::{Verdict, classify};

pub(crate) fn bench(criterion: &mut Criterion) {
    let hello = client_hello("outbound_.8080_._.app.default.svc.cluster.local");
    let http1 = b"GET /api/v1/items?page=3 HTTP/1.1\r\nhost: app\r\n\r\n".to_vec();
    let mysql = b"\x4a\x00\x00\x00\x0a8.0.36\x00".to_vec();
    assert!(matches!(classify(&hello), Verdict::Tls(_)));
    assert!(matches!(classify(&http1), Verdict::Http1 { .. }));
    assert_eq!(classify(&mysql), Verdict::Other);
    let mut group = criterion.benchmark_group("sniff");
    for (what, bytes) in [("tls", hello), ("http1", http1), ("other", mysql)] {
        group.bench_function(what, |b| b.iter(|| classify(black_box(&bytes))));
    }
    group.finish();
}

/// The first record of a real client.
fn client_hello(name: &str) -> Vec<u8> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let mut config = rustls::ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .expect("the provider has suites")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"istio-peer-exchange".to_vec(), b"h2".to_vec()];
    let name = name.to_owned().try_into().expect("a host name");
    let mut client = rustls::ClientConnection::new(config.into(), name).expect("the name is usable");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("memory takes everything");
    bytes
}

//! Checks over the transport that they ask for.

use std::{collections::BTreeMap, time::Duration};

use tokio::{io::AsyncReadExt, net::TcpListener};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::{
    ir::{
        cluster::{Cluster as Config, Discovery, HealthPolicy, TransportMatch},
        endpoint::Address,
        health_check::{Probe, TcpProbe},
        secret::{CommonTls, DataSource, UpstreamTls, Validation, ValidationSource},
    },
    upstream::{Deps, health::state::tests::check, testing},
};

/// A TLS server that says what protocol was agreed on; its certificate comes with it.
async fn tls_server() -> (std::net::SocketAddr, Vec<u8>) {
    let key = rcgen::generate_simple_self_signed(vec!["test.example".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let private = rustls_pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![key.cert.der().clone()], private)
        .unwrap();
    config.alpn_protocols = vec![b"checks".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut tls) = acceptor.accept(stream).await else { continue };
            let agreed = tls.get_ref().1.alpn_protocol().unwrap_or(b"nothing").to_vec();
            let _ = tokio::io::AsyncWriteExt::write_all(&mut tls, &agreed).await;
            let _ = tls.read(&mut [0; 1]).await;
        }
    });
    (address, key.cert.pem().into_bytes())
}

fn transport(certificate: Vec<u8>) -> Arc<UpstreamTls> {
    let validation = Validation { trusted_ca: Some(DataSource::Inline(certificate.into())), ..Validation::default() };
    let common = CommonTls { validation: ValidationSource::Static(Arc::new(validation)), ..CommonTls::default() };
    Arc::new(UpstreamTls { common, sni: Some("test.example".into()), auto_host_sni: false, max_session_keys: 1 })
}

/// Whether the host passed its first check.
async fn passes(config: Config) -> bool {
    let deps = Deps::default();
    let cluster = Cluster::build(Arc::new(config), None, &deps, None).unwrap();
    let (results, mut checked) = mpsc::unbounded_channel();
    let mut active = Active::default();
    active.sync(&cluster, &Shared { results, slots: Arc::new(Semaphore::new(1)) });
    tokio::time::timeout(Duration::from_secs(20), checked.recv()).await.unwrap().unwrap().passed
}

#[tokio::test]
async fn a_check_may_ask_for_another_transport_and_protocol() {
    let (address, certificate) = tls_server().await;
    let criteria = serde_json::Map::from_iter([("useMTLS".to_owned(), true.into())]);
    let named = |check: &mut HealthCheck| {
        let metadata = BTreeMap::from([("envoy.transport_socket_match".to_owned(), criteria.clone())]);
        check.transport = Some(Arc::new(metadata));
    };
    let config = |change: &dyn Fn(&mut HealthCheck)| {
        let mut check = check(Probe::Tcp(TcpProbe { send: Vec::new(), receive: vec![b"checks".to_vec()] }));
        check.alpn = Some(Arc::from(["checks".into()]));
        check.timeout = Duration::from_secs(10);
        change(&mut check);
        let policy = HealthPolicy { check: Some(check), ..HealthPolicy::default() };
        let endpoints = vec![testing::endpoint(Address::Ip(address))];
        let tls = Some(transport(certificate.clone()));
        Config {
            transport_matches: vec![TransportMatch { name: "mtls".into(), criteria: criteria.clone(), tls }],
            health: Some(Arc::new(policy)),
            ..testing::config("c", Discovery::Static(testing::assignment(endpoints)))
        }
    };
    assert!(passes(config(&named)).await);
    let other = |check: &mut HealthCheck| {
        named(check);
        check.alpn = Some(Arc::from(["others".into()]));
    };
    assert!(!passes(config(&other)).await, "no protocol in common");
    // What the endpoint itself asks for: plaintext, which the server does not answer.
    let plain = |check: &mut HealthCheck| check.timeout = Duration::from_millis(100);
    assert!(!passes(config(&plain)).await);
}

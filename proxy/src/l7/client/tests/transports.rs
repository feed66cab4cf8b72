use std::{sync::Arc, time::Duration};

use tokio::net::{TcpStream, UnixListener};
use tokio_rustls::TlsAcceptor;

use super::support::*;
use crate::ir::secret::{CommonTls, DataSource, UpstreamTls, Validation, ValidationSource};

fn upstream_tls(ca: &[u8], alpn: &[&str]) -> Arc<UpstreamTls> {
    let validation = Validation { trusted_ca: Some(DataSource::Inline(ca.into())), ..Validation::default() };
    Arc::new(UpstreamTls {
        common: CommonTls {
            validation: ValidationSource::Static(Arc::new(validation)),
            alpn: alpn.iter().map(|a| Box::from(*a)).collect(),
            ..CommonTls::default()
        },
        sni: Some("test.example".into()),
        auto_host_sni: false,
        max_session_keys: 1,
    })
}

/// For servers that never get as far as a certificate.
pub(super) fn trusting_nobody() -> Arc<UpstreamTls> {
    let key = rcgen::generate_simple_self_signed(vec!["nobody.example".to_owned()]).unwrap();
    upstream_tls(key.cert.pem().as_bytes(), &[])
}

/// A TLS acceptor offering `alpn`, and its certificate.
fn acceptor(alpn: &[&str]) -> (TlsAcceptor, Vec<u8>) {
    let key = rcgen::generate_simple_self_signed(vec!["test.example".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let private = rustls_pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![key.cert.der().clone()], private)
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|a| a.as_bytes().to_vec()).collect();
    (TlsAcceptor::from(Arc::new(config)), key.cert.pem().into_bytes())
}

async fn serve_tls(acceptor: TlsAcceptor, stream: TcpStream) {
    let Ok(tls) = acceptor.accept(stream).await else { return };
    match tls.get_ref().1.alpn_protocol() {
        Some(b"h2") => serve_http2(tls).await,
        _ => serve_http1(tls).await,
    }
}

#[test]
fn auto_takes_what_the_handshake_agrees_on() {
    for (offered, configured, expected, connections) in [
        (&["h2", "http/1.1"][..], &[][..], HttpProtocol::Http2, 1),
        (&["http/1.1"][..], &[][..], HttpProtocol::Http1, 20),
        (&[][..], &[][..], HttpProtocol::Http1, 20),
        (&["h2", "http/1.1"][..], &["http/1.1"][..], HttpProtocol::Http1, 20),
    ] {
        worker(async move {
            let (acceptor, ca) = acceptor(offered);
            let server = server(move |stream, _| serve_tls(acceptor.clone(), stream)).await;
            let tls = upstream_tls(&ca, configured);
            let attempt = attempt(address(server.address), Protocol::Auto, |c| c.tls = Some(tls));
            let pool = Pool::<Body>::new();
            let requests = (0..20).map(|_| async {
                let sent = pool.send(&attempt, get("/")).await.unwrap();
                assert_eq!(sent.facts.protocol, expected);
                assert!(sent.facts.tls.is_some());
                text(sent).await
            });
            let answers = futures_util::future::join_all(requests).await;
            assert!(answers.iter().all(|a| a == "GET / test.example "), "{answers:?}");
            let accepted = server.accepted.get();
            assert!((1..=connections).contains(&accepted), "{accepted} connections");
            assert_eq!(stat(&attempt, "ssl_handshake"), stat(&attempt, "upstream_cx_total"));
            text(pool.send(&attempt, get("/")).await.unwrap()).await;
        });
    }
}

#[test]
fn auto_without_tls_is_http1() {
    worker(async {
        let server = server(|stream, _| serve_http1(stream)).await;
        let attempt = attempt(address(server.address), Protocol::Auto, |_| {});
        let sent = Pool::<Body>::new().send(&attempt, get("/")).await.unwrap();
        assert_eq!(sent.facts.protocol, HttpProtocol::Http1);
        text(sent).await;
    });
}

#[test]
fn an_untrusted_certificate_is_a_tls_failure() {
    worker(async {
        let (acceptor, _) = acceptor(&["h2"]);
        let server = server(move |stream, _| serve_tls(acceptor.clone(), stream)).await;
        let attempt = attempt(address(server.address), Protocol::Http2, |c| c.tls = Some(trusting_nobody()));
        let error = Pool::<Body>::new().send(&attempt, get("/x")).await.unwrap_err();
        let SendErrorKind::Connect(connect) = &error.kind else { panic!("{error:?}") };
        assert_eq!(connect.kind, ConnectErrorKind::Tls);
        assert!(connect.reason.starts_with("TLS"), "{}", connect.reason);
        assert_eq!(error.request.unwrap().uri(), "/x");
        assert_eq!((stat(&attempt, "ssl_connection_error"), stat(&attempt, "upstream_cx_connect_fail")), (1, 1));
        settled(&attempt, 0).await;
    });
}

#[test]
fn a_server_that_wants_our_certificate_is_a_tls_failure() {
    worker(async {
        for protocol in [Protocol::Http1, Protocol::Http2] {
            // TLS 1.3: the server's alert comes after our side of the handshake is done.
            let ca = rcgen::generate_simple_self_signed(vec!["ca.example".to_owned()]).unwrap();
            let mut roots = rustls::RootCertStore::empty();
            roots.add(ca.cert.der().clone()).unwrap();
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let verifier =
                rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
            let key = rcgen::generate_simple_self_signed(vec!["test.example".to_owned()]).unwrap();
            let private = rustls_pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
            let mut config = rustls::ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_client_cert_verifier(verifier.build().unwrap())
                .with_single_cert(vec![key.cert.der().clone()], private)
                .unwrap();
            config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            let acceptor = TlsAcceptor::from(Arc::new(config));
            let server = server(move |stream, _| serve_tls(acceptor.clone(), stream)).await;
            let tls = upstream_tls(key.cert.pem().as_bytes(), &[]);
            let attempt = attempt(address(server.address), protocol, |c| c.tls = Some(tls));
            let error = Pool::<Body>::new().send(&attempt, get("/x")).await.unwrap_err();
            let SendErrorKind::Connect(connect) = &error.kind else { panic!("{protocol:?}: {error:?}") };
            assert_eq!(connect.kind, ConnectErrorKind::Tls);
            assert!(connect.reason.to_lowercase().contains("certificate"), "{}", connect.reason);
            settled(&attempt, 0).await;
        }
    });
}

#[test]
fn the_connect_timeout_covers_the_handshake() {
    worker(async {
        // The kernel accepts; nobody answers the hello.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let attempt = attempt(address(listener.local_addr().unwrap()), Protocol::Http1, |c| {
            c.tls = Some(trusting_nobody());
            c.connect_timeout = Duration::from_millis(50);
        });
        let error = Pool::<Body>::new().send(&attempt, get("/")).await.unwrap_err();
        let SendErrorKind::Connect(connect) = &error.kind else { panic!("{error:?}") };
        assert_eq!(connect.kind, ConnectErrorKind::Timeout);
        assert_eq!((stat(&attempt, "upstream_cx_connect_timeout"), stat(&attempt, "upstream_cx_connect_fail")), (1, 1));
        settled(&attempt, 0).await;
    });
}

#[test]
fn unix_sockets_with_a_path_or_an_abstract_name() {
    worker(async {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let name = format!("outrigger-test-{}-{}", std::process::id(), fastrand::u64(..));
        let listeners = [
            (UnixListener::bind(&path).unwrap(), path.clone()),
            (UnixListener::bind(format!("\0{name}")).unwrap(), format!("@{name}").into()),
        ];
        for (listener, path) in listeners {
            tokio::task::spawn_local(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::task::spawn_local(serve_http1(stream));
                }
            });
            let attempt = attempt(Address::Pipe(path.clone()), Protocol::Http1, |_| {});
            let pool = Pool::<Body>::new();
            for round in 0..2 {
                let sent = pool.send(&attempt, get("/")).await.unwrap();
                assert_eq!((sent.new_connection, sent.facts.local), (round == 0, None));
                assert_eq!(text(sent).await, "GET / test.example ", "{path:?}");
            }
        }
        let attempt = attempt(Address::Pipe(directory.path().join("nothing")), Protocol::Http1, |_| {});
        let error = Pool::<Body>::new().send(&attempt, get("/")).await.unwrap_err();
        assert_eq!(error.reason, "immediate connect error: No such file or directory");
    });
}

#[test]
fn connections_are_bound_as_configured() {
    worker(async {
        let server = server(|stream, _| serve_http1(stream)).await;
        let attempt = attempt(address(server.address), Protocol::Http1, |c| {
            c.bind = Some(crate::ir::cluster::Bind {
                source: "[::6]:0".parse().unwrap(),
                extra: vec!["127.0.0.6:0".parse().unwrap()],
                freebind: true,
            });
        });
        let sent = Pool::<Body>::new().send(&attempt, get("/")).await.unwrap();
        assert_eq!(sent.facts.local.unwrap().ip().to_string(), "127.0.0.6");
    });
}

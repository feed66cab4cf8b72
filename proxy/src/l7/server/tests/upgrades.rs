//! What an upgrade looks like to the upstream, and what is none.

use std::sync::Arc;

use http::{Method, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use super::{
    http2::{client, full, serve},
    peer::{Upstream, header},
    support::{Setup, pair, run},
    tunnel::{UPGRADE, extended},
};
use crate::ir::{
    cluster::UpstreamProtocol,
    secret::{CommonTls, DataSource, UpstreamTls, Validation, ValidationSource},
};

#[test]
fn an_upgrade_keeps_its_method() {
    run(async {
        let (proxy, upstream) = pair(|s| s.hcm.upgrades = vec![("spdy/3.1".into(), true)]).await;
        let mut client = proxy.connect().await;
        client
            .send(
                "POST /exec HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
                 Content-Length: 0\r\n\r\n",
            )
            .await;
        let mut server = upstream.accept().await;
        let head = server.head().await;
        assert!(head.starts_with("POST /exec HTTP/1.1\r\n"), "{head}");
        assert_eq!(header(&head, "upgrade"), Some("spdy/3.1"));
        server.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n").await;
        assert!(client.head().await.starts_with("HTTP/1.1 101"));
        client.send("ping").await;
        assert_eq!(server.exactly(4).await, "ping");
    });
}

#[test]
fn what_an_extended_connect_cannot_say_is_refused() {
    run(async {
        let (_upstream, address) = Upstream::bind().await;
        let proxy = Setup::new(&[address]).upstream_http2().start().await;
        // At the next hop it would be a GET.
        let mut client = proxy.connect().await;
        client
            .send(
                "POST /a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n",
            )
            .await;
        let (head, _) = client.message().await;
        assert!(head.starts_with("HTTP/1.1 403"), "{head}");
        // Its content would be lost.
        let mut client = proxy.connect().await;
        client
            .send(
                "GET /b HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\nx",
            )
            .await;
        let (head, _) = client.message().await;
        assert!(head.starts_with("HTTP/1.1 403"), "{head}");
        assert_eq!(proxy.log(2).await, ["403 - upgrade_failed 0 0 0 /a", "403 - upgrade_failed 0 0 0 /b"]);
    });
}

#[test]
fn extended_connect_crosses_an_http2_hop() {
    run(async {
        let (upstream, address) = Upstream::bind().await;
        let mut setup = Setup::new(&[address]).upstream_http2();
        setup.hcm.http2.allow_connect = true;
        let proxy = setup.start().await;
        serve(upstream, |mut request| async move {
            assert_eq!(request.method(), Method::CONNECT);
            assert_eq!(request.extensions().get::<hyper::ext::Protocol>().unwrap().as_str(), "websocket");
            assert_eq!(request.uri().to_string(), "http://x/chat?room=1");
            assert!(!request.headers().contains_key("upgrade"));
            let promise = hyper::upgrade::on(&mut request);
            tokio::task::spawn_local(async move {
                let mut stream = TokioIo::new(promise.await.unwrap());
                stream.write_all(b"hello").await.unwrap();
                stream.shutdown().await.unwrap();
            });
            Ok(Response::new(full("")))
        });
        let response = extended(client(&proxy).await, "/chat?room=1").await.await.unwrap().unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert!(!response.headers().contains_key("sec-websocket-accept"), "there was no key");
        let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "hello");
    });
}

#[test]
fn an_answer_instead_of_a_switch_is_no_tunnel() {
    run(async {
        let (proxy, upstream) = pair(|s| s.hcm.http2.allow_connect = true).await;
        let pending = extended(client(&proxy).await, "/chat").await;
        let mut server = upstream.accept().await;
        server.head().await;
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno").await;
        // To an extended CONNECT any 2xx says that the tunnel is there.
        let response = pending.await.unwrap().unwrap();
        assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
        let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
        assert_eq!(body, "no");
    });
}

#[test]
fn extended_connect_has_to_be_allowed() {
    run(async {
        let (proxy, _upstream) = pair(|_| {}).await;
        let answer = extended(client(&proxy).await, "/chat").await.await.unwrap();
        assert!(answer.is_err(), "{answer:?}");
    });
}

/// TLS to whoever has this certificate, with the choice of both protocols.
fn trusting(certificate: &str) -> Arc<UpstreamTls> {
    let trusted = DataSource::Inline(certificate.as_bytes().into());
    let validation = Validation { trusted_ca: Some(trusted), ..Validation::default() };
    Arc::new(UpstreamTls {
        common: CommonTls {
            validation: ValidationSource::Static(Arc::new(validation)),
            alpn: ["h2", "http/1.1"].into_iter().map(Box::from).collect(),
            ..CommonTls::default()
        },
        sni: Some("test.example".into()),
        auto_host_sni: false,
        max_session_keys: 1,
    })
}

#[test]
fn upgrades_are_http1_where_the_host_may_choose() {
    run(async {
        let key = rcgen::generate_simple_self_signed(vec!["test.example".to_owned()]).unwrap();
        let private = rustls_pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config =
            builder.unwrap().with_no_client_auth().with_single_cert(vec![key.cert.der().clone()], private).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let (upstream, address) = Upstream::bind().await;
        let mut setup = Setup::new(&[address]);
        setup.cluster.tls = Some(trusting(&key.cert.pem()));
        Arc::make_mut(&mut setup.cluster.http).protocol = UpstreamProtocol::Auto;
        let proxy = setup.start().await;
        let mut client = proxy.connect().await;
        client.send(UPGRADE).await;
        let stream = upstream.0.accept().await.unwrap().0;
        let mut server = TlsAcceptor::from(Arc::new(config)).accept(stream).await.unwrap();
        // Over HTTP/2 the host would see a plain GET, or what it cannot do.
        assert_eq!(server.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(server.read_u8().await.unwrap());
        }
        assert_eq!(header(&String::from_utf8(head).unwrap(), "upgrade"), Some("websocket"));
        let switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhi";
        server.write_all(switch).await.unwrap();
        server.flush().await.unwrap();
        assert!(client.head().await.starts_with("HTTP/1.1 101"));
        assert_eq!(client.exactly(2).await, "hi");
    });
}

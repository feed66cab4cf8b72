//! Who gets in, as whom, and what keys are given.

use std::{io::Write, time::SystemTime};

use outrigger_wire::{
    ca::{IstioCertificateRequest, IstioCertificateServiceClient},
    pb::envoy::{
        config::core::v3::data_source::Specifier,
        extensions::transport_sockets::tls::v3::{Secret, secret::Type as SecretType},
    },
};
use prost::Message;
use tonic::Code;

use super::*;
use crate::auth::caller::from_certificate;

const S: TypeUrl = TypeUrl::Secret;
const C: TypeUrl = TypeUrl::Cluster;

fn csr(uri: &str) -> (String, Vec<u8>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.subject_alt_names = vec![rcgen::SanType::URI(uri.try_into().unwrap())];
    (params.serialize_request(&key).unwrap().pem().unwrap(), key.serialize_der())
}

async fn certificate(channel: Channel, token: Option<&str>, csr: &str) -> Result<Vec<String>, tonic::Status> {
    let request = IstioCertificateRequest { csr: csr.to_owned(), validity_duration: 600, metadata: None };
    let mut client = IstioCertificateServiceClient::new(channel);
    Ok(soon(client.create_certificate(with_token(request, token))).await?.into_inner().cert_chain)
}

#[tokio::test]
async fn token_to_certificate_to_stream() {
    let bench = Bench::start().await;
    bench.publish(1, "c/a=1");
    let token = bench.token("shop", "reviews");
    // The CSR asks for somebody else's name; the token decides.
    let (csr, key) = csr("spiffe://cluster.local/ns/kube-system/sa/admin");
    let channel = bench.secure("localhost", None).await.unwrap();
    let chain = certificate(channel, Some(&token), &csr).await.unwrap();
    assert_eq!(chain[1], bench.authority.root_pem());
    let caller = from_certificate(&crate::ca::pem_to_der(&chain[0]).unwrap(), "cluster.local").unwrap();
    assert_eq!(caller.identity.uri(), "spiffe://cluster.local/ns/shop/sa/reviews");
    let left = caller.expires.unwrap().duration_since(SystemTime::now()).unwrap();
    assert!(left <= Duration::from_secs(600), "{left:?}");

    // With the certificate alone: the stream opens, another certificate is signed.
    let client = Some((chain[0].clone(), key));
    let channel = bench.secure("istiod.istio-system.svc", client.clone()).await.unwrap();
    let mut stream = DeltaClient::open(channel.clone(), None, delta(&C, &["*"])).await.unwrap();
    assert_eq!(stream.names().await.0, ["a"]);
    let proxy = bench.status.proxies().remove(0);
    assert_eq!(proxy.caller.as_ref().unwrap().identity, caller.identity);
    assert_eq!(certificate(channel, None, &csr).await.unwrap().len(), 2);

    // As another workload than it is: refused.
    let channel = bench.secure("localhost", client).await.unwrap();
    let foreign = DeltaDiscoveryRequest { node: node("bank", "reviews"), ..delta(&C, &["*"]) };
    let mut stream = DeltaClient::open(channel, None, foreign).await.unwrap();
    assert_eq!(stream.next().await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn nobody_gets_in_over_tls_without_credentials() {
    let bench = Bench::start().await;
    bench.publish(1, "c/a=1");
    let channel = bench.secure("control.example", None).await.unwrap();
    let (csr, _) = csr("spiffe://cluster.local/ns/a/sa/b");
    let expired = {
        let identity = Identity::new("cluster.local", "shop", "reviews").unwrap();
        let past = SystemTime::now() - HOUR * 2;
        format!("Bearer {}", bench.tokens.mint(&identity, HOUR, past))
    };
    let mut forged = bench.token("shop", "reviews");
    forged.pop();
    forged.pop();
    for token in [None, Some(expired.as_str()), Some(forged.as_str()), Some("Bearer x"), Some("Basic x")] {
        let refused = certificate(channel.clone(), token, &csr).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{token:?}");
        let refused = SotwClient::open(channel.clone(), token, sotw(&C, &[])).await.err().unwrap();
        assert_eq!(refused.code(), Code::Unauthenticated, "{token:?}");
    }
    let token = bench.token("shop", "reviews");
    let bad_csr = certificate(channel, Some(&token), "-----BEGIN CERTIFICATE REQUEST-----").await.unwrap_err();
    assert_eq!(bad_csr.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn the_server_proves_its_names_and_refuses_foreign_certificates() {
    let bench = Bench::start().await;
    assert!(bench.secure("somebody.else", None).await.is_err());
    let key = rcgen::KeyPair::generate().unwrap();
    let foreign = rcgen::CertificateParams::new(vec!["x".into()]).unwrap().self_signed(&key).unwrap();
    let channel = bench.secure("localhost", Some((foreign.pem(), key.serialize_der()))).await;
    // TLS 1.3 tells the client only after its handshake, so the failure shows here or with the first call.
    if let Ok(channel) = channel {
        assert!(SotwClient::open(channel, None, sotw(&C, &[])).await.is_err());
    }
    bench
        .until("counted", |s| {
            let mut text = String::new();
            s.metrics.render(&mut text);
            !text.contains("handshakes_failed_total 0\n")
        })
        .await;
}

fn pem_of(source: Option<Specifier>) -> String {
    match source {
        Some(Specifier::InlineString(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn secrets_over_ads_belong_to_the_proven_identity() {
    let bench = Bench::start().await;
    let token = bench.token("shop", "reviews");
    let channel = bench.secure("localhost", None).await.unwrap();
    // No world is needed to hand out keys.
    let mut client = DeltaClient::open(channel, Some(&token), delta(&S, &["default", "ROOTCA"])).await.unwrap();
    let response = client.next().await.unwrap();
    let secrets: Vec<Secret> = response
        .resources
        .iter()
        .map(|r| Secret::decode(r.resource.as_ref().unwrap().value.as_slice()).unwrap())
        .collect();
    assert_eq!(secrets.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["ROOTCA", "default"]);
    let [Some(SecretType::ValidationContext(root)), Some(SecretType::TlsCertificate(own))] =
        [secrets[0].r#type.clone(), secrets[1].r#type.clone()]
    else {
        panic!("{secrets:?}")
    };
    assert_eq!(pem_of(root.trusted_ca.unwrap().specifier), bench.authority.root_pem());
    let chain = pem_of(own.certificate_chain.unwrap().specifier);
    let caller = from_certificate(&crate::ca::pem_to_der(&chain).unwrap(), "cluster.local").unwrap();
    assert_eq!(caller.identity.uri(), "spiffe://cluster.local/ns/shop/sa/reviews");
    let key = rcgen::KeyPair::from_pem(&pem_of(own.private_key.unwrap().specifier)).unwrap();
    // The key fits the certificate: the server accepts the pair.
    let channel = bench.secure("localhost", Some((chain, key.serialize_der()))).await.unwrap();
    let mut stream = DeltaClient::open(channel, None, delta(&S, &["ROOTCA"])).await.unwrap();
    assert_eq!(stream.names().await.0, ["ROOTCA"]);
}

#[tokio::test]
async fn plaintext_gets_no_keys_unless_told_to() {
    let bench = Bench::start().await;
    bench.publish(1, "c/a=1");
    let mut client = DeltaClient::open(bench.plain().await, None, delta(&S, &["ROOTCA"])).await.unwrap();
    assert_eq!(client.names().await.0, ["ROOTCA"], "public");
    client.send(delta(&S, &["default"])).await;
    let refused = client.next().await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(refused.message().contains("default"), "{}", refused.message());
    let (csr, _) = csr("spiffe://cluster.local/ns/shop/sa/reviews");
    assert_eq!(certificate(bench.plain().await, None, &csr).await.unwrap_err().code(), Code::Unauthenticated);
    // A token proves on loopback what it proves over TLS.
    let token = bench.token("shop", "reviews");
    assert!(certificate(bench.plain().await, Some(&token), &csr).await.is_ok());

    let insecure = Bench::start_with(true, HOUR).await;
    let mut client = DeltaClient::open(insecure.plain().await, None, delta(&S, &["default"])).await.unwrap();
    let response = client.next().await.unwrap();
    let secret = Secret::decode(response.resources[0].resource.as_ref().unwrap().value.as_slice()).unwrap();
    let Some(SecretType::TlsCertificate(own)) = secret.r#type else { panic!("{secret:?}") };
    let chain = pem_of(own.certificate_chain.unwrap().specifier);
    let caller = from_certificate(&crate::ca::pem_to_der(&chain).unwrap(), "cluster.local").unwrap();
    assert_eq!(caller.identity.uri(), "spiffe://cluster.local/ns/shop/sa/reviews");
    let (csr, _) = self::csr("spiffe://cluster.local/ns/shop/sa/reviews");
    let refused = certificate(insecure.plain().await, None, &csr).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "the flag is about SDS, not about the CA");
}

#[tokio::test]
async fn garbage_on_both_ports_harms_nobody() {
    let bench = Bench::start().await;
    bench.publish(1, "c/a=1");
    let token = bench.token("shop", "reviews");
    for address in [bench.addresses.xds, bench.addresses.xds_tls, bench.addresses.status] {
        for bytes in [
            &b"\x00\xff\x13garbage\r\n\r\n"[..],
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff",
            b"\x16\x03\x01\xff\xff",
        ] {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            // The peer may already have closed.
            let _ = stream.write_all(bytes);
        }
    }
    let channel = bench.secure("localhost", None).await.unwrap();
    let mut client = SotwClient::open(channel, Some(&token), sotw(&C, &[])).await.unwrap();
    assert_eq!(client.values(true).await, ["1"]);
    let mut nameless =
        SotwClient::open(bench.plain().await, None, DiscoveryRequest { node: None, ..sotw(&C, &[]) }).await.unwrap();
    assert_eq!(nameless.next().await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn keys_are_renewed_on_the_open_stream() {
    let bench = Bench::start_with(false, Duration::from_secs(2)).await;
    let token = bench.token("shop", "reviews");
    let channel = bench.secure("localhost", None).await.unwrap();
    let mut client = DeltaClient::open(channel, Some(&token), delta(&S, &["default", "ROOTCA"])).await.unwrap();
    assert_eq!(client.names().await.0.len(), 2);
    for _ in 0..2 {
        assert_eq!(client.names().await.0, ["default"], "the root has not changed");
    }
}

#[tokio::test]
async fn a_stream_ends_with_its_credentials() {
    let bench = Bench::start().await;
    bench.publish(1, "c/a=1");
    let token = bench.token_for("shop", "reviews", Duration::from_secs(2));
    let channel = bench.secure("localhost", None).await.unwrap();
    let mut client = DeltaClient::open(channel, Some(&token), delta(&C, &["*"])).await.unwrap();
    assert_eq!(client.names().await.0, ["a"]);
    let ended = client.next().await.unwrap_err();
    assert_eq!(ended.code(), Code::Unauthenticated);
    assert!(ended.message().contains("expired"), "{}", ended.message());
}

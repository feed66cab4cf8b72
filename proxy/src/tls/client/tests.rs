use rcgen::{CertificateRevocationListParams, KeyIdMethod, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, RevokedCertParams};
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::{
    ir::secret::{DownstreamTls, TlsVersion, Validation},
    tls::testing::*,
};

async fn outcome(client: &ClientContext, options: &ClientOptions<'_>, server: &server::ServerContext) -> Outcome {
    handshake_with(client, options, server).await.0
}

fn verify(name: &str) -> ClientOptions<'_> {
    ClientOptions { verify_name: Some(name), ..Default::default() }
}

#[tokio::test]
async fn servers_are_verified_by_chain_and_names() {
    let ca = Ca::new("root");
    let spiffe_server = server(&ca.spiffe("reviews"), None);
    let by_chain = client(None, Some(ca.trust()));
    let info = outcome(&by_chain, &ClientOptions::default(), &spiffe_server).await.unwrap().1;
    assert!(info.verified, "a SPIFFE certificate needs no DNS name");

    let elsewhere = client(None, Some(Ca::new("other").trust()));
    let error = outcome(&elsewhere, &ClientOptions::default(), &spiffe_server).await.unwrap_err();
    assert_eq!(error.kind, HandshakeErrorKind::VerifyFailed);
    let wrong = client(None, Some(ca.trust_uris(&["ratings"])));
    let error = outcome(&wrong, &ClientOptions::default(), &spiffe_server).await.unwrap_err();
    assert_eq!(error.kind, HandshakeErrorKind::SanMismatch);
    assert!(error.reason.contains("sa/reviews"), "{error}");
    let error = outcome(&by_chain, &verify("reviews.test"), &spiffe_server).await.unwrap_err();
    assert_eq!(error.kind, HandshakeErrorKind::SanMismatch);

    let expired = server(&ca.issue(Spec { days: (-9, -3), ..Spec::default() }), None);
    let error = outcome(&by_chain, &ClientOptions::default(), &expired).await.unwrap_err();
    assert_eq!(error.kind, HandshakeErrorKind::VerifyFailed);
    assert!(error.reason.contains("expired at"), "{error}");
}

#[tokio::test]
async fn the_asked_name_and_the_configured_ones_must_both_hold() {
    let ca = Ca::new("root");
    let spec = Spec { uris: vec![spiffe("reviews")], dns: vec!["*.test".into(), "*.a.test".into()], ..Spec::default() };
    let server = server(&ca.issue(spec), None);
    let right = client(None, Some(ca.trust_uris(&["reviews"])));
    let wrong = client(None, Some(ca.trust_uris(&["ratings"])));
    assert!(outcome(&right, &verify("X.a.test"), &server).await.is_ok());
    for (context, name) in [(&right, "x.b.test"), (&wrong, "x.a.test"), (&right, "127.0.0.1")] {
        let error = outcome(context, &verify(name), &server).await.unwrap_err();
        assert_eq!(error.kind, HandshakeErrorKind::SanMismatch, "{name}: {error}");
    }
    let error = outcome(&right, &verify("not a name"), &server).await.unwrap_err();
    assert_eq!(error.kind, HandshakeErrorKind::Protocol);
    let blind = client(None, None);
    let error = outcome(&blind, &verify("x.a.test"), &server).await.unwrap_err();
    assert_eq!(error.kind, HandshakeErrorKind::VerifyFailed, "a name cannot be verified without trust");
    assert!(!outcome(&blind, &ClientOptions::default(), &server).await.unwrap().1.verified);
}

#[tokio::test]
async fn a_self_signed_certificate_may_be_its_own_anchor() {
    let own = |days: i64| {
        let mut params = rcgen::CertificateParams::new(vec!["self.test".to_owned()]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.not_before = OffsetDateTime::now_utc() - time::Duration::days(9);
        params.not_after = OffsetDateTime::now_utc() + time::Duration::days(days);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let trust = Validation { trusted_ca: Some(inline(&pem)), ..Validation::default() };
        (server(&certificate(&pem, &key.serialize_pem()), None), client(None, Some(trust)))
    };
    let ((good, trusting), (expired, patient)) = (own(9), own(-2));
    assert!(outcome(&trusting, &ClientOptions::default(), &good).await.unwrap().1.verified);
    assert!(outcome(&trusting, &verify("self.test"), &good).await.is_ok());
    for (context, options, server) in [
        (&trusting, verify("other.test"), &good),
        (&patient, ClientOptions::default(), &expired),
        (&trusting, ClientOptions::default(), &expired),
    ] {
        assert!(outcome(context, &options, server).await.is_err());
    }
}

#[tokio::test]
async fn pins_accept_exactly_what_they_name() {
    let ca = Ca::new("root");
    let (a, b) = (ca.spiffe("a"), ca.spiffe("b"));
    let hash = |c: &crate::ir::secret::Certificate| {
        let der = der(c);
        let parsed = crate::tls::names::parse(&der).unwrap();
        (digest(&der), digest(parsed.public_key().raw))
    };
    for pins in [
        Validation { certificate_sha256: vec![hash(&a).0], ..Validation::default() },
        Validation { spki_sha256: vec![hash(&a).1], ..Validation::default() },
        Validation { spki_sha256: vec![[0; 32]], certificate_sha256: vec![hash(&a).0], ..Validation::default() },
        Validation { spki_sha256: vec![hash(&a).1], ..ca.trust() },
    ] {
        let client = client(None, Some(pins));
        let info = outcome(&client, &ClientOptions::default(), &server(&a, None)).await.unwrap().1;
        assert!(info.verified);
        let error = outcome(&client, &ClientOptions::default(), &server(&b, None)).await.unwrap_err();
        assert_eq!(error.kind, HandshakeErrorKind::VerifyFailed);
        assert!(error.reason.contains("pinned"), "{error}");
    }
}

/// SHA-256 by another implementation than the one under test.
fn digest(data: &[u8]) -> [u8; 32] {
    use std::io::Write;
    let mut child = std::process::Command::new("sha256sum")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(data).unwrap();
    let out = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    let byte = |i: usize| u8::from_str_radix(&out[2 * i..2 * i + 2], 16).unwrap();
    std::array::from_fn(byte)
}

#[tokio::test]
async fn revoked_certificates_and_stale_lists_are_refused() {
    let ca = Ca::new("root");
    let leaf = |serial| ca.issue(Spec { serial, ..Spec::default() });
    let list = |next_days| {
        let now = OffsetDateTime::now_utc();
        let revoked = RevokedCertParams {
            serial_number: 66.into(),
            revocation_time: now - time::Duration::days(1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: now - time::Duration::days(2),
            next_update: now + time::Duration::days(next_days),
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Validation { crl: Some(inline(&params.signed_by(&ca.issuer).unwrap().pem().unwrap())), ..ca.trust() }
    };
    let careful = client(None, Some(list(5)));
    assert!(outcome(&careful, &ClientOptions::default(), &server(&leaf(65), None)).await.is_ok());
    let error = outcome(&careful, &ClientOptions::default(), &server(&leaf(66), None)).await.unwrap_err();
    assert!(error.kind == HandshakeErrorKind::VerifyFailed && error.reason.contains("revoked"), "{error}");
    let stale = client(None, Some(list(-1)));
    let error = outcome(&stale, &ClientOptions::default(), &server(&leaf(65), None)).await.unwrap_err();
    assert_eq!(error.kind, HandshakeErrorKind::VerifyFailed, "{error}");
}

#[tokio::test]
async fn variants_do_not_share_sessions() {
    let ca = Ca::new("root");
    let server = server(&ca.host("a.test"), None);
    let client = client(None, Some(ca.trust()));
    let mut resumed = Vec::new();
    for options in [ClientOptions::default(), ClientOptions::default(), verify("a.test"), verify("a.test")] {
        let (near, far) = handshake_with(&client, &options, &server).await;
        let ((mut near, info), (mut far, _)) = (near.unwrap(), far.unwrap());
        far.write_all(b"x").await.unwrap();
        far.flush().await.unwrap();
        near.read_exact(&mut [0]).await.unwrap();
        resumed.push(info.resumed);
    }
    assert_eq!(resumed, [false, true, false, true]);
    let error = outcome(&client, &verify("b.test"), &server).await.unwrap_err();
    assert_eq!(error.kind, HandshakeErrorKind::SanMismatch, "no ticket helps around the name");

    let config = UpstreamTls { max_session_keys: 0, ..upstream(common(None, Some(ca.trust()))) };
    let forgetful = client_of(config);
    for _ in 0..2 {
        assert!(!outcome(&forgetful, &ClientOptions::default(), &server).await.unwrap().1.resumed);
    }
}

#[tokio::test]
async fn contexts_with_equal_rules_share_what_is_costly_and_no_sessions() {
    let ca = Ca::new("root");
    let secrets = Arc::<Secrets>::default();
    let with = |sni: &str, trust| {
        let config = Arc::new(UpstreamTls { sni: Some(sni.into()), ..upstream(common(None, Some(trust))) });
        ClientContext::new(config, secrets.clone()).unwrap()
    };
    let (a, b) = (with("a.test", ca.trust()), with("b.test", ca.trust()));
    let other = with("a.test", Ca::new("other").trust());
    assert!(Arc::ptr_eq(&a.core, &b.core) && !Arc::ptr_eq(&a.core, &other.core));
    assert!(a.sessions.lock().unwrap().is_none(), "made at the first connection");
    let server = server(&ca.host("a.test"), None);
    for (context, name) in [(&a, "a.test"), (&b, "b.test")] {
        let info = outcome(context, &ClientOptions::default(), &server).await.unwrap().1;
        assert_eq!((info.sni.as_deref(), info.resumed), (Some(name), false), "each asks for its own name");
    }
    // What was prepared stays, and is what is used.
    let config = Arc::new(upstream(common(None, Some(Ca::new("third").trust()))));
    let prepared = ClientContext::prepare(&config, &secrets).unwrap().unwrap();
    let context = ClientContext::with(config, Arc::default(), std::slice::from_ref(&prepared)).unwrap();
    assert!(Arc::ptr_eq(&context.core, &prepared.core));
}

#[tokio::test]
async fn versions_suites_groups_and_sni() {
    let ca = Ca::new("root");
    let server_with = |change: &dyn Fn(&mut CommonTls)| {
        let mut common = common(Some(&ca.spiffe("reviews")), None);
        change(&mut common);
        server_of(DownstreamTls { common, require_client_certificate: false, resumption: true })
    };
    let any = client(None, Some(ca.trust()));
    let old = server_with(&|c| {
        c.max_version = TlsVersion::V1_2;
        c.cipher_suites = vec!["ECDHE-ECDSA-CHACHA20-POLY1305".into()];
        c.groups = vec!["P-384".into()];
    });
    let info = outcome(&any, &ClientOptions::default(), &old).await.unwrap().1;
    assert_eq!((info.version, info.cipher), ("TLSv1.2", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"));
    let new = server_with(&|c| c.min_version = TlsVersion::V1_3);
    let mut config = upstream(common(None, Some(ca.trust())));
    config.common.max_version = TlsVersion::V1_2;
    let error = outcome(&client_of(config), &ClientOptions::default(), &new).await.unwrap_err();
    assert_eq!(error.kind, HandshakeErrorKind::Protocol);
    assert!(error.reason.contains("ProtocolVersion"), "{error}");

    let with_sni = |sni| ClientOptions { sni, ..Default::default() };
    let unnamed = client_of(UpstreamTls { sni: None, ..upstream(common(None, Some(ca.trust()))) });
    for (context, sni, expected) in [
        (&any, None, Some("server.test")),
        (
            &any,
            Some("outbound_.80_.v1_.reviews.default.svc.cluster.local"),
            Some("outbound_.80_.v1_.reviews.default.svc.cluster.local"),
        ),
        (&unnamed, None, None),
        (&any, Some("10.0.0.1"), None),
    ] {
        let (near, far) = handshake_with(context, &with_sni(sni), &new).await;
        assert_eq!((near.unwrap().1.sni.as_deref(), far.unwrap().1.sni.as_deref()), (expected, expected));
    }
    let error = outcome(&any, &with_sni(Some("no name")), &new).await.unwrap_err();
    assert_eq!(error.kind, HandshakeErrorKind::Protocol);
}

#[tokio::test]
async fn a_silent_server_times_out_and_a_plain_one_is_named() {
    let any = client(None, None);
    let (near, far) = tcp_pair().await;
    let error = any.connect(near.into(), &ClientOptions::default(), Duration::from_millis(20)).await.unwrap_err();
    assert_eq!(error.kind, HandshakeErrorKind::Timeout);
    drop(far);
    let (near, mut far) = tcp_pair().await;
    far.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await.unwrap();
    let error = any.connect(near.into(), &ClientOptions::default(), TIMEOUT).await.unwrap_err();
    assert_eq!(error.kind, HandshakeErrorKind::Protocol);
    let (near, far) = tcp_pair().await;
    drop(far);
    let error = any.connect(near.into(), &ClientOptions::default(), TIMEOUT).await.unwrap_err();
    assert_eq!(error.kind, HandshakeErrorKind::Io, "{error}");
}

#[tokio::test]
async fn key_kinds_and_encodings() {
    let ca = Ca::new("root");
    for algorithm in [&PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let leaf = rcgen::CertificateParams::default().signed_by(&key, &ca.issuer).unwrap();
        let server = server(&certificate(&leaf.pem(), &key.serialize_pem()), None);
        assert!(outcome(&client(None, Some(ca.trust())), &ClientOptions::default(), &server).await.is_ok());
    }
    for (chain, key) in [
        (include_str!("../testdata/rsa.crt"), include_str!("../testdata/rsa-pkcs1.key")),
        (include_str!("../testdata/rsa.crt"), include_str!("../testdata/rsa-pkcs8.key")),
        (include_str!("../testdata/ec.crt"), include_str!("../testdata/ec-sec1.key")),
    ] {
        let own = Validation { accept_untrusted: true, ..ca.trust() };
        let server = server(&certificate(chain, key), None);
        assert!(outcome(&client(None, Some(own)), &ClientOptions::default(), &server).await.is_ok());
    }
}

use std::io::ErrorKind;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::{
    ir::secret::{CertificateSource, DataSource, SanKind, SanMatcher, Secret, SecretRef, TlsVersion, Validation},
    ir::{ConfigSource, matcher::StringMatcher},
    tls::{Cause, ClientOptions, testing::*},
};

fn sds(name: &str) -> SecretRef {
    SecretRef { name: name.into(), source: ConfigSource::Ads }
}

/// Bytes both ways, so that a client learns what the server thinks of it.
async fn exchange(a: &mut Io, b: &mut Io) -> std::io::Result<()> {
    let mut byte = [0];
    a.write_all(b"x").await?;
    a.flush().await?;
    b.read_exact(&mut byte).await?;
    b.write_all(b"y").await?;
    b.flush().await?;
    a.read_exact(&mut byte).await?;
    assert_eq!(&byte, b"y");
    Ok(())
}

#[tokio::test]
async fn mutual_tls_names_both_identities() {
    let ca = Ca::new("root");
    let server = server(&ca.spiffe("reviews"), Some(ca.trust()));
    let client = client(Some(&ca.spiffe("client")), Some(ca.trust_uris(&["other", "reviews"])));
    let (near, far) = handshake(&client, &server).await;
    let ((mut near, seen_by_client), (mut far, seen_by_server)) = (near.unwrap(), far.unwrap());
    exchange(&mut near, &mut far).await.unwrap();
    exchange(&mut far, &mut near).await.unwrap();
    assert!(seen_by_server.verified && seen_by_client.verified);
    assert_eq!(seen_by_server.uri_sans, [spiffe("client").into()]);
    assert_eq!(seen_by_client.uri_sans, [spiffe("reviews").into()]);
    assert_eq!(seen_by_server.local_uri_sans, seen_by_client.uri_sans);
    assert_eq!(seen_by_client.local_uri_sans, seen_by_server.uri_sans);
    assert_eq!(&*seen_by_server.subject, "CN=leaf,O=Acme\\, Inc.");
    assert_eq!(seen_by_server.sni.as_deref(), Some("server.test"));
    assert_eq!((seen_by_server.version, seen_by_server.resumed), ("TLSv1.3", false));
    assert!(seen_by_server.cipher.starts_with("TLS_"), "{}", seen_by_server.cipher);
    assert!(seen_by_server.certificate.is_some() && seen_by_server.chain.len() == 1);
}

#[test]
fn what_would_come_of_a_client_is_foretold() {
    let ca = Ca::new("root");
    let (client, foreign) = (spiffe("client"), "spiffe://other-domain/ns/default/sa/client");
    let strict = server(&ca.spiffe("reviews"), Some(ca.trust()));
    assert!(strict.foretell(None).unwrap_err().contains("required"));
    assert_eq!(strict.foretell(Some(&client)), Ok(Client::Verified));
    assert!(strict.foretell(Some(foreign)).unwrap_err().contains("another trust domain"));
    assert!(strict.foretell(Some("spiffe:client")).is_err());
    let choosy = server(&ca.spiffe("reviews"), Some(ca.trust_uris(&["other"])));
    assert!(choosy.foretell(Some(&client)).is_err());
    assert_eq!(choosy.foretell(Some(&spiffe("other"))), Ok(Client::Verified));
    let open = server(&ca.spiffe("reviews"), None);
    assert_eq!(open.foretell(Some(&client)), Ok(Client::Anonymous), "it is not asked for a certificate");
    let lenient = Validation { accept_untrusted: true, ..ca.trust_uris(&["other"]) };
    assert_eq!(server(&ca.spiffe("reviews"), Some(lenient)).foretell(Some(&client)), Ok(Client::Unverified));
}

#[tokio::test]
async fn a_client_without_certificate_is_named_as_such() {
    let ca = Ca::new("root");
    let server = server(&ca.spiffe("reviews"), Some(ca.trust()));
    let (_, far) = handshake(&client(None, Some(ca.trust())), &server).await;
    assert_eq!(far.unwrap_err().kind, HandshakeErrorKind::NoClientCert);
}

#[tokio::test]
async fn bad_client_certificates_are_refused_with_the_cause() {
    let ca = Ca::new("root");
    let other = Ca::new("other");
    let expired = Spec { uris: vec![spiffe("client")], days: (-20, -10), ..Spec::default() };
    let future = Spec { uris: vec![spiffe("client")], days: (10, 20), ..Spec::default() };
    let server = server(&ca.spiffe("reviews"), Some(ca.trust_uris(&["client"])));
    let cases = [
        (other.spiffe("client"), HandshakeErrorKind::VerifyFailed, "not signed by a trusted authority"),
        (ca.issue(expired), HandshakeErrorKind::VerifyFailed, "before this machine's clock"),
        (ca.issue(future), HandshakeErrorKind::VerifyFailed, "is it wrong?"),
        (ca.spiffe("mallory"), HandshakeErrorKind::SanMismatch, "sa/mallory"),
        (ca.host("client"), HandshakeErrorKind::SanMismatch, "DNS:client"),
    ];
    for (certificate, kind, text) in cases {
        let (near, far) = handshake(&client(Some(&certificate), Some(ca.trust())), &server).await;
        let error = far.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.reason.contains(text), "{error}");
        if let Ok((mut near, _)) = near {
            // Under TLS 1.3 the client hears of it with its first read, and never gets a byte.
            let mut byte = [0];
            let read = near.read(&mut byte).await;
            assert!(matches!(&read, Err(e) if e.kind() != ErrorKind::WouldBlock), "{read:?}");
        }
    }
    let good = handshake(&client(Some(&ca.spiffe("client")), Some(ca.trust())), &server).await;
    assert!(good.1.is_ok());
}

#[tokio::test]
async fn an_optional_certificate_is_verified_when_offered() {
    let ca = Ca::new("root");
    let config = DownstreamTls {
        common: common(Some(&ca.spiffe("reviews")), Some(ca.trust())),
        require_client_certificate: false,
        resumption: true,
    };
    let server = server_of(config.clone());
    let (_, none) = handshake(&client(None, Some(ca.trust())), &server).await;
    let (_, info) = none.unwrap();
    assert!(!info.verified && info.certificate.is_none());
    let (_, bad) = handshake(&client(Some(&Ca::new("x").spiffe("a")), Some(ca.trust())), &server).await;
    assert_eq!(bad.unwrap_err().kind, HandshakeErrorKind::VerifyFailed);

    let lenient = Validation { accept_untrusted: true, ..ca.trust() };
    let lenient = server_of(DownstreamTls { common: common(Some(&ca.spiffe("reviews")), Some(lenient)), ..config });
    for (authority, verified) in [(&Ca::new("x"), false), (&ca, true)] {
        let (_, far) = handshake(&client(Some(&authority.spiffe("a")), Some(ca.trust())), &lenient).await;
        let (_, info) = far.unwrap();
        assert_eq!((info.verified, info.uri_sans.len()), (verified, 1));
    }
}

#[tokio::test]
async fn a_certificate_may_be_required_without_being_verifiable() {
    let ca = Ca::new("root");
    let config = DownstreamTls {
        common: common(Some(&ca.spiffe("reviews")), None),
        require_client_certificate: true,
        resumption: true,
    };
    let server = server_of(config);
    let (_, far) = handshake(&client(None, None), &server).await;
    assert_eq!(far.unwrap_err().kind, HandshakeErrorKind::NoClientCert);
    let (_, far) = handshake(&client(Some(&Ca::new("x").spiffe("a")), None), &server).await;
    assert!(!far.unwrap().1.verified);
}

#[tokio::test]
async fn alpn_by_server_preference_and_never_fatal() {
    let ca = Ca::new("root");
    let mut common = common(Some(&ca.spiffe("reviews")), None);
    common.alpn = alpn(&["istio-peer-exchange", "h2", "http/1.1"]);
    let server = server_of(DownstreamTls { common, require_client_certificate: false, resumption: true });
    for (offered, expected) in [
        (&["http/1.1", "h2"][..], Some("h2")),
        (&["istio-http/1.1", "istio", "http/1.1"], Some("http/1.1")),
        (&["istio-peer-exchange", "istio"], None),
        (&["istio"], None),
        (&[], None),
    ] {
        let offered = alpn(offered);
        let options = ClientOptions { alpn: Some(&offered), ..Default::default() };
        let (near, far) = handshake_with(&client(None, None), &options, &server).await;
        assert_eq!(far.unwrap().1.alpn.as_deref(), expected, "{offered:?}");
        assert_eq!(near.unwrap().1.alpn.as_deref(), expected);
    }
}

#[tokio::test]
async fn rotation_takes_effect_and_spares_open_connections() {
    let (old, new) = (Ca::new("old"), Ca::new("new"));
    let secrets = Arc::new(Secrets::default());
    let mut common = common(None, None);
    common.certificates = vec![CertificateSource::Sds(sds("default"))];
    common.validation = ValidationSource::Combined {
        default: Arc::new(Validation {
            sans: vec![SanMatcher { kind: SanKind::Uri, matcher: StringMatcher::exact(&spiffe("client")) }],
            ..Validation::default()
        }),
        secret: sds("ROOTCA"),
    };
    let config = DownstreamTls { common, require_client_certificate: true, resumption: true };
    let server = ServerContext::new(Arc::new(config), secrets.clone()).unwrap();
    assert!(!server.ready() && server.problem().unwrap().contains("'default'"));
    let client_old = client(Some(&old.spiffe("client")), Some(old.trust()));
    let (_, far) = handshake(&client_old, &server).await;
    assert_eq!(far.unwrap_err().kind, HandshakeErrorKind::NotReady);

    secrets.set("default".into(), Arc::new(Secret::Certificate(old.spiffe("reviews"))));
    assert!(!server.ready());
    secrets.set("ROOTCA".into(), Arc::new(Secret::Validation(Arc::new(old.trust()))));
    assert!(server.ready() && server.problem().is_none());
    let (near, far) = handshake(&client_old, &server).await;
    let ((mut near, _), (mut far, _)) = (near.unwrap(), far.unwrap());

    let generation = server.generation();
    secrets.set("ROOTCA".into(), Arc::new(Secret::Validation(Arc::new(old.trust()))));
    assert_eq!(server.generation(), generation, "an equal secret changes nothing");
    secrets.set("default".into(), Arc::new(Secret::Certificate(new.spiffe("reviews"))));
    secrets.set("ROOTCA".into(), Arc::new(Secret::Validation(Arc::new(new.trust()))));
    assert_eq!(server.generation(), generation + 2);
    exchange(&mut near, &mut far).await.unwrap();
    let client_new = client(Some(&new.spiffe("client")), Some(new.trust()));
    assert!(handshake(&client_new, &server).await.1.is_ok());
    let stranger = client(Some(&new.spiffe("mallory")), Some(new.trust()));
    assert_eq!(handshake(&stranger, &server).await.1.unwrap_err().kind, HandshakeErrorKind::SanMismatch);
    let insecure_old = client(Some(&old.spiffe("client")), None);
    assert_eq!(handshake(&insecure_old, &server).await.1.unwrap_err().kind, HandshakeErrorKind::VerifyFailed);

    let garbage = certificate("no certificate", "no key");
    secrets.set("default".into(), Arc::new(Secret::Certificate(garbage)));
    assert!(server.ready() && server.failures() == 1 && server.problem().is_some());
    secrets.remove("default");
    assert!(handshake(&client_new, &server).await.1.is_ok(), "the last good one stays");
    secrets.set("default".into(), Arc::new(Secret::Certificate(new.spiffe("reviews"))));
    assert_eq!(server.problem(), None);
}

#[tokio::test]
async fn sessions_resume_until_the_rules_change() {
    let ca = Ca::new("root");
    for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
        let secrets = Arc::new(Secrets::default());
        secrets.set("ROOTCA".into(), Arc::new(Secret::Validation(Arc::new(ca.trust()))));
        let mut common = common(Some(&ca.spiffe("reviews")), None);
        common.validation = ValidationSource::Sds(sds("ROOTCA"));
        common.max_version = version;
        let config = DownstreamTls { common, require_client_certificate: true, resumption: true };
        let server = ServerContext::new(Arc::new(config.clone()), secrets.clone()).unwrap();
        let client = client(Some(&ca.spiffe("client")), Some(ca.trust()));
        for (round, resumed) in [(0, false), (1, true), (2, true)] {
            let (near, far) = handshake(&client, &server).await;
            let ((mut near, near_info), (mut far, far_info)) = (near.unwrap(), far.unwrap());
            exchange(&mut near, &mut far).await.unwrap();
            assert_eq!((near_info.resumed, far_info.resumed), (resumed, resumed), "round {round} {version:?}");
            assert_eq!(far_info.uri_sans, [spiffe("client").into()]);
            assert!(far_info.verified && near_info.verified);
        }
        // The client still has a ticket, but its identity is no longer welcome.
        secrets.set("ROOTCA".into(), Arc::new(Secret::Validation(Arc::new(ca.trust_uris(&["somebody"])))));
        assert_eq!(handshake(&client, &server).await.1.unwrap_err().kind, HandshakeErrorKind::SanMismatch);

        let server = server_of(DownstreamTls { resumption: false, ..config_with(&config, ca.trust()) });
        for _ in 0..2 {
            let (near, far) = handshake(&client, &server).await;
            let ((mut near, _), (mut far, info)) = (near.unwrap(), far.unwrap());
            exchange(&mut near, &mut far).await.unwrap();
            assert!(!info.resumed);
        }
    }
}

fn config_with(config: &DownstreamTls, trust: Validation) -> DownstreamTls {
    let mut config = config.clone();
    config.common.validation = ValidationSource::Static(Arc::new(trust));
    config
}

#[tokio::test]
async fn silence_and_garbage_end_the_handshake() {
    let ca = Ca::new("root");
    let server = server(&ca.spiffe("reviews"), None);
    let (near, far) = tcp_pair().await;
    let error = server.accept(far.into(), Duration::from_millis(20)).await.unwrap_err();
    assert_eq!(error.kind, HandshakeErrorKind::Timeout);
    drop(near);

    let (mut near, far) = tcp_pair().await;
    near.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(server.accept(far.into(), TIMEOUT).await.unwrap_err().kind, HandshakeErrorKind::Protocol);
    let (near, far) = tcp_pair().await;
    drop(near);
    assert_eq!(server.accept(far.into(), TIMEOUT).await.unwrap_err().kind, HandshakeErrorKind::Io);
}

#[tokio::test]
async fn the_certificate_for_the_asked_name_is_served() {
    let ca = Ca::new("root");
    let (a, b) = (ca.host("a.test"), ca.host("*.b.test"));
    let mut common = common(Some(&a), None);
    common.certificates.push(CertificateSource::Static(b));
    let server = server_of(DownstreamTls { common, require_client_certificate: false, resumption: true });
    for (sni, expected) in [("a.test", "a.test"), ("x.b.test", "*.b.test"), ("x.y.b.test", "a.test")] {
        let options = ClientOptions { sni: Some(sni), ..Default::default() };
        let (near, _) = handshake_with(&client(None, Some(ca.trust())), &options, &server).await;
        assert_eq!(near.unwrap().1.dns_sans, [expected.into()], "{sni}");
    }
}

#[test]
fn static_mistakes_are_errors_and_expired_certificates_are_not() {
    let ca = Ca::new("root");
    let (a, b) = (ca.spiffe("a"), ca.spiffe("b"));
    let make = |certificate: &Arc<_>, validation| {
        let common = common(Some(certificate), validation);
        let config = DownstreamTls { common, require_client_certificate: false, resumption: true };
        ServerContext::new(Arc::new(config), Arc::new(Secrets::default()))
    };
    let mut mixed = (*a).clone();
    mixed.key = b.key.clone();
    assert!(make(&Arc::new(mixed), None).unwrap_err().0.contains("does not belong"));
    let no_ca = Validation { trusted_ca: None, ..ca.trust_uris(&["a"]) };
    assert!(make(&a, Some(no_ca)).unwrap_err().0.contains("proves nothing"));
    let bad_ca = Validation { trusted_ca: Some(inline("rubbish")), ..Validation::default() };
    assert!(make(&a, Some(bad_ca)).unwrap_err().0.contains("trusted_ca"));
    let mut gone = (*a).clone();
    gone.chain = DataSource::File("/nonexistent/chain.pem".into());
    assert!(make(&Arc::new(gone), None).unwrap_err().0.contains("/nonexistent/chain.pem"));
    let expired = ca.issue(Spec { days: (-9, -3), ..Spec::default() });
    assert!(make(&expired, None).unwrap().ready());
}

#[tokio::test]
async fn a_peer_of_any_group_is_served_and_one_of_none_is_told_apart() {
    let ca = Ca::new("root");
    let with = |groups: &[&str]| {
        let mut common = common(Some(&ca.spiffe("a")), Some(ca.trust()));
        common.groups = groups.iter().map(|g| Box::from(*g)).collect();
        common
    };
    let served = |groups| {
        let common = with(groups);
        server_of(DownstreamTls { common, require_client_certificate: true, resumption: true })
    };
    let client = |groups| client_of(upstream(with(groups)));
    for (ours, theirs, works) in [
        (&[][..], &[][..], true),
        (&[], &["X25519"], true),
        (&["X25519"], &[], true),
        (&[], &["X25519MLKEM768"], true),
        (&["X25519MLKEM768"], &["X25519"], false),
    ] {
        let (_, far) = handshake(&client(theirs), &served(ours)).await;
        match far {
            Ok(_) => assert!(works, "{ours:?} and {theirs:?}"),
            Err(error) => assert!(!works && error.cause == Cause::Parameters, "{ours:?} and {theirs:?}: {error}"),
        }
    }
}

#[tokio::test]
async fn an_older_version_is_told_apart() {
    let ca = Ca::new("root");
    let mut floor = common(Some(&ca.spiffe("a")), Some(ca.trust()));
    floor.min_version = TlsVersion::V1_3;
    let server = server_of(DownstreamTls { common: floor, require_client_certificate: true, resumption: true });
    let mut old = common(Some(&ca.spiffe("b")), Some(ca.trust()));
    old.max_version = TlsVersion::V1_2;
    let (_, far) = handshake(&client_of(upstream(old)), &server).await;
    assert_eq!(far.unwrap_err().cause, Cause::Version);
}

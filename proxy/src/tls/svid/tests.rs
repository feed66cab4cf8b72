use super::*;
use crate::{
    ir::matcher::StringMatcher,
    tls::{
        HandshakeErrorKind,
        testing::{Ca, Spec, client, der, handshake, server, spiffe},
    },
};

fn checked(uris: &[&str], dns: &[&str]) -> Result<(), Error> {
    let text = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
    let leaf = Ca::new("root").issue(Spec { uris: text(uris), dns: text(dns), ..Spec::default() });
    check(&der(&leaf).into())
}

#[test]
fn one_well_formed_identity_or_none() {
    let id = spiffe("client");
    checked(&[&id], &[]).unwrap();
    checked(&[&id], &["client.default.svc"]).unwrap();
    checked(&[], &["example.com"]).unwrap();
    checked(&["https://example.com/", "https://example.org/"], &[]).unwrap();
}

#[test]
fn look_alikes_are_refused() {
    let id = spiffe("client");
    for (what, uris, dns) in [
        ("two identities", &[&*id, "spiffe://cluster.local/ns/default/sa/admin"][..], &[][..]),
        ("the same twice", &[&*id, &*id], &[]),
        ("an identity and another URI", &["https://example.com/", &*id], &[]),
        ("case of the scheme", &["SPIFFE://cluster.local/ns/default/sa/client"], &[]),
        ("case of the trust domain", &["spiffe://Cluster.local/ns/default/sa/client"], &[]),
        ("trailing slash", &["spiffe://cluster.local/ns/default/sa/client/"], &[]),
        ("empty segment", &["spiffe://cluster.local//ns/default/sa/client"], &[]),
        ("dots", &["spiffe://cluster.local/ns/other/../default/sa/client"], &[]),
        ("percent-encoding", &["spiffe://cluster.local/ns/default/sa/%63lient"], &[]),
        ("query", &["spiffe://cluster.local/ns/default/sa/client?x"], &[]),
        ("fragment", &["spiffe://cluster.local/ns/default/sa/client#x"], &[]),
        ("port", &["spiffe://cluster.local:443/ns/default/sa/client"], &[]),
        ("user", &["spiffe://me@cluster.local/ns/default/sa/client"], &[]),
        ("leading space", &[" spiffe://cluster.local/ns/default/sa/client"], &[]),
        ("no authority", &["spiffe:cluster.local/ns/default/sa/client"], &[]),
        ("a trust domain only", &["spiffe://cluster.local"], &[]),
        ("as a DNS name", &[], &["spiffe://cluster.local/ns/default/sa/client"]),
        ("as a DNS name too", &[&*id], &["SPIFFE://cluster.local/ns/default/sa/admin"]),
    ] {
        let refused = checked(uris, dns).expect_err(what);
        assert_eq!(Cause::of(&refused), Cause::BadSvid, "{what}: {refused}");
    }
}

/// rcgen makes only ASCII names, so the bytes are exchanged in a certificate that is then not verified.
#[test]
fn names_that_are_no_ascii_are_refused() {
    let leaf = Ca::new("root").spiffe("clieXt");
    let mut bytes = der(&leaf);
    let at = bytes.windows(6).position(|w| w == b"clieXt").unwrap();
    for byte in [0xff, 0x00, b'\n'] {
        bytes[at + 4] = byte;
        let refused = check(&bytes.clone().into()).expect_err("not ASCII");
        assert_eq!(Cause::of(&refused), Cause::BadSvid, "{byte}: {refused}");
    }
    // U+0435, which looks like the `e` it replaces.
    bytes[at + 3..at + 5].copy_from_slice("\u{435}".as_bytes());
    assert_eq!(Cause::of(&check(&bytes.into()).unwrap_err()), Cause::BadSvid);
}

#[tokio::test]
async fn each_reason_is_its_own() {
    let ca = Ca::new("root");
    let matcher = |text| StringMatcher { pattern: Pattern::Prefix(text), ignore_case: false };
    let mut trust = ca.trust();
    trust.sans = vec![SanMatcher { kind: SanKind::Uri, matcher: matcher("spiffe://cluster.local/".into()) }];
    let server = server(&ca.spiffe("server"), Some(trust));
    let of = |id: &str| ca.issue(Spec { uris: vec![id.to_owned()], ..Spec::default() });
    let days = |from, to| ca.issue(Spec { uris: vec![spiffe("client")], days: (from, to), ..Spec::default() });
    let cases = [
        (None, Cause::NoCertificate, HandshakeErrorKind::NoClientCert),
        (Some(days(-9, -1)), Cause::Expired, HandshakeErrorKind::VerifyFailed),
        (Some(days(1, 9)), Cause::NotYetValid, HandshakeErrorKind::VerifyFailed),
        (Some(Ca::new("other").spiffe("client")), Cause::UnknownIssuer, HandshakeErrorKind::VerifyFailed),
        (Some(crate::tls::testing::self_signed("client")), Cause::SelfSigned, HandshakeErrorKind::VerifyFailed),
        (Some(of("spiffe://elsewhere/ns/default/sa/client")), Cause::TrustDomain, HandshakeErrorKind::SanMismatch),
        (Some(of("https://example.com/")), Cause::Name, HandshakeErrorKind::SanMismatch),
        (Some(of("spiffe://cluster.local/ns/default/sa/")), Cause::BadSvid, HandshakeErrorKind::VerifyFailed),
    ];
    for (certificate, cause, kind) in cases {
        let (_, far) = handshake(&client(certificate.as_ref(), Some(ca.trust())), &server).await;
        let error = far.unwrap_err();
        assert_eq!((error.cause, error.kind), (cause, kind), "{error}");
    }
}

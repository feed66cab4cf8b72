use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

use super::*;
use crate::ir::matcher::Regex;

fn matcher(kind: SanKind, pattern: Pattern) -> SanMatcher {
    SanMatcher { kind, matcher: StringMatcher { pattern, ignore_case: false } }
}

fn exact(kind: SanKind, text: &str) -> SanMatcher {
    matcher(kind, Pattern::Exact(text.into()))
}

fn der(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    let mut params = CertificateParams::default();
    change(&mut params);
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

#[test]
fn every_kind_of_name_is_read_and_matched_by_its_kind() {
    let der = der(|p| {
        p.subject_alt_names = vec![
            SanType::URI("spiffe://td/ns/a/sa/b".try_into().unwrap()),
            SanType::DnsName("*.Example.com".try_into().unwrap()),
            SanType::Rfc822Name("me@example.com".try_into().unwrap()),
            SanType::IpAddress("10.0.0.1".parse().unwrap()),
            SanType::IpAddress("fd00::1".parse().unwrap()),
        ];
    });
    let sans = sans(&parse(&der).unwrap());
    assert_eq!(sans.len(), 5);
    let regex = |s| Pattern::Regex(Regex::full(s).unwrap());
    for good in [
        exact(SanKind::Uri, "spiffe://td/ns/a/sa/b"),
        matcher(SanKind::Uri, Pattern::Prefix("spiffe://td/".into())),
        matcher(SanKind::Uri, Pattern::Suffix("/sa/b".into())),
        matcher(SanKind::Uri, regex("spiffe://td/ns/[^/]+/sa/.*")),
        exact(SanKind::Dns, "www.example.com"),
        exact(SanKind::Any, "www.EXAMPLE.com"),
        exact(SanKind::Dns, "*.example.com"),
        exact(SanKind::Email, "me@example.com"),
        exact(SanKind::Ip, "10.0.0.1"),
        exact(SanKind::Any, "fd00::1"),
    ] {
        assert!(any_match(std::slice::from_ref(&good), &sans), "{good:?}");
    }
    for bad in [
        exact(SanKind::Dns, "spiffe://td/ns/a/sa/b"),
        exact(SanKind::Uri, "spiffe://td/ns/a/sa/"),
        exact(SanKind::Uri, "spiffe://td/ns/a/sa/bb"),
        matcher(SanKind::Uri, regex("td/ns")),
        exact(SanKind::Dns, "a.www.example.com"),
        exact(SanKind::Dns, "example.com"),
        exact(SanKind::Dns, ".example.com"),
        exact(SanKind::Ip, "10.0.0.2"),
        exact(SanKind::Email, "10.0.0.1"),
    ] {
        assert!(!any_match(std::slice::from_ref(&bad), &sans), "{bad:?}");
    }
    assert!(!any_match(&[], &sans) && !any_match(&[exact(SanKind::Any, "")], &[]));
}

#[test]
fn wildcards_cover_one_label_below_a_real_domain() {
    assert!(covers("*.b.c", "a.b.c") && covers("A.B.c", "a.b.C"));
    for (presented, host) in
        [("*.com", "a.com"), ("*", "a"), ("*.b.c", "b.c"), ("*.b.c", "x.a.b.c"), ("a*.b.c", "ax.b.c")]
    {
        assert!(!covers(presented, host), "{presented} {host}");
    }
}

#[test]
fn subjects_in_rfc2253_form() {
    let der = der(|p| {
        p.distinguished_name = DistinguishedName::new();
        p.distinguished_name.push(DnType::CountryName, "CH");
        p.distinguished_name.push(DnType::OrganizationName, " #Acme, \"R&D\" <x> ");
        p.distinguished_name.push(DnType::OrganizationalUnitName, "#1; a+b\\c");
        p.distinguished_name.push(DnType::CommonName, "Zo\u{eb}");
        p.distinguished_name.push(DnType::CustomDnType(vec![1, 2, 3, 4]), "x");
    });
    let certificate = parse(&der).unwrap();
    let text = rfc2253(certificate.subject());
    let known = "CN=Zo\\C3\\AB,OU=\\#1\\; a\\+b\\\\c,O=\\ #Acme\\, \\\"R&D\\\" \\<x\\>\\ ,C=CH";
    assert_eq!(text.split_once(',').unwrap(), ("1.2.3.4=#78", known));
}

#[test]
fn rubbish_is_no_certificate() {
    let good = der(|_| {});
    assert!(parse(&good).is_some());
    let mut long = good.clone();
    long.push(0);
    assert!(parse(&long).is_none() && parse(&[]).is_none());
    let mut rng = fastrand::Rng::with_seed(1);
    for _ in 0..2000 {
        let mut broken = good.clone();
        for _ in 0..rng.usize(1..4) {
            let at = rng.usize(0..broken.len());
            broken[at] = rng.u8(..);
        }
        if let Some(certificate) = parse(&broken) {
            let _ = (sans(&certificate), rfc2253(certificate.subject()));
        }
    }
}

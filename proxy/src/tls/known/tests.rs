use std::time::Duration;

use rustls::crypto::aws_lc_rs;

use super::*;
use crate::{
    ir::secret::{Certificate, Validation},
    tls::{
        Secrets, material,
        testing::{Ca, Spec, common, der, spiffe},
        verify::{Peer, Verifier},
    },
};

const DAY: u64 = 24 * 3600;

fn now(days: u64) -> UnixTime {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    UnixTime::since_unix_epoch(now + Duration::from_secs(days * DAY))
}

fn leaf(certificate: &Certificate) -> CertificateDer<'static> {
    der(certificate).into()
}

#[test]
fn only_the_very_same_chain_is_known_and_only_while_it_is_valid() {
    let ca = Ca::new("root");
    let (a, b) = (leaf(&ca.spiffe("a")), leaf(&ca.spiffe("b")));
    let short = leaf(&ca.issue(Spec { days: (-1, 2), ..Spec::default() }));
    let known = Known::default();
    assert!(known.get(&a, &[], now(0)).is_none());
    known.insert(&a, &[]);
    let identity = known.get(&a, &[], now(0)).unwrap();
    assert_eq!(*identity, Identity::read(&a, &[]));
    assert_eq!(identity.uri_sans, [spiffe("a").into()]);
    assert!(known.get(&b, &[], now(0)).is_none());
    assert!(known.get(&a, std::slice::from_ref(&b), now(0)).is_none(), "the same leaf under another chain");
    assert!(known.get(&a, &[], now(31)).is_none(), "expired");
    assert!(known.get(&a, &[], UnixTime::since_unix_epoch(Duration::from_secs(1))).is_none(), "not valid yet");
    known.insert(&b, std::slice::from_ref(&short));
    assert!(known.get(&b, std::slice::from_ref(&short), now(1)).is_some());
    assert!(known.get(&b, std::slice::from_ref(&short), now(3)).is_none(), "the shortest life counts");
    known.insert(&a, &[CertificateDer::from(vec![1, 2, 3])]);
    assert!(known.get(&a, &[CertificateDer::from(vec![1, 2, 3])], now(0)).is_none(), "unreadable");
}

#[test]
fn it_is_bounded() {
    let ca = Ca::new("root");
    let rest = leaf(&ca.spiffe("a"));
    let known = Known::default();
    known.insert(&rest, &[]);
    let entry = |n: usize| CertificateDer::from([&rest[..], &n.to_be_bytes()].concat());
    let identity = known.get(&rest, &[], now(0)).unwrap();
    for n in 0..MOST {
        let made = Entry { identity: identity.clone(), from: 0, until: 0 };
        known.0.lock().unwrap().insert((*entry(n)).into(), made);
    }
    known.insert(&rest, &[]);
    assert_eq!(known.0.lock().unwrap().len(), 1);
}

/// A verifier of clients' certificates.
fn verifier(validation: Validation) -> Verifier {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let inputs = material::resolve(&common(None, Some(validation)), &Secrets::default()).unwrap();
    Verifier::new(Peer::Client, inputs.validation.as_ref(), true, &provider).unwrap()
}

#[test]
fn a_verdict_is_remembered_per_rules_and_never_a_bad_one() {
    let ca = Ca::new("root");
    let good = leaf(&ca.spiffe("good"));
    let bad = leaf(&ca.spiffe("bad"));
    let stranger = leaf(&Ca::new("other").spiffe("good"));
    let verifier = verifier(ca.trust_uris(&["good"]));
    for _ in 0..2 {
        verifier.judge(&good, &[], now(0)).unwrap();
        verifier.judge(&bad, &[], now(0)).unwrap_err();
        verifier.judge(&stranger, &[], now(0)).unwrap_err();
        verifier.judge(&good, &[], now(31)).unwrap_err();
    }
    // The names that a connection asks for are rules, too.
    let named = verifier.with_name("good.test".try_into().unwrap());
    assert_eq!(*named.identity(&good, &[], now(0)), *verifier.identity(&good, &[], now(0)));
}

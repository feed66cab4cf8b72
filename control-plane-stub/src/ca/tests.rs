use std::{fs, os::unix::fs::PermissionsExt};

use x509_parser::prelude::GeneralName;

use super::*;
use crate::auth::{Proof, caller::from_certificate};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn authority() -> (tempfile::TempDir, StateDir, Authority) {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(&dir.path().join("s")).unwrap();
    let authority = Authority::open(&state, "cluster.local", DAY).unwrap();
    (dir, state, authority)
}

fn identity() -> Identity {
    Identity::new("cluster.local", "shop", "reviews").unwrap()
}

fn csr(names: &[&str]) -> (String, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.subject_alt_names = names.iter().map(|n| SanType::URI((*n).try_into().unwrap())).collect();
    (params.serialize_request(&key).unwrap().pem().unwrap(), key)
}

fn san(pem: &str) -> Vec<String> {
    let der = pem_to_der(pem).unwrap();
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    let san = certificate.subject_alternative_name().unwrap().unwrap();
    san.value
        .general_names
        .iter()
        .map(|n| match n {
            GeneralName::URI(uri) => (*uri).to_owned(),
            GeneralName::DNSName(name) => (*name).to_owned(),
            GeneralName::IPAddress(bytes) => format!("ip:{}", bytes.len()),
            other => panic!("unexpected {other:?}"),
        })
        .collect()
}

#[test]
fn a_foreign_san_in_the_csr_is_ignored() {
    let (_dir, _, authority) = authority();
    let (csr, key) = csr(&["spiffe://cluster.local/ns/kube-system/sa/admin"]);
    let now = SystemTime::now();
    let leaf = authority.sign_csr(&csr, &identity(), None, now).unwrap();
    assert_eq!(san(&leaf.certificate), [identity().uri()]);

    let der = pem_to_der(&leaf.certificate).unwrap();
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    let (_, root) = X509Certificate::from_der(&authority.roots()[0].der).unwrap();
    certificate.verify_signature(Some(root.public_key())).unwrap();
    assert_eq!(certificate.public_key().raw, key.subject_public_key_info());
    assert!(!certificate.is_ca());
    assert!(certificate.validity().not_before.timestamp() <= system_seconds(now) - 60);
    assert!(certificate.subject_alternative_name().unwrap().unwrap().critical, "empty subject");

    let caller = from_certificate(&der, "cluster.local").unwrap();
    assert_eq!((caller.identity, caller.proof), (identity(), Proof::Certificate));
    assert!(from_certificate(&der, "other.domain").is_err());
}

fn system_seconds(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64
}

#[test]
fn validity_is_the_smaller_of_wanted_and_allowed() {
    let (_dir, _, authority) = authority();
    let (csr, _) = csr(&[]);
    let now = SystemTime::now();
    let life =
        |wanted| authority.sign_csr(&csr, &identity(), wanted, now).unwrap().not_after.duration_since(now).unwrap();
    assert_eq!(life(None), DAY);
    assert_eq!(life(Some(Duration::from_secs(600))), Duration::from_secs(600));
    assert_eq!(life(Some(Duration::from_secs(u64::MAX >> 2))), DAY);
}

#[test]
fn serials_differ() {
    let (_dir, _, authority) = authority();
    let (csr, _) = csr(&[]);
    let serial = || {
        let leaf = authority.sign_csr(&csr, &identity(), None, SystemTime::now()).unwrap();
        let der = pem_to_der(&leaf.certificate).unwrap();
        X509Certificate::from_der(&der).unwrap().1.raw_serial().to_vec()
    };
    assert_ne!(serial(), serial());
}

#[test]
fn a_csr_that_does_not_prove_its_key_is_refused() {
    let (_dir, _, authority) = authority();
    let (good, _) = csr(&[]);
    let (_, pem) = parse_x509_pem(good.as_bytes()).unwrap();
    let mut der = pem.contents.clone();
    let last = der.len() - 1;
    der[last] ^= 1;
    let body = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &der);
    let tampered = format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n");
    for bad in [tampered.as_str(), "", "garbage", authority.root_pem(), &"x".repeat(MAX_CSR + 1)] {
        let error = authority.sign_csr(bad, &identity(), None, SystemTime::now()).unwrap_err();
        assert!(matches!(error, Error::Csr(_)), "{error}");
    }
}

#[test]
fn server_names_are_dns_and_addresses_without_client_use() {
    let (_dir, _, authority) = authority();
    let names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(String::from).into();
    let keyed = authority.issue_server(&names, SystemTime::now()).unwrap();
    assert_eq!(san(&keyed.leaf.certificate), ["localhost", "ip:4", "ip:16"]);
    let der = pem_to_der(&keyed.leaf.certificate).unwrap();
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    let usage = certificate.extended_key_usage().unwrap().unwrap();
    assert!(usage.value.server_auth && !usage.value.client_auth);
    assert!(from_certificate(&der, "cluster.local").is_err());
    assert!(keyed.renew_at() > SystemTime::now() && keyed.renew_at() < keyed.leaf.not_after);
}

#[test]
fn the_root_survives_a_restart_and_its_files_are_private() {
    let (_dir, state, first) = authority();
    let again = Authority::open(&state, "cluster.local", DAY).unwrap();
    assert_eq!(first.root_pem(), again.root_pem());
    let mode = fs::metadata(state.file(ROOT_KEY)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn loose_or_corrupt_roots_are_refused_with_a_reason() {
    let (_dir, state, _) = authority();
    let reopen = || Authority::open(&state, "cluster.local", DAY).map(|_| ()).unwrap_err().to_string();
    fs::set_permissions(state.file(ROOT_KEY), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(reopen().contains("chmod 600"), "{}", reopen());
    fs::set_permissions(state.file(ROOT_KEY), fs::Permissions::from_mode(0o600)).unwrap();

    let key = fs::read_to_string(state.file(ROOT_KEY)).unwrap();
    fs::write(state.file(ROOT_KEY), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    assert!(reopen().contains("does not belong"), "{}", reopen());
    fs::write(state.file(ROOT_KEY), "junk").unwrap();
    assert!(reopen().contains("not a private key"), "{}", reopen());
    fs::remove_file(state.file(ROOT_KEY)).unwrap();
    assert!(reopen().contains("key is missing"), "{}", reopen());

    let path = state.file(ROOT_KEY);
    fs::write(&path, key).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(state.file(ROOT_CERT), "junk").unwrap();
    assert!(reopen().contains("not a PEM certificate"), "{}", reopen());
}

#[test]
fn nothing_is_signed_once_the_root_has_expired() {
    let (_dir, _, authority) = authority();
    let late = authority.root_not_after;
    for now in [late, late + DAY] {
        assert!(matches!(authority.issue(&identity(), now), Err(Error::Sign(reason)) if reason.contains("expired")));
    }
    let last = authority.issue(&identity(), late - Duration::from_secs(60)).unwrap();
    assert_eq!(last.leaf.not_after, late);
}

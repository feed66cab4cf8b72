use std::time::Duration;

use super::*;
use crate::{
    auth::Identity,
    ca::{Authority, pem_to_der},
};

fn state() -> (tempfile::TempDir, StateDir) {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(&dir.path().join("s")).unwrap();
    (dir, state)
}

fn authority(state: &StateDir) -> Authority {
    Authority::open(state, "cluster.local", Duration::from_secs(3600)).unwrap()
}

/// The serial of the root that signed a leaf of the authority.
fn signer(authority: &Authority) -> String {
    let identity = Identity::new("cluster.local", "a", "b").unwrap();
    let leaf = authority.issue(&identity, SystemTime::now()).unwrap();
    let der = pem_to_der(&leaf.leaf.certificate).unwrap();
    let (_, leaf) = X509Certificate::from_der(&der).unwrap();
    let signs = |root: &&Root| {
        let (_, root) = X509Certificate::from_der(&root.der).unwrap();
        leaf.verify_signature(Some(root.public_key())).is_ok()
    };
    authority.roots().iter().find(signs).expect("signed by a trusted root").serial.clone()
}

#[test]
fn a_rotation_trusts_both_roots_while_it_lasts() {
    let (_dir, state) = state();
    assert!(Rotation::open(&state).is_err(), "nothing to rotate");
    let first = signer(&authority(&state));
    let step = || Rotation::open(&state).unwrap();
    assert_eq!(step().stage().unwrap(), Stage::Steady);
    assert!(step().switch().is_err() && step().finish().is_err());

    step().prepare("cluster.local").unwrap();
    assert_eq!(step().stage().unwrap(), Stage::Prepared);
    assert!(step().prepare("cluster.local").is_err() && step().finish().is_err());
    let prepared = authority(&state);
    assert_eq!((prepared.roots().len(), signer(&prepared)), (2, first.clone()));
    assert_eq!(prepared.root_pem().matches("BEGIN CERTIFICATE").count(), 2);

    step().switch().unwrap();
    assert_eq!(step().stage().unwrap(), Stage::Switched);
    assert!(step().prepare("cluster.local").is_err() && step().switch().is_err());
    let switched = authority(&state);
    let second = signer(&switched);
    assert_ne!(second, first);
    assert_eq!(switched.roots()[0].serial, second, "the signer comes first");
    assert!(switched.roots().iter().any(|root| root.serial == first));

    step().finish().unwrap();
    assert_eq!(step().stage().unwrap(), Stage::Steady);
    let finished = authority(&state);
    assert_eq!((finished.roots().len(), signer(&finished)), (1, second));
    assert!(state.read_secret(FORMER_KEY).unwrap().is_none(), "the former key is gone");
    step().prepare("cluster.local").unwrap();
}

#[test]
fn a_crash_within_a_step_is_taken_up() {
    let (_dir, state) = state();
    authority(&state);
    let step = || Rotation::open(&state).unwrap();
    // Before the bundle was written.
    state.create_once(NEXT_KEY, &new_key().unwrap().serialize_pem(), 0o600).unwrap();
    assert_eq!(step().stage().unwrap(), Stage::Steady);
    step().prepare("cluster.local").unwrap();
    // Between the copy of the present key and the switch.
    let present = state.read_secret(ROOT_KEY).unwrap().unwrap();
    state.replace(FORMER_KEY, &present, 0o600).unwrap();
    assert_eq!(step().stage().unwrap(), Stage::Prepared);
    // After the switch, before the next key's file was removed.
    let next = state.read_secret(NEXT_KEY).unwrap().unwrap();
    state.replace(ROOT_KEY, &next, 0o600).unwrap();
    assert_eq!(step().stage().unwrap(), Stage::Switched);
    step().finish().unwrap();
    assert_eq!((step().stage().unwrap(), step().roots().len()), (Stage::Steady, 1));
    assert!(state.read_secret(NEXT_KEY).unwrap().is_none());
}

#[test]
fn roots_that_somebody_else_added_are_trusted_and_kept() {
    let (_dir, state) = state();
    let own = authority(&state).root_pem().to_owned();
    let foreign = self_sign(&new_key().unwrap(), "partner.example").unwrap();
    state.replace(ROOT_CERT, &(foreign + &own), 0o644).unwrap();
    let authority = authority(&state);
    assert_eq!(authority.roots().len(), 2);
    assert!(authority.root_pem().starts_with(&own), "the signer comes first");
    for step in 0..3 {
        let rotation = Rotation::open(&state).unwrap();
        match step {
            0 => rotation.prepare("cluster.local").unwrap(),
            1 => rotation.switch().unwrap(),
            _ => rotation.finish().unwrap(),
        }
    }
    assert_eq!(Rotation::open(&state).unwrap().roots().len(), 2);
}

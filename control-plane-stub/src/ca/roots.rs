//! The roots on disk: one signs, others may be trusted beside it while the mesh moves from one to the next.
//!
//! Owns the files and the steps of a rotation. `root-cert.pem` is the bundle that everybody trusts; whichever of its
//! certificates belongs to `root-key.pem` signs. Invariant: after every step, and after a crash within one, the signer's
//! certificate is in the bundle, and no root leaves the bundle while it signs.

use std::time::SystemTime;

use base64::Engine as _;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use x509_parser::{
    pem::Pem,
    prelude::{FromDer, X509Certificate},
};

use super::{Error, ROOT_CERT, ROOT_KEY, self_sign, system_time};
use crate::state::{Error as StateError, StateDir};

/// The key of the root that is trusted already and signs after the next step.
pub const NEXT_KEY: &str = "next-root-key.pem";
/// The key of the root that signed before, kept until nobody needs to trust it.
pub const FORMER_KEY: &str = "former-root-key.pem";
/// More would make every handshake's bundle large for no reason.
const MOST_ROOTS: usize = 8;

/// One trusted root.
#[derive(Clone, Debug)]
pub struct Root {
    pub pem: String,
    pub der: Vec<u8>,
    pub not_after: SystemTime,
    pub serial: String,
    pub signs: bool,
    spki: Vec<u8>,
}

fn corrupt(state: &StateDir, name: &str, reason: impl std::fmt::Display) -> Error {
    Error::State(StateError::Corrupt {
        path: state.file(name),
        reason: format!(
            "{reason}; restore it from a backup, or remove both {ROOT_KEY} and {ROOT_CERT} to start a new root (every \
             certificate issued so far becomes invalid)"
        ),
    })
}

/// The bundle, the signer first, and the signer's key. Made on first use.
pub(super) fn open(state: &StateDir, trust_domain: &str) -> Result<(KeyPair, Vec<Root>), Error> {
    let found = (state.read_secret(ROOT_KEY)?, state.read_public(ROOT_CERT)?);
    if let (None, Some(_)) = found {
        return Err(corrupt(state, ROOT_KEY, "the root certificate is there but its key is missing"));
    }
    let key_pem = match found.0 {
        Some(pem) => pem,
        None => state.create_once(ROOT_KEY, &new_key()?.serialize_pem(), 0o600)?,
    };
    let key = KeyPair::from_pem(&key_pem).map_err(|e| corrupt(state, ROOT_KEY, format!("not a private key ({e})")))?;
    let bundle = match found.1 {
        Some(pem) => pem,
        // Also the way back from a crash between the two files: same key, so nothing issued becomes invalid.
        None => state.create_once(ROOT_CERT, &self_sign(&key, trust_domain)?, 0o644)?,
    };
    let roots = parse(&bundle, &key).map_err(|reason| corrupt(state, ROOT_CERT, reason))?;
    Ok((key, roots))
}

fn new_key() -> Result<KeyPair, Error> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|e| Error::Sign(e.to_string()))
}

fn parse(bundle: &str, key: &KeyPair) -> Result<Vec<Root>, String> {
    let spki = key.subject_public_key_info();
    let mut roots = Vec::new();
    for pem in Pem::iter_from_buffer(bundle.as_bytes()) {
        let pem = pem.map_err(|e| format!("not a PEM certificate ({e})"))?;
        let (_, certificate) =
            X509Certificate::from_der(&pem.contents).map_err(|e| format!("not an X.509 certificate ({e})"))?;
        if !certificate.is_ca() {
            return Err("not a CA certificate".to_owned());
        }
        let own = certificate.public_key().raw.to_vec();
        roots.push(Root {
            pem: encode(&pem.contents),
            not_after: system_time(certificate.validity().not_after.timestamp()),
            serial: certificate.raw_serial_as_string(),
            signs: own == spki,
            spki: own,
            der: pem.contents,
        });
    }
    if roots.is_empty() {
        return Err("not a PEM certificate (there is none in it)".to_owned());
    }
    if roots.len() > MOST_ROOTS {
        return Err(format!("more than {MOST_ROOTS} roots"));
    }
    roots.sort_by_key(|root| !root.signs);
    let Some(signer) = roots.first().filter(|root| root.signs) else {
        return Err(format!("does not belong to the key in {ROOT_KEY}"));
    };
    if signer.not_after <= SystemTime::now() {
        return Err("has expired".to_owned());
    }
    Ok(roots)
}

fn encode(der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines = text.as_bytes().chunks(64).map(String::from_utf8_lossy);
    let body: String = lines.map(|line| format!("{line}\n")).collect();
    format!("-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n")
}

fn spki(key: &str) -> Option<Vec<u8>> {
    KeyPair::from_pem(key).ok().map(|key| key.subject_public_key_info())
}

fn bundle<'a>(roots: impl IntoIterator<Item = &'a Root>) -> String {
    roots.into_iter().map(|root| root.pem.as_str()).collect()
}

/// Where a rotation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// One root.
    Steady,
    /// The next root is trusted and does not sign yet.
    Prepared,
    /// The next root signs, the former one is still trusted.
    Switched,
}

/// The steps of a rotation, each to be taken when the one before has reached every proxy.
pub struct Rotation<'a> {
    state: &'a StateDir,
    roots: Vec<Root>,
}

impl<'a> Rotation<'a> {
    pub fn open(state: &'a StateDir) -> Result<Self, Error> {
        if state.read_public(ROOT_CERT)?.is_none() {
            return Err(corrupt(state, ROOT_CERT, "there is no root yet: start the control plane once"));
        }
        let (_, roots) = open(state, "")?;
        Ok(Self { state, roots })
    }

    pub fn roots(&self) -> &[Root] {
        &self.roots
    }

    pub fn stage(&self) -> Result<Stage, Error> {
        Ok(match (self.state.read_secret(NEXT_KEY)?, self.state.read_secret(FORMER_KEY)?) {
            // Else it was moved into place or never reached the bundle, and a crash came in between.
            (Some(next), _) if self.is_next(&next) => Stage::Prepared,
            (_, Some(_)) => Stage::Switched,
            _ => Stage::Steady,
        })
    }

    fn is_next(&self, key: &str) -> bool {
        spki(key).is_some_and(|own| self.roots.iter().any(|root| root.spki == own && !root.signs))
    }

    /// Makes the next root and has it trusted.
    pub fn prepare(self, trust_domain: &str) -> Result<(), Error> {
        self.expect(Stage::Steady, "a rotation is under way: finish it first")?;
        if self.roots.len() >= MOST_ROOTS {
            return Err(Error::Step(format!("{ROOT_CERT} already has {MOST_ROOTS} roots")));
        }
        // One that was left by a crash is taken up: its certificate never reached the bundle.
        let pem = self.state.create_once(NEXT_KEY, &new_key()?.serialize_pem(), 0o600)?;
        let next =
            KeyPair::from_pem(&pem).map_err(|e| corrupt(self.state, NEXT_KEY, format!("not a private key ({e})")))?;
        let text = bundle(&self.roots) + &self_sign(&next, trust_domain)?;
        Ok(self.state.replace(ROOT_CERT, &text, 0o644)?)
    }

    /// Lets the next root sign.
    pub fn switch(self) -> Result<(), Error> {
        self.expect(Stage::Prepared, "there is no next root: prepare one first")?;
        let next = self.state.read_secret(NEXT_KEY)?.unwrap_or_default();
        let present = self.state.read_secret(ROOT_KEY)?.unwrap_or_default();
        self.state.replace(FORMER_KEY, &present, 0o600)?;
        // The moment of the switch: the signer is who belongs to this key.
        self.state.replace(ROOT_KEY, &next, 0o600)?;
        Ok(self.state.remove(NEXT_KEY)?)
    }

    /// Ends the trust in the former root.
    pub fn finish(self) -> Result<(), Error> {
        self.expect(Stage::Switched, "no root was replaced: switch to the next one first")?;
        let former = self.state.read_secret(FORMER_KEY)?.unwrap_or_default();
        let former = spki(&former).ok_or_else(|| corrupt(self.state, FORMER_KEY, "not a private key"))?;
        let kept = bundle(self.roots.iter().filter(|root| root.signs || root.spki != former));
        self.state.replace(ROOT_CERT, &kept, 0o644)?;
        self.state.remove(FORMER_KEY)?;
        Ok(self.state.remove(NEXT_KEY)?)
    }

    fn expect(&self, stage: Stage, otherwise: &str) -> Result<(), Error> {
        if self.stage()? == stage { Ok(()) } else { Err(Error::Step(otherwise.to_owned())) }
    }
}

#[cfg(test)]
mod tests;

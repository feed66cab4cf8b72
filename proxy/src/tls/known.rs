//! Certificate chains that were found good, and what is in them.
//!
//! A mesh's peers show the same few chains again and again, and even a resumed session shows its chain to be judged:
//! without this, every handshake verifies the same signatures and reads the same names. Knows nothing of rules: one
//! cache belongs to one set of them and dies with it. Invariants: only chains that passed get in, so a stranger cannot
//! fill it; an answer is given for the very same bytes only, and only while every certificate of the chain is valid.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::pki_types::{CertificateDer, UnixTime};

use super::names::{self, San};

/// Chains kept per set of rules; one more starts over.
const MOST: usize = 256;

/// What a certificate says of its owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Identity {
    /// The certificates as they came, leaf first, DER.
    pub chain: Vec<Arc<[u8]>>,
    pub uri_sans: Vec<Box<str>>,
    pub dns_sans: Vec<Box<str>>,
    /// RFC 2253 form.
    pub subject: Box<str>,
}

impl Identity {
    pub(super) fn read(leaf: &CertificateDer<'_>, rest: &[CertificateDer<'_>]) -> Self {
        let chain = std::iter::once(leaf).chain(rest).map(|c| Arc::from(&**c)).collect();
        let mut identity = Self { chain, ..Self::default() };
        if let Some(certificate) = names::parse(leaf) {
            identity.subject = names::rfc2253(certificate.subject()).into();
            for san in names::sans(&certificate) {
                match san {
                    San::Uri(uri) => identity.uri_sans.push(uri),
                    San::Dns(name) => identity.dns_sans.push(name),
                    San::Email(_) | San::Ip(_) => {}
                }
            }
        }
        identity
    }

    fn is_of(&self, leaf: &CertificateDer<'_>, rest: &[CertificateDer<'_>]) -> bool {
        let shown = std::iter::once(leaf).chain(rest);
        self.chain.len() == rest.len() + 1 && self.chain.iter().zip(shown).all(|(ours, shown)| **ours == **shown)
    }
}

#[derive(Debug)]
struct Entry {
    identity: Arc<Identity>,
    /// Seconds since the epoch between which every certificate of the chain is valid.
    from: i64,
    until: i64,
}

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<HashMap<Box<[u8]>, Entry>>);

impl Known {
    /// The identity in a chain that passed before, if it is still valid.
    pub(super) fn get(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Option<Arc<Identity>> {
        let now = i64::try_from(now.as_secs()).ok()?;
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get(&**leaf)?;
        let good = (entry.from..=entry.until).contains(&now) && entry.identity.is_of(leaf, rest);
        good.then(|| entry.identity.clone())
    }

    /// Keeps a chain that passed. One that cannot be read as a whole is not kept.
    pub(super) fn insert(&self, leaf: &CertificateDer<'_>, rest: &[CertificateDer<'_>]) {
        let (mut from, mut until) = (i64::MIN, i64::MAX);
        for der in std::iter::once(leaf).chain(rest) {
            let Some(certificate) = names::parse(der) else { return };
            from = from.max(certificate.validity().not_before.timestamp());
            until = until.min(certificate.validity().not_after.timestamp());
        }
        let entry = Entry { identity: Arc::new(Identity::read(leaf, rest)), from, until };
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= MOST {
            entries.clear();
        }
        entries.insert((**leaf).into(), entry);
    }
}

#[cfg(test)]
mod tests;

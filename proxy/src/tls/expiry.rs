//! When the certificates in use come to their end, by the name an operator knows them by.
//!
//! Pure over what a context was built from. Invariant: a certificate that cannot be read ends at no time, it was refused
//! long before.

use rustls::pki_types::{CertificateDer, pem::PemObject};

use super::{material::Inputs, names};
use crate::ir::secret::{CertificateSource, CommonTls, DataSource, ValidationSource};

/// Names told at most: a configuration may have thousands of files.
const MOST: usize = 256;

/// A certificate chain or a bundle of roots.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expiration {
    /// Of its secret or its file.
    pub name: Box<str>,
    /// When the first certificate in it expires, in seconds since the epoch.
    pub at: i64,
}

pub(super) fn file(source: &DataSource) -> Box<str> {
    match source {
        DataSource::Inline(_) => "inline".into(),
        DataSource::File(path) => path.display().to_string().into(),
    }
}

/// What a context holds.
pub(super) fn of(common: &CommonTls, inputs: &Inputs) -> Vec<Expiration> {
    let mut found = Vec::new();
    let mut add = |name: Box<str>, pem: &[u8]| {
        let ends = CertificateDer::pem_slice_iter(pem)
            .flatten()
            .filter_map(|der| names::parse(&der).map(|certificate| certificate.validity().not_after.timestamp()));
        found.extend(ends.min().map(|at| Expiration { name, at }));
    };
    for (source, chain) in common.certificates.iter().zip(inputs.chains()) {
        let name = match source {
            CertificateSource::Static(certificate) => file(&certificate.chain),
            CertificateSource::Sds(secret) => (*secret.name).into(),
        };
        add(name, chain);
    }
    if let Some(trust) = &inputs.validation
        && let Some(pem) = trust.anchors()
    {
        let name = match &common.validation {
            ValidationSource::Sds(secret) | ValidationSource::Combined { secret, .. } => (*secret.name).into(),
            ValidationSource::Static(_) | ValidationSource::None => {
                trust.rules.trusted_ca.as_ref().map_or_else(|| "inline".into(), file)
            }
        };
        add(name, pem);
    }
    found
}

/// One entry per name, the earliest, over all contexts.
pub(super) fn merged(mut all: Vec<Expiration>) -> Vec<Expiration> {
    all.sort_unstable();
    all.dedup_by(|later, first| later.name == first.name);
    if all.len() > MOST {
        all.sort_unstable_by_key(|e| e.at);
        all.truncate(MOST);
    }
    all
}

/// Envoy's `server.days_until_first_cert_expiring`: whole days, 0 once one is over, and its largest number without any.
pub fn days_until_first(expirations: &[Expiration], now: i64) -> u64 {
    let first = expirations.iter().map(|e| e.at).min();
    first.map_or(u64::from(u32::MAX), |at| u64::try_from((at - now) / 86_400).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::testing::{Ca, Spec, client, server, spiffe};

    #[test]
    fn the_first_end_counts() {
        let at = |name: &str, at| Expiration { name: name.into(), at };
        let all = merged(vec![at("b", 900_000), at("a", 500_000), at("b", 100_000)]);
        assert_eq!(all, [at("a", 500_000), at("b", 100_000)]);
        assert_eq!(days_until_first(&all, 100_000 - 86_400), 1);
        assert_eq!(days_until_first(&all, 100_000 - 86_399), 0);
        assert_eq!(days_until_first(&all, 200_000), 0);
        assert_eq!(days_until_first(&[], 0), 4_294_967_295);
        let many = (0..1000).map(|n| at(&format!("c{n}"), 1000 - n)).collect();
        let kept = merged(many);
        assert_eq!((kept.len(), kept[0].at), (MOST, 1), "those that end first");
    }

    #[test]
    fn contexts_tell_of_chains_and_roots() {
        let ca = Ca::new("root");
        let leaf = ca.issue(Spec { uris: vec![spiffe("a")], days: (-1, 10), ..Spec::default() });
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        let server = server(&leaf, Some(ca.trust()));
        let told = server.expirations();
        assert_eq!(told.len(), 2, "{told:?}");
        // Whether a second passed in between is not the question.
        assert!((9..=10).contains(&days_until_first(&told, now)));
        let client = client(None, Some(ca.trust()));
        assert_eq!(client.expirations().len(), 1);
    }
}

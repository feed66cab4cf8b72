//! The certificates that TLS contexts use, for people to look at: public parts only.
//!
//! Read anew from what a context was built of each time somebody asks. Invariant: no key is ever looked at.

use rustls::pki_types::{CertificateDer, pem::PemObject};

use super::{
    expiry::file,
    material::Inputs,
    names::{self, San},
};
use crate::ir::secret::{CertificateSource, CommonTls, ValidationSource};

/// Certificates shown of one bundle: a system's roots are some 150.
const MOST: usize = 256;

/// One certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Of its file, or the name of its secret.
    pub path: Box<str>,
    /// Hexadecimal, lower case.
    pub serial: String,
    /// Kind (`uri`, `dns`, `ip_address`) and name.
    pub names: Vec<(&'static str, String)>,
    /// Seconds since the epoch.
    pub not_before: i64,
    pub not_after: i64,
}

/// What one context uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InUse {
    pub roots: Vec<Shown>,
    /// The leaves of its chains.
    pub leaves: Vec<Shown>,
}

/// What a context holds.
pub(super) fn of(common: &CommonTls, inputs: &Inputs) -> InUse {
    let mut found = InUse::default();
    for (source, chain) in common.certificates.iter().zip(inputs.chains()) {
        let path = match source {
            CertificateSource::Static(certificate) => file(&certificate.chain),
            CertificateSource::Sds(secret) => (*secret.name).into(),
        };
        found.leaves.extend(read(&path, chain).next());
    }
    if let Some(trust) = &inputs.validation
        && let Some(pem) = trust.anchors()
    {
        let path = match &common.validation {
            ValidationSource::Sds(secret) | ValidationSource::Combined { secret, .. } => (*secret.name).into(),
            ValidationSource::Static(_) | ValidationSource::None => {
                trust.rules.trusted_ca.as_ref().map_or_else(|| "inline".into(), file)
            }
        };
        found.roots.extend(read(&path, pem).take(MOST));
    }
    found
}

fn read<'a>(path: &'a str, pem: &'a [u8]) -> impl Iterator<Item = Shown> + 'a {
    CertificateDer::pem_slice_iter(pem).flatten().filter_map(move |der| {
        let certificate = names::parse(&der)?;
        let name = |san| match san {
            San::Uri(uri) => ("uri", uri.into_string()),
            San::Dns(dns) | San::Email(dns) => ("dns", dns.into_string()),
            San::Ip(ip) => ("ip_address", ip.to_string()),
        };
        Some(Shown {
            path: path.into(),
            serial: format!("{:x}", certificate.tbs_certificate.serial),
            names: names::sans(&certificate).into_iter().map(name).collect(),
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
        })
    })
}

#[cfg(test)]
mod tests {
    use crate::tls::testing::{Ca, Spec, server, spiffe};

    #[test]
    fn leaves_and_roots_are_shown() {
        let ca = Ca::new("root");
        let leaf = ca.issue(Spec { uris: vec![spiffe("a")], days: (-1, 10), ..Spec::default() });
        let shown = server(&leaf, Some(ca.trust())).certificates();
        assert_eq!((shown.leaves.len(), shown.roots.len()), (1, 1), "{shown:?}");
        assert_eq!(shown.leaves[0].names, [("uri", spiffe("a"))]);
        let serial = &shown.leaves[0].serial;
        assert!(!serial.is_empty() && serial.bytes().all(|b| b.is_ascii_hexdigit()), "{serial}");
        assert!(shown.leaves[0].not_before < shown.leaves[0].not_after);
    }
}

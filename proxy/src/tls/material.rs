//! The bytes a context is built from: resolved from configuration, secrets and files, and parsed.
//!
//! Owns the merge of `combined_validation_context` and the limits on files. Invariant: equal inputs are equal values,
//! so an unchanged file or secret is recognised without building anything.

use std::{
    fs::OpenOptions,
    io::Read,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};

use super::{TlsError, secrets::Secrets};
use crate::ir::secret::{Certificate, CertificateSource, CommonTls, DataSource, Secret, Validation, ValidationSource};

#[cfg(test)]
#[path = "material_tests.rs"]
mod tests;

/// Large enough for every public trust bundle.
const MAX_FILE: u64 = 8 << 20;

/// Everything a context depends on, by value.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Inputs {
    certificates: Vec<Pair>,
    pub(super) validation: Option<Trust>,
}

#[derive(Clone, PartialEq, Eq)]
struct Pair {
    chain: Arc<[u8]>,
    key: Arc<[u8]>,
}

/// A validation context with its files read.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Trust {
    pub(super) rules: Validation,
    ca: Option<Arc<[u8]>>,
    crl: Option<Arc<[u8]>>,
}

/// Why there are no usable inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lack {
    /// A secret that was not delivered yet.
    Missing(String),
    Bad(String),
}

impl From<TlsError> for Lack {
    fn from(error: TlsError) -> Self {
        Self::Bad(error.0)
    }
}

/// Collects the inputs of a context.
pub(super) fn resolve(common: &CommonTls, secrets: &Secrets) -> Result<Inputs, Lack> {
    let certificates = certificates(common, secrets)?
        .iter()
        .map(|c| Ok(Pair { chain: read(&c.chain)?, key: read(&c.key)? }))
        .collect::<Result<_, TlsError>>()?;
    let validation = validation(common, secrets)?
        .map(|rules| {
            let ca = rules.trusted_ca.as_ref().map(read).transpose()?;
            let crl = rules.crl.as_ref().map(read).transpose()?;
            Ok::<_, TlsError>(Trust { rules, ca, crl })
        })
        .transpose()?;
    Ok(Inputs { certificates, validation })
}

/// Directories to watch for the files in use.
pub(super) fn watched(common: &CommonTls, secrets: &Secrets) -> Vec<PathBuf> {
    let mut directories = Vec::new();
    let mut add = |watched: &Option<PathBuf>, sources: &[Option<&DataSource>]| {
        let files = sources.iter().flatten().filter_map(|s| match s {
            DataSource::File(path) => Some(path),
            DataSource::Inline(_) => None,
        });
        for file in files {
            let parent = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            directories.push(watched.clone().unwrap_or_else(|| parent.to_owned()));
        }
    };
    // What is missing has no files.
    for c in certificates(common, secrets).unwrap_or_default() {
        add(&c.watched_directory, &[Some(&c.chain), Some(&c.key)]);
    }
    if let Ok(Some(v)) = validation(common, secrets) {
        add(&v.watched_directory, &[v.trusted_ca.as_ref(), v.crl.as_ref()]);
    }
    directories.sort();
    directories.dedup();
    directories
}

/// Whether every input is part of the configuration itself.
pub(super) fn is_static(common: &CommonTls) -> bool {
    common.certificates.iter().all(|c| matches!(c, CertificateSource::Static(_)))
        && matches!(common.validation, ValidationSource::None | ValidationSource::Static(_))
}

/// Whether the context is built from the secret.
pub(super) fn uses(common: &CommonTls, secret: &str) -> bool {
    let certificate = |c: &CertificateSource| matches!(c, CertificateSource::Sds(r) if *r.name == *secret);
    common.certificates.iter().any(certificate)
        || match &common.validation {
            ValidationSource::Sds(r) | ValidationSource::Combined { secret: r, .. } => *r.name == *secret,
            ValidationSource::None | ValidationSource::Static(_) => false,
        }
}

fn certificates(common: &CommonTls, secrets: &Secrets) -> Result<Vec<Arc<Certificate>>, Lack> {
    common
        .certificates
        .iter()
        .map(|source| match source {
            CertificateSource::Static(certificate) => Ok(certificate.clone()),
            CertificateSource::Sds(reference) => match secrets.get(&reference.name).as_deref() {
                Some(Secret::Certificate(certificate)) => Ok(certificate.clone()),
                Some(Secret::Validation(_)) => {
                    Err(Lack::Bad(format!("secret '{}' is a validation context, not a certificate", reference.name)))
                }
                None => Err(missing(&reference.name)),
            },
        })
        .collect()
}

fn validation(common: &CommonTls, secrets: &Secrets) -> Result<Option<Validation>, Lack> {
    let secret = |name: &str| -> Result<Arc<Validation>, Lack> {
        match secrets.get(name).as_deref() {
            Some(Secret::Validation(validation)) => Ok(validation.clone()),
            Some(Secret::Certificate(_)) => {
                Err(Lack::Bad(format!("secret '{name}' is a certificate, not a validation context")))
            }
            None => Err(missing(name)),
        }
    };
    Ok(match &common.validation {
        ValidationSource::None => None,
        ValidationSource::Static(validation) => Some((**validation).clone()),
        ValidationSource::Sds(reference) => Some((*secret(&reference.name)?).clone()),
        ValidationSource::Combined { default, secret: reference } => {
            let secret = secret(&reference.name)?;
            Some(merge(default, &secret))
        }
    })
}

/// Merges as protobuf does: single fields of the secret win, lists are joined.
fn merge(default: &Validation, secret: &Validation) -> Validation {
    let (ca_from, ca) = match &secret.trusted_ca {
        Some(ca) => (secret, Some(ca)),
        None => (default, default.trusted_ca.as_ref()),
    };
    Validation {
        trusted_ca: ca.cloned(),
        watched_directory: ca_from.watched_directory.clone(),
        sans: default.sans.iter().chain(&secret.sans).cloned().collect(),
        spki_sha256: default.spki_sha256.iter().chain(&secret.spki_sha256).copied().collect(),
        certificate_sha256: default.certificate_sha256.iter().chain(&secret.certificate_sha256).copied().collect(),
        crl: secret.crl.as_ref().or(default.crl.as_ref()).cloned(),
        accept_untrusted: default.accept_untrusted || secret.accept_untrusted,
    }
}

fn missing(name: &str) -> Lack {
    Lack::Missing(format!("secret '{name}' has not been delivered yet"))
}

fn read(source: &DataSource) -> Result<Arc<[u8]>, TlsError> {
    let path = match source {
        DataSource::Inline(bytes) => return Ok(bytes.clone()),
        DataSource::File(path) => path,
    };
    let fail = |e: std::io::Error| TlsError::new(format!("cannot read {}: {e}", path.display()));
    let mut bytes = Vec::new();
    // The opening of a pipe waits for whoever writes to it, for ever.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(fail)?;
    if !file.metadata().map_err(fail)?.is_file() {
        return Err(TlsError::new(format!("cannot read {}: not a regular file", path.display())));
    }
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(TlsError::new(format!("{} is larger than {MAX_FILE} bytes", path.display())));
    }
    Ok(bytes.into())
}

impl Inputs {
    /// The chains in PEM, in the order of the configuration.
    pub(super) fn chains(&self) -> impl Iterator<Item = &[u8]> {
        self.certificates.iter().map(|pair| &*pair.chain)
    }

    /// Parses the certificates; each key must belong to its chain.
    pub(super) fn keys(&self, provider: &CryptoProvider) -> Result<Vec<Arc<CertifiedKey>>, TlsError> {
        self.certificates.iter().map(|pair| pair.parse(provider).map(Arc::new)).collect()
    }
}

impl Pair {
    fn parse(&self, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&self.chain)
            .collect::<Result<_, _>>()
            .map_err(|e| TlsError::new(format!("certificate chain: {e}")))?;
        if chain.is_empty() {
            return Err(TlsError::new("certificate chain: no PEM certificate in it"));
        }
        // The cause is not printed: a parser's message could quote the key.
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| TlsError::new("private key: no usable PEM key (PKCS#8, PKCS#1 or SEC1, unencrypted)"))?;
        CertifiedKey::from_der(chain, key, provider).map_err(|e| match e {
            rustls::Error::InconsistentKeys(_) => TlsError::new("the private key does not belong to the certificate"),
            other => TlsError::new(format!("certificate and key: {other}")),
        })
    }
}

impl Trust {
    /// The trust anchors in PEM.
    pub(super) fn anchors(&self) -> Option<&[u8]> {
        self.ca.as_deref()
    }

    /// The trust anchors and the certificates they are from, `None` when the chain is not to be verified.
    pub(super) fn roots(&self) -> Result<Option<(RootCertStore, Vec<CertificateDer<'static>>)>, TlsError> {
        let Some(pem) = &self.ca else { return Ok(None) };
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<_, _>>()
            .map_err(|e| TlsError::new(format!("trusted_ca: {e}")))?;
        let mut roots = RootCertStore::empty();
        let (_, ignored) = roots.add_parsable_certificates(certificates.iter().cloned());
        if roots.is_empty() {
            return Err(TlsError::new("trusted_ca: no usable PEM certificate in it"));
        }
        if ignored > 0 {
            tracing::warn!(ignored, used = roots.len(), "trusted_ca has certificates that cannot be trust anchors");
        }
        Ok(Some((roots, certificates)))
    }

    pub(super) fn crls(&self) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
        let Some(pem) = &self.crl else { return Ok(Vec::new()) };
        let lists: Vec<_> = CertificateRevocationListDer::pem_slice_iter(pem)
            .collect::<Result<_, _>>()
            .map_err(|e| TlsError::new(format!("crl: {e}")))?;
        if lists.is_empty() {
            return Err(TlsError::new("crl: no PEM revocation list in it"));
        }
        Ok(lists)
    }
}

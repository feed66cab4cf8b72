//! One request to the authority: a fresh key, the CSR, the call, and every check of the answer.
//!
//! The answer is not trusted for what it claims: it must be for our key, chain up to the root it came with, be within
//! its validity and carry one SPIFFE id, the expected one if there is any.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use outrigger_wire::ca::{IstioCertificateRequest, IstioCertificateServiceClient};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType};
use rustls::{RootCertStore, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, UnixTime, pem::PemObject};
use tonic::Request;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer, time::ASN1Time};

use super::IdentityConfig;
use crate::ir::spiffe::SpiffeId;
use crate::xds::client::grpc::{Dialer, bearer, describe, metadata};

/// Bound on the call once there is a connection.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Most certificates in an answer, and their total size.
pub(super) const MAX_CHAIN: usize = 16;
pub(super) const MAX_BYTES: usize = 1 << 20;

/// A checked answer. Without `Debug`: it holds a private key.
#[derive(Clone)]
pub(super) struct Issued {
    /// PEM, leaf first, without the root.
    pub(super) chain: String,
    /// PEM; printed by nobody.
    pub(super) key: Arc<[u8]>,
    /// PEM, all that are to be trusted.
    pub(super) root: String,
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
    pub(super) spiffe_id: Box<str>,
    pub(super) serial: Box<str>,
}

/// Why there is no certificate.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) reason: String,
    pub(super) clock_skewed: bool,
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self { reason, clock_skewed: false }
    }
}

/// Asks for a certificate for a new key.
pub(super) async fn request(config: &IdentityConfig, dialer: &Dialer) -> Result<Issued, Failure> {
    let (key, csr) = key_and_request(config.spiffe_id.as_deref())?;
    let mut request = Request::new(IstioCertificateRequest {
        csr,
        validity_duration: i64::try_from(config.ttl.as_secs()).unwrap_or(i64::MAX),
        metadata: None,
    });
    *request.metadata_mut() = metadata(&config.metadata)?;
    if let Some(path) = &config.token_file {
        request.metadata_mut().insert("authorization", bearer(path.clone()).await?);
    }
    let channel = dialer.channel(&config.ca_cluster, None).await?;
    let mut client = IstioCertificateServiceClient::new(channel);
    let answer = tokio::time::timeout(CALL_TIMEOUT, client.create_certificate(request))
        .await
        .map_err(|_| format!("the authority did not answer within {CALL_TIMEOUT:?}"))?
        .map_err(|status| format!("the authority refused: {}", describe(&status)))?;
    check(&answer.into_inner().cert_chain, &key, config.spiffe_id.as_deref(), SystemTime::now())
}

/// A new P-256 key and its PKCS#10 request in PEM.
pub(super) fn key_and_request(spiffe_id: Option<&str>) -> Result<(KeyPair, String), Failure> {
    let failed = |e: rcgen::Error| Failure::from(format!("certificate request: {e}"));
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
    let mut params = CertificateParams::default();
    // rcgen puts its own name here otherwise; the subject carries no authority and stays empty.
    params.distinguished_name = rcgen::DistinguishedName::new();
    if let Some(id) = spiffe_id {
        params.subject_alt_names.push(SanType::URI(id.try_into().map_err(failed)?));
    }
    let csr = params.serialize_request(&key).and_then(|csr| csr.pem()).map_err(failed)?;
    Ok((key, csr))
}

/// Checks the authority's answer.
pub(super) fn check(
    answer: &[String],
    key: &KeyPair,
    expected: Option<&str>,
    now: SystemTime,
) -> Result<Issued, Failure> {
    if answer.iter().map(String::len).sum::<usize>() > MAX_BYTES {
        return Err(format!("the authority's answer exceeds {MAX_BYTES} bytes").into());
    }
    let mut certificates: Vec<CertificateDer<'static>> = Vec::new();
    // The last text is the bundle of trusted roots; in a single one it is the last certificate.
    let mut first_root = 0;
    for pem in answer {
        first_root = certificates.len();
        for der in CertificateDer::pem_slice_iter(pem.as_bytes()).take(MAX_CHAIN + 1) {
            certificates.push(der.map_err(|e| format!("the authority's answer is not PEM: {e}"))?);
        }
    }
    if !(2..=MAX_CHAIN).contains(&certificates.len()) || first_root == certificates.len() {
        let count = certificates.len();
        return Err(
            format!("{count} certificates in the authority's answer; expected leaf, intermediates, root").into()
        );
    }
    let roots = certificates.split_off(if first_root == 0 { certificates.len() - 1 } else { first_root });
    examine(&certificates, &roots, key, expected, now)
}

/// Checks a certificate for our key against the roots it came with.
pub(super) fn examine(
    chain: &[CertificateDer<'static>],
    roots: &[CertificateDer<'static>],
    key: &KeyPair,
    expected: Option<&str>,
    now: SystemTime,
) -> Result<Issued, Failure> {
    let (leaf_der, intermediates) = chain.split_first().ok_or_else(|| "empty answer".to_owned())?;
    let (_, leaf) = X509Certificate::from_der(leaf_der).map_err(|e| format!("the issued certificate: {e}"))?;
    if leaf.public_key().raw != key.subject_public_key_info() {
        return Err("the issued certificate is for another key".to_owned().into());
    }
    let (not_before, not_after) = (wall(leaf.validity().not_before), wall(leaf.validity().not_after));
    if not_after <= now {
        let reason = "the issued certificate is expired on arrival: this machine's clock is ahead of the authority's";
        return Err(Failure { reason: reason.to_owned(), clock_skewed: true });
    }
    let spiffe_id = spiffe_id(&leaf)?;
    if expected.is_some_and(|e| *e != *spiffe_id) {
        let expected = expected.unwrap_or_default();
        return Err(format!("the issued certificate is for {spiffe_id}, expected {expected}").into());
    }
    // By a moment at which the leaf is valid: a skewed clock is reported, but the peers judge by theirs.
    verify(leaf_der, intermediates, roots, not_before.max(now))?;
    Ok(Issued {
        chain: chain.iter().map(pem).collect(),
        key: Arc::from(key.serialize_pem().as_bytes()),
        root: roots.iter().map(pem).collect(),
        not_before,
        not_after,
        spiffe_id,
        serial: leaf.raw_serial_as_string().into(),
    })
}

/// Serial number and end of each root in a bundle, each once.
pub(super) fn anchors(bundle: &str) -> Vec<(Box<str>, SystemTime)> {
    let mut found: Vec<(Box<str>, SystemTime)> = Vec::new();
    for der in CertificateDer::pem_slice_iter(bundle.as_bytes()).flatten() {
        let Ok((_, root)) = X509Certificate::from_der(&der) else { continue };
        let anchor = (root.raw_serial_as_string().into(), wall(root.validity().not_after));
        if !found.contains(&anchor) {
            found.push(anchor);
        }
    }
    found
}

/// The one URI name, which must be a SPIFFE id.
fn spiffe_id(leaf: &X509Certificate<'_>) -> Result<Box<str>, Failure> {
    let names = leaf.subject_alternative_name().map_err(|e| format!("the issued certificate's names: {e}"))?;
    let names = names.map(|n| n.value.general_names.as_slice()).unwrap_or_default();
    let uris: Vec<&str> =
        names.iter().filter_map(|n| if let GeneralName::URI(uri) = n { Some(*uri) } else { None }).collect();
    match uris.as_slice() {
        [id] if SpiffeId::parse(id).is_some_and(|id| !id.path().is_empty()) => Ok((*id).into()),
        _ => Err(format!("the issued certificate does not carry exactly one SPIFFE id but {uris:?}").into()),
    }
}

fn verify(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    trusted: &[CertificateDer<'static>],
    at: SystemTime,
) -> Result<(), Failure> {
    let mut roots = RootCertStore::empty();
    for root in trusted {
        roots.add(root.clone()).map_err(|e| format!("the authority's root: {e}"))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|e| format!("the authority's root: {e}"))?;
    let since_epoch = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    verifier
        .verify_client_cert(leaf, intermediates, UnixTime::since_unix_epoch(since_epoch))
        .map_err(|e| format!("the issued certificate does not chain up to its root: {e}"))?;
    Ok(())
}

fn wall(time: ASN1Time) -> SystemTime {
    let seconds = time.timestamp();
    let offset = Duration::from_secs(seconds.unsigned_abs());
    let at = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(offset)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(offset)
    };
    at.unwrap_or(SystemTime::UNIX_EPOCH)
}

/// PEM of a certificate.
pub(super) fn pem(der: &CertificateDer<'_>) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut out = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = tail;
    }
    out.push_str("-----END CERTIFICATE-----\n");
    out
}

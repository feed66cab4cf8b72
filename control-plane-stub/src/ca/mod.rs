//! The certificate authority: one ECDSA P-256 root, leafs for workloads and for the control plane's own listener.
//!
//! Owns keys and what goes into a certificate; [`service`] is the gRPC face, [`limit`] the brake.
//! Invariant: names in a leaf come from the caller's proven identity, never from what it sent.

pub mod limit;
pub mod roots;
pub mod service;
#[cfg(test)]
mod tests;

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use aws_lc_rs::rand;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use time::OffsetDateTime;
use x509_parser::{
    certification_request::X509CertificationRequest,
    pem::parse_x509_pem,
    prelude::{FromDer, X509Certificate},
    public_key::PublicKey,
};

use self::roots::Root;
use crate::{
    auth::Identity,
    state::{Error as StateError, StateDir},
};

/// Private key of the root, PEM PKCS#8, mode 0600.
pub const ROOT_KEY: &str = "root-key.pem";
/// Certificates of the trusted roots, PEM; give them to whoever must trust the mesh.
pub const ROOT_CERT: &str = "root-cert.pem";
const ROOT_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Certificates start this long ago, for peers whose clock is behind.
const BACKDATE: Duration = Duration::from_secs(60);
/// Largest CSR looked at.
const MAX_CSR: usize = 64 << 10;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    State(#[from] StateError),
    #[error("the request is not a usable CSR: {0}")]
    Csr(String),
    #[error("signing failed: {0}")]
    Sign(String),
    #[error("{0}")]
    Step(String),
}

/// A leaf in PEM, and the times that decide when to replace it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    pub certificate: String,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

/// A leaf with the key we made for it.
#[derive(Clone)]
pub struct KeyedLeaf {
    pub leaf: Leaf,
    pub key_pem: String,
    pub key_der: Vec<u8>,
}

impl KeyedLeaf {
    /// When half of the validity has passed: time to replace it. Never at once, or a root about to expire would make
    /// a busy loop.
    pub fn renew_at(&self) -> SystemTime {
        let issued = self.leaf.not_before + BACKDATE;
        let life = self.leaf.not_after.duration_since(issued).unwrap_or_default();
        issued + (life / 2).max(Duration::from_secs(1))
    }
}

/// What a leaf is for; decides its names and its extended key usage.
enum Names<'a> {
    Workload(&'a Identity),
    Server(&'a [String]),
}

/// The root and the means to sign with it.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    bundle: String,
    roots: Vec<Root>,
    root_not_after: SystemTime,
    max_ttl: Duration,
}

impl Authority {
    /// Reads the roots from `state`, making one on first use. `max_ttl` bounds every leaf.
    pub fn open(state: &StateDir, trust_domain: &str, max_ttl: Duration) -> Result<Self, Error> {
        let (key, roots) = roots::open(state, trust_domain)?;
        let signer = roots.first().ok_or_else(|| Error::Sign("there is no root".to_owned()))?;
        let root_not_after = signer.not_after;
        let issuer = Issuer::from_ca_cert_der(&signer.der.as_slice().into(), key)
            .map_err(|e| Error::Sign(format!("{ROOT_CERT}: {e}")))?;
        let bundle = roots.iter().map(|root| root.pem.as_str()).collect();
        Ok(Self { issuer, bundle, roots, root_not_after, max_ttl })
    }

    /// All trusted roots in PEM, the one that signs first.
    pub fn root_pem(&self) -> &str {
        &self.bundle
    }

    /// All trusted roots, the one that signs first.
    pub fn roots(&self) -> &[Root] {
        &self.roots
    }

    /// Signs the key in `csr_pem` for `identity`. The CSR proves possession of the key and nothing else.
    pub fn sign_csr(
        &self,
        csr_pem: &str,
        identity: &Identity,
        wanted: Option<Duration>,
        now: SystemTime,
    ) -> Result<Leaf, Error> {
        let key = public_key(csr_pem)?;
        self.sign(&key, Names::Workload(identity), wanted, now)
    }

    /// Makes a key and signs it for `identity` (clients that cannot make their own).
    pub fn issue(&self, identity: &Identity, now: SystemTime) -> Result<KeyedLeaf, Error> {
        self.issue_keyed(Names::Workload(identity), now)
    }

    /// Makes a key and signs it for the control plane's own listener.
    pub fn issue_server(&self, names: &[String], now: SystemTime) -> Result<KeyedLeaf, Error> {
        self.issue_keyed(Names::Server(names), now)
    }

    fn issue_keyed(&self, names: Names<'_>, now: SystemTime) -> Result<KeyedLeaf, Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|e| Error::Sign(e.to_string()))?;
        let leaf = self.sign(&key, names, None, now)?;
        Ok(KeyedLeaf { leaf, key_pem: key.serialize_pem(), key_der: key.serialize_der() })
    }

    fn sign(
        &self,
        key: &impl PublicKeyData,
        names: Names<'_>,
        wanted: Option<Duration>,
        now: SystemTime,
    ) -> Result<Leaf, Error> {
        let life = wanted.map_or(self.max_ttl, |wanted| wanted.min(self.max_ttl));
        let not_before = now - BACKDATE;
        let not_after = (now + life).min(self.root_not_after);
        if not_after <= now {
            return Err(Error::Sign("the root has expired: rotate it with `outrigger-control root`".to_owned()));
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.serial_number = Some(serial()?);
        params.not_before = OffsetDateTime::from(not_before);
        params.not_after = OffsetDateTime::from(not_after);
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        let bad_name = |name: &str| Error::Sign(format!("`{name}` cannot be a certificate name"));
        match names {
            Names::Workload(identity) => {
                let uri = identity.uri();
                params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into().map_err(|_| bad_name(&uri))?)];
                params.extended_key_usages =
                    vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            }
            Names::Server(names) => {
                for name in names {
                    params.subject_alt_names.push(match name.parse::<IpAddr>() {
                        Ok(ip) => SanType::IpAddress(ip),
                        Err(_) => SanType::DnsName(name.as_str().try_into().map_err(|_| bad_name(name))?),
                    });
                }
                // No client use: the listener's certificate must never pass for a workload.
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            }
        }
        let certificate = params.signed_by(key, &self.issuer).map_err(|e| Error::Sign(e.to_string()))?;
        Ok(Leaf { certificate: certificate.pem(), not_before, not_after })
    }
}

/// Checks a CSR's signature and hands out its public key.
fn public_key(csr_pem: &str) -> Result<SubjectPublicKeyInfo, Error> {
    let refuse = |reason: &str| Error::Csr(reason.to_owned());
    if csr_pem.len() > MAX_CSR {
        return Err(refuse("too large"));
    }
    let (_, pem) = parse_x509_pem(csr_pem.as_bytes()).map_err(|_| refuse("not PEM"))?;
    if pem.label != "CERTIFICATE REQUEST" && pem.label != "NEW CERTIFICATE REQUEST" {
        return Err(refuse("the PEM block is not a CERTIFICATE REQUEST"));
    }
    let (rest, csr) = X509CertificationRequest::from_der(&pem.contents).map_err(|_| refuse("not PKCS#10"))?;
    if !rest.is_empty() {
        return Err(refuse("bytes after the request"));
    }
    csr.verify_signature().map_err(|_| refuse("its signature does not prove possession of the key"))?;
    let spki = &csr.certification_request_info.subject_pki;
    match spki.parsed().map_err(|_| refuse("unreadable public key"))? {
        PublicKey::EC(_) => {}
        PublicKey::RSA(key) if (2048..=8192).contains(&key.key_size()) => {}
        PublicKey::RSA(key) => return Err(Error::Csr(format!("RSA key of {} bits, not 2048 to 8192", key.key_size()))),
        // Ed25519 has no variant of its own in the parser.
        PublicKey::Unknown(_) if spki.algorithm.algorithm == x509_parser::oid_registry::OID_SIG_ED25519 => {}
        _ => return Err(refuse("key type is neither ECDSA, RSA nor Ed25519")),
    }
    SubjectPublicKeyInfo::from_der(spki.raw).map_err(|e| Error::Csr(e.to_string()))
}

fn self_sign(key: &KeyPair, trust_domain: &str) -> Result<String, Error> {
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, trust_domain);
    params.distinguished_name.push(DnType::CommonName, "Outrigger root");
    params.serial_number = Some(serial()?);
    params.not_before = OffsetDateTime::from(now - BACKDATE);
    params.not_after = OffsetDateTime::from(now + ROOT_LIFE);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params.self_signed(key).map_err(|e| Error::Sign(e.to_string()))?.pem())
}

/// 127 random bits, positive and not zero (RFC 5280, 4.1.2.2).
fn serial() -> Result<SerialNumber, Error> {
    let mut bytes = [0u8; 16];
    rand::fill(&mut bytes).map_err(|_| Error::Sign("the system's random number generator failed".into()))?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn system_time(unix: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(unix).unwrap_or(0))
}

/// The first certificate of a PEM text in DER.
pub fn pem_to_der(pem: &str) -> Result<Vec<u8>, Error> {
    let (_, pem) = parse_x509_pem(pem.as_bytes()).map_err(|e| Error::Sign(e.to_string()))?;
    X509Certificate::from_der(&pem.contents).map_err(|e| Error::Sign(e.to_string()))?;
    Ok(pem.contents)
}

//! TLS contexts and secrets (`envoy.extensions.transport_sockets.tls.v3`).

use std::{fmt, path::PathBuf, sync::Arc};

use super::{ConfigSource, Name, matcher::StringMatcher};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DownstreamTls {
    pub common: CommonTls,
    pub require_client_certificate: bool,
    /// Whether to hand out session tickets (TLS 1.3) and stateful session ids.
    pub resumption: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTls {
    pub common: CommonTls,
    pub sni: Option<Box<str>>,
    /// `auto_host_sni`: the endpoint's hostname as SNI.
    pub auto_host_sni: bool,
    /// Sessions kept for resumption, 0 switches it off; default 1.
    pub max_session_keys: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommonTls {
    pub min_version: TlsVersion,
    pub max_version: TlsVersion,
    /// IANA or OpenSSL names of TLS 1.2 suites, in order; empty is the default set.
    pub cipher_suites: Vec<Box<str>>,
    /// Names of key exchange groups (`X25519`, `P-256`, `X25519MLKEM768`...); empty is the default set.
    pub groups: Vec<Box<str>>,
    pub certificates: Vec<CertificateSource>,
    pub validation: ValidationSource,
    pub alpn: Arc<[Box<str>]>,
}

impl Default for CommonTls {
    fn default() -> Self {
        Self {
            min_version: TlsVersion::V1_2,
            max_version: TlsVersion::V1_3,
            cipher_suites: Vec::new(),
            groups: Vec::new(),
            certificates: Vec::new(),
            validation: ValidationSource::None,
            alpn: Arc::new([]),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    V1_2,
    V1_3,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateSource {
    /// Given in the configuration, as bytes or as files.
    Static(Arc<Certificate>),
    Sds(SecretRef),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValidationSource {
    /// No validation context: servers ask for no certificate, clients accept any (and say so once).
    None,
    Static(Arc<Validation>),
    Sds(SecretRef),
    /// `combined_validation_context`: the default's matchers with the secret's trust anchors.
    Combined {
        default: Arc<Validation>,
        secret: SecretRef,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SecretRef {
    pub name: Name,
    pub source: ConfigSource,
}

/// A secret as delivered by SDS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    Certificate(Arc<Certificate>),
    Validation(Arc<Validation>),
}

/// A certificate chain and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    pub chain: DataSource,
    pub key: DataSource,
    /// Watch this directory (a `..data` mount) instead of the files themselves.
    pub watched_directory: Option<PathBuf>,
}

/// What a peer's certificate must satisfy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validation {
    pub trusted_ca: Option<DataSource>,
    pub watched_directory: Option<PathBuf>,
    /// Any one match suffices; empty accepts every name (the chain is still verified).
    pub sans: Vec<SanMatcher>,
    /// `verify_certificate_spki`: SHA-256 of the public key info, any one suffices.
    pub spki_sha256: Vec<[u8; 32]>,
    /// `verify_certificate_hash`: SHA-256 of the DER certificate, any one suffices.
    pub certificate_sha256: Vec<[u8; 32]>,
    /// PEM revocation lists.
    pub crl: Option<DataSource>,
    /// `trust_chain_verification: ACCEPT_UNTRUSTED`.
    pub accept_untrusted: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SanMatcher {
    pub kind: SanKind,
    pub matcher: StringMatcher,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SanKind {
    /// Any kind of name: the deprecated `match_subject_alt_names`.
    Any,
    Uri,
    Dns,
    Email,
    Ip,
}

/// Bytes, or a file that is read (and re-read when it changes).
#[derive(Clone, PartialEq, Eq)]
pub enum DataSource {
    Inline(Arc<[u8]>),
    File(PathBuf),
}

impl fmt::Debug for DataSource {
    /// Never prints bytes: they may be a private key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline(bytes) => write!(f, "Inline({} bytes)", bytes.len()),
            Self::File(path) => write!(f, "File({})", path.display()),
        }
    }
}

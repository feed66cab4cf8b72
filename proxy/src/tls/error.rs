//! Why a context could not be built and why a handshake failed.

use std::{fmt, io};

use rustls::{CertificateError, pki_types::UnixTime};

use super::cause::Cause;

/// A TLS context that cannot be built from its configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(pub String);

impl TlsError {
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

/// Classes of handshake failures, for statistics and response flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeErrorKind {
    /// The peer presented no certificate and one is required.
    NoClientCert,
    /// The certificate did not verify: chain, validity, revocation or pin.
    VerifyFailed,
    /// The certificate is good but belongs to somebody else.
    SanMismatch,
    /// The peer did not speak TLS as we do, or refused us with an alert.
    Protocol,
    Timeout,
    Io,
    /// A secret this context needs has not arrived yet.
    NotReady,
}

impl HandshakeErrorKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoClientCert => "no_client_cert",
            Self::VerifyFailed => "verify_failed",
            Self::SanMismatch => "san_mismatch",
            Self::Protocol => "protocol",
            Self::Timeout => "timeout",
            Self::Io => "io",
            Self::NotReady => "not_ready",
        }
    }
}

/// A failed handshake. The reason is for logs and people, the kind for programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandshakeError {
    pub kind: HandshakeErrorKind,
    /// What exactly it is counted under.
    pub cause: Cause,
    pub reason: String,
}

impl HandshakeError {
    pub fn new(kind: HandshakeErrorKind, reason: impl Into<String>) -> Self {
        Self { kind, cause: Cause::of_kind(kind), reason: reason.into() }
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for HandshakeError {}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        match error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
            Some(tls) => tls.into(),
            None if error.kind() == io::ErrorKind::UnexpectedEof => {
                Self::new(HandshakeErrorKind::Io, "the peer closed the connection during the handshake")
            }
            None => Self::new(HandshakeErrorKind::Io, format!("the connection failed during the handshake: {error}")),
        }
    }
}

impl From<&rustls::Error> for HandshakeError {
    fn from(error: &rustls::Error) -> Self {
        use rustls::Error;
        let described = match error {
            Error::NoCertificatesPresented => {
                Self::new(HandshakeErrorKind::NoClientCert, "the peer presented no certificate")
            }
            Error::InvalidCertificate(error) => certificate(error),
            Error::InvalidCertRevocationList(error) => {
                Self::new(HandshakeErrorKind::VerifyFailed, format!("revocation list: {error:?}"))
            }
            Error::AlertReceived(alert) => {
                Self::new(HandshakeErrorKind::Protocol, format!("the peer refused the handshake with alert {alert:?}"))
            }
            other => Self::new(HandshakeErrorKind::Protocol, other.to_string()),
        };
        Self { cause: Cause::of(error), ..described }
    }
}

/// A complaint of ours about a certificate. Travels through rustls as the cause of a failed verification.
#[derive(Debug)]
pub(super) struct Flaw {
    pub(super) cause: Cause,
    pub(super) reason: std::borrow::Cow<'static, str>,
}

impl From<Flaw> for rustls::Error {
    fn from(flaw: Flaw) -> Self {
        CertificateError::Other(rustls::OtherError(std::sync::Arc::new(flaw))).into()
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Flaw {}

/// The peer's certificate names somebody else. Travels through rustls as the cause of a failed verification.
#[derive(Debug)]
pub(super) struct SanMismatch {
    pub(super) presented: String,
    /// It is a SPIFFE identity, of a trust domain that is not among the expected ones.
    pub(super) foreign: bool,
}

impl fmt::Display for SanMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no name in the certificate matches the expected ones, it has: {}", self.presented)
    }
}

impl std::error::Error for SanMismatch {}

fn certificate(error: &CertificateError) -> HandshakeError {
    use HandshakeErrorKind::{SanMismatch as Mismatch, VerifyFailed};
    let (kind, reason) = match error {
        CertificateError::ExpiredContext { time, not_after } => (
            VerifyFailed,
            format!(
                "the certificate expired at {} UTC, {} s before this machine's clock says it is",
                utc(*not_after),
                time.as_secs().saturating_sub(not_after.as_secs())
            ),
        ),
        CertificateError::NotValidYetContext { time, not_before } => (
            VerifyFailed,
            format!(
                "the certificate is not valid before {} UTC, {} s after what this machine's clock says: is it wrong?",
                utc(*not_before),
                not_before.as_secs().saturating_sub(time.as_secs())
            ),
        ),
        CertificateError::Expired => (VerifyFailed, "the certificate is expired".to_owned()),
        CertificateError::NotValidYet => (VerifyFailed, "the certificate is not valid yet".to_owned()),
        CertificateError::UnknownIssuer => {
            (VerifyFailed, "the certificate is not signed by a trusted authority".to_owned())
        }
        CertificateError::Revoked => (VerifyFailed, "the certificate is revoked".to_owned()),
        CertificateError::NotValidForName => (Mismatch, "the certificate is for another name".to_owned()),
        CertificateError::NotValidForNameContext { expected, presented } => {
            (Mismatch, format!("the certificate is not for {}, it has: {}", expected.to_str(), presented.join(", ")))
        }
        CertificateError::Other(other) => match other.0.downcast_ref::<SanMismatch>() {
            Some(mismatch) => (Mismatch, mismatch.to_string()),
            None => (VerifyFailed, other.0.to_string()),
        },
        other => (VerifyFailed, format!("the certificate does not verify: {other}")),
    };
    HandshakeError::new(kind, reason)
}

fn utc(time: UnixTime) -> String {
    i64::try_from(time.as_secs())
        .ok()
        .and_then(|s| time::OffsetDateTime::from_unix_timestamp(s).ok())
        .and_then(|t| t.format(&time::format_description::well_known::Rfc3339).ok())
        .map_or_else(|| time.as_secs().to_string(), |t| t.trim_end_matches('Z').to_owned())
}

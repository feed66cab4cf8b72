//! Why a handshake failed, as one of a closed set: what statistics are counted under.
//!
//! Pure mapping of rustls' errors and our own. Knows nothing of counters. Invariant: every failure has exactly one cause,
//! so the counts of all causes add up to the count of failures.

use rustls::{CertificateError, Error, PeerIncompatible};

use super::error::{Flaw, HandshakeErrorKind, SanMismatch};

/// The causes, most of them of the peer's making.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// No certificate where one is required.
    NoCertificate,
    Expired,
    /// By our clock, which may be the wrong one.
    NotYetValid,
    /// Signed by itself, and not trusted as it is.
    SelfSigned,
    UnknownIssuer,
    Revoked,
    /// For another purpose than this side of a connection.
    Purpose,
    /// None of the pinned ones.
    Unpinned,
    /// Claims a SPIFFE identity in a way that the standard forbids.
    BadSvid,
    /// A SPIFFE identity of a trust domain that nobody here trusts.
    TrustDomain,
    /// Another name than those accepted.
    Name,
    /// Any other complaint about a certificate.
    Certificate,
    /// No TLS version in common.
    Version,
    /// No cipher suite, group or signature scheme in common.
    Parameters,
    /// The first bytes are no TLS.
    NotTls,
    /// The peer refused us.
    Alert,
    /// Any other breach of the protocol.
    Protocol,
    Timeout,
    Io,
    /// A secret of ours is missing.
    NotReady,
}

impl Cause {
    /// Where the kind alone says it.
    pub(super) fn of_kind(kind: HandshakeErrorKind) -> Self {
        match kind {
            HandshakeErrorKind::NoClientCert => Self::NoCertificate,
            HandshakeErrorKind::VerifyFailed => Self::Certificate,
            HandshakeErrorKind::SanMismatch => Self::Name,
            HandshakeErrorKind::Protocol => Self::Protocol,
            HandshakeErrorKind::Timeout => Self::Timeout,
            HandshakeErrorKind::Io => Self::Io,
            HandshakeErrorKind::NotReady => Self::NotReady,
        }
    }

    pub(super) fn of(error: &Error) -> Self {
        match error {
            Error::NoCertificatesPresented => Self::NoCertificate,
            Error::InvalidCertificate(error) => of_certificate(error),
            Error::InvalidCertRevocationList(_) => Self::Certificate,
            Error::AlertReceived(_) => Self::Alert,
            Error::InvalidMessage(_) => Self::NotTls,
            Error::PeerIncompatible(reason) => of_incompatible(reason),
            _ => Self::Protocol,
        }
    }
}

fn of_certificate(error: &CertificateError) -> Cause {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => Cause::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Cause::NotYetValid,
        CertificateError::UnknownIssuer => Cause::UnknownIssuer,
        CertificateError::Revoked => Cause::Revoked,
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => Cause::Purpose,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Cause::Name,
        CertificateError::Other(other) => match (other.0.downcast_ref::<SanMismatch>(), other.0.downcast_ref::<Flaw>())
        {
            (Some(mismatch), _) if mismatch.foreign => Cause::TrustDomain,
            (Some(_), _) => Cause::Name,
            (None, Some(flaw)) => flaw.cause,
            (None, None) => Cause::Certificate,
        },
        _ => Cause::Certificate,
    }
}

fn of_incompatible(reason: &PeerIncompatible) -> Cause {
    use PeerIncompatible as P;
    match reason {
        P::ServerDoesNotSupportTls12Or13
        | P::ServerTlsVersionIsDisabledByOurConfig
        | P::SupportedVersionsExtensionRequired
        // What every client since TLS 1.2 sends.
        | P::SignatureAlgorithmsExtensionRequired
        | P::Tls12NotOffered
        | P::Tls12NotOfferedOrEnabled => Cause::Version,
        P::NoCipherSuitesInCommon
        | P::NoKxGroupsInCommon
        | P::NoSignatureSchemesInCommon
        | P::NoCertificateRequestSignatureSchemesInCommon
        | P::NoEcPointFormatsInCommon => Cause::Parameters,
        _ => Cause::Protocol,
    }
}

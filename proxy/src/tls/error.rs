//! Why a context could not be built and why a handshake failed.

use std::fmt;

/// A TLS context that cannot be built from its configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(pub String);

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
    pub reason: String,
}

impl HandshakeError {
    pub fn new(kind: HandshakeErrorKind, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into() }
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for HandshakeError {}

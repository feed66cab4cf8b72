//! What refused connections are counted under: one reason each, of a closed set.
//!
//! Envoy's coarser counters count along, so that dashboards made for it go on working.

use crate::{
    policy::chain::Lack,
    telemetry::metrics::{ListenerStats, Sharded},
    tls::{Cause, HandshakeError, HandshakeErrorKind},
};

/// A connection that no filter chain takes.
pub(super) fn unmatched(stats: &Sharded<ListenerStats>, lack: Lack) {
    let stats = stats.local();
    stats.no_filter_chain_match.inc();
    match lack {
        Lack::Destination => &stats.no_chain_destination,
        Lack::Plaintext => &stats.no_chain_plaintext,
        Lack::Tls => &stats.no_chain_tls,
        Lack::ServerName => &stats.no_chain_server_name,
        Lack::Protocol => &stats.no_chain_protocol,
        Lack::Other => &stats.no_chain_other,
    }
    .inc();
}

/// A handshake that failed.
pub(super) fn handshake(stats: &ListenerStats, error: &HandshakeError) {
    stats.ssl_connection_error.inc();
    match error.kind {
        HandshakeErrorKind::NoClientCert => stats.ssl_fail_verify_no_cert.inc(),
        HandshakeErrorKind::VerifyFailed => stats.ssl_fail_verify_error.inc(),
        HandshakeErrorKind::SanMismatch => stats.ssl_fail_verify_san.inc(),
        HandshakeErrorKind::Timeout => stats.ssl_handshake_timeout.inc(),
        HandshakeErrorKind::Protocol | HandshakeErrorKind::Io | HandshakeErrorKind::NotReady => {}
    }
    match error.cause {
        Cause::NoCertificate => &stats.ssl_fail_no_certificate,
        Cause::Expired => &stats.ssl_fail_expired,
        Cause::NotYetValid => &stats.ssl_fail_not_yet_valid,
        Cause::SelfSigned => &stats.ssl_fail_self_signed,
        Cause::UnknownIssuer => &stats.ssl_fail_unknown_issuer,
        Cause::Revoked => &stats.ssl_fail_revoked,
        Cause::Purpose => &stats.ssl_fail_purpose,
        Cause::Unpinned => &stats.ssl_fail_unpinned,
        Cause::BadSvid => &stats.ssl_fail_bad_svid,
        Cause::TrustDomain => &stats.ssl_fail_trust_domain,
        Cause::Name => &stats.ssl_fail_name,
        Cause::Certificate => &stats.ssl_fail_certificate,
        Cause::Version => &stats.ssl_fail_version,
        Cause::Parameters => &stats.ssl_fail_parameters,
        Cause::NotTls => &stats.ssl_fail_not_tls,
        Cause::Alert => &stats.ssl_fail_alert,
        Cause::Protocol => &stats.ssl_fail_protocol,
        Cause::Timeout => &stats.ssl_fail_timeout,
        Cause::Io => &stats.ssl_fail_io,
        Cause::NotReady => &stats.ssl_fail_not_ready,
    }
    .inc();
}

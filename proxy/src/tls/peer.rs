//! What a finished handshake tells about the peer.

use std::sync::Arc;

use rustls::{
    CipherSuite, CommonState, HandshakeKind, ProtocolVersion,
    pki_types::{CertificateDer, UnixTime},
    sign::CertifiedKey,
};

use super::{
    HandshakeError,
    names::{self, San},
    verify::Verifier,
};
use crate::telemetry::record::PeerInfo;

/// Reads the session's facts, and refuses a resumed session whose certificate would no longer be accepted.
pub(super) fn describe(
    session: &CommonState,
    sni: Option<&str>,
    verifier: &Verifier,
    local_uri_sans: &[Box<str>],
) -> Result<PeerInfo, HandshakeError> {
    let mut info = PeerInfo {
        local_uri_sans: local_uri_sans.to_vec(),
        sni: sni.map(Into::into),
        alpn: session.alpn_protocol().and_then(|p| std::str::from_utf8(p).ok()).map(Into::into),
        version: match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => "",
        },
        cipher: session.negotiated_cipher_suite().map_or("", |s| iana_name(s.suite())),
        resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
        ..PeerInfo::default()
    };
    let Some((leaf, rest)) = session.peer_certificates().and_then(<[_]>::split_first) else { return Ok(info) };
    info.verified = verifier.verifies();
    let now = now();
    if info.verified && (info.resumed || verifier.lenient()) {
        // A resumed session skipped the verification, a lenient one its consequence.
        match verifier.judge(leaf, rest, now) {
            Ok(()) => {}
            Err(_) if verifier.lenient() => info.verified = false,
            Err(error) => return Err((&error).into()),
        }
    }
    let identity = verifier.identity(leaf, rest, now);
    info.certificate = identity.chain.first().cloned();
    info.chain.clone_from(&identity.chain);
    info.subject.clone_from(&identity.subject);
    info.uri_sans.clone_from(&identity.uri_sans);
    info.dns_sans.clone_from(&identity.dns_sans);
    Ok(info)
}

pub(super) fn now() -> UnixTime {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    UnixTime::since_unix_epoch(since_epoch)
}

/// URI SANs of our own certificates.
pub(super) fn uri_sans(keys: &[Arc<CertifiedKey>]) -> Vec<Box<str>> {
    let of = |der: &CertificateDer<'_>| names::parse(der).map(|c| names::sans(&c)).unwrap_or_default();
    let mut uris: Vec<Box<str>> = Vec::new();
    for san in keys.iter().filter_map(|k| k.cert.first()).flat_map(of) {
        if let San::Uri(uri) = san
            && !uris.contains(&uri)
        {
            uris.push(uri);
        }
    }
    uris
}

fn iana_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        other => other.as_str().unwrap_or(""),
    }
}

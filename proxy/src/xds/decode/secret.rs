//! Secrets: certificates with their keys, and what a peer's certificate must satisfy.
//!
//! Bytes are carried, not parsed: whether a certificate is valid is the TLS room's business. No error shows any of them.

use std::{path::PathBuf, sync::Arc};

use base64::Engine;
use outrigger_wire::pb::envoy::{
    config::core::v3::{DataSource as PbData, WatchedDirectory, data_source::Specifier},
    extensions::transport_sockets::tls::v3::{
        CertificateValidationContext, Secret as PbSecret, SubjectAltNameMatcher, TlsCertificate,
        certificate_validation_context::TrustChainVerification, secret::Type, subject_alt_name_matcher::SanType,
    },
};

use super::{
    at::At,
    fields::fields,
    matcher,
    report::{NoteKind, Reject},
    scalar::{bool_or, enumeration, not_empty},
};
use crate::ir::{
    Name,
    secret::{Certificate, DataSource, SanKind, SanMatcher, Secret, Validation},
};

pub(crate) fn secret(message: &PbSecret, at: &At<'_>) -> Result<(Name, Secret), Reject> {
    let name = not_empty(&message.name, &at.field("name"))?.into();
    let secret = match at.required("type", &message.r#type)? {
        Type::TlsCertificate(m) => Secret::Certificate(Arc::new(certificate(m, &at.field("tls_certificate"))?)),
        Type::ValidationContext(m) => {
            // Whether it is anchored shows only where it is combined with the matchers of the referring context.
            Secret::Validation(Arc::new(validation(m, &at.field("validation_context"))?))
        }
        Type::SessionTicketKeys(_) => {
            return Err(at.field("session_ticket_keys").reject("is not supported by this release"));
        }
        Type::GenericSecret(_) => return Err(at.field("generic_secret").reject("is not supported by this release")),
    };
    Ok((name, secret))
}

pub(crate) fn certificate(message: &TlsCertificate, at: &At<'_>) -> Result<Certificate, Reject> {
    fields!(at, message => TlsCertificate {
        read: [certificate_chain, private_key, watched_directory],
        unsupported: [ocsp_staple, signed_certificate_timestamp],
        refuse: [pkcs12, private_key_provider, password, tls_params],
    });
    let chain = at.required("certificate_chain", &message.certificate_chain)?;
    let key = at.required("private_key", &message.private_key)?;
    let watched = [Some(message.watched_directory.as_ref()), Some(chain.watched_directory.as_ref())];
    Ok(Certificate {
        chain: data(chain, &at.field("certificate_chain"))?,
        key: data(key, &at.field("private_key"))?,
        watched_directory: directory(watched.into_iter().flatten().flatten().next()),
    })
}

pub(crate) fn validation(message: &CertificateValidationContext, at: &At<'_>) -> Result<Validation, Reject> {
    fields!(at, message => CertificateValidationContext {
        read: [
            trusted_ca, watched_directory, verify_certificate_spki, verify_certificate_hash,
            match_typed_subject_alt_names, match_subject_alt_names, require_signed_certificate_timestamp, crl,
            trust_chain_verification,
        ],
        harmless: [suppress_client_ca_list],
        // Ignoring these makes verification stricter, not weaker.
        unsupported: [allow_expired_certificate, only_verify_leaf_cert_crl],
        refuse: [ca_certificate_provider_instance, system_root_certs, custom_validator_config, max_verify_depth],
    });
    if bool_or(&message.require_signed_certificate_timestamp, false) {
        return Err(at.field("require_signed_certificate_timestamp").reject("is not supported, as in Envoy"));
    }
    let mut sans = at.each("match_typed_subject_alt_names", &message.match_typed_subject_alt_names, san)?;
    for (i, m) in message.match_subject_alt_names.iter().enumerate() {
        let at = at.index("match_subject_alt_names", i);
        at.note(NoteKind::Deprecated, "use match_typed_subject_alt_names");
        sans.push(SanMatcher { kind: SanKind::Any, matcher: matcher::string(m, &at)? });
    }
    let spki_sha256 = at.each("verify_certificate_spki", &message.verify_certificate_spki, |text, at| {
        let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok();
        digest(bytes).ok_or_else(|| at.reject("is not the base64 form of a SHA-256 digest"))
    })?;
    let certificate_sha256 = at.each("verify_certificate_hash", &message.verify_certificate_hash, |text, at| {
        digest(hex(text)).ok_or_else(|| at.reject("is not the hexadecimal form of a SHA-256 digest"))
    })?;
    let trust: TrustChainVerification =
        enumeration(message.trust_chain_verification, &at.field("trust_chain_verification"))?;
    let trusted_ca = optional(&message.trusted_ca, "trusted_ca", at)?;
    let inner = message.trusted_ca.as_ref().and_then(|d| d.watched_directory.as_ref());
    Ok(Validation {
        trusted_ca,
        watched_directory: directory(message.watched_directory.as_ref().or(inner)),
        sans,
        spki_sha256,
        certificate_sha256,
        crl: optional(&message.crl, "crl", at)?,
        accept_untrusted: trust == TrustChainVerification::AcceptUntrusted,
    })
}

/// Names prove nothing on a certificate that anybody may have issued: Envoy refuses that, and so does this.
pub(crate) fn anchored(validation: &Validation, at: &At<'_>) -> Result<(), Reject> {
    if !validation.sans.is_empty() && validation.trusted_ca.is_none() {
        let reason = "SAN-based verification of peer certificates without trusted CA is insecure and not allowed";
        return Err(at.field("trusted_ca").reject(reason));
    }
    if validation.crl.is_some() && validation.trusted_ca.is_none() {
        return Err(at.field("crl").reject("needs a trusted_ca"));
    }
    Ok(())
}

fn san(message: &SubjectAltNameMatcher, at: &At<'_>) -> Result<SanMatcher, Reject> {
    let kind = match enumeration(message.san_type, &at.field("san_type"))? {
        SanType::Uri => SanKind::Uri,
        SanType::Dns => SanKind::Dns,
        SanType::Email => SanKind::Email,
        SanType::IpAddress => SanKind::Ip,
        SanType::OtherName => return Err(at.field("san_type").reject("OTHER_NAME is not supported by this release")),
        SanType::Unspecified => return Err(at.field("san_type").reject("is required")),
    };
    let pattern = at.required("matcher", &message.matcher)?;
    Ok(SanMatcher { kind, matcher: matcher::string(pattern, &at.field("matcher"))? })
}

fn optional(message: &Option<PbData>, name: &str, at: &At<'_>) -> Result<Option<DataSource>, Reject> {
    message.as_ref().map(|m| data(m, &at.field(name))).transpose()
}

fn data(message: &PbData, at: &At<'_>) -> Result<DataSource, Reject> {
    let inline = |bytes: &[u8]| match bytes {
        [] => Err(at.reject("must not be empty")),
        bytes => Ok(DataSource::Inline(bytes.into())),
    };
    match at.required("specifier", &message.specifier)? {
        Specifier::InlineBytes(bytes) => inline(bytes),
        Specifier::InlineString(text) => inline(text.as_bytes()),
        Specifier::Filename(path) => Ok(DataSource::File(PathBuf::from(not_empty(path, &at.field("filename"))?))),
        Specifier::EnvironmentVariable(_) => {
            Err(at.field("environment_variable").reject("is not supported by this release"))
        }
    }
}

/// Text that has to be in the configuration itself: decoding reads no files.
pub(crate) fn inline_text<'m>(message: &'m PbData, at: &At<'_>) -> Result<&'m [u8], Reject> {
    match at.required("specifier", &message.specifier)? {
        Specifier::InlineBytes(bytes) => Ok(bytes),
        Specifier::InlineString(text) => Ok(text.as_bytes()),
        Specifier::Filename(_) => Err(at.field("filename").reject("is not supported here: give the text inline")),
        Specifier::EnvironmentVariable(_) => {
            Err(at.field("environment_variable").reject("is not supported here: give the text inline"))
        }
    }
}

fn directory(message: Option<&WatchedDirectory>) -> Option<PathBuf> {
    message.filter(|w| !w.path.is_empty()).map(|w| PathBuf::from(&w.path))
}

fn digest(bytes: Option<Vec<u8>>) -> Option<[u8; 32]> {
    bytes?.try_into().ok()
}

/// Hexadecimal digits, with or without colons between the bytes.
fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|b| *b != b':').collect();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let nibble = |b: u8| (b as char).to_digit(16).and_then(|d| u8::try_from(d).ok());
    digits.chunks_exact(2).map(|pair| Some(nibble(pair[0])? << 4 | nibble(pair[1])?)).collect()
}

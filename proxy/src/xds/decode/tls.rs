//! Transport sockets: TLS contexts, down- and upstream, or plaintext.

use std::sync::Arc;

use outrigger_wire::pb::envoy::{
    config::core::v3::{TransportSocket, transport_socket::ConfigType},
    extensions::transport_sockets::{
        raw_buffer::v3::RawBuffer,
        tls::v3::{
            CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, TlsParameters, UpstreamTlsContext,
            common_tls_context::{CombinedCertificateValidationContext, ValidationContextType},
            downstream_tls_context::{OcspStaplePolicy, SessionTicketKeysType},
            tls_parameters::TlsProtocol,
        },
    },
};

use super::{
    at::At,
    extension::{self, Extension},
    fields::fields,
    report::Reject,
    scalar::{bool_or, enumeration, not_empty, u32_or},
    secret,
    source::config_source,
    tls_names::{self, Known},
};
use crate::ir::{
    secret::{CertificateSource, CommonTls, DownstreamTls, SecretRef, TlsVersion, UpstreamTls, ValidationSource},
    share::share,
};

/// Istio's metadata exchange protocol: negotiating it without speaking it would corrupt the stream.
const PEER_EXCHANGE: &str = "istio-peer-exchange";

/// Opens a transport socket; `None` is plaintext.
fn socket<'a>(socket: &'a TransportSocket, at: &At<'_>) -> Result<Option<Extension<'a>>, Reject> {
    match &socket.config_type {
        Some(ConfigType::TypedConfig(any)) => {
            let extension = extension::open(any, &at.field("typed_config"))?;
            Ok((!extension.is::<RawBuffer>()).then_some(extension))
        }
        // Without a configuration, the name is all there is.
        None if socket.name == "envoy.transport_sockets.raw_buffer" || socket.name == "raw_buffer" => Ok(None),
        None => Err(at.field("typed_config").reject("is required")),
    }
}

pub(crate) fn downstream(message: &Option<TransportSocket>, at: &At<'_>) -> Result<Option<Arc<DownstreamTls>>, Reject> {
    let Some(message) = message else { return Ok(None) };
    let Some(extension) = socket(message, at)? else { return Ok(None) };
    let at = at.field("typed_config");
    if !extension.is::<DownstreamTlsContext>() {
        return Err(extension.refuse("transport socket", &at));
    }
    let message: DownstreamTlsContext = extension.message(&at)?;
    fields!(&at, &message => DownstreamTlsContext {
        read: [
            common_tls_context, require_client_certificate, require_sni, disable_stateful_session_resumption,
            ocsp_staple_policy, session_ticket_keys_type,
        ],
        harmless: [full_scan_certs_on_sni_mismatch, prefer_client_ciphers],
        unsupported: [session_timeout],
    });
    if bool_or(&message.require_sni, false) {
        return Err(at.field("require_sni").reject("is not supported by this release"));
    }
    let staple: OcspStaplePolicy = enumeration(message.ocsp_staple_policy, &at.field("ocsp_staple_policy"))?;
    if staple != OcspStaplePolicy::LenientStapling {
        return Err(at.field("ocsp_staple_policy").reject("stapling is not supported: only LENIENT_STAPLING is"));
    }
    let stateless = match &message.session_ticket_keys_type {
        None => true,
        Some(SessionTicketKeysType::DisableStatelessSessionResumption(disable)) => !disable,
        Some(SessionTicketKeysType::SessionTicketKeys(_)) => {
            at.field("session_ticket_keys").unsupported("tickets are encrypted with keys that this process rotates");
            true
        }
        Some(SessionTicketKeysType::SessionTicketKeysSdsSecretConfig(_)) => {
            let at = at.field("session_ticket_keys_sds_secret_config");
            at.unsupported("tickets are encrypted with keys that this process rotates");
            true
        }
    };
    let common = common(&message.common_tls_context, &at)?;
    if common.certificates.is_empty() {
        return Err(at.field("common_tls_context").reject("a server needs a certificate"));
    }
    let require_client_certificate = bool_or(&message.require_client_certificate, false);
    if require_client_certificate && common.validation == ValidationSource::None {
        let reason = "needs a validation context: any certificate at all would do";
        return Err(at.field("require_client_certificate").reject(reason));
    }
    let resumption = stateless && !message.disable_stateful_session_resumption;
    if stateless && !resumption {
        at.field("disable_stateful_session_resumption").unsupported("switches resumption off altogether");
    }
    Ok(Some(Arc::new(DownstreamTls { common, require_client_certificate, resumption })))
}

pub(crate) fn upstream(message: &Option<TransportSocket>, at: &At<'_>) -> Result<Option<Arc<UpstreamTls>>, Reject> {
    let Some(message) = message else { return Ok(None) };
    let Some(extension) = socket(message, at)? else { return Ok(None) };
    let at = at.field("typed_config");
    if !extension.is::<UpstreamTlsContext>() {
        return Err(extension.refuse("transport socket", &at));
    }
    let message: UpstreamTlsContext = extension.message(&at)?;
    fields!(&at, &message => UpstreamTlsContext {
        read: [common_tls_context, sni, auto_host_sni, max_session_keys],
        harmless: [enforce_rsa_key_usage],
        unsupported: [allow_renegotiation],
        refuse: [auto_sni_san_validation],
    });
    if message.sni.len() > 255 {
        return Err(at.field("sni").reject("is longer than 255 bytes"));
    }
    let common = common(&message.common_tls_context, &at)?;
    if common.certificates.len() > 1 {
        return Err(at.field("common_tls_context").reject("a client has at most one certificate"));
    }
    if common.validation == ValidationSource::None {
        at.field("common_tls_context").unsupported("no validation context: the server's certificate is not verified");
    }
    Ok(Some(share(UpstreamTls {
        common,
        sni: (!message.sni.is_empty()).then(|| message.sni.as_str().into()),
        auto_host_sni: message.auto_host_sni,
        max_session_keys: u32_or(&message.max_session_keys, 1),
    })))
}

fn common(message: &Option<CommonTlsContext>, at: &At<'_>) -> Result<CommonTls, Reject> {
    let at = at.field("common_tls_context");
    let Some(message) = message else { return Ok(CommonTls::default()) };
    fields!(&at, message => CommonTlsContext {
        read: [tls_params, tls_certificates, tls_certificate_sds_secret_configs, alpn_protocols, validation_context_type],
        unsupported: [key_log],
        refuse: [
            tls_certificate_provider_instance, custom_tls_certificate_selector, tls_certificate_certificate_provider,
            tls_certificate_certificate_provider_instance, custom_handshaker,
        ],
    });
    let mut tls = CommonTls::default();
    if let Some(params) = &message.tls_params {
        parameters(params, &mut tls, &at.field("tls_params"))?;
    }
    tls.certificates = at.each("tls_certificates", &message.tls_certificates, |m, at| {
        secret::certificate(m, at).map(|c| CertificateSource::Static(share(c)))
    })?;
    let sds = &message.tls_certificate_sds_secret_configs;
    let sds = at.each("tls_certificate_sds_secret_configs", sds, |m, at| sds_ref(m, at).map(CertificateSource::Sds))?;
    if !sds.is_empty() && !tls.certificates.is_empty() {
        return Err(at.reject("tls_certificates and tls_certificate_sds_secret_configs exclude each other"));
    }
    tls.certificates.extend(sds);
    tls.validation = validation(&message.validation_context_type, &at)?;
    // Envoy joins the entries with commas and splits again, so one entry may hold several.
    let alpn: Vec<String> =
        message.alpn_protocols.iter().flat_map(|p| p.split(',')).filter(|p| !p.is_empty()).map(str::to_owned).collect();
    if alpn.iter().any(|p| p.len() > 255) {
        return Err(at.field("alpn_protocols").reject("a protocol has at most 255 bytes"));
    }
    tls.alpn = without_peer_exchange(&alpn);
    Ok(tls)
}

/// An ALPN list without Istio's peer exchange.
pub(crate) fn without_peer_exchange(protocols: &[String]) -> Arc<[Box<str>]> {
    protocols.iter().filter(|p| *p != PEER_EXCHANGE).map(|p| p.as_str().into()).collect()
}

fn parameters(message: &TlsParameters, tls: &mut CommonTls, at: &At<'_>) -> Result<(), Reject> {
    fields!(at, message => TlsParameters {
        read: [tls_minimum_protocol_version, tls_maximum_protocol_version, cipher_suites, ecdh_curves],
        refuse: [signature_algorithms, compliance_policies],
    });
    let min_at = at.field("tls_minimum_protocol_version");
    tls.min_version = match enumeration(message.tls_minimum_protocol_version, &min_at)? {
        TlsProtocol::TlsAuto | TlsProtocol::TlSv12 => TlsVersion::V1_2,
        TlsProtocol::TlSv13 => TlsVersion::V1_3,
        TlsProtocol::TlSv10 | TlsProtocol::TlSv11 => {
            min_at.unsupported("TLS before 1.2 is never spoken");
            TlsVersion::V1_2
        }
    };
    let max_at = at.field("tls_maximum_protocol_version");
    tls.max_version = match enumeration(message.tls_maximum_protocol_version, &max_at)? {
        TlsProtocol::TlsAuto | TlsProtocol::TlSv13 => TlsVersion::V1_3,
        TlsProtocol::TlSv12 => TlsVersion::V1_2,
        TlsProtocol::TlSv10 | TlsProtocol::TlSv11 => return Err(max_at.reject("TLS before 1.2 is never spoken")),
    };
    if tls.min_version > tls.max_version {
        return Err(max_at.reject("is below the minimum version"));
    }
    for (i, suites) in message.cipher_suites.iter().enumerate() {
        // BoringSSL writes suites of equal preference as `[A|B]`.
        for suite in suites.trim_start_matches('[').trim_end_matches(']').split('|') {
            let plausible = suite.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
            if suite.is_empty() || !plausible {
                return Err(at.index("cipher_suites", i).reject(format!("{suite:?} is not a cipher suite")));
            }
            match tls_names::suite(suite) {
                Known::Spoken => tls.cipher_suites.push(suite.into()),
                Known::Unspoken => {
                    let reason = format!("{suite} is never spoken: no forward secrecy, or no authenticated encryption");
                    at.index("cipher_suites", i).harmless(reason);
                }
                Known::Nothing => {
                    return Err(at.index("cipher_suites", i).reject(format!("{suite:?} is not a cipher suite")));
                }
            }
        }
    }
    if tls.cipher_suites.is_empty() && !message.cipher_suites.is_empty() && tls.max_version == TlsVersion::V1_2 {
        return Err(at.field("cipher_suites").reject("none of these suites is spoken here"));
    }
    for (i, curve) in message.ecdh_curves.iter().enumerate() {
        match tls_names::group(curve) {
            Known::Spoken => tls.groups.push(curve.as_str().into()),
            Known::Unspoken => at.index("ecdh_curves", i).unsupported(format!("{curve} is not spoken here")),
            Known::Nothing => {
                return Err(at.index("ecdh_curves", i).reject(format!("{curve:?} is not a key exchange group")));
            }
        }
    }
    if tls.groups.is_empty() && !message.ecdh_curves.is_empty() {
        return Err(at.field("ecdh_curves").reject("none of these groups is spoken here"));
    }
    Ok(())
}

fn validation(message: &Option<ValidationContextType>, at: &At<'_>) -> Result<ValidationSource, Reject> {
    match message {
        None => Ok(ValidationSource::None),
        Some(ValidationContextType::ValidationContext(context)) => {
            let at = at.field("validation_context");
            let validation = secret::validation(context, &at)?;
            secret::anchored(&validation, &at)?;
            Ok(ValidationSource::Static(share(validation)))
        }
        Some(ValidationContextType::ValidationContextSdsSecretConfig(sds)) => {
            Ok(ValidationSource::Sds(sds_ref(sds, &at.field("validation_context_sds_secret_config"))?))
        }
        Some(ValidationContextType::CombinedValidationContext(combined)) => {
            let at = at.field("combined_validation_context");
            fields!(&at, combined => CombinedCertificateValidationContext {
                read: [default_validation_context, validation_context_sds_secret_config],
                refuse: [validation_context_certificate_provider, validation_context_certificate_provider_instance],
            });
            let default = at.required("default_validation_context", &combined.default_validation_context)?;
            let default = share(secret::validation(default, &at.field("default_validation_context"))?);
            let name = "validation_context_sds_secret_config";
            let sds = at.required(name, &combined.validation_context_sds_secret_config)?;
            Ok(ValidationSource::Combined { default, secret: sds_ref(sds, &at.field(name))? })
        }
        Some(
            ValidationContextType::ValidationContextCertificateProvider(_)
            | ValidationContextType::ValidationContextCertificateProviderInstance(_),
        ) => Err(at.field("validation_context_type").reject("certificate providers are not supported by this release")),
    }
}

/// Without a source, the secret is one of the bootstrap's static ones: it comes from wherever it is known.
fn sds_ref(message: &SdsSecretConfig, at: &At<'_>) -> Result<SecretRef, Reject> {
    let name = not_empty(&message.name, &at.field("name"))?.into();
    let source = match &message.sds_config {
        Some(source) => config_source(source, &at.field("sds_config"))?,
        None => crate::ir::ConfigSource::Static,
    };
    Ok(SecretRef { name, source })
}

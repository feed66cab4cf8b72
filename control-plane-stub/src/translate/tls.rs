//! Mutual TLS with the mesh's identities: both ends of it, and the TLS an operator asks for by DestinationRule.

use super::{
    names,
    pb::{self, any, cluster, core, tls},
    policy::Carries,
    scope::{Scope, Target},
};
use crate::{
    model::{ClientTls, TlsMode},
    resources::CONTROL_PLANE,
};
use outrigger_wire::pb::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use tls::common_tls_context::{CombinedCertificateValidationContext, ValidationContextType};
use tls::subject_alt_name_matcher::SanType;

const TLS: &str = "envoy.transport_sockets.tls";

/// Where Debian, Alpine, and the images built on them keep the public authorities.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

fn secret(name: &str) -> tls::SdsSecretConfig {
    tls::SdsSecretConfig { name: name.to_owned(), sds_config: pb::ads() }
}

fn san(kind: SanType, matcher: pb::matcher::StringMatcher) -> tls::SubjectAltNameMatcher {
    tls::SubjectAltNameMatcher { san_type: kind as i32, matcher: Some(matcher), ..Default::default() }
}

/// A name of which only its form says what kind it is.
fn typed_san(text: &str) -> tls::SubjectAltNameMatcher {
    if text.contains("://") {
        san(SanType::Uri, pb::exact(text))
    } else if text.parse::<std::net::IpAddr>().is_ok() {
        san(SanType::IpAddress, pb::exact(text))
    } else {
        san(SanType::Dns, pb::exact(text))
    }
}

/// Own certificate `default`, peers by `ROOTCA` and the names in `accept`.
fn mesh_context<S: AsRef<str>>(
    alpn: impl IntoIterator<Item = S>,
    accept: Vec<tls::SubjectAltNameMatcher>,
) -> tls::CommonTlsContext {
    let context = CombinedCertificateValidationContext {
        default_validation_context: Some(tls::CertificateValidationContext {
            match_typed_subject_alt_names: accept,
            ..Default::default()
        }),
        validation_context_sds_secret_config: Some(secret("ROOTCA")),
        ..Default::default()
    };
    tls::CommonTlsContext {
        tls_params: Some(tls::TlsParameters {
            tls_minimum_protocol_version: tls::tls_parameters::TlsProtocol::TlSv12 as i32,
            tls_maximum_protocol_version: tls::tls_parameters::TlsProtocol::TlSv13 as i32,
            ..Default::default()
        }),
        tls_certificate_sds_secret_configs: vec![secret("default")],
        alpn_protocols: pb::strings(alpn),
        validation_context_type: Some(ValidationContextType::CombinedValidationContext(context)),
        ..Default::default()
    }
}

/// The inbound side: a client certificate of the trust domain is required.
pub(super) fn downstream(scope: &Scope<'_>, alpn: &[&str]) -> core::TransportSocket {
    let domains = scope.world.trust_domains().map(|domain| format!("spiffe://{domain}/"));
    let accept = domains.map(|domain| san(SanType::Uri, pb::prefix(&domain))).collect();
    let context = tls::DownstreamTlsContext {
        common_tls_context: Some(mesh_context(alpn, accept)),
        require_client_certificate: pb::yes(),
        ..Default::default()
    };
    pb::transport_socket(TLS, any(context))
}

/// Mutual TLS towards the endpoints of `target`, whose identities must be those we know them by.
fn mesh_upstream(
    scope: &Scope<'_>,
    target: &Target<'_>,
    carries: Carries,
    rule: Option<&ClientTls>,
) -> core::TransportSocket {
    let given = rule.map(|tls| tls.subject_alt_names.as_slice()).filter(|names| !names.is_empty());
    let given = given.unwrap_or(&target.service.subject_alt_names);
    let mut accept: Vec<_> = given.iter().map(|name| typed_san(name)).collect();
    if accept.is_empty() {
        let identities = target.identities(scope);
        accept = identities.iter().map(|uri| san(SanType::Uri, pb::exact(uri))).collect();
    }
    if accept.is_empty() {
        // Nobody is known there yet: still only somebody of that namespace will do.
        let of = |domain: &str| format!("spiffe://{domain}/ns/{}/sa/", target.service.namespace);
        accept.extend(scope.world.trust_domains().map(|domain| san(SanType::Uri, pb::prefix(&of(domain)))));
    }
    let sni = rule.and_then(|tls| tls.sni.clone());
    let context = tls::UpstreamTlsContext {
        common_tls_context: Some(mesh_context(carries.alpn(), accept)),
        sni: sni.unwrap_or_else(|| names::sni(target.port.number, target.subset, &target.service.host)),
        ..Default::default()
    };
    pb::transport_socket(TLS, any(context))
}

/// Mutual TLS with the control plane, by the name that each of its replicas has beside others.
pub(super) fn to_control_plane() -> core::TransportSocket {
    let context = tls::UpstreamTlsContext {
        common_tls_context: Some(mesh_context(["h2"], vec![san(SanType::Dns, pb::exact(CONTROL_PLANE))])),
        sni: CONTROL_PLANE.to_owned(),
        ..Default::default()
    };
    pb::transport_socket(TLS, any(context))
}

fn raw_buffer() -> core::TransportSocket {
    pb::transport_socket("envoy.transport_sockets.raw_buffer", any(RawBuffer::default()))
}

fn file(path: &str) -> Option<core::DataSource> {
    let specifier = core::data_source::Specifier::Filename(path.to_owned());
    Some(core::DataSource { specifier: Some(specifier), ..Default::default() })
}

/// Ordinary TLS to a server outside of the mesh's identities. Where only a request can say which server is meant, the
/// name of its host is asked for and must be in the certificate.
fn simple_upstream(
    target: &Target<'_>,
    rule: &ClientTls,
    carries: Carries,
) -> (core::TransportSocket, Option<core::UpstreamHttpProtocolOptions>) {
    let host = (!target.service.host.starts_with('*')).then(|| target.service.host.clone());
    let sni = rule.sni.clone().filter(|sni| !sni.is_empty()).or(host).unwrap_or_default();
    let named =
        if rule.subject_alt_names.is_empty() { &target.service.subject_alt_names } else { &rule.subject_alt_names };
    let mut accept: Vec<_> = named.iter().map(|name| typed_san(name)).collect();
    if accept.is_empty() && !sni.is_empty() {
        accept.push(typed_san(&sni));
    }
    let by_request = sni.is_empty().then(|| core::UpstreamHttpProtocolOptions {
        auto_sni: true,
        auto_san_validation: accept.is_empty() && !rule.insecure_skip_verify,
        ..Default::default()
    });
    let validation = tls::CertificateValidationContext {
        trusted_ca: file(rule.ca_certificates.as_deref().unwrap_or(SYSTEM_ROOTS)),
        match_typed_subject_alt_names: accept,
        ..Default::default()
    };
    let mut common = tls::CommonTlsContext::default();
    if !rule.insecure_skip_verify {
        common.validation_context_type = Some(ValidationContextType::ValidationContext(validation));
    }
    if carries == Carries::Http2 {
        common.alpn_protocols = pb::strings(["h2"]);
    }
    if let (Some(certificate), Some(key)) = (&rule.client_certificate, &rule.private_key) {
        common.tls_certificates = vec![tls::TlsCertificate {
            certificate_chain: file(certificate),
            private_key: file(key),
            ..Default::default()
        }];
    }
    let context = tls::UpstreamTlsContext { common_tls_context: Some(common), sni, ..Default::default() };
    (pb::transport_socket(TLS, any(context)), by_request)
}

/// TLS to a server of the world outside, whose certificate a public authority has signed for `host`.
pub(super) fn public(host: &str) -> core::TransportSocket {
    let validation = tls::CertificateValidationContext {
        trusted_ca: file(SYSTEM_ROOTS),
        match_typed_subject_alt_names: vec![typed_san(host)],
        ..Default::default()
    };
    let common = tls::CommonTlsContext {
        validation_context_type: Some(ValidationContextType::ValidationContext(validation)),
        ..Default::default()
    };
    let named = host.parse::<std::net::IpAddr>().is_err();
    let sni = if named { host.to_owned() } else { String::new() };
    let context = tls::UpstreamTlsContext { common_tls_context: Some(common), sni, ..Default::default() };
    pb::transport_socket(TLS, any(context))
}

/// How a cluster secures its connections.
#[derive(Default)]
pub(super) struct Security {
    pub socket: Option<core::TransportSocket>,
    pub matches: Vec<cluster::cluster::TransportSocketMatch>,
    /// The server's name is that of each request's host.
    pub by_request: Option<core::UpstreamHttpProtocolOptions>,
}

/// By the DestinationRule if it says so; else mutual TLS with every endpoint that has a sidecar.
pub(super) fn upstream(
    scope: &Scope<'_>,
    target: &Target<'_>,
    by_client: bool,
    rule: Option<&ClientTls>,
    carries: Carries,
) -> Security {
    if let Some(rule) = rule {
        let (socket, by_request) = match rule.mode {
            TlsMode::Disable => (None, None),
            TlsMode::Simple | TlsMode::Mutual => {
                let (socket, by_request) = simple_upstream(target, rule, carries);
                (Some(socket), by_request)
            }
            TlsMode::IstioMutual => (Some(mesh_upstream(scope, target, carries, Some(rule))), None),
        };
        return Security { socket, by_request, ..Default::default() };
    }
    if target.service.external {
        return Security::default();
    }
    if by_client {
        // The address is the client's choice and carries no metadata to match by: where some endpoints have a sidecar
        // and some have not, those that have not are kept out of such a cluster.
        let meshed = target.endpoints().any(|(_, port)| port.mtls);
        return Security { socket: meshed.then(|| mesh_upstream(scope, target, carries, None)), ..Default::default() };
    }
    let choice = |name: &str, r#match, socket| cluster::cluster::TransportSocketMatch {
        name: name.to_owned(),
        r#match: Some(r#match),
        transport_socket: Some(socket),
    };
    let mesh = mesh_upstream(scope, target, carries, None);
    let matches = vec![
        choice("tlsMode-istio", pb::single("tlsMode", "istio"), mesh),
        choice("tlsMode-disabled", pb::Struct::default(), raw_buffer()),
    ];
    Security { matches, ..Default::default() }
}

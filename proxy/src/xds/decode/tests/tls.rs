use super::*;
use crate::ir::{
    ConfigSource,
    secret::{CertificateSource, SanKind, TlsVersion, ValidationSource},
};

fn socket(fields: &str) -> String {
    let kind = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
    format!("transport_socket: {{name: t, typed_config: {{\"@type\": {T}/{kind}, {fields}}}}}")
}

fn tls(fields: &str) -> String {
    cluster_of(&socket(fields))
}

#[test]
fn tls_contexts() {
    let sds = |name: &str| {
        format!(
            "{{name: {name}, sds_config: {{api_config_source: {{api_type: GRPC, transport_api_version: V3, grpc_services: [{{envoy_grpc: {{cluster_name: sds-grpc}}}}]}}}}}}"
        )
    };
    let context = format!(
        "sni: outbound_.80_._.h, common_tls_context: {{tls_params: {{tls_minimum_protocol_version: TLSv1_3, cipher_suites: ['[ECDHE-ECDSA-AES128-GCM-SHA256|ECDHE-ECDSA-CHACHA20-POLY1305]', AES128-SHA, ECDHE-RSA-AES128-GCM-SHA256], ecdh_curves: [P-521, X25519]}}, \
         alpn_protocols: [istio-peer-exchange, istio, h2], tls_certificate_sds_secret_configs: [{}], \
         combined_validation_context: {{default_validation_context: {{match_typed_subject_alt_names: [{{san_type: URI, matcher: {{exact: 'spiffe://t/ns/n/sa/s'}}}}]}}, \
         validation_context_sds_secret_config: {}}}}}",
        sds("default"),
        sds("ROOTCA")
    );
    let c = the_cluster(&tls(&context));
    let t = c.tls.clone().unwrap();
    assert_eq!(t.sni.as_deref(), Some("outbound_.80_._.h"));
    assert_eq!(
        t.common.alpn.iter().map(|p| &**p).collect::<Vec<_>>(),
        ["istio", "h2"],
        "the peer exchange is stripped"
    );
    assert_eq!((t.common.min_version, t.common.max_version), (TlsVersion::V1_3, TlsVersion::V1_3));
    let suites = ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-AES128-GCM-SHA256"];
    assert_eq!(t.common.cipher_suites.iter().map(|p| &**p).collect::<Vec<_>>(), suites);
    assert_eq!(t.common.groups.iter().map(|p| &**p).collect::<Vec<_>>(), ["X25519"]);
    assert!(matches!(&t.common.certificates[..], [CertificateSource::Sds(s)] if &*s.name == "default"));
    let ValidationSource::Combined { default, secret } = &t.common.validation else { panic!("{t:?}") };
    assert_eq!((default.sans[0].kind, &*secret.name), (SanKind::Uri, "ROOTCA"));
    assert_eq!(secret.source, ConfigSource::Grpc { cluster: "sds-grpc".into(), delta: false });

    let raw = format!(
        "transport_socket: {{name: r, typed_config: {{\"@type\": {T}/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}}}"
    );
    let context = socket(&context);
    let matches = format!(
        "transport_socket_matches: [{{name: m, match: {{tlsMode: istio}}, {context}}}, {{name: d, match: {{}}, {raw}}}]"
    );
    let c = the_cluster(&cluster_of(&matches));
    assert_eq!(c.transport_matches[0].criteria["tlsMode"], "istio");
    assert!(c.transport_matches[0].tls.is_some() && c.transport_matches[1].tls.is_none());

    let p = |rest: &str| format!("transport_socket.typed_config.{rest}");
    let common = |fields: &str| tls(&format!("common_tls_context: {{{fields}}}"));
    refused(&[
        (
            cluster_of("transport_socket: {name: envoy.transport_sockets.tls}"),
            "transport_socket.typed_config",
            "is required",
        ),
        (
            cluster_of(&format!("transport_socket: {{name: q, typed_config: {{\"@type\": {T}/a.Quic}}}}")),
            "transport_socket.typed_config",
            "a.Quic",
        ),
        (
            common("tls_params: {tls_maximum_protocol_version: TLSv1_1}"),
            &p("common_tls_context.tls_params.tls_maximum_protocol_version"),
            "before 1.2",
        ),
        (
            common("tls_params: {signature_algorithms: [a]}"),
            &p("common_tls_context.tls_params.signature_algorithms"),
            "not supported",
        ),
        (
            common("tls_params: {cipher_suites: ['!A']}"),
            &p("common_tls_context.tls_params.cipher_suites[0]"),
            "not a cipher suite",
        ),
        (
            common("tls_params: {cipher_suites: [ECDHE-ECDSA-AES128-GCM-SHA256, AES-ROT13]}"),
            &p("common_tls_context.tls_params.cipher_suites[1]"),
            "not a cipher suite",
        ),
        (
            common("tls_params: {cipher_suites: [AES128-SHA], tls_maximum_protocol_version: TLSv1_2}"),
            &p("common_tls_context.tls_params.cipher_suites"),
            "none of these suites",
        ),
        (
            common("tls_params: {ecdh_curves: [X25519, P-1]}"),
            &p("common_tls_context.tls_params.ecdh_curves[1]"),
            "not a key exchange group",
        ),
        (
            common("tls_params: {ecdh_curves: [P-521]}"),
            &p("common_tls_context.tls_params.ecdh_curves"),
            "none of these groups",
        ),
        (
            common(&format!("alpn_protocols: [{}]", "a".repeat(256))),
            &p("common_tls_context.alpn_protocols"),
            "255 bytes",
        ),
        (
            common("validation_context: {match_typed_subject_alt_names: [{san_type: URI, matcher: {exact: a}}]}"),
            &p("common_tls_context.validation_context.trusted_ca"),
            "without trusted CA is insecure",
        ),
        (
            common("validation_context: {verify_certificate_spki: [AAAA]}"),
            &p("common_tls_context.validation_context.verify_certificate_spki[0]"),
            "SHA-256",
        ),
        (
            common("validation_context: {verify_certificate_hash: [zz]}"),
            &p("common_tls_context.validation_context.verify_certificate_hash[0]"),
            "SHA-256",
        ),
        (
            common("validation_context: {custom_validator_config: {name: envoy.tls.cert_validator.spiffe}}"),
            &p("common_tls_context.validation_context.custom_validator_config"),
            "not supported",
        ),
        (
            common("validation_context: {trusted_ca: {inline_string: ''}}"),
            &p("common_tls_context.validation_context.trusted_ca"),
            "must not be empty",
        ),
        (
            common("tls_certificates: [{certificate_chain: {inline_string: a}}]"),
            &p("common_tls_context.tls_certificates[0].private_key"),
            "is required",
        ),
        (
            common(
                "tls_certificates: [{certificate_chain: {inline_string: a}, private_key: {environment_variable: K}}]",
            ),
            &p("common_tls_context.tls_certificates[0].private_key.environment_variable"),
            "not supported",
        ),
        (tls(&format!("sni: {}", "a".repeat(256))), &p("sni"), "255"),
    ]);
    let joined = the_cluster(&common("alpn_protocols: ['h2,http/1.1', istio]")).tls.clone().unwrap();
    assert_eq!(joined.common.alpn.iter().map(|p| &**p).collect::<Vec<_>>(), ["h2", "http/1.1", "istio"]);
    noted(&[(tls(""), &p("common_tls_context"), NoteKind::Unsupported)]);
}

#[test]
fn downstream_tls() {
    let chain = |fields: &str| {
        let kind = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
        let socket = format!("{{name: t, typed_config: {{\"@type\": {T}/{kind}, {fields}}}}}");
        listener_of(&tcp("cluster: c"), "").replacen("{filters:", &format!("{{transport_socket: {socket}, filters:"), 1)
    };
    let pair = "tls_certificates: [{certificate_chain: {inline_string: a}, private_key: {filename: /k}}]";
    let l = the_listener(&chain(&format!(
        "require_client_certificate: true, disable_stateless_session_resumption: true, common_tls_context: {{{pair}, alpn_protocols: [istio-peer-exchange, h2], validation_context: {{trusted_ca: {{filename: /ca}}}}}}"
    )));
    let t = l.chains[0].tls.clone().unwrap();
    assert!(t.require_client_certificate && !t.resumption);
    assert_eq!(t.common.alpn.iter().map(|p| &**p).collect::<Vec<_>>(), ["h2"]);
    let p = |rest: &str| format!("filter_chains[0].transport_socket.typed_config.{rest}");
    refused(&[
        (chain(""), &p("common_tls_context"), "needs a certificate"),
        (
            chain(&format!("require_client_certificate: true, common_tls_context: {{{pair}}}")),
            &p("require_client_certificate"),
            "validation context",
        ),
        (chain(&format!("require_sni: true, common_tls_context: {{{pair}}}")), &p("require_sni"), "not supported"),
        (
            chain(&format!("ocsp_staple_policy: MUST_STAPLE, common_tls_context: {{{pair}}}")),
            &p("ocsp_staple_policy"),
            "LENIENT",
        ),
    ]);
}

use super::*;
use crate::ir::secret::DataSource;

fn secret_of(fields: &str) -> String {
    format!("{{\"@type\": {T}/{SECRET}, {fields}}}")
}

#[test]
fn certificates_and_validation_contexts() {
    let pair = "name: default, tls_certificate: {certificate_chain: {inline_bytes: YWJj}, private_key: {inline_string: topsecret}}";
    let (Resource::Secret { name, secret }, _) = accepted(&secret_of(pair)) else { panic!() };
    assert_eq!(&*name, "default");
    let Secret::Certificate(c) = &*secret else { panic!("{secret:?}") };
    assert_eq!(c.chain, DataSource::Inline(b"abc".as_slice().into()));
    assert!(!format!("{secret:?}").contains("topsecret"));
    let spki = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let hash = ["0a"; 32].join(":");
    let context = format!(
        "name: ROOTCA, validation_context: {{trusted_ca: {{filename: /ca.pem, watched_directory: {{path: /d}}}}, \
         verify_certificate_spki: ['{spki}'], verify_certificate_hash: ['{hash}'], trust_chain_verification: ACCEPT_UNTRUSTED}}"
    );
    let (Resource::Secret { secret, .. }, _) = accepted(&secret_of(&context)) else { panic!() };
    let Secret::Validation(v) = &*secret else { panic!("{secret:?}") };
    assert_eq!(v.trusted_ca, Some(DataSource::File("/ca.pem".into())));
    assert_eq!(v.watched_directory.as_deref(), Some(std::path::Path::new("/d")));
    assert_eq!((v.spki_sha256[0], v.certificate_sha256[0], v.accept_untrusted), ([0; 32], [10; 32], true));
}

#[test]
fn refusals_show_no_key() {
    refused(&[
        (secret_of("name: s"), "type", "is required"),
        (secret_of("tls_certificate: {}"), "name", "must not be empty"),
        (secret_of("name: s, tls_certificate: {}"), "tls_certificate.certificate_chain", "is required"),
        (secret_of("name: s, generic_secret: {}"), "generic_secret", "not supported"),
        (secret_of("name: s, session_ticket_keys: {keys: []}"), "session_ticket_keys", "not supported"),
        (
            secret_of("name: s, tls_certificate: {pkcs12: {inline_string: x}}"),
            "tls_certificate.pkcs12",
            "not supported",
        ),
    ]);
    let key = secret_of("name: s, tls_certificate: {certificate_chain: {}, private_key: {inline_string: topsecret}}");
    let reject = decode(&key).unwrap_err();
    assert!(!format!("{reject:?} {reject}").contains("topsecret"));
}

//! The scripted client's TLS: it accepts every certificate and notes which one came.

use std::{path::Path, sync::Arc};

use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{client::Lines, observe::body_text, request::Tls};

#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Shakes hands and notes the outcome.
pub(crate) async fn handshake(
    stream: TcpStream,
    tls: Tls,
    dir: &Path,
    lines: &mut Lines,
) -> Option<TlsStream<TcpStream>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider's own versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody));
    let mut config = match tls.certificate {
        "" => config.with_no_client_auth(),
        name => {
            let chain = CertificateDer::pem_file_iter(dir.join(format!("{name}.crt"))).expect("it was issued");
            let chain = chain.collect::<Result<Vec<_>, _>>().expect("it was issued");
            let key = PrivateKeyDer::from_pem_file(dir.join(format!("{name}.key"))).expect("it was issued");
            config.with_client_auth_cert(chain, key).expect("a key and its certificate")
        }
    };
    config.alpn_protocols = tls.alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
    config.enable_sni = !tls.server_name.is_empty();
    let name = if tls.server_name.is_empty() { "unnamed.test" } else { tls.server_name };
    let name = ServerName::try_from(name).expect("scripts hold names");
    match TlsConnector::from(Arc::new(config)).connect(name, stream).await {
        Ok(stream) => {
            let session = stream.get_ref().1;
            let certificate = session.peer_certificates().and_then(|c| c.first());
            let alpn = session.alpn_protocol().map(|p| String::from_utf8_lossy(p).into_owned());
            lines.push(format!("< certificate {}", body_text(certificate.map_or(&[], |c| c.as_ref()))));
            lines.push(format!("< {:?} alpn {alpn:?}", session.protocol_version()));
            Some(stream)
        }
        Err(_) => {
            lines.push("< handshake failed".to_owned());
            None
        }
    }
}

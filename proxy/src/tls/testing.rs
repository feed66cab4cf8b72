//! Authorities, contexts and socket pairs for tests.

use std::{sync::Arc, time::Duration};

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, SanType};
use time::OffsetDateTime;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
};

use super::{ClientContext, ClientOptions, HandshakeError, Secrets, ServerContext};
use crate::{
    ir::{
        matcher::StringMatcher,
        secret::{
            Certificate, CertificateSource, CommonTls, DataSource, DownstreamTls, SanKind, SanMatcher, UpstreamTls,
            Validation, ValidationSource,
        },
    },
    net::io::{Io, Plain},
    telemetry::record::PeerInfo,
};

pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

/// A certificate authority.
pub(crate) struct Ca {
    pub(crate) issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

/// What a leaf says.
pub(crate) struct Spec {
    pub(crate) uris: Vec<String>,
    pub(crate) dns: Vec<String>,
    pub(crate) days: (i64, i64),
    pub(crate) serial: u64,
}

impl Default for Spec {
    fn default() -> Self {
        Self { uris: Vec::new(), dns: Vec::new(), days: (-1, 30), serial: 7 }
    }
}

impl Ca {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    pub(crate) fn issue(&self, spec: Spec) -> Arc<Certificate> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Acme, Inc.");
        params.distinguished_name.push(DnType::CommonName, "leaf");
        params.subject_alt_names = spec
            .uris
            .iter()
            .map(|u| SanType::URI(u.as_str().try_into().unwrap()))
            .chain(spec.dns.iter().map(|d| SanType::DnsName(d.as_str().try_into().unwrap())))
            .collect();
        let now = OffsetDateTime::now_utc();
        params.not_before = now + time::Duration::days(spec.days.0);
        params.not_after = now + time::Duration::days(spec.days.1);
        params.serial_number = Some(spec.serial.into());
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        certificate(&leaf.pem(), &key.serialize_pem())
    }

    /// A leaf with one SPIFFE id.
    pub(crate) fn spiffe(&self, account: &str) -> Arc<Certificate> {
        self.issue(Spec { uris: vec![spiffe(account)], ..Spec::default() })
    }

    /// A leaf for one DNS name.
    pub(crate) fn host(&self, name: &str) -> Arc<Certificate> {
        self.issue(Spec { dns: vec![name.to_owned()], ..Spec::default() })
    }

    pub(crate) fn trust(&self) -> Validation {
        Validation { trusted_ca: Some(inline(&self.pem)), ..Validation::default() }
    }

    /// Trust restricted to URIs equal to the accounts' ids.
    pub(crate) fn trust_uris(&self, accounts: &[&str]) -> Validation {
        let matcher = |a: &&str| SanMatcher { kind: SanKind::Uri, matcher: StringMatcher::exact(&spiffe(a)) };
        Validation { sans: accounts.iter().map(matcher).collect(), ..self.trust() }
    }
}

pub(crate) fn spiffe(account: &str) -> String {
    format!("spiffe://cluster.local/ns/default/sa/{account}")
}

pub(crate) fn inline(pem: &str) -> DataSource {
    DataSource::Inline(pem.as_bytes().into())
}

pub(crate) fn certificate(chain: &str, key: &str) -> Arc<Certificate> {
    Arc::new(Certificate { chain: inline(chain), key: inline(key), watched_directory: None })
}

pub(crate) fn bytes(source: &DataSource) -> &[u8] {
    match source {
        DataSource::Inline(bytes) => bytes,
        DataSource::File(path) => panic!("{} is a file", path.display()),
    }
}

/// The DER form of the first certificate.
pub(crate) fn der(certificate: &Certificate) -> Vec<u8> {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    CertificateDer::from_pem_slice(bytes(&certificate.chain)).unwrap().to_vec()
}

pub(crate) fn common(certificate: Option<&Arc<Certificate>>, validation: Option<Validation>) -> CommonTls {
    CommonTls {
        certificates: certificate.map(|c| CertificateSource::Static(c.clone())).into_iter().collect(),
        validation: validation.map_or(ValidationSource::None, |v| ValidationSource::Static(Arc::new(v))),
        ..CommonTls::default()
    }
}

pub(crate) fn alpn(names: &[&str]) -> Arc<[Box<str>]> {
    names.iter().map(|n| Box::from(*n)).collect()
}

/// A server that requires a client certificate exactly when it can verify one.
pub(crate) fn server(certificate: &Arc<Certificate>, validation: Option<Validation>) -> Arc<ServerContext> {
    let require = validation.is_some();
    let common = common(Some(certificate), validation);
    server_of(DownstreamTls { common, require_client_certificate: require, resumption: true })
}

pub(crate) fn server_of(config: DownstreamTls) -> Arc<ServerContext> {
    ServerContext::new(Arc::new(config), Arc::new(Secrets::default())).unwrap()
}

pub(crate) fn client(certificate: Option<&Arc<Certificate>>, validation: Option<Validation>) -> Arc<ClientContext> {
    client_of(upstream(common(certificate, validation)))
}

pub(crate) fn upstream(common: CommonTls) -> UpstreamTls {
    UpstreamTls { common, sni: Some("server.test".into()), auto_host_sni: false, max_session_keys: 1 }
}

pub(crate) fn client_of(config: UpstreamTls) -> Arc<ClientContext> {
    ClientContext::new(Arc::new(config), Arc::new(Secrets::default())).unwrap()
}

/// A connected pair: the connecting and the accepted end.
pub(crate) async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (connected, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    (connected.unwrap(), accepted.unwrap().0)
}

pub(crate) type Outcome = Result<(Io, Arc<PeerInfo>), HandshakeError>;

/// Both sides of one handshake: the client's outcome and the server's.
pub(crate) async fn handshake(client: &ClientContext, server: &ServerContext) -> (Outcome, Outcome) {
    handshake_with(client, &ClientOptions::default(), server).await
}

pub(crate) async fn handshake_with(
    client: &ClientContext,
    options: &ClientOptions<'_>,
    server: &ServerContext,
) -> (Outcome, Outcome) {
    let (near, far) = tcp_pair().await;
    let connect = async {
        let mut connected = client.connect(Plain::from(near), options, TIMEOUT).await;
        if let Ok((io, _)) = &mut connected {
            // The last words of the handshake wait for company.
            let _ = io.flush().await;
        }
        connected
    };
    tokio::join!(connect, server.accept(Plain::from(far), TIMEOUT))
}

/// A workload's certificate that it signed itself.
pub(crate) fn self_signed(account: &str) -> Arc<Certificate> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(spiffe(account).as_str().try_into().unwrap())];
    let key = KeyPair::generate().unwrap();
    certificate(&params.self_signed(&key).unwrap().pem(), &key.serialize_pem())
}

//! The verdict on a peer's certificate: chain, revocation, names and pins.
//!
//! Owns the order of checks and what each combination of settings means. The chain itself is rustls's business.
//! Invariants: names are believed only from a verified chain; a server is not required to have a DNS name unless one
//! was asked for, so SPIFFE certificates pass by their URI.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ParsedCertificate, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use super::{
    Cause, TlsError,
    error::{Flaw, SanMismatch},
    known::{Identity, Known},
    material::Trust,
    names,
    spiffe::SpiffeId,
    svid,
};
use crate::ir::secret::Validation;

/// Which side's certificates are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    Client,
    Server,
}

/// Chain verification for one role.
#[derive(Debug)]
enum Chain {
    Clients(Arc<dyn ClientCertVerifier>),
    Servers(Arc<WebPkiServerVerifier>),
}

/// Judges the certificates of one context.
#[derive(Debug)]
pub(super) struct Verifier {
    chain: Option<Arc<Chain>>,
    /// The certificates of the trust bundle, unless revocation is checked.
    trusted: Arc<[CertificateDer<'static>]>,
    rules: Arc<Validation>,
    algorithms: WebPkiSupportedAlgorithms,
    hints: Arc<[DistinguishedName]>,
    /// Servers only: a client must present a certificate.
    mandatory: bool,
    /// Clients only: the name the server's certificate must carry.
    name: Option<ServerName<'static>>,
    /// Chains that passed. `None` where a verdict costs nothing, and where it depends on the age of a revocation list.
    known: Option<Known>,
}

impl Verifier {
    /// A verifier of `peer`'s certificates; without `trust` every certificate passes.
    pub(super) fn new(
        peer: Peer,
        trust: Option<&Trust>,
        mandatory: bool,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let mut hints: Arc<[DistinguishedName]> = Arc::new([]);
        let mut chain = None;
        let mut trusted: Arc<[CertificateDer<'static>]> = Arc::new([]);
        let mut known = None;
        if let Some(trust) = trust
            && let Some((roots, certificates)) = trust.roots()?
        {
            let roots = Arc::new(roots);
            let crls = trust.crls()?;
            if crls.is_empty() {
                trusted = certificates.into();
                known = Some(Known::default());
            }
            let bad = |e| TlsError::new(format!("validation context: {e}"));
            chain = Some(Arc::new(match peer {
                Peer::Client => {
                    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
                        .with_crls(crls)
                        .enforce_revocation_expiration()
                        .build()
                        .map_err(bad)?;
                    hints = verifier.root_hint_subjects().into();
                    Chain::Clients(verifier)
                }
                Peer::Server => Chain::Servers(
                    WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
                        .with_crls(crls)
                        .enforce_revocation_expiration()
                        .build()
                        .map_err(bad)?,
                ),
            }));
        }
        let rules = trust.map(|t| t.rules.clone()).unwrap_or_default();
        if chain.is_none() && !rules.sans.is_empty() {
            return Err(TlsError::new("matching subject alternative names without a trusted_ca proves nothing"));
        }
        if chain.is_none() && rules.crl.is_some() {
            return Err(TlsError::new("a crl without a trusted_ca checks nothing"));
        }
        Ok(Self {
            chain,
            trusted,
            rules: Arc::new(rules),
            algorithms: provider.signature_verification_algorithms,
            hints,
            mandatory,
            name: None,
            known,
        })
    }

    /// The same verifier that also demands `name`.
    pub(super) fn with_name(&self, name: ServerName<'static>) -> Self {
        Self {
            chain: self.chain.clone(),
            trusted: self.trusted.clone(),
            rules: self.rules.clone(),
            algorithms: self.algorithms,
            hints: self.hints.clone(),
            mandatory: self.mandatory,
            name: Some(name),
            // Others passed for other names.
            known: self.known.as_ref().map(|_| Known::default()),
        }
    }

    /// Whether a certificate that passes is worth anything.
    pub(super) fn verifies(&self) -> bool {
        self.chain.is_some() || self.pinned()
    }

    /// Whether certificates pass that do not verify.
    pub(super) fn lenient(&self) -> bool {
        self.rules.accept_untrusted
    }

    fn pinned(&self) -> bool {
        !self.rules.spki_sha256.is_empty() || !self.rules.certificate_sha256.is_empty()
    }

    /// The verdict itself, whatever leniency says.
    pub(super) fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let Some(known) = &self.known else { return self.examine(leaf, rest, now) };
        if known.get(leaf, rest, now).is_none() {
            self.examine(leaf, rest, now)?;
            known.insert(leaf, rest);
        }
        Ok(())
    }

    /// Whether a certificate of this name would pass, if its chain does; a name of another trust domain than `ours` passes
    /// only where rules speak of it.
    pub(super) fn would_admit(&self, san: &names::San, ours: &[Box<str>]) -> Result<(), String> {
        if self.pinned() {
            return Err("only pinned certificates pass, whatever their names".to_owned());
        }
        if !self.rules.sans.is_empty() {
            let fits = names::any_match(&self.rules.sans, std::slice::from_ref(san));
            return fits.then_some(()).ok_or_else(|| format!("no subject alternative name that is trusted: {san}"));
        }
        let names::San::Uri(uri) = san else { return Ok(()) };
        let ours = ours.iter().find_map(|san| SpiffeId::parse(san));
        match (ours, SpiffeId::parse(uri)) {
            _ if self.chain.is_none() => Ok(()),
            (Some(ours), Some(theirs)) if ours.trust_domain() != theirs.trust_domain() => {
                Err(format!("{uri} is of another trust domain than this workload's {}", ours.trust_domain()))
            }
            (_, None) if uri.starts_with("spiffe:") => Err(format!("{uri} is no SPIFFE id")),
            _ => Ok(()),
        }
    }

    /// What the certificate of a chain says, whatever it is worth.
    pub(super) fn identity(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Arc<Identity> {
        let known = self.known.as_ref().and_then(|known| known.get(leaf, rest, now));
        known.unwrap_or_else(|| Arc::new(Identity::read(leaf, rest)))
    }

    fn examine(&self, leaf: &CertificateDer<'_>, rest: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Error> {
        let verified = match self.chain.as_deref() {
            Some(Chain::Clients(verifier)) => verifier.verify_client_cert(leaf, rest, now).map(drop),
            Some(Chain::Servers(verifier)) => self.judge_server(verifier, leaf, rest, now),
            None => Ok(()),
        };
        if let Err(error) = verified
            && !self.trusts_itself(leaf, now)
        {
            let alone =
                error == CertificateError::UnknownIssuer.into() && rest.is_empty() && svid::is_self_signed(leaf);
            return Err(if alone { svid::SELF_SIGNED.into() } else { error });
        }
        let failed = || Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);
        if self.chain.is_some() {
            svid::check(leaf)?;
        }
        if self.chain.is_none() && self.name.is_some() && !self.pinned() {
            let reason = "the server's name is to be verified, but there is no trusted_ca to verify it against".into();
            return Err(Flaw { cause: Cause::Certificate, reason }.into());
        }
        if !self.rules.sans.is_empty() {
            let certificate = names::parse(leaf).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
            let sans = names::sans(&certificate);
            if !names::any_match(&self.rules.sans, &sans) {
                let presented = sans.iter().take(8).map(ToString::to_string).collect::<Vec<_>>().join(", ");
                let mismatch = SanMismatch { presented, foreign: svid::is_foreign(&self.rules.sans, &sans) };
                return Err(CertificateError::Other(OtherError(Arc::new(mismatch))).into());
            }
        }
        if self.pinned() {
            let certificate = names::parse(leaf).ok_or_else(failed)?;
            let spki = sha256(certificate.public_key().raw);
            if !self.rules.certificate_sha256.contains(&sha256(leaf)) && !self.rules.spki_sha256.contains(&spki) {
                let reason = "the certificate is none of the pinned ones".into();
                return Err(Flaw { cause: Cause::Unpinned, reason }.into());
            }
        }
        Ok(())
    }

    fn judge_server(
        &self,
        verifier: &WebPkiServerVerifier,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        // rustls verifies chain, validity and revocation first and the name last, so a complaint about the name
        // says that everything before it was in order.
        let unnamed = ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into());
        match verifier.verify_server_cert(leaf, rest, self.name.as_ref().unwrap_or(&unnamed), &[], now) {
            Ok(_) => Ok(()),
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.name.is_none() => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// A certificate that is itself in the trust bundle, as self-signed ones are, needs no chain: its holder proves
    /// to have the key. rustls refuses those that are marked as authorities, OpenSSL's users are used to them.
    fn trusts_itself(&self, leaf: &CertificateDer<'_>, now: UnixTime) -> bool {
        if !self.trusted.iter().any(|t| t == leaf) {
            return false;
        }
        let Some(certificate) = names::parse(leaf) else { return false };
        let valid = i64::try_from(now.as_secs()).is_ok_and(|now| {
            let validity = certificate.validity();
            (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now)
        });
        let named = self.name.as_ref().is_none_or(|name| {
            ParsedCertificate::try_from(leaf).is_ok_and(|leaf| verify_server_name(&leaf, name).is_ok())
        });
        valid && named
    }

    fn admit(&self, leaf: &CertificateDer<'_>, rest: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Error> {
        if self.lenient() {
            return Ok(());
        }
        self.judge(leaf, rest, now)
    }
}

fn sha256(data: &[u8]) -> [u8; 32] {
    let rustls::SupportedCipherSuite::Tls13(suite) = aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256 else {
        unreachable!("the constant is a TLS 1.3 suite")
    };
    let mut digest = [0; 32];
    digest.copy_from_slice(suite.common.hash_provider.hash(data).as_ref());
    digest
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.admit(end_entity, intermediates, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.admit(end_entity, intermediates, now).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

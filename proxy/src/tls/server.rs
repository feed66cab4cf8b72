//! The server side: accepting TLS connections.
//!
//! Owns certificate choice by server name and key type, ALPN by what each client offers, and tickets. Invariant: a
//! client that offers only protocols unknown here is served without ALPN instead of being turned away.

use std::{sync::Arc, time::Duration};

use rustls::{
    ServerConfig,
    crypto::aws_lc_rs::Ticketer,
    pki_types::CertificateDer,
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::{
    HandshakeError, HandshakeErrorKind, Secrets, TlsError,
    context::{Build, Core},
    crypto,
    material::Inputs,
    names,
    names::San,
    peer,
    verify::{Peer, Verifier},
};
use crate::{
    ir::secret::{CommonTls, DownstreamTls, TlsVersion, ValidationSource},
    net::io::{Io, Plain, handshake},
    telemetry::record::PeerInfo,
};

/// Who a client would be taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// It shows no certificate.
    Anonymous,
    /// Its certificate proves nothing.
    Unverified,
    Verified,
}

/// A downstream TLS context with its current secrets.
pub struct ServerContext {
    core: Arc<Core<Builder>>,
}

struct Builder(Arc<DownstreamTls>);

struct Configs {
    plain: Arc<ServerConfig>,
    /// The same with ALPN; equal to `plain` when the context has none.
    alpn: Arc<ServerConfig>,
    /// Whether clients are asked for a certificate.
    asks: bool,
    verifier: Arc<Verifier>,
    local_uri_sans: Vec<Box<str>>,
}

impl ServerContext {
    /// Builds the context. Secrets that are not there yet make it not ready; a static mistake is an error.
    pub fn new(config: Arc<DownstreamTls>, secrets: Arc<Secrets>) -> Result<Arc<Self>, TlsError> {
        if config.common.certificates.is_empty() {
            return Err(TlsError::new("a downstream TLS context needs a certificate"));
        }
        check(&config.common)?;
        Ok(Arc::new(Self { core: Core::new(Builder(config), secrets)? }))
    }

    /// Whether handshakes can succeed: every secret has arrived and was good at least once.
    pub fn ready(&self) -> bool {
        self.core.ready()
    }

    /// Grows each time new inputs take effect.
    pub fn generation(&self) -> u64 {
        self.core.generation()
    }

    #[cfg(test)]
    pub(super) fn certificates(&self) -> super::shown::InUse {
        super::secrets::Dependent::certificates(&*self.core)
    }

    #[cfg(test)]
    pub(super) fn expirations(&self) -> Vec<super::expiry::Expiration> {
        super::secrets::Dependent::expirations(&*self.core)
    }

    /// What is missing or wrong with the newest inputs.
    pub fn problem(&self) -> Option<String> {
        self.core.problem()
    }

    /// How many times new inputs were refused.
    pub fn failures(&self) -> u64 {
        self.core.failures()
    }

    /// Whether a handshake made before would come to the same end under the rules in force.
    pub fn admits(&self, peer: &PeerInfo) -> Result<(), HandshakeError> {
        let Some(configs) = self.core.get() else { return Ok(()) };
        let common = &self.core.builder().0.common;
        if peer.version == "TLSv1.2" && common.min_version > TlsVersion::V1_2 {
            return Err(HandshakeError::new(HandshakeErrorKind::Protocol, "TLS 1.2 is not spoken any more"));
        }
        if !configs.asks {
            return Ok(());
        }
        let chain: Vec<_> = peer.chain.iter().map(|der| CertificateDer::from(&**der)).collect();
        match chain.split_first() {
            None if self.core.builder().0.require_client_certificate => {
                Err((&rustls::Error::NoCertificatesPresented).into())
            }
            None => Ok(()),
            Some(_) if configs.verifier.lenient() => Ok(()),
            Some((leaf, rest)) => configs.verifier.judge(leaf, rest, peer::now()).map_err(|e| (&e).into()),
        }
    }

    /// What would come of a client of this name, or of one without a certificate. Whether there is a chain to a trusted
    /// root is taken for granted within our own trust domain; the reason where the handshake would fail.
    pub fn foretell(&self, name: Option<&str>) -> Result<Client, String> {
        let Some(configs) = self.core.get() else {
            return Err(self.problem().unwrap_or_else(|| "the TLS context is not ready".to_owned()));
        };
        let Some(name) = name.filter(|_| configs.asks) else {
            let needs = self.core.builder().0.require_client_certificate;
            return if needs { Err("a client certificate is required".to_owned()) } else { Ok(Client::Anonymous) };
        };
        let admitted = configs.verifier.would_admit(&San::Uri(name.into()), &configs.local_uri_sans);
        match admitted {
            Ok(()) if configs.verifier.verifies() => Ok(Client::Verified),
            Ok(()) => Ok(Client::Unverified),
            Err(_) if configs.verifier.lenient() => Ok(Client::Unverified),
            Err(reason) => Err(reason),
        }
    }

    /// Performs the handshake within `timeout`.
    pub async fn accept(&self, plain: Plain, timeout: Duration) -> Result<(Io, Arc<PeerInfo>), HandshakeError> {
        let configs = self.core.get().ok_or_else(|| {
            let reason = self.problem().unwrap_or_else(|| "the TLS context is not ready".to_owned());
            HandshakeError::new(HandshakeErrorKind::NotReady, reason)
        })?;
        // Boxed: the state of a handshake is large and short-lived, that of a connection small and long-lived.
        match tokio::time::timeout(timeout, Box::pin(perform(&configs, plain))).await {
            Ok(result) => result,
            Err(_) => Err(HandshakeError::new(
                HandshakeErrorKind::Timeout,
                format!("the TLS handshake took longer than {timeout:?}"),
            )),
        }
    }
}

impl std::fmt::Debug for ServerContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerContext").field("ready", &self.ready()).finish_non_exhaustive()
    }
}

async fn perform(configs: &Configs, plain: Plain) -> Result<(Io, Arc<PeerInfo>), HandshakeError> {
    let hello = handshake::hello(plain).await?;
    let config = if configs.shares_protocol(&hello.client_hello()) { &configs.alpn } else { &configs.plain };
    let stream = hello.answer(config.clone()).await?;
    let session = stream.get_ref().1;
    let info = peer::describe(session, session.server_name(), &configs.verifier, &configs.local_uri_sans)?;
    Ok((Io::from(stream), Arc::new(info)))
}

impl Configs {
    fn shares_protocol(&self, hello: &ClientHello<'_>) -> bool {
        let ours = &self.alpn.alpn_protocols;
        hello.alpn().is_some_and(|mut offered| offered.any(|p| ours.iter().any(|our| our == p)))
    }
}

/// What can be judged without secrets.
pub(super) fn check(common: &CommonTls) -> Result<(), TlsError> {
    crypto::versions(common)?;
    crypto::provider(common)?;
    crypto::alpn(&common.alpn)?;
    Ok(())
}

impl Build for Builder {
    type Built = Configs;

    fn common(&self) -> &CommonTls {
        &self.0.common
    }

    fn build(&self, inputs: &Inputs) -> Result<Configs, TlsError> {
        let common = &self.0.common;
        let provider = crypto::provider(common)?;
        let keys = inputs.keys(&provider)?;
        let local_uri_sans = peer::uri_sans(&keys);
        let mandatory = self.0.require_client_certificate;
        let verifier = Arc::new(Verifier::new(Peer::Client, inputs.validation.as_ref(), mandatory, &provider)?);
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&crypto::versions(common)?)
            .map_err(|e| TlsError::new(e.to_string()))?;
        let asks = mandatory || !matches!(common.validation, ValidationSource::None);
        let builder =
            if asks { builder.with_client_cert_verifier(verifier.clone()) } else { builder.with_no_client_auth() };
        let mut config = builder.with_cert_resolver(Arc::new(Keys::new(keys)));
        config.ignore_client_order = true;
        // Tickets hold the whole session, so nothing is stored here; their keys rotate and die with this
        // configuration, which is why changed rules can never be bypassed by an old ticket.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        if self.0.resumption {
            config.ticketer = Ticketer::new().map_err(|e| TlsError::new(e.to_string()))?;
            // One per connection keeps a client in tickets; each further one costs every handshake.
            config.send_tls13_tickets = 1;
        } else {
            config.send_tls13_tickets = 0;
        }
        let mut alpn = config.clone();
        alpn.alpn_protocols = crypto::alpn(&common.alpn)?;
        Ok(Configs { plain: Arc::new(config), alpn: Arc::new(alpn), asks, verifier, local_uri_sans })
    }
}

/// The certificates of a context with the names each is for.
#[derive(Debug)]
struct Keys(Vec<(Arc<CertifiedKey>, Vec<Box<str>>)>);

impl Keys {
    fn new(keys: Vec<Arc<CertifiedKey>>) -> Self {
        Self(keys.into_iter().map(|key| (key.clone(), dns_names(&key))).collect())
    }
}

fn dns_names(key: &CertifiedKey) -> Vec<Box<str>> {
    let Some(certificate) = key.cert.first().and_then(|der| names::parse(der)) else { return Vec::new() };
    names::sans(&certificate)
        .into_iter()
        .filter_map(|san| match san {
            San::Dns(name) => Some(name),
            _ => None,
        })
        .collect()
}

impl ResolvesServerCert for Keys {
    /// A certificate for the asked name if there is one, else the first; among equals one the client can verify.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let [(only, _)] = &self.0[..] {
            return Some(only.clone());
        }
        let usable = |key: &CertifiedKey| key.key.choose_scheme(hello.signature_schemes()).is_some();
        let named =
            |known: &[Box<str>]| hello.server_name().is_some_and(|name| known.iter().any(|k| names::covers(k, name)));
        let rank = |(key, known): &&(Arc<CertifiedKey>, Vec<Box<str>>)| (usable(key), named(known));
        // The last of equals wins in `max_by_key`, hence the reversal.
        self.0.iter().rev().max_by_key(rank).map(|(key, _)| key.clone())
    }
}

#[cfg(test)]
mod tests;

//! The client side: opening TLS connections.
//!
//! Owns the variants of a context that single connections ask for (ALPN, a name to verify) and their session caches,
//! all made at the first connection; what is costly, keys and anchors, is shared by contexts whose rules are equal.
//! Invariant: sessions are cached per context and variant, so none is resumed that was verified by other rules.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, SignatureScheme,
    client::{ClientSessionMemoryCache, ResolvesClientCert, Resumption},
    pki_types::ServerName,
    sign::CertifiedKey,
};

use super::{
    HandshakeError, HandshakeErrorKind, Secrets, TlsError,
    context::{Build, Core},
    crypto,
    material::{self, Inputs},
    peer, server,
    verify::{Peer, Verifier},
};
use crate::{
    ir::secret::{CommonTls, UpstreamTls},
    net::io::{Io, Plain, handshake},
    telemetry::record::PeerInfo,
};

/// Variants kept per context; a new one beyond it starts over.
const MAX_VARIANTS: usize = 128;
const MAX_SESSION_KEYS: u32 = 1024;
/// rustls counts tickets, of which it keeps 8 per server name.
const TICKETS_PER_NAME: usize = 8;

/// What one connection asks for beyond its context.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientOptions<'a> {
    /// Overrides the context's SNI.
    pub sni: Option<&'a str>,
    /// Replaces the context's ALPN list.
    pub alpn: Option<&'a [Box<str>]>,
    /// The name the certificate must carry (`auto_san_validation`), besides what the context demands.
    pub verify_name: Option<&'a str>,
}

/// An upstream TLS context with its current secrets.
pub struct ClientContext {
    config: Arc<UpstreamTls>,
    core: Arc<Core<Builder>>,
    warned: AtomicBool,
    sessions: Mutex<Option<Box<Sessions>>>,
}

pub(super) struct Builder(Arc<UpstreamTls>);

pub(super) struct Built {
    /// Without a session cache.
    base: ClientConfig,
    verifier: Arc<Verifier>,
    local_uri_sans: Vec<Box<str>>,
}

/// The variants of one context made from one state of its inputs.
struct Sessions {
    built: Arc<Built>,
    variants: HashMap<VariantKey, Variant>,
}

#[derive(Clone, Default, PartialEq, Eq, Hash)]
struct VariantKey {
    alpn: Option<Vec<Box<str>>>,
    verify_name: Option<Box<str>>,
}

#[derive(Clone)]
struct Variant {
    config: Arc<ClientConfig>,
    verifier: Arc<Verifier>,
}

/// The costly part of contexts that may never be used, kept so that the last good state of its files is.
#[derive(Clone)]
pub struct Prepared {
    core: Arc<Core<Builder>>,
}

/// Of the cores made last, how many are looked at for one with the same rules.
const SHARED: usize = 16;

fn has_rules(core: &Core<Builder>, config: &Arc<UpstreamTls>) -> bool {
    let other = &core.builder().0;
    Arc::ptr_eq(other, config) || other.common == config.common
}

/// What contexts with the same rules share. Building it fails for a static mistake only.
fn core(config: &Arc<UpstreamTls>, secrets: &Arc<Secrets>) -> Result<Arc<Core<Builder>>, TlsError> {
    let mut clients = secrets.clients.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(shared) = clients.iter().filter_map(Weak::upgrade).find(|core| has_rules(core, config)) {
        return Ok(shared);
    }
    server::check(&config.common)?;
    let core = Core::new(Builder(config.clone()), secrets.clone())?;
    clients.truncate(SHARED - 1);
    clients.push_front(Arc::downgrade(&core));
    Ok(core)
}

impl ClientContext {
    /// Builds the context. Secrets that are not there yet make it not ready; a static mistake is an error.
    pub fn new(config: Arc<UpstreamTls>, secrets: Arc<Secrets>) -> Result<Arc<Self>, TlsError> {
        Self::with(config, secrets, &[])
    }

    /// The same, of what was prepared for it.
    pub fn with(config: Arc<UpstreamTls>, secrets: Arc<Secrets>, prepared: &[Prepared]) -> Result<Arc<Self>, TlsError> {
        check_sni(&config)?;
        let core = match prepared.iter().find(|p| has_rules(&p.core, &config)) {
            Some(prepared) => prepared.core.clone(),
            None => core(&config, &secrets)?,
        };
        Ok(Arc::new(Self { config, core, warned: AtomicBool::new(false), sessions: Mutex::default() }))
    }

    /// Finds the mistakes that [`Self::new`] would find, for a context that is made later if at all. Files are read
    /// now; secrets of SDS, which change anyway, when the context is made.
    pub fn prepare(config: &Arc<UpstreamTls>, secrets: &Arc<Secrets>) -> Result<Option<Prepared>, TlsError> {
        check_sni(config)?;
        if !material::is_static(&config.common) {
            server::check(&config.common)?;
            return Ok(None);
        }
        Ok(Some(Prepared { core: core(config, secrets)? }))
    }

    /// Whether handshakes can succeed: every secret has arrived and was good at least once.
    pub fn ready(&self) -> bool {
        self.core.ready()
    }

    /// Grows each time new inputs take effect; connections made before used older ones.
    pub fn generation(&self) -> u64 {
        self.core.generation()
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

    /// The configuration it was built from.
    pub fn config(&self) -> &Arc<UpstreamTls> {
        &self.config
    }

    /// Performs the handshake within `timeout`.
    pub async fn connect(
        &self,
        plain: Plain,
        options: &ClientOptions<'_>,
        timeout: Duration,
    ) -> Result<(Io, Arc<PeerInfo>), HandshakeError> {
        let built = self.core.get().ok_or_else(|| {
            let reason = self.problem().unwrap_or_else(|| "the TLS context is not ready".to_owned());
            HandshakeError::new(HandshakeErrorKind::NotReady, reason)
        })?;
        let sni = options.sni.or(self.config.sni.as_deref()).filter(|s| !s.is_empty());
        let name = server_name(sni, &plain)?;
        let variant = self.variant(&built, options)?;
        if !variant.verifier.verifies() && !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(sni, "an upstream TLS context has no validation context: any certificate is accepted");
        }
        let sent = match &name {
            ServerName::DnsName(name) => Some(name.as_ref().to_owned()),
            _ => None,
        };
        let handshake = async {
            let session = ClientConnection::new(variant.config, name).map_err(|e| HandshakeError::from(&e))?;
            let stream = handshake::connect(plain, session).await?;
            let info = peer::describe(stream.get_ref().1, sent.as_deref(), &variant.verifier, &built.local_uri_sans)?;
            Ok((Io::from(stream), Arc::new(info)))
        };
        match tokio::time::timeout(timeout, Box::pin(handshake)).await {
            Ok(result) => result,
            Err(_) => Err(HandshakeError::new(
                HandshakeErrorKind::Timeout,
                format!("the TLS handshake took longer than {timeout:?}"),
            )),
        }
    }
}

impl std::fmt::Debug for ClientContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientContext").field("ready", &self.ready()).finish_non_exhaustive()
    }
}

/// The SNI, or without one the peer's address, which is not sent and only keys the session cache.
fn server_name(sni: Option<&str>, plain: &Plain) -> Result<ServerName<'static>, HandshakeError> {
    match sni {
        Some(sni) => parse_name(sni, "SNI"),
        None => {
            let ip = plain.peer_addr().map_or(std::net::Ipv4Addr::UNSPECIFIED.into(), |a| a.ip());
            Ok(ServerName::IpAddress(ip.into()))
        }
    }
}

fn parse_name(name: &str, what: &str) -> Result<ServerName<'static>, HandshakeError> {
    ServerName::try_from(name.to_owned()).map_err(|_| {
        HandshakeError::new(
            HandshakeErrorKind::Protocol,
            format!("{what} '{name}' is neither a host name nor an address"),
        )
    })
}

fn check_sni(config: &UpstreamTls) -> Result<(), TlsError> {
    match config.sni.as_deref().filter(|s| !s.is_empty()) {
        Some(sni) if ServerName::try_from(sni).is_err() => {
            Err(TlsError::new(format!("the SNI '{sni}' is not a host name")))
        }
        _ => Ok(()),
    }
}

impl ClientContext {
    /// The configuration for one connection, the same for equal wishes as long as the inputs stay.
    fn variant(&self, built: &Arc<Built>, options: &ClientOptions<'_>) -> Result<Variant, HandshakeError> {
        let key = VariantKey {
            alpn: options.alpn.map(<[_]>::to_vec),
            verify_name: options.verify_name.map(|n| n.to_ascii_lowercase().into()),
        };
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.take_if(|s| !Arc::ptr_eq(&s.built, built));
        let sessions = sessions
            .get_or_insert_with(|| Box::new(Sessions { built: built.clone(), variants: HashMap::with_capacity(1) }));
        if let Some(variant) = sessions.variants.get(&key) {
            return Ok(variant.clone());
        }
        let verifier = match &key.verify_name {
            Some(name) => Arc::new(built.verifier.with_name(parse_name(name, "the name to verify")?)),
            None => built.verifier.clone(),
        };
        let mut config = built.base.clone();
        if let Some(alpn) = &key.alpn {
            config.alpn_protocols =
                crypto::alpn(alpn).map_err(|e| HandshakeError::new(HandshakeErrorKind::Protocol, e.0))?;
        }
        if key.verify_name.is_some() {
            config.dangerous().set_certificate_verifier(verifier.clone());
        }
        config.resumption = resumption(&self.config);
        let variant = Variant { config: Arc::new(config), verifier };
        if sessions.variants.len() >= MAX_VARIANTS {
            sessions.variants.clear();
        }
        sessions.variants.insert(key, variant.clone());
        Ok(variant)
    }
}

fn resumption(config: &UpstreamTls) -> Resumption {
    match config.max_session_keys.min(MAX_SESSION_KEYS) {
        0 => Resumption::disabled(),
        names => Resumption::store(Arc::new(ClientSessionMemoryCache::new(names as usize * TICKETS_PER_NAME))),
    }
}

impl Build for Builder {
    type Built = Built;

    fn common(&self) -> &CommonTls {
        &self.0.common
    }

    fn build(&self, inputs: &Inputs) -> Result<Built, TlsError> {
        let common = &self.0.common;
        let provider = crypto::provider(common)?;
        let keys = inputs.keys(&provider)?;
        let local_uri_sans = peer::uri_sans(&keys);
        let verifier = Arc::new(Verifier::new(Peer::Server, inputs.validation.as_ref(), false, &provider)?);
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&crypto::versions(common)?)
            .map_err(|e| TlsError::new(e.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier.clone())
            .with_client_cert_resolver(Arc::new(Keys(keys)));
        config.alpn_protocols = crypto::alpn(&common.alpn)?;
        config.resumption = Resumption::disabled();
        Ok(Built { base: config, verifier, local_uri_sans })
    }
}

/// The client certificates of a context.
#[derive(Debug)]
struct Keys(Vec<Arc<CertifiedKey>>);

impl ResolvesClientCert for Keys {
    /// The first one the server can verify. The authorities it names are hints that are often wrong, so they do not
    /// decide.
    fn resolve(&self, _hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.iter().find(|key| key.key.choose_scheme(schemes).is_some()).cloned()
    }

    fn has_certs(&self) -> bool {
        !self.0.is_empty()
    }
}

#[cfg(test)]
mod tests;

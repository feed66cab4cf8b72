//! From a gRPC request to its [`Caller`]: the connection's client certificate, else a bearer token, else nobody.
//!
//! Invariant: over TLS nobody is never an answer; a credential that is offered and does not verify is an error, not
//! a fall back to less.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::SystemTime,
};

use tonic::{Status, metadata::MetadataMap};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{Caller, Identity, Proof, token::Tokens};

/// What the listener knows of a connection; travels as an extension of every request on it.
#[derive(Clone, Debug)]
pub struct Connection {
    pub peer: SocketAddr,
    pub tls: bool,
    /// From the client certificate, verified against our root during the handshake.
    pub certificate: Option<Caller>,
    /// Some call on it was let in.
    admitted: Arc<AtomicBool>,
}

impl Connection {
    pub fn new(peer: SocketAddr, tls: bool, certificate: Option<Caller>) -> Self {
        Self { peer, tls, certificate, admitted: Arc::default() }
    }

    /// To be called when a call is let in: until the first, a connection is on borrowed time.
    pub fn admit(&self) {
        self.admitted.store(true, Relaxed);
    }

    pub fn is_admitted(&self) -> bool {
        self.admitted.load(Relaxed)
    }
}

/// Decides who calls.
#[derive(Clone)]
pub struct Authenticator {
    tokens: Arc<Tokens>,
}

impl Authenticator {
    pub fn new(tokens: Arc<Tokens>) -> Self {
        Self { tokens }
    }

    /// The caller, or `None` for a plaintext connection without credentials.
    pub fn authenticate(
        &self,
        connection: &Connection,
        metadata: &MetadataMap,
        now: SystemTime,
    ) -> Result<Option<Caller>, Status> {
        self.decide(connection, metadata, now).inspect(|_| connection.admit())
    }

    fn decide(
        &self,
        connection: &Connection,
        metadata: &MetadataMap,
        now: SystemTime,
    ) -> Result<Option<Caller>, Status> {
        if let Some(caller) = &connection.certificate {
            if caller.expires.is_some_and(|expires| expires <= now) {
                return Err(Status::unauthenticated("the connection's client certificate has expired; reconnect"));
            }
            return Ok(Some(caller.clone()));
        }
        if let Some(token) = bearer(metadata)? {
            // In the clear a token is a gift to whoever listens; on loopback nobody else does.
            if !connection.tls && !connection.peer.ip().to_canonical().is_loopback() {
                return Err(Status::unauthenticated("bearer tokens are refused over plaintext; use the TLS port"));
            }
            return match self.tokens.verify(token, now) {
                Ok(caller) => Ok(Some(caller)),
                Err(refused) => Err(Status::unauthenticated(refused.to_string())),
            };
        }
        if connection.tls {
            return Err(Status::unauthenticated("neither a client certificate nor a bearer token was presented"));
        }
        Ok(None)
    }
}

fn bearer(metadata: &MetadataMap) -> Result<Option<&str>, Status> {
    let Some(value) = metadata.get("authorization") else { return Ok(None) };
    let value = value.to_str().map_err(|_| Status::unauthenticated("authorization is not ASCII"))?;
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(token.trim())),
        _ => Err(Status::unauthenticated("authorization is not a bearer token")),
    }
}

/// Identity and expiry of a client certificate whose chain the handshake has already verified.
pub fn from_certificate(der: &[u8], trust_domain: &str) -> Result<Caller, String> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|e| format!("unreadable certificate: {e}"))?;
    let san = certificate
        .subject_alternative_name()
        .map_err(|e| format!("unreadable subjectAltName: {e}"))?
        .ok_or("certificate has no subjectAltName")?;
    let uris: Vec<&str> = san
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
        .collect();
    // SPIFFE: exactly one URI SAN in an X.509-SVID.
    let [uri] = uris.as_slice() else { return Err(format!("certificate has {} URI names, not one", uris.len())) };
    let identity = Identity::from_uri(uri).map_err(|e| e.to_string())?;
    if identity.trust_domain() != trust_domain {
        return Err(format!("trust domain `{}` is not `{trust_domain}`", identity.trust_domain()));
    }
    let expires = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
    let expires = SystemTime::UNIX_EPOCH.checked_add(std::time::Duration::from_secs(expires));
    Ok(Caller { identity, proof: Proof::Certificate, expires })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::state::StateDir;

    fn setup() -> (tempfile::TempDir, Authenticator, MetadataMap, SystemTime) {
        let dir = tempfile::tempdir().unwrap();
        let tokens = Tokens::open(&StateDir::open(&dir.path().join("s")).unwrap(), "cluster.local").unwrap();
        let now = SystemTime::now();
        let identity = Identity::new("cluster.local", "a", "b").unwrap();
        let mut metadata = MetadataMap::new();
        let token = tokens.mint(&identity, Duration::from_secs(60), now);
        metadata.insert("authorization", format!("Bearer {token}").parse().unwrap());
        (dir, Authenticator::new(Arc::new(tokens)), metadata, now)
    }

    fn connection(peer: &str, tls: bool) -> Connection {
        Connection::new(peer.parse().unwrap(), tls, None)
    }

    #[test]
    fn tokens_are_for_tls_or_loopback() {
        let (_dir, auth, metadata, now) = setup();
        for (peer, tls, fine) in [
            ("10.0.0.1:1", true, true),
            ("10.0.0.1:1", false, false),
            ("127.0.0.1:1", false, true),
            ("[::ffff:127.0.0.1]:1", false, true),
        ] {
            assert_eq!(auth.authenticate(&connection(peer, tls), &metadata, now).is_ok(), fine, "{peer} {tls}");
        }
    }

    #[test]
    fn nobody_passes_in_plaintext_only_and_a_bad_credential_never() {
        let (_dir, auth, _, now) = setup();
        let mut metadata = MetadataMap::new();
        assert_eq!(auth.authenticate(&connection("10.0.0.1:1", false), &metadata, now).unwrap(), None);
        assert!(auth.authenticate(&connection("10.0.0.1:1", true), &metadata, now).is_err());
        for bad in ["Bearer x.y.z", "Basic dTpw", "Bearer"] {
            metadata.insert("authorization", bad.parse().unwrap());
            let status = auth.authenticate(&connection("127.0.0.1:1", false), &metadata, now).unwrap_err();
            assert_eq!(status.code(), tonic::Code::Unauthenticated, "{bad}");
        }
    }

    #[test]
    fn a_certificate_lapses_on_a_live_connection() {
        let (_dir, auth, metadata, now) = setup();
        let mut connection = connection("10.0.0.1:1", true);
        let identity = Identity::new("cluster.local", "c", "d").unwrap();
        connection.certificate =
            Some(Caller { identity: identity.clone(), proof: Proof::Certificate, expires: Some(now) });
        assert!(auth.authenticate(&connection, &metadata, now).is_err());
        let caller = auth.authenticate(&connection, &metadata, now - Duration::from_secs(1)).unwrap().unwrap();
        assert_eq!(caller.identity, identity, "the certificate goes before the token");
    }
}

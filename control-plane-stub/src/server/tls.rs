//! The TLS side of the listener: our own certificate, rotated at half life, and the check of client certificates.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use arc_swap::ArcSwap;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
};
use tokio_util::sync::CancellationToken;

use crate::{
    ca::{Authority, pem_to_der},
    resources::CONTROL_PLANE,
};

/// Names a mesh finds the control plane by, whatever the operator adds.
pub(super) const STANDARD_NAMES: [&str; 5] =
    ["localhost", "127.0.0.1", "::1", "istiod.istio-system.svc", CONTROL_PLANE];
/// Pause before another try when issuing failed.
const RETRY: Duration = Duration::from_secs(30);

/// The listener's current certificate.
pub(super) struct OwnCertificate {
    authority: Arc<Authority>,
    names: Vec<String>,
    provider: Arc<CryptoProvider>,
    current: ArcSwap<(CertifiedKey, SystemTime)>,
}

impl fmt::Debug for OwnCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnCertificate").field("names", &self.names).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for OwnCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::new(self.current.load().0.clone()))
    }
}

impl OwnCertificate {
    pub(super) fn issue(authority: Arc<Authority>, extra: &[String]) -> anyhow::Result<Arc<Self>> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let names: Vec<String> = STANDARD_NAMES.iter().map(|n| (*n).to_owned()).chain(extra.iter().cloned()).collect();
        let first = issue(&authority, &names, &provider)?;
        Ok(Arc::new(Self { authority, names, provider, current: ArcSwap::from_pointee(first) }))
    }

    /// The listener's TLS configuration.
    pub(super) fn config(self: &Arc<Self>) -> anyhow::Result<ServerConfig> {
        let mut roots = RootCertStore::empty();
        for root in self.authority.roots() {
            roots.add(CertificateDer::from(root.der.clone())).context("our own root")?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .allow_unauthenticated()
            .build()
            .context("client certificate verifier")?;
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .context("TLS versions")?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec()];
        // Every connection proves its certificate anew: a resumed session would outlive the certificate behind it.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// Replaces the certificate whenever half of its life has passed.
    pub(super) async fn rotate(self: Arc<Self>, shutdown: CancellationToken) {
        loop {
            let renew_at = self.current.load().1;
            let pause = renew_at.duration_since(SystemTime::now()).unwrap_or_default();
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            match issue(&self.authority, &self.names, &self.provider) {
                Ok(next) => {
                    self.current.store(Arc::new(next));
                    tracing::info!("the listener's certificate was replaced");
                }
                Err(error) => {
                    tracing::error!(error = format!("{error:#}"), "cannot replace the listener's certificate");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

fn issue(
    authority: &Authority,
    names: &[String],
    provider: &CryptoProvider,
) -> anyhow::Result<(CertifiedKey, SystemTime)> {
    let keyed = authority.issue_server(names, SystemTime::now())?;
    let chain = vec![CertificateDer::from(pem_to_der(&keyed.leaf.certificate)?)];
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(keyed.key_der.clone()));
    let certified = CertifiedKey::from_der(chain, key, provider).context("our own certificate")?;
    Ok((certified, keyed.renew_at()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::StateDir;

    #[tokio::test]
    async fn the_certificate_is_replaced_before_it_expires() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&dir.path().join("s")).unwrap();
        let authority = Arc::new(Authority::open(&state, "cluster.local", Duration::from_secs(2)).unwrap());
        let own = OwnCertificate::issue(authority, &["extra.example".into()]).unwrap();
        let first = own.current.load().0.cert.clone();
        let shutdown = CancellationToken::new();
        let rotation = tokio::spawn(Arc::clone(&own).rotate(shutdown.clone()));
        let replaced = async {
            while own.current.load().0.cert == first {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), replaced).await.expect("replaced");
        shutdown.cancel();
        rotation.await.unwrap();
    }

    #[test]
    fn a_name_that_cannot_be_in_a_certificate_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&dir.path().join("s")).unwrap();
        let authority = Arc::new(Authority::open(&state, "cluster.local", Duration::from_secs(60)).unwrap());
        assert!(OwnCertificate::issue(authority, &["ä.example".into()]).is_err());
    }
}

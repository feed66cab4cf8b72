//! SDS over ADS: `ROOTCA` for everybody, `default` (certificate and key made here) for a proven identity.
//!
//! One [`Secrets`] belongs to one stream: each gets its own key, and none outlives its stream.

use std::{sync::Arc, time::SystemTime};

use outrigger_wire::{
    pack_any,
    pb::envoy::{
        config::core::v3::{DataSource, data_source::Specifier},
        extensions::transport_sockets::tls::v3::{
            CertificateValidationContext, Secret, TlsCertificate, secret::Type as SecretType,
        },
    },
};
use tonic::Status;

use super::source::{Set, version};
use crate::{
    auth::Identity,
    ca::{Authority, KeyedLeaf, service::Brake},
};

/// The workload's own certificate and key.
pub(super) const DEFAULT: &str = "default";
/// The mesh's trust anchor.
pub(super) const ROOTCA: &str = "ROOTCA";

pub(super) struct Secrets {
    authority: Arc<Authority>,
    brake: Arc<Brake>,
    identity: Option<Identity>,
    leaf: Option<KeyedLeaf>,
}

impl Secrets {
    pub(super) fn new(authority: Arc<Authority>, brake: Arc<Brake>, identity: Option<Identity>) -> Self {
        Self { authority, brake, identity, leaf: None }
    }

    /// The secrets to serve; `default` is issued on first want and again once half of its life has passed.
    pub(super) fn set(&mut self, wants_default: bool, now: SystemTime) -> Result<Set, Status> {
        let mut set = Set::new();
        set.insert(ROOTCA.to_owned(), version(pack_any(root(self.authority.root_pem()))));
        if wants_default {
            let identity = self.identity.as_ref().ok_or_else(|| {
                Status::unauthenticated(
                    "the secret `default` needs a proven identity: use the TLS port with a bearer token or a client \
                     certificate",
                )
            })?;
            let leaf = match self.leaf.take() {
                Some(leaf) if leaf.renew_at() > now => leaf,
                _ => {
                    self.brake.allow(identity)?;
                    let leaf = self.authority.issue(identity, now).map_err(|e| Status::internal(e.to_string()))?;
                    tracing::info!(%identity, "key and certificate issued over SDS");
                    leaf
                }
            };
            set.insert(DEFAULT.to_owned(), version(pack_any(certificate(&leaf))));
            self.leaf = Some(leaf);
        }
        Ok(set)
    }

    /// When `default` must be replaced.
    pub(super) fn renew_at(&self) -> Option<SystemTime> {
        self.leaf.as_ref().map(KeyedLeaf::renew_at)
    }
}

fn inline(text: &str) -> Option<DataSource> {
    Some(DataSource { specifier: Some(Specifier::InlineString(text.to_owned())), ..DataSource::default() })
}

fn root(pem: &str) -> Secret {
    let context = CertificateValidationContext { trusted_ca: inline(pem), ..Default::default() };
    Secret { name: ROOTCA.to_owned(), r#type: Some(SecretType::ValidationContext(context)) }
}

fn certificate(leaf: &KeyedLeaf) -> Secret {
    let certificate = TlsCertificate {
        certificate_chain: inline(&leaf.leaf.certificate),
        private_key: inline(&leaf.key_pem),
        ..Default::default()
    };
    Secret { name: DEFAULT.to_owned(), r#type: Some(SecretType::TlsCertificate(certificate)) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::state::StateDir;

    #[test]
    fn issued_once_then_at_half_life_and_never_without_identity() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&dir.path().join("s")).unwrap();
        let hour = Duration::from_secs(3600);
        let authority = Arc::new(Authority::open(&state, "cluster.local", hour).unwrap());
        let now = SystemTime::now();

        let mut nobody = Secrets::new(Arc::clone(&authority), Arc::default(), None);
        assert_eq!(nobody.set(false, now).unwrap().keys().collect::<Vec<_>>(), [ROOTCA]);
        assert_eq!(nobody.set(true, now).unwrap_err().code(), tonic::Code::Unauthenticated);

        let identity = Identity::new("cluster.local", "a", "b").unwrap();
        let brake = Arc::new(Brake::default());
        let mut somebody = Secrets::new(Arc::clone(&authority), Arc::clone(&brake), Some(identity.clone()));
        let first = somebody.set(true, now).unwrap();
        assert_eq!(somebody.set(true, now + hour / 4).unwrap(), first);
        assert_eq!(somebody.renew_at(), Some(now + hour / 2));
        let second = somebody.set(true, now + hour / 2).unwrap();
        assert_ne!(second[DEFAULT].version, first[DEFAULT].version);
        assert_eq!(second[ROOTCA].version, first[ROOTCA].version);

        // However many streams an identity opens, its keys are as many as it may ask certificates for.
        while brake.allow(&identity).is_ok() {}
        let mut another = Secrets::new(authority, brake, Some(identity));
        assert_eq!(another.set(true, now).unwrap_err().code(), tonic::Code::ResourceExhausted);
    }
}

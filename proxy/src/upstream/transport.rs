//! Which transport socket an endpoint uses: the first `transport_socket_matches` entry its metadata satisfies, else the
//! cluster's own.
//!
//! Owns the TLS contexts of a cluster, one per distinct configuration, carried over to the next view while the
//! configuration stays equal (sessions and connections survive). Knows nothing of handshakes.

use std::sync::Arc;

use crate::{
    ir::{
        Metadata,
        cluster::{Cluster, TransportMatch},
        secret::UpstreamTls,
    },
    tls::{
        client::{ClientContext, Prepared},
        secrets::Secrets,
    },
};

/// The metadata namespace that `transport_socket_matches` look at.
const NAMESPACE: &str = "envoy.transport_socket_match";

/// A TLS configuration and what was built from it.
#[derive(Clone, Debug)]
pub(super) struct Transport {
    pub(super) config: Arc<UpstreamTls>,
    pub(super) context: Arc<ClientContext>,
}

/// All transport sockets of one cluster.
#[derive(Debug, Default)]
pub(super) struct Transports {
    contexts: Vec<Transport>,
    /// Indices into `contexts`; `None` is plaintext.
    default: Option<usize>,
    matches: Vec<(TransportMatch, Option<usize>)>,
}

impl Transports {
    pub(super) fn new(
        config: &Cluster,
        secrets: &Arc<Secrets>,
        prepared: &[Prepared],
        previous: Option<&Self>,
    ) -> Result<Self, String> {
        let mut transports = Self::default();
        transports.default = transports.intern(config.tls.as_ref(), secrets, prepared, previous)?;
        for entry in &config.transport_matches {
            let index = transports.intern(entry.tls.as_ref(), secrets, prepared, previous)?;
            transports.matches.push((entry.clone(), index));
        }
        Ok(transports)
    }

    fn intern(
        &mut self,
        config: Option<&Arc<UpstreamTls>>,
        secrets: &Arc<Secrets>,
        prepared: &[Prepared],
        previous: Option<&Self>,
    ) -> Result<Option<usize>, String> {
        let Some(config) = config else { return Ok(None) };
        let same = |t: &&Transport| Arc::ptr_eq(&t.config, config) || t.config == *config;
        if let Some(index) = self.contexts.iter().position(|t| same(&t)) {
            return Ok(Some(index));
        }
        let transport = match previous.and_then(|p| p.contexts.iter().find(same)) {
            Some(transport) => transport.clone(),
            None => Transport {
                config: config.clone(),
                context: ClientContext::with(config.clone(), secrets.clone(), prepared).map_err(|e| e.to_string())?,
            },
        };
        self.contexts.push(transport);
        Ok(Some(self.contexts.len() - 1))
    }

    /// The transport socket of an endpoint with `metadata`, `None` for plaintext.
    pub(super) fn select(&self, metadata: Option<&Metadata>) -> Option<&Transport> {
        let claimed = self.position(metadata).map(|at| self.matches[at].1);
        claimed.unwrap_or(self.default).map(|index| &self.contexts[index])
    }

    /// The first entry that claims `metadata`; one without criteria claims every endpoint.
    pub(super) fn position(&self, metadata: Option<&Metadata>) -> Option<usize> {
        let labels = metadata.and_then(|m| m.get(NAMESPACE));
        self.matches.iter().position(|(entry, _)| {
            entry.criteria.iter().all(|(key, value)| labels.and_then(|l| l.get(key)) == Some(value))
        })
    }

    /// Whether every context has the secrets it needs.
    pub(super) fn ready(&self) -> bool {
        self.contexts.iter().all(|t| t.context.ready())
    }
}

//! What the control plane knows about itself and its clients, for people and for `outriggerctl wait`.
//!
//! Owns the registry of connected clients and the state of the configuration; [`http`] shows it, [`metrics`] counts.
//! Knows nothing of gRPC. Every text that came from a peer is cut to a bounded length.

pub mod http;
pub mod metrics;
pub mod report;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::SystemTime,
};

use self::{metrics::Metrics, report::TypeReport};
use crate::{auth::Caller, model::Problem, ratelimit::service::RateLimits, resources::Node, server::types::TypeUrl};

/// Longest NACK text kept.
const MAX_NACK_TEXT: usize = 4096;

/// State of the configuration directory.
#[derive(Clone, Debug, Default)]
pub struct ConfigState {
    /// Served generation, 0 before the first good load.
    pub version: u64,
    /// Content hash of what is served.
    pub served: String,
    /// Content hash of what was last looked at, good or bad.
    pub observed: String,
    /// Why the last look was refused; empty if it was not.
    pub problems: Vec<Problem>,
    pub loaded_at: Option<SystemTime>,
}

/// The root of everything reported.
pub struct Status {
    pub metrics: Arc<Metrics>,
    pub started: SystemTime,
    /// Once a server serves it.
    pub rate_limits: OnceLock<Arc<RateLimits>>,
    config: Mutex<ConfigState>,
    proxies: Mutex<BTreeMap<u64, Arc<Proxy>>>,
    next_id: AtomicU64,
}

impl Default for Status {
    fn default() -> Self {
        Self {
            metrics: Arc::default(),
            started: SystemTime::now(),
            rate_limits: OnceLock::new(),
            config: Mutex::default(),
            proxies: Mutex::default(),
            next_id: AtomicU64::default(),
        }
    }
}

impl Status {
    pub fn config(&self) -> ConfigState {
        self.config.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn update_config(&self, change: impl FnOnce(&mut ConfigState)) {
        change(&mut self.config.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// All connected clients.
    pub fn proxies(&self) -> Vec<Arc<Proxy>> {
        self.proxies.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Adds a client; it is gone again when the returned value is dropped.
    pub fn connect(
        self: &Arc<Self>,
        node: Node,
        peer: SocketAddr,
        caller: Option<Caller>,
        variant: &'static str,
    ) -> Connected {
        let id = self.next_id.fetch_add(1, Relaxed);
        let proxy =
            Arc::new(Proxy { node, peer, caller, variant, connected: SystemTime::now(), state: Mutex::default() });
        self.proxies.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::clone(&proxy));
        Connected { status: Arc::clone(self), id, proxy }
    }
}

/// Keeps a client listed while its stream lives.
pub struct Connected {
    status: Arc<Status>,
    id: u64,
    pub proxy: Arc<Proxy>,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.status.proxies.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

/// One connected client.
pub struct Proxy {
    pub node: Node,
    pub peer: SocketAddr,
    pub caller: Option<Caller>,
    pub variant: &'static str,
    pub connected: SystemTime,
    state: Mutex<ProxyState>,
}

#[derive(Clone, Debug, Default)]
pub struct ProxyState {
    /// The newest generation all of which has been sent.
    pub sent: u64,
    pub types: BTreeMap<TypeUrl, TypeReport>,
}

impl Proxy {
    pub fn state(&self) -> ProxyState {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A request came in: the client subscribes to `kind`.
    pub fn subscribed(&self, kind: &TypeUrl) {
        self.with(kind, |_| {});
    }

    pub fn pushed(&self, kind: &TypeUrl, version: &str, resources: usize) {
        self.with(kind, |report| {
            version.clone_into(&mut report.sent);
            report.resources = resources;
            report.pushes += 1;
        });
    }

    pub fn acked(&self, kind: &TypeUrl, version: &str) {
        self.with(kind, |report| version.clone_into(&mut report.acked));
    }

    pub fn nacked(&self, kind: &TypeUrl, version: &str, text: &str) {
        let end = (0..=text.len().min(MAX_NACK_TEXT)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        self.with(kind, |report| {
            report.nacks += 1;
            report.last_nack = Some(report::Nack {
                version: version.to_owned(),
                message: text[..end].to_owned(),
                at: report::rfc3339(SystemTime::now()),
            });
        });
    }

    /// All types are up to date with `generation` on the wire.
    pub fn reached(&self, generation: u64) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).sent = generation;
    }

    /// Has the client refused something that still stands?
    pub fn standing(&self, kind: &TypeUrl, waiting: bool, refused: bool) {
        self.with(kind, |report| (report.waiting, report.refused) = (waiting, refused));
    }

    fn with(&self, kind: &TypeUrl, change: impl FnOnce(&mut TypeReport)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(state.types.entry(kind.clone()).or_default());
    }
}

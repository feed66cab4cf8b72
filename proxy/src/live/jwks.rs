//! The key sets of the issuers that one JWT filter knows, shared by all workers.
//!
//! Who needs keys that are not here, or not valid any more, fetches them while all others wait. Invariant: at most one
//! fetch of a set is under way, and who waited for one that failed does not begin another.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use tokio::sync::{Mutex, MutexGuard};

use crate::{
    ir::jwt_authn::{JwksSource, JwtAuthn, RemoteJwks},
    policy::jwt::Jwks,
    telemetry::{filters::JwtStats, metrics::Sharded},
};

/// What the workers share of one filter.
pub struct LiveJwt {
    pub config: Arc<JwtAuthn>,
    pub stats: Arc<Sharded<JwtStats>>,
    /// By the places of the providers.
    pub keys: Vec<KeyStore>,
}

impl LiveJwt {
    pub fn new(config: &Arc<JwtAuthn>, stats: Arc<Sharded<JwtStats>>) -> Self {
        Self { config: config.clone(), stats, keys: config.providers.iter().map(|p| KeyStore::new(&p.keys)).collect() }
    }

    /// The key sets that are fetched before they are needed, with their places.
    pub fn ahead(&self) -> impl Iterator<Item = (usize, &RemoteJwks)> {
        self.config.providers.iter().enumerate().filter_map(|(place, provider)| match &provider.keys {
            JwksSource::Remote(remote) if remote.ahead.is_some() => Some((place, &**remote)),
            JwksSource::Remote(_) | JwksSource::Local(_) => None,
        })
    }
}

/// One key set.
pub struct KeyStore {
    current: ArcSwapOption<Kept>,
    /// The last failure.
    failed: Mutex<Option<Instant>>,
}

/// A key set as long as it is valid.
pub struct Kept {
    pub keys: Jwks,
    /// `None`: for ever.
    pub until: Option<Instant>,
}

impl Kept {
    pub fn is_valid(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// The right to fetch a key set.
pub struct Fetching<'a> {
    store: &'a KeyStore,
    failed: MutexGuard<'a, Option<Instant>>,
}

impl KeyStore {
    fn new(source: &JwksSource) -> Self {
        let kept = match source {
            JwksSource::Local(text) => Jwks::parse(text).ok().map(|keys| Arc::new(Kept { keys, until: None })),
            JwksSource::Remote(_) => None,
        };
        Self { current: ArcSwapOption::new(kept), failed: Mutex::new(None) }
    }

    /// The keys that are here, valid or not.
    pub fn get(&self) -> Option<Arc<Kept>> {
        self.current.load_full()
    }

    /// Waits for the right to fetch; `None` when a fetch failed while waiting, or less than `pause` ago.
    pub async fn fetch(&self, pause: Duration) -> Option<Fetching<'_>> {
        let since = Instant::now();
        let failed = self.failed.lock().await;
        failed.is_none_or(|at| at < since && since - at >= pause).then_some(Fetching { store: self, failed })
    }

    /// The right to fetch, unless somebody has it, or failed less than `pause` ago.
    pub fn try_fetch(&self, pause: Duration) -> Option<Fetching<'_>> {
        let failed = self.failed.try_lock().ok()?;
        failed.is_none_or(|at| at.elapsed() >= pause).then_some(Fetching { store: self, failed })
    }
}

impl Fetching<'_> {
    /// Puts fetched keys in force.
    pub fn done(self, keys: Jwks, valid: Duration) -> Arc<Kept> {
        let kept = Arc::new(Kept { keys, until: Some(Instant::now() + valid) });
        self.store.current.store(Some(kept.clone()));
        kept
    }

    pub fn failed(mut self) {
        *self.failed = Some(Instant::now());
    }
}

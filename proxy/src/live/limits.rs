//! Rate limits of connections.
//!
//! A bucket belongs to one filter of one chain, unless a share key makes it common property: then filters with the same
//! key and the same bucket draw from one. Invariant: a shared bucket lives as long as any filter that draws from it.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::{
    ir::rate_limit::{ConnectionRateLimit, GlobalConnectionRateLimit, TokenBucket},
    policy::rate_limit::bucket::Bucket,
    telemetry::{
        limits::{ConnectionLimitStats, GlobalConnectionLimitStats},
        metrics::Sharded,
    },
};

/// Of the whole process, as the limits they stand for.
static SHARED: Mutex<Vec<Shared>> = Mutex::new(Vec::new());

struct Shared {
    key: Box<str>,
    config: TokenBucket,
    bucket: Weak<Bucket>,
}

/// The network filter `local_ratelimit`.
#[derive(Debug)]
pub struct LiveConnectionLimit {
    enabled: bool,
    bucket: Arc<Bucket>,
    pub stats: Arc<Sharded<ConnectionLimitStats>>,
}

impl LiveConnectionLimit {
    pub fn new(config: &ConnectionRateLimit, stats: Arc<Sharded<ConnectionLimitStats>>) -> Self {
        Self { enabled: config.enabled, bucket: bucket(config), stats }
    }

    /// Takes a token for a connection, if there is one.
    pub fn admit(&self, now: f64) -> bool {
        !self.enabled || self.bucket.take(now, 1.0, 1)
    }

    /// Whether there is one.
    pub fn would_admit(&self, now: f64) -> bool {
        !self.enabled || self.bucket.remaining(now) > 0
    }
}

fn bucket(config: &ConnectionRateLimit) -> Arc<Bucket> {
    let made = || Arc::new(Bucket::new(&config.bucket));
    if config.share_key.is_empty() {
        return made();
    }
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.retain(|s| s.bucket.strong_count() > 0);
    let known = shared.iter().filter(|s| s.key == config.share_key && s.config == config.bucket);
    if let Some(bucket) = known.filter_map(|s| s.bucket.upgrade()).next() {
        return bucket;
    }
    let bucket = made();
    let entry = Shared { key: config.share_key.clone(), config: config.bucket, bucket: Arc::downgrade(&bucket) };
    shared.push(entry);
    bucket
}

/// The network filter `ratelimit`.
#[derive(Debug)]
pub struct LiveGlobalConnectionLimit {
    pub config: Arc<GlobalConnectionRateLimit>,
    pub stats: Arc<Sharded<GlobalConnectionLimitStats>>,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn limit(share_key: &str, max_tokens: u32) -> LiveConnectionLimit {
        let bucket = TokenBucket { max_tokens, tokens_per_fill: 1, fill_interval: Duration::from_secs(60) };
        let config =
            ConnectionRateLimit { stat_prefix: "s".into(), bucket, enabled: true, share_key: share_key.into() };
        LiveConnectionLimit::new(&config, Arc::default())
    }

    #[test]
    fn buckets_are_shared_by_key_and_size() {
        let (a, b) = (limit("shared-by-key", 3), limit("shared-by-key", 3));
        let (other, own, own_too) = (limit("shared-by-key", 2), limit("", 3), limit("", 3));
        assert!(a.would_admit(0.0));
        assert_eq!([a.admit(0.0), b.admit(0.0), a.admit(0.0), b.admit(0.0)], [true, true, true, false]);
        assert!(!a.would_admit(0.0));
        assert!(other.admit(0.0) && own.admit(0.0) && own_too.admit(0.0));
        drop((a, b));
        assert!(limit("shared-by-key", 3).admit(0.0), "nobody drew from it any more");
    }

    #[test]
    fn one_that_is_off_admits_all() {
        let off = LiveConnectionLimit { enabled: false, ..limit("", 0) };
        assert!(off.admit(0.0) && off.would_admit(0.0) && !limit("", 0).admit(0.0));
    }
}

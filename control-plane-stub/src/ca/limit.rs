//! A token bucket per key: how often one identity may ask for a certificate.
//!
//! Pure: time comes in as an argument. Invariant: memory is bounded whatever the number of keys; when full, buckets
//! that have refilled (and so carry no information) go first, then new keys are refused.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

struct Bucket {
    tokens: f64,
    at: Instant,
}

/// Buckets of `burst` tokens, refilled one per `period`.
pub struct Limiter<K> {
    buckets: HashMap<K, Bucket>,
    burst: f64,
    period: Duration,
    max_keys: usize,
}

impl<K: Hash + Eq + Clone> Limiter<K> {
    pub fn new(burst: u32, period: Duration, max_keys: usize) -> Self {
        Self { buckets: HashMap::new(), burst: f64::from(burst), period, max_keys }
    }

    /// Takes one token of `key` if there is one.
    pub fn allow(&mut self, key: &K, now: Instant) -> bool {
        if !self.buckets.contains_key(key) && self.buckets.len() >= self.max_keys {
            let (burst, period) = (self.burst, self.period);
            self.buckets.retain(|_, bucket| level(bucket, burst, period, now) < burst);
            if self.buckets.len() >= self.max_keys {
                return false;
            }
        }
        let (burst, period) = (self.burst, self.period);
        let bucket = self.buckets.entry(key.clone()).or_insert(Bucket { tokens: burst, at: now });
        bucket.tokens = level(bucket, burst, period, now);
        bucket.at = now;
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }
}

fn level(bucket: &Bucket, burst: f64, period: Duration, now: Instant) -> f64 {
    let refilled = now.saturating_duration_since(bucket.at).as_secs_f64() / period.as_secs_f64();
    (bucket.tokens + refilled).min(burst)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_then_one_per_period() {
        let mut limiter = Limiter::new(3, Duration::from_secs(2), 10);
        let start = Instant::now();
        assert_eq!((0..5).filter(|_| limiter.allow(&"a", start)).count(), 3);
        assert!(limiter.allow(&"b", start), "keys do not share");
        assert!(!limiter.allow(&"a", start + Duration::from_secs(1)));
        assert!(limiter.allow(&"a", start + Duration::from_millis(2500)));
    }

    #[test]
    fn memory_is_bounded_and_refilled_buckets_make_room() {
        let mut limiter = Limiter::new(1, Duration::from_secs(1), 2);
        let start = Instant::now();
        assert!(limiter.allow(&1, start));
        assert!(limiter.allow(&2, start));
        assert!(!limiter.allow(&3, start), "full");
        assert!(limiter.allow(&3, start + Duration::from_secs(5)));
        assert_eq!(limiter.buckets.len(), 1);
    }
}

//! A token bucket that all workers draw from, without a lock.
//!
//! Its whole state is one number: the moment at which the bucket was (or, filling at its rate, would have been) empty.
//! Taking tokens moves that moment towards now, with one compare-and-swap. That is the arithmetic of Envoy's bucket:
//! tokens come continuously at `tokens_per_fill / fill_interval`, never all at once. Knows no clock: moments are seconds
//! since an origin that the callers share. Invariant: over any period no more is taken than was there plus what came.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{AcqRel, Acquire},
};

use crate::ir::rate_limit::TokenBucket;

/// Envoy's least rate: a token a year.
const LEAST_RATE: f64 = 1.0 / (365.0 * 24.0 * 3600.0);

/// See the module's head.
#[derive(Debug)]
pub struct Bucket {
    max: f64,
    /// Tokens per second.
    rate: f64,
    /// The bits of an `f64`: when the bucket was empty. Minus infinity at first: it is full.
    empty_at: AtomicU64,
}

impl Bucket {
    pub fn new(config: &TokenBucket) -> Self {
        let interval = config.fill_interval.as_secs_f64();
        let rate = if interval > 0.0 { f64::from(config.tokens_per_fill) / interval } else { 0.0 };
        Self {
            max: f64::from(config.max_tokens),
            rate: rate.max(LEAST_RATE),
            empty_at: AtomicU64::new(f64::NEG_INFINITY.to_bits()),
        }
    }

    /// Tokens per second.
    pub fn rate(&self) -> f64 {
        self.rate
    }

    pub fn max(&self) -> u64 {
        self.max as u64
    }

    /// Takes `tokens`, if there are that many. Where several proxies share the limit each token counts for as many.
    pub fn take(&self, now: f64, tokens: f64, share: u32) -> bool {
        let (wanted, max) = self.wanted(tokens, share);
        self.change(now, max, |there| (there >= wanted).then_some(there - wanted))
    }

    /// Whether [`Self::take`] would succeed.
    pub fn has(&self, now: f64, tokens: f64, share: u32) -> bool {
        let (wanted, max) = self.wanted(tokens, share);
        self.there(now, self.empty_at.load(Acquire), max) >= wanted
    }

    /// What so many tokens cost, and how much the bucket may hold for it.
    fn wanted(&self, tokens: f64, share: u32) -> (f64, f64) {
        let wanted = tokens * f64::from(share.max(1));
        // A bucket smaller than the number of proxies must fill up to one token for each of them: else none ever passes.
        let max = if tokens <= self.max && self.max > 0.0 { self.max.max(wanted) } else { self.max };
        (wanted, max)
    }

    /// Gives `tokens` back, as far as they fit.
    pub fn give(&self, now: f64, tokens: f64) {
        self.change(now, self.max, |there| Some((there + tokens).min(self.max)));
    }

    /// Whole tokens that are there.
    pub fn remaining(&self, now: f64) -> u64 {
        self.there(now, self.empty_at.load(Acquire), self.max).max(0.0) as u64
    }

    /// Seconds until so many tokens have come, whether they fit or not.
    pub fn wait(&self, now: f64, tokens: f64) -> f64 {
        let there = self.there(now, self.empty_at.load(Acquire), self.max);
        ((tokens - there) / self.rate).max(0.0)
    }

    fn there(&self, now: f64, empty_at: u64, max: f64) -> f64 {
        ((now - f64::from_bits(empty_at)) * self.rate).min(max)
    }

    /// Sets what is there to what `to` makes of it, unless it refuses.
    fn change(&self, now: f64, max: f64, to: impl Fn(f64) -> Option<f64>) -> bool {
        let mut known = self.empty_at.load(Acquire);
        loop {
            // A worker whose clock was read earlier sees a little less than there is: it never takes too much.
            let Some(left) = to(self.there(now, known, max)) else { return false };
            let new = (now - left / self.rate).to_bits();
            match self.empty_at.compare_exchange_weak(known, new, AcqRel, Acquire) {
                Ok(_) => return true,
                Err(other) => known = other,
            }
        }
    }
}

//! How many requests a service can take at a time: the gradient controller of the adaptive concurrency filter.
//!
//! Pure: time and randomness come in. Now and then the limit is lowered to measure the latency of an idle service;
//! between, it follows the ratio of that latency to the present one. Invariant: the limit stays in its bounds.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use self::histogram::Histogram;
use crate::ir::filters::Concurrency;

mod histogram;
#[cfg(test)]
mod tests;

/// Windows in a row at the lower bound after which the measured latency is not believed any more.
const SUSPICIOUS: u32 = 5;

/// See the module's head.
#[derive(Debug)]
pub struct Gradient {
    config: Arc<Concurrency>,
    limit: u32,
    /// The limit to return to; there is one while the least latency is measured.
    deferred: Option<u32>,
    least: Duration,
    samples: Histogram,
    /// Samples of requests that began earlier say nothing about the present window.
    epoch: Instant,
    next_update: Instant,
    next_measurement: Option<Instant>,
    at_bottom: u32,
    seen: Seen,
}

/// What the last decisions looked at, for the statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Seen {
    pub gradient: f64,
    pub burst: f64,
    pub sample: Duration,
}

fn share(millionths: u32) -> f64 {
    f64::from(millionths) / 1e6
}

impl Gradient {
    pub fn new(config: Arc<Concurrency>, now: Instant) -> Self {
        let mut gradient = Self {
            limit: config.min_concurrency,
            deferred: None,
            least: config.fixed.unwrap_or_default(),
            samples: Histogram::default(),
            epoch: now,
            next_update: now + config.update_interval,
            next_measurement: None,
            at_bottom: 0,
            seen: Seen::default(),
            config,
        };
        if gradient.config.measurement_interval.is_some() {
            gradient.measure(now);
        }
        gradient
    }

    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// Whether the least latency is being measured.
    pub fn is_measuring(&self) -> bool {
        self.deferred.is_some()
    }

    pub fn least(&self) -> Duration {
        self.least
    }

    pub fn seen(&self) -> Seen {
        self.seen
    }

    /// When [`Self::advance`] has something to do; a measurement ends with its last sample instead.
    pub fn next(&self) -> Option<Instant> {
        match (self.is_measuring(), self.next_measurement) {
            (true, _) => None,
            (false, Some(at)) => Some(at.min(self.next_update)),
            (false, None) => Some(self.next_update),
        }
    }

    /// Does what time alone brings about.
    pub fn advance(&mut self, now: Instant) {
        if !self.is_measuring() && now >= self.next_update {
            self.update();
            self.next_update = now + self.config.update_interval;
        }
        let suspicious = self.at_bottom >= SUSPICIOUS && self.config.measurement_interval.is_some();
        if !self.is_measuring() && (suspicious || self.next_measurement.is_some_and(|at| now >= at)) {
            self.measure(now);
        }
    }

    /// A request that began at `started` was answered.
    pub fn sample(&mut self, started: Instant, now: Instant, random: u64) {
        if started < self.epoch {
            return;
        }
        self.samples.add(now.saturating_duration_since(started));
        if self.is_measuring() && self.samples.count() >= self.config.request_count {
            self.measured(now, random);
        }
    }

    fn measure(&mut self, now: Instant) {
        self.deferred = Some(self.limit);
        self.set(self.config.min_concurrency);
        self.samples.clear();
        self.epoch = now;
    }

    fn measured(&mut self, now: Instant, random: u64) {
        self.least = self.samples.quantile(share(self.config.percentile));
        self.samples.clear();
        if let Some(limit) = self.deferred {
            self.set(limit);
        }
        self.deferred = None;
        self.next_update = now + self.config.update_interval;
        self.next_measurement = self.config.measurement_interval.map(|interval| {
            let drawn = (random % 10_000) as f64 / 10_000.0;
            now + interval + interval.mul_f64(share(self.config.jitter) * drawn)
        });
    }

    /// The next limit, from the latency since the last one.
    fn update(&mut self) {
        if self.samples.count() == 0 {
            return;
        }
        let sample = self.samples.quantile(share(self.config.percentile)).max(Duration::from_micros(1));
        self.samples.clear();
        let wanted = self.least.as_secs_f64() * (1.0 + share(self.config.buffer));
        let gradient = (wanted / sample.as_secs_f64()).clamp(0.5, 2.0);
        let limit = f64::from(self.limit) * gradient;
        let burst = limit.sqrt();
        self.seen = Seen { gradient, burst, sample };
        // In the range of the bounds, both of them whole numbers.
        let limit = (limit + burst).clamp(0.0, f64::from(u32::MAX)) as u32;
        self.set(limit.min(self.config.max_limit).max(self.config.min_limit));
    }

    fn set(&mut self, limit: u32) {
        let bottom = self.config.min_limit;
        let stays = !self.is_measuring() && self.limit == bottom && limit == bottom;
        self.at_bottom = if stays { self.at_bottom + 1 } else { 0 };
        self.limit = limit;
    }
}

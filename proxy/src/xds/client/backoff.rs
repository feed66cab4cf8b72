//! Exponential backoff with full jitter.

use std::time::Duration;

/// How long a stream must have lived for its failure to count as a first one.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);

/// The state of retrying one thing. Randomness comes from the caller.
#[derive(Clone, Debug)]
pub struct Backoff {
    base: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    pub fn new(base: Duration, max: Duration) -> Self {
        Self { base, max: max.max(base), failures: 0 }
    }

    /// The wait before the next attempt: uniform below `base * 2^failures`, bounded. `draw` is uniform in `0.0..1.0`.
    pub fn next(&mut self, draw: f64) -> Duration {
        let ceiling = self.base.checked_mul(1 << self.failures.min(20)).unwrap_or(self.max).min(self.max);
        self.failures = self.failures.saturating_add(1);
        ceiling.mul_f64(draw.clamp(0.0, 1.0))
    }

    /// A success that lasted for `lived`. A server that answers and hangs up at once does not count as recovered.
    pub fn lived(&mut self, lived: Duration) {
        if lived >= HEALTHY_AFTER {
            self.failures = 0;
        }
    }

    /// An unconditional success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

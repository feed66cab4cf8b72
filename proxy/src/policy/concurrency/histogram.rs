//! Latencies in logarithmic buckets: quantiles within about three percent, at a fixed size.

use std::time::Duration;

/// Buckets of each power of two.
const STEPS: u64 = 32;
/// Up to about an hour, in microseconds; longer is as long.
const POWERS: u64 = 32;

/// See the module's head.
#[derive(Debug)]
pub(super) struct Histogram {
    counts: Box<[u32]>,
    total: u32,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; bucket(u64::MAX) + 1].into(), total: 0 }
    }
}

/// The bucket of a number of microseconds.
fn bucket(micros: u64) -> usize {
    let micros = micros.min((1 << POWERS) - 1);
    let index = if micros < STEPS {
        micros
    } else {
        // The highest five bits below the leading one choose the step.
        let power = u64::from(micros.ilog2());
        let shift = power - u64::from(STEPS.ilog2());
        STEPS * (shift + 1) + ((micros >> shift) - STEPS)
    };
    usize::try_from(index).unwrap_or(usize::MAX)
}

/// The middle of a bucket.
fn middle(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < STEPS {
        return bucket;
    }
    let shift = bucket / STEPS - 1;
    let low = (STEPS + bucket % STEPS) << shift;
    low + ((1 << shift) >> 1)
}

impl Histogram {
    pub(super) fn add(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        let count = &mut self.counts[bucket(micros)];
        *count = count.saturating_add(1);
        self.total = self.total.saturating_add(1);
    }

    pub(super) fn count(&self) -> u32 {
        self.total
    }

    pub(super) fn clear(&mut self) {
        self.counts.fill(0);
        self.total = 0;
    }

    /// The latency that this share of the samples did not exceed.
    pub(super) fn quantile(&self, share: f64) -> Duration {
        let rank = (f64::from(self.total) * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= rank {
                return Duration::from_micros(middle(index));
            }
        }
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_near_the_middle_of_its_bucket() {
        let mut last = 0;
        for power in 0..POWERS {
            for step in 0..64 {
                let micros = (1u64 << power) + step * (1u64 << power) / 64;
                let found = bucket(micros);
                assert!(found >= last, "{micros}");
                last = found;
                let error = middle(found).abs_diff(micros) as f64 / micros as f64;
                assert!(error < 0.033, "{micros}: {}", middle(found));
            }
        }
        assert_eq!(bucket(u64::MAX), bucket((1 << POWERS) - 1));
    }

    #[test]
    fn quantiles_are_of_the_samples() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), Duration::ZERO);
        (1..=100).for_each(|ms| histogram.add(Duration::from_millis(ms)));
        for (share, ms) in [(0.5, 50.0), (0.9, 90.0), (1.0, 100.0), (0.0, 1.0)] {
            let found = histogram.quantile(share).as_secs_f64() * 1e3;
            assert!((found / ms - 1.0).abs() < 0.033, "{share}: {found}");
        }
        histogram.clear();
        assert_eq!(histogram.count(), 0);
    }
}

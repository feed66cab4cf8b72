//! Distributions over Envoy's default buckets, each an array that one worker writes.
//!
//! Bounds are the same for milliseconds and for bytes, as in Envoy. Values are kept in thousandths, so that a request
//! of 300 microseconds is not rounded to nothing; only what is rendered is in whole units.

use std::time::Duration;

use super::metrics::Counter;

/// Envoy's default upper bounds.
pub const BOUNDS: [f64; BUCKETS - 1] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1_000.0,
    2_500.0,
    5_000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

const BUCKETS: usize = 20;

/// [`BOUNDS`] in thousandths.
const LIMITS: [u64; BUCKETS - 1] = [
    500,
    1_000,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    600_000_000,
    1_800_000_000,
    3_600_000_000,
];

/// A distribution as one worker sees it.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; BUCKETS],
    /// In thousandths.
    sum: Counter,
}

impl Histogram {
    /// A time, in milliseconds.
    pub fn time(&self, took: Duration) {
        self.record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// A size, in bytes.
    pub fn size(&self, bytes: u64) {
        self.record(bytes.saturating_mul(1000));
    }

    fn record(&self, thousandths: u64) {
        self.buckets[LIMITS.partition_point(|limit| *limit < thousandths)].inc();
        self.sum.add(thousandths);
    }

    /// What was recorded here so far.
    pub fn read(&self) -> Distribution {
        let mut read = Distribution { sum: self.sum.get(), ..Distribution::default() };
        for (to, from) in read.buckets.iter_mut().zip(&self.buckets) {
            *to = from.get();
        }
        read
    }

    /// Adds what was recorded elsewhere.
    pub fn merge(&self, other: &Distribution) {
        self.buckets.iter().zip(other.buckets).for_each(|(to, n)| to.add(n));
        self.sum.add(other.sum);
    }
}

/// A histogram as it is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    /// Not cumulative; the last is for what exceeds all bounds.
    buckets: [u64; BUCKETS],
    sum: u64,
}

impl Distribution {
    pub fn add(&mut self, other: &Self) {
        self.buckets.iter_mut().zip(other.buckets).for_each(|(to, n)| *to = to.wrapping_add(n));
        self.sum = self.sum.wrapping_add(other.sum);
    }

    /// What came since `before`.
    pub fn since(&self, before: &Self) -> Self {
        let mut since = *self;
        since.buckets.iter_mut().zip(before.buckets).for_each(|(to, n)| *to = to.wrapping_sub(n));
        since.sum = since.sum.wrapping_sub(before.sum);
        since
    }

    pub fn count(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, n| sum.wrapping_add(*n))
    }

    /// In whole units.
    pub fn sum(&self) -> f64 {
        self.sum as f64 / 1000.0
    }

    /// Upper bounds with how many values are not above them.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        let mut below = 0u64;
        BOUNDS.into_iter().zip(self.buckets).map(move |(bound, n)| {
            below = below.wrapping_add(n);
            (bound, below)
        })
    }

    /// The value below which a share of all values lies, interpolated as Prometheus does; `None` without values.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let rank = share * self.count() as f64;
        let (mut below, mut lower) = (0u64, 0.0);
        for (bound, n) in BOUNDS.into_iter().zip(self.buckets) {
            if n > 0 && (below + n) as f64 >= rank {
                return Some(lower + (bound - lower) * (rank - below as f64).max(0.0) / n as f64);
            }
            (below, lower) = (below + n, bound);
        }
        (self.count() > 0).then_some(lower)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_into_envoys_buckets() {
        assert!(BOUNDS.iter().zip(LIMITS).all(|(bound, limit)| bound * 1000.0 == limit as f64));
        let histogram = Histogram::default();
        histogram.time(Duration::from_micros(500));
        histogram.time(Duration::from_micros(501));
        histogram.time(Duration::from_secs(7200));
        histogram.size(0);
        histogram.size(u64::MAX);
        let read = histogram.read();
        let cumulative: Vec<_> = read.cumulative().collect();
        assert_eq!(cumulative[..3], [(0.5, 2), (1.0, 3), (5.0, 3)]);
        assert_eq!((cumulative[18], read.count()), ((3_600_000.0, 3), 5));
        let one = Histogram::default();
        one.time(Duration::from_millis(7));
        assert_eq!((one.read().sum(), one.read().count()), (7.0, 1));
    }

    #[test]
    fn distributions_add_and_subtract() {
        let (a, b) = (Histogram::default(), Histogram::default());
        a.size(3);
        b.size(70);
        let mut sum = a.read();
        sum.add(&b.read());
        assert_eq!((sum.count(), sum.sum()), (2, 73.0));
        assert_eq!(sum.since(&a.read()), b.read());
        a.merge(&b.read());
        assert_eq!(a.read(), sum);
    }

    #[test]
    fn quantiles_lie_within_their_bucket() {
        let histogram = Histogram::default();
        assert_eq!(histogram.read().quantile(0.5), None);
        (0..100).for_each(|_| histogram.time(Duration::from_millis(7)));
        let median = histogram.read().quantile(0.5).unwrap();
        assert!((5.0..=10.0).contains(&median), "{median}");
        histogram.time(Duration::from_secs(10_000));
        assert_eq!(histogram.read().quantile(1.0), Some(3_600_000.0));
    }
}

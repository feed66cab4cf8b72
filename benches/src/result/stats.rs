//! Medians and spreads. With a handful of rounds the range is the honest measure of noise.

/// The middle value; the mean of the two middle ones for an even number.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[n / 2]),
        n => Some((sorted[n / 2 - 1] + sorted[n / 2]) / 2.0),
    }
}

/// Lowest, median, highest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Summary {
    pub(crate) low: f64,
    pub(crate) median: f64,
    pub(crate) high: f64,
}

impl Summary {
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let median = median(values)?;
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        Some(Self { low, median, high })
    }

    /// Half of the range, as a part of the median.
    pub(crate) fn spread(&self) -> f64 {
        if self.median == 0.0 { 0.0 } else { (self.high - self.low) / 2.0 / self.median.abs() }
    }

    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.low <= other.high && other.low <= self.high
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_outlier_moves_the_range_and_not_the_median() {
        let summary = Summary::of(&[10.0, 12.0, 90.0, 11.0, 11.0]).unwrap();
        assert_eq!((summary.low, summary.median, summary.high), (10.0, 11.0, 90.0));
        assert_eq!(median(&[1.0, 2.0, 4.0, 3.0]), Some(2.5));
        assert_eq!(Summary::of(&[]), None);
        assert!((summary.spread() - 80.0 / 22.0).abs() < 1e-9);
        assert!(!Summary::of(&[1.0, 2.0]).unwrap().overlaps(&Summary::of(&[2.1, 3.0]).unwrap()));
    }
}

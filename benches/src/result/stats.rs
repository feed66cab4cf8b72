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

/// Of the line fitted through the points by least squares.
pub(crate) fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let (mean_x, mean_y) = points.iter().fold((0.0, 0.0), |(x, y), p| (x + p.0 / count, y + p.1 / count));
    let covariance: f64 = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    let variance: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    if variance == 0.0 { 0.0 } else { covariance / variance }
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

    #[test]
    fn the_slope_is_that_of_the_line() {
        let points: Vec<(f64, f64)> = (0..10).map(|n| (f64::from(n), 5.0 + 0.5 * f64::from(n))).collect();
        assert!((slope(&points) - 0.5).abs() < 1e-9);
        assert_eq!(slope(&points[..1]), 0.0);
    }
}

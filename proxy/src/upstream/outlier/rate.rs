//! Success rates of the hosts of one cluster over one interval, and which of them fall out of line.

use crate::ir::outlier::OutlierDetection;

use super::Kind;

/// Whose fault the failures that a rate counts are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    External = 0,
    Local = 1,
}

/// Requests of one interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    pub total: u32,
    pub success: u32,
}

impl Window {
    /// In percent; `None` without requests.
    fn rate(self) -> Option<f64> {
        (self.total > 0).then(|| f64::from(self.success) * 100.0 / f64::from(self.total))
    }
}

/// What one interval's rates say.
#[derive(Debug, PartialEq)]
pub(super) struct Verdict<K> {
    /// Hosts to eject, and why; one may come twice.
    pub(super) outliers: Vec<(K, Kind)>,
    /// The rate of every host with enough requests.
    pub(super) rates: Vec<(K, f64)>,
    /// Mean and threshold, -1 where there were too few hosts.
    pub(super) mean: f64,
    pub(super) threshold: f64,
}

/// Judges the hosts that are not out, of `hosts` altogether.
pub(super) fn judge<K: Copy>(
    config: &OutlierDetection,
    origin: Origin,
    hosts: usize,
    windows: &[(K, Window)],
) -> Verdict<K> {
    let (by_rate, by_share) = (&config.success_rate, &config.failure_percentage);
    let mut verdict = Verdict { outliers: Vec::new(), rates: Vec::new(), mean: -1.0, threshold: -1.0 };
    if hosts < by_rate.minimum_hosts as usize && hosts < by_share.minimum_hosts as usize {
        return verdict;
    }
    let (mut rated, mut shared) = (Vec::new(), Vec::new());
    for (host, window) in windows {
        let Some(rate) = window.rate() else { continue };
        if window.total >= by_rate.request_volume.min(by_share.request_volume) {
            verdict.rates.push((*host, rate));
        }
        if window.total >= by_rate.request_volume {
            rated.push((*host, rate));
        }
        if window.total >= by_share.request_volume {
            shared.push((*host, rate));
        }
    }
    let (of_rate, of_share) = match origin {
        Origin::External => (Kind::SuccessRate, Kind::FailurePercentage),
        Origin::Local => (Kind::LocalOriginSuccessRate, Kind::LocalOriginFailurePercentage),
    };
    if !rated.is_empty() && rated.len() >= by_rate.minimum_hosts as usize {
        let count = rated.len() as f64;
        let mean = rated.iter().map(|(_, rate)| rate).sum::<f64>() / count;
        let variance = rated.iter().map(|(_, rate)| (rate - mean).powi(2)).sum::<f64>() / count;
        let threshold = mean - variance.sqrt() * f64::from(by_rate.stdev_factor) / 1000.0;
        (verdict.mean, verdict.threshold) = (mean, threshold);
        verdict.outliers.extend(rated.iter().filter(|(_, rate)| *rate < threshold).map(|(host, _)| (*host, of_rate)));
    }
    if !shared.is_empty() && shared.len() >= by_share.minimum_hosts as usize {
        let limit = f64::from(by_share.threshold);
        verdict
            .outliers
            .extend(shared.iter().filter(|(_, rate)| 100.0 - rate >= limit).map(|(host, _)| (*host, of_share)));
    }
    verdict
}

//! `cluster.<name>.outlier_detection.*`, Envoy's names; written by the control thread only.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Kind;
use crate::telemetry::metrics::Kind as Metric;

/// What detection did to the hosts of one cluster.
#[derive(Debug)]
pub struct OutlierStats {
    detected: [AtomicU64; 7],
    enforced: [AtomicU64; 7],
    enforced_total: AtomicU64,
    overflow: AtomicU64,
    /// Hosts out now, half-open ones among them.
    active: AtomicU64,
    half_open: AtomicU64,
    probe_success: AtomicU64,
    probe_failure: AtomicU64,
    /// Mean success rate and the rate below which hosts were ejected at the last interval, by origin; `f64` bits.
    rates: [[AtomicU64; 2]; 2],
}

/// By [`Kind`].
const DETECTED: [&str; 7] = [
    "outlier_detection.ejections_detected_consecutive_5xx",
    "outlier_detection.ejections_detected_consecutive_gateway_failure",
    "outlier_detection.ejections_detected_consecutive_local_origin_failure",
    "outlier_detection.ejections_detected_success_rate",
    "outlier_detection.ejections_detected_local_origin_success_rate",
    "outlier_detection.ejections_detected_failure_percentage",
    "outlier_detection.ejections_detected_local_origin_failure_percentage",
];
const ENFORCED: [&str; 7] = [
    "outlier_detection.ejections_enforced_consecutive_5xx",
    "outlier_detection.ejections_enforced_consecutive_gateway_failure",
    "outlier_detection.ejections_enforced_consecutive_local_origin_failure",
    "outlier_detection.ejections_enforced_success_rate",
    "outlier_detection.ejections_enforced_local_origin_success_rate",
    "outlier_detection.ejections_enforced_failure_percentage",
    "outlier_detection.ejections_enforced_local_origin_failure_percentage",
];

impl Default for OutlierStats {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        let none = || AtomicU64::new((-1f64).to_bits());
        Self {
            detected: std::array::from_fn(|_| zero()),
            enforced: std::array::from_fn(|_| zero()),
            enforced_total: zero(),
            overflow: zero(),
            active: zero(),
            half_open: zero(),
            probe_success: zero(),
            probe_failure: zero(),
            rates: [[none(), none()], [none(), none()]],
        }
    }
}

impl OutlierStats {
    pub(super) fn detected(&self, kind: Kind) {
        self.detected[kind as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn enforced(&self, kind: Kind) {
        self.enforced[kind as usize].fetch_add(1, Relaxed);
        self.enforced_total.fetch_add(1, Relaxed);
    }

    pub(super) fn overflowed(&self) {
        self.overflow.fetch_add(1, Relaxed);
    }

    pub(super) fn probed(&self, succeeded: u32, failed: u32) {
        self.probe_success.fetch_add(u64::from(succeeded), Relaxed);
        self.probe_failure.fetch_add(u64::from(failed), Relaxed);
    }

    pub(super) fn out(&self, active: usize, half_open: usize) {
        self.active.store(active as u64, Relaxed);
        self.half_open.store(half_open as u64, Relaxed);
    }

    pub(super) fn set_rates(&self, origin: usize, mean: f64, threshold: f64) {
        self.rates[origin][0].store(mean.to_bits(), Relaxed);
        self.rates[origin][1].store(threshold.to_bits(), Relaxed);
    }

    /// Mean and ejection threshold of the last interval's success rates; -1 where there were too few hosts.
    pub fn rates(&self, origin: usize) -> (f64, f64) {
        let [mean, threshold] = &self.rates[origin];
        (f64::from_bits(mean.load(Relaxed)), f64::from_bits(threshold.load(Relaxed)))
    }

    /// Hosts out now.
    pub fn active(&self) -> u64 {
        self.active.load(Relaxed)
    }

    pub fn visit(&self, visitor: &mut dyn FnMut(&'static str, Metric, u64)) {
        let counters = [
            ("outlier_detection.ejections_enforced_total", &self.enforced_total),
            ("outlier_detection.ejections_overflow", &self.overflow),
            ("outlier_detection.half_open_success", &self.probe_success),
            ("outlier_detection.half_open_failure", &self.probe_failure),
        ];
        let by_kind = DETECTED.into_iter().zip(&self.detected).chain(ENFORCED.into_iter().zip(&self.enforced));
        for (name, counter) in counters.into_iter().chain(by_kind) {
            visitor(name, Metric::Counter, counter.load(Relaxed));
        }
        visitor("outlier_detection.ejections_active", Metric::Gauge, self.active.load(Relaxed));
        visitor("outlier_detection.hosts_half_open", Metric::Gauge, self.half_open.load(Relaxed));
    }
}

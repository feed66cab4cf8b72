//! `cluster.<name>.health_check.*`, Envoy's names.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::state::{Fault, Outcome};
use crate::telemetry::metrics::Kind;

/// What active health checks of one cluster came to.
#[derive(Debug, Default)]
pub struct CheckStats {
    attempt: AtomicU64,
    success: AtomicU64,
    failure: AtomicU64,
    passive_failure: AtomicU64,
    network_failure: AtomicU64,
    verify_cluster: AtomicU64,
}

impl CheckStats {
    pub(super) fn attempted(&self) {
        self.attempt.fetch_add(1, Relaxed);
    }

    pub(super) fn ended(&self, outcome: &Outcome) {
        match outcome {
            Outcome::Passed { .. } => &self.success,
            Outcome::Failed { .. } => &self.failure,
        }
        .fetch_add(1, Relaxed);
        if let Outcome::Failed { fault: Fault::Network | Fault::Timeout, .. } = outcome {
            self.network_failure.fetch_add(1, Relaxed);
        }
    }

    /// The service's name was held against the configured one.
    pub(super) fn verified(&self) {
        self.verify_cluster.fetch_add(1, Relaxed);
    }

    /// A host said by itself that it is not well.
    pub(in crate::upstream) fn passive_failure(&self) {
        self.failure.fetch_add(1, Relaxed);
        self.passive_failure.fetch_add(1, Relaxed);
    }

    pub fn visit(&self, visitor: &mut dyn FnMut(&'static str, Kind, u64)) {
        let counters = [
            ("health_check.attempt", &self.attempt),
            ("health_check.success", &self.success),
            ("health_check.failure", &self.failure),
            ("health_check.passive_failure", &self.passive_failure),
            ("health_check.network_failure", &self.network_failure),
            ("health_check.verify_cluster", &self.verify_cluster),
        ];
        for (name, counter) in counters {
            visitor(name, Kind::Counter, counter.load(Relaxed));
        }
    }
}

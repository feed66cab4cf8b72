//! What the results of active checks make of one host, and when it is checked next: Envoy's rules.
//!
//! Pure: no clock, no I/O. Invariant: a host turns healthy by its first passed check or by `healthy_threshold` of them
//! in a row, and unhealthy by `unhealthy_threshold` failed ones or by one whose answer says so.

use std::time::Duration;

use crate::ir::health_check::{HealthCheck, Pace};

/// What one check came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Passed { degraded: bool },
    Failed { fault: Fault, reason: String },
}

/// How a check failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The host's answer says that it is not well.
    Answer,
    /// It does, but it takes several such answers.
    Retriable,
    /// No answer.
    Network,
    /// No answer in time.
    Timeout,
}

/// How a host stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) healthy: bool,
    pub(super) degraded: bool,
    /// The last check got no answer in time.
    pub(super) timed_out: bool,
    /// Not checked yet.
    pub(super) first: bool,
    passed: u32,
    failed: u32,
}

/// What a check changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transition {
    Unchanged,
    Changed,
    /// It takes more checks like this one.
    Pending,
}

impl State {
    /// A host that was not checked yet is not healthy.
    pub(super) fn new(healthy: bool, first: bool) -> Self {
        Self { healthy, degraded: false, timed_out: false, first, passed: 0, failed: 0 }
    }

    /// Takes a result in.
    pub(super) fn learn(&mut self, check: &HealthCheck, outcome: &Outcome) -> Transition {
        let mut transition = match outcome {
            Outcome::Passed { .. } => self.passed(check),
            Outcome::Failed { fault, .. } => self.failed(check, *fault),
        };
        if let Outcome::Passed { degraded } = outcome
            && self.degraded != *degraded
        {
            self.degraded = *degraded;
            if transition == Transition::Unchanged {
                transition = Transition::Changed;
            }
        }
        if std::mem::replace(&mut self.first, false) {
            transition = Transition::Changed;
        }
        transition
    }

    fn passed(&mut self, check: &HealthCheck) -> Transition {
        self.failed = 0;
        if self.healthy {
            return Transition::Unchanged;
        }
        self.passed += 1;
        if !self.first && self.passed < check.healthy_threshold {
            return Transition::Pending;
        }
        (self.healthy, self.timed_out, self.passed) = (true, false, 0);
        Transition::Changed
    }

    fn failed(&mut self, check: &HealthCheck, fault: Fault) -> Transition {
        self.passed = 0;
        self.timed_out = fault == Fault::Timeout;
        if !self.healthy {
            return Transition::Unchanged;
        }
        self.failed += 1;
        if fault != Fault::Answer && self.failed < check.unhealthy_threshold {
            return Transition::Pending;
        }
        (self.healthy, self.failed) = (false, 0);
        Transition::Changed
    }
}

/// How long to wait for the next check; `random` is uniform.
pub(super) fn wait(
    pace: &Pace,
    passed: bool,
    transition: Transition,
    traffic: bool,
    mut random: impl FnMut() -> u64,
) -> Duration {
    let base = match (traffic, passed, transition) {
        (false, true, _) => pace.no_traffic_healthy_interval,
        (false, false, _) => pace.no_traffic_interval,
        (true, true, Transition::Pending) => pace.healthy_edge_interval,
        (true, true, _) => pace.interval,
        (true, false, Transition::Pending) => pace.unhealthy_edge_interval,
        (true, false, _) => pace.unhealthy_interval,
    };
    let share = base.saturating_mul(pace.interval_jitter_percent) / 100;
    base.saturating_add(jitter(share, random())).saturating_add(jitter(pace.interval_jitter, random()))
}

/// Less than `most`, by the draw.
pub(super) fn jitter(most: Duration, random: u64) -> Duration {
    let millis = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 { Duration::ZERO } else { Duration::from_millis(random % millis) }
}

#[cfg(test)]
#[path = "state_tests.rs"]
pub(super) mod tests;

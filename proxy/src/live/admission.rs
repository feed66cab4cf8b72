//! The adaptive concurrency limit of one filter, over all workers.
//!
//! Who may pass is decided by two atomics; the controller behind the lock sees a request when it has been answered.
//! Invariant: while the limit is enforced there are never more requests inside than it says.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use crate::{
    ir::filters::Concurrency,
    policy::concurrency::Gradient,
    telemetry::{filters::GradientStats, metrics::Sharded},
};

#[cfg(test)]
mod tests;

/// See the module's head.
pub struct Admission {
    pub config: Arc<Concurrency>,
    inside: AtomicU32,
    limit: AtomicU32,
    origin: Instant,
    /// When time alone changes something, in microseconds since `origin`.
    next: AtomicU64,
    gradient: Mutex<Gradient>,
    stats: Arc<Sharded<GradientStats>>,
}

impl Admission {
    pub fn new(config: Arc<Concurrency>, stats: Arc<Sharded<GradientStats>>, now: Instant) -> Self {
        let gradient = Gradient::new(config.clone(), now);
        let admission = Self {
            config,
            inside: AtomicU32::new(0),
            limit: AtomicU32::new(0),
            origin: now,
            next: AtomicU64::new(u64::MAX),
            gradient: Mutex::new(gradient),
            stats,
        };
        admission.change(|_| {});
        admission
    }

    /// Lets a request in, if there is room; always, where the limit is only watched.
    pub fn enter(self: &Arc<Self>, now: Instant) -> Option<Admitted> {
        if micros(self.origin, now) >= self.next.load(Relaxed) {
            self.change(|gradient| gradient.advance(now));
        }
        let limit = if self.config.enforced { self.limit.load(Relaxed) } else { u32::MAX };
        let entered = self.inside.fetch_update(Relaxed, Relaxed, |n| (n < limit).then(|| n.saturating_add(1)));
        if entered.is_err() {
            self.stats.local().rq_blocked.inc();
            return None;
        }
        Some(Admitted { admission: self.clone(), started: now })
    }

    /// Lets the controller decide and publishes what it says.
    fn change(&self, decide: impl FnOnce(&mut Gradient)) {
        let mut gradient = self.gradient.lock().unwrap_or_else(PoisonError::into_inner);
        decide(&mut gradient);
        self.limit.store(gradient.limit(), Relaxed);
        self.next.store(gradient.next().map_or(u64::MAX, |at| micros(self.origin, at)), Relaxed);
        let (stats, seen) = (self.stats.shared(), gradient.seen());
        let millis = |d: std::time::Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        stats.concurrency_limit.set(gradient.limit().into());
        stats.min_rtt_calculation_active.set(gradient.is_measuring().into());
        stats.min_rtt_msecs.set(millis(gradient.least()));
        stats.sample_rtt_msecs.set(millis(seen.sample));
        // Whole numbers only, as Envoy's gauges are.
        stats.gradient.set(seen.gradient as u64);
        stats.burst_queue_size.set(seen.burst as u64);
    }
}

fn micros(origin: Instant, at: Instant) -> u64 {
    u64::try_from(at.saturating_duration_since(origin).as_micros()).unwrap_or(u64::MAX)
}

/// A request inside; dropping it makes room.
pub struct Admitted {
    admission: Arc<Admission>,
    started: Instant,
}

impl Admitted {
    /// The request was answered to the end: its latency counts.
    pub fn answered(self, now: Instant, random: u64) {
        self.admission.change(|gradient| {
            gradient.sample(self.started, now, random);
            gradient.advance(now);
        });
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.admission.inside.fetch_sub(1, Relaxed);
    }
}

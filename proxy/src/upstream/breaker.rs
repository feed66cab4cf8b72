//! Circuit breakers: exact limits over all workers, one set per cluster and routing priority.
//!
//! Owns the counts in flight and hands out permits that give back on drop. Knows neither clock nor connections. A limit
//! never overshoots: a permit is taken with compare-and-swap or not at all. Thresholds may change while permits are
//! out; the counts carry over.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use crate::ir::cluster::BreakerThresholds;

/// One resource: how many are in use and how many may be.
#[derive(Debug, Default)]
struct Gate {
    used: AtomicU32,
    max: AtomicU32,
}

impl Gate {
    fn take(&self, max: u32) -> bool {
        self.used.fetch_update(Relaxed, Relaxed, |used| (used < max).then(|| used + 1)).is_ok()
    }

    fn give(&self) {
        self.used.fetch_sub(1, Relaxed);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resource {
    Connection,
    Pending,
    Request,
    Retry,
    Pool,
}

/// How much of a resource is in use, and how much may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    pub used: u32,
    pub max: u32,
}

/// The limits of one cluster for one priority.
#[derive(Debug, Default)]
pub struct Breaker {
    connections: Gate,
    pending: Gate,
    requests: Gate,
    retries: Gate,
    pools: Gate,
    budget_permille: AtomicU32,
    budget_min: AtomicU32,
}

/// One unit of a limited resource, given back on drop.
#[must_use = "the permit is given back when it is dropped"]
#[derive(Debug)]
pub struct Permit {
    breaker: Arc<Breaker>,
    resource: Resource,
}

impl Breaker {
    pub fn new(thresholds: &BreakerThresholds) -> Arc<Self> {
        let breaker = Arc::new(Self::default());
        breaker.configure(thresholds);
        breaker
    }

    /// Puts other thresholds in force; permits that are out stay out.
    pub fn configure(&self, thresholds: &BreakerThresholds) {
        self.connections.max.store(thresholds.max_connections, Relaxed);
        self.pending.max.store(thresholds.max_pending_requests, Relaxed);
        self.requests.max.store(thresholds.max_requests, Relaxed);
        self.retries.max.store(thresholds.max_retries, Relaxed);
        self.pools.max.store(thresholds.max_connection_pools, Relaxed);
        self.budget_permille.store(thresholds.retry_budget.permille, Relaxed);
        self.budget_min.store(thresholds.retry_budget.min_concurrency, Relaxed);
    }

    /// A connection about to be dialled.
    pub fn try_connection(self: &Arc<Self>) -> Option<Permit> {
        self.permit(Resource::Connection, self.connections.max.load(Relaxed))
    }

    /// A connection that is opened even past the limit: without it requests to a host would have nothing to wait for.
    pub fn connection_past_limit(self: &Arc<Self>) -> Permit {
        self.connections.used.fetch_add(1, Relaxed);
        Permit { breaker: self.clone(), resource: Resource::Connection }
    }

    /// A connection pool.
    pub fn try_pool(self: &Arc<Self>) -> Option<Permit> {
        self.permit(Resource::Pool, self.pools.max.load(Relaxed))
    }

    /// A request that waits for a connection.
    pub fn try_pending(self: &Arc<Self>) -> Option<Permit> {
        self.permit(Resource::Pending, self.pending.max.load(Relaxed))
    }

    /// A request in flight.
    pub fn try_request(self: &Arc<Self>) -> Option<Permit> {
        self.permit(Resource::Request, self.requests.max.load(Relaxed))
    }

    /// [`Self::try_request`] without a guard, for [`super::RequestPermit`], which spares the reference counts.
    pub(super) fn take_request(&self) -> bool {
        self.requests.take(self.requests.max.load(Relaxed))
    }

    pub(super) fn give_request(&self) {
        self.requests.give();
    }

    /// A retry: bounded by `max_retries` and by the budget, whichever is lower.
    pub fn try_retry(self: &Arc<Self>) -> Option<Permit> {
        self.permit(Resource::Retry, self.retries.max.load(Relaxed).min(self.retry_budget()))
    }

    /// A retry that the budget yields to: bounded by `max_retries` alone, and by there being one at a time for each
    /// request.
    pub fn try_any_retry(self: &Arc<Self>) -> Option<Permit> {
        self.permit(Resource::Retry, self.retries.max.load(Relaxed))
    }

    /// Retries the budget allows now: a share of the active and waiting requests, with a floor.
    fn retry_budget(&self) -> u32 {
        let active = u64::from(self.requests.used.load(Relaxed)) + u64::from(self.pending.used.load(Relaxed));
        let share = active * u64::from(self.budget_permille.load(Relaxed)) / 1000;
        u32::try_from(share).unwrap_or(u32::MAX).max(self.budget_min.load(Relaxed))
    }

    fn permit(self: &Arc<Self>, resource: Resource, max: u32) -> Option<Permit> {
        self.gate(resource).take(max).then(|| Permit { breaker: self.clone(), resource })
    }

    fn gate(&self, resource: Resource) -> &Gate {
        match resource {
            Resource::Connection => &self.connections,
            Resource::Pending => &self.pending,
            Resource::Request => &self.requests,
            Resource::Retry => &self.retries,
            Resource::Pool => &self.pools,
        }
    }

    /// Whether another request is over the limit at this moment.
    pub(super) fn requests_full(&self) -> bool {
        self.requests.used.load(Relaxed) >= self.requests.max.load(Relaxed)
    }

    /// Connections, pending requests, requests, retries, connection pools.
    pub fn levels(&self) -> [Level; 5] {
        let gates = [&self.connections, &self.pending, &self.requests, &self.retries, &self.pools];
        let mut levels = gates.map(|g| Level { used: g.used.load(Relaxed), max: g.max.load(Relaxed) });
        levels[3].max = levels[3].max.min(self.retry_budget());
        levels
    }

    /// In use now: connections, pending requests, requests, retries.
    pub fn used(&self) -> [u32; 4] {
        [&self.connections, &self.pending, &self.requests, &self.retries].map(|g| g.used.load(Relaxed))
    }
}

impl Permit {
    /// Whether it is one of `breaker`'s.
    pub fn is_of(&self, breaker: &Arc<Breaker>) -> bool {
        Arc::ptr_eq(&self.breaker, breaker)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.breaker.gate(self.resource).give();
    }
}

#[cfg(test)]
#[path = "breaker_simulation_tests.rs"]
mod simulation_tests;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::cluster::RetryBudget;

    fn thresholds() -> BreakerThresholds {
        BreakerThresholds {
            max_connections: 2,
            max_pending_requests: 1,
            max_requests: 100,
            max_retries: 10,
            retry_budget: RetryBudget { permille: 200, min_concurrency: 3, yields: false },
            ..BreakerThresholds::default()
        }
    }

    #[test]
    fn permits_give_back() {
        let breaker = Breaker::new(&thresholds());
        let one = breaker.try_connection().unwrap();
        let _two = breaker.try_connection().unwrap();
        assert!(breaker.try_connection().is_none());
        drop(one);
        assert!(breaker.try_connection().is_some());
        let pending = breaker.try_pending().unwrap();
        assert!(breaker.try_pending().is_none(), "resources are independent");
        assert_eq!(breaker.used(), [1, 1, 0, 0]);
        drop(pending);
        assert_eq!(breaker.used(), [1, 0, 0, 0]);
    }

    #[test]
    fn retries_obey_the_budget_and_the_limit() {
        let breaker = Breaker::new(&thresholds());
        let take = |n: usize| std::iter::from_fn(|| breaker.try_retry()).take(n).collect::<Vec<_>>();
        assert_eq!(take(20).len(), 3, "the floor");
        let requests: Vec<_> = (0..30).map(|_| breaker.try_request().unwrap()).collect();
        assert_eq!(take(20).len(), 6, "a fifth of 30");
        let more: Vec<_> = (0..70).map(|_| breaker.try_request().unwrap()).collect();
        assert_eq!(take(20).len(), 10, "max_retries");
        drop((requests, more));
        assert_eq!(breaker.used(), [0; 4]);
    }

    #[test]
    fn where_the_budget_yields_the_limit_holds() {
        let breaker = Breaker::new(&thresholds());
        let take = || std::iter::from_fn(|| breaker.try_any_retry()).take(20).collect::<Vec<_>>();
        let retries = take();
        assert_eq!(retries.len(), 10, "max_retries");
        assert!(breaker.try_retry().is_none(), "they count for the budget");
        drop(retries);
        assert_eq!(breaker.used(), [0; 4]);
    }

    #[test]
    fn lower_thresholds_take_effect_with_permits_out() {
        let breaker = Breaker::new(&thresholds());
        let held: Vec<_> = (0..50).map(|_| breaker.try_request().unwrap()).collect();
        breaker.configure(&BreakerThresholds { max_requests: 10, ..thresholds() });
        assert!(breaker.try_request().is_none());
        drop(held);
        assert_eq!(std::iter::from_fn(|| breaker.try_request()).collect::<Vec<_>>().len(), 10);
    }

    #[test]
    fn exact_over_threads() {
        let breaker = Breaker::new(&BreakerThresholds { max_requests: 7, ..thresholds() });
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let breaker = breaker.clone();
                std::thread::spawn(move || {
                    let mut granted = 0u32;
                    for _ in 0..20_000 {
                        if let Some(permit) = breaker.try_request() {
                            assert!(breaker.used()[2] <= 7, "never above the limit");
                            granted += 1;
                            drop(permit);
                        }
                    }
                    granted
                })
            })
            .collect();
        let granted: u32 = threads.into_iter().map(|t| t.join().unwrap()).sum();
        assert!(granted > 0);
        assert_eq!(breaker.used(), [0; 4]);
    }
}

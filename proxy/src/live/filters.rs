//! What the HTTP filters of one connection manager share over all workers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use super::{Admission, RbacCounts};
use crate::{
    ir::{
        filters::Fault,
        http::{ConnectionManager, FilterKind, HttpFilter},
    },
    telemetry::{filters::FilterStats, metrics::Sharded, registry::Registry},
};

/// See the module's head. Lives as long as the filter chain's configuration stays the same.
#[derive(Default)]
pub struct LiveFilters {
    config: Option<Arc<ConnectionManager>>,
    /// There are filters that a route may have something to say about.
    pub any: bool,
    /// There are filters that act whatever the routes say.
    pub always: bool,
    /// They write header values of what is else noted for access logs only.
    pub look_at_notes: bool,
    pub stats: Arc<Sharded<FilterStats>>,
    faults: Arc<AtomicU64>,
    /// By the place of their filter in the chain.
    admissions: Vec<(usize, Arc<Admission>)>,
    /// Likewise.
    rbac: Vec<(usize, RbacCounts)>,
}

impl LiveFilters {
    pub fn new(config: &Arc<ConnectionManager>, registry: &Registry, now: Instant) -> Self {
        let stats = registry.filters(&config.stat_prefix);
        let gradient = registry.gradient(&config.stat_prefix);
        let (mut any, mut always, mut look_at_notes) = (false, false, false);
        let admissions = config.filters.iter().enumerate().filter_map(|(place, filter)| match &filter.kind {
            FilterKind::AdaptiveConcurrency(c) => {
                Some((place, Arc::new(Admission::new(c.clone(), gradient.clone(), now))))
            }
            _ => None,
        });
        let admissions = admissions.collect();
        let rbac = config.filters.iter().enumerate().filter_map(|(place, filter)| match &filter.kind {
            FilterKind::Rbac(rbac) => Some((place, RbacCounts::new(rbac, true, &config.stat_prefix, &registry.rbac))),
            _ => None,
        });
        let rbac = rbac.collect();
        for filter in &config.filters {
            let acts = match &filter.kind {
                FilterKind::Alpn(_) | FilterKind::Router(_) => continue,
                FilterKind::Fault(fault) => **fault != Fault::default(),
                FilterKind::Cors => false,
                FilterKind::Rbac(rbac) => rbac.rules.is_some() || rbac.shadow.is_some(),
                FilterKind::HeaderMutation { mutations, .. } => {
                    look_at_notes |= mutations.look_at_notes();
                    !mutations.is_empty()
                }
                FilterKind::Buffer(_) | FilterKind::AdaptiveConcurrency(_) | FilterKind::GrpcWeb => true,
            };
            any = true;
            always |= acts && !filter.disabled;
        }
        look_at_notes |= config.local_reply.is_some();
        Self {
            config: Some(config.clone()),
            any,
            always,
            look_at_notes,
            stats,
            faults: Arc::default(),
            admissions,
            rbac,
        }
    }

    /// The filters in configured order.
    pub fn list(&self) -> &[HttpFilter] {
        self.config.as_ref().map_or(&[], |config| &config.filters)
    }

    /// The adaptive concurrency limit of the filter at this place of the chain.
    pub fn admission(&self, place: usize) -> Option<&Arc<Admission>> {
        self.admissions.iter().find(|(at, _)| *at == place).map(|(_, admission)| admission)
    }

    /// The statistics of the RBAC filter at this place of the chain.
    pub fn rbac(&self, place: usize) -> Option<&RbacCounts> {
        self.rbac.iter().find(|(at, _)| *at == place).map(|(_, counts)| counts)
    }

    /// Whether one more request may have faults injected.
    pub fn fault_fits(&self, max: u32) -> bool {
        self.faults.load(Relaxed) < u64::from(max)
    }

    /// Counts a request with faults until the guard is dropped.
    pub fn hold_fault(&self) -> ActiveFault {
        self.faults.fetch_add(1, Relaxed);
        self.stats.local().active_faults.inc();
        ActiveFault { stats: self.stats.clone(), faults: self.faults.clone() }
    }
}

/// See [`LiveFilters::hold_fault`].
pub struct ActiveFault {
    stats: Arc<Sharded<FilterStats>>,
    faults: Arc<AtomicU64>,
}

impl Drop for ActiveFault {
    fn drop(&mut self) {
        self.faults.fetch_sub(1, Relaxed);
        self.stats.local().active_faults.dec();
    }
}

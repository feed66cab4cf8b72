//! Local limits as they run: a configuration, its buckets, and what is counted.
//!
//! Those of routes are found by the configuration that is in force for a request, so that a route table needs no place
//! for them where there are none. Invariant: an equal limit at the same place keeps its buckets over updates.

use std::{collections::HashMap, sync::Arc};

use super::local::LocalLimiter;
use crate::{
    ir::{
        Name,
        filters::{Overrides, Setting},
        rate_limit::LocalRateLimit,
        route::{Action, RouteConfiguration, Target},
    },
    telemetry::{limits::LocalLimitStats, metrics::Sharded},
};

/// A local limit with its buckets.
#[derive(Debug)]
pub struct LocalLimit {
    pub config: Arc<LocalRateLimit>,
    pub limiter: LocalLimiter,
    pub stats: Arc<Sharded<LocalLimitStats>>,
}

/// Finds the statistics of a stat prefix.
pub type FindStats<'a> = &'a dyn Fn(&Name) -> Arc<Sharded<LocalLimitStats>>;

impl LocalLimit {
    pub fn new(config: &Arc<LocalRateLimit>, stats: Arc<Sharded<LocalLimitStats>>) -> Arc<Self> {
        Arc::new(Self { config: config.clone(), limiter: limiter(config), stats })
    }
}

/// Full buckets for a limit.
pub fn limiter(config: &LocalRateLimit) -> LocalLimiter {
    LocalLimiter::new(config.bucket.as_ref(), config.always_default, &config.descriptors, config.max_dynamic)
}

/// The local limits of a route configuration.
#[derive(Debug, Default)]
pub struct RouteLimits(HashMap<usize, Arc<LocalLimit>, foldhash::fast::RandomState>);

impl RouteLimits {
    /// Those of `config`, taken over from `previous` where they are equal.
    pub fn new(config: &RouteConfiguration, previous: Option<&Self>, stats: FindStats<'_>) -> Self {
        let mut found = Vec::new();
        let mut look = |overrides: &Option<Arc<Overrides>>| {
            for one in overrides.iter().flat_map(|o| &o.filters) {
                if let Setting::LocalRateLimit(limit) = &one.setting {
                    found.push(limit.clone());
                }
            }
        };
        look(&config.overrides);
        for host in &config.virtual_hosts {
            look(&host.overrides);
            for route in &host.routes {
                look(&route.overrides);
                if let Action::Forward(forward) = &route.action
                    && let Target::Weighted(targets) = &forward.target
                {
                    targets.iter().for_each(|target| look(&target.overrides));
                }
            }
        }
        if found.is_empty() {
            return Self::default();
        }
        let before: HashMap<&str, &Arc<LocalLimit>> =
            previous.iter().flat_map(|p| p.0.values()).map(|l| (&*l.config.place, l)).collect();
        let live = |config: &Arc<LocalRateLimit>| match before.get(&*config.place) {
            Some(known) if known.config == *config => (*known).clone(),
            _ => LocalLimit::new(config, stats(&config.stat_prefix)),
        };
        Self(found.iter().map(|config| (address(config), live(config))).collect())
    }

    /// The limit of a configuration of this route table.
    pub fn get(&self, config: &Arc<LocalRateLimit>) -> Option<&Arc<LocalLimit>> {
        self.0.get(&address(config))
    }
}

/// Configurations of a table live as long as it does: their addresses tell them apart.
fn address(config: &Arc<LocalRateLimit>) -> usize {
    Arc::as_ptr(config).addr()
}

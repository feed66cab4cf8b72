//! The network filters of a chain with their handles resolved.

use std::sync::Arc;

use super::{
    LiveChain, LiveNetworkRbac, RbacCounts,
    limits::{LiveConnectionLimit, LiveGlobalConnectionLimit},
};
use crate::{
    ir::network::{NetworkFilter, NetworkFilterKind},
    telemetry::registry::Registry,
};

/// The filters in configured order.
#[derive(Debug, Default)]
pub struct LiveNetwork {
    pub filters: Box<[LiveNetworkFilter]>,
}

/// One of them.
#[derive(Clone, Debug)]
pub enum LiveNetworkFilter {
    Rbac(Arc<LiveNetworkRbac>),
    LocalRateLimit(Arc<LiveConnectionLimit>),
    RateLimit(Arc<LiveGlobalConnectionLimit>),
}

impl LiveNetwork {
    /// Takes over what is equal in the `former` version of the chain: what counts goes on counting.
    pub fn new(filters: &[NetworkFilter], registry: &Registry, former: Option<&LiveChain>) -> Self {
        let mut known: Vec<_> =
            former.iter().flat_map(|chain| chain.config.filters.iter().zip(&chain.network.filters)).collect();
        // Each once: two that are equal are two.
        let mut kept = |filter: &NetworkFilter| {
            let at = known.iter().position(|(config, _)| config.kind == filter.kind)?;
            Some(known.remove(at).1.clone())
        };
        let made = |filter: &NetworkFilter| match &filter.kind {
            NetworkFilterKind::Rbac(config) => LiveNetworkFilter::Rbac(Arc::new(LiveNetworkRbac {
                counts: RbacCounts::new(&config.rbac, false, &config.stat_prefix, &registry.rbac),
                config: config.clone(),
            })),
            NetworkFilterKind::LocalRateLimit(config) => {
                let stats = registry.connection_limits(&config.stat_prefix);
                LiveNetworkFilter::LocalRateLimit(Arc::new(LiveConnectionLimit::new(config, stats)))
            }
            NetworkFilterKind::RateLimit(config) => {
                let stats = registry.global_connection_limits(&config.stat_prefix);
                let config = config.clone();
                LiveNetworkFilter::RateLimit(Arc::new(LiveGlobalConnectionLimit { config, stats }))
            }
        };
        Self { filters: filters.iter().map(|filter| kept(filter).unwrap_or_else(|| made(filter))).collect() }
    }
}

//! The network filters of a chain with their handles resolved.

use std::sync::Arc;

use super::limits::{LiveConnectionLimit, LiveGlobalConnectionLimit};
use crate::{
    ir::network::{NetworkFilter, NetworkFilterKind},
    telemetry::registry::Registry,
};

/// The filters in configured order.
#[derive(Default)]
pub struct LiveNetwork {
    pub filters: Box<[LiveNetworkFilter]>,
}

/// One of them.
pub enum LiveNetworkFilter {
    Rbac(Arc<LiveNetworkRbac>),
    LocalRateLimit(Arc<LiveConnectionLimit>),
    RateLimit(Arc<LiveGlobalConnectionLimit>),
}

/// The network filter that decides by role based access control.
pub struct LiveNetworkRbac {
    pub config: Arc<crate::ir::rbac::NetworkRbac>,
}

impl LiveNetwork {
    pub fn new(filters: &[NetworkFilter], registry: &Registry) -> Self {
        let live = |filter: &NetworkFilter| match &filter.kind {
            NetworkFilterKind::Rbac(config) => {
                LiveNetworkFilter::Rbac(Arc::new(LiveNetworkRbac { config: config.clone() }))
            }
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
        Self { filters: filters.iter().map(live).collect() }
    }
}

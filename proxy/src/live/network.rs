//! The network filters of a chain with their handles resolved.

use std::sync::Arc;

use super::{LiveNetworkRbac, RbacCounts};
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
#[derive(Debug)]
pub enum LiveNetworkFilter {
    Rbac(Arc<LiveNetworkRbac>),
}

impl LiveNetwork {
    pub fn new(filters: &[NetworkFilter], registry: &Registry) -> Self {
        let live = |filter: &NetworkFilter| match &filter.kind {
            NetworkFilterKind::Rbac(config) => LiveNetworkFilter::Rbac(Arc::new(LiveNetworkRbac {
                counts: RbacCounts::new(&config.rbac, false, &config.stat_prefix, &registry.rbac),
                config: config.clone(),
            })),
        };
        Self { filters: filters.iter().map(live).collect() }
    }
}

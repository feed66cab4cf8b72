//! The network filters of a chain with their handles resolved.

use std::sync::Arc;

use crate::ir::network::{NetworkFilter, NetworkFilterKind};

/// The filters in configured order.
#[derive(Default)]
pub struct LiveNetwork {
    pub filters: Box<[LiveNetworkFilter]>,
}

/// One of them.
pub enum LiveNetworkFilter {
    Rbac(Arc<LiveNetworkRbac>),
}

/// The network filter that decides by role based access control.
pub struct LiveNetworkRbac {
    pub config: Arc<crate::ir::rbac::NetworkRbac>,
}

impl LiveNetwork {
    pub fn new(filters: &[NetworkFilter]) -> Self {
        let live = |filter: &NetworkFilter| match &filter.kind {
            NetworkFilterKind::Rbac(config) => {
                LiveNetworkFilter::Rbac(Arc::new(LiveNetworkRbac { config: config.clone() }))
            }
        };
        Self { filters: filters.iter().map(live).collect() }
    }
}

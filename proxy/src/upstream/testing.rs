//! Clusters for tests.

use std::{sync::Arc, time::Duration};

use crate::ir::{
    cluster::{BreakerThresholds, Cluster, Discovery, LbPolicy, UpstreamHttp},
    endpoint::{Address, Assignment, Endpoint, Health, Locality},
};

/// A cluster with Envoy's defaults.
pub(crate) fn config(name: &str, discovery: Discovery) -> Cluster {
    Cluster {
        name: name.into(),
        stat_name: name.into(),
        discovery,
        connect_timeout: Duration::from_secs(5),
        lb: LbPolicy::RoundRobin,
        lb_options: Arc::default(),
        panic_threshold: 50,
        http: UpstreamHttp::default().into(),
        tls: None,
        transport_matches: Vec::new(),
        breaker: BreakerThresholds::default(),
        breaker_high: BreakerThresholds::default(),
        bind: None,
        keepalive: None,
        buffer_limit: 1 << 20,
        drain_on_host_removal: false,
        locality_weighted: true,
        metadata: None,
        health: None,
    }
}

/// A healthy endpoint of weight 1.
pub(crate) fn endpoint(address: Address) -> Endpoint {
    Endpoint { address, hostname: "".into(), weight: 1, health: Health::Healthy, metadata: None, check: None }
}

/// Endpoints in one locality.
pub(crate) fn assignment(endpoints: Vec<Endpoint>) -> Arc<Assignment> {
    Arc::new(Assignment { localities: vec![Locality { endpoints, ..Locality::default() }], overprovisioning: 140 })
}

/// Finds an endpoint to be failing.
pub(crate) fn fail(endpoint: &super::Endpoint) {
    endpoint.set_flag(super::HealthFlag::FailedOutlierCheck, true);
}

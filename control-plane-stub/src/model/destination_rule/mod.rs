//! `DestinationRule`: how a host is called, and its subsets. The types are the published API.

mod balancing;
mod merge;
mod pool;

use std::collections::BTreeMap;

use serde::Deserialize;

pub(super) use self::merge::merge;
pub use self::{balancing::*, pool::*};
use super::{peer_authentication::Selector, scalars::Unsupported};

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DestinationRule {
    /// Absolute once loaded.
    pub host: String,
    #[serde(default)]
    pub traffic_policy: TrafficPolicy,
    #[serde(default)]
    pub subsets: Vec<Subset>,
    #[serde(default)]
    pub export_to: Vec<String>,
    /// Of the callers, in the rule's own namespace. All of them if it selects nothing.
    pub workload_selector: Option<Selector>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Subset {
    pub name: String,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub traffic_policy: TrafficPolicy,
}

/// Absent parts are inherited: port over subset over host.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrafficPolicy {
    pub load_balancer: Option<LoadBalancer>,
    pub connection_pool: Option<ConnectionPool>,
    pub outlier_detection: Option<OutlierDetection>,
    pub tls: Option<ClientTls>,
    #[serde(default)]
    pub port_level_settings: Vec<PortPolicy>,
    _tunnel: Option<Unsupported>,
    _proxy_protocol: Option<Unsupported>,
    pub retry_budget: Option<RetryBudget>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PortPolicy {
    pub port: super::virtual_service::PortSelector,
    pub load_balancer: Option<LoadBalancer>,
    pub connection_pool: Option<ConnectionPool>,
    pub outlier_detection: Option<OutlierDetection>,
    pub tls: Option<ClientTls>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientTls {
    #[serde(default)]
    pub mode: TlsMode,
    pub client_certificate: Option<String>,
    pub private_key: Option<String>,
    pub ca_certificates: Option<String>,
    #[serde(default)]
    pub subject_alt_names: Vec<String>,
    pub sni: Option<String>,
    #[serde(default)]
    pub insecure_skip_verify: bool,
    _credential_name: Option<Unsupported>,
    _ca_crl: Option<Unsupported>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TlsMode {
    #[default]
    Disable,
    Simple,
    Mutual,
    IstioMutual,
}

/// Annotation by which least request takes latencies into account (peak EWMA), in proxies that can.
pub(crate) const LATENCY_AWARE: &str = "outrigger/latency-aware";

impl super::Object<DestinationRule> {
    pub fn is_latency_aware(&self) -> bool {
        self.meta.annotations.get(LATENCY_AWARE).is_some_and(|value| value == "true")
    }
}

impl DestinationRule {
    /// The labels of the callers it is for; none if it is for all.
    pub fn callers(&self) -> Option<&BTreeMap<String, String>> {
        self.workload_selector.as_ref().map(|s| &s.match_labels).filter(|labels| !labels.is_empty())
    }

    /// The effective policy of a port of the host or of one of its subsets.
    pub fn policy(&self, subset: Option<&str>, port: u16) -> TrafficPolicy {
        let mut effective = TrafficPolicy::default();
        effective.overlay(&self.traffic_policy, port);
        let subset = subset.and_then(|name| self.subsets.iter().find(|s| s.name == name));
        if let Some(subset) = subset {
            effective.overlay(&subset.traffic_policy, port);
        }
        effective
    }
}

impl TrafficPolicy {
    fn overlay(&mut self, other: &Self, port: u16) {
        // It has no form of its own for a port, so that of the host holds there too.
        self.retry_budget = other.retry_budget.or(self.retry_budget);
        self.replace(&other.load_balancer, &other.connection_pool, &other.outlier_detection, &other.tls);
        if let Some(p) = other.port_level_settings.iter().find(|p| p.port.number == port) {
            // As Istio documents it: settings of a port replace those of the host whole, without inheriting parts.
            *self = Self { retry_budget: self.retry_budget, ..Self::default() };
            self.replace(&p.load_balancer, &p.connection_pool, &p.outlier_detection, &p.tls);
        }
    }

    fn replace(
        &mut self,
        load_balancer: &Option<LoadBalancer>,
        connection_pool: &Option<ConnectionPool>,
        outlier_detection: &Option<OutlierDetection>,
        tls: &Option<ClientTls>,
    ) {
        if load_balancer.is_some() {
            self.load_balancer.clone_from(load_balancer);
        }
        if connection_pool.is_some() {
            self.connection_pool.clone_from(connection_pool);
        }
        if outlier_detection.is_some() {
            self.outlier_detection.clone_from(outlier_detection);
        }
        if tls.is_some() {
            self.tls.clone_from(tls);
        }
    }
}

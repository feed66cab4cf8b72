//! `DestinationRule`: how a host is called, and its subsets. The types are the published API.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::scalars::{HumanDuration, Unsupported, positive};

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
    _workload_selector: Option<Unsupported>,
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
    _retry_budget: Option<Unsupported>,
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
pub struct LoadBalancer {
    pub simple: Option<Balance>,
    _consistent_hash: Option<Unsupported>,
    _locality_lb_setting: Option<Unsupported>,
    _warmup_duration_secs: Option<Unsupported>,
    _warmup: Option<Unsupported>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Balance {
    #[serde(alias = "UNSPECIFIED", alias = "LEAST_CONN")]
    LeastRequest,
    RoundRobin,
    Random,
    Passthrough,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectionPool {
    #[serde(default)]
    pub tcp: TcpPool,
    #[serde(default)]
    pub http: HttpPool,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TcpPool {
    pub max_connections: Option<u32>,
    #[serde(default, deserialize_with = "positive")]
    pub connect_timeout: Option<HumanDuration>,
    pub tcp_keepalive: Option<Keepalive>,
    #[serde(default, deserialize_with = "positive")]
    pub max_connection_duration: Option<HumanDuration>,
    #[serde(default, deserialize_with = "positive")]
    pub idle_timeout: Option<HumanDuration>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keepalive {
    pub probes: Option<u32>,
    pub time: Option<HumanDuration>,
    pub interval: Option<HumanDuration>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpPool {
    pub http1_max_pending_requests: Option<u32>,
    pub http2_max_requests: Option<u32>,
    pub max_requests_per_connection: Option<u32>,
    pub max_retries: Option<u32>,
    #[serde(default, deserialize_with = "positive")]
    pub idle_timeout: Option<HumanDuration>,
    pub h2_upgrade_policy: Option<H2Upgrade>,
    /// HTTP in the client's version even to servers declared HTTP/2; to others that is so anyway.
    #[serde(default)]
    pub use_client_protocol: bool,
    pub max_concurrent_streams: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum H2Upgrade {
    Default,
    DoNotUpgrade,
    Upgrade,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OutlierDetection {
    /// Istio's older spelling of `consecutive_gateway_errors`.
    pub consecutive_errors: Option<u32>,
    #[serde(rename = "consecutive5xxErrors")]
    pub consecutive_5xx_errors: Option<u32>,
    pub consecutive_gateway_errors: Option<u32>,
    #[serde(default)]
    pub split_external_local_origin_errors: bool,
    pub consecutive_local_origin_failures: Option<u32>,
    #[serde(default, deserialize_with = "positive")]
    pub interval: Option<HumanDuration>,
    #[serde(default, deserialize_with = "positive")]
    pub base_ejection_time: Option<HumanDuration>,
    #[serde(default)]
    pub max_ejection_percent: Option<u32>,
    #[serde(default)]
    pub min_health_percent: Option<u32>,
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

impl DestinationRule {
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
        self.replace(&other.load_balancer, &other.connection_pool, &other.outlier_detection, &other.tls);
        if let Some(p) = other.port_level_settings.iter().find(|p| p.port.number == port) {
            // As Istio documents it: settings of a port replace those of the host whole, without inheriting parts.
            *self = Self::default();
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

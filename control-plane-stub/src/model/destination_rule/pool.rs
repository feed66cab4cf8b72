//! Limits on connections and requests, and when an endpoint is taken out.

use serde::Deserialize;

use crate::model::scalars::{HumanDuration, positive, some_percent};

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

/// How much of the traffic may be retries.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetryBudget {
    /// Of the active requests.
    #[serde(default, deserialize_with = "some_percent")]
    pub percent: Option<f64>,
    /// Retries that are always allowed.
    pub min_retry_concurrency: Option<u32>,
}

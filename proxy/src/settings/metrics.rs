//! Settings of metrics: how many series, and whose are shown with ours.

use std::{net::SocketAddr, time::Duration};

use clap::Args;

use crate::telemetry::mesh::Bounds;

/// See the module's head.
#[derive(Clone, Debug, Args)]
pub struct MetricsSettings {
    /// Where Prometheus scrapes, none by default; Kubernetes users expect 15020. Serves what --status-address does, so
    /// that probes and scrapes can be kept apart.
    #[arg(long, env = "OUTRIGGER_METRICS_ADDRESS", value_name = "IP:PORT", help_heading = "Metrics")]
    pub metrics_address: Option<SocketAddr>,
    /// What this workload is called in metrics: the name of its Deployment, say. By default what the Pod's name and
    /// labels show.
    #[arg(long, env = "OUTRIGGER_WORKLOAD_NAME", value_name = "NAME", help_heading = "Metrics")]
    pub workload_name: Option<String>,
    /// Series of Istio's standard metrics kept at once; what exceeds them is counted in one whose labels say `overflow`.
    #[arg(
        long,
        env = "OUTRIGGER_METRICS_MAX_SERIES",
        default_value_t = 5_000,
        value_name = "N",
        help_heading = "Metrics"
    )]
    pub metrics_max_series: usize,
    /// Seconds after which a series of Istio's standard metrics that does not change is dropped; 0 never does.
    #[arg(
        long,
        env = "OUTRIGGER_METRICS_EXPIRE_S",
        default_value_t = 3_600,
        value_name = "SECONDS",
        help_heading = "Metrics"
    )]
    pub metrics_expire_s: u64,
    /// Show the application's metrics with ours on those two addresses (annotation `prometheus.io/scrape`).
    #[arg(long, env = "OUTRIGGER_PROMETHEUS_SCRAPE", help_heading = "Metrics")]
    pub prometheus_scrape: bool,
    /// The application's port for metrics (annotation `prometheus.io/port`).
    #[arg(
        long,
        env = "OUTRIGGER_PROMETHEUS_PORT",
        value_name = "PORT",
        value_parser = clap::value_parser!(u16).range(1..),
        help_heading = "Metrics"
    )]
    pub prometheus_port: Option<u16>,
    /// The path of the application's metrics (annotation `prometheus.io/path`).
    #[arg(
        long,
        env = "OUTRIGGER_PROMETHEUS_PATH",
        default_value = "/metrics",
        value_name = "PATH",
        help_heading = "Metrics"
    )]
    pub prometheus_path: String,
    /// Time for the application to answer, in milliseconds.
    #[arg(
        long,
        env = "OUTRIGGER_PROMETHEUS_TIMEOUT_MS",
        default_value_t = 3_000,
        value_name = "MS",
        help_heading = "Metrics"
    )]
    pub prometheus_timeout_ms: u64,
    /// Most bytes of the application's answer.
    #[arg(
        long,
        env = "OUTRIGGER_PROMETHEUS_MAX_BYTES",
        default_value_t = 8 << 20,
        value_name = "BYTES",
        help_heading = "Metrics"
    )]
    pub prometheus_max_bytes: usize,
}

impl MetricsSettings {
    /// How many series are kept, and for how long.
    pub fn bounds(&self) -> Bounds {
        let idle = (self.metrics_expire_s > 0).then(|| Duration::from_secs(self.metrics_expire_s));
        Bounds { series: self.metrics_max_series, idle }
    }
}

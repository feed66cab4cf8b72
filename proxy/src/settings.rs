//! The command line and environment. Flags win over `OUTRIGGER_*` variables; Envoy's common flags are understood.
//!
//! Two ways to run: with Envoy's own bootstrap (`-c FILE`), or without any file against a control plane
//! (`--xds-address`), where the bootstrap is made from these settings and the identity comes from the control plane's CA.

mod agent;
mod lifecycle;
mod metrics;
mod replace;

use std::{net::SocketAddr, path::PathBuf};

use clap::{Parser, ValueEnum};

pub use self::{
    agent::AgentSocket,
    lifecycle::Lifecycle,
    metrics::MetricsSettings,
    replace::{Replace, SUPERVISOR},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    Serve,
    /// Read and check the configuration, print what is wrong or ignored, and exit.
    Validate,
    /// As `validate` (Envoy's name for a check with more initialisation).
    InitOnly,
}

/// Outrigger: the data plane of a service mesh, configured over Envoy's xDS v3.
#[derive(Clone, Debug, Parser)]
#[command(name = "outrigger-proxy", version, max_term_width = 110)]
pub struct Settings {
    /// Bootstrap file (Envoy's `envoy.config.bootstrap.v3.Bootstrap`, YAML or JSON).
    #[arg(short = 'c', long, env = "OUTRIGGER_CONFIG_PATH", value_name = "FILE")]
    pub config_path: Option<PathBuf>,
    /// Bootstrap text, merged over the file.
    #[arg(long, env = "OUTRIGGER_CONFIG_YAML", value_name = "YAML")]
    pub config_yaml: Option<String>,
    #[arg(long, value_enum, default_value = "serve", env = "OUTRIGGER_MODE")]
    pub mode: Mode,
    /// Worker threads; 0 or nothing follows the CPUs of the cgroup's limit and the affinity mask, rounded down.
    #[arg(long, env = "OUTRIGGER_CONCURRENCY", value_name = "N", value_parser = concurrency)]
    pub concurrency: Option<usize>,
    /// trace, debug, info, warning, error, critical, off; or a filter such as `outrigger_proxy::xds=debug`.
    #[arg(short = 'l', long, default_value = "info", env = "OUTRIGGER_LOG_LEVEL", value_name = "LEVEL")]
    pub log_level: String,
    /// Write log lines as JSON.
    #[arg(long, env = "OUTRIGGER_LOG_JSON")]
    pub log_json: bool,
    /// Keys (16 bytes or more, one per line) that `x-outrigger-debug` headers are signed with (`outriggerctl debug-header`): a
    /// request with such a header is answered with what was decided on it, in `x-outrigger-trace`. Without it nobody is
    /// told. Read again on SIGHUP.
    #[arg(long, env = "OUTRIGGER_DEBUG_KEY_FILE", value_name = "FILE")]
    pub debug_key_file: Option<PathBuf>,
    /// `node.id` when the bootstrap has none.
    #[arg(long, env = "OUTRIGGER_SERVICE_NODE", value_name = "ID")]
    pub service_node: Option<String>,
    /// `node.cluster` when the bootstrap has none.
    #[arg(long, env = "OUTRIGGER_SERVICE_CLUSTER", value_name = "NAME")]
    pub service_cluster: Option<String>,
    /// `node.locality.zone` when the bootstrap has none.
    #[arg(long, env = "OUTRIGGER_SERVICE_ZONE", value_name = "ZONE")]
    pub service_zone: Option<String>,
    /// Where the admin interface listens; wins over the bootstrap's `admin.address`.
    #[arg(long, env = "OUTRIGGER_ADMIN_ADDRESS", value_name = "IP:PORT")]
    pub admin_address: Option<SocketAddr>,
    /// Where `/healthz/ready` and `/stats/prometheus` are served to the outside, none by default.
    #[arg(long, env = "OUTRIGGER_STATUS_ADDRESS", value_name = "IP:PORT")]
    pub status_address: Option<SocketAddr>,
    #[command(flatten)]
    pub metrics: MetricsSettings,

    /// Control plane to use without a bootstrap file (`HOST:PORT`).
    #[arg(long, env = "OUTRIGGER_XDS_ADDRESS", value_name = "HOST:PORT", help_heading = "Without a bootstrap file")]
    pub xds_address: Option<String>,
    /// PEM roots that the control plane's certificate must chain to; without it xDS is plaintext.
    #[arg(long, env = "OUTRIGGER_XDS_ROOT_CERT", value_name = "FILE", help_heading = "Without a bootstrap file")]
    pub xds_root_cert: Option<PathBuf>,
    /// Name in the control plane's certificate; the host of --xds-address by default.
    #[arg(long, env = "OUTRIGGER_XDS_SERVER_NAME", value_name = "NAME", help_heading = "Without a bootstrap file")]
    pub xds_server_name: Option<String>,
    /// Bearer token that proves who we are; read again at every connection.
    #[arg(long, env = "OUTRIGGER_TOKEN_FILE", value_name = "FILE", help_heading = "Without a bootstrap file")]
    pub token_file: Option<PathBuf>,
    /// Outbound capture port: bound at once, so that connections made before the first configuration wait for it; 0
    /// binds nothing early.
    #[arg(
        long,
        env = "OUTRIGGER_OUTBOUND_PORT",
        default_value_t = 15001,
        value_name = "PORT",
        help_heading = "Without a bootstrap file"
    )]
    pub outbound_port: u16,
    /// The same for the inbound capture port.
    #[arg(
        long,
        env = "OUTRIGGER_INBOUND_PORT",
        default_value_t = 15006,
        value_name = "PORT",
        help_heading = "Without a bootstrap file"
    )]
    pub inbound_port: u16,
    /// state-of-the-world instead of incremental xDS.
    #[arg(long, env = "OUTRIGGER_XDS_SOTW", help_heading = "Without a bootstrap file")]
    pub xds_sotw: bool,
    /// Kubernetes namespace of the workload.
    #[arg(long, env = "OUTRIGGER_NAMESPACE", default_value = "default", help_heading = "Without a bootstrap file")]
    pub namespace: String,
    /// Service account of the workload.
    #[arg(
        long,
        env = "OUTRIGGER_SERVICE_ACCOUNT",
        default_value = "default",
        help_heading = "Without a bootstrap file"
    )]
    pub service_account: String,
    /// Name of the Pod.
    #[arg(long, env = "OUTRIGGER_POD_NAME", default_value = "pod", help_heading = "Without a bootstrap file")]
    pub pod_name: String,
    /// Addresses of the Pod, comma-separated.
    #[arg(
        long,
        env = "OUTRIGGER_POD_IP",
        value_delimiter = ',',
        value_name = "IP",
        help_heading = "Without a bootstrap file"
    )]
    pub pod_ip: Vec<std::net::IpAddr>,
    /// Labels of the Pod (`key=value`, comma-separated).
    #[arg(
        long,
        env = "OUTRIGGER_LABELS",
        value_delimiter = ',',
        value_name = "K=V",
        help_heading = "Without a bootstrap file"
    )]
    pub labels: Vec<String>,

    /// Lifetime asked for of workload certificates, in seconds.
    #[arg(
        long,
        env = "OUTRIGGER_CERT_TTL_S",
        default_value_t = 86_400,
        value_name = "SECONDS",
        help_heading = "Identity"
    )]
    pub cert_ttl_s: u64,
    /// Cluster of the bootstrap that reaches the certificate authority; with it the proxy makes its own key and answers
    /// the secrets `default` and `ROOTCA` itself. Set by itself when --token-file is given without a bootstrap file.
    #[arg(long, env = "OUTRIGGER_CA_CLUSTER", value_name = "CLUSTER", help_heading = "Identity")]
    pub ca_cluster: Option<String>,
    /// Socket of a SPIFFE agent (`unix:///PATH` or `tcp://IP:PORT`), which then gives the identity instead of a
    /// certificate authority.
    #[arg(
        long,
        env = "SPIFFE_ENDPOINT_SOCKET",
        value_name = "URI",
        value_parser = agent::parse,
        help_heading = "Identity"
    )]
    pub spiffe_endpoint_socket: Option<AgentSocket>,

    #[command(flatten)]
    pub lifecycle: Lifecycle,

    #[command(flatten)]
    pub replace: Replace,

    /// Accepted for Envoy's sake and without effect here, each said once at start.
    #[command(flatten)]
    pub ignored: Ignored,
}

/// Envoy flags that ask for nothing this proxy has to do.
#[derive(Clone, Debug, Default, Parser)]
pub struct Ignored {
    #[arg(long, hide = true)]
    pub base_id: Option<String>,
    #[arg(long, hide = true)]
    pub use_dynamic_base_id: bool,
    #[arg(long, hide = true)]
    pub restart_epoch: Option<String>,
    #[arg(long, hide = true)]
    pub disable_hot_restart: bool,
    #[arg(long, hide = true)]
    pub drain_strategy: Option<String>,
    #[arg(long, hide = true)]
    pub local_address_ip_version: Option<String>,
    #[arg(long, hide = true)]
    pub file_flush_interval_msec: Option<String>,
    #[arg(long, hide = true)]
    pub file_flush_min_size_kb: Option<String>,
    #[arg(long, hide = true)]
    pub component_log_level: Option<String>,
    #[arg(long, hide = true)]
    pub log_format: Option<String>,
    #[arg(long, hide = true)]
    pub skip_deprecated_logs: bool,
    #[arg(long, hide = true)]
    pub enable_core_dump: bool,
    #[arg(long, hide = true)]
    pub allow_unknown_static_fields: bool,
}

impl Ignored {
    /// The names of those that were given.
    pub fn given(&self) -> Vec<&'static str> {
        [
            ("--base-id", self.base_id.is_some()),
            ("--use-dynamic-base-id", self.use_dynamic_base_id),
            ("--restart-epoch", self.restart_epoch.is_some()),
            ("--disable-hot-restart", self.disable_hot_restart),
            ("--drain-strategy", self.drain_strategy.is_some()),
            ("--local-address-ip-version", self.local_address_ip_version.is_some()),
            ("--file-flush-interval-msec", self.file_flush_interval_msec.is_some()),
            ("--file-flush-min-size-kb", self.file_flush_min_size_kb.is_some()),
            ("--component-log-level", self.component_log_level.is_some()),
            ("--log-format", self.log_format.is_some()),
            ("--skip-deprecated-logs", self.skip_deprecated_logs),
            ("--enable-core-dump", self.enable_core_dump),
            ("--allow-unknown-static-fields (unknown fields are always refused)", self.allow_unknown_static_fields),
        ]
        .into_iter()
        .filter_map(|(name, given)| given.then_some(name))
        .collect()
    }
}

impl Settings {
    /// Worker threads: the setting, else the CPUs there are within the affinity mask and the CPU quota of cgroup v1 or
    /// v2 (the standard library reads all three). A fraction of a CPU counts for nothing, but one worker there is: a
    /// thread more than the quota only means to be throttled sooner.
    pub fn workers(&self) -> usize {
        let cpus = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.concurrency.filter(|n| *n > 0).unwrap_or_else(cpus)
    }

    /// The bootstrap of a proxy that has no file: one control plane, reached as a static cluster.
    pub fn made_bootstrap(&self) -> Result<serde_json::Value, String> {
        use serde_json::json;
        let address =
            self.xds_address.as_deref().ok_or("neither -c FILE nor --xds-address is given: nothing to run")?;
        let (host, port) = split_host_port(address)?;
        let is_ip = host.parse::<std::net::IpAddr>().is_ok();
        let mut cluster = json!({
            "name": XDS_CLUSTER,
            "type": if is_ip { "STATIC" } else { "STRICT_DNS" },
            "connect_timeout": "5s",
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": {"http2_protocol_options": {}},
                },
            },
            "load_assignment": {"cluster_name": XDS_CLUSTER, "endpoints": [{"lb_endpoints": [{"endpoint": {
                "address": {"socket_address": {"address": host, "port_value": port}}}}]}]},
        });
        if let Some(root) = &self.xds_root_cert {
            let name = self.xds_server_name.as_deref().unwrap_or(host);
            let kind = if name.parse::<std::net::IpAddr>().is_ok() { "IP_ADDRESS" } else { "DNS" };
            cluster["transport_socket"] = json!({
                "name": "envoy.transport_sockets.tls",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                    "sni": name,
                    "common_tls_context": {"alpn_protocols": ["h2"], "validation_context": {
                        "trusted_ca": {"filename": root},
                        "match_typed_subject_alt_names": [{"san_type": kind, "matcher": {"exact": name}}],
                    }},
                },
            });
        }
        let mut labels = serde_json::Map::new();
        for label in self.labels.iter().filter(|l| !l.is_empty()) {
            let (key, value) = label.split_once('=').ok_or_else(|| format!("--labels: `{label}` is not key=value"))?;
            labels.insert(key.to_owned(), value.into());
        }
        let ips: Vec<String> = self.pod_ip.iter().map(ToString::to_string).collect();
        let first_ip = ips.first().cloned().ok_or("--pod-ip is needed without a bootstrap file")?;
        let id = self.service_node.clone().unwrap_or_else(|| {
            format!("sidecar~{first_ip}~{}.{}~{}.svc.cluster.local", self.pod_name, self.namespace, self.namespace)
        });
        let ads = json!({
            "api_type": if self.xds_sotw { "GRPC" } else { "DELTA_GRPC" },
            "transport_api_version": "V3",
            "set_node_on_first_message_only": true,
            "grpc_services": [{"envoy_grpc": {"cluster_name": XDS_CLUSTER}}],
        });
        Ok(json!({
            "node": {
                "id": id,
                "cluster": self.service_cluster.clone().unwrap_or_else(|| format!("{}.{}", self.pod_name, self.namespace)),
                "metadata": {
                    "NAMESPACE": self.namespace, "SERVICE_ACCOUNT": self.service_account, "NAME": self.pod_name,
                    "INSTANCE_IPS": ips.join(","), "LABELS": labels, "GENERATOR": "outrigger",
                    "WORKLOAD_NAME": self.metrics.workload_name,
                },
            },
            "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 15000}}},
            "dynamic_resources": {
                "ads_config": ads,
                "lds_config": {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"},
                "cds_config": {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"},
            },
            "static_resources": {"clusters": [cluster]},
        }))
    }
}

/// Threads cost memory each; more than this is a typing error.
const MAX_WORKERS: usize = 1024;

fn concurrency(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(workers) if workers <= MAX_WORKERS => Ok(workers),
        Ok(_) => Err(format!("at most {MAX_WORKERS}")),
        Err(error) => Err(format!("{error}")),
    }
}

/// Name of the cluster that reaches the control plane in a made bootstrap.
pub const XDS_CLUSTER: &str = "xds-grpc";

fn split_host_port(address: &str) -> Result<(&str, u16), String> {
    let wrong = || format!("--xds-address: `{address}` is not HOST:PORT");
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    match port.parse() {
        Ok(port) if !host.is_empty() => Ok((host, port)),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(args: &[&str]) -> Settings {
        Settings::parse_from(std::iter::once("outrigger-proxy").chain(args.iter().copied()))
    }

    #[test]
    fn envoy_flags_are_understood_and_the_ineffective_ones_named() {
        let s = settings(&[
            "-c",
            "x.yaml",
            "-l",
            "warning",
            "--base-id",
            "3",
            "--drain-time-s",
            "1",
            "--disable-hot-restart",
        ]);
        assert_eq!(s.config_path.as_deref(), Some(std::path::Path::new("x.yaml")));
        assert_eq!(s.lifecycle.drain_time_s, 1);
        assert_eq!(s.ignored.given(), ["--base-id", "--disable-hot-restart"]);
    }

    #[test]
    fn a_made_bootstrap_is_a_valid_bootstrap() {
        let s = settings(&[
            "--xds-address",
            "[fd00::1]:15012",
            "--xds-root-cert",
            "/r.pem",
            "--xds-server-name",
            "control",
            "--pod-ip",
            "10.0.0.1,fd00::2",
            "--labels",
            "app=web,version=v1",
        ]);
        let value = s.made_bootstrap().unwrap();
        let bootstrap: outrigger_wire::pb::envoy::config::bootstrap::v3::Bootstrap =
            outrigger_wire::json::from_value(value).unwrap();
        let node = bootstrap.node.unwrap();
        assert_eq!(node.id, "sidecar~10.0.0.1~pod.default~default.svc.cluster.local");
        assert_eq!(bootstrap.static_resources.unwrap().clusters.len(), 1);
    }

    #[test]
    fn workers_are_bounded_and_at_least_one() {
        assert_eq!(settings(&["--concurrency", "3"]).workers(), 3);
        assert!(settings(&["--concurrency", "0"]).workers() >= 1);
        for wrong in ["-1", "100000", "two"] {
            assert!(Settings::try_parse_from(["outrigger-proxy", "--concurrency", wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        assert!(settings(&[]).made_bootstrap().unwrap_err().contains("--xds-address"));
        assert!(settings(&["--xds-address", "nowhere"]).made_bootstrap().unwrap_err().contains("HOST:PORT"));
        assert!(settings(&["--xds-address", "h:1"]).made_bootstrap().unwrap_err().contains("--pod-ip"));
    }
}

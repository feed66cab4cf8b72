//! `istio.stats`, the filter that asks for Istio's standard metrics (`stats.PluginConfig`).

use outrigger_wire::pb::{
    envoy::extensions::filters::network::http_connection_manager::v3::{HttpFilter, http_filter::ConfigType},
    google::protobuf::Duration,
};
use serde_json::{Map, Value};

use super::{
    at::At,
    extension::{self, Extension},
    report::Reject,
};
use crate::ir::listener::IstioStats;

const KIND: &str = "stats.PluginConfig";

/// The default of `tcp_reporting_duration`.
const TCP_INTERVAL: std::time::Duration = std::time::Duration::from_secs(15);

#[derive(Clone, PartialEq, prost::Message)]
struct PluginConfig {
    #[prost(bool, tag = "6")]
    disable_host_header_fallback: bool,
    #[prost(message, optional, tag = "7")]
    tcp_reporting_duration: Option<Duration>,
    /// Messages, of which only is looked at whether there are any.
    #[prost(bytes = "vec", repeated, tag = "8")]
    metrics: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "9")]
    definitions: Vec<Vec<u8>>,
    /// UNSPECIFIED = 0, SERVER_GATEWAY = 1.
    #[prost(int32, tag = "10")]
    reporter: i32,
    #[prost(message, optional, tag = "11")]
    rescoping_duration: Option<Duration>,
    #[prost(message, optional, tag = "12")]
    scope_grace_period_duration: Option<Duration>,
}

/// Whether it is this filter.
pub(crate) fn is_one(extension: &Extension<'_>) -> bool {
    extension.kind == KIND
}

/// What an HTTP connection manager's filters ask for.
pub(crate) fn of_http(messages: &[HttpFilter], at: &At<'_>) -> Result<Option<IstioStats>, Reject> {
    for (i, message) in messages.iter().enumerate() {
        let Some(ConfigType::TypedConfig(any)) = message.config_type.as_ref().filter(|_| !message.disabled) else {
            continue;
        };
        let at = at.index("http_filters", i);
        let at = at.field("typed_config");
        let extension = extension::open(any, &at)?;
        if is_one(&extension) {
            return istio_stats(&extension, &at).map(Some);
        }
    }
    Ok(None)
}

/// Reads the filter. What it asks for beyond the standard is named and left out: metrics decide nothing.
pub(crate) fn istio_stats(extension: &Extension<'_>, at: &At<'_>) -> Result<IstioStats, Reject> {
    let mut unknown = Vec::new();
    let config = extension.foreign(at, |fields| from_json(fields, &mut unknown))?;
    unknown.iter().for_each(|name| at.field(name).unsupported("is not known"));
    let standard = "the metrics and labels are Istio's standard ones";
    if !config.metrics.is_empty() {
        at.field("metrics").unsupported(standard);
    }
    if !config.definitions.is_empty() {
        at.field("definitions").unsupported(standard);
    }
    if config.reporter != 0 {
        at.field("reporter").unsupported("the reporter follows from the listener's direction");
    }
    if config.rescoping_duration.is_some() || config.scope_grace_period_duration.is_some() {
        at.field("rescoping_duration").harmless("idle series are dropped as the proxy's own setting says");
    }
    let interval = at.duration("tcp_reporting_duration", &config.tcp_reporting_duration)?;
    Ok(IstioStats {
        host_fallback: !config.disable_host_header_fallback,
        // Less would be work without end.
        tcp_interval: interval.unwrap_or(TCP_INTERVAL).max(std::time::Duration::from_secs(1)),
    })
}

fn from_json(fields: &Map<String, Value>, unknown: &mut Vec<String>) -> Result<PluginConfig, String> {
    let mut config = PluginConfig::default();
    for (name, value) in fields {
        let list = || {
            let values = value.as_array().ok_or_else(|| format!("{name} is not a list"))?;
            Ok::<_, String>(vec![Vec::new(); values.len()])
        };
        match name.as_str() {
            "disable_host_header_fallback" | "disableHostHeaderFallback" => {
                config.disable_host_header_fallback =
                    value.as_bool().ok_or_else(|| format!("{name} is neither true nor false"))?;
            }
            "metrics" => config.metrics = list()?,
            "definitions" => config.definitions = list()?,
            "reporter" => config.reporter = i32::from(value.as_str() != Some("UNSPECIFIED") && value != 0),
            "tcp_reporting_duration" | "tcpReportingDuration" => {
                let seconds = value.as_str().and_then(|text| text.strip_suffix('s')?.parse::<f64>().ok());
                let seconds =
                    seconds.filter(|s| (0.0..1e9).contains(s)).ok_or_else(|| format!("{name}: no duration"))?;
                config.tcp_reporting_duration = Some(Duration { seconds: seconds as i64, nanos: 0 });
            }
            "rescoping_duration" | "rescopingDuration" | "scope_grace_period_duration" | "scopeGracePeriodDuration" => {
                config.rescoping_duration = Some(Duration::default());
            }
            // Of former versions: whoever still sends them loses nothing.
            "debug" | "max_peer_cache_size" | "stat_prefix" | "field_separator" | "value_separator" => {}
            other => unknown.push(other.to_owned()),
        }
    }
    Ok(config)
}

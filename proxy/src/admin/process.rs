//! What the process says of itself: `/server_info`, `/memory`, `/runtime`, `/init_dump`, and the questions of Envoy's
//! that have no other answer here than why.

use std::sync::atomic::Ordering;

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::{
    Inner,
    http::{Answer, Call},
};
use crate::xds::DumpQuery;

/// As `envoy.admin.v3.ServerInfo`.
pub(super) fn server_info(inner: &Inner) -> Answer {
    let uptime = format!("{}s", inner.state.started.elapsed().as_secs());
    let settings = &inner.context.settings;
    let mut node = outrigger_wire::json::to_value(&inner.context.node).unwrap_or(Value::Null);
    if let Value::Object(node) = &mut node {
        // Envoy prints what is empty.
        node.entry("dynamic_parameters").or_insert_with(|| json!({}));
        node.entry("listening_addresses").or_insert_with(|| json!([]));
    }
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    Answer::json(&json!({
        "version": format!("outrigger/{}", env!("CARGO_PKG_VERSION")),
        "state": inner.state_name(),
        "uptime_current_epoch": uptime,
        "uptime_all_epochs": uptime,
        "hot_restart_version": "disabled",
        "hot_restart_initializing": false,
        "command_line_options": {
            "base_id": settings.ignored.base_id.as_deref().unwrap_or("0"),
            "use_dynamic_base_id": settings.ignored.use_dynamic_base_id,
            "concurrency": inner.context.workers,
            "config_path": settings.config_path.as_ref().map_or_else(String::new, |p| p.display().to_string()),
            // It may hold private keys; /config_dump has what is no secret of it.
            "config_yaml": settings.config_yaml.as_ref().map_or("", |_| "[redacted]"),
            "log_level": settings.log_level,
            "log_format": if settings.log_json { "json" } else { "text" },
            "service_cluster": text(&settings.service_cluster),
            "service_node": text(&settings.service_node),
            "service_zone": text(&settings.service_zone),
            "drain_time": format!("{}s", settings.lifecycle.drain_time_s),
            "drain_strategy": "Immediate",
            "mode": "Serve",
            "disable_hot_restart": true,
            "restart_epoch": 0,
            "enable_mutex_tracing": false,
            "allow_unknown_static_fields": false,
            "reject_unknown_dynamic_fields": false,
            "ignore_unknown_dynamic_fields": false,
        },
        "node": node,
        "last_good_configuration": super::info::last_good(&inner.context.subscription.status().borrow()),
        "overload": super::info::overload(inner),
    }))
}

impl Inner {
    /// `envoy.admin.v3.ServerInfo.State`.
    pub(super) fn state_name(&self) -> &'static str {
        let status = self.context.subscription.status().borrow().clone();
        if self.state.draining.load(Ordering::Relaxed) {
            "DRAINING"
        } else if self.state.not_ready(&status).is_empty() {
            "LIVE"
        } else {
            "INITIALIZING"
        }
    }
}

/// As `envoy.admin.v3.Memory`, from what the kernel counts: memory that is not a file's counts as allocated, and there
/// are no caches that it does not see.
pub(super) fn memory() -> Answer {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bytes = |key: &str| kilobytes(&status, key).unwrap_or(0).saturating_mul(1024).to_string();
    Answer::json(&json!({
        "allocated": bytes("RssAnon"),
        "heap_size": bytes("VmData"),
        "pageheap_unmapped": "0",
        "pageheap_free": "0",
        "total_thread_cache": "0",
        "total_physical_bytes": bytes("VmRSS"),
    }))
}

fn kilobytes(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// The layers of the bootstrap. Few keys have an effect here: the others say so.
pub(super) async fn runtime(inner: &Inner) -> Answer {
    let mask = Some("bootstrap.layered_runtime".to_owned());
    let dump = inner.context.subscription.config_dump(DumpQuery { mask, ..DumpQuery::default() }).await;
    let dump = dump.unwrap_or_default();
    let none = Vec::new();
    let layers = dump["configs"][0]["bootstrap"]["layered_runtime"]["layers"].as_array().unwrap_or(&none);
    Answer::json(&layered(layers))
}

fn layered(layers: &[Value]) -> Value {
    let mut entries = Map::new();
    for (place, layer) in layers.iter().enumerate() {
        let mut keys = Vec::new();
        flatten("", &layer["static_layer"], &mut keys);
        for (key, value) in keys {
            let entry = entries.entry(key.clone()).or_insert_with(|| {
                let mut entry = json!({"final_value": "", "layer_values": vec![""; layers.len()]});
                if !has_effect(&key) {
                    entry["has_effect"] = false.into();
                }
                entry
            });
            entry["final_value"] = value.clone().into();
            entry["layer_values"][place] = value.into();
        }
    }
    let names: Vec<&str> = layers.iter().map(|layer| layer["name"].as_str().unwrap_or_default()).collect();
    json!({"layers": names, "entries": entries})
}

fn has_effect(key: &str) -> bool {
    key == "overload.global_downstream_max_connections"
        || (key.starts_with("envoy.resource_limits.listener.") && key.ends_with(".connection_limit"))
}

fn flatten(prefix: &str, value: &Value, keys: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                flatten(&key, value, keys);
            }
        }
        Value::Null => {}
        Value::String(text) => keys.push((prefix.to_owned(), text.clone())),
        other => keys.push((prefix.to_owned(), other.to_string())),
    }
}

/// As `envoy.admin.v3.UnreadyTargetsDumps`: what waits, and what for.
pub(super) fn init_dump(inner: &Inner, call: &Call) -> Answer {
    let status = inner.context.subscription.status().borrow().clone();
    let only = call.parameter("mask");
    let mut dumps: Vec<(String, Vec<String>)> = Vec::new();
    for (kind, name, what) in &status.warming {
        let manager = kind.to_string();
        if only.is_some_and(|only| !manager.eq_ignore_ascii_case(only)) {
            continue;
        }
        let target = format!("{name}: {what}");
        match dumps.iter_mut().find(|(known, _)| *known == manager) {
            Some((_, targets)) => targets.push(target),
            None => dumps.push((manager, vec![target])),
        }
    }
    if dumps.is_empty() {
        return Answer::json(&json!({}));
    }
    let dumps: Vec<Value> =
        dumps.into_iter().map(|(name, targets)| json!({"name": name, "target_names": targets})).collect();
    Answer::json(&json!({"unready_targets_dumps": dumps}))
}

/// Envoy's calls that this program has nothing to answer with.
pub(super) fn absent(path: &str) -> Option<Answer> {
    let (status, reason) = match path {
        "/contention" => (
            StatusCode::OK,
            "Mutex contention tracing is not enabled: requests take no lock, there is nothing to trace.",
        ),
        "/hot_restart_version" => (StatusCode::OK, "disabled"),
        "/cpuprofiler" | "/heapprofiler" | "/allocprofiler" | "/heap_dump" => {
            (StatusCode::NOT_IMPLEMENTED, "There is no profiler in this program; perf(1) works on it as it is.")
        }
        "/runtime_modify" => (
            StatusCode::NOT_IMPLEMENTED,
            "There is no runtime that could be changed; see /runtime for what is in force.",
        ),
        "/stats/recentlookups" => {
            (StatusCode::OK, "Lookup tracking is not enabled: statistics are looked up once, not by request.")
        }
        _ => return None,
    };
    Some(Answer::error(status, format!("{reason}\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_layers_win_and_what_has_no_effect_says_so() {
        let layers = [
            json!({"name": "static", "static_layer": {"a": {"b": 1}, "c": true}}),
            json!({"name": "over", "static_layer": {"a.b": "2", "overload.global_downstream_max_connections": 9}}),
            json!({"name": "admin", "admin_layer": {}}),
        ];
        let runtime = layered(&layers);
        assert_eq!(runtime["layers"], json!(["static", "over", "admin"]));
        let ab = json!({"final_value": "2", "layer_values": ["1", "2", ""], "has_effect": false});
        assert_eq!(runtime["entries"]["a.b"], ab);
        let limit = json!({"final_value": "9", "layer_values": ["", "9", ""]});
        assert_eq!(runtime["entries"]["overload.global_downstream_max_connections"], limit);
        assert_eq!(layered(&[]), json!({"layers": [], "entries": {}}));
    }

    #[test]
    fn the_kernels_counts_are_read() {
        assert_eq!(kilobytes("Name:\tx\nVmRSS:\t   12 kB\n", "VmRSS"), Some(12));
        assert_eq!(kilobytes("VmRSSX: 1 kB\n", "VmRSS"), None);
    }
}

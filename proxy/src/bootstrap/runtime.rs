//! `layered_runtime` and `overload_manager`: the connection limits in them count, everything else is named.

use std::collections::BTreeMap;

use outrigger_wire::pb::envoy::{
    config::{
        bootstrap::v3::{LayeredRuntime, runtime_layer::LayerSpecifier},
        overload::v3::{OverloadManager, resource_monitor::ConfigType},
    },
    extensions::resource_monitors::downstream_connections::v3::DownstreamConnectionsConfig,
};
use serde_json::{Map, Value};

use crate::{
    ir::Name,
    xds::decode::{Reject, at::At, extension, fields::fields, metadata},
};

#[derive(Default)]
pub(super) struct Runtime {
    pub listener_limits: BTreeMap<Name, u64>,
    pub max_downstream_connections: Option<u64>,
}

pub(super) fn layers(message: &Option<LayeredRuntime>, at: &At<'_>) -> Result<Runtime, Reject> {
    let mut runtime = Runtime::default();
    let Some(message) = message else { return Ok(runtime) };
    let at = at.field("layered_runtime");
    for (i, layer) in message.layers.iter().enumerate() {
        let at = at.index("layers", i);
        match at.required("layer_specifier", &layer.layer_specifier)? {
            LayerSpecifier::StaticLayer(fields) => {
                let mut keys = Vec::new();
                flatten("", &metadata::object(fields), &mut keys);
                for (key, value) in keys {
                    key_value(&key, &value, &mut runtime, &at.key("static_layer", &key))?;
                }
            }
            LayerSpecifier::DiskLayer(_) => at.field("disk_layer").unsupported("there is no runtime"),
            LayerSpecifier::AdminLayer(_) => at.field("admin_layer").harmless("there is no runtime to change"),
            LayerSpecifier::RtdsLayer(_) => at.field("rtds_layer").unsupported("there is no runtime"),
        }
    }
    Ok(runtime)
}

/// Keys may be nested or written with dots.
fn flatten(prefix: &str, fields: &Map<String, Value>, keys: &mut Vec<(String, Value)>) {
    for (name, value) in fields {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            Value::Object(inner) => flatten(&key, inner, keys),
            value => keys.push((key, value.clone())),
        }
    }
}

fn key_value(key: &str, value: &Value, runtime: &mut Runtime, at: &At<'_>) -> Result<(), Reject> {
    let listener =
        key.strip_prefix("envoy.resource_limits.listener.").and_then(|k| k.strip_suffix(".connection_limit"));
    let global = key == "overload.global_downstream_max_connections";
    if listener.is_none() && !global {
        at.unsupported("there is no runtime: the key has no effect");
        return Ok(());
    }
    let number = match value {
        Value::Number(n) => n.as_u64(),
        Value::String(s) => s.parse().ok(),
        _ => None,
    };
    let limit = number.ok_or_else(|| at.reject(format!("{value} is not a number of connections")))?;
    match listener {
        Some(name) => drop(runtime.listener_limits.insert(name.into(), limit)),
        None => runtime.max_downstream_connections = Some(limit),
    }
    Ok(())
}

/// The bound on downstream connections, if a monitor sets one.
pub(super) fn overload(message: &Option<OverloadManager>, at: &At<'_>) -> Result<Option<u64>, Reject> {
    let Some(message) = message else { return Ok(None) };
    let at = at.field("overload_manager");
    fields!(&at, message => OverloadManager {
        read: [resource_monitors],
        harmless: [refresh_interval, buffer_factory_config],
        unsupported: [actions, loadshed_points],
    });
    let mut limit = None;
    for (i, monitor) in message.resource_monitors.iter().enumerate() {
        let at = at.index("resource_monitors", i);
        let Some(ConfigType::TypedConfig(any)) = &monitor.config_type else {
            return Err(at.field("typed_config").reject("is required"));
        };
        let at = at.field("typed_config");
        let extension = extension::open(any, &at)?;
        if !extension.is::<DownstreamConnectionsConfig>() {
            at.unsupported(format!("{} is not monitored", extension.kind));
            continue;
        }
        let config: DownstreamConnectionsConfig = extension.message(&at)?;
        let max = u64::try_from(config.max_active_downstream_connections).ok().filter(|n| *n > 0);
        let max =
            max.ok_or_else(|| at.field("max_active_downstream_connections").reject("must be greater than zero"))?;
        if limit.replace(max).is_some() {
            return Err(at.reject("occurs twice"));
        }
    }
    Ok(limit)
}

//! What `MeshConfig` says of traces, with Istio's names.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    mesh_config::{MeshConfig, PathPrefix},
    scalars::{HumanDuration, port, positive, some_percent},
};

/// Of requests, in percent, where nothing is said.
const SAMPLING: f64 = 1.0;

/// Who receives the spans of requests.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OpenTelemetry {
    /// A host of the mesh, or `namespace/host`; absolute once the documents are joined.
    pub service: String,
    #[serde(deserialize_with = "port")]
    pub port: u16,
    /// Most characters of a path.
    pub max_tag_length: Option<u32>,
    /// Over HTTP in place of gRPC.
    pub http: Option<OverHttp>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OverHttp {
    pub path: PathPrefix,
    #[serde(default, deserialize_with = "positive")]
    pub timeout: Option<HumanDuration>,
}

/// `defaultProviders`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DefaultProviders {
    pub tracing: Vec<String>,
}

/// `defaultConfig`, of which only traces concern us.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DefaultConfig {
    pub tracing: ProxyTracing,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProxyTracing {
    /// The part of all requests that is traced, in percent.
    #[serde(deserialize_with = "some_percent")]
    pub sampling: Option<f64>,
}

impl MeshConfig {
    /// Who receives spans, and of which part of all requests.
    pub fn tracing(&self) -> Option<(&OpenTelemetry, f64)> {
        let name = self.default_providers.tracing.first().filter(|_| self.enable_tracing != Some(false))?;
        let sampling = self.default_config.tracing.sampling.unwrap_or(SAMPLING);
        Some((self.provider(name)?.opentelemetry.as_ref()?, sampling))
    }
}

/// Takes over from Istio's MeshConfig what holds here too: traces to OpenTelemetry providers.
pub(super) fn keep(whole: &Value, kept: &mut Map<String, Value>) {
    let mut known = Vec::new();
    for provider in kept.get_mut("extensionProviders").and_then(Value::as_array_mut).into_iter().flatten() {
        let name = provider.get("name").and_then(Value::as_str).map(str::to_owned);
        let Some(of_telemetry) = provider.get_mut("opentelemetry").and_then(Value::as_object_mut) else { continue };
        of_telemetry.retain(|key, _| matches!(key.as_str(), "service" | "port" | "maxTagLength" | "http"));
        if let Some(http) = of_telemetry.get_mut("http").and_then(Value::as_object_mut) {
            http.retain(|key, _| matches!(key.as_str(), "path" | "timeout"));
        }
        known.extend(name.map(Value::String));
    }
    // Providers of other kinds receive nothing from us.
    let named = whole.pointer("/defaultProviders/tracing").and_then(Value::as_array);
    let tracing: Vec<_> = named.into_iter().flatten().filter(|name| known.contains(name)).cloned().collect();
    kept.insert("defaultProviders".into(), serde_json::json!({ "tracing": tracing }));
    if let Some(sampling) = whole.pointer("/defaultConfig/tracing/sampling") {
        kept.insert("defaultConfig".into(), serde_json::json!({ "tracing": { "sampling": sampling } }));
    }
}

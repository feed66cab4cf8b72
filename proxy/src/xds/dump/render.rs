//! From the picture of the store to JSON.
//!
//! Built as JSON rather than through the `envoy.admin.v3` messages: a resource whose type has left the descriptor pool
//! then spoils only its own entry, and thousands of resources are not encoded and decoded twice.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use outrigger_wire::{
    json::{self, Member, member},
    packed::Packed,
    scan::{self, Content},
};
use regex::Regex;
use serde_json::{Map, Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Dump, DumpError, DumpQuery, mask::Mask, redact::redact};
use crate::{
    ir::secret::{DataSource, Secret},
    xds::{
        decode::Resource,
        kind::Kind,
        store::{Failure, Origin, Slot, Version},
    },
};

/// How Envoy names the parts of a type's dump.
struct Shape {
    message: &'static str,
    statics: &'static str,
    actives: &'static str,
    warmings: &'static str,
    /// The field that holds the resource.
    field: &'static str,
}

const fn shape(kind: Kind) -> Shape {
    match kind {
        Kind::Cluster => Shape {
            message: "ClustersConfigDump",
            statics: "static_clusters",
            actives: "dynamic_active_clusters",
            warmings: "dynamic_warming_clusters",
            field: "cluster",
        },
        Kind::Endpoints => Shape {
            message: "EndpointsConfigDump",
            statics: "static_endpoint_configs",
            actives: "dynamic_endpoint_configs",
            warmings: "",
            field: "endpoint_config",
        },
        Kind::Listener => Shape {
            message: "ListenersConfigDump",
            statics: "static_listeners",
            actives: "dynamic_listeners",
            warmings: "",
            field: "listener",
        },
        Kind::Routes => Shape {
            message: "RoutesConfigDump",
            statics: "static_route_configs",
            actives: "dynamic_route_configs",
            warmings: "",
            field: "route_config",
        },
        Kind::Secret => Shape {
            message: "SecretsConfigDump",
            statics: "static_secrets",
            actives: "dynamic_active_secrets",
            warmings: "dynamic_warming_secrets",
            field: "secret",
        },
    }
}

/// As Envoy orders `/config_dump`.
const ORDER: [Kind; 5] = [Kind::Cluster, Kind::Endpoints, Kind::Listener, Kind::Routes, Kind::Secret];

impl Dump {
    /// `{"configs": [...]}`.
    pub fn render(&self, query: &DumpQuery) -> Result<Value, DumpError> {
        let names = query.name_regex.as_deref().map(|r| Regex::new(&format!("^(?:{r})$"))).transpose();
        let names = names.map_err(|e| DumpError::Bad(format!("name_regex: {e}")))?;
        let mask = Mask::parse(query.mask.as_deref().unwrap_or_default());
        let mask = mask.ok_or_else(|| DumpError::Bad("mask: too many paths".to_owned()))?;
        let mut configs = Vec::new();
        let bootstrap = self.bootstrap.as_ref().map(Packed::unpack);
        if let Some(bootstrap) = &bootstrap {
            configs.push(json!({
                "@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump",
                "bootstrap": encoded("envoy.config.bootstrap.v3.Bootstrap", bootstrap),
            }));
        }
        // The other kinds have no such field: they need not be written to be left out.
        let alone = query.resource.is_none() && mask.is_of("bootstrap");
        for kind in ORDER {
            if !alone && (kind != Kind::Endpoints || query.include_eds) {
                configs.push(self.table(kind, bootstrap.as_deref(), names.as_ref()));
            }
        }
        configs.iter_mut().for_each(redact);
        let asked = query.mask.as_deref().unwrap_or_default();
        let configs = match &query.resource {
            Some(field) => {
                let mut items = resources(configs, field)?;
                if !items.iter_mut().all(|item| mask.trim(&message(item), item)) {
                    return Err(DumpError::Bad(format!("FieldMask {asked} could not be successfully used.")));
                }
                items
            }
            None if mask.is_empty() => configs,
            None => {
                // Each kind has fields of its own: what the mask does not fit is left out.
                let fits = |mut config: Value| mask.trim(&message(&config), &mut config).then_some(config);
                let left: Vec<Value> = configs.into_iter().filter_map(fits).collect();
                if left.is_empty() {
                    let reason = format!("FieldMask {asked} could not be successfully applied to any configs.");
                    return Err(DumpError::Bad(reason));
                }
                left
            }
        };
        Ok(json!({ "configs": configs }))
    }

    fn table(&self, kind: Kind, bootstrap: Option<&[u8]>, names: Option<&Regex>) -> Value {
        let shape = shape(kind);
        let mut out = Map::new();
        out.insert("@type".into(), format!("type.googleapis.com/envoy.admin.v3.{}", shape.message).into());
        if kind.is_wildcard()
            && let Some(version) = self.versions.get(&kind).filter(|v| !v.is_empty())
        {
            out.insert("version_info".into(), version.to_string().into());
        }
        let mut put = |list: &str, entry: Map<String, Value>| {
            if let Value::Array(items) = out.entry(list).or_insert_with(|| json!([])) {
                items.push(entry.into());
            }
        };
        for entry in bootstrap.iter().flat_map(|b| statics(b, kind, &shape)) {
            let name = entry.get(shape.field).and_then(|r| r.get("name")).and_then(Value::as_str).unwrap_or_default();
            if names.is_none_or(|n| n.is_match(name)) {
                put(shape.statics, entry);
            }
        }
        let slots = self.tables.get(&kind).into_iter().flatten();
        for (name, slot) in slots.filter(|(name, slot)| names.is_none_or(|n| n.is_match(name)) && is_dynamic(slot)) {
            match kind {
                Kind::Listener => put(shape.actives, listener(name, slot)),
                _ => {
                    let warming = slot.latest.as_ref().filter(|l| {
                        slot.active.as_ref().is_none_or(|a| !Arc::ptr_eq(a, l)) && !shape.warmings.is_empty()
                    });
                    if let Some(active) = &slot.active {
                        put(shape.actives, resource(kind, &shape, name, Some(active), slot.failure.as_deref()));
                    } else if warming.is_none() {
                        let list = if shape.warmings.is_empty() { shape.actives } else { shape.warmings };
                        put(list, resource(kind, &shape, name, slot.latest.as_ref(), slot.failure.as_deref()));
                    }
                    if let Some(latest) = warming {
                        put(shape.warmings, resource(kind, &shape, name, Some(latest), slot.failure.as_deref()));
                    }
                }
            }
        }
        Value::Object(out)
    }
}

/// The full name of the message that JSON says it is.
fn message(value: &Value) -> String {
    let url = value.get("@type").and_then(Value::as_str).unwrap_or_default();
    url.rsplit('/').next().unwrap_or_default().to_owned()
}

/// The elements of one repeated field, each with its type.
fn resources(configs: Vec<Value>, field: &str) -> Result<Vec<Value>, DumpError> {
    for mut config in configs {
        let Some(Member::Messages(of)) = member(&message(&config), field) else {
            if config.get(field).is_some() {
                let reason = format!("{field} is not a repeated field. Use ?mask={field} to get only this field");
                return Err(DumpError::Bad(reason));
            }
            continue;
        };
        let found = config.as_object_mut().and_then(|c| c.remove(field));
        let Some(Value::Array(items)) = found else { return Ok(Vec::new()) };
        let typed = |item: Value| {
            let mut fields = Map::from_iter([("@type".to_owned(), format!("type.googleapis.com/{of}").into())]);
            if let Value::Object(own) = item {
                fields.extend(own);
            }
            Value::Object(fields)
        };
        return Ok(items.into_iter().map(typed).collect());
    }
    Err(DumpError::NotFound(field.to_owned()))
}

/// Whether a source delivered it, or was asked to.
fn is_dynamic(slot: &Slot) -> bool {
    let mut versions = slot.latest.iter().chain(&slot.active);
    versions.all(|v| v.origin != Origin::Static)
}

/// The static resources of a type, as the bootstrap has them.
fn statics(bootstrap: &[u8], kind: Kind, shape: &Shape) -> Vec<Map<String, Value>> {
    let number = match kind {
        Kind::Listener => 1,
        Kind::Cluster => 2,
        Kind::Secret => 3,
        Kind::Endpoints | Kind::Routes => return Vec::new(),
    };
    let resources = messages(bootstrap, 2).flat_map(|resources| messages(resources, number));
    let entry = |raw: &[u8]| {
        let resource = any(kind, raw);
        let mut entry = Map::new();
        if kind == Kind::Secret {
            entry.insert("name".into(), resource.get("name").cloned().unwrap_or_else(|| "".into()));
        }
        entry.insert(shape.field.into(), resource);
        entry
    };
    resources.map(entry).collect()
}

/// The values of a field of an encoded message.
fn messages(message: &[u8], number: u32) -> impl Iterator<Item = &[u8]> {
    scan::fields(message).filter_map(move |field| match field.ok()? {
        scan::Field { number: n, content: Content::Bytes(bytes), .. } if n == number => Some(bytes),
        _ => None,
    })
}

/// The entry of a resource that is neither static nor a listener.
fn resource(
    kind: Kind,
    shape: &Shape,
    name: &str,
    version: Option<&Arc<Version>>,
    failure: Option<&Failure>,
) -> Map<String, Value> {
    let mut entry = Map::new();
    if kind == Kind::Secret {
        entry.insert("name".into(), name.into());
    }
    match version {
        Some(version) => state(&mut entry, shape.field, kind, name, version),
        None if failure.is_none() && kind != Kind::Secret => {
            // Asked for, nothing came yet: Envoy shows the bare name.
            let field = if kind == Kind::Endpoints { "cluster_name" } else { "name" };
            entry.insert(shape.field.into(), json!({ "@type": kind.type_url(), field: name }));
        }
        None => {}
    }
    if let Some(failure) = failure {
        entry.insert("error_state".into(), error(kind, failure));
    }
    let status = match (version, failure) {
        (_, Some(_)) => "NACKED",
        (Some(_), None) => "ACKED",
        (None, None) => "REQUESTED",
    };
    entry.insert("client_status".into(), status.into());
    entry
}

fn listener(name: &str, slot: &Slot) -> Map<String, Value> {
    let mut entry = Map::from_iter([("name".to_owned(), Value::from(name))]);
    let mut put = |key: &str, version: &Arc<Version>| {
        let mut inner = Map::new();
        state(&mut inner, "listener", Kind::Listener, name, version);
        entry.insert(key.to_owned(), inner.into());
    };
    match (&slot.active, &slot.latest) {
        (Some(active), Some(latest)) if !Arc::ptr_eq(active, latest) => {
            put("active_state", active);
            put("warming_state", latest);
        }
        (Some(active), Some(_)) => put("active_state", active),
        (Some(active), None) => put("draining_state", active),
        (None, Some(latest)) => put("warming_state", latest),
        (None, None) => {}
    }
    if let Some(failure) = &slot.failure {
        entry.insert("error_state".into(), error(Kind::Listener, failure));
    }
    entry.insert("client_status".into(), if slot.failure.is_some() { "NACKED" } else { "ACKED" }.into());
    entry
}

fn state(entry: &mut Map<String, Value>, field: &str, kind: Kind, name: &str, version: &Version) {
    if !version.version.is_empty() {
        entry.insert("version_info".into(), version.version.to_string().into());
    }
    let content = match &version.raw {
        Some(raw) => any(kind, raw),
        None => own(kind, name, &version.resource),
    };
    entry.insert(field.into(), content);
    entry.insert("last_updated".into(), timestamp(version.updated));
}

/// A resource of our own making: of an identity the public part, so that tools can look at certificates.
fn own(kind: Kind, name: &str, resource: &Resource) -> Value {
    let bytes = |source: &DataSource| match source {
        DataSource::Inline(bytes) => json!({ "inline_bytes": STANDARD.encode(bytes) }),
        DataSource::File(path) => json!({ "filename": path.to_string_lossy() }),
    };
    let mut out = Map::from_iter([("@type".to_owned(), kind.type_url().into()), ("name".to_owned(), name.into())]);
    if let Resource::Secret { secret, .. } = resource {
        let (field, content) = match &**secret {
            Secret::Certificate(c) => {
                let hidden = json!({ "inline_bytes": STANDARD.encode("[redacted]") });
                ("tls_certificate", json!({ "certificate_chain": bytes(&c.chain), "private_key": hidden }))
            }
            Secret::Validation(v) => ("validation_context", json!({ "trusted_ca": v.trusted_ca.as_ref().map(bytes) })),
        };
        out.insert(field.into(), content);
    }
    out.into()
}

fn error(kind: Kind, failure: &Failure) -> Value {
    let mut state = Map::new();
    if !failure.raw.is_empty() {
        state.insert("failed_configuration".into(), any(kind, &failure.raw));
    }
    state.insert("last_update_attempt".into(), timestamp(failure.at));
    state.insert("details".into(), failure.reason.to_string().into());
    if !failure.version.is_empty() {
        state.insert("version_info".into(), failure.version.to_string().into());
    }
    state.into()
}

/// A resource's bytes in JSON with `@type`.
fn any(kind: Kind, raw: &[u8]) -> Value {
    let full_name = kind.type_url().trim_start_matches("type.googleapis.com/");
    let mut out = Map::from_iter([("@type".to_owned(), Value::from(kind.type_url()))]);
    match encoded(full_name, raw) {
        Value::Object(mut fields) => out.append(&mut fields),
        other => drop(out.insert("value".into(), other)),
    }
    out.into()
}

/// An encoded message in JSON; what cannot be rendered says so in place.
fn encoded(full_name: &str, raw: &[u8]) -> Value {
    json::bytes_to_value(full_name, raw).unwrap_or_else(|e| json!({ "unrenderable": e.to_string(), "type": full_name }))
}

fn timestamp(at: SystemTime) -> Value {
    let millis = at.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis());
    let nanos = i128::try_from(millis).unwrap_or(0) * 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(nanos).ok().and_then(|t| t.format(&Rfc3339).ok()).into()
}

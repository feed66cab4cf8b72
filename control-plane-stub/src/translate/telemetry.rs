//! What Istio's metrics need to know: the service behind a cluster, the workload behind an endpoint, and the filter that
//! asks for them. For our own proxy only: to Envoy without Istio's extensions the filter is unknown.

use std::collections::BTreeMap;

use outrigger_wire::naming;
use prost::Message as _;

use super::{
    filters,
    pb::{self, Any, Struct, Value, cluster, core, hcm, listener},
    scope::Scope,
};
use crate::{model::Endpoint, resources::ClientKind};

const NAME: &str = "istio.stats";

fn wanted(scope: &Scope<'_>) -> bool {
    scope.kind == ClientKind::Outrigger
}

/// `stats.PluginConfig`, which Envoy's packages lack, in a TypedStruct. Inbound the service is known in any case: a host
/// that a stranger sends is not its name.
fn config(inbound: bool) -> Any {
    let off = Value { kind: Some(pb::Kind::BoolValue(true)) };
    let off = ("disable_host_header_fallback".to_owned(), off);
    let config = Struct { fields: inbound.then_some(off).into_iter().collect() };
    let mut message = pb::Message::default();
    message.text(1, "type.googleapis.com/stats.PluginConfig");
    message.bytes(2, &config.encode_to_vec());
    message.any("xds.type.v3.TypedStruct")
}

/// The filter of a connection manager.
pub(super) fn http_filter(scope: &Scope<'_>, inbound: bool) -> Option<hcm::HttpFilter> {
    wanted(scope).then(|| filters::http_filter(NAME, config(inbound)))
}

/// Has the connections of a listener counted that are not HTTP.
pub(super) fn count_connections(scope: &Scope<'_>, listener: &mut listener::Listener) {
    if !wanted(scope) {
        return;
    }
    let inbound = listener.traffic_direction == core::TrafficDirection::Inbound as i32;
    for chain in listener.filter_chains.iter_mut().chain(&mut listener.default_filter_chain) {
        if let Some(at) = chain.filters.iter().position(|filter| filter.name == filters::TCP_PROXY) {
            chain.filters.insert(at, filters::network(NAME, config(inbound)));
        }
    }
}

/// Names the service that a cluster leads to.
pub(super) fn name_service(
    scope: &Scope<'_>,
    cluster: &mut cluster::Cluster,
    (host, name, namespace): (&str, &str, &str),
) {
    if !wanted(scope) {
        return;
    }
    let fields = [("host", host), ("name", name), ("namespace", namespace)];
    let service = object(fields.map(|(key, value)| (key.to_owned(), text(value))).into());
    let services = pb::ListValue { values: vec![Value { kind: Some(pb::Kind::StructValue(service)) }] };
    let services = Value { kind: Some(pb::Kind::ListValue(services)) };
    let metadata = cluster.metadata.get_or_insert_default();
    let mut all: BTreeMap<String, Struct> = std::mem::take(&mut metadata.filter_metadata).into_iter().collect();
    all.insert("istio".to_owned(), object([("services".to_owned(), services)].into()));
    metadata.filter_metadata = pb::ordered(all);
}

/// Names the workload behind an endpoint: `name;namespace;canonical name;canonical revision;cluster`.
pub(super) fn workload(scope: &Scope<'_>, endpoint: &Endpoint) -> Option<(String, Struct)> {
    if !wanted(scope) || endpoint.workload.is_empty() {
        return None;
    }
    let label = |key: &str| endpoint.labels.get(key).map(String::as_str);
    let (name, revision) = (&endpoint.workload, naming::canonical_revision(&label));
    let service = naming::canonical_service(&label, name);
    let text = format!("{name};{};{service};{revision};", endpoint.namespace);
    Some(("istio".to_owned(), pb::single("workload", &text)))
}

fn object(fields: BTreeMap<String, Value>) -> Struct {
    Struct { fields: pb::ordered(fields) }
}

fn text(value: &str) -> Value {
    Value { kind: Some(pb::Kind::StringValue(value.to_owned())) }
}

//! Workloads and services as Istio's metrics describe them, and where their descriptions come from.

use outrigger_wire::naming::{self, UNKNOWN};
use serde_json::{Map, Value};

use crate::ir::Metadata;

/// Longest name that is taken over: Kubernetes has none longer.
const MAX_NAME: usize = 253;

/// Who is at one end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    pub name: Box<str>,
    pub namespace: Box<str>,
    pub canonical_service: Box<str>,
    pub canonical_revision: Box<str>,
    pub app: Box<str>,
    pub version: Box<str>,
    pub cluster: Box<str>,
}

impl Default for Workload {
    /// Nobody we know.
    fn default() -> Self {
        let unknown = || -> Box<str> { UNKNOWN.into() };
        Self {
            name: unknown(),
            namespace: unknown(),
            canonical_service: unknown(),
            canonical_revision: "latest".into(),
            app: unknown(),
            version: unknown(),
            cluster: unknown(),
        }
    }
}

impl Workload {
    /// This proxy's own, from the metadata of its node.
    pub fn of_node(metadata: &Map<String, Value>) -> Self {
        let text = |key: &str| metadata.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        let labels = metadata.get("LABELS").and_then(Value::as_object);
        let label = |key: &str| labels.and_then(|l| l.get(key)).and_then(Value::as_str).filter(|text| !text.is_empty());
        let name = text("WORKLOAD_NAME").map(str::to_owned);
        let name = name.or_else(|| text("NAME").map(|pod| naming::workload(pod, &label)));
        let name = name.unwrap_or_else(|| UNKNOWN.to_owned());
        Self {
            namespace: known(text("NAMESPACE")),
            canonical_service: bounded(&naming::canonical_service(&label, &name)),
            canonical_revision: bounded(&naming::canonical_revision(&label)),
            app: known(label("app")),
            version: known(label("version")),
            cluster: known(text("CLUSTER_ID")),
            name: bounded(&name),
        }
    }

    /// Of an endpoint, as the control plane writes it: `name;namespace;canonical name;canonical revision;cluster`.
    pub fn of_endpoint(metadata: Option<&Metadata>) -> Option<Self> {
        let text = metadata?.get("istio")?.get("workload")?.as_str()?;
        let mut parts = text.split(';').map(|part| Some(part).filter(|part| !part.is_empty()));
        let mut next = || known(parts.next().flatten());
        let (name, namespace, canonical_service) = (next(), next(), next());
        let revision = parts.next().flatten().map_or_else(|| "latest".into(), bounded);
        let cluster = known(parts.next().flatten());
        Some(Self { name, namespace, canonical_service, canonical_revision: revision, cluster, ..Self::default() })
    }
}

fn known(text: Option<&str>) -> Box<str> {
    text.map_or_else(|| UNKNOWN.into(), bounded)
}

fn bounded(text: &str) -> Box<str> {
    text.chars().take(MAX_NAME).collect()
}

/// What was called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    pub host: Option<Box<str>>,
    pub name: Option<Box<str>>,
}

/// Clusters that stand for no service, under whose names Istio counts what went there.
const SPECIAL: &[&str] = &[
    "BlackHoleCluster",
    "PassthroughCluster",
    "InboundPassthroughCluster",
    "InboundPassthroughClusterIpv4",
    "InboundPassthroughClusterIpv6",
];

impl Service {
    /// The service behind a cluster, as the control plane names it there.
    pub fn of_cluster(name: &str, metadata: Option<&Metadata>) -> Self {
        if let Some(special) = SPECIAL.iter().find(|special| **special == name) {
            return Self { host: None, name: Some((*special).into()) };
        }
        let first = || metadata?.get("istio")?.get("services")?.as_array()?.first()?.as_object();
        let Some(service) = first() else { return Self::default() };
        let text = |key: &str| service.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        let host = text("host");
        let short = || host.map(|host| host.split('.').next().unwrap_or(host));
        Self { host: host.map(bounded), name: text("name").or_else(short).map(bounded) }
    }
}

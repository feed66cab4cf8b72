//! `v1 Pod`: where a workload runs, who it is, and whether a sidecar is with it.
//!
//! Fields that do not concern a mesh are passed over unseen: the API server has checked them.

use std::{collections::BTreeMap, net::IpAddr};

use serde::Deserialize;

use super::{
    Problem,
    document::{Meta, Object},
    service::Transport,
    workload::{Address, Locality, Workload, declared_mode},
};

#[derive(Debug, Deserialize)]
pub(super) struct Pod {
    #[serde(default)]
    pub spec: PodSpec,
    #[serde(default)]
    pub status: PodStatus,
}

/// `v1 Node`: its labels say where its Pods are.
#[derive(Debug, Deserialize)]
pub(super) struct Node {}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PodSpec {
    service_account_name: Option<String>,
    pub node_name: Option<String>,
    #[serde(default)]
    containers: Vec<Container>,
    #[serde(default)]
    init_containers: Vec<Container>,
    #[serde(default)]
    host_network: bool,
    hostname: Option<String>,
    subdomain: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Container {
    #[serde(default)]
    name: String,
    #[serde(default)]
    ports: Vec<ContainerPort>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerPort {
    #[serde(default)]
    name: String,
    container_port: u16,
    protocol: Option<Transport>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PodStatus {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(default, rename = "podIPs")]
    pod_ips: Vec<PodIp>,
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Debug, Deserialize)]
struct PodIp {
    ip: String,
}

#[derive(Debug, Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

/// The workload of a Pod; none while it has no address or has ended.
pub(super) fn workload(pod: &Object<Pod>, problems: &mut Vec<Problem>) -> Option<Workload> {
    let (meta, spec, status) = (&pod.meta, &pod.spec.spec, &pod.spec.status);
    let mut addresses = Vec::new();
    let texts = status.pod_ips.iter().enumerate().map(|(i, p)| (format!("status.podIPs[{i}].ip"), p.ip.as_str()));
    let single = status.pod_ip.iter().map(|ip| ("status.podIP".to_owned(), ip.as_str()));
    for (path, text) in texts.chain(single).filter(|(_, text)| !text.is_empty()) {
        match text.parse::<IpAddr>() {
            Ok(ip) if !addresses.contains(&Address::Ip(ip)) => addresses.push(Address::Ip(ip)),
            Ok(_) => {}
            Err(_) => problems.push(pod.source.problem(path, format!("`{text}` is not an IP address"))),
        }
    }
    let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    if ended || addresses.is_empty() {
        return None;
    }
    let ports = spec.containers.iter().chain(&spec.init_containers).flat_map(|c| &c.ports);
    let named = ports.filter(|p| !p.name.is_empty() && p.protocol.is_none_or(|t| t == Transport::Tcp));
    let named_ports: BTreeMap<_, _> = named.map(|p| (p.name.clone(), p.container_port)).collect();
    let not_ready = status.conditions.iter().any(|c| c.kind == "Ready" && c.status != "True");
    Some(Workload {
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        labels: meta.labels.clone(),
        service_account: spec.service_account_name.clone().unwrap_or_else(|| "default".to_owned()),
        addresses,
        named_ports,
        ports: BTreeMap::new(),
        meshed: meshed(meta, spec),
        ready: !not_ready && meta.deletion_timestamp.is_none() && status.phase.as_deref() != Some("Pending"),
        weight: 1,
        locality: Locality::of_labels(&meta.labels),
        hostname: spec.hostname.clone().or_else(|| spec.subdomain.as_ref().map(|_| meta.name.clone())),
    })
}

/// The label that istiod's injector sets decides; without it, the traces an injector or a careful author leaves.
fn meshed(meta: &Meta, spec: &PodSpec) -> bool {
    if let Some(mode) = declared_mode(&meta.labels) {
        return mode;
    }
    if spec.host_network {
        return false;
    }
    let inject = |key: &str| meta.labels.get(key).or_else(|| meta.annotations.get(key)).map(String::as_str);
    match inject("sidecar.istio.io/inject") {
        Some("false") => return false,
        Some("true") => return true,
        _ => {}
    }
    let sidecar = |c: &Container| c.name == "istio-proxy" || c.name == "outrigger-proxy";
    meta.annotations.contains_key("sidecar.istio.io/status")
        || spec.containers.iter().chain(&spec.init_containers).any(sidecar)
}

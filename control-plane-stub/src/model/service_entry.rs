//! `ServiceEntry`: services outside Kubernetes.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{
    Problem,
    document::Object,
    names::{self, Visibility},
    protocol::Protocol,
    service::EntryPort,
    workload::{Address, WorkloadEntry},
    world::{Cidr, Port, Resolution, Service},
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ServiceEntry {
    pub hosts: Vec<String>,
    #[serde(default)]
    pub addresses: Vec<String>,
    #[serde(default)]
    pub ports: Vec<EntryPort>,
    #[serde(default)]
    pub location: Location,
    #[serde(default)]
    pub resolution: EntryResolution,
    #[serde(default)]
    pub endpoints: Vec<WorkloadEntry>,
    pub workload_selector: Option<WorkloadSelector>,
    #[serde(default)]
    pub export_to: Vec<String>,
    #[serde(default)]
    pub subject_alt_names: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WorkloadSelector {
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum Location {
    #[default]
    MeshExternal,
    MeshInternal,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum EntryResolution {
    #[default]
    None,
    Static,
    Dns,
    DnsRoundRobin,
}

/// One service per host, without endpoints yet.
pub(super) fn services(object: &Object<ServiceEntry>, problems: &mut Vec<Problem>) -> Vec<Service> {
    let (meta, spec, source) = (&object.meta, &object.spec, &object.source);
    validate(object, problems);
    let mut addresses = Vec::new();
    for (index, text) in spec.addresses.iter().enumerate() {
        match Cidr::parse(text) {
            Some(cidr) => addresses.push(cidr),
            None => {
                let path = format!("spec.addresses[{index}]");
                problems.push(source.problem(path, format!("`{text}` is neither an IP address nor a prefix")));
            }
        }
    }
    let visibility = Visibility::new(&spec.export_to, &meta.namespace).unwrap_or_else(|reason| {
        problems.push(source.problem("spec.exportTo", reason));
        Visibility::All
    });
    let mut ports: Vec<Port> = Vec::new();
    for (index, port) in spec.ports.iter().enumerate() {
        let path = |field: &str| format!("spec.ports[{index}].{field}");
        if ports.iter().any(|p| p.number == port.number || p.name == port.name) {
            problems.push(source.problem(path("number"), "this number or name is listed twice"));
            continue;
        }
        let protocol = match port.protocol.as_deref() {
            None | Some("") => Protocol::of_service_port(None, &port.name, port.number),
            Some(text) => Protocol::parse(text).unwrap_or_else(|| {
                let reason =
                    format!("`{text}` is not one of HTTP, HTTP2, GRPC, GRPC-WEB, HTTPS, TLS, TCP, MONGO, MYSQL, REDIS");
                problems.push(source.problem(path("protocol"), reason));
                Protocol::Tcp
            }),
        };
        ports.push(Port { name: port.name.clone(), number: port.number, protocol });
    }
    let resolution = match spec.resolution {
        EntryResolution::None => Resolution::OriginalDst,
        EntryResolution::Static => Resolution::Endpoints,
        EntryResolution::Dns => Resolution::Dns,
        EntryResolution::DnsRoundRobin => Resolution::DnsRoundRobin,
    };
    let service = |host: &String| Service {
        host: host.to_ascii_lowercase(),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        kubernetes: false,
        addresses: addresses.clone(),
        headless: false,
        ports: ports.clone(),
        resolution,
        external: spec.location == Location::MeshExternal,
        visibility: visibility.clone(),
        subject_alt_names: spec.subject_alt_names.clone(),
        prefers_close: false,
        endpoints: Vec::new(),
        behind: Vec::new(),
        source: source.clone(),
    };
    spec.hosts.iter().map(service).collect()
}

fn validate(object: &Object<ServiceEntry>, problems: &mut Vec<Problem>) {
    let (spec, source) = (&object.spec, &object.source);
    let mut problem = |path: String, reason: &str| problems.push(source.problem(path, reason));
    if spec.hosts.is_empty() {
        problem("spec.hosts".to_owned(), "needs at least one host");
    }
    if spec.ports.is_empty() {
        problem("spec.ports".to_owned(), "needs at least one port");
    }
    for (index, host) in spec.hosts.iter().enumerate() {
        if !names::is_host(host) {
            problem(format!("spec.hosts[{index}]"), "is not a DNS name (the bare `*` is not allowed here)");
        }
        let by_name = matches!(spec.resolution, EntryResolution::Dns | EntryResolution::DnsRoundRobin);
        if by_name && spec.endpoints.is_empty() && spec.workload_selector.is_none() && host.starts_with('*') {
            problem(
                format!("spec.hosts[{index}]"),
                "a wildcard cannot be resolved: list endpoints, or use resolution NONE",
            );
        }
    }
    if !spec.endpoints.is_empty() && spec.workload_selector.is_some() {
        problem("spec.workloadSelector".to_owned(), "give endpoints or a workloadSelector, not both");
    }
    match spec.resolution {
        EntryResolution::None if !spec.endpoints.is_empty() => {
            problem(
                "spec.endpoints".to_owned(),
                "resolution NONE goes where the client pointed: use STATIC, or remove them",
            );
        }
        EntryResolution::Static if spec.endpoints.is_empty() && spec.workload_selector.is_none() => {
            problem("spec.endpoints".to_owned(), "resolution STATIC needs endpoints or a workloadSelector");
        }
        EntryResolution::DnsRoundRobin if spec.workload_selector.is_some() => {
            problem("spec.workloadSelector".to_owned(), "DNS_ROUND_ROBIN takes one endpoint: use DNS");
        }
        EntryResolution::DnsRoundRobin if spec.endpoints.len() > 1 => {
            problem("spec.endpoints".to_owned(), "DNS_ROUND_ROBIN takes one endpoint: use DNS");
        }
        _ => {}
    }
    for (index, endpoint) in spec.endpoints.iter().enumerate() {
        let name = matches!(Address::parse(&endpoint.address), Ok(Address::Name(_)));
        if spec.resolution == EntryResolution::Static && name {
            problem(format!("spec.endpoints[{index}].address"), "resolution STATIC needs IP addresses: use DNS");
        }
        for port in endpoint.ports.keys() {
            if !spec.ports.iter().any(|p| &p.name == port) {
                problem(
                    format!("spec.endpoints[{index}].ports.{port}"),
                    "is not the name of a port of this ServiceEntry",
                );
            }
        }
    }
}

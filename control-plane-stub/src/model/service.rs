//! `v1 Service`. Every field of the published API is known; those that do not concern a mesh are passed over.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, de::IgnoredAny};

use super::{
    Problem,
    document::Object,
    names::Visibility,
    protocol::Protocol,
    scalars::{port, some_port},
    settings::Settings,
    workload::Address,
    world::{Cidr, Port, Resolution, Service},
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ServiceSpec {
    #[serde(default)]
    pub ports: Vec<ServicePort>,
    #[serde(default)]
    pub selector: BTreeMap<String, String>,
    #[serde(rename = "clusterIP")]
    pub cluster_ip: Option<String>,
    #[serde(default, rename = "clusterIPs")]
    pub cluster_ips: Vec<String>,
    #[serde(rename = "type")]
    pub kind: Option<ServiceType>,
    #[serde(default)]
    pub publish_not_ready_addresses: bool,
    #[serde(rename = "externalIPs")]
    _external_ips: Option<IgnoredAny>,
    _external_name: Option<IgnoredAny>,
    _session_affinity: Option<IgnoredAny>,
    _session_affinity_config: Option<IgnoredAny>,
    #[serde(rename = "loadBalancerIP")]
    _load_balancer_ip: Option<IgnoredAny>,
    _load_balancer_source_ranges: Option<IgnoredAny>,
    _load_balancer_class: Option<IgnoredAny>,
    _allocate_load_balancer_node_ports: Option<IgnoredAny>,
    _external_traffic_policy: Option<IgnoredAny>,
    _internal_traffic_policy: Option<IgnoredAny>,
    _health_check_node_port: Option<IgnoredAny>,
    #[serde(default)]
    pub ip_families: Vec<IpFamily>,
    _ip_family_policy: Option<IgnoredAny>,
    traffic_distribution: Option<String>,
}

#[derive(Debug, PartialEq, Deserialize)]
pub(super) enum ServiceType {
    #[serde(rename = "ClusterIP")]
    ClusterIp,
    NodePort,
    LoadBalancer,
    ExternalName,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ServicePort {
    #[serde(default)]
    pub name: String,
    #[serde(deserialize_with = "port")]
    pub port: u16,
    pub target_port: Option<TargetPort>,
    pub protocol: Option<Transport>,
    pub app_protocol: Option<String>,
    _node_port: Option<IgnoredAny>,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub(super) enum IpFamily {
    IPv4,
    IPv6,
}

/// The address families of a Service's endpoints.
pub(super) struct Families {
    ipv4: bool,
    ipv6: bool,
}

impl Families {
    pub(super) fn has(&self, ip: IpAddr) -> bool {
        if ip.is_ipv4() { self.ipv4 } else { self.ipv6 }
    }
}

impl ServiceSpec {
    /// As listed, else as of the virtual addresses: an application behind an IPv4 Service need not listen on its Pod's
    /// IPv6 address. Both where nothing is said.
    pub(super) fn families(&self, service: &Service) -> Families {
        let listed = |family| self.ip_families.contains(&family);
        let held = |v4| service.addresses.iter().any(|cidr| cidr.address.is_ipv4() == v4);
        match (self.ip_families.is_empty(), service.addresses.is_empty()) {
            (false, _) => Families { ipv4: listed(IpFamily::IPv4), ipv6: listed(IpFamily::IPv6) },
            (true, false) => Families { ipv4: held(true), ipv6: held(false) },
            (true, true) => Families { ipv4: true, ipv6: true },
        }
    }

    /// The addresses at which a Pod serves `service`. Behind a virtual address that is one, of the Service's first
    /// family, else the Pod's own first: a Pod with two would be two endpoints, and requests for one family would go to
    /// the other, at which the application may not listen. A headless Service's clients choose the address themselves.
    pub(super) fn homes<'a>(&self, service: &Service, pod: &'a [Address]) -> Vec<&'a Address> {
        let families = self.families(service);
        let listed = self.ip_families.first().map(|family| *family == IpFamily::IPv4);
        let first = listed.or_else(|| service.addresses.first().map(|cidr| cidr.address.is_ipv4()));
        let mut able: Vec<_> = pod.iter().filter(|address| address.ip().is_none_or(|ip| families.has(ip))).collect();
        if !service.addresses.is_empty() {
            able.sort_by_key(|address| address.ip().map(|ip| ip.is_ipv4()) != first);
            able.truncate(1);
        }
        able
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Transport {
    Tcp,
    Udp,
    Sctp,
}

/// A number, or the name of a port of the Pod's containers.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum TargetPort {
    Number(u16),
    Name(String),
}

impl<'de> Deserialize<'de> for TargetPort {
    fn deserialize<D: serde::Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Raw {
            Number(i64),
            Name(String),
        }
        let text = match Raw::deserialize(de)? {
            Raw::Number(number) => {
                let valid = u16::try_from(number).ok().filter(|n| *n != 0);
                return valid
                    .map(Self::Number)
                    .ok_or_else(|| serde::de::Error::custom(format!("{number} is not a port (1 to 65535)")));
            }
            Raw::Name(text) => text,
        };
        Ok(text.parse().map(Self::Number).unwrap_or(Self::Name(text)))
    }
}

/// A service port of ServiceEntry.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct EntryPort {
    #[serde(deserialize_with = "port")]
    pub number: u16,
    pub name: String,
    pub protocol: Option<String>,
    #[serde(default, deserialize_with = "some_port")]
    pub target_port: Option<u16>,
}

/// Whether near endpoints come first.
fn distribution(text: Option<&str>, source: &super::Source, problems: &mut Vec<Problem>) -> bool {
    match text {
        None | Some("") => false,
        Some("PreferClose" | "PreferSameZone") => true,
        Some(other) => {
            let reason = format!("`{other}` is not supported yet by this release: use PreferClose");
            problems.push(source.problem("spec.trafficDistribution", reason));
            false
        }
    }
}

/// Turns the document into the mesh's notion of a service, without endpoints yet.
pub(super) fn service(
    object: &Object<ServiceSpec>,
    settings: &Settings,
    problems: &mut Vec<Problem>,
) -> Option<Service> {
    let (meta, spec, source) = (&object.meta, &object.spec, &object.source);
    if spec.kind == Some(ServiceType::ExternalName) {
        let reason = "an ExternalName Service is only a DNS alias: describe the target with a ServiceEntry \
                      (resolution: DNS) and remove this document";
        problems.push(source.problem("spec.type", reason));
        return None;
    }
    let mut addresses = Vec::new();
    let mut headless = false;
    let first = spec.cluster_ip.iter().filter(|ip| !spec.cluster_ips.contains(*ip));
    for text in spec.cluster_ips.iter().chain(first).filter(|text| !text.is_empty()) {
        match text.parse::<IpAddr>() {
            Ok(ip) => addresses.push(Cidr::host(ip)),
            Err(_) if text == "None" => headless = true,
            Err(_) => problems.push(source.problem("spec.clusterIP", format!("`{text}` is not an IP address"))),
        }
    }
    let mut ports: Vec<Port> = Vec::new();
    for (index, port) in spec.ports.iter().enumerate() {
        if port.protocol.is_some_and(|p| p != Transport::Tcp) {
            continue;
        }
        if ports.iter().any(|p| p.number == port.port) {
            let path = format!("spec.ports[{index}].port");
            problems.push(source.problem(path, format!("port {} is listed twice", port.port)));
            continue;
        }
        let protocol = Protocol::of_service_port(port.app_protocol.as_deref(), &port.name, port.port);
        ports.push(Port { name: port.name.clone(), number: port.port, protocol });
    }
    let export = meta.annotations.get("networking.istio.io/exportTo").map(String::as_str).unwrap_or_default();
    let export: Vec<&str> = export.split(',').map(str::trim).filter(|e| !e.is_empty()).collect();
    let visibility = Visibility::new(&export, &meta.namespace).unwrap_or_else(|reason| {
        problems.push(source.problem("metadata.annotations.networking.istio.io/exportTo", reason));
        Visibility::All
    });
    Some(Service {
        host: format!("{}.{}.svc.{}", meta.name, meta.namespace, settings.cluster_domain),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        kubernetes: true,
        addresses,
        headless,
        ports,
        resolution: Resolution::Endpoints,
        external: false,
        visibility,
        subject_alt_names: Vec::new(),
        prefers_close: distribution(spec.traffic_distribution.as_deref(), source, problems),
        endpoints: Vec::new(),
        behind: Vec::new(),
        source: source.clone(),
    })
}

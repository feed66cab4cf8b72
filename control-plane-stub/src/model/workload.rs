//! Workloads: what runs somewhere, from a Pod or a `WorkloadEntry`.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use serde::Deserialize;

use super::{Problem, document::Source, names, scalars::Unsupported};

/// Where an endpoint is reached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    Ip(IpAddr),
    /// Resolved by DNS, so only for services with DNS resolution.
    Name(String),
}

impl Address {
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(ip) => Some(*ip),
            Self::Name(_) => None,
        }
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if let Ok(ip) = text.parse() {
            return Ok(Self::Ip(ip));
        }
        if text.starts_with("unix:") {
            return Err("Unix domain sockets are not supported yet by this release: use an IP address".to_owned());
        }
        if names::is_host(text) && !text.starts_with('*') && text.contains(|c: char| c.is_ascii_alphabetic()) {
            return Ok(Self::Name(text.to_ascii_lowercase()));
        }
        Err(format!("`{text}` is neither an IP address nor a DNS name"))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

pub(crate) const REGION: &str = "topology.kubernetes.io/region";
pub(crate) const ZONE: &str = "topology.kubernetes.io/zone";
pub(crate) const SUB_ZONE: &str = "topology.istio.io/subzone";

/// Region, zone and subzone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Locality {
    pub region: String,
    pub zone: String,
    pub sub_zone: String,
}

impl Locality {
    pub(super) fn parse(text: &str) -> Self {
        let mut parts = text.splitn(3, '/').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        Self { region: next(), zone: next(), sub_zone: next() }
    }

    /// As labels of a Node or Pod say. Istio's own label holds all parts, with dots where a label takes no slashes.
    pub(super) fn of_labels(labels: &BTreeMap<String, String>) -> Self {
        if let Some(text) = labels.get("istio-locality") {
            let text = if text.contains('/') { text.clone() } else { text.replace('.', "/") };
            return Self::parse(&text);
        }
        let label = |name: &str| labels.get(name).cloned();
        let either = |name, older| label(name).or_else(|| label(older)).unwrap_or_default();
        Self {
            region: either(REGION, "failure-domain.beta.kubernetes.io/region"),
            zone: either(ZONE, "failure-domain.beta.kubernetes.io/zone"),
            sub_zone: label(SUB_ZONE).unwrap_or_default(),
        }
    }

    /// The part that a topology label stands for.
    pub(crate) fn of_label(&self, label: &str) -> Option<&str> {
        Some(match label {
            REGION => &self.region,
            ZONE => &self.zone,
            SUB_ZONE => &self.sub_zone,
            _ => return None,
        })
    }
}

/// Something that runs and can be selected by labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    pub name: String,
    pub namespace: String,
    pub labels: BTreeMap<String, String>,
    pub service_account: String,
    pub addresses: Vec<Address>,
    /// Container ports by name, for a Service's named `targetPort`.
    pub named_ports: BTreeMap<String, u16>,
    /// Overrides of a WorkloadEntry: name of the service's port to number.
    pub ports: BTreeMap<String, u16>,
    /// A sidecar is with it, so mutual TLS reaches it.
    pub meshed: bool,
    pub ready: bool,
    pub weight: u32,
    pub locality: Locality,
    /// Own DNS name below a headless Service.
    pub hostname: Option<String>,
}

/// `networking.istio.io WorkloadEntry`, also inline as an endpoint of a ServiceEntry.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WorkloadEntry {
    #[serde(default)]
    pub address: String,
    #[serde(default)]
    pub ports: BTreeMap<String, u16>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    pub weight: Option<u32>,
    pub locality: Option<String>,
    pub service_account: Option<String>,
    _network: Option<Unsupported>,
}

impl WorkloadEntry {
    /// The workload it describes; `path` is where in its document it stands.
    pub(super) fn workload(
        &self,
        (name, namespace): (&str, &str),
        (source, path): (&Source, &str),
        problems: &mut Vec<Problem>,
    ) -> Option<Workload> {
        let address = match Address::parse(&self.address) {
            Ok(address) => address,
            Err(reason) => {
                problems.push(source.problem(format!("{path}.address"), reason));
                return None;
            }
        };
        if let Some((port, _)) = self.ports.iter().find(|(_, number)| **number == 0) {
            problems.push(source.problem(format!("{path}.ports.{port}"), "0 is not a port (1 to 65535)"));
        }
        let weight = self.weight.unwrap_or(1).max(1);
        if weight > MAX_WEIGHT {
            problems.push(source.problem(format!("{path}.weight"), format!("must be at most {MAX_WEIGHT}")));
        }
        Some(Workload {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            labels: self.labels.clone(),
            service_account: self.service_account.clone().unwrap_or_else(|| "default".to_owned()),
            addresses: vec![address],
            named_ports: BTreeMap::new(),
            ports: self.ports.clone(),
            // Istio's rule: a service account says that somebody with an identity is there.
            meshed: declared_mode(&self.labels).unwrap_or(self.service_account.is_some()),
            ready: true,
            weight,
            locality: self.locality.as_deref().map_or_else(|| Locality::of_labels(&self.labels), Locality::parse),
            hostname: None,
        })
    }
}

/// Envoy sums the weights of a locality in 32 bits.
const MAX_WEIGHT: u32 = 100_000;

/// What the label `security.istio.io/tlsMode` says, if it is there.
pub(super) fn declared_mode(labels: &BTreeMap<String, String>) -> Option<bool> {
    labels.get("security.istio.io/tlsMode").map(|mode| mode == "istio")
}

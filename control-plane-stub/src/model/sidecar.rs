//! `Sidecar`: how much of the mesh a workload sees, and how it is reached.

use std::{collections::BTreeMap, net::SocketAddr};

use serde::{Deserialize, Deserializer, de::Error};

use super::{
    destination_rule::ConnectionPool, document::Object, names, protocol::Protocol, scalars::Unsupported,
    service::EntryPort, world::Service,
};

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sidecar {
    workload_selector: Option<WorkloadLabels>,
    #[serde(default)]
    pub egress: Vec<EgressListener>,
    #[serde(default)]
    pub ingress: Vec<IngressListener>,
    outbound_traffic_policy: Option<OutboundTrafficPolicy>,
    pub inbound_connection_pool: Option<ConnectionPool>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct WorkloadLabels {
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EgressListener {
    #[serde(default)]
    pub hosts: Vec<EgressHost>,
    /// The port it is for; without one, those that no other listener is for.
    pub port: Option<EgressPort>,
    _capture_mode: Option<Captured>,
    _bind: Option<Unsupported>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EgressPort {
    #[serde(deserialize_with = "super::scalars::port")]
    pub number: u16,
    #[serde(default)]
    pub name: String,
    #[serde(default, deserialize_with = "protocol")]
    pub protocol: Option<Protocol>,
    _target_port: Option<Unsupported>,
}

fn protocol<'de, D: Deserializer<'de>>(de: D) -> Result<Option<Protocol>, D::Error> {
    let text = String::deserialize(de)?;
    let wrong = || D::Error::custom(format!("`{text}` is not a protocol, such as HTTP, GRPC or TCP"));
    Protocol::parse(&text).map(Some).ok_or_else(wrong)
}

/// The mode in which everything is captured, which is the only one here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Captured {
    Default,
    Iptables,
}

/// `namespace/name`: what may be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressHost {
    /// `*`: any; `.`: the workload's own; `~`: none.
    pub namespace: String,
    /// `*`, `*.suffix`, or a name.
    pub name: String,
}

impl<'de> Deserialize<'de> for EgressHost {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        let text = String::deserialize(de)?;
        let (namespace, name) =
            text.split_once('/').ok_or_else(|| D::Error::custom(format!("`{text}` is not namespace/name")))?;
        if !matches!(namespace, "*" | "." | "~") && !names::is_dns_name(namespace) {
            return Err(D::Error::custom(format!("`{namespace}` is neither a namespace nor one of `*`, `.`, `~`")));
        }
        if name != "*" && !names::is_host(name) {
            return Err(D::Error::custom(format!("`{name}` is neither a DNS name nor `*`")));
        }
        Ok(Self { namespace: namespace.to_owned(), name: name.to_ascii_lowercase() })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct OutboundTrafficPolicy {
    #[serde(default)]
    mode: OutboundMode,
    _egress_proxy: Option<Unsupported>,
}

/// What happens to calls to nobody known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OutboundMode {
    #[default]
    AllowAny,
    RegistryOnly,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawIngress {
    port: EntryPort,
    #[serde(default)]
    default_endpoint: String,
    connection_pool: Option<ConnectionPool>,
    _capture_mode: Option<Captured>,
    _bind: Option<Unsupported>,
    _tls: Option<Unsupported>,
}

/// A port on which the workload is reached.
#[derive(Clone, Debug, PartialEq)]
pub struct IngressListener {
    pub port: u16,
    pub protocol: Protocol,
    pub endpoint: IngressEndpoint,
    pub connection_pool: Option<ConnectionPool>,
}

/// Where the application is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IngressEndpoint {
    /// Where the client pointed.
    Same,
    /// The address the client pointed at, another port.
    Port(u16),
    Loopback(SocketAddr),
}

impl<'de> Deserialize<'de> for IngressListener {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        let raw = RawIngress::deserialize(de)?;
        let protocol = match raw.port.protocol.as_deref() {
            None | Some("") => Protocol::of_service_port(None, &raw.port.name, raw.port.number),
            Some(text) => Protocol::parse(text)
                .ok_or_else(|| D::Error::custom(format!("`{text}` is not a protocol, such as HTTP, GRPC or TCP")))?,
        };
        if raw.port.target_port.is_some() {
            return Err(D::Error::custom("targetPort has no meaning here: use defaultEndpoint"));
        }
        let text = raw.default_endpoint.as_str();
        let wrong = || {
            let reason = "is not 127.0.0.1:PORT, [::1]:PORT, 0.0.0.0:PORT or [::]:PORT";
            D::Error::custom(format!("defaultEndpoint `{text}` {reason}"))
        };
        let endpoint = match text {
            "" => IngressEndpoint::Same,
            text => match text.parse::<SocketAddr>() {
                Ok(at) if at.port() == 0 => return Err(wrong()),
                Ok(at) if at.ip().is_unspecified() => IngressEndpoint::Port(at.port()),
                Ok(at) if at.ip().is_loopback() => IngressEndpoint::Loopback(at),
                _ => return Err(wrong()),
            },
        };
        Ok(Self { port: raw.port.number, protocol, endpoint, connection_pool: raw.connection_pool })
    }
}

impl Sidecar {
    /// The labels of the workloads it is for; none if it is for all of its namespace.
    pub fn workloads(&self) -> Option<&BTreeMap<String, String>> {
        self.workload_selector.as_ref().map(|s| &s.labels).filter(|labels| !labels.is_empty())
    }

    pub fn outbound_mode(&self) -> Option<OutboundMode> {
        self.outbound_traffic_policy.map(|policy| policy.mode)
    }

    /// Whether it lets a workload of namespace `own` call a host that is declared in `namespace`, on whatever port.
    pub fn imports(&self, own: &str, namespace: &str, host: &str) -> bool {
        // Without a word on egress, nothing is taken away.
        self.egress.is_empty() || self.egress.iter().any(|listener| listener.imports(own, namespace, host))
    }

    /// As [`Self::imports`], of one port of a service.
    pub fn imports_port(&self, own: &str, service: &Service, port: u16) -> bool {
        let of = |wanted: Option<u16>| {
            self.egress.iter().filter(move |listener| listener.port.as_ref().map(|port| port.number) == wanted)
        };
        let wanted = of(Some(port)).next().map(|_| port);
        self.egress.is_empty() || of(wanted).any(|l| l.imports(own, &service.namespace, &service.host))
    }

    /// As [`Self::imports`], of a service.
    pub fn imports_service(&self, own: &str, service: &Service) -> bool {
        self.imports(own, &service.namespace, &service.host)
    }
}

impl EgressListener {
    pub(super) fn imports(&self, own: &str, namespace: &str, host: &str) -> bool {
        let place = |wanted: &str| match wanted {
            "*" => true,
            "." => namespace == own,
            other => namespace == other,
        };
        self.hosts.iter().any(|wanted| place(&wanted.namespace) && reaches(&wanted.name, host))
    }
}

/// A host that is a wildcard itself is reached where the two meet.
fn reaches(wanted: &str, host: &str) -> bool {
    names::covers(wanted, host) || host.starts_with('*') && names::covers(host, wanted)
}

/// The one that holds for a workload: by its labels, else its namespace's, else the mesh's.
pub(super) fn resolve<'a>(
    all: &'a [Object<Sidecar>],
    is_root: impl Fn(&str) -> bool,
    namespace: &str,
    labels: &BTreeMap<String, String>,
) -> Option<&'a Object<Sidecar>> {
    let own = || all.iter().filter(|object| object.meta.namespace == namespace);
    let selected = |object: &&Object<Sidecar>| {
        object.spec.workloads().is_some_and(|wanted| super::peer_authentication::subset(wanted, labels))
    };
    let whole = |object: &&Object<Sidecar>| object.spec.workloads().is_none();
    let root = || all.iter().filter(|object| is_root(&object.meta.namespace));
    own().find(selected).or_else(|| own().find(whole)).or_else(|| root().find(whole))
}

//! What an explanation holds, and how it reads.

use std::fmt::{self, Write};

use serde::Serialize;
use serde_json::{Map, Value};

use super::{access::Access, reach::Reached};
use crate::{
    model::World,
    resources::Node,
    translate::{Sources, locality},
};

/// The way of one request.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    pub client: Client,
    /// The service that the name or address means.
    pub service: Option<String>,
    pub address: String,
    pub listener: String,
    pub protocol: &'static str,
    pub route_configuration: Option<String>,
    pub virtual_host: Option<String>,
    /// The host of the virtual host.
    pub destination_host: Option<String>,
    /// Namespace, name and document.
    pub virtual_service: Option<String>,
    /// Routes before the one that is taken, and what of them the request does not meet.
    pub passed: Vec<Passed>,
    pub route: Option<RouteTaken>,
    pub outcome: Outcome,
    pub targets: Vec<Target>,
    pub mirrors: Vec<Target>,
    /// How the workloads at the end receive the call.
    pub access: Vec<Access>,
    /// Rate limits that the request meets where it arrives.
    pub limits: Vec<String>,
    pub notes: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Client {
    pub namespace: String,
    pub workload: Option<String>,
    pub addresses: Vec<String>,
    pub locality: String,
    pub sidecar: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Passed {
    pub index: usize,
    pub name: String,
    pub unmet: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct RouteTaken {
    pub index: usize,
    pub name: String,
    pub conditions: Vec<String>,
    /// The route as it is sent.
    pub wire: Value,
}

/// What happens in the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    #[default]
    Forwarded,
    /// To the address that the client chose, unknown to the mesh.
    PassedThrough,
    Redirected,
    Answered {
        status: u64,
    },
    /// No route of the virtual host matches: 404.
    NoRoute,
    /// Into the black hole.
    Blocked,
    /// No filter chain takes the connection.
    Closed,
}

/// A cluster that gets a share.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Target {
    pub cluster: String,
    /// In percent.
    pub share: f64,
    pub host: Option<String>,
    pub port: Option<u16>,
    pub subset: Option<String>,
    pub destination_rule: Option<String>,
    /// Whether the client has the cluster.
    pub exists: bool,
    pub policy: Map<String, Value>,
    pub endpoints: Vec<EndpointReport>,
}

#[derive(Clone, Debug, Serialize)]
pub struct EndpointReport {
    pub address: String,
    pub priority: u64,
    pub locality: String,
    pub weight: u64,
    pub mutual_tls: bool,
}

impl Explanation {
    pub(super) fn new(world: &World, node: &Node, reached: &Reached<'_>, sources: &Sources) -> Self {
        let workload = world.workload((&node.namespace, &node.service_account, node.workload()), &node.ips);
        let locality = locality(world, node);
        let parts = [&locality.region, &locality.zone, &locality.sub_zone].map(String::as_str);
        let mut notes = Vec::new();
        if let Some(service) = reached.service
            && !service.visibility.includes(&node.namespace)
        {
            notes.push(format!("{} is not exported to {}", service.host, node.namespace));
        }
        if !reached.known {
            notes.push("the documents say nothing of the address: it is the client's resolver's to find".to_owned());
        }
        Self {
            client: Client {
                namespace: node.namespace.clone(),
                workload: workload.map(|w| w.name.clone()).filter(|name| !name.is_empty()),
                addresses: node.ips.iter().map(ToString::to_string).collect(),
                locality: parts.join("/").trim_end_matches('/').to_owned(),
                sidecar: sources.sidecar.clone(),
            },
            service: reached.service.map(|service| service.host.clone()),
            address: if reached.known { reached.address.to_string() } else { format!("?:{}", reached.address.port()) },
            listener: String::new(),
            protocol: "tcp",
            route_configuration: None,
            virtual_host: None,
            destination_host: None,
            virtual_service: None,
            passed: Vec::new(),
            route: None,
            outcome: Outcome::Forwarded,
            targets: Vec::new(),
            mirrors: Vec::new(),
            access: Vec::new(),
            limits: Vec::new(),
            notes,
        }
    }
}

pub(super) fn line(f: &mut impl Write, label: &str, text: impl fmt::Display) -> fmt::Result {
    writeln!(f, "{label:<13} {text}")
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Client { namespace, workload, locality, sidecar, .. } = &self.client;
        let who = workload.as_deref().unwrap_or("(any workload)");
        let place = if locality.is_empty() { String::new() } else { format!(" in {locality}") };
        line(f, "client", format_args!("{namespace}/{who}{place}"))?;
        if let Some(sidecar) = sidecar {
            line(f, "scoped by", format_args!("Sidecar {sidecar}"))?;
        }
        let service = self.service.as_deref().unwrap_or("nobody the documents know");
        line(f, "calls", format_args!("{service} at {}", self.address))?;
        line(f, "listener", format_args!("{}, {}", self.listener, self.protocol))?;
        if let Some(name) = &self.route_configuration {
            let host = self.virtual_host.as_deref().unwrap_or("none matches");
            line(f, "routes", format_args!("{name}, virtual host {host}"))?;
        }
        if let Some(object) = &self.virtual_service {
            line(f, "by", format_args!("VirtualService {object}"))?;
        }
        for passed in &self.passed {
            let name = if passed.name.is_empty() { String::new() } else { format!(" {}", passed.name) };
            line(f, "passed over", format_args!("#{}{name}: not {}", passed.index, passed.unmet.join(", not ")))?;
        }
        if let Some(route) = &self.route {
            let name = if route.name.is_empty() { String::new() } else { format!(" {}", route.name) };
            line(f, "route", format_args!("#{}{name}: {}", route.index, route.conditions.join(", ")))?;
            action(f, &route.wire)?;
        }
        line(f, "outcome", self.outcome)?;
        for target in &self.targets {
            self::target(f, "to", target)?;
        }
        for mirror in &self.mirrors {
            self::target(f, "mirrored to", mirror)?;
        }
        self.access.iter().try_for_each(|access| access.write(f))?;
        self.limits.iter().try_for_each(|limit| line(f, "limited by", limit))?;
        self.notes.iter().try_for_each(|note| line(f, "note", note))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forwarded => f.write_str("forwarded"),
            Self::PassedThrough => f.write_str("passed through to where the client pointed"),
            Self::Redirected => f.write_str("redirected"),
            Self::Answered { status } => write!(f, "answered with {status} by the proxy"),
            Self::NoRoute => f.write_str("answered with 404: no route matches"),
            Self::Blocked => f.write_str("blocked: nobody known is there, and outboundTrafficPolicy is REGISTRY_ONLY"),
            Self::Closed => f.write_str("closed"),
        }
    }
}

/// What the route does beside choosing a cluster, one setting per line.
fn action(f: &mut impl Write, route: &Value) -> fmt::Result {
    for (name, value) in route["route"].as_object().into_iter().flatten() {
        let elsewhere = ["cluster", "weighted_clusters", "request_mirror_policies", "max_grpc_timeout"];
        if elsewhere.contains(&name.as_str()) {
            continue;
        }
        match (name.as_str(), value.as_str()) {
            ("timeout", Some("0s")) => line(f, "timeout", "none")?,
            ("timeout", Some(text)) => line(f, "timeout", text)?,
            ("retry_policy", _) => {
                let count = value["num_retries"].as_u64().unwrap_or(1);
                line(f, "retries", format_args!("{count} on {}", value["retry_on"].as_str().unwrap_or_default()))?;
            }
            (name, Some(text)) => line(f, name, text)?,
            (name, None) => line(f, name, value)?,
        }
    }
    for name in ["redirect", "direct_response"] {
        if let Some(value) = route.get(name) {
            line(f, name, value)?;
        }
    }
    for (name, value) in route["typed_per_filter_config"].as_object().into_iter().flatten() {
        let mut value = value.clone();
        value.as_object_mut().map(|map| map.remove("@type"));
        line(f, name.rsplit('.').next().unwrap_or(name), value)?;
    }
    Ok(())
}

fn target(f: &mut impl Write, label: &str, target: &Target) -> fmt::Result {
    line(f, label, format_args!("{:.4} % {}", target.share, target.cluster).to_string().replace(".0000 %", " %"))?;
    if let Some(rule) = &target.destination_rule {
        line(f, "", format_args!("DestinationRule {rule}"))?;
    }
    if target.host.is_some() && !target.exists {
        line(f, "", "the client has no such cluster: 503")?;
    }
    for (name, value) in &target.policy {
        match value.as_str() {
            Some(text) => line(f, "", format_args!("{name} {text}"))?,
            None => line(f, "", format_args!("{name} {value}"))?,
        }
    }
    for endpoint in &target.endpoints {
        let mtls = if endpoint.mutual_tls { ", mutual TLS" } else { "" };
        let place = if endpoint.locality.is_empty() { String::new() } else { format!(", {}", endpoint.locality) };
        let EndpointReport { address, priority, weight, .. } = endpoint;
        line(f, "", format_args!("endpoint {address}, priority {priority}, weight {weight}{place}{mtls}"))?;
    }
    if target.exists && target.endpoints.is_empty() && target.policy.get("type") != Some(&"ORIGINAL_DST".into()) {
        line(f, "", "no endpoints: 503")?;
    }
    Ok(())
}

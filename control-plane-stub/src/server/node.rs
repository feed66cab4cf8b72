//! From a request's `Node` message and the proven caller to the [`Node`] that translation sees.
//!
//! Invariant: namespace and service account of an authenticated client are those of its identity; a node that claims
//! others is refused.

use std::{collections::BTreeMap, net::IpAddr};

use outrigger_wire::pb::{
    envoy::config::core::v3::Node as WireNode,
    google::protobuf::{Struct, value::Kind},
};
use tonic::Status;

use crate::{
    auth::{Caller, Identity, Proof},
    model::Locality,
    resources::{ClientKind, Node},
};

const MAX_ID: usize = 1024;
const MAX_IPS: usize = 64;
const MAX_LABELS: usize = 512;
/// Kubernetes' bounds: a key is `prefix/name`.
const MAX_LABEL_KEY: usize = 253 + 1 + 63;
const MAX_LABEL_VALUE: usize = 63;
/// Of namespaces and service accounts.
const MAX_PART: usize = 253;
/// Characters of each part of a locality.
const MAX_LOCALITY: usize = 256;
/// Kubernetes' own fallback for both.
const DEFAULT: &str = "default";

/// Reads the node. `caller` is the proven identity, if any.
pub fn read(wire: &WireNode, caller: Option<&Caller>) -> Result<Node, Status> {
    if wire.id.is_empty() || wire.id.len() > MAX_ID {
        return Err(Status::invalid_argument(format!("node.id must have 1 to {MAX_ID} bytes")));
    }
    let metadata = wire.metadata.as_ref();
    let id = Id::read(&wire.id);
    let claimed_namespace = string(metadata, "NAMESPACE").or(id.namespace);
    let claimed_account = string(metadata, "SERVICE_ACCOUNT");
    let (namespace, service_account) = match caller {
        Some(caller) => {
            let identity = &caller.identity;
            for (claimed, proven, what) in [
                (claimed_namespace, identity.namespace(), "namespace"),
                (claimed_account, identity.service_account(), "service account"),
            ] {
                if claimed.is_some_and(|claimed| claimed != proven) {
                    return Err(Status::permission_denied(format!(
                        "the node claims another {what} than its identity {identity} has"
                    )));
                }
            }
            (identity.namespace(), identity.service_account())
        }
        None => (claimed_namespace.unwrap_or(DEFAULT), claimed_account.unwrap_or(DEFAULT)),
    };
    if namespace.len().max(service_account.len()) > MAX_PART {
        return Err(Status::invalid_argument(format!("namespace and service account have at most {MAX_PART} bytes")));
    }
    let mut ips = Vec::new();
    let listed = string(metadata, "INSTANCE_IPS").unwrap_or_default();
    for text in listed.split(',').map(str::trim).filter(|t| !t.is_empty()).take(MAX_IPS) {
        ips.push(text.parse().map_err(|_| Status::invalid_argument("INSTANCE_IPS holds something not an IP address"))?);
    }
    if ips.is_empty() {
        ips.extend(id.ip);
    }
    Ok(Node {
        id: wire.id.clone(),
        kind: kind(wire),
        namespace: namespace.to_owned(),
        service_account: service_account.to_owned(),
        ips,
        labels: labels(metadata)?,
        locality: locality(wire),
    })
}

/// The identity a plaintext node claims, for `--insecure-plaintext-identity`.
pub fn claimed(wire: &WireNode, trust_domain: &str) -> Result<Caller, Status> {
    let node = read(wire, None)?;
    let identity = Identity::new(trust_domain, &node.namespace, &node.service_account)
        .map_err(|e| Status::invalid_argument(e.to_string()))?;
    Ok(Caller { identity, proof: Proof::Claimed, expires: None })
}

fn kind(wire: &WireNode) -> ClientKind {
    if string(wire.metadata.as_ref(), "GENERATOR").is_some_and(|g| g.eq_ignore_ascii_case("grpc"))
        || wire.user_agent_name.contains("gRPC")
    {
        ClientKind::Grpc
    } else if wire.user_agent_name == "outrigger" {
        ClientKind::Outrigger
    } else {
        ClientKind::Envoy
    }
}

fn locality(wire: &WireNode) -> Locality {
    let short = |text: &String| text.chars().take(MAX_LOCALITY).collect();
    wire.locality.as_ref().map_or_else(Locality::default, |at| Locality {
        region: short(&at.region),
        zone: short(&at.zone),
        sub_zone: short(&at.sub_zone),
    })
}

fn labels(metadata: Option<&Struct>) -> Result<BTreeMap<String, String>, Status> {
    let Some(Kind::StructValue(labels)) = field(metadata, "LABELS") else { return Ok(BTreeMap::new()) };
    // HashMap order is random: sort before cutting, or a node with too many labels would flap.
    let all: BTreeMap<&String, &String> = labels
        .fields
        .iter()
        .filter_map(|(key, value)| match &value.kind {
            Some(Kind::StringValue(text)) => Some((key, text)),
            _ => None,
        })
        .collect();
    let kept: BTreeMap<_, _> = all.into_iter().take(MAX_LABELS).collect();
    // A label that was cut or left out would select other policies than the whole one.
    if kept.iter().any(|(key, value)| key.len() > MAX_LABEL_KEY || value.len() > MAX_LABEL_VALUE) {
        return Err(Status::invalid_argument(format!(
            "a label has at most {MAX_LABEL_KEY} bytes in its key and {MAX_LABEL_VALUE} in its value"
        )));
    }
    Ok(kept.into_iter().map(|(key, value)| (key.clone(), value.clone())).collect())
}

fn field<'a>(metadata: Option<&'a Struct>, name: &str) -> Option<&'a Kind> {
    metadata?.fields.get(name)?.kind.as_ref()
}

fn string<'a>(metadata: Option<&'a Struct>, name: &str) -> Option<&'a str> {
    match field(metadata, name) {
        Some(Kind::StringValue(text)) if !text.is_empty() => Some(text),
        _ => None,
    }
}

/// The parts of a `sidecar~IP~name.ns~domain` id; nothing of any other.
struct Id<'a> {
    ip: Option<IpAddr>,
    namespace: Option<&'a str>,
}

impl<'a> Id<'a> {
    fn read(id: &'a str) -> Self {
        let parts: Vec<&str> = id.split('~').collect();
        let [_, ip, name, _] = parts.as_slice() else { return Self { ip: None, namespace: None } };
        let namespace = name.rsplit_once('.').map(|(_, namespace)| namespace).filter(|n| !n.is_empty());
        Self { ip: ip.parse().ok(), namespace }
    }
}

#[cfg(test)]
mod tests {
    use outrigger_wire::pb::google::protobuf::Value;

    use super::*;

    fn text(value: &str) -> Value {
        Value { kind: Some(Kind::StringValue(value.into())) }
    }

    fn wire(metadata: &[(&str, Value)]) -> WireNode {
        let fields = metadata.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
        WireNode {
            id: "sidecar~10.1.2.3~reviews-1.shop~shop.svc.cluster.local".into(),
            metadata: Some(Struct { fields }),
            ..WireNode::default()
        }
    }

    fn caller(namespace: &str, account: &str) -> Caller {
        let identity = Identity::new("cluster.local", namespace, account).unwrap();
        Caller { identity, proof: Proof::Token, expires: None }
    }

    #[test]
    fn id_alone_is_enough() {
        let node = read(&wire(&[]), None).unwrap();
        assert_eq!((node.namespace.as_str(), node.service_account.as_str()), ("shop", "default"));
        assert_eq!(node.ips, ["10.1.2.3".parse::<IpAddr>().unwrap()]);
        assert_eq!(node.kind, ClientKind::Envoy);
    }

    #[test]
    fn metadata_wins_over_the_id() {
        let labels = Struct { fields: [("app".to_owned(), text("reviews"))].into_iter().collect() };
        let node = read(
            &wire(&[
                ("NAMESPACE", text("other")),
                ("SERVICE_ACCOUNT", text("sa")),
                ("INSTANCE_IPS", text("10.0.0.9,fd00::1")),
                ("LABELS", Value { kind: Some(Kind::StructValue(labels)) }),
                ("GENERATOR", text("grpc")),
            ]),
            None,
        )
        .unwrap();
        assert_eq!((node.namespace.as_str(), node.service_account.as_str()), ("other", "sa"));
        assert_eq!(node.ips.len(), 2);
        assert_eq!(node.labels["app"], "reviews");
        assert_eq!(node.kind, ClientKind::Grpc);
    }

    #[test]
    fn an_identity_binds_the_node() {
        let shop = wire(&[("NAMESPACE", text("shop")), ("SERVICE_ACCOUNT", text("reviews"))]);
        assert_eq!(read(&shop, Some(&caller("shop", "reviews"))).unwrap().service_account, "reviews");
        // What the node does not say, the identity does.
        assert_eq!(read(&wire(&[]), Some(&caller("shop", "reviews"))).unwrap().service_account, "reviews");
        for other in [caller("shop", "admin"), caller("bank", "reviews")] {
            assert_eq!(read(&shop, Some(&other)).unwrap_err().code(), tonic::Code::PermissionDenied);
        }
    }

    #[test]
    fn kinds_by_user_agent() {
        for (agent, kind) in [
            ("envoy", ClientKind::Envoy),
            ("outrigger", ClientKind::Outrigger),
            ("gRPC C-core", ClientKind::Grpc),
            ("", ClientKind::Envoy),
        ] {
            let node = WireNode { user_agent_name: agent.into(), ..wire(&[]) };
            assert_eq!(read(&node, None).unwrap().kind, kind, "{agent}");
        }
    }

    #[test]
    fn hostile_nodes() {
        assert!(read(&WireNode::default(), None).is_err());
        assert!(read(&WireNode { id: "x".repeat(5000), ..WireNode::default() }, None).is_err());
        assert!(read(&wire(&[("INSTANCE_IPS", text("a,b"))]), None).is_err());
        assert!(claimed(&wire(&[("NAMESPACE", text("a/b"))]), "cluster.local").is_err());
        assert!(read(&wire(&[("NAMESPACE", text(&"n".repeat(254)))]), None).is_err());
        for (key, value) in [("k".repeat(318), "v".to_owned()), ("k".to_owned(), "v".repeat(64))] {
            let labels = Struct { fields: [(key, text(&value))].into_iter().collect() };
            let node = wire(&[("LABELS", Value { kind: Some(Kind::StructValue(labels)) })]);
            assert_eq!(read(&node, None).unwrap_err().code(), tonic::Code::InvalidArgument);
        }
        assert!(read(&WireNode { id: "~~~".into(), ..WireNode::default() }, None).is_ok());
    }
}

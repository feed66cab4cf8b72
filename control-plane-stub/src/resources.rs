//! The contract between translation and serving: who asks, and what it gets.

use std::{collections::BTreeMap, net::IpAddr};

use outrigger_wire::pb::google::protobuf::Any;

use crate::model::Locality;

/// A name in the certificate of every control plane, which nobody else is given.
pub const CONTROL_PLANE: &str = "outrigger-control.outrigger-system.svc";

/// Which dialect of xDS a client needs: what drives one may be refused by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ClientKind {
    /// A real Envoy as transparent sidecar: secrets `default` and `ROOTCA` come over SDS from us.
    Envoy,
    /// Our own proxy: as Envoy, but it makes its own key and answers `default` and `ROOTCA` itself.
    Outrigger,
    /// A proxyless gRPC client (`xds:///`): API listeners, no transport socket matches.
    Grpc,
}

/// A client of the control plane, as authenticated and as described by its `Node` message.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node {
    pub id: String,
    pub kind: ClientKind,
    pub namespace: String,
    pub service_account: String,
    /// Addresses of the Pod (`INSTANCE_IPS`, or the second part of a `sidecar~IP~name.ns~domain` id).
    pub ips: Vec<IpAddr>,
    pub labels: BTreeMap<String, String>,
    /// As the client says; what the operator declared of its workload counts before it.
    pub locality: Locality,
}

/// Everything one client gets, by resource name. Values are packed `Any`s, so equal resources compare equal by bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resources {
    pub clusters: BTreeMap<String, Any>,
    pub endpoints: BTreeMap<String, Any>,
    pub listeners: BTreeMap<String, Any>,
    pub routes: BTreeMap<String, Any>,
}

impl Node {
    /// The workload's own name, if the id has the form `sidecar~IP~name.ns~domain`.
    pub fn workload(&self) -> Option<&str> {
        let mut parts = self.id.split('~').skip(2);
        let (name, _) = (parts.next()?, parts.next()?);
        let name = name.rsplit_once('.').filter(|(_, namespace)| *namespace == self.namespace)?.0;
        Some(name).filter(|name| !name.is_empty())
    }
}

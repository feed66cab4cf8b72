//! Which documents are understood, which are somebody else's, and which must be refused.

use std::collections::BTreeMap;

use super::{
    Problem,
    authorization::AuthorizationPolicy,
    decode::{object, whole},
    destination_rule::DestinationRule,
    document::{Document, Object},
    endpoint_slice::EndpointSlice,
    mesh_config::{ConfigMap, MeshConfig},
    peer_authentication::PeerAuthentication,
    pod::{Node, Pod},
    request_authentication::RequestAuthentication,
    service::ServiceSpec,
    service_entry::ServiceEntry,
    sidecar::Sidecar,
    virtual_service::VirtualService,
    workload::WorkloadEntry,
};

/// The group of kinds that are nobody else's.
const OWN: &str = "outrigger.dev";

/// Where Istio keeps its MeshConfig.
const ISTIO_CONFIG: &str = "istio";

/// All understood documents, by kind, in the order of their files.
#[derive(Debug, Default)]
pub(super) struct Kinds {
    pub services: Vec<Object<ServiceSpec>>,
    pub pods: Vec<Object<Pod>>,
    pub slices: Vec<Object<EndpointSlice>>,
    pub workload_entries: Vec<Object<WorkloadEntry>>,
    pub service_entries: Vec<Object<ServiceEntry>>,
    pub virtual_services: Vec<Object<VirtualService>>,
    pub destination_rules: Vec<Object<DestinationRule>>,
    pub peer_authentications: Vec<Object<PeerAuthentication>>,
    pub authorization_policies: Vec<Object<AuthorizationPolicy>>,
    pub request_authentications: Vec<Object<RequestAuthentication>>,
    pub mesh_configs: Vec<Object<MeshConfig>>,
    pub istio_configs: Vec<Object<ConfigMap>>,
    pub sidecars: Vec<Object<Sidecar>>,
    pub nodes: Vec<Object<Node>>,
    /// Istio Gateways, which are for other proxies than sidecars.
    pub gateways: usize,
    /// Documents of other Kubernetes kinds, which do not concern the mesh: `group/kind` to count.
    pub ignored: BTreeMap<String, usize>,
}

impl Kinds {
    /// Decodes one document into its list, or says why not.
    pub(super) fn add(&mut self, document: Document, problems: &mut Vec<Problem>) {
        let istio = matches!(document.version.as_str(), "v1alpha3" | "v1beta1" | "v1");
        let served = match (document.group.as_str(), document.kind.as_str()) {
            ("", "Service" | "Pod" | "Node" | "ConfigMap") | ("discovery.k8s.io", "EndpointSlice") => {
                document.version == "v1"
            }
            ("networking.istio.io" | "security.istio.io", _) => istio,
            (OWN, _) => document.version == "v1alpha1",
            _ => true,
        };
        if !served {
            let version = if document.group == OWN { "v1alpha1" } else { "v1" };
            let reason = format!("version `{}` of {} is not served: use {version}", document.version, document.kind);
            return problems.push(document.source.problem("apiVersion", reason));
        }
        match (document.group.as_str(), document.kind.as_str()) {
            ("", "Service") => self.services.extend(object(document, problems)),
            // Others hold what applications read.
            ("", "ConfigMap") if is_named(&document, ISTIO_CONFIG) => {
                self.istio_configs.extend(whole(document, problems))
            }
            ("", "Node") => self.nodes.extend(whole(document, problems)),
            ("", "Pod") => self.pods.extend(whole(document, problems)),
            ("discovery.k8s.io", "EndpointSlice") => self.slices.extend(whole(document, problems)),
            ("networking.istio.io", "WorkloadEntry") => self.workload_entries.extend(object(document, problems)),
            ("networking.istio.io", "ServiceEntry") => self.service_entries.extend(object(document, problems)),
            ("networking.istio.io", "VirtualService") => self.virtual_services.extend(object(document, problems)),
            ("networking.istio.io", "DestinationRule") => self.destination_rules.extend(object(document, problems)),
            ("networking.istio.io", "Sidecar") => self.sidecars.extend(object(document, problems)),
            ("security.istio.io", "PeerAuthentication") => {
                self.peer_authentications.extend(object(document, problems));
            }
            ("security.istio.io", "AuthorizationPolicy") => {
                self.authorization_policies.extend(object(document, problems));
            }
            ("security.istio.io", "RequestAuthentication") => {
                self.request_authentications.extend(object(document, problems));
            }
            (OWN, "MeshConfig") => self.mesh_configs.extend(object(document, problems)),
            // What it says is for gateway proxies, which nobody configures here; sidecars lose nothing.
            ("networking.istio.io", "Gateway") => self.gateways += 1,
            (group, kind) if governs_the_mesh(group) => {
                let reason = format!(
                    "{group} {kind} is not supported yet by this release: move the document out of this directory; \
                     ignoring it would leave the mesh other than you asked for"
                );
                problems.push(document.source.problem("kind", reason));
            }
            (group, kind) => {
                let name = if group.is_empty() { kind.to_owned() } else { format!("{group}/{kind}") };
                *self.ignored.entry(name).or_default() += 1;
            }
        }
    }
}

fn is_named(document: &Document, name: &str) -> bool {
    document.body.get("metadata").and_then(|meta| meta.get("name")?.as_str()) == Some(name)
}

fn governs_the_mesh(group: &str) -> bool {
    group == OWN || group == "istio.io" || group.ends_with(".istio.io") || group == "gateway.networking.k8s.io"
}

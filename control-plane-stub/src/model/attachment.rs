//! Which workloads a security policy is for: by labels in its namespace, by Service, or all of them.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{document::Object, peer_authentication::subset, settings::Settings};

/// `targetRefs`: a policy for what lies behind one object of its own namespace.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetRef {
    #[serde(default)]
    pub group: String,
    pub kind: String,
    pub name: String,
    pub namespace: Option<String>,
}

impl TargetRef {
    /// A Kubernetes Service.
    pub fn is_service(&self) -> bool {
        self.kind == "Service" && matches!(self.group.as_str(), "" | "core")
    }

    /// A proxy that is not a sidecar.
    pub fn is_gateway(&self) -> bool {
        matches!(self.kind.as_str(), "Gateway" | "GatewayClass") && self.group == "gateway.networking.k8s.io"
    }
}

/// A port of a workload, as the policies see it.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub namespace: &'a str,
    pub labels: &'a BTreeMap<String, String>,
    /// Names of the Services of that namespace which lead to the port.
    pub services: &'a [String],
}

/// A policy with a selector or target references.
pub trait Attached {
    /// The labels it selects by, if it has a selector.
    fn selector(&self) -> Option<&BTreeMap<String, String>>;
    fn target_refs(&self) -> impl Iterator<Item = &TargetRef>;
}

impl<T: Attached> Object<T> {
    /// Whether it holds at `place`. Policies of a root namespace reach all namespaces, with a selector as without.
    pub fn holds_at(&self, settings: &Settings, place: Place<'_>) -> bool {
        let own = self.meta.namespace == place.namespace;
        let mut targets = self.spec.target_refs().peekable();
        if targets.peek().is_some() {
            return own && targets.any(|target| target.is_service() && place.services.contains(&target.name));
        }
        (own || settings.is_root(&self.meta.namespace))
            && self.spec.selector().is_none_or(|wanted| subset(wanted, place.labels))
    }
}

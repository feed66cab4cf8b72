//! `PeerAuthentication`: which ports of which workloads insist on mutual TLS.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{authorization::dry_run, document::Object, settings::Settings};

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PeerAuthentication {
    pub selector: Option<Selector>,
    #[serde(default)]
    pub mtls: MutualTls,
    #[serde(default)]
    pub port_level_mtls: BTreeMap<u16, MutualTls>,
}

/// Selects workloads of the policy's namespace by labels; an empty one is as none.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Selector {
    #[serde(default)]
    pub match_labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MutualTls {
    #[serde(default)]
    pub mode: Option<Mode>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Mode {
    Unset,
    Disable,
    Permissive,
    Strict,
}

impl MutualTls {
    fn set(&self) -> Option<Mode> {
        self.mode.filter(|mode| *mode != Mode::Unset)
    }
}

impl PeerAuthentication {
    /// The labels it selects by, unless it holds for the whole namespace or mesh.
    pub fn labels(&self) -> Option<&BTreeMap<String, String>> {
        self.selector.as_ref().map(|s| &s.match_labels).filter(|labels| !labels.is_empty())
    }
}

/// What holds for one workload: by default and on the ports that differ.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    pub default: Mode,
    pub ports: BTreeMap<u16, Mode>,
}

impl Policy {
    /// The mode of a port; never [`Mode::Unset`].
    pub fn of(&self, port: u16) -> Mode {
        self.ports.get(&port).copied().unwrap_or(self.default)
    }
}

impl Object<PeerAuthentication> {
    /// Only told whom it would refuse, not enforced.
    pub fn is_dry_run(&self) -> bool {
        dry_run(&self.meta).unwrap_or_default()
    }
}

/// The one of each level that counts for a workload: the oldest.
#[derive(Clone, Copy, Debug)]
pub struct Chosen<'a> {
    mesh: Option<&'a Object<PeerAuthentication>>,
    namespace: Option<&'a Object<PeerAuthentication>>,
    workload: Option<&'a Object<PeerAuthentication>>,
}

impl<'a> Chosen<'a> {
    /// Port over workload over namespace over mesh over PERMISSIVE.
    pub fn policy(&self) -> Policy {
        let default = self.level().and_then(|object| object.spec.mtls.set()).unwrap_or(Mode::Permissive);
        let ports = self.workload.into_iter().flat_map(|w| &w.spec.port_level_mtls);
        Policy { default, ports: ports.filter_map(|(port, mtls)| Some((*port, mtls.set()?))).collect() }
    }

    /// The document that decides on a port, unless none does.
    pub fn decides(&self, port: u16) -> Option<&'a Object<PeerAuthentication>> {
        let by_port = self.workload.filter(|w| w.spec.port_level_mtls.get(&port).is_some_and(|m| m.set().is_some()));
        by_port.or(self.level())
    }

    fn level(&self) -> Option<&'a Object<PeerAuthentication>> {
        let levels = [self.workload, self.namespace, self.mesh];
        levels.into_iter().flatten().find(|object| object.spec.mtls.set().is_some())
    }
}

/// Of `policies` on one level the first counts.
pub(super) fn choose<'a>(
    policies: impl Iterator<Item = &'a Object<PeerAuthentication>>,
    settings: &Settings,
    namespace: &str,
    labels: &BTreeMap<String, String>,
) -> Chosen<'a> {
    let mut chosen = Chosen { mesh: None, namespace: None, workload: None };
    for policy in policies {
        let here = policy.meta.namespace == namespace;
        match policy.spec.labels() {
            // Istio's rule: in a root namespace only what holds for the mesh counts.
            Some(_) if settings.is_root(&policy.meta.namespace) => {}
            Some(wanted) if here && subset(wanted, labels) => {
                chosen.workload.get_or_insert(policy);
            }
            Some(_) => {}
            None if settings.is_root(&policy.meta.namespace) => {
                chosen.mesh.get_or_insert(policy);
            }
            None if here => {
                chosen.namespace.get_or_insert(policy);
            }
            None => {}
        }
    }
    chosen
}

/// Whether `labels` holds all of `wanted`.
pub(crate) fn subset(wanted: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

//! `PeerAuthentication`: which ports of which workloads insist on mutual TLS.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{document::Object, settings::Settings};

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

/// Port over workload over namespace over mesh over PERMISSIVE.
pub(super) fn resolve(
    policies: &[Object<PeerAuthentication>],
    settings: &Settings,
    namespace: &str,
    labels: &BTreeMap<String, String>,
) -> Policy {
    let (mut mesh, mut own, mut workload) = (None, None, None::<&PeerAuthentication>);
    for policy in policies {
        let here = policy.meta.namespace == namespace;
        match policy.spec.labels() {
            Some(wanted) if here && subset(wanted, labels) => workload = Some(&policy.spec),
            Some(_) => {}
            None => {
                if settings.is_root(&policy.meta.namespace) {
                    mesh = mesh.or(policy.spec.mtls.set());
                }
                if here {
                    own = own.or(policy.spec.mtls.set());
                }
            }
        }
    }
    let default = workload.and_then(|w| w.mtls.set()).or(own).or(mesh).unwrap_or(Mode::Permissive);
    let ports = workload.into_iter().flat_map(|w| &w.port_level_mtls);
    Policy { default, ports: ports.filter_map(|(port, mtls)| Some((*port, mtls.set()?))).collect() }
}

/// Whether `labels` holds all of `wanted`.
pub(crate) fn subset(wanted: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

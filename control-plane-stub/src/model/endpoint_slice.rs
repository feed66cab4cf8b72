//! `discovery.k8s.io/v1 EndpointSlice`.

use serde::{Deserialize, de::IgnoredAny};

use super::service::Transport;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct EndpointSlice {
    pub address_type: AddressType,
    #[serde(default)]
    pub endpoints: Vec<SliceEndpoint>,
    #[serde(default)]
    pub ports: Vec<SlicePort>,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub(super) enum AddressType {
    IPv4,
    IPv6,
    #[serde(rename = "FQDN")]
    Fqdn,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SliceEndpoint {
    pub addresses: Vec<String>,
    #[serde(default)]
    pub conditions: Conditions,
    pub hostname: Option<String>,
    pub zone: Option<String>,
    pub target_ref: Option<Target>,
    pub node_name: Option<String>,
    _hints: Option<IgnoredAny>,
    _deprecated_topology: Option<IgnoredAny>,
}

/// The object behind an endpoint, by name.
#[derive(Debug, Deserialize)]
pub(super) struct Target {
    #[serde(default)]
    pub kind: String,
    #[serde(default)]
    pub name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Conditions {
    pub ready: Option<bool>,
    _serving: Option<IgnoredAny>,
    _terminating: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SlicePort {
    #[serde(default)]
    pub name: String,
    pub port: Option<u16>,
    pub protocol: Option<Transport>,
    _app_protocol: Option<IgnoredAny>,
}

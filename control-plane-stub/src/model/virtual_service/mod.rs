//! `VirtualService`: how requests and connections to a host are routed. The types are the published API.

mod delegate;
mod http;
mod matching;
mod retries;
mod traffic;

use serde::Deserialize;

pub(super) use self::delegate::resolve;
pub use self::{http::*, matching::*, retries::*, traffic::*};
use super::scalars::{Unsupported, some_port};

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VirtualService {
    /// Absolute once loaded.
    #[serde(default)]
    pub hosts: Vec<String>,
    #[serde(default)]
    pub gateways: Vec<String>,
    #[serde(default)]
    pub http: Vec<HttpRoute>,
    #[serde(default)]
    pub tls: Vec<TlsRoute>,
    #[serde(default)]
    pub tcp: Vec<TcpRoute>,
    #[serde(default)]
    pub export_to: Vec<String>,
}

impl VirtualService {
    /// Every place that names where traffic goes.
    pub(super) fn destinations(&mut self) -> impl Iterator<Item = &mut Destination> {
        let l4 = self.tcp.iter_mut().map(|r| &mut r.route).chain(self.tls.iter_mut().map(|r| &mut r.route));
        let l4 = l4.flatten().map(|r| &mut r.destination);
        let http = self.http.iter_mut().flat_map(|r| {
            let mirrors = r.mirror.iter_mut().chain(r.mirrors.iter_mut().map(|m| &mut m.destination));
            r.route.iter_mut().map(|r| &mut r.destination).chain(mirrors)
        });
        l4.chain(http)
    }

    /// The hosts that traffic goes to.
    pub(crate) fn reached(&self) -> impl Iterator<Item = &str> {
        let l4 = self.tcp.iter().map(|r| &r.route).chain(self.tls.iter().map(|r| &r.route));
        let l4 = l4.flatten().map(|r| &r.destination);
        let http = self.http.iter().flat_map(|r| {
            let mirrors = r.mirror.iter().chain(r.mirrors.iter().map(|m| &m.destination));
            r.route.iter().map(|r| &r.destination).chain(mirrors)
        });
        l4.chain(http).map(|destination| destination.host.as_str())
    }
}

/// Where sidecars stand in a list of gateways.
pub(super) const MESH: &str = "mesh";

/// Whether a list of gateways (empty means: sidecars) includes sidecars.
pub(crate) fn for_mesh(gateways: &[String]) -> bool {
    gateways.is_empty() || gateways.iter().any(|g| g == MESH)
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Destination {
    /// Absolute once loaded.
    pub host: String,
    pub subset: Option<String>,
    pub port: Option<PortSelector>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortSelector {
    #[serde(deserialize_with = "super::scalars::port")]
    pub number: u16,
}

/// A weighted destination of connections.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct L4Destination {
    pub destination: Destination,
    #[serde(default)]
    pub weight: u32,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcpRoute {
    #[serde(default, rename = "match")]
    pub matches: Vec<L4Match>,
    #[serde(default)]
    pub route: Vec<L4Destination>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsRoute {
    #[serde(rename = "match")]
    pub matches: Vec<TlsMatch>,
    #[serde(default)]
    pub route: Vec<L4Destination>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct L4Match {
    #[serde(default)]
    pub destination_subnets: Vec<String>,
    #[serde(default, deserialize_with = "some_port")]
    pub port: Option<u16>,
    #[serde(default)]
    pub source_labels: std::collections::BTreeMap<String, String>,
    pub source_namespace: Option<String>,
    #[serde(default)]
    pub gateways: Vec<String>,
    _source_subnet: Option<Unsupported>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsMatch {
    pub sni_hosts: Vec<String>,
    #[serde(default)]
    pub destination_subnets: Vec<String>,
    #[serde(default, deserialize_with = "some_port")]
    pub port: Option<u16>,
    #[serde(default)]
    pub source_labels: std::collections::BTreeMap<String, String>,
    pub source_namespace: Option<String>,
    #[serde(default)]
    pub gateways: Vec<String>,
}

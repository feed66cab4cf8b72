//! Endpoints of a cluster (`envoy.config.endpoint.v3`).

use std::{fmt, net::SocketAddr, path::PathBuf, sync::Arc};

use super::{Metadata, Name, health_check::EndpointCheck};

/// `ClusterLoadAssignment`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    pub localities: Vec<Locality>,
    /// In percent, default 140.
    pub overprovisioning: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Locality {
    pub region: Box<str>,
    pub zone: Box<str>,
    pub sub_zone: Box<str>,
    pub priority: u32,
    /// Weight among the localities of its priority, `None` when the control plane gave none.
    pub weight: Option<u32>,
    pub endpoints: Vec<Endpoint>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub address: Address,
    /// For `auto_host_rewrite` and health checks; may be empty.
    pub hostname: Box<str>,
    /// At least 1.
    pub weight: u32,
    pub health: Health,
    pub metadata: Option<Arc<Metadata>>,
    /// What its active health checks do differently.
    pub check: Option<Arc<EndpointCheck>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    Ip(SocketAddr),
    /// A name still to be resolved: DNS clusters only.
    Host {
        host: Name,
        port: u16,
    },
    /// A Unix socket; a leading `@` names the abstract namespace.
    Pipe(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(addr) => addr.fmt(f),
            Self::Host { host, port } => write!(f, "{host}:{port}"),
            Self::Pipe(path) => path.display().fmt(f),
        }
    }
}

/// `HealthStatus`, as the control plane says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    #[default]
    Healthy,
    Degraded,
    Unhealthy,
    /// Gets no new connections; existing ones go on.
    Draining,
}

//! The xDS resource types, in the order in which they are pushed.

/// A resource type. The order of variants is the push order: clusters before what points at them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TypeUrl {
    Cluster,
    Endpoints,
    Listener,
    Route,
    Secret,
    /// A type we have no resources of; answered with nothing so that no client waits for it.
    Other(String),
}

const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
const ENDPOINTS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
const ROUTE: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
/// Longest type URL accepted.
const MAX_URL: usize = 256;

impl TypeUrl {
    /// Short names by [`Self::index`]; the values of the metric label `type`.
    pub const SHORT_NAMES: [&'static str; 6] = ["CDS", "EDS", "LDS", "RDS", "SDS", "other"];

    /// Reads a request's type URL; `None` if it cannot be one.
    pub fn parse(url: &str) -> Option<Self> {
        Some(match url {
            CLUSTER => Self::Cluster,
            ENDPOINTS => Self::Endpoints,
            LISTENER => Self::Listener,
            ROUTE => Self::Route,
            SECRET => Self::Secret,
            other if other.is_empty() || other.len() > MAX_URL => return None,
            other => Self::Other(other.to_owned()),
        })
    }

    pub fn as_str(&self) -> &str {
        match self {
            Self::Cluster => CLUSTER,
            Self::Endpoints => ENDPOINTS,
            Self::Listener => LISTENER,
            Self::Route => ROUTE,
            Self::Secret => SECRET,
            Self::Other(url) => url,
        }
    }

    pub fn index(&self) -> usize {
        match self {
            Self::Cluster => 0,
            Self::Endpoints => 1,
            Self::Listener => 2,
            Self::Route => 3,
            Self::Secret => 4,
            Self::Other(_) => 5,
        }
    }

    pub fn short(&self) -> &'static str {
        Self::SHORT_NAMES[self.index()]
    }

    /// CDS and LDS: a first request without names means everything, and a SotW response is the full state.
    pub fn is_full_state(&self) -> bool {
        matches!(self, Self::Cluster | Self::Listener)
    }
}

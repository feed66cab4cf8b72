//! A cluster as the data path sees it: configuration, endpoints and a compiled load balancer, immutable; with the
//! statistics, breakers and cursors that it inherits from the view before.
//!
//! Built on the control thread; picked from on every worker without a lock. Refuses to know who asks and why. The
//! invariant: a view never changes after `build`, and an equal endpoint is the same object in the next view.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use self::view::{Reuse, View};
use super::{
    breaker::Breaker,
    endpoint::Endpoint,
    lb::{self, Balancer},
    original_dst,
    transport::Transports,
};
use crate::{
    ir::{
        self, Name,
        cluster::Discovery,
        endpoint::{Assignment, Health},
    },
    telemetry::metrics::{Block, ClusterStats, Kind, Sharded},
    tls::secrets::Secrets,
};

/// What building a cluster needs from outside.
pub struct Deps {
    pub secrets: Arc<Secrets>,
}

/// One view of a cluster.
pub struct Cluster {
    pub config: Arc<ir::cluster::Cluster>,
    pub stats: Arc<Sharded<ClusterStats>>,
    members: Vec<Member>,
    localities: Vec<Arc<LocalityName>>,
    balancer: Balancer,
    pub(super) transports: Transports,
    runtime: Arc<Runtime>,
}

/// An endpoint's place in one view of its cluster.
#[derive(Clone, Debug)]
pub struct Member {
    pub endpoint: Arc<Endpoint>,
    pub weight: u32,
    pub health: Health,
    /// Index into [`Cluster::localities`].
    pub locality: u32,
}

/// Where a group of endpoints runs, and its priority.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalityName {
    pub region: Box<str>,
    pub zone: Box<str>,
    pub sub_zone: Box<str>,
    pub priority: u32,
}

/// What changes at run time and survives a new view.
#[derive(Debug)]
struct Runtime {
    id: u64,
    default: Arc<Breaker>,
    high: Arc<Breaker>,
    cursor: Sharded<Cursor>,
}

/// A worker's place in the round robin, each worker starting somewhere else.
#[derive(Debug)]
struct Cursor(AtomicU64);

impl Default for Cursor {
    fn default() -> Self {
        Self(AtomicU64::new(u64::from(fastrand::u32(..))))
    }
}

impl Block for Cursor {
    fn visit(&self, _: &mut dyn FnMut(&'static str, Kind, u64)) {}
}

/// What a pick may depend on.
#[derive(Clone, Copy, Debug, Default)]
pub struct PickContext<'a> {
    /// The connection's original destination, for `ORIGINAL_DST` clusters.
    pub original_dst: Option<SocketAddr>,
    /// One uniform draw; further draws are derived from it.
    pub random: u64,
    /// Endpoints tried before: another is preferred (`previous_hosts`).
    pub exclude: &'a [Arc<Endpoint>],
    /// How many picks to make at most before an excluded endpoint is looked past (`host_selection_retry_max_attempts`).
    pub attempts: u32,
    /// For hash policies; as in Envoy the other policies do not look at it.
    pub hash: Option<u64>,
}

/// Why there is no endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PickError {
    #[error("the cluster has no endpoints")]
    NoEndpoints,
    #[error("no endpoint of the cluster is healthy")]
    NoneHealthy,
    #[error("the connection has no original destination")]
    NoOriginalDst,
}

impl Cluster {
    /// Compiles `config` with `assignment`: what EDS or DNS says, `None` when nothing was heard yet (static clusters
    /// bring their own). Takes over statistics, breakers, endpoints and TLS contexts of `previous`.
    pub fn build(
        config: Arc<ir::cluster::Cluster>,
        assignment: Option<Arc<Assignment>>,
        deps: &Deps,
        previous: Option<&Arc<Self>>,
    ) -> Result<Arc<Self>, String> {
        let transports = Transports::new(&config, &deps.secrets, previous.map(|p| &p.transports))?;
        let assignment = match &config.discovery {
            Discovery::Static(inline) => Some(inline.clone()),
            Discovery::OriginalDst { .. } => None,
            Discovery::StrictDns(..) | Discovery::LogicalDns(..) | Discovery::Eds { .. } => assignment,
        };
        let mut pool = Reuse::new(previous);
        let mut view = View::default();
        if let Some(assignment) = &assignment {
            match &config.discovery {
                Discovery::LogicalDns(template, _) => view.add_logical(template, assignment, &transports, &mut pool)?,
                _ => view.add_all(assignment, &transports, &mut pool)?,
            }
        }
        let balancer = view.balancer(&config, assignment.as_deref());
        pool.retire_unused();
        for member in &view.members {
            member.endpoint.set_removed(false);
        }
        let runtime = match previous {
            Some(previous) => {
                previous.runtime.default.configure(&config.breaker);
                previous.runtime.high.configure(&config.breaker_high);
                previous.runtime.clone()
            }
            None => Arc::new(Runtime::new(&config)),
        };
        Ok(Arc::new(Self {
            stats: previous.map_or_else(Arc::default, |p| p.stats.clone()),
            config,
            members: view.members,
            localities: view.localities,
            balancer,
            transports,
            runtime,
        }))
    }

    /// All endpoints of this view, in the order of the assignment.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The localities that members refer to.
    pub fn localities(&self) -> &[Arc<LocalityName>] {
        &self.localities
    }

    /// The circuit breaker of a routing priority.
    pub fn breaker(&self, high: bool) -> &Arc<Breaker> {
        if high { &self.runtime.high } else { &self.runtime.default }
    }

    /// Identifies the cluster over all its views.
    pub(super) fn id(&self) -> u64 {
        self.runtime.id
    }

    /// Whether all TLS contexts have their secrets: a cluster warms until then.
    pub fn ready(&self) -> bool {
        self.transports.ready()
    }

    /// To be called when the cluster is removed for good: pools let go of idle connections to its endpoints.
    pub fn retire(&self) {
        for member in &self.members {
            member.endpoint.set_removed(true);
        }
    }

    /// The endpoint for one request or connection.
    pub fn pick(&self, context: &PickContext<'_>) -> Result<Arc<Endpoint>, PickError> {
        if let Discovery::OriginalDst { port_override } = self.config.discovery {
            let mut address = context.original_dst.ok_or(PickError::NoOriginalDst)?;
            if let Some(port) = port_override {
                address.set_port(port);
            }
            return Ok(original_dst::endpoint(self, address));
        }
        if self.members.is_empty() {
            self.stats.local().upstream_cx_none_healthy.inc();
            return Err(PickError::NoEndpoints);
        }
        let draw = lb::Draw {
            random: context.random,
            cursor: &self.runtime.cursor.local().0,
            attempts: context.attempts,
            active: &|i| self.members[i].endpoint.rq_active.load(Relaxed),
            excluded: &|i| context.exclude.iter().any(|e| Arc::ptr_eq(e, &self.members[i].endpoint)),
            excludes: !context.exclude.is_empty(),
        };
        match self.balancer.pick(&draw) {
            Some(index) => Ok(self.members[index].endpoint.clone()),
            None => {
                self.stats.local().upstream_cx_none_healthy.inc();
                Err(PickError::NoneHealthy)
            }
        }
    }
}

impl Runtime {
    fn new(config: &ir::cluster::Cluster) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            id: NEXT.fetch_add(1, Relaxed),
            default: Breaker::new(&config.breaker),
            high: Breaker::new(&config.breaker_high),
            cursor: Sharded::default(),
        }
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("name", &self.config.name).field("members", &self.members.len()).finish()
    }
}

/// The name of a cluster, for logs.
impl AsRef<Name> for Cluster {
    fn as_ref(&self) -> &Name {
        &self.config.name
    }
}

mod view;

#[cfg(test)]
mod tests;

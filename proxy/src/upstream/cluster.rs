//! A cluster as the data path sees it: configuration, endpoints and a compiled load balancer, immutable; with the
//! statistics, breakers and cursors that it inherits from the view before.
//!
//! Checked on the control thread, compiled at the first use; picked from on every worker without a lock. Refuses to know
//! who asks and why. The invariant: a view never changes after `build`, and an equal endpoint is the same object in the
//! next view.

use std::{
    net::SocketAddr,
    num::NonZeroU32,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use smallvec::SmallVec;

pub(super) use self::parts::Life;
pub(super) use self::watch::Reporter;
pub use self::{
    parts::Parts,
    watch::{Alarm, Alarms, Picked},
};
use super::{
    breaker::Breaker,
    credit::{self, Credit},
    endpoint::Endpoint,
    lb, original_dst, uptime,
};
use crate::{
    ir::{
        self, Name,
        balancing::{Criteria, LbPolicy},
        cluster::Discovery,
        endpoint::{Address, Assignment, Health},
    },
    telemetry::metrics::{Block, ClusterStats, Kind, Sharded},
    tls::{
        client::{ClientContext, Prepared},
        secrets::Secrets,
    },
};

/// Most hosts to look at for how a cluster does.
const ASKED: usize = 32;

/// What building a cluster needs from outside.
#[derive(Default)]
pub struct Deps {
    pub secrets: Arc<Secrets>,
    /// The local cluster, for zone-aware routing.
    pub callers: Arc<lb::Callers>,
}

/// One view of a cluster.
pub struct Cluster {
    pub config: Arc<ir::cluster::Cluster>,
    pub stats: Arc<Sharded<ClusterStats>>,
    assignment: Option<Arc<Assignment>>,
    secrets: Arc<Secrets>,
    callers: Arc<lb::Callers>,
    prepared: Box<[Prepared]>,
    /// Counts the views of the cluster.
    turn: u64,
    life: Arc<Life>,
    parts: OnceLock<Arc<Parts>>,
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
    /// The endpoints of all earlier tries, and how often a retry leaves their priorities (`previous_priorities`).
    pub tried: Option<(&'a [Arc<Endpoint>], NonZeroU32)>,
    /// For hash policies; as in Envoy the other policies do not look at it.
    pub hash: Option<u64>,
    /// The labels the route asks of hosts, for clusters with subsets.
    pub criteria: Option<&'a Criteria>,
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
    /// A view of `config` with `assignment`: what EDS or DNS says, `None` when nothing was heard yet (static clusters
    /// bring their own). Takes over statistics, breakers, endpoints and TLS contexts of `previous`.
    pub fn build(
        config: Arc<ir::cluster::Cluster>,
        assignment: Option<Arc<Assignment>>,
        deps: &Deps,
        previous: Option<&Arc<Self>>,
    ) -> Result<Arc<Self>, String> {
        let (assignment, names) = match &config.discovery {
            Discovery::Static(inline) => (Some(inline.clone()), false),
            Discovery::OriginalDst { .. } => (None, false),
            Discovery::Eds { .. } => (assignment, false),
            Discovery::StrictDns(..) | Discovery::LogicalDns(..) => (assignment, true),
        };
        let prepared = match previous {
            Some(previous) if Arc::ptr_eq(&previous.config, &config) => previous.prepared.clone(),
            _ => prepare(&config, &deps.secrets)?,
        };
        check(&config, assignment.as_deref())?;
        if let Some(assignment) = assignment.as_deref().filter(|_| deps.callers.is(&config.name)) {
            deps.callers.update(assignment);
        }
        let changes = membership::changes(previous.and_then(|p| p.assignment.as_ref()), assignment.as_ref());
        let cluster = Arc::new(Self {
            stats: previous.map_or_else(Arc::default, |p| p.stats.clone()),
            config,
            assignment,
            secrets: deps.secrets.clone(),
            callers: deps.callers.clone(),
            prepared,
            turn: previous.map_or(0, |p| p.turn + 1),
            life: previous.map_or_else(Life::new, |p| p.life.clone()),
            parts: OnceLock::new(),
        });
        cluster.life.changed(changes);
        // What is in use is made here, and not by the worker that comes first. So is what names resolve to: answers
        // replace each other in the endpoint they have in common. And so are hosts that are checked before any use.
        if names || cluster.life.is_used() || cluster.config.check().is_some() {
            cluster.parts();
        }
        Ok(cluster)
    }

    pub(super) fn parts(&self) -> &Arc<Parts> {
        self.parts.get_or_init(|| self.life.make(self))
    }

    /// The parts for display: a cluster that nobody uses stays as small as it is.
    pub fn inspect(&self) -> Arc<Parts> {
        if self.parts.get().is_none() && !self.life.is_used() {
            return Arc::new(Parts::detached(self));
        }
        self.parts().clone()
    }

    /// All endpoints of this view, in the order of the assignment.
    pub fn members(&self) -> &[Member] {
        self.parts().members()
    }

    /// The circuit breaker of a routing priority.
    pub fn breaker(&self, high: bool) -> &Arc<Breaker> {
        let runtime = &self.parts().runtime;
        if high { &runtime.high } else { &runtime.default }
    }

    /// The calling worker's credit for retries.
    pub fn credit(&self) -> &Credit {
        self.parts().runtime.credit.local()
    }

    /// Whether `failed` is alone in failing, as far as is known: at least half of the hosts that could stand in for it are well.
    /// `random` says where to look in a large cluster.
    pub fn is_own_fault(&self, failed: &Endpoint, random: u64) -> bool {
        let (members, parts) = (self.members(), self.parts());
        // Which hosts could stand in is up to the request's labels then; and a hash means one host.
        if self.config.lb_options.subsets.is_some() || self.config.lb.is_hashed() || members.len() < 2 {
            return false;
        }
        let priority = |member: &Member| parts.localities()[member.locality as usize].priority;
        let own = if parts.localities().len() > 1 {
            members.iter().find(|m| std::ptr::eq(&*m.endpoint, failed)).map(priority)
        } else {
            None
        };
        let others = members.iter().cycle().skip((random % members.len() as u64) as usize);
        credit::is_own_fault(
            others
                .take(members.len().min(ASKED))
                .filter(|m| !std::ptr::eq(&*m.endpoint, failed) && own.is_none_or(|own| priority(m) == own))
                .filter(|m| matches!(m.endpoint.health(m.health), Health::Healthy | Health::Degraded))
                .map(|m| m.endpoint.streak.is_well()),
        )
    }

    /// Identifies the cluster over all its views.
    pub(super) fn id(&self) -> u64 {
        self.life.id
    }

    /// What outlives its views.
    pub(super) fn life(&self) -> &Arc<Life> {
        &self.life
    }

    /// Whether all TLS contexts have their secrets: a cluster warms until then.
    pub fn ready(&self) -> bool {
        self.parts().transports.ready()
    }

    /// To be called when the cluster is removed for good: pools let go of idle connections to its endpoints.
    pub fn retire(&self) {
        self.life.retire();
    }

    /// Whether the choice takes latencies into account: who sends requests tells them to [`Self::answered`].
    pub fn observes_latency(&self) -> bool {
        matches!(self.config.lb, LbPolicy::PeakEwma(_))
    }

    /// An endpoint took so long to answer, or to be given up.
    pub fn answered(&self, endpoint: &Endpoint, took: Duration) {
        if let LbPolicy::PeakEwma(config) = self.config.lb {
            endpoint.latency.observe(took, uptime(), config.decay);
        }
    }

    /// The endpoint for one request or connection.
    pub fn pick(&self, context: &PickContext<'_>) -> Result<Arc<Endpoint>, PickError> {
        let parts = self.parts();
        if parts.is_broken() {
            self.stats.local().upstream_cx_none_healthy.inc();
            return Err(PickError::NoneHealthy);
        }
        if let Discovery::OriginalDst { port_override } = self.config.discovery {
            let mut address = context.original_dst.ok_or(PickError::NoOriginalDst)?;
            if let Some(port) = port_override {
                address.set_port(port);
            }
            return Ok(original_dst::endpoint(self, address));
        }
        let members = parts.members();
        if members.is_empty() {
            self.stats.local().upstream_cx_none_healthy.inc();
            return Err(PickError::NoEndpoints);
        }
        let cursor = &parts.runtime.cursor.local().0;
        match self.choose(context, (cursor, false), &|event| parts.runtime.count(event)) {
            Some(index) => {
                if parts.in_panic(&members[index]) {
                    self.stats.local().lb_healthy_panic.inc();
                }
                Ok(members[index].endpoint.clone())
            }
            None => {
                self.stats.local().upstream_cx_none_healthy.inc();
                Err(PickError::NoneHealthy)
            }
        }
    }

    /// The balancer's decision: the place of a member. An imagined one moves nothing but the given cursor.
    fn choose(
        &self,
        context: &PickContext<'_>,
        (cursor, imagined): (&AtomicU64, bool),
        event: &dyn Fn(lb::Event),
    ) -> Option<usize> {
        let parts = self.parts();
        let members = parts.members();
        let tried: SmallVec<[Option<u32>; 4]> = context.tried.map_or_else(SmallVec::new, |(tried, _)| {
            let member = |e: &Arc<Endpoint>| members.iter().find(|m| Arc::ptr_eq(&m.endpoint, e));
            let priority = |m: &Member| parts.localities().get(m.locality as usize).map(|l| l.priority);
            tried.iter().map(|endpoint| member(endpoint).and_then(priority)).collect()
        });
        let draw = lb::Draw {
            random: context.random,
            hash: context.hash,
            criteria: context.criteria,
            cursor,
            attempts: context.attempts,
            active: &|i| members[i].endpoint.rq_active.load(Relaxed),
            total: &|| [&parts.runtime.default, &parts.runtime.high].map(|b| u64::from(b.used()[2])).iter().sum(),
            latency: &|i, decay| members[i].endpoint.latency.estimate(uptime(), decay),
            now: &uptime,
            excluded: &|i| context.exclude.iter().any(|e| Arc::ptr_eq(e, &members[i].endpoint)),
            excludes: !context.exclude.is_empty(),
            event,
            tried: context.tried.map(|(_, every)| lb::Tried { priorities: &tried, update_frequency: every.get() }),
            imagined,
        };
        parts.balancer.pick(&draw)
    }
}

/// The files of static TLS configurations, once per configuration.
fn prepare(config: &ir::cluster::Cluster, secrets: &Arc<Secrets>) -> Result<Box<[Prepared]>, String> {
    let matches = config.transport_matches.iter().filter_map(|m| m.tls.as_ref());
    let prepared = config.tls.iter().chain(matches).map(|tls| ClientContext::prepare(tls, secrets));
    prepared.filter_map(Result::transpose).collect::<Result<_, _>>().map_err(|e| e.to_string())
}

/// What would keep the endpoints from being made.
fn check(config: &ir::cluster::Cluster, assignment: Option<&Assignment>) -> Result<(), String> {
    if let Discovery::LogicalDns(template, _) = &config.discovery {
        let some = template.localities.iter().any(|l| !l.endpoints.is_empty());
        return some.then_some(()).ok_or_else(|| "a logical DNS cluster needs one endpoint".to_owned());
    }
    let endpoints = assignment.into_iter().flat_map(|a| &a.localities).flat_map(|l| &l.endpoints);
    for endpoint in endpoints {
        if let Address::Host { host, port } = &endpoint.address {
            return Err(format!("endpoint {host}:{port} is a name: only DNS clusters may have names"));
        }
    }
    Ok(())
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("name", &self.config.name).finish_non_exhaustive()
    }
}

/// The name of a cluster, for logs.
impl AsRef<Name> for Cluster {
    fn as_ref(&self) -> &Name {
        &self.config.name
    }
}

mod eligible;
mod membership;
mod parts;
mod stats;
mod view;
mod watch;

#[cfg(test)]
mod balancing_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod watch_tests;

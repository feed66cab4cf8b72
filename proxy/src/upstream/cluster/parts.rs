//! What a view of a cluster consists of once it is used: endpoints, balancer, transport sockets; and what all views of
//! the cluster share.
//!
//! Most clusters of a large mesh are never used by one workload, so parts are made at the first use, on whatever thread
//! that is. Invariant: the newest view that has parts says which endpoints are removed, whichever was made last.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwapOption;

use super::{
    Cluster, Cursor, LocalityName, Member,
    view::{Reuse, View},
    watch::{HalfOpen, Watch},
};
use crate::{
    ir::{self, cluster::Discovery, endpoint::Assignment, health_check::EndpointCheck},
    telemetry::metrics::{BalancerStats, Sharded},
    upstream::{
        breaker::Breaker,
        credit::Credit,
        endpoint::Endpoint,
        lb::{Balancer, Callers, Event},
        transport::Transports,
    },
};

/// The parts of one view.
pub struct Parts {
    pub(super) members: Vec<Member>,
    pub(super) localities: Vec<Arc<LocalityName>>,
    pub(super) balancer: Balancer,
    pub(in crate::upstream) transports: Transports,
    broken: bool,
    /// Whether the priority of a locality ignores health; empty when none does.
    panicking: Box<[bool]>,
    /// What the members were made of.
    assignment: Option<Arc<Assignment>>,
    pub(super) runtime: Arc<Runtime>,
}

impl Parts {
    /// All endpoints of this view, in the order of the assignment.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The localities that members refer to.
    pub fn localities(&self) -> &[Arc<LocalityName>] {
        &self.localities
    }

    /// Whether there is nothing to connect with: no endpoint may be taken, least of all without TLS.
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Makes the parts of `cluster` with the endpoints of `pool` where they are equal. What can be wrong was looked for
    /// when the cluster was built; if something is all the same, there are no endpoints rather than wrong ones.
    /// Without `callers` nobody will pick.
    fn new(
        cluster: &Cluster,
        transports: Result<Transports, String>,
        pool: &mut Reuse,
        runtime: Arc<Runtime>,
        callers: Option<&Arc<Callers>>,
        newest: bool,
    ) -> Self {
        let broken = transports.is_err();
        let transports = transports.unwrap_or_default();
        let mut view = View::default();
        if let Some(assignment) = cluster.assignment.as_ref().filter(|_| !broken) {
            let added = match &cluster.config.discovery {
                Discovery::LogicalDns(template, _) => view.add_logical(template, assignment, &transports, pool),
                _ => view.add_all(assignment, &transports, pool),
            };
            if let Err(reason) = added {
                tracing::error!(cluster = %cluster.config.name, reason, "the cluster has no endpoints");
                view = View::default();
            }
        }
        let assignment = cluster.assignment.clone();
        // What an older view says of its hosts is out of date.
        for (member, check) in checks(&view.members, assignment.as_deref()).filter(|_| newest) {
            let meant = cluster.config.check().is_some() && !check.is_some_and(|c| c.disabled);
            member.endpoint.set_checked(meant);
        }
        let balancer = view.balancer(&cluster.config, cluster.assignment.as_deref(), callers);
        let panicking = panicking(&view.localities, &balancer);
        Self {
            members: view.members,
            localities: view.localities,
            balancer,
            transports,
            broken,
            panicking,
            assignment,
            runtime,
        }
    }

    /// The members, with what active health checks do differently for each.
    pub(in crate::upstream) fn checks(&self) -> impl Iterator<Item = (&Member, Option<&Arc<EndpointCheck>>)> {
        checks(&self.members, self.assignment.as_deref())
    }

    /// Whether a member was picked without regard to its health.
    pub(super) fn in_panic(&self, member: &Member) -> bool {
        !self.panicking.is_empty() && self.panicking.get(member.locality as usize).is_some_and(|p| *p)
    }

    /// Parts to look at, which take no part in anything.
    pub(super) fn detached(cluster: &Cluster) -> Self {
        let runtime = Arc::new(Runtime::new(&cluster.config));
        Self::new(cluster, Ok(Transports::default()), &mut Reuse::new(&[]), runtime, None, true)
    }
}

/// Members are in the order of the assignment; the one of a logical DNS cluster stands for all of them.
fn checks<'a>(
    members: &'a [Member],
    assignment: Option<&'a Assignment>,
) -> impl Iterator<Item = (&'a Member, Option<&'a Arc<EndpointCheck>>)> {
    let endpoints = assignment.into_iter().flat_map(|a| &a.localities).flat_map(|l| &l.endpoints);
    members.iter().zip(endpoints).map(|(member, endpoint)| (member, endpoint.check.as_ref()))
}

/// By locality, whether its priority is in panic; empty when none is.
fn panicking(localities: &[Arc<LocalityName>], balancer: &Balancer) -> Box<[bool]> {
    let mut ranks: Vec<u32> = localities.iter().map(|l| l.priority).collect();
    ranks.sort_unstable();
    ranks.dedup();
    let rank = |locality: &Arc<LocalityName>| ranks.binary_search(&locality.priority).unwrap_or(0);
    let each: Vec<bool> = localities.iter().map(|l| balancer.in_panic(rank(l))).collect();
    if each.contains(&true) { each.into() } else { Box::default() }
}

/// What changes at run time and survives a new view.
#[derive(Debug)]
pub(super) struct Runtime {
    pub(super) default: Arc<Breaker>,
    pub(super) high: Arc<Breaker>,
    pub(super) cursor: Sharded<Cursor>,
    pub(super) credit: Sharded<Credit>,
    pub(super) half_open: HalfOpen,
    pub(super) balancing: Sharded<BalancerStats>,
}

impl Runtime {
    /// Counts what a pick came across.
    pub(super) fn count(&self, event: Event) {
        let stats = self.balancing.local();
        let counter = match event {
            Event::SubsetsSelected => &stats.lb_subsets_selected,
            Event::SubsetsFallback => &stats.lb_subsets_fallback,
            Event::SubsetsFallbackPanic => &stats.lb_subsets_fallback_panic,
            Event::ZoneRoutingAllDirectly => &stats.lb_zone_routing_all_directly,
            Event::ZoneRoutingSampled => &stats.lb_zone_routing_sampled,
            Event::ZoneRoutingCrossZone => &stats.lb_zone_routing_cross_zone,
            Event::ZoneNoCapacityLeft => &stats.lb_zone_no_capacity_left,
            Event::LocalClusterNotOk => &stats.lb_local_cluster_not_ok,
        };
        counter.inc();
    }

    /// Counts the subsets that one view has and the view before had not, and the other way round.
    fn count_subsets(&self, before: Option<&Balancer>, now: &Balancer) {
        let all = |balancer: &Balancer| -> HashSet<u64> { balancer.subsets().collect() };
        let (before, now) = (before.map(all).unwrap_or_default(), all(now));
        if before != now {
            let stats = self.balancing.local();
            stats.lb_subsets_created.add(now.difference(&before).count() as u64);
            stats.lb_subsets_removed.add(before.difference(&now).count() as u64);
        }
    }

    fn new(config: &ir::cluster::Cluster) -> Self {
        Self {
            default: Breaker::new(&config.breaker),
            high: Breaker::new(&config.breaker_high),
            cursor: Sharded::default(),
            credit: Sharded::default(),
            half_open: HalfOpen::default(),
            balancing: Sharded::default(),
        }
    }
}

/// What all views of a cluster share; next to nothing until the first is used.
pub(in crate::upstream) struct Life {
    pub(super) id: u64,
    pub(super) watch: ArcSwapOption<Watch>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The newest view with parts, and its number.
    latest: Option<Arc<Parts>>,
    turn: u64,
    /// How often the hosts of a priority changed.
    changes: u32,
    retired: bool,
}

impl Life {
    pub(super) fn new() -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Arc::new(Self { id: NEXT.fetch_add(1, Relaxed), watch: ArcSwapOption::empty(), state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hosts of so many priorities changed.
    pub(super) fn changed(&self, priorities: u32) {
        let mut state = self.state();
        state.changes = state.changes.wrapping_add(priorities);
    }

    pub(super) fn changes(&self) -> u32 {
        self.state().changes
    }

    /// Whether some view was used.
    pub(super) fn is_used(&self) -> bool {
        self.state().latest.is_some()
    }

    /// The parts of the newest view that has any, and the number of that view.
    pub(super) fn latest(&self) -> Option<(Arc<Parts>, u64)> {
        let state = self.state();
        Some((state.latest.clone()?, state.turn))
    }

    /// Makes the parts of one view, taking over what is equal from the newest that has any.
    pub(super) fn make(&self, cluster: &Cluster) -> Arc<Parts> {
        let mut state = self.state();
        let latest = state.latest.as_deref();
        let before = latest.map(|l| &l.transports);
        let transports = Transports::new(&cluster.config, &cluster.secrets, &cluster.prepared, before);
        if let Err(reason) = &transports {
            tracing::error!(cluster = %cluster.config.name, reason, "the cluster cannot be used");
        }
        let newest = cluster.turn >= state.turn;
        let runtime = match latest {
            Some(latest) => {
                if newest {
                    latest.runtime.default.configure(&cluster.config.breaker);
                    latest.runtime.high.configure(&cluster.config.breaker_high);
                }
                latest.runtime.clone()
            }
            None => Arc::new(Runtime::new(&cluster.config)),
        };
        let mut pool = Reuse::new(latest.map_or(&[][..], |l| &l.members));
        let parts = Arc::new(Parts::new(cluster, transports, &mut pool, runtime, Some(&cluster.callers), newest));
        if newest {
            parts.runtime.count_subsets(state.latest.as_deref().map(|l| &l.balancer), &parts.balancer);
            pool.retire_unused();
            mark(&parts.members, state.retired);
            state.latest = Some(parts.clone());
            state.turn = cluster.turn;
        } else if let Some(latest) = latest {
            // Somebody still works with an older view: what it alone has is removed already.
            let held: HashSet<*const Endpoint> = latest.members.iter().map(|m| Arc::as_ptr(&m.endpoint)).collect();
            let gone = parts.members.iter().filter(|m| !held.contains(&Arc::as_ptr(&m.endpoint)));
            gone.for_each(|m| m.endpoint.set_removed(true));
        }
        parts
    }

    /// Whether the cluster is gone.
    pub(in crate::upstream) fn is_retired(&self) -> bool {
        self.state().retired
    }

    /// The cluster is gone: its endpoints are removed, those of views not used yet as well.
    pub(super) fn retire(&self) {
        let mut state = self.state();
        state.retired = true;
        if let Some(latest) = &state.latest {
            mark(&latest.members, true);
        }
    }
}

fn mark(members: &[Member], removed: bool) {
    members.iter().for_each(|member| member.endpoint.set_removed(removed));
}

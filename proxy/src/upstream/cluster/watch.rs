//! Where a cluster and its outlier detection meet: results go in, half-open hosts get their probes.
//!
//! Without outlier detection a result costs one look at the configuration, and a pick one at a count. Decides nothing:
//! that is [`crate::upstream::outlier`]'s, on the control thread, which hears of what matters by an [`Alarm`].

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use super::{Cluster, Member, Parts, PickContext, PickError};
use crate::upstream::{
    endpoint::{Endpoint, HealthFlag},
    health::CheckStats,
    outlier::{Outcome, OutlierStats, Probe},
};

/// A host of which the control thread is to hear.
#[derive(Debug)]
pub struct Alarm {
    /// The cluster's identity over its views.
    pub cluster: u64,
    pub endpoint: Arc<Endpoint>,
}

/// Where alarms go. A host has at most one on its way, so what waits is bounded by the number of hosts.
pub type Alarms = mpsc::UnboundedSender<Alarm>;

/// What the views of a cluster share for the sake of its hosts' health, where anything looks after that.
#[derive(Debug, Default)]
pub(super) struct Watch {
    alarms: OnceLock<Alarms>,
    stats: Arc<OutlierStats>,
    checks: Arc<CheckStats>,
}

/// Hosts that are half-open, with their priority.
#[derive(Debug, Default)]
pub(super) struct HalfOpen {
    count: AtomicU32,
    hosts: ArcSwap<Vec<(u32, Arc<Endpoint>)>>,
}

/// The endpoint of one try.
#[derive(Debug)]
pub struct Picked {
    pub endpoint: Arc<Endpoint>,
    /// The try is to show whether the host is well again.
    pub probe: Option<Probe>,
}

impl Cluster {
    /// [`Self::pick`], with the chance that the try proves a half-open host. Its result is to be [reported](Self::report).
    pub fn pick_for_try(&self, context: &PickContext<'_>) -> Result<Picked, PickError> {
        let picked = self.pick(context);
        let parts = self.parts();
        if parts.runtime.half_open.count.load(Relaxed) == 0 {
            return picked.map(|endpoint| Picked { endpoint, probe: None });
        }
        let hosts = parts.runtime.half_open.hosts.load();
        let fits =
            |host: &Arc<Endpoint>| !host.is_removed() && !context.exclude.iter().any(|tried| Arc::ptr_eq(tried, host));
        let start = (context.random >> 32) as usize % hosts.len().max(1);
        let turns = hosts.iter().cycle().skip(start).take(hosts.len());
        // A host of a priority that gets no traffic is not asked to prove itself at a distance.
        let mut priority = None;
        for (at, host) in turns.clone().filter(|(_, host)| fits(host)) {
            if !host.monitor_if_used().is_some_and(|m| m.probes.has_slot()) {
                continue;
            }
            let here = match &picked {
                Ok(endpoint) => *priority.get_or_insert_with(|| parts.priority_of(endpoint)),
                Err(_) => Some(*at),
            };
            if here == Some(*at)
                && let Some(probe) = Probe::new(host)
            {
                return Ok(Picked { endpoint: host.clone(), probe: Some(probe) });
            }
        }
        picked.map(|endpoint| Picked { endpoint, probe: None }).or_else(|error| {
            // All else is out: the bound would make certain that the request fails.
            let mut turns = turns.filter(|(_, host)| fits(host));
            turns.next().map(|(_, host)| Picked { endpoint: host.clone(), probe: None }).ok_or(error)
        })
    }

    /// Tells outlier detection how a try went.
    pub fn report(&self, endpoint: &Arc<Endpoint>, probe: Option<Probe>, outcome: Outcome) {
        let Some(config) = self.config.outlier() else { return };
        let mut raised = probe.is_some_and(|probe| probe.answer(outcome.is_good()));
        raised |= endpoint.monitor().record(config, outcome);
        if raised {
            self.alarm(endpoint);
        }
    }

    /// Installs where alarms go; the first call counts.
    pub(in crate::upstream) fn watch(&self, alarms: &Alarms) {
        self.watch_state().alarms.get_or_init(|| alarms.clone());
    }

    fn watch_state(&self) -> Arc<Watch> {
        let slot = &self.life.watch;
        if let Some(watch) = slot.load_full() {
            return watch;
        }
        let made = Arc::<Watch>::default();
        let before = slot.compare_and_swap(&None::<Arc<Watch>>, Some(made.clone()));
        before.as_ref().map_or(made, Arc::clone)
    }

    /// What outlier detection did.
    pub fn outlier_stats(&self) -> Arc<OutlierStats> {
        self.watch_state().stats.clone()
    }

    /// What active health checks did.
    pub fn check_stats(&self) -> Arc<CheckStats> {
        self.watch_state().checks.clone()
    }

    /// The host said of itself that it is to get no traffic (`x-envoy-immediate-health-check-fail`): it is out until it
    /// passes its active checks again. Without such checks nothing would bring it back, and it stays.
    pub fn failed_by_itself(&self, endpoint: &Arc<Endpoint>) {
        if endpoint.has_flag(HealthFlag::ActivelyChecked) && endpoint.set_flag(HealthFlag::FailedActiveCheck, true) {
            self.check_stats().passive_failure();
            self.alarm(endpoint);
        }
    }

    fn alarm(&self, endpoint: &Arc<Endpoint>) {
        if let Some(alarms) = self.watch_state().alarms.get() {
            // The receiver ends with the process.
            let _ = alarms.send(Alarm { cluster: self.id(), endpoint: endpoint.clone() });
        }
    }

    /// Whether the cluster ever made a connection.
    pub(in crate::upstream) fn has_traffic(&self) -> bool {
        self.stats.totals().iter().any(|(name, _, value)| *name == "upstream_cx_total" && *value > 0)
    }

    /// The parts of the newest view of the cluster (whichever view this is), if it was ever used, and that view's
    /// number.
    pub(in crate::upstream) fn latest(&self) -> Option<(Arc<Parts>, u64)> {
        self.life.latest()
    }
}

impl Parts {
    fn priority_of(&self, endpoint: &Arc<Endpoint>) -> Option<u32> {
        self.members.iter().find(|m| Arc::ptr_eq(&m.endpoint, endpoint)).map(|m| self.priority(m))
    }

    pub(in crate::upstream) fn priority(&self, member: &Member) -> u32 {
        self.localities.get(member.locality as usize).map_or(0, |l| l.priority)
    }

    /// Says which hosts are half-open, with their priorities.
    pub(in crate::upstream) fn set_half_open(&self, hosts: Vec<(u32, Arc<Endpoint>)>) {
        let half_open = &self.runtime.half_open;
        let count = u32::try_from(hosts.len()).unwrap_or(u32::MAX);
        half_open.hosts.store(Arc::new(hosts));
        half_open.count.store(count, Relaxed);
    }
}

//! Where a cluster and its outlier detection meet: results go in, half-open hosts get their probes.
//!
//! Without outlier detection a result costs one look at the configuration, and a pick one at a count. Decides nothing:
//! that is [`crate::upstream::outlier`]'s, on the control thread, which hears of what matters by an [`Alarm`].

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use super::{Cluster, Member, Parts, PickContext, PickError, parts::Life};
use crate::ir::{Metadata, cluster::HealthPolicy, endpoint::Health, outlier::OutlierDetection};
use crate::upstream::{
    endpoint::{Endpoint, HealthFlag},
    health::CheckStats,
    outlier::{Monitor, Outcome, OutlierStats, Probe},
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

/// Hosts that are half-open.
#[derive(Debug, Default)]
pub(super) struct HalfOpen {
    count: AtomicU32,
    hosts: ArcSwap<Vec<Arc<Endpoint>>>,
}

/// The endpoint of one try.
#[derive(Debug)]
pub struct Picked {
    pub endpoint: Arc<Endpoint>,
    /// The try is to show whether the host is well again.
    pub probe: Option<Probe>,
}

/// What subsets of a cluster's hosts are told by.
fn labels(metadata: Option<&Metadata>) -> Option<&serde_json::Map<String, serde_json::Value>> {
    metadata?.get("envoy.lb")
}

impl Cluster {
    /// [`Self::pick`], with the chance that the try proves a half-open host. Its result is to be [reported](Self::report).
    pub fn pick_for_try(&self, context: &PickContext<'_>) -> Result<Picked, PickError> {
        self.admit(self.pick(context), context)
    }

    /// Lets a half-open host have the try that was to go to `picked`, if it has a probe left.
    pub fn admit(
        &self,
        picked: Result<Arc<Endpoint>, PickError>,
        context: &PickContext<'_>,
    ) -> Result<Picked, PickError> {
        let parts = self.parts();
        let half_open = &parts.runtime.half_open;
        if half_open.count.load(Relaxed) == 0 {
            return picked.map(|endpoint| Picked { endpoint, probe: None });
        }
        let hosts = half_open.hosts.load();
        let start = (context.random >> 32) as usize % hosts.len().max(1);
        let turns = || hosts.iter().cycle().skip(start).take(hosts.len());
        let was_tried = |host: &Arc<Endpoint>| context.exclude.iter().any(|tried| Arc::ptr_eq(tried, host));
        // The request may be for a subset of the hosts: one with other labels is no place for it.
        let picked_metadata = picked.as_ref().ok().and_then(|endpoint| endpoint.metadata());
        let wanted_labels = labels(picked_metadata.as_deref());
        // A host of a priority that gets no traffic is not asked to prove itself at a distance.
        let mut wanted = None;
        for host in turns().filter(|host| host.has_probe() && !was_tried(host)) {
            let Some(at) = parts.can_prove(host).filter(|_| labels(host.metadata().as_deref()) == wanted_labels) else {
                continue;
            };
            let here = match &picked {
                Ok(endpoint) => *wanted.get_or_insert_with(|| parts.priority_of(endpoint)),
                Err(_) => Some(at),
            };
            if here == Some(at)
                && let Some(probe) = Probe::new(host)
            {
                return Ok(Picked { endpoint: host.clone(), probe: Some(probe) });
            }
        }
        picked.map(|endpoint| Picked { endpoint, probe: None }).or_else(|error| {
            // All else is out: the bound would make certain that the request fails.
            let able = || {
                turns().filter(|host| parts.can_prove(host).is_some() && labels(host.metadata().as_deref()).is_none())
            };
            let host = able().find(|host| !was_tried(host)).or_else(|| able().next());
            host.map(|host| Picked { endpoint: host.clone(), probe: None }).ok_or(error)
        })
    }

    /// Tells outlier detection how a try went.
    pub fn report(&self, endpoint: &Arc<Endpoint>, probe: Option<Probe>, outcome: Outcome) {
        if let Some(config) = self.config.outlier() {
            self.life.report(config, endpoint, probe, outcome);
        }
    }

    /// Who takes what is found out of tries after they were reported; `None` without outlier detection.
    pub(in crate::upstream) fn reporter(&self) -> Option<Reporter> {
        self.config.outlier()?;
        Some(Reporter { policy: self.config.health.clone()?, life: self.life.clone() })
    }

    /// Whether somebody has asked for alarms.
    #[cfg(test)]
    pub(in crate::upstream) fn is_watched(&self) -> bool {
        self.life.watch().alarms.get().is_some()
    }

    /// Installs where alarms go; the first call counts.
    pub(in crate::upstream) fn watch(&self, alarms: &Alarms) {
        self.life.watch().alarms.get_or_init(|| alarms.clone());
    }

    /// What outlier detection did.
    pub fn outlier_stats(&self) -> Arc<OutlierStats> {
        self.life.watch().stats.clone()
    }

    /// What active health checks did.
    pub fn check_stats(&self) -> Arc<CheckStats> {
        self.life.watch().checks.clone()
    }

    /// The host said of itself that it is to get no traffic (`x-envoy-immediate-health-check-fail`): it is out until it
    /// passes its active checks again. Without such checks nothing would bring it back, and it stays.
    pub fn failed_by_itself(&self, endpoint: &Arc<Endpoint>) {
        if endpoint.has_flag(HealthFlag::ActivelyChecked) && endpoint.set_flag(HealthFlag::FailedActiveCheck, true) {
            self.check_stats().passive_failure();
            self.life.alarm(endpoint);
        }
    }

    /// Whether some host was not put to its active health check yet.
    pub fn awaits_checks(&self) -> bool {
        let pending = |m: &Member| m.endpoint.has_flag(HealthFlag::PendingActiveCheck);
        self.config.check().is_some() && self.members().iter().any(pending)
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

impl Life {
    /// Made when it is first asked for.
    fn watch(&self) -> Arc<Watch> {
        if let Some(watch) = self.watch.load_full() {
            return watch;
        }
        let made = Arc::<Watch>::default();
        let before = self.watch.compare_and_swap(&None::<Arc<Watch>>, Some(made.clone()));
        before.as_ref().map_or(made, Arc::clone)
    }

    fn report(&self, config: &OutlierDetection, endpoint: &Arc<Endpoint>, probe: Option<Probe>, outcome: Outcome) {
        let mut raised = probe.is_some_and(|probe| probe.answer(outcome.is_good()));
        raised |= endpoint.monitor().record(config, outcome);
        if raised {
            self.alarm(endpoint);
        }
    }

    fn alarm(&self, endpoint: &Arc<Endpoint>) {
        if let Some(alarms) = self.watch().alarms.get() {
            // The receiver ends with the process.
            let _ = alarms.send(Alarm { cluster: self.id, endpoint: endpoint.clone() });
        }
    }
}

/// Takes results for the outlier detection of a cluster, as it is configured when this is made.
pub(in crate::upstream) struct Reporter {
    policy: Arc<HealthPolicy>,
    life: Arc<Life>,
}

impl Reporter {
    /// An answer whose head was reported came to its end, or was broken off.
    pub(in crate::upstream) fn answered(&self, endpoint: &Arc<Endpoint>, whole: bool) {
        match &self.policy.outlier {
            Some(_) if whole => endpoint.monitor_if_used().into_iter().for_each(Monitor::completed),
            Some(config) => self.life.report(config, endpoint, None, Outcome::BrokeOff),
            None => {}
        }
    }
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reporter")
    }
}

impl Parts {
    fn member(&self, endpoint: &Arc<Endpoint>) -> Option<&Member> {
        self.members.iter().find(|m| Arc::ptr_eq(&m.endpoint, endpoint))
    }

    fn priority_of(&self, endpoint: &Arc<Endpoint>) -> Option<u32> {
        self.member(endpoint).map(|m| self.priority(m))
    }

    /// The priority of a half-open host of this view that nothing else keeps from taking traffic.
    fn can_prove(&self, endpoint: &Arc<Endpoint>) -> Option<u32> {
        let member = self.member(endpoint).filter(|m| matches!(m.health, Health::Healthy | Health::Degraded))?;
        let failing =
            endpoint.has_flag(HealthFlag::ActivelyChecked) && endpoint.has_flag(HealthFlag::FailedActiveCheck);
        (!failing).then(|| self.priority(member))
    }

    fn priority(&self, member: &Member) -> u32 {
        self.localities.get(member.locality as usize).map_or(0, |l| l.priority)
    }

    /// Says which hosts are half-open.
    pub(in crate::upstream) fn set_half_open(&self, hosts: Vec<Arc<Endpoint>>) {
        let half_open = &self.runtime.half_open;
        let count = u32::try_from(hosts.len()).unwrap_or(u32::MAX);
        half_open.hosts.store(Arc::new(hosts));
        half_open.count.store(count, Relaxed);
    }
}

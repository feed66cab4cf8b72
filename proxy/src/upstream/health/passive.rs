//! Outlier detection of one cluster, put to work: the detector's changes become flags of endpoints.

use std::sync::Arc;

use tokio::time::Instant;

use crate::{
    ir::outlier::OutlierDetection,
    upstream::{
        Cluster, Endpoint, HealthFlag,
        cluster::Parts,
        outlier::{Change, Detector, Monitor, PROBES},
    },
};

/// The address of an endpoint that `hosts` keeps alive.
type Key = usize;

fn key(endpoint: &Arc<Endpoint>) -> Key {
    Arc::as_ptr(endpoint).addr()
}

/// The detector of a cluster and the hosts it knows.
pub(super) struct Passive {
    detector: Detector<Key>,
    /// Sorted by key.
    hosts: Vec<Arc<Endpoint>>,
    /// The view that the hosts are from.
    turn: Option<u64>,
}

impl Passive {
    pub(super) fn new(cluster: &Cluster) -> Self {
        Self { detector: Detector::new(cluster.outlier_stats()), hosts: Vec::new(), turn: None }
    }

    /// Takes the cluster's hosts of now; `None` as long as nobody uses the cluster.
    fn sync(&mut self, cluster: &Cluster) -> Option<Arc<Parts>> {
        let (parts, turn) = cluster.latest()?;
        if self.turn != Some(turn) {
            let mut hosts: Vec<Arc<Endpoint>> = parts.members().iter().map(|m| m.endpoint.clone()).collect();
            hosts.sort_unstable_by_key(key);
            let keys: Vec<Key> = hosts.iter().map(key).collect();
            self.detector.sync(&keys);
            let gone = |host: &&Arc<Endpoint>| hosts.binary_search_by_key(&key(host), key).is_err();
            let left = self.hosts.iter().filter(gone).any(is_probed);
            self.hosts = hosts;
            self.turn = Some(turn);
            if left {
                set_half_open(&parts);
            }
        }
        Some(parts)
    }

    fn host(&self, key_of: Key) -> Option<&Arc<Endpoint>> {
        let at = self.hosts.binary_search_by_key(&key_of, key).ok()?;
        self.hosts.get(at)
    }

    /// A host has something to tell; true when the cluster is to be published anew.
    pub(super) fn heard(&mut self, cluster: &Cluster, config: &OutlierDetection, endpoint: &Arc<Endpoint>) -> bool {
        let Some(monitor) = endpoint.monitor_if_used() else { return false };
        let raised = monitor.take_raised();
        let Some(parts) = self.sync(cluster) else { return false };
        let (host, now) = (key(endpoint), Instant::now().into_std());
        if self.host(host).is_none() {
            return false;
        }
        let random = &mut || fastrand::u64(..);
        let mut changes = Vec::new();
        if raised.probed() {
            let answers = monitor.probes.take_answers();
            changes.extend(self.detector.probed(config, host, answers, now, random));
        }
        for kind in raised.streaks() {
            if !self.detector.is_out(host) {
                changes.extend(self.detector.streak(config, host, kind, now, random));
                monitor.reset(kind);
            }
        }
        self.apply(cluster, &parts, &changes)
    }

    /// The work of every interval; true when the cluster is to be published anew.
    pub(super) fn interval(&mut self, cluster: &Cluster, config: &OutlierDetection) -> bool {
        let Some(parts) = self.sync(cluster) else { return false };
        // A host raises its hand once: what it did before anybody listened would keep it from being heard for ever.
        let raised = |host: &&Arc<Endpoint>| host.monitor_if_used().is_some_and(Monitor::is_raised);
        let unheard: Vec<_> = self.hosts.iter().filter(raised).cloned().collect();
        let mut heard = false;
        for host in &unheard {
            heard |= self.heard(cluster, config, host);
        }
        let mut windows = Vec::new();
        for host in &self.hosts {
            if let Some(monitor) = host.monitor_if_used() {
                windows.push((key(host), monitor.take_windows()));
                monitor.set_rate(0, -1.0);
                monitor.set_rate(1, -1.0);
            }
        }
        let now = Instant::now().into_std();
        let (changes, rates) = self.detector.interval(config, &windows, now, &mut || fastrand::u64(..));
        for (origin, rates) in rates.iter().enumerate() {
            for (host, rate) in rates {
                if let Some(host) = self.host(*host) {
                    host.monitor().set_rate(origin, *rate);
                }
            }
        }
        self.apply(cluster, &parts, &changes) || heard
    }

    /// A host passed its active check; true when the cluster is to be published anew.
    pub(super) fn passed_check(&mut self, cluster: &Cluster, config: &OutlierDetection, host: &Arc<Endpoint>) -> bool {
        let Some(parts) = self.sync(cluster) else { return false };
        let change = self.detector.passed_check(config, key(host));
        self.apply(cluster, &parts, change.as_slice())
    }

    /// Outlier detection is configured no more; true when the cluster is to be published anew.
    pub(super) fn end(&mut self, cluster: &Cluster) -> bool {
        let Some(parts) = self.sync(cluster) else { return false };
        let changes = self.detector.end();
        self.apply(cluster, &parts, &changes)
    }

    fn apply(&self, cluster: &Cluster, parts: &Parts, changes: &[Change<Key>]) -> bool {
        let (mut flagged, mut moved) = (false, false);
        for change in changes {
            let (Change::Eject(host, _) | Change::HalfOpen(host, _) | Change::Return(host)) = *change;
            let Some(host) = self.host(host) else { continue };
            let monitor = host.monitor();
            moved |= monitor.probes.is_open();
            match change {
                Change::Eject(_, kind) => {
                    monitor.probes.close();
                    flagged |= host.set_flag(HealthFlag::FailedOutlierCheck, true);
                    tracing::info!(cluster = %cluster.config.name, host = %host.label, ?kind, "host ejected");
                }
                Change::HalfOpen(_, round) => {
                    monitor.probes.open(*round, PROBES);
                    moved = true;
                }
                Change::Return(_) => {
                    monitor.probes.close();
                    monitor.reset_all();
                    flagged |= host.set_flag(HealthFlag::FailedOutlierCheck, false);
                    tracing::info!(cluster = %cluster.config.name, host = %host.label, "host returned");
                }
            }
        }
        if moved {
            set_half_open(parts);
        }
        flagged
    }
}

/// Tells the balancer which hosts are to be probed.
fn set_half_open(parts: &Parts) {
    parts.set_half_open(parts.members().iter().map(|m| m.endpoint.clone()).filter(is_probed).collect());
}

fn is_probed(host: &Arc<Endpoint>) -> bool {
    host.monitor_if_used().is_some_and(|monitor| monitor.probes.is_open())
}

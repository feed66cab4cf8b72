//! Clusters under random traffic: what must hold whatever happens, from one integer each.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use super::*;
use crate::ir::outlier::{Consecutive, OutlierDetection};

const SEEDS: u64 = 10_000;

fn random_config(rng: &mut fastrand::Rng) -> OutlierDetection {
    let base = Duration::from_secs(rng.u64(1..60));
    let mut config = OutlierDetection {
        base_ejection_time: base,
        max_ejection_time: base * rng.u32(1..8),
        max_ejection_time_jitter: Duration::from_millis(rng.u64(0..2000)),
        max_ejection_percent: rng.u32(0..=100),
        always_eject_one_host: rng.bool(),
        split_local_origin: rng.bool(),
        consecutive_5xx: Consecutive { threshold: rng.u32(0..6), enforcing: rng.u32(0..=100) },
        consecutive_gateway_failure: Consecutive { threshold: rng.u32(0..6), enforcing: rng.u32(0..=100) },
        consecutive_local_origin_failure: Consecutive { threshold: rng.u32(0..6), enforcing: rng.u32(0..=100) },
        ..OutlierDetection::default()
    };
    config.success_rate.request_volume = rng.u32(0..20);
    config.success_rate.minimum_hosts = rng.u32(0..4);
    config.failure_percentage.request_volume = rng.u32(0..20);
    config.failure_percentage.minimum_hosts = rng.u32(0..4);
    config.failure_percentage.enforcing = rng.u32(0..=100);
    config
}

/// A cluster, its probes under way, and what the invariants need to remember.
struct Cluster {
    rng: fastrand::Rng,
    config: OutlierDetection,
    detector: Detector<u32>,
    stats: Arc<OutlierStats>,
    monitors: BTreeMap<u32, Monitor>,
    out: BTreeSet<u32>,
    /// Host and round of probes without an answer yet.
    under_way: Vec<(u32, u32)>,
    /// Probes that were answered or are under way, by round.
    admitted: BTreeMap<u32, u32>,
    next: u32,
    now: Instant,
}

impl Cluster {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let config = random_config(&mut rng);
        let stats = Arc::<OutlierStats>::default();
        let mut cluster = Self {
            config,
            detector: Detector::new(stats.clone()),
            stats,
            monitors: BTreeMap::new(),
            out: BTreeSet::new(),
            under_way: Vec::new(),
            admitted: BTreeMap::new(),
            next: 0,
            now: Instant::now(),
            rng,
        };
        for _ in 0..cluster.rng.u32(1..12) {
            cluster.add();
        }
        cluster
    }

    fn sync(&mut self) {
        self.detector.sync(&self.monitors.keys().copied().collect::<Vec<_>>());
        self.out.retain(|host| self.monitors.contains_key(host));
    }

    fn add(&mut self) {
        self.monitors.insert(self.next, Monitor::default());
        self.next += 1;
        self.sync();
    }

    fn any(&mut self) -> Option<u32> {
        let at = self.rng.usize(0..self.monitors.len().max(1));
        self.monitors.keys().nth(at).copied()
    }

    /// A request or connection that the balancer sent to `host`, or that was under way when it was ejected.
    fn traffic(&mut self, host: u32) {
        let outcome = match self.rng.u32(0..6) {
            0 => Outcome::Failed,
            1 => Outcome::TimedOut,
            2 => Outcome::Connected,
            3 => Outcome::Response(200),
            _ => Outcome::Response([500, 502, 503, 504, 404][self.rng.usize(0..5)]),
        };
        let raised = self.monitors[&host].record(&self.config, outcome);
        if raised {
            self.hear(host);
        }
    }

    fn hear(&mut self, host: u32) {
        let raised = self.monitors[&host].take_raised();
        let rng = &mut self.rng;
        let random = &mut || rng.u64(..);
        let mut changes = Vec::new();
        if raised.probed() {
            let answers = self.monitors[&host].probes.take_answers();
            changes.extend(self.detector.probed(&self.config, host, answers, self.now, random));
        }
        for kind in raised.streaks() {
            changes.extend(self.detector.streak(&self.config, host, kind, self.now, random));
            self.monitors[&host].reset(kind);
        }
        self.apply(changes);
    }

    fn interval(&mut self) {
        let windows: Vec<_> = self.monitors.iter().map(|(host, m)| (*host, m.take_windows())).collect();
        let rng = &mut self.rng;
        let (changes, _) = self.detector.interval(&self.config, &windows, self.now, &mut || rng.u64(..));
        self.apply(changes);
    }

    fn apply(&mut self, changes: Vec<Change<u32>>) {
        for change in changes {
            match change {
                Change::Eject(host, _) => {
                    let again = !self.out.insert(host);
                    let percent = 100 * self.out.len() as u64;
                    let within = percent <= u64::from(self.config.max_ejection_percent) * self.monitors.len() as u64;
                    let alone = self.config.always_eject_one_host && self.out.len() == 1;
                    assert!(again || within || alone, "more than the maximum is out");
                    self.monitors[&host].probes.close();
                }
                Change::HalfOpen(host, round) => {
                    assert!(self.out.contains(&host), "only a host that is out is half-open");
                    assert_eq!(self.admitted.insert(round, 0), None, "every round is another");
                    self.monitors[&host].probes.open(round, PROBES);
                }
                Change::Return(host) => {
                    assert!(self.out.remove(&host), "only a host that is out returns");
                    self.monitors[&host].probes.close();
                    self.monitors[&host].reset_all();
                }
            }
        }
    }

    /// A request that a probe may be made of.
    fn probe(&mut self, host: u32) {
        if let Some(round) = self.monitors[&host].probes.take() {
            assert!(self.out.contains(&host), "only half-open hosts get probes");
            *self.admitted.get_mut(&round).unwrap() += 1;
            self.under_way.push((host, round));
        }
    }

    fn probe_ends(&mut self) {
        if self.under_way.is_empty() {
            return;
        }
        let at = self.rng.usize(0..self.under_way.len());
        let (host, round) = self.under_way.swap_remove(at);
        let (answered, good) = (self.rng.bool(), self.rng.bool());
        let Some(monitor) = self.monitors.get(&host) else { return };
        if !answered {
            monitor.probes.give_back(round);
            *self.admitted.get_mut(&round).unwrap() -= 1;
        } else if monitor.probe_answered(round, good) {
            self.hear(host);
        }
    }

    fn step(&mut self) {
        let Some(host) = self.any() else { return self.add() };
        match self.rng.u32(0..100) {
            0 => self.add(),
            1 if self.monitors.len() > 1 => {
                self.monitors.remove(&host);
                self.sync();
            }
            2..=11 => {
                self.now += Duration::from_secs(self.rng.u64(1..20));
                self.interval();
            }
            12..=35 => self.probe(host),
            36..=50 => self.probe_ends(),
            51 => {
                let change = self.detector.passed_check(&self.config, host);
                self.apply(change.into_iter().collect());
            }
            _ => self.traffic(host),
        }
        for (round, admitted) in &self.admitted {
            assert!(*admitted <= PROBES, "round {round} got {admitted} probes");
        }
        assert_eq!(self.detector.len(), (self.monitors.len(), self.out.len()));
        assert_eq!(self.stats.active(), self.out.len() as u64);
        assert!(self.monitors.keys().all(|host| self.detector.is_out(*host) == self.out.contains(host)));
    }
}

#[test]
fn whatever_happens_the_limits_hold_and_everyone_comes_back() {
    let mut ejections = 0;
    for seed in 0..SEEDS {
        let mut cluster = Cluster::new(seed);
        for _ in 0..60 {
            cluster.step();
        }
        ejections += cluster.out.len();
        // The last requests are judged.
        cluster.interval();
        // When the traffic ends, all return in the time they are out at most, and one round of probing.
        let longest = cluster.config.max_ejection_time + cluster.config.max_ejection_time_jitter;
        cluster.now += longest;
        cluster.interval();
        cluster.now += cluster.config.base_ejection_time;
        cluster.interval();
        assert!(cluster.out.is_empty(), "seed {seed}: {:?} never return", cluster.out);
    }
    assert!(ejections > SEEDS as usize / 10, "the simulation ejects: {ejections}");
}

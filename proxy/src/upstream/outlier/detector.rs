//! The decisions of outlier detection for one cluster.
//!
//! Pure: the time and the randomness come in, changes come out. Invariants: the hosts out (half-open ones included)
//! never exceed `max_ejection_percent` of the hosts when one is ejected, unless one is always ejected and none is out;
//! only a host that is in is ejected, only one that is out returns.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    EJECT_AFTER, OutlierStats, RETURN_AFTER,
    rate::{Origin, Window, judge},
};
use crate::ir::outlier::OutlierDetection;

/// Why a host is an outlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Consecutive5xx,
    ConsecutiveGatewayFailure,
    ConsecutiveLocalOriginFailure,
    SuccessRate,
    LocalOriginSuccessRate,
    FailurePercentage,
    LocalOriginFailurePercentage,
}

/// What is to be done with a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<K> {
    /// Out of the balancer.
    Eject(K, Kind),
    /// Still out; probes of this round may go to it.
    HalfOpen(K, u32),
    /// Back in.
    Return(K),
}

/// Success rates of hosts with enough requests, by origin.
pub type Rates<K> = [Vec<(K, f64)>; 2];

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    In,
    Out { since: Instant, jitter: Duration, kind: Kind },
    HalfOpen { since: Instant, round: u32, good: u32, bad: u32, kind: Kind },
}

#[derive(Debug)]
struct Host {
    state: State,
    /// How many times the base time the next ejection lasts, less one.
    backoff: u32,
}

/// The hosts of one cluster and their fate, by whatever names them.
#[derive(Debug)]
pub struct Detector<K> {
    hosts: BTreeMap<K, Host>,
    out: usize,
    half_open: usize,
    rounds: u32,
    stats: Arc<OutlierStats>,
}

impl<K: Copy + Ord> Detector<K> {
    pub fn new(stats: Arc<OutlierStats>) -> Self {
        Self { hosts: BTreeMap::new(), out: 0, half_open: 0, rounds: 0, stats }
    }

    /// Takes the cluster's hosts of now. What is gone counts no more, whatever became of it.
    pub fn sync(&mut self, hosts: &[K]) {
        let mut before = std::mem::take(&mut self.hosts);
        for host in hosts {
            let known = before.remove(host);
            self.hosts.insert(*host, known.unwrap_or(Host { state: State::In, backoff: 0 }));
        }
        self.count();
    }

    fn count(&mut self) {
        self.out = self.hosts.values().filter(|h| h.state != State::In).count();
        self.half_open = self.hosts.values().filter(|h| matches!(h.state, State::HalfOpen { .. })).count();
        self.stats.out(self.out, self.half_open);
    }

    /// Hosts, and how many of them are out.
    pub fn len(&self) -> (usize, usize) {
        (self.hosts.len(), self.out)
    }

    /// Whether a host is out of the balancer.
    pub fn is_out(&self, host: K) -> bool {
        self.hosts.get(&host).is_some_and(|h| h.state != State::In)
    }

    /// A host completed a streak of failures.
    pub fn streak(
        &mut self,
        config: &OutlierDetection,
        host: K,
        kind: Kind,
        now: Instant,
        random: &mut dyn FnMut() -> u64,
    ) -> Option<Change<K>> {
        if self.hosts.get(&host)?.state != State::In {
            return None;
        }
        self.stats.detected(kind);
        self.eject(config, host, kind, now, random)
    }

    fn eject(
        &mut self,
        config: &OutlierDetection,
        host: K,
        kind: Kind,
        now: Instant,
        random: &mut dyn FnMut() -> u64,
    ) -> Option<Change<K>> {
        let hosts = self.hosts.len() as u64;
        let within = 100 * (self.out as u64 + 1) <= u64::from(config.max_ejection_percent) * hosts;
        let entry = self.hosts.get_mut(&host).filter(|h| h.state == State::In)?;
        let alone = config.always_eject_one_host && self.out == 0;
        if !within && !alone {
            self.stats.overflowed();
            return None;
        }
        if random() % 100 >= u64::from(enforcing(config, kind)) {
            return None;
        }
        entry.go_out(config, kind, now, random);
        self.stats.enforced(kind);
        self.count();
        Some(Change::Eject(host, kind))
    }

    /// The work of every interval: who may prove itself, whose rate falls out of line. `windows` are the requests of the
    /// interval, external and local.
    pub fn interval(
        &mut self,
        config: &OutlierDetection,
        windows: &[(K, [Window; 2])],
        now: Instant,
        random: &mut dyn FnMut() -> u64,
    ) -> (Vec<Change<K>>, Rates<K>) {
        let mut changes = Vec::new();
        for (key, host) in &mut self.hosts {
            match host.state {
                State::In => host.backoff = host.backoff.saturating_sub(1),
                State::Out { since, jitter, kind } => {
                    let time = lasts(config, host.backoff) + jitter;
                    if now.saturating_duration_since(since) >= time {
                        // 0 is no round.
                        self.rounds = self.rounds.wrapping_add(1).max(1);
                        host.state = State::HalfOpen { since: now, round: self.rounds, good: 0, bad: 0, kind };
                        changes.push(Change::HalfOpen(*key, self.rounds));
                    }
                }
                State::HalfOpen { since, .. } => {
                    if now.saturating_duration_since(since) >= config.base_ejection_time {
                        host.state = State::In;
                        changes.push(Change::Return(*key));
                    }
                }
            }
        }
        self.count();
        let rates = [Origin::External, Origin::Local].map(|origin| {
            let inside: Vec<(K, Window)> = windows
                .iter()
                .filter(|(key, _)| self.hosts.get(key).is_some_and(|h| h.state == State::In))
                .map(|(key, windows)| (*key, windows[origin as usize]))
                .collect();
            let verdict = judge(config, origin, self.hosts.len(), &inside);
            self.stats.set_rates(origin as usize, verdict.mean, verdict.threshold);
            for (host, kind) in verdict.outliers {
                self.stats.detected(kind);
                changes.extend(self.eject(config, host, kind, now, random));
            }
            verdict.rates
        });
        (changes, rates)
    }

    /// Probes of a half-open host were answered.
    pub fn probed(
        &mut self,
        config: &OutlierDetection,
        host: K,
        (of, more_good, more_bad): (u32, u32, u32),
        now: Instant,
        random: &mut dyn FnMut() -> u64,
    ) -> Option<Change<K>> {
        let entry = self.hosts.get_mut(&host)?;
        let State::HalfOpen { round, good, bad, kind, .. } = &mut entry.state else { return None };
        if *round != of {
            return None;
        }
        self.stats.probed(more_good, more_bad);
        *good += more_good;
        *bad += more_bad;
        let change = if *bad >= EJECT_AFTER {
            let kind = *kind;
            // It was out all the while: neither the share of the cluster nor the lot is asked again.
            entry.go_out(config, kind, now, random);
            self.stats.enforced(kind);
            Change::Eject(host, kind)
        } else if *good >= RETURN_AFTER {
            entry.state = State::In;
            Change::Return(host)
        } else {
            return None;
        };
        self.count();
        Some(change)
    }

    /// A host passed its active health check: that says more than what happened before.
    pub fn passed_check(&mut self, config: &OutlierDetection, host: K) -> Option<Change<K>> {
        let entry = self.hosts.get_mut(&host).filter(|h| h.state != State::In && config.active_check_unejects)?;
        entry.state = State::In;
        self.count();
        Some(Change::Return(host))
    }

    /// Detection is over: everyone returns.
    pub fn end(&mut self) -> Vec<Change<K>> {
        let out =
            self.hosts.iter().filter(|(_, h)| h.state != State::In).map(|(key, _)| Change::Return(*key)).collect();
        self.hosts.clear();
        self.count();
        out
    }
}

impl Host {
    fn go_out(&mut self, config: &OutlierDetection, kind: Kind, now: Instant, random: &mut dyn FnMut() -> u64) {
        let millis = u64::try_from(config.max_ejection_time_jitter.as_millis()).unwrap_or(u64::MAX - 1);
        let jitter = if millis == 0 { Duration::ZERO } else { Duration::from_millis(random() % (millis + 1)) };
        self.state = State::Out { since: now, jitter, kind };
        // No further than where the time stops growing.
        if config.base_ejection_time.saturating_mul(self.backoff) < config.max_ejection_time + config.base_ejection_time
        {
            self.backoff = self.backoff.saturating_add(1);
        }
    }
}

/// How long an ejection lasts, without jitter.
fn lasts(config: &OutlierDetection, backoff: u32) -> Duration {
    config.base_ejection_time.saturating_mul(backoff).min(config.max_ejection_time)
}

/// The probability in percent that a detected outlier is ejected.
fn enforcing(config: &OutlierDetection, kind: Kind) -> u32 {
    match kind {
        Kind::Consecutive5xx => config.consecutive_5xx.enforcing,
        Kind::ConsecutiveGatewayFailure => config.consecutive_gateway_failure.enforcing,
        Kind::ConsecutiveLocalOriginFailure => config.consecutive_local_origin_failure.enforcing,
        Kind::SuccessRate => config.success_rate.enforcing,
        Kind::LocalOriginSuccessRate => config.success_rate.enforcing_local_origin,
        Kind::FailurePercentage => config.failure_percentage.enforcing,
        Kind::LocalOriginFailurePercentage => config.failure_percentage.enforcing_local_origin,
    }
}

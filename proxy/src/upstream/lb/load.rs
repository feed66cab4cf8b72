//! How much traffic each priority takes: Envoy's arithmetic on availability, overprovisioning and panic.

use super::{SplitMix, below};

/// Hosts of one priority.
#[derive(Clone, Copy, Debug)]
pub(super) struct Availability {
    pub(super) hosts: usize,
    pub(super) healthy: usize,
    pub(super) degraded: usize,
    /// Of [`Self::hosts`], those that nothing is sent to even in panic.
    pub(super) draining: usize,
}

impl Availability {
    fn in_panic(&self) -> usize {
        self.hosts - self.draining
    }
}

/// Shares in percent per priority; they add up to 100 whenever any host takes traffic.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Loads {
    pub(super) healthy: Vec<u32>,
    pub(super) degraded: Vec<u32>,
    panic: Vec<bool>,
    /// What each priority could take, healthy and degraded.
    scores: [Vec<u32>; 2],
}

impl Loads {
    pub(super) fn new(priorities: &[Availability], overprovisioning: u32, panic_threshold: u8) -> Self {
        let score = |part: usize, of: usize| {
            if of == 0 { 0 } else { (u64::from(overprovisioning) * part as u64 / of as u64).min(100) as u32 }
        };
        let healthy: Vec<u32> = priorities.iter().map(|a| score(a.healthy, a.hosts)).collect();
        let degraded: Vec<u32> = priorities.iter().map(|a| score(a.degraded, a.hosts)).collect();
        let total = healthy.iter().chain(&degraded).fold(0u32, |t, s| t.saturating_add(*s)).min(100);

        let mut remaining = 100;
        let mut loads = Self {
            healthy: distribute(&healthy, &mut remaining, total),
            degraded: distribute(&degraded, &mut remaining, total),
            panic: Vec::new(),
            scores: Default::default(),
        };
        // What is left comes from rounding: the first priority that takes anything gets it.
        if total > 0 && remaining > 0 {
            if let Some(first) = healthy.iter().position(|s| *s > 0) {
                loads.healthy[first] += remaining;
            } else if let Some(first) = degraded.iter().position(|s| *s > 0) {
                loads.degraded[first] += remaining;
            }
        }
        loads.panic = priorities
            .iter()
            .map(|a| {
                // With enough healthy hosts over all priorities no single one panics.
                if total == 100 {
                    return false;
                }
                let available =
                    if a.hosts == 0 { 0.0 } else { 100.0 * (a.healthy + a.degraded) as f64 / a.hosts as f64 };
                available < f64::from(panic_threshold.min(100))
            })
            .collect();
        if !loads.panic.is_empty() && loads.panic.iter().all(|p| *p) {
            loads.spread_by_size(priorities);
        }
        if priorities.len() > 1 {
            loads.scores = [healthy, degraded];
        }
        loads
    }

    /// The shares when some priorities take nothing; `None` when the others cannot take anything either.
    pub(super) fn without(&self, left_out: &[bool]) -> Option<Self> {
        let keep = |scores: &Vec<u32>| -> Vec<u32> {
            scores.iter().zip(left_out).map(|(score, out)| if *out { 0 } else { *score }).collect()
        };
        let scores = self.scores.each_ref().map(keep);
        let total = scores.iter().flatten().fold(0u32, |t, s| t.saturating_add(*s)).min(100);
        if total == 0 {
            return None;
        }
        let mut loads = scores.each_ref().map(|scores| vec![0; scores.len()]);
        let mut remaining = 100;
        // Again for what rounding leaves.
        while remaining > 0 {
            for (load, score) in loads.iter_mut().flatten().zip(scores.iter().flatten()) {
                let more = (score * 100 / total).min(remaining);
                *load += more;
                remaining -= more;
            }
        }
        let [healthy, degraded] = loads;
        Some(Self { healthy, degraded, panic: self.panic.clone(), scores: Default::default() })
    }

    /// All priorities panic: traffic goes by the number of hosts.
    fn spread_by_size(&mut self, priorities: &[Availability]) {
        let total: usize = priorities.iter().map(Availability::in_panic).sum();
        if total == 0 {
            return;
        }
        self.degraded.fill(0);
        for (load, a) in self.healthy.iter_mut().zip(priorities) {
            *load = (100 * a.in_panic() / total) as u32;
        }
        let rest = 100 - self.healthy.iter().sum::<u32>();
        if let Some(first) = priorities.iter().position(|a| a.in_panic() > 0) {
            self.healthy[first] += rest;
        }
    }

    /// The priority that a draw from `0..100` falls to, and whether to its degraded hosts.
    pub(super) fn choose(&self, percent: usize) -> (usize, bool) {
        let mut sum = 0;
        for (tier, degraded) in [(&self.healthy, false), (&self.degraded, true)] {
            for (rank, load) in tier.iter().enumerate() {
                sum += *load as usize;
                if percent < sum {
                    return (rank, degraded);
                }
            }
        }
        (0, false)
    }

    /// [`Self::choose`] for the usual case of one priority, without a draw when there is nothing to choose.
    pub(super) fn single_is_degraded(&self, random: &mut SplitMix) -> bool {
        match self.degraded[0] {
            0 => false,
            100 => true,
            share => below(random.next(), 100) < share as usize,
        }
    }

    pub(super) fn in_panic(&self, rank: usize) -> bool {
        self.panic.get(rank).copied().unwrap_or(false)
    }

    pub(super) fn takes_traffic(&self, rank: usize) -> bool {
        self.healthy[rank] + self.degraded[rank] > 0
    }
}

fn distribute(scores: &[u32], remaining: &mut u32, total: u32) -> Vec<u32> {
    let mut loads = vec![0; scores.len()];
    for (load, score) in loads.iter_mut().zip(scores) {
        *load = (score * 100).checked_div(total).unwrap_or(0).min(*remaining);
        *remaining -= *load;
    }
    loads
}

//! Load balancing as a pure decision: hosts are compiled into tables once per cluster view, a pick reads tables, one
//! cursor, the key or random bits.
//!
//! No I/O, no clock, no lock; randomness, time and in-flight counts are arguments, so a pick replays from its inputs.
//! Priorities, overprovisioning and panic follow Envoy. Invariant: outside panic a host that is unhealthy or draining
//! is never picked, and a draining one not even in panic.

mod bounded;
mod consistent;
mod ewma;
mod fewest;
pub mod hash;
mod load;
mod maglev;
mod ring;
mod share;
mod slow;
mod spread;
mod subset;
mod table;
mod tier;
mod tried;
mod zone;

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

pub use self::{
    consistent::key,
    ewma::Latency,
    tried::Tried,
    zone::{Callers, Place},
};
use self::{slow::Slow, spread::Spread, subset::Subsets};
pub use crate::ir::balancing::LbPolicy as Policy;
use crate::ir::{
    Metadata,
    balancing::{Criteria, LbOptions},
    endpoint::Health,
};

/// An endpoint as the balancer sees it.
#[derive(Clone, Copy, Debug)]
pub struct Host<'a> {
    /// At least 1.
    pub weight: u32,
    pub health: Health,
    /// Index of its [`Group`].
    pub locality: u32,
    /// What consistent hashing knows it by ([`key`]).
    pub key: &'a str,
    /// What subsets go by.
    pub metadata: Option<&'a Metadata>,
    /// Since when it takes traffic, for slow start.
    pub since: Duration,
}

/// A locality as the balancer sees it.
#[derive(Clone, Copy, Debug)]
pub struct Group<'a> {
    pub priority: u32,
    /// `None` where localities are not weighted.
    pub weight: Option<u32>,
    /// `None` where zones do not count.
    pub place: Option<&'a Place>,
}

#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    pub policy: Policy,
    pub more: &'a Arc<LbOptions>,
    /// In percent; 0 switches panic off.
    pub panic_threshold: u8,
    /// In percent; 0 stands for the default of 140.
    pub overprovisioning: u32,
    /// The time of the view, since the epoch of [`Host::since`].
    pub now: Duration,
    /// Who calls: without, zones do not count.
    pub callers: Option<&'a Arc<Callers>>,
}

/// What one pick draws on.
#[derive(Clone, Copy)]
pub struct Draw<'a> {
    /// Uniform over `u64`; further draws are derived from it.
    pub random: u64,
    /// The key of consistent hashing; without, it is random.
    pub hash: Option<u64>,
    /// Which subset is wanted.
    pub criteria: Option<&'a Criteria>,
    /// The round robin's position.
    pub cursor: &'a AtomicU64,
    /// How many draws may hit an excluded host before the table is searched.
    pub attempts: u32,
    /// Requests in flight to a host.
    pub active: &'a dyn Fn(usize) -> u32,
    /// Requests in flight to the cluster.
    pub total: &'a dyn Fn() -> u64,
    /// The latency of a host in milliseconds, of answers that wear off with the given time constant.
    pub latency: &'a dyn Fn(usize, Duration) -> Option<f64>,
    /// The time since the epoch of [`Host::since`].
    pub now: &'a dyn Fn() -> Duration,
    pub excluded: &'a dyn Fn(usize) -> bool,
    /// Whether anything is excluded at all.
    pub excludes: bool,
    /// Told what is counted of a pick.
    pub event: &'a dyn Fn(Event),
    /// Retries that leave the priorities they came from; consistent hashing does not, as in Envoy.
    pub tried: Option<Tried<'a>>,
    /// Nobody goes there: only `cursor` may move.
    pub imagined: bool,
}

/// What is counted of picks, under Envoy's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    SubsetsSelected,
    SubsetsFallback,
    SubsetsFallbackPanic,
    ZoneRoutingAllDirectly,
    ZoneRoutingSampled,
    ZoneRoutingCrossZone,
    ZoneNoCapacityLeft,
    LocalClusterNotOk,
}

/// How far an exclusion searches a table after its draws.
const SEARCH: usize = 64;
/// Most draws for one pick, whatever the configuration says.
const MAX_DRAWS: u32 = 32;

/// The compiled load balancer of one cluster view.
#[derive(Debug)]
pub struct Balancer {
    all: Spread,
    subsets: Option<Box<Subsets>>,
}

impl Balancer {
    pub fn new(hosts: &[Host<'_>], groups: &[Group<'_>], options: &Options<'_>) -> Self {
        let slow = options
            .more
            .slow_start
            .and_then(|config| Slow::new(config, hosts.iter().map(|h| h.since).collect(), options.now))
            .map(Arc::new);
        let config = options.more.subsets.as_ref();
        // Subsets that are not aware of locality weights know none, and neither does their fallback.
        let flat: Option<Vec<Group<'_>>> = config
            .filter(|config| !config.locality_weight_aware)
            .map(|_| groups.iter().map(|g| Group { weight: None, ..*g }).collect());
        let groups = flat.as_deref().unwrap_or(groups);
        let everybody = 0..u32::try_from(hosts.len()).unwrap_or(u32::MAX);
        Self {
            all: Spread::new(hosts, groups, everybody, slow.as_ref(), options),
            subsets: config.map(|config| Box::new(Subsets::new(config, hosts, groups, slow.as_ref(), options))),
        }
    }

    /// The index of a host, `None` when no host may take traffic.
    pub fn pick(&self, draw: &Draw<'_>) -> Option<usize> {
        match &self.subsets {
            None => self.all.pick(draw),
            Some(subsets) => subsets.pick(&self.all, draw),
        }
    }

    /// The subsets there are, by hashes of what they are found by.
    pub fn subsets(&self) -> impl Iterator<Item = u64> + '_ {
        self.subsets.iter().flat_map(|subsets| subsets.keys())
    }

    /// Whether a priority (by rank) ignores health, for `/clusters`.
    pub fn in_panic(&self, rank: usize) -> bool {
        self.all.in_panic(rank)
    }
}

/// SplitMix64: as many draws as needed out of one.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

/// Maps a uniform draw to `0..n` (n > 0) without division.
fn below(random: u64, n: usize) -> usize {
    ((u128::from(random) * n as u128) >> 64) as usize
}

#[cfg(test)]
mod consistent_tests;
#[cfg(test)]
mod distribution_tests;
#[cfg(test)]
mod simulation_tests;
#[cfg(test)]
mod subset_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod zone_tests;

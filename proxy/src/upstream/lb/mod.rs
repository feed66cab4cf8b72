//! Load balancing as a pure decision: hosts are compiled into tables once per cluster view, a pick reads tables, one
//! cursor and random bits.
//!
//! No I/O, no clock, no lock; randomness and in-flight counts are arguments, so a pick replays from its inputs.
//! Priorities, overprovisioning and panic follow Envoy. Invariant: outside panic a host that is unhealthy or draining
//! is never picked, and a draining one not even in panic.

mod load;
mod share;
mod table;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use self::{
    load::{Availability, Loads},
    table::{Alias, Table},
};
use crate::ir::endpoint::Health;

/// An endpoint as the balancer sees it.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// At least 1.
    pub weight: u32,
    pub health: Health,
    /// Index of its [`Group`].
    pub locality: u32,
}

/// A locality as the balancer sees it.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    pub priority: u32,
    pub weight: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    RoundRobin,
    LeastRequest { choices: u32 },
    Random,
}

#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub policy: Policy,
    /// In percent; 0 switches panic off.
    pub panic_threshold: u8,
    /// In percent; 0 stands for the default of 140.
    pub overprovisioning: u32,
}

/// What one pick draws on.
pub struct Draw<'a> {
    /// Uniform over `u64`; further draws are derived from it.
    pub random: u64,
    /// The round robin's position.
    pub cursor: &'a AtomicU64,
    /// How many draws may hit an excluded host before the table is searched.
    pub attempts: u32,
    /// Requests in flight to a host.
    pub active: &'a dyn Fn(usize) -> u32,
    pub excluded: &'a dyn Fn(usize) -> bool,
    /// Whether anything is excluded at all.
    pub excludes: bool,
}

/// How far an exclusion searches a table after its draws.
const SEARCH: usize = 64;
/// Most draws for one pick, whatever the configuration says.
const MAX_DRAWS: u32 = 32;

/// Hosts of one priority and availability, with the way to choose among them.
#[derive(Debug)]
enum Tier {
    Turns(Table),
    Lots(Alias),
    Fewest(Alias, u32),
}

impl Tier {
    fn new(shares: &share::Shares, policy: Policy) -> Self {
        match policy {
            Policy::RoundRobin => Self::Turns(Table::new(shares)),
            Policy::Random => Self::Lots(Alias::new(shares)),
            Policy::LeastRequest { choices } => Self::Fewest(Alias::new(shares), choices.clamp(2, MAX_DRAWS)),
        }
    }

    fn hosts(&self) -> &[u32] {
        match self {
            Self::Turns(table) => table.hosts(),
            Self::Lots(alias) | Self::Fewest(alias, _) => alias.hosts(),
        }
    }

    fn one(&self, random: &mut SplitMix, draw: &Draw<'_>) -> u32 {
        match self {
            Self::Turns(table) => table.at(draw.cursor.fetch_add(1, Relaxed)),
            Self::Lots(alias) => alias.draw(random.next()),
            Self::Fewest(alias, choices) => alias.fewest(*choices, random, draw),
        }
    }

    fn pick(&self, random: &mut SplitMix, draw: &Draw<'_>) -> usize {
        let mut host = self.one(random, draw) as usize;
        if !draw.excludes || !(draw.excluded)(host) {
            return host;
        }
        for _ in 1..draw.attempts.min(MAX_DRAWS) {
            host = self.one(random, draw) as usize;
            if !(draw.excluded)(host) {
                return host;
            }
        }
        // Unlucky draws, or heavy hosts that were all tried: any other host is better than the one that failed.
        let hosts = self.hosts();
        let start = below(random.next(), hosts.len());
        let other = (0..hosts.len().min(SEARCH)).map(|i| hosts[(start + i) % hosts.len()] as usize);
        other.into_iter().find(|h| !(draw.excluded)(*h)).unwrap_or(host)
    }
}

/// Tables of one priority; `None` where there is no host.
#[derive(Debug, Default)]
struct Priority {
    healthy: Option<Tier>,
    degraded: Option<Tier>,
    /// Everything but draining hosts; built only for a priority in panic.
    panic: Option<Tier>,
}

/// The compiled load balancer of one cluster view.
#[derive(Debug)]
pub struct Balancer {
    priorities: Vec<Priority>,
    loads: Loads,
}

impl Balancer {
    pub fn new(hosts: &[Host], groups: &[Group], options: &Options) -> Self {
        let overprovisioning = if options.overprovisioning == 0 { 140 } else { options.overprovisioning };
        // Priorities are ranks: gaps in the numbering carry nothing.
        let mut ranks: Vec<u32> = groups.iter().map(|g| g.priority).collect();
        ranks.sort_unstable();
        ranks.dedup();
        let rank_of = |group: u32| {
            let priority = groups.get(group as usize).map_or(0, |g| g.priority);
            ranks.binary_search(&priority).unwrap_or(0)
        };
        let mut members: Vec<Vec<u32>> = vec![Vec::new(); ranks.len().max(1)];
        for (index, host) in (0u32..).zip(hosts) {
            members[rank_of(host.locality)].push(index);
        }
        let availability: Vec<Availability> = members
            .iter()
            .map(|m| {
                let count = |wanted: Health| m.iter().filter(|i| hosts[**i as usize].health == wanted).count();
                Availability { hosts: m.len(), healthy: count(Health::Healthy), degraded: count(Health::Degraded) }
            })
            .collect();
        let loads = Loads::new(&availability, overprovisioning, options.panic_threshold);
        let priorities = members
            .iter()
            .enumerate()
            .map(|(rank, m)| {
                let tier = |wanted: &dyn Fn(Health) -> bool, floor: bool| {
                    let shares = share::Shares::new(hosts, groups, m, wanted, if floor { 0 } else { overprovisioning });
                    (!shares.is_empty()).then(|| Tier::new(&shares, options.policy))
                };
                if loads.in_panic(rank) {
                    return Priority { panic: tier(&|h| h != Health::Draining, true), ..Priority::default() };
                }
                Priority {
                    healthy: tier(&|h| h == Health::Healthy, false),
                    degraded: tier(&|h| h == Health::Degraded, false),
                    panic: None,
                }
            })
            .collect();
        Self { priorities, loads }
    }

    /// The index of a host, `None` when no host may take traffic.
    pub fn pick(&self, draw: &Draw<'_>) -> Option<usize> {
        let mut random = SplitMix(draw.random);
        let (rank, degraded) = match &self.priorities[..] {
            [_] => (0, self.loads.single_is_degraded(&mut random)),
            _ => self.loads.choose(below(random.next(), 100)),
        };
        let chosen = self.priorities.get(rank)?;
        let tier = match (&chosen.panic, degraded) {
            (Some(panic), _) => Some(panic),
            (None, false) => chosen.healthy.as_ref(),
            (None, true) => chosen.degraded.as_ref(),
        };
        let first = tier?.pick(&mut random, draw);
        if !draw.excludes || !(draw.excluded)(first) {
            return Some(first);
        }
        // Every host of this tier was tried: another priority or tier that takes traffic may have one that was not.
        let others = self.priorities.iter().enumerate().flat_map(|(i, p)| {
            let open = self.loads.takes_traffic(i);
            [&p.panic, &p.healthy, &p.degraded].into_iter().flatten().filter(move |_| open)
        });
        others.map(|t| t.pick(&mut random, draw)).find(|h| !(draw.excluded)(*h)).or(Some(first))
    }

    /// Whether a priority (by rank) ignores health, for `/clusters`.
    pub fn in_panic(&self, rank: usize) -> bool {
        self.loads.in_panic(rank)
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
mod tests;

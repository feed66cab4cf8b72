//! Consistent hashing: the same key goes to the same host as long as that one is there, and to the host Envoy chooses.
//!
//! Hosts know each other by a key (their `hash_key`, name or address). With a balance factor a host that has more than
//! its share of the requests in flight passes keys on, in an order that depends on the key alone.

use std::cell::LazyCell;

use super::{Draw, Group, Host, bounded, maglev::Maglev, ring::Ring};
use crate::ir::balancing::{HashKeys, Maglev as MaglevConfig, RingHash};

/// Which of the two tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Ring(RingHash),
    Maglev(MaglevConfig),
}

impl Kind {
    fn keys(self) -> HashKeys {
        match self {
            Self::Ring(config) => config.keys,
            Self::Maglev(config) => config.keys,
        }
    }
}

/// Hosts with weights that add up to 1, in the order of the assignment.
pub(super) struct Normalized<'a> {
    pub(super) hosts: Vec<Weighed<'a>>,
    pub(super) least: f64,
    pub(super) most: f64,
}

pub(super) struct Weighed<'a> {
    pub(super) index: u32,
    pub(super) key: &'a str,
    pub(super) weight: f64,
}

impl<'a> Normalized<'a> {
    /// The weights of `members`, in floating point as Envoy computes them: what a host gets of a ring is decided by
    /// the last bit.
    fn new(hosts: &'a [Host<'a>], groups: &[Group<'_>], members: &[u32]) -> Self {
        let host = |member: u32| &hosts[member as usize];
        let mut sums = vec![0u64; groups.len()];
        for member in members {
            if let Some(sum) = sums.get_mut(host(*member).locality as usize) {
                *sum += u64::from(host(*member).weight.max(1));
            }
        }
        let all: u64 = members.iter().map(|m| u64::from(host(*m).weight.max(1))).sum();
        // Localities that lost their hosts keep their share of the sum, as in Envoy: it matters to the rounding alone.
        let rank = members.first().and_then(|m| groups.get(host(*m).locality as usize)).map(|g| g.priority);
        let ours = groups.iter().filter(|g| Some(g.priority) == rank);
        let total: u64 = ours.map(|g| u64::from(g.weight.unwrap_or(0))).sum();
        let by_locality = groups.iter().zip(&sums).any(|(g, sum)| *sum > 0 && g.weight.is_some_and(|w| w > 0));
        let weigh = |member: u32| {
            let host = host(member);
            let weight = f64::from(host.weight.max(1));
            if !by_locality {
                return weight * 1.0 / all as f64;
            }
            let locality = host.locality as usize;
            let share = f64::from(groups[locality].weight.unwrap_or(0)) / total as f64;
            weight * share / sums[locality] as f64
        };
        let hosts: Vec<_> = members
            .iter()
            .map(|m| Weighed { index: *m, key: host(*m).key, weight: weigh(*m) })
            .filter(|h| h.weight > 0.0)
            .collect();
        let least = hosts.iter().map(|h| h.weight).fold(1.0, f64::min);
        let most = hosts.iter().map(|h| h.weight).fold(0.0, f64::max);
        Self { hosts, least, most }
    }
}

#[derive(Debug)]
enum Table {
    Ring(Ring),
    Maglev(Maglev),
}

/// Hosts by hash.
#[derive(Debug)]
pub(super) struct Consistent {
    table: Table,
    hosts: Box<[u32]>,
    /// Parallel to `hosts`, and the factor: only where loads are bounded.
    bounds: Option<(Box<[f64]>, u32)>,
}

impl Consistent {
    /// `None` when none of `members` has a share.
    pub(super) fn new(kind: Kind, hosts: &[Host<'_>], groups: &[Group<'_>], members: &[u32]) -> Option<Self> {
        let normalized = Normalized::new(hosts, groups, members);
        if normalized.hosts.is_empty() {
            return None;
        }
        let table = match kind {
            Kind::Ring(config) => Table::Ring(Ring::new(&normalized, &config)),
            Kind::Maglev(config) => Table::Maglev(Maglev::new(&normalized, config.table_size)),
        };
        let factor = kind.keys().balance_factor;
        let weights = || normalized.hosts.iter().map(|h| h.weight).collect();
        Some(Self {
            table,
            bounds: (factor > 0).then(|| (weights(), factor)),
            hosts: normalized.hosts.iter().map(|h| h.index).collect(),
        })
    }

    pub(super) fn hosts(&self) -> &[u32] {
        &self.hosts
    }

    fn at(&self, hash: u64, attempt: u32) -> Option<u32> {
        match &self.table {
            Table::Ring(ring) => ring.at(hash, attempt),
            Table::Maglev(table) => table.at(hash, attempt),
        }
    }

    fn one(&self, hash: u64, attempt: u32, draw: &Draw<'_>) -> Option<u32> {
        let host = self.at(hash, attempt)?;
        let Some((weights, factor)) = &self.bounds else { return Some(host) };
        let total = LazyCell::new(|| (draw.total)());
        let load = |host: u32, weight: f64| bounded::load((draw.active)(host as usize), *total, weight, *factor);
        Some(bounded::choose(hash, host, (&self.hosts, weights), &load))
    }

    /// The host of `hash`, or while that is excluded one that takes over from it.
    pub(super) fn pick(&self, hash: u64, draw: &Draw<'_>) -> Option<usize> {
        let first = self.one(hash, 0, draw)? as usize;
        if !draw.excludes || !(draw.excluded)(first) {
            return Some(first);
        }
        // Envoy gives up after as many attempts as are configured; another host is better than the one that failed.
        let mut others =
            (1..=super::SEARCH as u32).filter_map(|attempt| self.one(hash, attempt, draw)).map(|h| h as usize);
        others.find(|h| !(draw.excluded)(*h)).or(Some(first))
    }
}

/// What a host is known by among the hosts of a hash policy.
pub fn key<'a>(
    metadata: Option<&'a crate::ir::Metadata>,
    hostname: &'a str,
    address: &'a str,
    by: HashKeys,
) -> &'a str {
    let own = metadata.and_then(|m| m.get("envoy.lb")).and_then(|m| m.get("hash_key")).and_then(|v| v.as_str());
    let name = Some(hostname).filter(|name| by.hostname && !name.is_empty());
    own.filter(|key| !key.is_empty()).or(name).unwrap_or(address)
}

#[cfg(test)]
pub(super) fn ring_points(
    config: RingHash,
    hosts: &[Host<'_>],
    groups: &[Group<'_>],
    members: &[u32],
) -> Vec<(u64, u32)> {
    Ring::new(&Normalized::new(hosts, groups, members), &config).points().collect()
}

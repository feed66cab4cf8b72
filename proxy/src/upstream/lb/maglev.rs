//! Envoy's Maglev table: every host fills free slots in the order of its own permutation, as often as its weight says.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::{consistent::Normalized, hash::xxhash64};

/// The slots, each a host; half the memory where the number of hosts allows.
#[derive(Debug)]
pub(super) enum Maglev {
    Small { hosts: Box<[u32]>, slots: Box<[u16]> },
    Large { hosts: Box<[u32]>, slots: Box<[u32]> },
}

/// A host while the table is filled.
struct Entry {
    offset: u64,
    skip: u64,
    next: u64,
    weight: f64,
    target: f64,
}

impl Entry {
    /// The first round after `round` that gives this host a slot: the host of the largest weight gets one in each.
    fn due(&self, round: u64) -> u64 {
        let late = |round: u64| round as f64 * self.weight < self.target;
        let quotient = (self.target / self.weight).ceil();
        if quotient > f64::from(u32::MAX) {
            // The table has fewer slots than that, and is full after as many rounds.
            return u64::MAX;
        }
        let mut due = quotient.max(1.0) as u64;
        // The quotient is rounded; the comparison is what counts.
        while due > 1 && !late(due - 1) {
            due -= 1;
        }
        while late(due) {
            due += 1;
        }
        due.max(round + 1)
    }
}

impl Maglev {
    /// A table of `size` slots, a prime.
    pub(super) fn new(hosts: &Normalized<'_>, size: u32) -> Self {
        let modulus = u64::from(size.max(2));
        let mut order: Vec<usize> = (0..hosts.hosts.len()).collect();
        // The table depends on the order in which hosts take turns: by key, not by the order of the assignment.
        order.sort_by_key(|i| hosts.hosts[*i].key);
        let mut entries: Vec<Entry> = order
            .iter()
            .map(|i| {
                let key = hosts.hosts[*i].key.as_bytes();
                let (offset, skip) = (xxhash64(key, 0) % modulus, xxhash64(key, 1) % (modulus - 1) + 1);
                Entry { offset, skip, next: 0, weight: hosts.hosts[*i].weight, target: 0.0 }
            })
            .collect();
        const FREE: u32 = u32::MAX;
        let mut slots = vec![FREE; modulus as usize];
        let mut turns: BinaryHeap<Reverse<(u64, u32)>> = (0..entries.len() as u32).map(|i| Reverse((1, i))).collect();
        for _ in 0..modulus {
            let Some(Reverse((round, index))) = turns.pop() else { break };
            let entry = &mut entries[index as usize];
            entry.target += hosts.most;
            loop {
                let slot = &mut slots[((entry.offset + entry.skip * entry.next) % modulus) as usize];
                entry.next += 1;
                if *slot == FREE {
                    *slot = index;
                    break;
                }
            }
            turns.push(Reverse((entry.due(round), index)));
        }
        let hosts: Box<[u32]> = order.iter().map(|i| hosts.hosts[*i].index).collect();
        if hosts.len() <= usize::from(u16::MAX) {
            Self::Small { hosts, slots: slots.into_iter().map(|s| s as u16).collect() }
        } else {
            Self::Large { hosts, slots: slots.into() }
        }
    }

    /// The host of a key; each further `attempt` asks for quite another slot.
    pub(super) fn at(&self, hash: u64, attempt: u32) -> Option<u32> {
        let hash = if attempt == 0 { hash } else { hash ^ (u64::MAX - u64::from(attempt) + 1) };
        let (hosts, position) = match self {
            Self::Small { hosts, slots } => (hosts, usize::from(slots[(hash % slots.len() as u64) as usize])),
            Self::Large { hosts, slots } => (hosts, slots[(hash % slots.len() as u64) as usize] as usize),
        };
        hosts.get(position).copied()
    }
}

//! The two ways to choose by weight in constant time: a smooth schedule for turns, an alias table for lots.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::share::Shares;

/// The longest schedule that is written out: 4 turns per host and some.
fn longest(hosts: usize) -> u64 {
    (hosts as u64 * 4 + 1024).min(1 << 17)
}

/// Turns in weighted round robin.
#[derive(Debug)]
pub(super) enum Table {
    /// All the same: by turns.
    Even(Box<[u32]>),
    /// Turns written out, every host spread evenly over them (earliest deadline first).
    Schedule { hosts: Box<[u32]>, turns: Box<[u32]> },
    /// Too long to write out: the golden-ratio sequence over an alias table, as even as the weights allow.
    Spread(Alias),
}

impl Table {
    pub(super) fn new(shares: &Shares) -> Self {
        if shares.uniform() {
            return Self::Even(shares.hosts.clone().into());
        }
        let total = shares.weights.iter().try_fold(0u64, |t, w| t.checked_add(*w));
        match total {
            Some(total) if total <= longest(shares.hosts.len()) => {
                Self::Schedule { hosts: shares.hosts.clone().into(), turns: schedule(shares, total) }
            }
            _ => Self::Spread(Alias::new(shares)),
        }
    }

    pub(super) fn hosts(&self) -> &[u32] {
        match self {
            Self::Even(hosts) | Self::Schedule { hosts, .. } => hosts,
            Self::Spread(alias) => alias.hosts(),
        }
    }

    /// The host whose turn it is at `cursor`.
    pub(super) fn at(&self, cursor: u64) -> u32 {
        match self {
            Self::Even(turns) | Self::Schedule { turns, .. } => turns[(cursor % turns.len() as u64) as usize],
            // 2^64 divided by the golden ratio: consecutive multiples fall farthest from each other.
            Self::Spread(alias) => alias.draw(cursor.wrapping_mul(0x9E37_79B9_7F4A_7C15)),
        }
    }
}

/// Earliest deadline first over one full period; deadlines compare as exact fractions.
fn schedule(shares: &Shares, total: u64) -> Box<[u32]> {
    /// `turn / weight`, ties by position.
    #[derive(PartialEq, Eq)]
    struct Deadline {
        turn: u64,
        weight: u64,
        position: usize,
    }
    impl Ord for Deadline {
        fn cmp(&self, other: &Self) -> std::cmp::Ordering {
            let (ours, theirs) = (self.turn * other.weight, other.turn * self.weight);
            ours.cmp(&theirs).then(self.position.cmp(&other.position))
        }
    }
    impl PartialOrd for Deadline {
        fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
            Some(self.cmp(other))
        }
    }
    // Weights are at most `total`, which fits 17 bits, and turns at most the weight: products fit easily. Deadlines
    // are at the middle of each host's interval, so light hosts do not all come at the period's end.
    let mut heap: BinaryHeap<Reverse<Deadline>> = (0..)
        .zip(&shares.weights)
        .map(|(position, weight)| Reverse(Deadline { turn: 1, weight: *weight * 2, position }))
        .collect();
    let mut turns = Vec::with_capacity(total as usize);
    while let Some(Reverse(next)) = heap.pop() {
        turns.push(shares.hosts[next.position]);
        if next.turn + 2 < next.weight {
            heap.push(Reverse(Deadline { turn: next.turn + 2, ..next }));
        }
    }
    turns.into()
}

/// Vose's alias table.
#[derive(Debug)]
pub(super) struct Alias {
    hosts: Box<[u32]>,
    /// Reduced weights, for the comparison of loads; empty when all are the same.
    weights: Box<[u64]>,
    /// Per column: the draw (of 2^32) below which it is the column's own host, and whose it is else. Empty when even.
    columns: Box<[(u32, u32)]>,
}

impl Alias {
    pub(super) fn new(shares: &Shares) -> Self {
        let hosts = shares.hosts.clone().into();
        if shares.uniform() {
            return Self { hosts, weights: Box::default(), columns: Box::default() };
        }
        let n = shares.hosts.len();
        let total: f64 = shares.weights.iter().map(|w| *w as f64).sum();
        let mut scaled: Vec<f64> = shares.weights.iter().map(|w| *w as f64 * n as f64 / total).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..n).partition(|i| scaled[*i] < 1.0);
        let mut columns: Vec<(u32, u32)> = (0..n as u32).map(|i| (u32::MAX, i)).collect();
        while let (Some(s), Some(l)) = (small.pop(), large.last().copied()) {
            columns[s] = ((scaled[s] * 4_294_967_296.0) as u32, l as u32);
            scaled[l] -= 1.0 - scaled[s];
            if scaled[l] < 1.0 {
                large.pop();
                small.push(l);
            }
        }
        Self { hosts, weights: shares.weights.clone().into(), columns: columns.into() }
    }

    pub(super) fn hosts(&self) -> &[u32] {
        &self.hosts
    }

    pub(super) fn position(&self, random: u64) -> usize {
        let n = self.hosts.len();
        let wide = u128::from(random) * n as u128;
        let column = (wide >> 64) as usize;
        match self.columns.get(column) {
            // The fraction within the column decides between its two hosts.
            Some((own, alias)) if ((wide as u64) >> 32) as u32 >= *own => *alias as usize,
            _ => column,
        }
    }

    pub(super) fn draw(&self, random: u64) -> u32 {
        self.hosts[self.position(random)]
    }

    /// The reduced weight at a position.
    pub(super) fn weight(&self, position: usize) -> u64 {
        self.weights.get(position).copied().unwrap_or(1)
    }

    /// Whether all hosts have the same weight.
    pub(super) fn is_even(&self) -> bool {
        self.columns.is_empty()
    }
}

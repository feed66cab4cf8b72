//! Envoy's ketama ring: hosts at hashed points of a circle, a key belongs to the first point at or after its hash.

use super::{
    consistent::Normalized,
    hash::{murmur2, xxhash64},
};
use crate::ir::balancing::RingHash;

/// Points of the circle, sorted.
#[derive(Debug)]
pub(super) struct Ring {
    points: Box<[u64]>,
    /// Parallel to `points`.
    hosts: Box<[u32]>,
}

impl Ring {
    /// As many points as give the lightest host a whole number of them, within the configured sizes. Fractions carry
    /// over from host to host, so hosts must come in the order of the assignment.
    pub(super) fn new(hosts: &Normalized<'_>, config: &RingHash) -> Self {
        let wanted = (hosts.least * f64::from(config.min_size.max(1))).ceil() / hosts.least;
        let scale = wanted.min(f64::from(config.max_size));
        let mut ring: Vec<(u64, u32)> = Vec::with_capacity(scale.ceil() as usize);
        let (mut placed, mut target) = (0.0, 0.0);
        let mut text = String::new();
        for host in &hosts.hosts {
            target += scale * host.weight;
            let mut number = 0u64;
            while placed < target {
                text.clear();
                text.push_str(host.key);
                text.push('_');
                text.push_str(itoa::Buffer::new().format(number));
                let bytes = text.as_bytes();
                ring.push((if config.murmur { murmur2(bytes) } else { xxhash64(bytes, 0) }, host.index));
                number += 1;
                placed += 1.0;
            }
        }
        ring.sort_by_key(|(point, _)| *point);
        let (points, hosts): (Vec<_>, Vec<_>) = ring.into_iter().unzip();
        Self { points: points.into(), hosts: hosts.into() }
    }

    /// The host of a key; each further `attempt` goes on by one point.
    pub(super) fn at(&self, hash: u64, attempt: u32) -> Option<u32> {
        let found = self.points.partition_point(|point| *point < hash);
        let start = if found == self.points.len() { 0 } else { found };
        self.hosts.get((start + attempt as usize) % self.hosts.len().max(1)).copied()
    }

    #[cfg(test)]
    pub(super) fn points(&self) -> impl Iterator<Item = (u64, u32)> {
        self.points.iter().copied().zip(self.hosts.iter().copied())
    }
}

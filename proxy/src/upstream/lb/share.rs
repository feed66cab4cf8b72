//! What share of a tier's traffic each host gets: its weight within its locality times the locality's weight.
//!
//! Exact integers as long as they fit (so schedules are exact), else rounded to 32 bits.

use super::{Group, Host};

/// Hosts with their shares, in relation to each other.
#[derive(Debug, Default)]
pub(super) struct Shares {
    pub(super) hosts: Vec<u32>,
    /// Parallel to `hosts`, each at least 1; reduced by their greatest common divisor.
    pub(super) weights: Vec<u64>,
}

/// Sums over one locality.
#[derive(Clone, Copy, Default)]
struct Locality {
    hosts: u64,
    usable: u64,
    usable_weight: u64,
    /// The locality's part of the priority, as the fraction `numerator / denominator` per unit of host weight.
    numerator: u128,
    denominator: u128,
}

impl Shares {
    /// The shares of `usable` among `members`. `overprovisioning` reduces a weighted locality that has lost hosts
    /// (0: it does not count).
    pub(super) fn new(
        hosts: &[Host<'_>],
        groups: &[Group<'_>],
        members: &[u32],
        usable: &[u32],
        overprovisioning: u32,
    ) -> Self {
        let plain = || {
            let weights = usable.iter().map(|m| u64::from(hosts[*m as usize].weight.max(1))).collect();
            Self { hosts: usable.to_vec(), weights }.reduced()
        };
        let mut localities = vec![Locality::default(); groups.len()];
        for member in members {
            let host = &hosts[*member as usize];
            let Some(locality) = localities.get_mut(host.locality as usize) else { return plain() };
            locality.hosts += 1;
        }
        for host in usable.iter().map(|m| &hosts[*m as usize]) {
            let Some(locality) = localities.get_mut(host.locality as usize) else { return plain() };
            locality.usable += 1;
            locality.usable_weight += u64::from(host.weight.max(1));
        }
        // Locality weights count when the control plane gave one to each locality that has hosts here.
        let weighed = |(l, g): (&Locality, &Group<'_>)| l.hosts == 0 || g.weight.is_some();
        let any = |(l, g): (&Locality, &Group<'_>)| l.usable > 0 && g.weight.is_some_and(|w| w > 0);
        if !localities.iter().zip(groups).all(weighed) || !localities.iter().zip(groups).any(any) {
            return plain();
        }
        for (locality, group) in localities.iter_mut().zip(groups).filter(|(l, _)| l.usable > 0) {
            let weight = u128::from(group.weight.unwrap_or(0));
            let kept = u128::from(overprovisioning) * u128::from(locality.usable);
            let all = 100 * u128::from(locality.hosts);
            let (kept, all) = if overprovisioning == 0 || kept >= all { (1, 1) } else { (kept, all) };
            let (numerator, denominator) = (weight * kept, u128::from(locality.usable_weight) * all);
            let divisor = gcd(numerator, denominator).max(1);
            (locality.numerator, locality.denominator) = (numerator / divisor, denominator / divisor);
        }
        // A locality of weight 0 takes nothing.
        let weighed = |m: &u32| localities[hosts[*m as usize].locality as usize].numerator > 0;
        let usable: Vec<u32> = usable.iter().copied().filter(weighed).collect();
        let of =
            |m: &u32| (localities[hosts[*m as usize].locality as usize], u128::from(hosts[*m as usize].weight.max(1)));
        let weights = exact(&localities, usable.iter().map(of)).unwrap_or_else(|| rounded(usable.iter().map(of)));
        Self { hosts: usable, weights }.reduced()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    pub(super) fn uniform(&self) -> bool {
        self.weights.iter().all(|w| *w == self.weights[0])
    }

    fn reduced(mut self) -> Self {
        let divisor = self.weights.iter().fold(0, |d, w| gcd(d, u128::from(*w)));
        if divisor > 1 {
            self.weights.iter_mut().for_each(|w| *w = (u128::from(*w) / divisor) as u64);
        }
        self
    }
}

/// Shares over the common denominator, if everything stays below 2^40.
fn exact(localities: &[Locality], hosts: impl Iterator<Item = (Locality, u128)>) -> Option<Vec<u64>> {
    const LIMIT: u128 = 1 << 40;
    let mut common: u128 = 1;
    for denominator in localities.iter().map(|l| l.denominator).filter(|d| *d > 0) {
        common = common / gcd(common, denominator) * denominator;
        if common > LIMIT {
            return None;
        }
    }
    hosts
        .map(|(l, weight)| {
            let share = weight.checked_mul(l.numerator)?.checked_mul(common / l.denominator)?;
            (share <= LIMIT).then_some(share as u64)
        })
        .collect()
}

fn rounded(hosts: impl Iterator<Item = (Locality, u128)>) -> Vec<u64> {
    let shares: Vec<f64> = hosts.map(|(l, w)| w as f64 * l.numerator as f64 / l.denominator as f64).collect();
    let largest = shares.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    shares.iter().map(|s| ((s / largest * f64::from(u32::MAX)).round() as u64).max(1)).collect()
}

fn gcd(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

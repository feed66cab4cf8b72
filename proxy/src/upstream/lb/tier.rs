//! Hosts of one priority and availability, with the way to choose among them.

use std::{sync::Arc, sync::atomic::Ordering::Relaxed, time::Duration};

use super::{
    Draw, Group, Host, MAX_DRAWS, SEARCH, SplitMix, below,
    consistent::{Consistent, Kind},
    fewest::{Fewest, Rule},
    share::Shares,
    slow::Slow,
    table::{Alias, Table},
};
use crate::ir::balancing::LbPolicy;

#[derive(Debug)]
pub(super) struct Tier {
    choice: Choice,
    /// With since when its eldest host is there.
    slow: Option<(Arc<Slow>, Duration)>,
}

#[derive(Debug)]
enum Choice {
    Turns(Table),
    Lots(Alias),
    Fewest(Fewest),
    Hashed(Consistent),
}

/// What all tiers of a balancer are made with.
#[derive(Clone)]
pub(super) struct Plan<'a> {
    pub(super) hosts: &'a [Host<'a>],
    pub(super) groups: &'a [Group<'a>],
    pub(super) policy: LbPolicy,
    pub(super) slow: Option<Arc<Slow>>,
}

impl Tier {
    /// A tier of `usable` hosts; `None` where none has a share. Of `members`, all of the priority, localities have
    /// lost the others; `overprovisioning` says how much that matters (0: not at all).
    pub(super) fn new(plan: &Plan<'_>, members: &[u32], usable: &[u32], overprovisioning: u32) -> Option<Self> {
        let hashed = match plan.policy {
            LbPolicy::RingHash(config) => Some(Kind::Ring(config)),
            LbPolicy::Maglev(config) => Some(Kind::Maglev(config)),
            _ => None,
        };
        if let Some(kind) = hashed {
            let choice = Choice::Hashed(Consistent::new(kind, plan.hosts, plan.groups, usable)?);
            return Some(Self { choice, slow: None });
        }
        let shares = Shares::new(plan.hosts, plan.groups, members, usable, overprovisioning);
        if shares.is_empty() {
            return None;
        }
        let choice = match plan.policy {
            LbPolicy::Random => Choice::Lots(Alias::new(&shares)),
            LbPolicy::LeastRequest(config) if config.bias.get() == 0.0 && !shares.uniform() => {
                Choice::Turns(Table::new(&shares))
            }
            LbPolicy::LeastRequest(config) => Choice::Fewest(Fewest::new(Alias::new(&shares), Rule::Active(config))),
            LbPolicy::PeakEwma(config) => Choice::Fewest(Fewest::new(Alias::new(&shares), Rule::Latency(config))),
            _ => Choice::Turns(Table::new(&shares)),
        };
        let slow = plan.slow.as_ref().map(|slow| (slow.clone(), slow.eldest(&shares.hosts)));
        Some(Self { choice, slow })
    }

    fn hosts(&self) -> &[u32] {
        match &self.choice {
            Choice::Turns(table) => table.hosts(),
            Choice::Lots(alias) => alias.hosts(),
            Choice::Fewest(fewest) => fewest.hosts(),
            Choice::Hashed(hashed) => hashed.hosts(),
        }
    }

    fn draw(&self, random: &mut SplitMix, draw: &Draw<'_>, young: bool) -> u32 {
        match &self.choice {
            Choice::Turns(table) => table.at(draw.cursor.fetch_add(1, Relaxed)),
            Choice::Lots(alias) => alias.draw(random.next()),
            Choice::Fewest(fewest) => fewest.pick(random, draw, young),
            Choice::Hashed(hashed) => hashed.hosts()[below(random.next(), hashed.hosts().len())],
        }
    }

    fn one(&self, random: &mut SplitMix, draw: &Draw<'_>) -> u32 {
        let Some((slow, eldest)) = &self.slow else { return self.draw(random, draw, false) };
        let now = (draw.now)();
        if slow.over(now) {
            return self.draw(random, draw, false);
        }
        let mut host = self.draw(random, draw, true);
        for _ in 1..MAX_DRAWS {
            if slow.accepts(host, *eldest, now, random) {
                break;
            }
            host = self.draw(random, draw, true);
        }
        host
    }

    pub(super) fn pick(&self, random: &mut SplitMix, draw: &Draw<'_>) -> Option<usize> {
        if let Choice::Hashed(hashed) = &self.choice {
            return hashed.pick(draw.hash.unwrap_or(draw.random), draw);
        }
        let mut host = self.one(random, draw) as usize;
        if !draw.excludes || !(draw.excluded)(host) {
            return Some(host);
        }
        for _ in 1..draw.attempts.min(MAX_DRAWS) {
            host = self.one(random, draw) as usize;
            if !(draw.excluded)(host) {
                return Some(host);
            }
        }
        // Unlucky draws, or heavy hosts that were all tried: any other host is better than the one that failed.
        let hosts = self.hosts();
        let start = below(random.next(), hosts.len());
        let mut other = (0..hosts.len().min(SEARCH)).map(|i| hosts[(start + i) % hosts.len()] as usize);
        other.find(|h| !(draw.excluded)(*h)).or(Some(host))
    }
}

//! Hosts over priorities: how much each priority takes, its tables by availability, and a pick among them.

use std::sync::Arc;

use super::{
    Draw, Group, Host, Options, SplitMix, below,
    load::{Availability, Loads},
    slow::Slow,
    tier::{Plan, Tier},
    zone::{Chosen, Place, Size, Zone, Zones},
};
use crate::ir::endpoint::Health;

/// Tables of one priority; `None` where there is no host.
#[derive(Debug, Default)]
struct Priority {
    healthy: Option<Tier>,
    degraded: Option<Tier>,
    /// Everything but draining hosts; built only for a priority in panic.
    panic: Option<Tier>,
    zones: Option<Box<Zones>>,
}

/// The compiled choice among some of a cluster's hosts.
#[derive(Debug)]
pub(super) struct Spread {
    priorities: Vec<Priority>,
    /// The numbers of the priorities, where there are several.
    ranks: Box<[u32]>,
    loads: Loads,
    /// The key decides on the priority, too.
    hashed: bool,
    fail_on_panic: bool,
}

impl Spread {
    pub(super) fn new(
        hosts: &[Host<'_>],
        groups: &[Group<'_>],
        chosen: impl Iterator<Item = u32>,
        slow: Option<&Arc<Slow>>,
        options: &Options<'_>,
    ) -> Self {
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
        for index in chosen {
            members[rank_of(hosts[index as usize].locality)].push(index);
        }
        let of = |members: &[u32], wanted: &dyn Fn(Health) -> bool| -> Vec<u32> {
            members.iter().copied().filter(|i| wanted(hosts[*i as usize].health)).collect()
        };
        let count = |m: &[u32], wanted: Health| m.iter().filter(|i| hosts[**i as usize].health == wanted).count();
        let availability: Vec<Availability> = members
            .iter()
            .map(|m| Availability {
                hosts: m.len(),
                healthy: count(m, Health::Healthy),
                degraded: count(m, Health::Degraded),
                draining: count(m, Health::Draining),
            })
            .collect();
        let loads = Loads::new(&availability, overprovisioning, options.panic_threshold);
        let plan = Plan { hosts, groups, policy: options.policy, slow: slow.cloned() };
        let hashed = options.policy.is_hashed();
        let priorities = members
            .iter()
            .enumerate()
            .map(|(rank, m)| {
                if loads.in_panic(rank) {
                    // Localities count no more; only consistent hashing keeps to their weights, as in Envoy.
                    let flat: Vec<Group<'_>> = groups.iter().map(|g| Group { weight: None, ..*g }).collect();
                    let plan = Plan { groups: if hashed { groups } else { &flat }, ..plan.clone() };
                    let all = of(m, &|h| h != Health::Draining);
                    return Priority { panic: Tier::new(&plan, m, &all, 0), ..Priority::default() };
                }
                let (healthy, degraded) = (of(m, &|h| h == Health::Healthy), of(m, &|h| h == Health::Degraded));
                let zones = match (options.more.zone_aware, options.callers) {
                    (Some(config), Some(callers)) if ranks.get(rank) == Some(&0) => {
                        let zones = zones(&plan, m, (&healthy, &degraded));
                        (zones.len() > 1).then(|| Box::new(Zones::new(config, options.panic_threshold, callers, zones)))
                    }
                    _ => None,
                };
                Priority {
                    healthy: Tier::new(&plan, m, &healthy, overprovisioning),
                    degraded: Tier::new(&plan, m, &degraded, overprovisioning),
                    panic: None,
                    zones,
                }
            })
            .collect();
        let fail_on_panic = options.more.zone_aware.is_some_and(|zones| zones.fail_on_panic);
        if ranks.len() < 2 {
            ranks.clear();
        }
        Self { priorities, ranks: ranks.into(), loads, hashed, fail_on_panic }
    }

    /// The index of a host, `None` when no host may take traffic.
    pub(super) fn pick(&self, draw: &Draw<'_>) -> Option<usize> {
        let mut random = SplitMix(draw.random);
        let (rank, degraded) = match &self.priorities[..] {
            _ if self.hashed => self.loads.choose((draw.hash.unwrap_or(draw.random) % 100) as usize),
            [_] => (0, self.loads.single_is_degraded(&mut random)),
            _ => {
                let loads = draw.tried.and_then(|tried| tried.loads(&self.loads, &self.ranks));
                loads.as_ref().unwrap_or(&self.loads).choose(below(random.next(), 100))
            }
        };
        let chosen = self.priorities.get(rank)?;
        let mut tier = match degraded {
            // Envoy's hashing knows healthy hosts only; degraded ones are better than none.
            _ if self.hashed => chosen.healthy.as_ref().or(chosen.degraded.as_ref()),
            false => chosen.healthy.as_ref(),
            true => chosen.degraded.as_ref(),
        };
        if self.loads.in_panic(rank) {
            tier = chosen.panic.as_ref().filter(|_| !self.fail_on_panic);
        } else if let Some(zones) = &chosen.zones {
            match zones.choose(degraded, &mut random, draw.event) {
                Chosen::Anywhere => {}
                Chosen::Fail => return None,
                Chosen::Of(zone) => tier = zone.or(tier),
            }
        }
        let first = tier?.pick(&mut random, draw)?;
        if !draw.excludes || !(draw.excluded)(first) {
            return Some(first);
        }
        // Every host of this tier was tried: another priority or tier that takes traffic may have one that was not.
        let others = self.priorities.iter().enumerate().flat_map(|(i, p)| {
            let open = self.loads.takes_traffic(i);
            [&p.panic, &p.healthy, &p.degraded].into_iter().flatten().filter(move |_| open)
        });
        let mut others = others.filter_map(|t| t.pick(&mut random, draw));
        others.find(|h| !(draw.excluded)(*h)).or(Some(first))
    }

    pub(super) fn in_panic(&self, rank: usize) -> bool {
        self.loads.in_panic(rank)
    }

    #[cfg(test)]
    pub(super) fn zones(&self) -> Option<&Zones> {
        self.priorities.first()?.zones.as_deref()
    }
}

/// The hosts of one priority by zone.
fn zones(plan: &Plan<'_>, members: &[u32], (healthy, degraded): (&[u32], &[u32])) -> Vec<Zone> {
    let place = |member: u32| plan.groups.get(plan.hosts[member as usize].locality as usize).and_then(|g| g.place);
    let mut places: Vec<&Place> = Vec::new();
    for found in members.iter().filter_map(|m| place(*m)) {
        // One locality after the other: looking back at the last is enough most of the time.
        if places.last() != Some(&found) && !places.contains(&found) {
            places.push(found);
        }
    }
    places
        .into_iter()
        .map(|here| {
            let of = |list: &[u32]| -> Vec<u32> { list.iter().copied().filter(|m| place(*m) == Some(here)).collect() };
            let (all, healthy, degraded) = (of(members), of(healthy), of(degraded));
            let tier = |usable: &[u32]| Tier::new(plan, &all, usable, 0);
            let size = Size::of(healthy.iter().map(|m| plan.hosts[*m as usize].weight));
            Zone { place: here.clone(), healthy: size, tiers: [tier(&healthy), tier(&degraded)] }
        })
        .collect()
}

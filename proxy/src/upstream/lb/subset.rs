//! Subsets: hosts by their labels, each a choice of its own, found by what a route asks for.
//!
//! Compiled once per view: a pick costs one look-up by the hash that the criteria bring along. A host is in one subset
//! of each selector whose keys it has, or with `list_as_any` in one for each element of its lists.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicU64},
};

use serde_json::Value;

use super::{Draw, Event, Group, Host, Options, slow::Slow, spread::Spread};
use crate::ir::balancing::{Criteria, LbOptions, SelectorFallback, SubsetFallback, SubsetSelector, Subsets as Config};

/// Most subsets of one selector that one host is in.
const MAX_LABELS: usize = 1024;
/// Most places in subsets over all hosts and selectors; beyond it hosts are in no further subset.
const MAX_PLACES: usize = 1 << 22;

type Pairs = Vec<(Box<str>, Value)>;

#[derive(Debug)]
pub(super) struct Subsets {
    /// Those of a cluster that has subsets.
    options: Arc<LbOptions>,
    /// By the hash of their criteria; equal hashes are told apart by comparison.
    found: HashMap<u64, Vec<(Criteria, Subset)>, foldhash::fast::FixedState>,
    default: Option<Subset>,
}

/// Hosts with a turn of their own: requests that go to subsets by turns would else take every other host of each.
#[derive(Debug)]
struct Subset {
    spread: Spread,
    cursor: AtomicU64,
}

impl Subset {
    fn pick(&self, draw: &Draw<'_>) -> Option<usize> {
        let cursor = if draw.imagined { draw.cursor } else { &self.cursor };
        self.spread.pick(&Draw { cursor, ..*draw })
    }
}

/// The labels of a host that subsets go by.
fn label<'a>(host: &Host<'a>, key: &str) -> Option<&'a Value> {
    host.metadata?.get("envoy.lb")?.get(key)
}

impl Subsets {
    pub(super) fn new(
        config: &Config,
        hosts: &[Host<'_>],
        groups: &[Group<'_>],
        slow: Option<&Arc<Slow>>,
        options: &Options<'_>,
    ) -> Self {
        let mut members: HashMap<u64, Vec<(Criteria, Vec<u32>)>, foldhash::fast::FixedState> = HashMap::default();
        let mut places = 0;
        for selector in &config.selectors {
            for (index, host) in (0u32..).zip(hosts) {
                for pairs in labels(host, selector, config.list_as_any) {
                    places += 1;
                    if places > MAX_PLACES {
                        break;
                    }
                    let criteria = Criteria::exact(pairs);
                    let same = members.entry(criteria.hash()).or_default();
                    match same.iter_mut().find(|(known, _)| *known == criteria) {
                        // Two selectors of the same keys find the same subset.
                        Some((_, list)) if !selector.single_host && list.last() != Some(&index) => list.push(index),
                        Some(_) => {}
                        None => same.push((criteria, vec![index])),
                    }
                }
            }
        }
        let all = config.scale_locality_weight.then(|| sizes(hosts, 0..hosts.len(), groups.len()));
        let subset = |list: Vec<u32>, start: u64| {
            let part = || sizes(hosts, list.iter().map(|m| *m as usize), groups.len());
            let scaled = all.as_ref().map(|all| scale(groups, &part(), all));
            let spread = Spread::new(hosts, scaled.as_deref().unwrap_or(groups), list.into_iter(), slow, options);
            // Each view starts somewhere else.
            Subset { spread, cursor: AtomicU64::new(start ^ options.now.as_nanos() as u64) }
        };
        let each = |(hash, list): (u64, Vec<(Criteria, Vec<u32>)>)| {
            (hash, list.into_iter().map(|(criteria, hosts)| (criteria, subset(hosts, hash))).collect::<Vec<_>>())
        };
        let found = members.into_iter().map(each).collect();
        let asked = |selector: &SubsetSelector| selector.fallback == SelectorFallback::Of(SubsetFallback::Default);
        let default = config.fallback == SubsetFallback::Default || config.selectors.iter().any(asked);
        let default = default.then(|| {
            let all = (0u32..).zip(hosts);
            let all = all.filter(|(_, h)| matches(h, &config.default, config.list_as_any)).map(|(i, _)| i);
            subset(all.collect(), 0)
        });
        Self { options: options.more.clone(), found, default }
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = u64> + '_ {
        self.found.iter().flat_map(|(hash, same)| same.iter().map(|_| *hash))
    }

    /// The index of a host; `all` is the choice among all hosts.
    pub(super) fn pick(&self, all: &Spread, draw: &Draw<'_>) -> Option<usize> {
        let config = self.options.subsets.as_ref()?;
        let Some(criteria) = draw.criteria else { return self.fall_back(config, all, draw) };
        if config.fallback_list && !criteria.alternatives().is_empty() {
            return criteria.alternatives().iter().find_map(|c| self.by(config, c, all, draw, 0));
        }
        self.by(config, criteria, all, draw, 0)
    }

    fn by(&self, config: &Config, criteria: &Criteria, all: &Spread, draw: &Draw<'_>, depth: usize) -> Option<usize> {
        let wanted = config.redundant_keys.then(|| config.selectors.iter().find_map(|s| criteria.only(&s.keys)));
        let wanted = wanted.flatten();
        let criteria = wanted.as_ref().unwrap_or(criteria);
        let same = self.found.get(&criteria.hash()).into_iter().flatten();
        if let Some((_, subset)) = same.into_iter().find(|(known, _)| known.pairs() == criteria.pairs()) {
            (draw.event)(Event::SubsetsSelected);
            return subset.pick(draw);
        }
        let keys = || criteria.pairs().iter().map(|(key, _)| key);
        match config.selectors.iter().find(|s| s.keys.iter().eq(keys())).map(|s| &s.fallback) {
            Some(SelectorFallback::Of(SubsetFallback::None)) => None,
            Some(SelectorFallback::Of(SubsetFallback::Any)) => all.pick(draw),
            Some(SelectorFallback::Of(SubsetFallback::Default)) => self.default.as_ref()?.pick(draw),
            // Each step has fewer keys, so this ends; the bound is for selectors nobody would write.
            Some(SelectorFallback::Keys(keys)) if depth < 64 => {
                self.by(config, &criteria.only(keys)?, all, draw, depth + 1)
            }
            _ => self.fall_back(config, all, draw),
        }
    }

    fn fall_back(&self, config: &Config, all: &Spread, draw: &Draw<'_>) -> Option<usize> {
        if config.fallback != SubsetFallback::None {
            (draw.event)(Event::SubsetsFallback);
        }
        let found = match config.fallback {
            SubsetFallback::None => return None,
            SubsetFallback::Any => all.pick(draw),
            SubsetFallback::Default => self.default.as_ref().and_then(|default| default.pick(draw)),
        };
        match found {
            None if config.panic_any => all.pick(draw).inspect(|_| (draw.event)(Event::SubsetsFallbackPanic)),
            found => found,
        }
    }
}

/// The labels under the selector's keys, once per combination; empty unless the host has them all.
fn labels(host: &Host<'_>, selector: &SubsetSelector, list_as_any: bool) -> Vec<Pairs> {
    let mut combinations: Vec<Pairs> = vec![Vec::new()];
    for key in &selector.keys {
        let values: &[Value] = match label(host, key) {
            None => return Vec::new(),
            Some(Value::Array(list)) if list_as_any => list,
            Some(value) => std::slice::from_ref(value),
        };
        let with = |value: &Value, pairs: &Pairs| {
            let mut pairs = pairs.clone();
            pairs.push((key.clone(), value.clone()));
            pairs
        };
        let next = combinations.iter().flat_map(|pairs| values.iter().map(|value| with(value, pairs)));
        combinations = next.take(MAX_LABELS).collect();
    }
    combinations
}

/// Whether a host has all the labels of the default subset.
fn matches(host: &Host<'_>, wanted: &[(Box<str>, Value)], list_as_any: bool) -> bool {
    wanted.iter().all(|(key, wanted)| match label(host, key) {
        Some(Value::Array(list)) if list_as_any => list.contains(wanted),
        found => found == Some(wanted),
    })
}

/// Hosts per locality.
fn sizes(hosts: &[Host<'_>], members: impl Iterator<Item = usize>, groups: usize) -> Vec<u64> {
    let mut sizes = vec![0; groups];
    for member in members {
        if let Some(size) = sizes.get_mut(hosts[member].locality as usize) {
            *size += 1;
        }
    }
    sizes
}

/// Locality weights by how much of each locality is in the subset.
fn scale<'a>(groups: &[Group<'a>], part: &[u64], all: &[u64]) -> Vec<Group<'a>> {
    let weight = |weight: u32, part: u64, all: u64| match part {
        0 => 0,
        _ if weight == 0 => 0,
        part => (f64::from(weight) * part as f64 / all.max(1) as f64).round().max(1.0) as u32,
    };
    let counts = part.iter().zip(all);
    let scaled = groups.iter().zip(counts);
    scaled
        .map(|(group, (part, all))| Group { weight: group.weight.map(|w| weight(w, *part, *all)), ..*group })
        .collect()
}

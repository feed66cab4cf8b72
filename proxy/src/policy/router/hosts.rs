//! The index over `virtual_hosts[].domains`.

use std::{borrow::Cow, collections::BTreeMap, hash::BuildHasher, sync::Arc};

use crate::ir::route::VirtualHost;

/// The index. It holds places in the configuration and no names, for there are many: what is found is compared there.
#[derive(Debug, Default)]
pub(super) struct HostIndex {
    exact: Places,
    /// Wildcards by the length of their fixed part, longest first: Envoy takes the longest match.
    suffixes: Vec<(usize, Places)>,
    prefixes: Vec<(usize, Places)>,
    any: Option<usize>,
}

/// One domain: `virtual_hosts[host].domains[domain]`.
#[derive(Clone, Copy, Debug)]
struct Place {
    host: u32,
    domain: u32,
}

/// An open table of places: at most three quarters full, the end of a run marks a miss.
#[derive(Debug, Default)]
struct Places {
    slots: Box<[Option<Place>]>,
    hasher: foldhash::fast::RandomState,
}

/// What is fixed of a domain.
fn fixed(domain: &str) -> &str {
    domain.strip_prefix('*').or_else(|| domain.strip_suffix('*')).unwrap_or(domain)
}

impl Places {
    fn new(hosts: &[Arc<VirtualHost>], all: &[Place]) -> Self {
        let mut table = Self { slots: vec![None; all.len() * 4 / 3 + 1].into(), hasher: Default::default() };
        for place in all {
            let at = table.slot(hosts, fixed(place.of(hosts)));
            // The first of equal ones counts.
            table.slots[at].get_or_insert(*place);
        }
        table
    }

    /// Where `key` is, or the free slot where it would be.
    fn slot(&self, hosts: &[Arc<VirtualHost>], key: &str) -> usize {
        let hash = self.hasher.hash_one(key);
        let mut at = ((u128::from(hash) * self.slots.len() as u128) >> 64) as usize;
        while self.slots[at].is_some_and(|place| fixed(place.of(hosts)) != key) {
            at = (at + 1) % self.slots.len();
        }
        at
    }

    fn find(&self, hosts: &[Arc<VirtualHost>], key: &str) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        self.slots[self.slot(hosts, key)].map(|place| place.host as usize)
    }
}

impl Place {
    fn of(self, hosts: &[Arc<VirtualHost>]) -> &str {
        &hosts[self.host as usize].domains[self.domain as usize]
    }
}

impl HostIndex {
    pub(super) fn new(virtual_hosts: &[Arc<VirtualHost>]) -> Self {
        let mut any = None;
        let mut exact = Vec::new();
        let (mut suffixes, mut prefixes) = (BTreeMap::new(), BTreeMap::new());
        for (position, host) in (0u32..).zip(virtual_hosts) {
            for (domain, name) in (0u32..).zip(&host.domains) {
                let place = Place { host: position, domain };
                let group: &mut Vec<Place> = if &**name == "*" {
                    any.get_or_insert(position as usize);
                    continue;
                } else if name.starts_with('*') {
                    suffixes.entry(name.len() - 1).or_default()
                } else if name.ends_with('*') {
                    prefixes.entry(name.len() - 1).or_default()
                } else {
                    &mut exact
                };
                group.push(place);
            }
        }
        let table = |places: Vec<Place>| Places::new(virtual_hosts, &places);
        let longest_first = |groups: BTreeMap<usize, Vec<Place>>| {
            groups.into_iter().rev().map(|(length, places)| (length, table(places))).collect()
        };
        Self { exact: table(exact), suffixes: longest_first(suffixes), prefixes: longest_first(prefixes), any }
    }

    /// `hosts` being those it was made for.
    pub(super) fn find(&self, hosts: &[Arc<VirtualHost>], host: &str) -> Option<usize> {
        let host: Cow<'_, str> =
            if host.bytes().any(|b| b.is_ascii_uppercase()) { host.to_ascii_lowercase().into() } else { host.into() };
        if let Some(position) = self.exact.find(hosts, &host) {
            return Some(position);
        }
        // A wildcard stands for at least one character.
        let longer = |length: &usize| host.len() > *length;
        let suffix = self.suffixes.iter().filter(|(length, _)| longer(length));
        let mut suffix = suffix.filter_map(|(length, places)| places.find(hosts, host.get(host.len() - length..)?));
        let prefix = self.prefixes.iter().filter(|(length, _)| longer(length));
        let mut prefix = prefix.filter_map(|(length, places)| places.find(hosts, host.get(..*length)?));
        suffix.next().or_else(|| prefix.next()).or(self.any)
    }
}

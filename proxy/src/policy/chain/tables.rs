//! The lookup tables of one step each: exact keys, address ranges, server names.
//!
//! All three share one rule: the most specific entry wins, the entry without a criterion is the last resort.

use std::{borrow::Borrow, collections::HashMap, hash::Hash, net::IpAddr};

use super::{Problem, canonical};
use crate::ir::matcher::Cidr;

type Map<K, T> = HashMap<K, T, foldhash::fast::RandomState>;

/// Exact keys.
#[derive(Debug)]
pub(super) struct Keyed<K, T> {
    exact: Map<K, T>,
    any: Option<Box<T>>,
}

impl<K, T> Default for Keyed<K, T> {
    fn default() -> Self {
        Self { exact: Map::default(), any: None }
    }
}

impl<K: Eq + Hash, T: Default> Keyed<K, T> {
    pub(super) fn entry(&mut self, key: Option<K>) -> &mut T {
        match key {
            Some(key) => self.exact.entry(key).or_default(),
            None => self.any.get_or_insert_default(),
        }
    }

    pub(super) fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&T>
    where
        K: Borrow<Q>,
    {
        self.first([key])
    }

    /// The entry of the first key that has one.
    pub(super) fn first<'q, Q: Eq + Hash + ?Sized + 'q>(&self, keys: impl IntoIterator<Item = &'q Q>) -> Option<&T>
    where
        K: Borrow<Q>,
    {
        if !self.exact.is_empty() {
            for key in keys {
                if let Some(found) = self.exact.get(key) {
                    return Some(found);
                }
            }
        }
        self.any.as_deref()
    }
}

/// Address ranges: one table per prefix length in use, longest first.
#[derive(Debug)]
pub(super) struct Addresses<T> {
    by_length: Vec<(u8, Map<IpAddr, T>)>,
    any: Option<Box<T>>,
}

impl<T> Default for Addresses<T> {
    fn default() -> Self {
        Self { by_length: Vec::new(), any: None }
    }
}

impl<T: Default> Addresses<T> {
    pub(super) fn entry(&mut self, range: Option<Cidr>) -> &mut T {
        let Some(range) = range.map(canonical) else { return self.any.get_or_insert_default() };
        let at = match self.by_length.binary_search_by(|(len, _)| range.prefix_len.cmp(len)) {
            Ok(at) => at,
            Err(at) => {
                self.by_length.insert(at, (range.prefix_len, Map::default()));
                at
            }
        };
        self.by_length[at].1.entry(range.address).or_default()
    }

    pub(super) fn get(&self, address: IpAddr) -> Option<&T> {
        for (len, networks) in &self.by_length {
            let found = Cidr::new(address, *len).and_then(|network| networks.get(&network.address));
            if found.is_some() {
                return found;
            }
        }
        self.any.as_deref()
    }
}

/// Server names: exact, then `*.` suffixes from the longest on.
#[derive(Debug)]
pub(super) struct Names<T> {
    exact: Keyed<Box<str>, T>,
    /// Keyed by what follows the star, dot included.
    suffixes: Map<Box<str>, T>,
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self { exact: Keyed::default(), suffixes: Map::default() }
    }
}

impl<T: Default> Names<T> {
    pub(super) fn entry(&mut self, name: Option<&str>) -> Result<&mut T, Problem> {
        let Some(name) = name.filter(|n| !n.is_empty()) else { return Ok(self.exact.entry(None)) };
        match name.strip_prefix('*') {
            Some(suffix) if suffix.starts_with('.') && !suffix.contains('*') => {
                Ok(self.suffixes.entry(suffix.to_ascii_lowercase().into()).or_default())
            }
            None if !name.contains('*') => Ok(self.exact.entry(Some(name.to_ascii_lowercase().into()))),
            _ => Err(Problem::Wildcard(name.to_owned())),
        }
    }

    /// Looks up a lower-case name; empty is no name.
    pub(super) fn get(&self, name: &str) -> Option<&T> {
        if name.is_empty() {
            return self.exact.any.as_deref();
        }
        if let Some(found) = self.exact.exact.get(name) {
            return Some(found);
        }
        if !self.suffixes.is_empty() {
            // A name's first label is never empty, so a leading dot starts no suffix, nor does a trailing one.
            for (at, _) in name.match_indices('.').filter(|(at, _)| *at > 0 && at + 1 < name.len()) {
                if let Some(found) = self.suffixes.get(&name[at..]) {
                    return Some(found);
                }
            }
        }
        self.exact.any.as_deref()
    }
}

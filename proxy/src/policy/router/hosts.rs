//! The index over `virtual_hosts[].domains`.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use crate::ir::route::VirtualHost;

type Map = HashMap<Box<str>, usize, foldhash::fast::RandomState>;

#[derive(Debug, Default)]
pub(super) struct HostIndex {
    exact: Map,
    /// Wildcards by the length of their fixed part, longest first: Envoy takes the longest match.
    suffixes: Vec<(usize, Map)>,
    prefixes: Vec<(usize, Map)>,
    any: Option<usize>,
}

impl HostIndex {
    pub(super) fn new(virtual_hosts: &[Arc<VirtualHost>]) -> Self {
        let mut index = Self::default();
        for (position, virtual_host) in virtual_hosts.iter().enumerate() {
            for domain in &virtual_host.domains {
                if &**domain == "*" {
                    index.any.get_or_insert(position);
                } else if let Some(suffix) = domain.strip_prefix('*') {
                    insert_by_length(&mut index.suffixes, suffix, position);
                } else if let Some(prefix) = domain.strip_suffix('*') {
                    insert_by_length(&mut index.prefixes, prefix, position);
                } else {
                    index.exact.entry(domain.clone()).or_insert(position);
                }
            }
        }
        index.suffixes.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
        index.prefixes.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
        index
    }

    pub(super) fn find(&self, host: &str) -> Option<usize> {
        let host: Cow<'_, str> =
            if host.bytes().any(|b| b.is_ascii_uppercase()) { host.to_ascii_lowercase().into() } else { host.into() };
        if let Some(position) = self.exact.get(&*host) {
            return Some(*position);
        }
        // A wildcard stands for at least one character.
        let bytes = host.as_bytes();
        let suffix = self
            .suffixes
            .iter()
            .filter(|(length, _)| bytes.len() > *length)
            .find_map(|(length, map)| host.get(host.len() - length..).and_then(|tail| map.get(tail)));
        let prefix = || {
            self.prefixes
                .iter()
                .filter(|(length, _)| bytes.len() > *length)
                .find_map(|(length, map)| host.get(..*length).and_then(|head| map.get(head)))
        };
        suffix.or_else(prefix).copied().or(self.any)
    }
}

fn insert_by_length(groups: &mut Vec<(usize, Map)>, key: &str, position: usize) {
    let group = match groups.iter().position(|(length, _)| *length == key.len()) {
        Some(index) => index,
        None => {
            groups.push((key.len(), Map::default()));
            groups.len() - 1
        }
    };
    groups[group].1.entry(key.into()).or_insert(position);
}

//! Which filter chain serves a connection: Envoy's `FilterChainMatch`.
//!
//! Criteria are consulted in the fixed order destination port, destination address, server name, transport protocol,
//! application protocols, direct source address, source type, source address, source port. At each step only the
//! chains with the most specific match go on, and a step never goes back. Pure: knows nothing of sockets.
//! Invariant: at most one chain is left at the end, because equal criteria are refused when the index is built.

mod lack;
mod tables;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use crate::ir::{
    listener::{ChainMatch, FilterChain, SourceType, Transport},
    matcher::Cidr,
};
pub use lack::{Lack, lack};
use tables::{Addresses, Keyed, Names};

/// Combinations of criteria one index may hold; beyond it a configuration is hostile, not large.
const MAX_COMBINATIONS: usize = 1 << 20;

/// What is known of a connection when its filter chain is chosen.
#[derive(Clone, Copy, Debug)]
pub struct ChainFacts<'a> {
    pub destination: SocketAddr,
    pub server_name: Option<&'a str>,
    pub transport: Transport,
    pub alpn: &'a [Box<str>],
    /// The peer of the socket.
    pub direct_source: IpAddr,
    /// The peer as far as known (PROXY protocol); usually the same.
    pub source: SocketAddr,
}

type BySourcePort = Keyed<u16, Chosen>;
type BySource = Addresses<BySourcePort>;
type ByDirectSource = Addresses<BySourceType>;
type ByProtocol = Keyed<Box<str>, ByDirectSource>;
type ByTransport = Keyed<Transport, ByProtocol>;
type ByServerName = Names<ByTransport>;
type ByDestination = Addresses<ByServerName>;

/// The index of the chain; `None` only while the index is being built.
type Chosen = Option<usize>;

#[derive(Debug, Default)]
struct BySourceType {
    any: Option<BySource>,
    local: Option<BySource>,
    external: Option<BySource>,
}

/// Filter chains, indexed by their match criteria.
#[derive(Debug, Default)]
pub struct ChainIndex {
    ports: Keyed<u16, ByDestination>,
}

impl ChainIndex {
    /// Indexes the chains; the result of [`Self::select`] is a position in `chains`. Refuses two chains with the same
    /// criteria and server names with a wildcard elsewhere than in front.
    pub fn new(chains: &[Arc<FilterChain>]) -> Result<Self, String> {
        let mut index = Self::default();
        let mut combinations = 0usize;
        for (position, chain) in chains.iter().enumerate() {
            combinations = combinations.saturating_add(size(&chain.matches));
            if combinations > MAX_COMBINATIONS {
                return Err(format!("the filter chain matches have more than {MAX_COMBINATIONS} combinations"));
            }
            index.insert(position, &chain.matches).map_err(|problem| match problem {
                Problem::Duplicate(first) => format!(
                    "filter chains '{}' and '{}' have the same matching rules",
                    name(chains, first),
                    name(chains, position)
                ),
                Problem::Wildcard(server_name) => format!(
                    "filter chain '{}': partial wildcards are not supported in server_names: '{server_name}'",
                    name(chains, position)
                ),
            })?;
        }
        Ok(index)
    }

    /// The chain that serves a connection.
    pub fn select(&self, facts: &ChainFacts<'_>) -> Option<usize> {
        let destination = facts.destination.ip().to_canonical();
        let by_name = self.ports.get(&facts.destination.port())?.get(destination)?;
        let by_transport = match facts.server_name {
            Some(name) if name.bytes().any(|b| b.is_ascii_uppercase()) => by_name.get(&name.to_ascii_lowercase())?,
            Some(name) => by_name.get(name)?,
            None => by_name.get("")?,
        };
        let by_protocol = by_transport.get(&facts.transport)?;
        let by_direct_source = by_protocol.first(facts.alpn.iter().map(|p| &**p))?;
        let by_type = by_direct_source.get(facts.direct_source.to_canonical())?;
        let source = facts.source.ip().to_canonical();
        let specific = if source.is_loopback() || source == destination { &by_type.local } else { &by_type.external };
        let by_source = specific.as_ref().or(by_type.any.as_ref())?;
        *by_source.get(source)?.get(&facts.source.port())?
    }

    fn insert(&mut self, position: usize, m: &ChainMatch) -> Result<(), Problem> {
        let by_destination = self.ports.entry(m.destination_port);
        for destination in optional(&m.destination_ranges) {
            let by_name = by_destination.entry(destination.copied());
            for server_name in optional(&m.server_names) {
                let by_protocol = by_name.entry(server_name.map(|n| &**n))?.entry(m.transport);
                for protocol in optional(&m.application_protocols) {
                    let by_direct_source = by_protocol.entry(protocol.cloned());
                    for direct in optional(&m.direct_source_ranges) {
                        insert_source(position, m, by_direct_source.entry(direct.copied()))?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn insert_source(position: usize, m: &ChainMatch, by_type: &mut BySourceType) -> Result<(), Problem> {
    let slot = match m.source_type {
        SourceType::Any => &mut by_type.any,
        SourceType::SameIpOrLoopback => &mut by_type.local,
        SourceType::External => &mut by_type.external,
    };
    let by_source = slot.get_or_insert_default();
    for source in optional(&m.source_ranges) {
        let by_port = by_source.entry(source.copied());
        for port in optional(&m.source_ports) {
            // The same value listed twice in one chain is no conflict.
            match by_port.entry(port.copied()) {
                Some(first) if *first != position => return Err(Problem::Duplicate(*first)),
                slot => *slot = Some(position),
            }
        }
    }
    Ok(())
}

enum Problem {
    Duplicate(usize),
    Wildcard(String),
}

/// The elements of a criterion, or once `None` when it matches everything.
fn optional<T>(list: &[T]) -> impl Iterator<Item = Option<&T>> {
    list.iter().map(Some).chain(list.is_empty().then_some(None))
}

fn size(m: &ChainMatch) -> usize {
    [
        m.destination_ranges.len(),
        m.server_names.len(),
        m.application_protocols.len(),
        m.direct_source_ranges.len(),
        m.source_ranges.len(),
        m.source_ports.len(),
    ]
    .iter()
    .fold(1, |product: usize, n| product.saturating_mul((*n).max(1)))
}

fn name(chains: &[Arc<FilterChain>], position: usize) -> &str {
    chains.get(position).map_or("", |c| &c.name)
}

/// The canonical form of a range: v4-mapped networks become v4 ones, as the addresses they are compared with do.
fn canonical(range: Cidr) -> Cidr {
    match (range.address.to_canonical(), range.prefix_len.checked_sub(96)) {
        (address @ IpAddr::V4(_), Some(len)) if range.address.is_ipv6() => Cidr::new(address, len).unwrap_or(range),
        _ => range,
    }
}

#[cfg(test)]
mod tests;

//! Why no filter chain takes a connection: for counting, after the choice has failed. Pure, and not on any fast path.

use crate::{
    ir::listener::{ChainMatch, FilterChain, Transport},
    policy::chain::ChainFacts,
};
use std::sync::Arc;

/// The first thing in which the connection and all chains differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// Nothing is served at that destination.
    Destination,
    /// Plaintext where only TLS is served: what a STRICT policy refuses.
    Plaintext,
    /// TLS where only plaintext is served.
    Tls,
    ServerName,
    Protocol,
    /// The client's address, or a combination of the above.
    Other,
}

/// Compares a refused connection with the chains that refused it.
pub fn lack(chains: &[Arc<FilterChain>], facts: &ChainFacts<'_>) -> Lack {
    let mut left: Vec<&ChainMatch> = chains.iter().map(|chain| &chain.matches).collect();
    let here = facts.destination.ip().to_canonical();
    let port = facts.destination.port();
    left.retain(|m| m.destination_port.is_none_or(|p| p == port));
    // A chain for this very port hides those for all ports.
    if left.iter().any(|m| m.destination_port.is_some()) {
        left.retain(|m| m.destination_port.is_some());
    }
    left.retain(|m| m.destination_ranges.is_empty() || m.destination_ranges.iter().any(|r| r.contains(here)));
    if left.is_empty() {
        return Lack::Destination;
    }
    left.retain(|m| m.transport.is_none_or(|t| t == facts.transport));
    if left.is_empty() {
        return match facts.transport {
            Transport::RawBuffer => Lack::Plaintext,
            Transport::Tls => Lack::Tls,
        };
    }
    let named =
        |m: &&ChainMatch| m.server_names.is_empty() || m.server_names.iter().any(|n| names(n, facts.server_name));
    left.retain(named);
    if left.is_empty() {
        return Lack::ServerName;
    }
    left.retain(|m| {
        let wanted = &m.application_protocols;
        wanted.is_empty() || wanted.iter().any(|protocol| facts.alpn.contains(protocol))
    });
    if left.is_empty() { Lack::Protocol } else { Lack::Other }
}

fn names(pattern: &str, name: Option<&str>) -> bool {
    let Some(name) = name else { return false };
    match pattern.strip_prefix('*') {
        Some(suffix) => name.len() > suffix.len() && name.ends_with(suffix),
        None => name == pattern,
    }
}

#[cfg(test)]
mod tests;

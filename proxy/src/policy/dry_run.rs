//! STRICT mutual TLS on trial: who would be refused, counted by the caller and named here, each once.
//!
//! Bounded: a scan of the whole network makes neither the set nor the log grow. Knows nothing of connections.

use std::{
    collections::HashSet,
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

/// Peers named per filter chain.
const MOST: usize = 256;

/// Whether a peer is to be named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    First,
    Before,
    /// The last one that is named; further ones are only counted.
    Last,
}

/// The peers that were seen.
#[derive(Debug, Default)]
pub struct StrictTrial(Mutex<HashSet<IpAddr>>);

impl StrictTrial {
    pub fn saw(&self, peer: IpAddr) -> Seen {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if peers.len() >= MOST || !peers.insert(peer.to_canonical()) {
            return Seen::Before;
        }
        if peers.len() == MOST { Seen::Last } else { Seen::First }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn each_peer_is_named_once_and_not_too_many() {
        let trial = StrictTrial::default();
        let peer = |n: u32| IpAddr::V4(Ipv4Addr::from(n));
        assert_eq!(trial.saw(peer(1)), Seen::First);
        assert_eq!(trial.saw(peer(1)), Seen::Before);
        let IpAddr::V4(v4) = peer(1) else { unreachable!() };
        assert_eq!(trial.saw(v4.to_ipv6_mapped().into()), Seen::Before, "the same peer over the other family's socket");
        let rest: Vec<_> = (2..2 * MOST as u32).map(|n| trial.saw(peer(n))).collect();
        assert_eq!(rest.iter().filter(|seen| **seen == Seen::First).count(), MOST - 2);
        assert_eq!(rest.iter().filter(|seen| **seen == Seen::Last).count(), 1);
    }
}

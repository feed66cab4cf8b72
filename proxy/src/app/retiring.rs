//! What a new configuration left behind: connections of filter chains that are gone, clusters, old snapshots.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    drain::{Phase, Source},
    live::Live,
};

pub(super) struct Retiring {
    /// How long connections of removed filter chains may go on before they are cut: a stream may outlive its
    /// configuration, not for ever.
    chain_drain: Duration,
    /// Ends of removed chains, with the time when their connections are cut.
    chains: Vec<(Instant, Arc<Source>)>,
    /// Snapshots that some worker may still hold. To free a large one takes long: that is done here, not by the worker
    /// that happens to be the last.
    snapshots: Vec<Arc<Live>>,
    /// Where the next look begins.
    next: usize,
}

/// Old snapshots looked at with every new one: more than one, so that they do not pile up between the cleanings.
const LOOKS: usize = 4;

impl Retiring {
    pub(super) fn new(chain_drain: Duration) -> Self {
        Self { chain_drain, chains: Vec::new(), snapshots: Vec::new(), next: 0 }
    }

    /// Takes leave of `previous`, now that `live` is in force.
    pub(super) fn replaced(&mut self, previous: Arc<Live>, live: &Live) {
        for cluster in previous.removed_clusters(live) {
            cluster.retire();
        }
        if !previous.same_listeners(live) {
            // Those that outlived an earlier update are judged by this one too.
            self.chains.iter().for_each(|(_, source)| source.wake());
        }
        for chain in previous.removed_chains(live) {
            chain.drain.advance(Phase::Drain);
            self.chains.push((Instant::now() + self.chain_drain, chain.drain.clone()));
        }
        self.snapshots.push(previous);
        for _ in 0..LOOKS.min(self.snapshots.len() - 1) {
            self.next %= self.snapshots.len();
            match Arc::strong_count(&self.snapshots[self.next]) {
                1 => drop(self.snapshots.swap_remove(self.next)),
                _ => self.next += 1,
            }
        }
    }

    /// Lets go of what nobody uses any more and cuts what is overdue.
    pub(super) fn clean(&mut self, now: Instant) {
        self.snapshots.retain(|live| Arc::strong_count(live) > 1);
        self.chains.retain(|(until, source)| {
            // Connections still in their handshake hold the chain; those that listen have heard of the end.
            let used = Arc::strong_count(source) > 1 || source.listeners() > 0;
            if used && now >= *until {
                source.advance(Phase::Overdue);
            }
            used && now < *until
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain::Signal;

    const CHAIN_DRAIN: Duration = Duration::from_secs(600);

    #[test]
    fn connections_of_a_removed_chain_are_cut_in_the_end() {
        let process = Source::default();
        let (used, unused) = (Arc::new(Source::default()), Arc::new(Source::default()));
        let signal = Signal::new(&process, &used);
        let now = Instant::now();
        let mut retiring = Retiring {
            chains: vec![(now + CHAIN_DRAIN, used), (now + CHAIN_DRAIN, unused)],
            ..Retiring::new(CHAIN_DRAIN)
        };
        retiring.clean(now);
        assert_eq!(retiring.chains.len(), 1, "a chain without connections is forgotten");
        assert_eq!(signal.phase(), Phase::Run);
        retiring.clean(now + CHAIN_DRAIN);
        assert_eq!(signal.phase(), Phase::Overdue);
        assert!(retiring.chains.is_empty());
    }

    #[test]
    fn snapshots_that_nobody_holds_do_not_pile_up() {
        let mut retiring = Retiring::new(CHAIN_DRAIN);
        let held: Vec<_> = (0..3).map(|_| Arc::new(Live::default())).collect();
        held.iter().for_each(|live| retiring.replaced(live.clone(), live));
        for _ in 0..1000 {
            retiring.replaced(Arc::default(), &Live::default());
            assert!(retiring.snapshots.len() <= 3 + 2 * LOOKS, "{}", retiring.snapshots.len());
        }
        drop(held);
        retiring.clean(Instant::now());
        assert!(retiring.snapshots.is_empty());
    }

    #[test]
    fn a_connection_in_its_handshake_keeps_its_chain_in_mind() {
        let chain = Arc::new(Source::default());
        let now = Instant::now();
        let mut retiring = Retiring { chains: vec![(now + CHAIN_DRAIN, chain.clone())], ..Retiring::new(CHAIN_DRAIN) };
        retiring.clean(now);
        assert_eq!(retiring.chains.len(), 1);
        drop(chain);
        retiring.clean(now);
        assert!(retiring.chains.is_empty());
    }
}

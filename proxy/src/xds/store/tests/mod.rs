//! The store by hand: a bed with a clock that moves when told.

mod audit;
mod chaos;
mod updates;
mod warming;

use std::time::Instant;

use outrigger_wire::pb::google::protobuf::Any;

use super::*;
use crate::ir::secret::Secret;
use crate::xds::{
    client::Item,
    testing::{self, bare, eds, endpoints, fixed, listener, now, routes, secret},
};

/// A store with LDS and CDS over the aggregated stream, and a clock that moves by hand.
struct Bed {
    store: Store,
    start: Instant,
    seconds: u64,
    snapshot: Snapshot,
    deadline: Option<Instant>,
}

impl Bed {
    fn new(config: StartConfig) -> Self {
        let config = StartConfig { lds: Some(ConfigSource::Ads), cds: Some(ConfigSource::Ads), ..config };
        let start = Instant::now();
        let mut bed = Self {
            store: Store::new(&config, testing::decode, now(start, 0)),
            start,
            seconds: 0,
            snapshot: Snapshot::default(),
            deadline: None,
        };
        bed.at(0);
        bed
    }

    fn bare() -> Self {
        Self::new(StartConfig::default())
    }

    fn now(&self) -> Now {
        now(self.start, self.seconds)
    }

    /// Lets time pass; returns whether that published anything.
    fn at(&mut self, seconds: u64) -> bool {
        self.seconds = seconds;
        self.deadline = self.store.resolve(self.now());
        match self.store.publish() {
            Some(snapshot) => {
                self.snapshot = snapshot;
                true
            }
            None => false,
        }
    }

    fn deliver(&mut self, kind: Kind, version: &str, full: bool, items: Vec<Item>, removed: &[&str]) -> Applied {
        self.from(&ConfigSource::Ads, kind, version, full, items, removed)
    }

    fn from(
        &mut self,
        source: &ConfigSource,
        kind: Kind,
        version: &str,
        full: bool,
        items: Vec<Item>,
        removed: &[&str],
    ) -> Applied {
        let removed: Vec<String> = removed.iter().map(|r| (*r).to_owned()).collect();
        let prepared = items.into_iter().map(|item| prepare(&self.store, source, kind, item)).collect();
        let frame = Frame { source, kind, version, full, removed: &removed };
        let applied = self.store.apply(&frame, prepared, self.now());
        self.at(self.seconds);
        applied
    }

    /// A state-of-the-world response that must be accepted.
    fn sotw(&mut self, kind: Kind, resources: impl IntoIterator<Item = Any>) {
        let applied = self.deliver(kind, "1", true, resources.into_iter().map(bare).collect(), &[]);
        assert_eq!(applied.error(), None);
    }

    fn clusters(&self) -> Vec<&str> {
        self.snapshot.clusters.sorted().into_iter().map(|(n, _)| &**n).collect()
    }

    fn listeners(&self) -> Vec<&str> {
        self.snapshot.listeners.sorted().into_iter().map(|(n, _)| &**n).collect()
    }

    fn wanted(&self, kind: Kind) -> Vec<&str> {
        self.store
            .subscriptions()
            .iter()
            .filter(|((_, k), _)| *k == kind)
            .flat_map(|(_, w)| &*w.names)
            .map(|n| &**n)
            .collect()
    }

    /// Which version of a cluster is in force.
    fn version_of(&self, cluster: &str) -> u64 {
        self.snapshot.clusters[cluster].connect_timeout.as_secs()
    }
}

#[test]
fn what_there_is_of_every_resource_is_small() {
    let sizes = [size_of::<Slot>(), size_of::<Version>()];
    let bounds = [80, 176];
    assert!(sizes.iter().zip(bounds).all(|(size, bound)| *size <= bound), "{sizes:?} of at most {bounds:?}");
}

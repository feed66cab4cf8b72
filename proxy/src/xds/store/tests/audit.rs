//! What the store keeps up change by change is what looking at everything yields.

use super::*;

impl Bed {
    /// To be called at rest, after a `resolve`.
    pub(super) fn audit(&mut self) {
        let store = &self.store;
        let mut references = References::new(BTreeSet::new());
        let mut unrest = Unrest::default();
        let mut snapshot = Snapshot { version: store.snapshot.version, ..Snapshot::default() };
        for kind in Kind::ALL {
            let at = kind as usize;
            for (name, slot) in store.table(kind) {
                unrest.known[at] += usize::from(slot.latest.is_some());
                if slot.is_pending() {
                    unrest.pending[at].insert(name.clone());
                }
                if kind.is_wildcard() && slot.latest.is_none() && slot.active.is_some() {
                    unrest.leaving[at].insert(name.clone());
                }
                if slot.unwanted.is_some() {
                    unrest.idle.insert((kind, name.clone()));
                }
                unrest.expiring.extend(slot.expires.map(|expires| (expires, kind, name.clone())));
                for version in slot.latest.iter().chain(&slot.active).filter(|_| kind.is_wildcard()) {
                    references.add(version.needs(), &version.origin);
                }
                if let Some(active) = &slot.active {
                    slots::put(&mut snapshot, &active.resource);
                    if matches!(kind, Kind::Listener | Kind::Routes) {
                        references.add_users(active.needs());
                    }
                }
                let wanted = references_wanted(store, kind, name);
                assert!(kind.is_wildcard() || wanted || slot.is_fixed() || slot.unwanted.is_some(), "{kind} {name}");
            }
        }
        assert_eq!(format!("{:?}", store.unrest), format!("{unrest:?}"));
        assert!(store.references.agrees(&references), "{:?}\n{references:?}", store.references);
        assert_eq!(store.snapshot, snapshot);
        let mut subscriptions = Subscriptions::new();
        for kind in [Kind::Cluster, Kind::Listener] {
            subscriptions.entry((ConfigSource::Ads, kind)).or_default().wildcard = true;
        }
        for ((kind, source), names) in references.all() {
            let Some(source) = source else { continue };
            subscriptions.insert((source.clone(), *kind), Wanted { wildcard: false, names: names.into() });
        }
        assert_eq!(*store.subscriptions, subscriptions);
        // Looking again, at everything, finds nothing more to do.
        let (mut waiting, deadline) = (store.waiting.clone(), self.deadline);
        // What nobody wanted any more at the end of the pass was still asked about at its beginning.
        waiting.retain(|(kind, name, _)| store.table(*kind).get(name).is_some_and(Slot::is_pending));
        assert!(!self.at(self.seconds), "something was left to do");
        assert_eq!(self.store.waiting, waiting);
        let due = |at: Option<Instant>| at.map_or(u64::MAX, |at| (at - self.start).as_secs());
        assert!(due(deadline) <= due(self.deadline), "the next pass would come too late");
    }
}

fn references_wanted(store: &Store, kind: Kind, name: &str) -> bool {
    store.references.places(kind, name).next().is_some()
}

//! What was kept on disk of a former run: taken over where no source spoke, and what is worth keeping again.
//!
//! Invariant: a slot that a source filled, or said to be empty, is not touched.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    super::{
        decode::{Notes, Resource},
        kind::Kind,
    },
    Frame, Now, Origin, Slot, Store, Version,
    claims::Claims,
};
use crate::ir::{ConfigSource, Name};

/// What restored resources have for a version: no control plane has it, so each is sent again and compared.
pub const RESTORED: &str = "last-good";

/// A resource from disk, understood.
#[derive(Debug)]
pub struct Kept {
    pub source: ConfigSource,
    pub resource: Resource,
    pub raw: Arc<[u8]>,
    pub notes: Notes,
}

/// A resource that a source delivered, to be kept.
#[derive(Clone, Debug)]
pub struct Keeping {
    pub kind: Kind,
    pub source: ConfigSource,
    pub name: Name,
    pub version: Arc<str>,
    pub resource: Resource,
    pub raw: Arc<[u8]>,
}

impl Store {
    /// Why one of these listeners cannot be taken over: an address that another one has.
    pub fn conflict(&self, listeners: &[Kept]) -> Option<String> {
        let (ads, removed) = (ConfigSource::Ads, []);
        let frame = Frame { source: &ads, kind: Kind::Listener, version: RESTORED, full: false, removed: &removed };
        let mut claims = Claims::before(self, &frame, &[]);
        listeners.iter().filter(|kept| self.is_open(Kind::Listener, kept)).find_map(|kept| {
            let reason = claims.take(&kept.resource).err()?;
            Some(format!("{}: {reason}", kept.resource.name()))
        })
    }

    /// Takes over what was kept of a type. `answered`: that is all there was of it.
    pub fn restore(&mut self, kind: Kind, kept: Vec<Kept>, answered: bool, now: Now) {
        let version: Arc<str> = RESTORED.into();
        for kept in kept {
            if self.is_open(kind, &kept) {
                let name = Arc::clone(kept.resource.name());
                self.accept(&kept.source, kind, &name, &version, (kept.resource, kept.raw, &kept.notes), now);
            }
        }
        if answered {
            self.received.insert(kind);
        }
    }

    /// Whether nobody said anything good of it yet, and somebody wants it.
    fn is_open(&self, kind: Kind, kept: &Kept) -> bool {
        let name = kept.resource.name();
        let silent = self.table(kind).get(name).is_none_or(|slot| slot.latest.is_none() && !slot.absent);
        silent && (kind.is_wildcard() || self.is_wanted(&kept.source, kind, name))
    }

    /// What sources delivered for good and still say: the version in force, or the one that waits where there is none.
    pub fn keeping(&self, kinds: &[Kind]) -> Vec<Keeping> {
        let mut keeping = Vec::new();
        for kind in kinds {
            for (name, slot) in self.table(*kind).iter().filter(|(_, slot)| slot.expires.is_none()) {
                let Some(version) = slot.latest.as_ref().map(|latest| slot.active.as_ref().unwrap_or(latest)) else {
                    continue;
                };
                let (Origin::Source(source), Some(raw)) = (&version.origin, &version.raw) else { continue };
                if matches!(source, ConfigSource::Ads | ConfigSource::Grpc { .. }) {
                    keeping.push(Keeping {
                        kind: *kind,
                        source: source.clone(),
                        name: name.clone(),
                        version: version.version.clone(),
                        resource: version.resource.clone(),
                        raw: raw.clone(),
                    });
                }
            }
        }
        keeping
    }

    /// Whether all that is referred to was answered by who is to answer it, and is in force.
    pub fn is_whole(&self) -> bool {
        let answered = |slot: &Slot| {
            slot.absent || slot.latest.as_ref().is_some_and(|latest: &Arc<Version>| &*latest.version != RESTORED)
        };
        let mut named = self.subscriptions.iter().filter(|((source, kind), _)| {
            matches!(kind, Kind::Endpoints | Kind::Routes)
                && matches!(source, ConfigSource::Ads | ConfigSource::Grpc { .. })
        });
        let lacks = |kind: Kind, names: &BTreeSet<Name>| {
            names.iter().any(|name| self.table(kind).get(name).is_none_or(|slot| !answered(slot)))
        };
        self.waiting.is_empty() && !named.any(|((_, kind), wanted)| lacks(*kind, &wanted.names))
    }
}

//! Second half of an update: what a source said becomes the latest version, resource by resource.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    super::{
        decode::{Notes, Resource},
        kind::Kind,
        status::Rejected,
    },
    Failure, Needs, Now, Origin, Prepared, Slot, Store, Version,
    claims::Claims,
    prepare::Outcome,
};
use crate::ir::{ConfigSource, Name};

/// What an update did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The first refused resources; good resources of the same update took effect.
    pub rejected: Vec<Rejected>,
    /// How many more were refused than are listed.
    pub more: usize,
}

/// Refused resources listed in detail; the rest is summed up.
const MAX_REPORTED: usize = 100;

impl Applied {
    /// The text of a NACK, `None` when everything was accepted.
    pub fn error(&self) -> Option<String> {
        if self.rejected.is_empty() {
            return None;
        }
        let mut lines: Vec<String> = self.rejected.iter().map(|r| r.reason.clone()).collect();
        if self.more > 0 {
            lines.push(format!("and {} more", self.more));
        }
        Some(lines.join("\n"))
    }
}

/// The frame around the resources of one update.
#[derive(Clone, Debug)]
pub struct Frame<'a> {
    pub source: &'a ConfigSource,
    pub kind: Kind,
    /// The response's version; resources may have their own.
    pub version: &'a str,
    /// State of the world: for wildcard types, what is not in it is removed.
    pub full: bool,
    pub removed: &'a [String],
}

impl Store {
    /// Whether `source` is asked for `name` (a wildcard does not count for named types).
    pub(super) fn is_wanted(&self, source: &ConfigSource, kind: Kind, name: &str) -> bool {
        // Sources are few; cloning the key for every resource would cost more than looking at all of them.
        self.subscriptions.iter().any(|((s, k), w)| *k == kind && s == source && w.names.contains(name))
    }

    /// Takes a judged update over.
    pub fn apply(&mut self, frame: &Frame<'_>, items: Vec<Prepared>, now: Now) -> Applied {
        let version: Arc<str> = frame.version.into();
        let mut applied = Applied::default();
        let mut seen = BTreeSet::new();
        let mut nameless = false;
        // The servers that use times to live send heartbeats apart, and only for some of the resources.
        let beats_only = !items.is_empty() && items.iter().all(|i| matches!(i.outcome, Outcome::Heartbeat));
        let mut claims = Claims::before(self, frame, &items);
        for (index, mut item) in items.into_iter().enumerate() {
            if let Outcome::New { resource, .. } = &item.outcome
                && let Err(reason) = claims.take(resource)
            {
                // Without the bytes: the same ones are good as soon as the address is free.
                item.outcome = Outcome::Rejected { reason, raw: Arc::from([]) };
            }
            let name: Name = item.name.as_str().into();
            nameless |= name.is_empty();
            let twice = !name.is_empty() && !seen.insert(Arc::clone(&name));
            if let Some(reason) = self.take(frame, &version, item, twice, now) {
                if applied.rejected.len() == MAX_REPORTED {
                    applied.more += 1;
                    continue;
                }
                let label = if name.is_empty() { format!("resources[{index}]") } else { name.to_string() };
                let named = reason.strip_prefix(label.as_str()).is_some_and(|rest| rest.starts_with(':'));
                let reason = if named { reason } else { format!("{label}: {reason}") };
                applied.rejected.push(Rejected { name: label.into(), reason });
            }
        }
        let source = Origin::Source(frame.source.clone());
        if frame.full && frame.kind.is_wildcard() && !nameless && !beats_only {
            // A resource that cannot even be named may be any of those that are missing: then nothing is removed.
            let ours = |slot: &Slot| slot.latest.as_ref().is_none_or(|v| v.origin == source);
            let slots = self.table(frame.kind).iter();
            let gone: Vec<Name> = slots
                .filter(|(name, slot)| !seen.contains(*name) && ours(slot))
                .map(|(name, _)| name.clone())
                .collect();
            gone.iter().for_each(|name| self.withdraw(frame.kind, name, now));
        }
        for name in frame.removed {
            self.remove(frame.kind, name, &source, now);
        }
        if frame.kind.is_wildcard() {
            self.received.insert(frame.kind);
        }
        applied
    }

    /// One resource; the result is the reason of a refusal.
    fn take(&mut self, frame: &Frame<'_>, version: &Arc<str>, item: Prepared, twice: bool, now: Now) -> Option<String> {
        let version: Arc<str> =
            if item.version.is_empty() { Arc::clone(version) } else { item.version.as_str().into() };
        let kind = frame.kind;
        let expires = item.ttl.and_then(|ttl| now.mono.checked_add(ttl));
        let held = self.tables[kind as usize].get_key_value(item.name.as_str());
        let name: Name = held.map_or_else(|| item.name.as_str().into(), |(name, _)| name.clone());
        let fixed = held.is_some_and(|(_, slot)| slot.is_fixed());
        match item.outcome {
            Outcome::Unwanted => None,
            Outcome::Unchanged | Outcome::Heartbeat => {
                held?;
                let unchanged = matches!(item.outcome, Outcome::Unchanged);
                self.edit(kind, &name, |slot| {
                    slot.expires = expires;
                    slot.failure.take_if(|_| unchanged);
                });
                if unchanged {
                    self.renew(kind, &name, version);
                }
                None
            }
            Outcome::Rejected { reason, raw } => {
                if !name.is_empty() && !fixed {
                    let failure = Failure { reason: reason.as_str().into(), raw, version, at: now.wall };
                    self.edit(kind, &name, |slot| slot.failure = Some(Box::new(failure)));
                }
                Some(reason)
            }
            Outcome::New { .. } if twice => Some("delivered twice in one response".into()),
            Outcome::New { .. } if fixed => {
                tracing::warn!(%kind, name = item.name, "a static resource has this name; ignored");
                None
            }
            Outcome::New { resource, raw, notes } => {
                self.accept(frame.source, kind, &name, &version, (resource, raw, &notes), now);
                self.edit(kind, &name, |slot| (slot.failure, slot.expires) = (None, expires));
                None
            }
        }
    }

    /// Makes a resource the latest version of its name.
    pub(super) fn accept(
        &mut self,
        source: &ConfigSource,
        kind: Kind,
        name: &Name,
        version: &Arc<str>,
        (mut resource, raw, notes): (Resource, Arc<[u8]>, &Notes),
        now: Now,
    ) {
        for note in notes.iter() {
            let before = self.notes.len();
            self.notes.push(note.kind, note.path.clone(), note.reason.clone(), note.count);
            if self.notes.len() > before {
                tracing::warn!(%kind, %name, "{note}");
            }
        }
        if let (Resource::Cluster(cluster), Some(bind)) = (&mut resource, &self.bind)
            && cluster.bind.is_none()
        {
            Arc::make_mut(cluster).bind = Some(bind.clone());
        }
        let slot = self.table(kind).get(name);
        let mut versions = slot.into_iter().flat_map(|slot| slot.latest.iter().chain(&slot.active));
        if let Some(held) = versions.find(|v| v.resource == resource) {
            // Equal in meaning: the same object goes on, so nothing downstream notices.
            resource = held.resource.clone();
        }
        let needs = Needs::of(&resource);
        let (origin, version) = (Origin::Source(source.clone()), Arc::clone(version));
        let latest = Version { resource, raw: Some(raw), version, updated: now.wall, origin, needs };
        self.set_latest(kind, name, Some(Arc::new(latest)));
        self.edit(kind, name, |slot| {
            slot.absent = false;
            slot.since.take_if(|_| kind.is_wildcard());
        });
    }

    /// A delta removal. Named types keep what they have, as Envoy does: a reference still needs it.
    fn remove(&mut self, kind: Kind, name: &str, source: &Origin, now: Now) {
        let Some((name, slot)) = self.table(kind).get_key_value(name) else { return };
        let name = name.clone();
        if kind.is_wildcard() {
            if slot.latest.as_ref().is_some_and(|v| v.origin == *source) {
                self.withdraw(kind, &name, now);
            }
        } else if slot.latest.is_none() {
            self.edit(kind, &name, |slot| slot.absent = true);
        }
    }

    /// A cluster or listener is gone; what is in force stays until nobody uses it.
    pub(super) fn withdraw(&mut self, kind: Kind, name: &Name, now: Now) {
        let Some(slot) = self.table(kind).get(name) else { return };
        if slot.active.is_none() {
            return self.discard(kind, name);
        }
        let held = slot.latest.is_some();
        self.set_latest(kind, name, None);
        self.edit(kind, name, |slot| {
            (slot.failure, slot.expires) = (None, None);
            if held {
                slot.since = Some(now.mono);
            }
        });
    }

    /// Forgets resources whose time to live has passed.
    pub(super) fn expire(&mut self, now: Now) {
        while let Some((_, kind, name)) = self.unrest.expiring.first().filter(|(at, ..)| *at <= now.mono).cloned() {
            tracing::warn!(%kind, %name, "the resource's time to live has passed");
            if kind.is_wildcard() {
                self.withdraw(kind, &name, now);
                continue;
            }
            self.set_latest(kind, &name, None);
            self.set_active(kind, &name, None);
            self.edit(kind, &name, |slot| (slot.expires, slot.absent) = (None, true));
        }
    }

    /// The next time to live that ends.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.unrest.expiring.first().map(|(at, ..)| *at)
    }

    /// The held resource came again under a new version.
    fn renew(&mut self, kind: Kind, name: &Name, version: Arc<str>) {
        let Some(slot) = self.table(kind).get(name) else { return };
        let Some(latest) = slot.latest.as_ref().filter(|latest| latest.version != version) else { return };
        let in_force = slot.active.as_ref().is_some_and(|a| Arc::ptr_eq(a, latest));
        let renewed = Arc::new(Version {
            resource: latest.resource.clone(),
            raw: latest.raw.clone(),
            version,
            updated: latest.updated,
            origin: latest.origin.clone(),
            needs: latest.needs.clone(),
        });
        if in_force {
            self.set_active(kind, name, Some(Arc::clone(&renewed)));
        }
        self.set_latest(kind, name, Some(renewed));
    }
}

/// Reject a TTL that cannot be represented instead of wrapping.
pub(in crate::xds) fn ttl(duration: &outrigger_wire::pb::google::protobuf::Duration) -> Option<Duration> {
    let nanos = u32::try_from(duration.nanos).ok().filter(|n| *n < 1_000_000_000)?;
    Some(Duration::new(u64::try_from(duration.seconds).ok()?, nanos))
}

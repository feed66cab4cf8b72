//! What comes into force: warming, make before break, removal after the last user has moved, and what to subscribe to.
//!
//! One pass in the order of dependency (secrets and endpoints, clusters, routes, listeners), then removals in the
//! opposite order, over the slots that are not at rest. A replacement that waits leaves its predecessor in force.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    super::{decode::Resource, kind::Kind},
    Now, Slot, Store, Version, same,
};
use crate::ir::Name;

/// How long a resource that nobody refers to is kept in case it is referred to again.
const LINGER: Duration = Duration::from_secs(5);

/// Collects the moment at which waiting has to be looked at again.
#[derive(Debug, Default)]
struct Timer(Option<Instant>);

impl Timer {
    /// Whether `after` has passed since `since`; if not, the moment is noted. `None` never passes.
    fn passed(&mut self, since: Instant, after: Option<Duration>, now: Now) -> bool {
        let Some(due) = after.and_then(|after| since.checked_add(after)) else { return false };
        if due > now.mono {
            self.note(due);
        }
        due <= now.mono
    }

    fn note(&mut self, due: Instant) {
        self.0 = Some(self.0.map_or(due, |at| at.min(due)));
    }
}

impl Store {
    /// Brings into force what is warm and drops what nobody uses. Returns when to call again at the latest.
    pub fn resolve(&mut self, now: Now) -> Option<Instant> {
        let mut timer = Timer::default();
        self.expire(now);
        self.subscribe(now);
        self.waiting.clear();
        for kind in [Kind::Secret, Kind::Endpoints] {
            self.promote(kind, now, |_, _, _, _| None, &mut timer);
        }
        self.promote(Kind::Cluster, now, Self::cluster_waits, &mut timer);
        self.promote(Kind::Routes, now, Self::routes_wait, &mut timer);
        self.promote(Kind::Listener, now, Self::listener_waits, &mut timer);
        self.drop_listeners(now, &mut timer);
        // What came into force or went may have released names.
        self.subscribe(now);
        self.drop_unwanted(now, &mut timer);
        self.drop_clusters(now, &mut timer);
        self.subscribe(now);
        self.drop_unwanted(now, &mut timer);
        if let Some(at) = self.next_expiry() {
            timer.note(at);
        }
        timer.0
    }

    /// Activates each pending resource of `kind` that `waits` finds nothing to wait for.
    fn promote(
        &mut self,
        kind: Kind,
        now: Now,
        waits: fn(&Self, &Slot, Now, &mut Timer) -> Option<String>,
        timer: &mut Timer,
    ) {
        let mut ready = Vec::new();
        for name in &self.unrest.pending[kind as usize] {
            let Some(slot) = self.table(kind).get(name) else { continue };
            // An equal resource under a new version has nothing to wait for.
            let equal = matches!((&slot.latest, &slot.active), (Some(l), Some(a)) if same(&l.resource, &a.resource));
            ready.push((Arc::clone(name), if equal { None } else { waits(self, slot, now, timer) }));
        }
        for (name, reason) in ready {
            if let Some(reason) = reason {
                self.waiting.push((kind, name, reason));
                continue;
            }
            let latest = self.table(kind).get(&name).and_then(|slot| slot.latest.clone());
            self.set_active(kind, &name, latest);
        }
    }

    fn cluster_waits(&self, slot: &Slot, now: Now, timer: &mut Timer) -> Option<String> {
        let latest = slot.latest.as_ref()?;
        let first = slot.active.is_none();
        let endpoints = latest.needs().endpoints.iter().map(|(name, _)| (Kind::Endpoints, name));
        let secrets = latest.needs().secrets.iter().map(|secret| (Kind::Secret, &secret.name));
        self.missing(endpoints.chain(secrets), first, now, timer)
    }

    fn routes_wait(&self, slot: &Slot, now: Now, timer: &mut Timer) -> Option<String> {
        self.cold_cluster(slot.latest.as_ref()?, now, timer)
    }

    fn listener_waits(&self, slot: &Slot, now: Now, timer: &mut Timer) -> Option<String> {
        let latest = slot.latest.as_ref()?;
        let first = slot.active.is_none();
        let routes = latest.needs().routes.iter().map(|(name, _)| (Kind::Routes, name));
        let secrets = latest.needs().secrets.iter().map(|secret| (Kind::Secret, &secret.name));
        self.missing(routes.chain(secrets), first, now, timer).or_else(|| self.cold_cluster(latest, now, timer))
    }

    /// The first of `names` that is not there and still worth waiting for.
    fn missing<'a>(
        &self,
        names: impl Iterator<Item = (Kind, &'a Name)>,
        first: bool,
        now: Now,
        timer: &mut Timer,
    ) -> Option<String> {
        let mut found = None;
        for (kind, name) in names {
            let slot = self.table(kind).get(name);
            if slot.is_some_and(|s| s.active.is_some()) {
                continue;
            }
            // "Does not exist" is an answer, but no reason to give up a working secret for one that is not there.
            let answered = slot.is_some_and(|s| s.absent) && (first || kind != Kind::Secret);
            let since = slot.and_then(|s| s.since).unwrap_or(now.mono);
            let late = first && timer.passed(since, self.timeout(kind), now);
            if !answered && !late && found.is_none() {
                found = Some(format!("{kind} {name}"));
            }
        }
        found
    }

    /// A cluster that `version` refers to, that exists and has no version in force yet.
    fn cold_cluster(&self, version: &Version, now: Now, timer: &mut Timer) -> Option<String> {
        let settled = self.settled(now);
        for name in &version.needs().clusters {
            let slot = self.table(Kind::Cluster).get(name);
            if slot.is_some_and(|s| s.active.is_some()) {
                continue;
            }
            if slot.is_some_and(|s| s.latest.is_some()) {
                return Some(format!("cds {name}"));
            }
            if !settled {
                timer.passed(self.started, self.warming.clusters, now);
                return Some(format!("cds {name} (no clusters received yet)"));
            }
        }
        None
    }

    /// Removed listeners go at once, unless a new one that waits is to take over an address of theirs.
    fn drop_listeners(&mut self, now: Now, timer: &mut Timer) {
        let leaving = &self.unrest.leaving[Kind::Listener as usize];
        if leaving.is_empty() {
            return;
        }
        let table = self.table(Kind::Listener);
        let successors: BTreeSet<_> =
            table.values().filter(|s| s.active.is_none()).flat_map(|s| addresses(s.latest.as_ref())).collect();
        let grace = Some(self.warming.removal_grace);
        let mut gone = Vec::new();
        for (name, slot) in leaving.iter().filter_map(|name| table.get_key_value(name)) {
            let succeeded = addresses(slot.active.as_ref()).any(|a| successors.contains(&a));
            if !succeeded || timer.passed(slot.since.unwrap_or(now.mono), grace, now) {
                gone.push(Arc::clone(name));
            }
        }
        gone.iter().for_each(|name| self.discard(Kind::Listener, name));
    }

    /// Removed clusters go when nothing in force names them any more, or when their time is over.
    fn drop_clusters(&mut self, now: Now, timer: &mut Timer) {
        let grace = Some(self.warming.removal_grace);
        let mut gone = Vec::new();
        for name in &self.unrest.leaving[Kind::Cluster as usize] {
            let since = self.table(Kind::Cluster).get(name).and_then(|slot| slot.since).unwrap_or(now.mono);
            if !self.references.has_users(name) || timer.passed(since, grace, now) {
                gone.push(Arc::clone(name));
            }
        }
        gone.iter().for_each(|name| self.discard(Kind::Cluster, name));
    }

    /// Named resources that nothing refers to any more leave at once, and are forgotten a little later.
    fn drop_unwanted(&mut self, now: Now, timer: &mut Timer) {
        for (kind, name) in std::mem::take(&mut self.unrest.idle) {
            let Some(slot) = self.table(kind).get(&name) else { continue };
            let since = slot.unwanted;
            if slot.is_fixed() || self.references.places(kind, &name).next().is_some() {
                if since.is_some() {
                    self.edit(kind, &name, |slot| slot.unwanted = None);
                }
                continue;
            }
            self.set_active(kind, &name, None);
            let since = since.unwrap_or(now.mono);
            if timer.passed(since, Some(LINGER), now) {
                self.discard(kind, &name);
            } else {
                self.edit(kind, &name, |slot| slot.unwanted = Some(since));
            }
        }
    }

    /// Brings the subscriptions up to the references that changed, and starts the clocks of new names.
    fn subscribe(&mut self, now: Now) {
        let (mut begun, mut ended) = (Vec::new(), Vec::new());
        for (kind, name) in self.references.take_touched() {
            let slot = self.table(kind).get(&name);
            let fixed = slot.is_some_and(Slot::is_fixed);
            let places: Vec<_> = self.references.places(kind, &name).filter(|_| !fixed).collect();
            for ((source, _), wanted) in self.subscriptions.iter().filter(|((_, k), _)| *k == kind) {
                if wanted.names.contains(&name) && !places.contains(&Some(source)) {
                    ended.push(((source.clone(), kind), name.clone()));
                }
            }
            for source in places.iter().copied().flatten() {
                if !self.is_wanted(source, kind, &name) {
                    begun.push(((source.clone(), kind), name.clone()));
                }
            }
            let (none, unknown) = (places.is_empty(), slot.is_none());
            if none {
                if !unknown && !kind.is_wildcard() {
                    self.unrest.idle.insert((kind, name));
                }
                continue;
            }
            self.edit(kind, &name, |slot| {
                if slot.unwanted.take().is_some() || unknown {
                    // A new wait begins.
                    (slot.since, slot.absent) = (Some(now.mono), false);
                }
            });
        }
        if begun.is_empty() && ended.is_empty() {
            return;
        }
        let subscriptions = Arc::make_mut(&mut self.subscriptions);
        for (key, name) in begun {
            Arc::make_mut(&mut subscriptions.entry(key).or_default().names).insert(name);
        }
        for (key, name) in ended {
            if let Some(wanted) = subscriptions.get_mut(&key) {
                Arc::make_mut(&mut wanted.names).remove(&name);
            }
        }
        subscriptions.retain(|_, wanted| wanted.wildcard || !wanted.names.is_empty());
    }
}

fn addresses(version: Option<&Arc<Version>>) -> impl Iterator<Item = std::net::SocketAddr> {
    let listener = match version.map(|v| &v.resource) {
        Some(Resource::Listener(listener)) => Some(Arc::clone(listener)),
        _ => None,
    };
    listener.map(|l| l.addresses.clone()).into_iter().flatten()
}

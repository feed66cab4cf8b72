//! What comes into force: warming, make before break, removal after the last user has moved, and what to subscribe to.
//!
//! One pass in the order of dependency (secrets and endpoints, clusters, routes, listeners), then removals in the
//! opposite order. A replacement that waits leaves its predecessor in force.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    super::{decode::Resource, kind::Kind},
    Now, Origin, Slot, Store, Subscriptions, Table, Version, same,
};
use crate::ir::{ConfigSource, Name};

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
        for (name, slot) in self.table(kind).iter().filter(|(_, slot)| slot.is_pending()) {
            // An equal resource under a new version has nothing to wait for.
            let equal = matches!((&slot.latest, &slot.active), (Some(l), Some(a)) if same(&l.resource, &a.resource));
            ready.push((Arc::clone(name), if equal { None } else { waits(self, slot, now, timer) }));
        }
        for (name, reason) in ready {
            if let Some(reason) = reason {
                self.waiting.push((kind, name, reason));
                continue;
            }
            let Some(slot) = self.tables[kind as usize].get_mut(&name) else { continue };
            self.changed |= match (&slot.latest, &slot.active) {
                (Some(latest), Some(active)) => !same(&latest.resource, &active.resource),
                _ => true,
            };
            slot.active = slot.latest.clone();
            self.stale |= kind.is_wildcard();
        }
    }

    fn cluster_waits(&self, slot: &Slot, now: Now, timer: &mut Timer) -> Option<String> {
        let latest = slot.latest.as_ref()?;
        let first = slot.active.is_none();
        let endpoints = latest.needs.endpoints.iter().map(|(name, _)| (Kind::Endpoints, name));
        let secrets = latest.needs.secrets.iter().map(|secret| (Kind::Secret, &secret.name));
        self.missing(endpoints.chain(secrets), first, now, timer)
    }

    fn routes_wait(&self, slot: &Slot, now: Now, timer: &mut Timer) -> Option<String> {
        self.cold_cluster(slot.latest.as_ref()?, now, timer)
    }

    fn listener_waits(&self, slot: &Slot, now: Now, timer: &mut Timer) -> Option<String> {
        let latest = slot.latest.as_ref()?;
        let first = slot.active.is_none();
        let routes = latest.needs.routes.iter().map(|(name, _)| (Kind::Routes, name));
        let secrets = latest.needs.secrets.iter().map(|secret| (Kind::Secret, &secret.name));
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
        for name in &version.needs.clusters {
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
        let table = self.table(Kind::Listener);
        let successors: BTreeSet<_> =
            table.values().filter(|s| s.active.is_none()).flat_map(|s| addresses(s.latest.as_ref())).collect();
        let grace = Some(self.warming.removal_grace);
        let gone: Vec<Name> = table
            .iter()
            .filter(|(_, slot)| slot.latest.is_none() && slot.active.is_some())
            .filter(|(_, slot)| {
                let succeeded = addresses(slot.active.as_ref()).any(|a| successors.contains(&a));
                !succeeded || timer.passed(slot.since.unwrap_or(now.mono), grace, now)
            })
            .map(|(name, _)| Arc::clone(name))
            .collect();
        self.forget(Kind::Listener, &gone);
    }

    /// Removed clusters go when nothing in force names them any more, or when their time is over.
    fn drop_clusters(&mut self, now: Now, timer: &mut Timer) {
        let table = self.table(Kind::Cluster);
        if !table.values().any(|s| s.latest.is_none() && s.active.is_some()) {
            return;
        }
        let users = self.table(Kind::Listener).values().chain(self.table(Kind::Routes).values());
        let used: BTreeSet<&Name> = users.filter_map(|s| s.active.as_ref()).flat_map(|v| &v.needs.clusters).collect();
        let grace = Some(self.warming.removal_grace);
        let gone: Vec<Name> = table
            .iter()
            .filter(|(_, slot)| slot.latest.is_none() && slot.active.is_some())
            .filter(|(name, slot)| !used.contains(name) || timer.passed(slot.since.unwrap_or(now.mono), grace, now))
            .map(|(name, _)| Arc::clone(name))
            .collect();
        self.forget(Kind::Cluster, &gone);
    }

    fn forget(&mut self, kind: Kind, names: &[Name]) {
        for name in names {
            self.tables[kind as usize].remove(name);
            self.changed = true;
            self.stale = true;
        }
    }

    /// Named resources that nothing refers to any more leave at once, and are forgotten a little later.
    fn drop_unwanted(&mut self, now: Now, timer: &mut Timer) {
        for kind in [Kind::Endpoints, Kind::Routes, Kind::Secret] {
            let wanted: Vec<&BTreeSet<Name>> =
                self.subscriptions.iter().filter(|((_, k), _)| *k == kind).map(|(_, w)| &w.names).collect();
            let own: BTreeSet<&Name> = self.own.iter().filter(|(k, _)| *k == kind).map(|(_, name)| name).collect();
            let mut dropped = false;
            self.tables[kind as usize].retain(|name, slot| {
                if own.contains(name) || slot.is_fixed() || wanted.iter().any(|names| names.contains(name)) {
                    slot.unwanted = None;
                    return true;
                }
                dropped |= slot.active.take().is_some();
                !timer.passed(*slot.unwanted.get_or_insert(now.mono), Some(LINGER), now)
            });
            self.changed |= dropped;
        }
    }

    /// Recomputes the subscriptions if clusters or listeners changed, and starts the clocks of new names.
    fn subscribe(&mut self, now: Now) {
        if !std::mem::take(&mut self.stale) {
            return;
        }
        let mut wanted = Subscriptions::new();
        let mut own = BTreeSet::new();
        for (kind, source) in [(Kind::Cluster, &self.cds), (Kind::Listener, &self.lds)] {
            if let Some(source) = source {
                wanted.entry((source.clone(), kind)).or_default().wildcard = true;
            }
        }
        for kind in [Kind::Cluster, Kind::Listener] {
            for version in self.table(kind).values().flat_map(|s| s.latest.iter().chain(&s.active)) {
                let needs = &version.needs;
                let endpoints = needs.endpoints.iter().map(|(name, source)| (Kind::Endpoints, name, source));
                let routes = needs.routes.iter().map(|(name, source)| (Kind::Routes, name, source));
                let secrets = needs.secrets.iter().map(|s| (Kind::Secret, &s.name, &s.source));
                for (kind, name, source) in endpoints.chain(routes).chain(secrets) {
                    if self.table(kind).get(name).is_some_and(Slot::is_fixed) {
                        continue;
                    }
                    let here = kind == Kind::Secret && self.reserved.contains(name);
                    if here || *source == ConfigSource::Static {
                        own.insert((kind, Arc::clone(name)));
                        continue;
                    }
                    let names = &mut wanted.entry((absolute(source, &version.origin), kind)).or_default().names;
                    if !names.contains(name) {
                        names.insert(Arc::clone(name));
                    }
                }
            }
        }
        let asked = wanted.iter().flat_map(|((_, kind), w)| w.names.iter().map(|name| (*kind, name)));
        for (kind, name) in asked.chain(own.iter().map(|(kind, name)| (*kind, name))) {
            let table: &mut Table = &mut self.tables[kind as usize];
            match table.get_mut(name) {
                Some(slot) => {
                    if slot.unwanted.take().is_some() {
                        // A new wait begins.
                        (slot.since, slot.absent) = (Some(now.mono), false);
                    }
                }
                None => drop(table.insert(Arc::clone(name), Slot { since: Some(now.mono), ..Slot::default() })),
            }
        }
        self.own = own;
        if *self.subscriptions != wanted {
            self.subscriptions = Arc::new(wanted);
        }
    }
}

/// `SelfSource` is the source of the resource that says so; for static resources Envoy means the aggregated stream.
fn absolute(source: &ConfigSource, origin: &Origin) -> ConfigSource {
    match (source, origin) {
        (ConfigSource::SelfSource, Origin::Source(from)) => from.clone(),
        (ConfigSource::SelfSource, Origin::Static | Origin::Local) => ConfigSource::Ads,
        (other, _) => other.clone(),
    }
}

fn addresses(version: Option<&Arc<Version>>) -> impl Iterator<Item = std::net::SocketAddr> {
    let listener = match version.map(|v| &v.resource) {
        Some(Resource::Listener(listener)) => Some(Arc::clone(listener)),
        _ => None,
    };
    listener.map(|l| l.addresses.clone()).into_iter().flatten()
}

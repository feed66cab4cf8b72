//! The protocol of one ADS stream without its I/O: requests and worlds go in, pushes come out.
//!
//! Owns ordering: CDS, EDS, LDS, RDS, secrets; clusters and endpoints that are gone are taken away last, once the
//! client has accepted the listeners and routes that no longer use them (make before break). Nothing is queued:
//! [`Session::next`] compares what the client has with the latest world, so a slow client skips what lies between.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use outrigger_wire::pb::envoy::config::cluster::v3::Cluster;
use prost::Message;

use super::{
    source::{Set, Snapshot, Versioned},
    subscription::{Held, Standing, Subscription},
    types::TypeUrl,
};

/// Removals wait this long for a client that never acknowledges.
const REMOVAL_PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variant {
    Sotw,
    Delta,
}

/// One response, in neither variant's clothes yet.
#[derive(Debug, PartialEq)]
pub(super) struct Push {
    pub kind: TypeUrl,
    pub nonce: String,
    /// Version of all the client holds after it.
    pub version: String,
    pub resources: Vec<(String, Versioned)>,
    /// Delta only.
    pub removed: Vec<String>,
    /// How many resources the client holds after it.
    pub held: usize,
}

pub(super) struct Session {
    variant: Variant,
    snapshot: Option<Arc<Snapshot>>,
    secrets: Set,
    pub(super) subscriptions: BTreeMap<TypeUrl, Subscription>,
    /// EDS names whose clusters were pushed: Envoy holds a changed cluster back until its endpoints come (again).
    pub(super) warming: BTreeSet<String>,
    /// Since when removals are due.
    removals_since: Option<Instant>,
    nonces: u64,
}

impl Session {
    pub(super) fn new(variant: Variant) -> Self {
        Self {
            variant,
            snapshot: None,
            secrets: Set::new(),
            subscriptions: BTreeMap::new(),
            warming: BTreeSet::new(),
            removals_since: None,
            nonces: 0,
        }
    }

    /// Puts the latest world in place.
    pub(super) fn set_world(&mut self, snapshot: Arc<Snapshot>) {
        self.warming.retain(|name| snapshot.set(&TypeUrl::Endpoints).contains_key(name));
        self.snapshot = Some(snapshot);
        self.removals_since = None;
        for (kind, subscription) in &mut self.subscriptions {
            subscription.dirty |= *kind != TypeUrl::Secret;
        }
    }

    /// Puts the stream's secrets in place.
    pub(super) fn set_secrets(&mut self, secrets: Set) {
        self.secrets = secrets;
        if let Some(subscription) = self.subscriptions.get_mut(&TypeUrl::Secret) {
            subscription.dirty = true;
        }
    }

    /// The generation served, 0 before the first.
    pub(super) fn generation(&self) -> u64 {
        self.snapshot.as_ref().map_or(0, |s| s.generation)
    }

    /// Does the client ask for the secret `name`?
    pub(super) fn wants_secret(&self, name: &str) -> bool {
        self.subscriptions.get(&TypeUrl::Secret).is_some_and(|s| s.names.contains(name))
    }

    /// Has everything the latest world asks for been sent?
    pub(super) fn is_settled(&self) -> bool {
        self.snapshot.is_some() && self.removals_since.is_none() && self.subscriptions.values().all(|s| !s.dirty)
    }

    /// Is an answer to a response of `kind` outstanding, and does a refusal stand?
    pub(super) fn standing(&self, kind: &TypeUrl) -> (bool, bool) {
        let standing = self.subscriptions.get(kind).map_or(Standing::Accepted, Subscription::standing);
        (standing == Standing::Waiting, self.subscriptions.get(kind).is_some_and(Subscription::is_refused))
    }

    /// The next response due, if any. Call again until it returns `None`.
    pub(super) fn next(&mut self, now: Instant) -> Option<Push> {
        let snapshot = self.snapshot.clone();
        let due: Vec<TypeUrl> = self.subscriptions.iter().filter(|(_, s)| s.dirty).map(|(k, _)| k.clone()).collect();
        for kind in due {
            let push = match &snapshot {
                Some(snapshot) => self.push(&kind, snapshot.set(&kind)),
                // Before the first world only secrets can be given; an empty answer would take everything away.
                None if kind == TypeUrl::Secret => self.push(&kind, &Set::new()),
                None => None,
            };
            if push.is_some() {
                return push;
            }
        }
        self.remove(snapshot.as_ref()?, now)
    }

    /// When [`Self::next`] may have something although nothing happened.
    pub(super) fn wake_at(&self, now: Instant) -> Option<Instant> {
        self.removals_since.map(|since| since + REMOVAL_PATIENCE).filter(|at| *at > now)
    }

    /// Additions and changes of one type; for LDS and RDS removals too.
    fn push(&mut self, kind: &TypeUrl, world: &Set) -> Option<Push> {
        let set = if *kind == TypeUrl::Secret { &self.secrets } else { world };
        let subscription = self.subscriptions.get_mut(kind)?;
        subscription.dirty = false;
        let mut difference = subscription.difference(set);
        if self.variant == Variant::Delta && !(difference.changed.is_empty() && difference.gone.is_empty()) {
            // A refusal was of a whole response: with something to mend it, the rest of that response is said again,
            // as nothing else would ever bring an answer to it.
            let refused = subscription.refused().filter(|name| set.contains_key(*name)).cloned().collect::<Vec<_>>();
            if !refused.is_empty() {
                subscription.resend.extend(refused);
                difference = subscription.difference(set);
            }
        }
        let late = matches!(kind, TypeUrl::Cluster | TypeUrl::Endpoints);
        // With nothing left to wait for, what is gone needs no second response.
        let quiet = difference.changed.is_empty() && !subscription.owed;
        let (resources, removed) = match self.variant {
            Variant::Delta => {
                let mut removed = difference.absent;
                if !late {
                    removed.extend(difference.gone);
                }
                if quiet && removed.is_empty() {
                    return None;
                }
                (difference.changed, removed)
            }
            Variant::Sotw => {
                // Only CDS and LDS responses are the full state: elsewhere absence says nothing.
                let shrunk = *kind == TypeUrl::Listener && !difference.gone.is_empty();
                if !kind.is_full_state() {
                    difference.gone.iter().for_each(|name| subscription.forget(name));
                }
                if quiet && !shrunk {
                    return None;
                }
                let mut resources = subscription.wanted(set);
                if *kind == TypeUrl::Cluster {
                    // Clusters that are gone stay in this response; the one without them comes last.
                    for name in &difference.gone {
                        if let Some(Held { version, body: Some(body) }) = subscription.sent.get(name) {
                            let held = Versioned { version: Arc::clone(version), body: Arc::clone(body) };
                            resources.push((name.clone(), held));
                        }
                    }
                }
                (resources, Vec::new())
            }
        };
        if *kind == TypeUrl::Cluster {
            self.warm(&resources);
        } else if *kind == TypeUrl::Endpoints {
            self.warming.clear();
        }
        self.send(kind, resources, removed)
    }

    /// Notes which endpoints must follow the clusters about to be pushed.
    fn warm(&mut self, clusters: &[(String, Versioned)]) {
        let sent = self.subscriptions.get(&TypeUrl::Cluster).map(|s| &s.sent);
        let mut names = Vec::new();
        for (name, versioned) in clusters {
            let same = sent.and_then(|s| s.get(name)).is_some_and(|held| held.version == versioned.version);
            if let (false, Ok(cluster)) = (same, Cluster::decode(versioned.body.value.as_slice()))
                && let Some(eds) = cluster.eds_cluster_config
            {
                names.push(if eds.service_name.is_empty() { name.clone() } else { eds.service_name });
            }
        }
        if let Some(endpoints) = self.subscriptions.get_mut(&TypeUrl::Endpoints) {
            let wanted: Vec<String> = names.iter().filter(|name| endpoints.wants(name)).cloned().collect();
            endpoints.dirty |= !wanted.is_empty();
            endpoints.resend.extend(wanted);
        }
        self.warming.extend(names);
    }

    /// Clusters, then endpoints, that are gone.
    fn remove(&mut self, snapshot: &Snapshot, now: Instant) -> Option<Push> {
        let gone = |session: &Self, kind: &TypeUrl| {
            session.subscriptions.get(kind).map(|s| s.difference(snapshot.set(kind)).gone).unwrap_or_default()
        };
        let clusters = gone(self, &TypeUrl::Cluster);
        let endpoints = gone(self, &TypeUrl::Endpoints);
        if clusters.is_empty() && endpoints.is_empty() {
            self.removals_since = None;
            return None;
        }
        let since = *self.removals_since.get_or_insert(now);
        // A client that brought its clusters from an earlier stream has users of them too, though it may not have
        // asked for those yet.
        let held = |name: &String| self.subscriptions.get(&TypeUrl::Cluster).and_then(|s| s.sent.get(name));
        let brought = clusters.iter().any(|name| held(name).is_some_and(|held| held.body.is_none()));
        let unknown = if brought { Standing::Waiting } else { Standing::Accepted };
        let standing = |kind| self.subscriptions.get(&kind).map_or(unknown, Subscription::standing);
        let users = [standing(TypeUrl::Listener), standing(TypeUrl::Route)];
        // Refused routes still point at the old clusters; only a newer world can settle that.
        if users.contains(&Standing::Refused) || (users.contains(&Standing::Waiting) && now < since + REMOVAL_PATIENCE)
        {
            return None;
        }
        let (kind, names) =
            if clusters.is_empty() { (TypeUrl::Endpoints, endpoints) } else { (TypeUrl::Cluster, clusters) };
        let subscription = self.subscriptions.get_mut(&kind)?;
        names.iter().for_each(|name| subscription.forget(name));
        match self.variant {
            Variant::Delta => {
                // A name asked for explicitly is now known to be absent.
                subscription.known_absent.extend(names.iter().filter(|n| subscription.names.contains(*n)).cloned());
                self.send(&kind, Vec::new(), names)
            }
            Variant::Sotw => {
                let resources = subscription.wanted(snapshot.set(&kind));
                self.send(&kind, resources, Vec::new())
            }
        }
    }

    fn send(&mut self, kind: &TypeUrl, resources: Vec<(String, Versioned)>, removed: Vec<String>) -> Option<Push> {
        let subscription = self.subscriptions.get_mut(kind)?;
        for (name, versioned) in &resources {
            let held = Held { version: Arc::clone(&versioned.version), body: Some(Arc::clone(&versioned.body)) };
            subscription.sent.insert(name.clone(), held);
            subscription.known_absent.remove(name);
        }
        subscription.resend.clear();
        for name in &removed {
            subscription.forget(name);
            if subscription.names.contains(name) {
                subscription.known_absent.insert(name.clone());
            }
        }
        if self.variant == Variant::Sotw && *kind == TypeUrl::Listener {
            let now_held: BTreeSet<&String> = resources.iter().map(|(name, _)| name).collect();
            subscription.sent.retain(|name, _| now_held.contains(name));
        }
        self.nonces += 1;
        let nonce = format!("{:x}", self.nonces);
        let version = subscription.version();
        // What is removed cannot be refused: the client has dropped it.
        let names = resources.iter().map(|(name, _)| name.clone()).collect();
        subscription.responded(nonce.clone(), version.clone(), names);
        let held = subscription.sent.len();
        Some(Push { kind: kind.clone(), nonce, version, resources, removed, held })
    }
}

#[cfg(test)]
#[path = "session_tests/mod.rs"]
mod tests;

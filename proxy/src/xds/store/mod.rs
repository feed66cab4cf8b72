//! The resources: the latest accepted version of each, the version in force, and what is wrong with the last one sent.
//!
//! Sans-io: no clock, no tasks; [`Now`] comes in, [`Snapshot`]s and [`Wanted`] subscriptions go out. `apply` takes what
//! a source delivered, `warm` decides what comes into force, each looking only at what changed: `slots` and
//! `references` keep the rest up. The invariant: whatever is in force refers only to resources in force, to names the control plane
//! does not have, or to fetches that outlived their time.

mod apply;
mod claims;
mod fixed;
mod needs;
mod prepare;
mod references;
mod restore;
mod slots;
#[cfg(test)]
mod tests;
mod warm;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, LazyLock},
    time::{Duration, Instant, SystemTime},
};

use outrigger_wire::pb::google::protobuf::Any;

pub(in crate::xds) use self::apply::ttl;
pub use self::{
    apply::{Applied, Frame},
    prepare::{Prepared, prepare},
    restore::{Keeping, Kept, RESTORED},
};
use self::{needs::Needs, references::References, slots::Unrest};
use super::{
    config::{StartConfig, Warming},
    decode::{Notes, Reject, Resource},
    identity,
    kind::Kind,
};
use crate::ir::{ConfigSource, Name, cluster::Bind, snapshot::Snapshot};

/// The decoder, as a value so that tests can use a small one.
pub type Decode = fn(&Any, &mut Notes) -> Result<Resource, Reject>;

/// The two clocks, read once per event.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    pub mono: Instant,
    pub wall: SystemTime,
}

impl Now {
    pub fn read() -> Self {
        Self { mono: Instant::now(), wall: SystemTime::now() }
    }
}

/// Who delivered a resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The bootstrap: never replaced.
    Static,
    /// This process: the workload identity. Never replaced by a source.
    Local,
    Source(ConfigSource),
}

/// One accepted version of a resource.
#[derive(Debug)]
pub struct Version {
    pub resource: Resource,
    /// As received; `None` for static and local resources.
    pub raw: Option<Arc<[u8]>>,
    pub version: Arc<str>,
    pub updated: SystemTime,
    pub origin: Origin,
    /// Most resources need nothing.
    needs: Option<Box<Needs>>,
}

impl Version {
    fn needs(&self) -> &Needs {
        static NOTHING: LazyLock<Needs> = LazyLock::new(Needs::default);
        self.needs.as_deref().unwrap_or(&NOTHING)
    }
}

/// The last version that was refused.
#[derive(Clone, Debug)]
pub struct Failure {
    pub reason: Arc<str>,
    pub raw: Arc<[u8]>,
    pub version: Arc<str>,
    pub at: SystemTime,
}

/// All that is known of one name.
#[derive(Clone, Debug, Default)]
pub struct Slot {
    /// What the source last said, if it is good.
    pub latest: Option<Arc<Version>>,
    /// What is in force.
    pub active: Option<Arc<Version>>,
    pub failure: Option<Box<Failure>>,
    /// The source says that there is no such resource.
    absent: bool,
    /// Since when the name has been asked for (named types), or wanted and gone (wildcard types).
    since: Option<Instant>,
    /// Nobody refers to it any more, since when. Kept a while out of force: who asks again within a moment may
    /// find that the server saw neither the one nor the other, and sends nothing.
    unwanted: Option<Instant>,
    expires: Option<Instant>,
}

impl Slot {
    fn is_fixed(&self) -> bool {
        self.latest.as_ref().is_some_and(|v| !matches!(v.origin, Origin::Source(_)))
    }

    /// Whether the latest version is not the one in force.
    fn is_pending(&self) -> bool {
        self.unwanted.is_none()
            && match (&self.latest, &self.active) {
                (Some(latest), Some(active)) => !Arc::ptr_eq(latest, active),
                (Some(_), None) => true,
                _ => false,
            }
    }
}

pub type Table = BTreeMap<Name, Slot>;

/// What a source shall be asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub wildcard: bool,
    /// Shared with those who ask for them.
    pub names: Arc<BTreeSet<Name>>,
}

/// Subscriptions by source and type.
pub type Subscriptions = BTreeMap<(ConfigSource, Kind), Wanted>;

/// The store.
#[derive(Debug)]
pub struct Store {
    tables: [Table; 5],
    lds: Option<ConfigSource>,
    cds: Option<ConfigSource>,
    bind: Option<Bind>,
    warming: Warming,
    decode: Decode,
    started: Instant,
    received: BTreeSet<Kind>,
    subscriptions: Arc<Subscriptions>,
    references: References,
    unrest: Unrest,
    /// What is in force.
    snapshot: Snapshot,
    /// It changed since it was published last.
    changed: bool,
    waiting: Vec<(Kind, Name, String)>,
    notes: Notes,
    /// For versions that have none.
    unnamed: Arc<str>,
}

impl Store {
    /// A store with the static resources of `config`, nothing in force yet.
    pub fn new(config: &StartConfig, decode: Decode, now: Now) -> Self {
        let ads = |s: &Option<ConfigSource>| match s {
            // A top-level source cannot refer to itself; Envoy means the aggregated stream.
            Some(ConfigSource::SelfSource) => Some(ConfigSource::Ads),
            other => other.clone(),
        };
        let mut store = Self {
            tables: Default::default(),
            lds: ads(&config.lds),
            cds: ads(&config.cds),
            bind: config.upstream_bind.clone(),
            warming: config.warming,
            decode,
            started: now.mono,
            received: BTreeSet::new(),
            subscriptions: Arc::default(),
            references: References::new(
                config.has_identity().then_some(identity::NAMES).into_iter().flatten().map(Name::from).collect(),
            ),
            unrest: Unrest::default(),
            snapshot: Snapshot::default(),
            changed: true,
            waiting: Vec::new(),
            notes: Notes::default(),
            unnamed: "".into(),
        };
        for (kind, source) in [(Kind::Cluster, &store.cds), (Kind::Listener, &store.lds)] {
            if let Some(source) = source {
                let subscriptions = Arc::make_mut(&mut store.subscriptions);
                subscriptions.entry((source.clone(), kind)).or_default().wildcard = true;
            }
        }
        store.replace_statics(&config.statics, now);
        store
    }

    /// How long the first activation of what refers to a secret waits for it from now on.
    pub fn set_patience_for_secrets(&mut self, patience: Option<Duration>) {
        self.warming.secrets = patience;
    }

    pub fn table(&self, kind: Kind) -> &Table {
        &self.tables[kind as usize]
    }

    /// What each source shall be asked for. The same `Arc` as long as nothing changed.
    pub fn subscriptions(&self) -> &Arc<Subscriptions> {
        &self.subscriptions
    }

    /// The versions that `origin` delivered and that are still held, for `initial_resource_versions`.
    pub fn versions(&self, source: &ConfigSource, kind: Kind) -> BTreeMap<String, String> {
        let held = |slot: &Slot| {
            let latest = slot.latest.as_ref()?;
            let ours = matches!(&latest.origin, Origin::Source(s) if s == source);
            (ours && !latest.version.is_empty()).then(|| latest.version.to_string())
        };
        self.table(kind).iter().filter_map(|(name, slot)| Some((name.to_string(), held(slot)?))).collect()
    }

    /// Resources that wait, each with what for; as of the last `resolve`.
    pub fn waiting(&self) -> &[(Kind, Name, String)] {
        &self.waiting
    }

    /// Whether clusters have arrived, are not to be had, or have had their time: what is unknown then does not exist.
    fn settled(&self, now: Now) -> bool {
        let waited = now.mono.saturating_duration_since(self.started);
        self.received(Kind::Cluster) || self.warming.clusters.is_some_and(|limit| waited >= limit)
    }

    /// Whether the wildcard type has answered or is not configured.
    pub fn received(&self, kind: Kind) -> bool {
        let source = if kind == Kind::Listener { &self.lds } else { &self.cds };
        source.is_none() || self.received.contains(&kind)
    }

    /// What is in force, as a new snapshot if anything changed since the last call.
    pub fn publish(&mut self) -> Option<Snapshot> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        self.snapshot.version += 1;
        Some(self.snapshot.clone())
    }

    /// How many resources of the type have an accepted version.
    pub fn known(&self, kind: Kind) -> usize {
        self.unrest.known[kind as usize]
    }

    fn timeout(&self, kind: Kind) -> Option<Duration> {
        match kind {
            Kind::Endpoints => self.warming.endpoints,
            Kind::Routes => self.warming.routes,
            Kind::Secret => self.warming.secrets,
            Kind::Cluster | Kind::Listener => self.warming.clusters,
        }
    }
}

/// The type of a decoded resource.
pub fn kind_of(resource: &Resource) -> Kind {
    match resource {
        Resource::Listener(_) => Kind::Listener,
        Resource::Cluster(_) => Kind::Cluster,
        Resource::Endpoints { .. } => Kind::Endpoints,
        Resource::Routes { .. } => Kind::Routes,
        Resource::Secret { .. } => Kind::Secret,
    }
}

/// Whether both are the very same object.
fn same(a: &Resource, b: &Resource) -> bool {
    match (a, b) {
        (Resource::Listener(a), Resource::Listener(b)) => Arc::ptr_eq(a, b),
        (Resource::Cluster(a), Resource::Cluster(b)) => Arc::ptr_eq(a, b),
        (Resource::Endpoints { assignment: a, .. }, Resource::Endpoints { assignment: b, .. }) => Arc::ptr_eq(a, b),
        (Resource::Routes { routes: a, .. }, Resource::Routes { routes: b, .. }) => Arc::ptr_eq(a, b),
        (Resource::Secret { secret: a, .. }, Resource::Secret { secret: b, .. }) => Arc::ptr_eq(a, b),
        _ => false,
    }
}

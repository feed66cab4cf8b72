//! What is served: one generation of the world, and per client its versioned resources.
//!
//! Owns versions (a hash of each resource's bytes), the per-node cache and the interning of equal resources, so that a
//! thousand proxies that see the same cluster share one copy. Invariant: a [`Snapshot`] never changes.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Instant,
};

use aws_lc_rs::digest;
use outrigger_wire::pb::google::protobuf::Any;
use tokio::sync::watch;

use super::types::TypeUrl;
use crate::{
    ratelimit::rules::Objects,
    resources::{Node, Resources},
    status::metrics::Metrics,
};

/// A resource and the version its bytes have.
#[derive(Clone, Debug, PartialEq)]
pub struct Versioned {
    pub version: Arc<str>,
    pub body: Arc<Any>,
}

/// Resources of one type by name.
pub type Set = BTreeMap<String, Versioned>;

/// All resources of one client at one generation.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub generation: u64,
    clusters: Set,
    endpoints: Set,
    listeners: Set,
    routes: Set,
    none: Set,
}

impl Snapshot {
    /// The resources of `kind`. Secrets are not part of the world: they belong to the stream's identity.
    pub fn set(&self, kind: &TypeUrl) -> &Set {
        match kind {
            TypeUrl::Cluster => &self.clusters,
            TypeUrl::Endpoints => &self.endpoints,
            TypeUrl::Listener => &self.listeners,
            TypeUrl::Route => &self.routes,
            TypeUrl::Secret | TypeUrl::Other(_) => &self.none,
        }
    }
}

type Generate = dyn Fn(&Node) -> Resources + Send + Sync;
type Hash = [u8; 16];

/// One immutable state of the world, able to generate any client's resources.
pub struct Generation {
    /// Counts loads that were accepted, from 1.
    pub version: u64,
    /// Content hash of the directory it was loaded from.
    pub content: String,
    /// What the rate limit service holds requests against.
    pub limits: Objects,
    generate: Box<Generate>,
    snapshots: Mutex<HashMap<Node, Arc<Mutex<Weak<Snapshot>>>>>,
    interned: Mutex<HashMap<Hash, Weak<Any>>>,
}

/// The publishing end: the latest generation, `None` before the first good load.
pub type Publisher = watch::Sender<Option<Arc<Generation>>>;
/// The reading end.
pub type Worlds = watch::Receiver<Option<Arc<Generation>>>;

impl Generation {
    pub fn new(
        version: u64,
        content: String,
        generate: impl Fn(&Node) -> Resources + Send + Sync + 'static,
    ) -> Arc<Self> {
        Self::with_limits(version, content, Objects::new(), generate)
    }

    /// As [`Self::new`], with limits for the rate limit service.
    pub fn with_limits(
        version: u64,
        content: String,
        limits: Objects,
        generate: impl Fn(&Node) -> Resources + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            version,
            content,
            limits,
            generate: Box::new(generate),
            snapshots: Mutex::default(),
            interned: Mutex::default(),
        })
    }

    /// The resources of `node`; generated once per generation while a client holds them. CPU bound, may take long.
    pub fn snapshot(&self, node: &Node, metrics: &Metrics) -> Arc<Snapshot> {
        let slot = {
            let mut snapshots = self.snapshots.lock().unwrap_or_else(PoisonError::into_inner);
            if !snapshots.contains_key(node) && snapshots.len().is_power_of_two() {
                // Amortised: nodes that are gone leave nothing behind.
                snapshots.retain(|_, slot| {
                    Arc::strong_count(slot) > 1 || slot.try_lock().map_or(true, |weak| weak.strong_count() > 0)
                });
            }
            Arc::clone(snapshots.entry(node.clone()).or_default())
        };
        // Per node: two streams of one node wait for one translation, other nodes do not.
        let mut held = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(snapshot) = held.upgrade() {
            return snapshot;
        }
        let start = Instant::now();
        let resources = (self.generate)(node);
        let snapshot = Arc::new(Snapshot {
            generation: self.version,
            clusters: self.version_all(resources.clusters),
            endpoints: self.version_all(resources.endpoints),
            listeners: self.version_all(resources.listeners),
            routes: self.version_all(resources.routes),
            none: Set::new(),
        });
        metrics.translated(start.elapsed());
        *held = Arc::downgrade(&snapshot);
        snapshot
    }

    fn version_all(&self, resources: BTreeMap<String, Any>) -> Set {
        resources.into_iter().map(|(name, any)| (name, self.version_one(any))).collect()
    }

    fn version_one(&self, any: Any) -> Versioned {
        let hash = hash(&any);
        let mut interned = self.interned.lock().unwrap_or_else(PoisonError::into_inner);
        if interned.len().is_power_of_two() && !interned.contains_key(&hash) {
            interned.retain(|_, weak| weak.strong_count() > 0);
        }
        let body = interned.get(&hash).and_then(Weak::upgrade).unwrap_or_else(|| {
            let body = Arc::new(any);
            interned.insert(hash, Arc::downgrade(&body));
            body
        });
        Versioned { version: hex(&hash).into(), body }
    }
}

/// Versions a resource outside any generation (secrets).
pub fn version(any: Any) -> Versioned {
    Versioned { version: hex(&hash(&any)).into(), body: Arc::new(any) }
}

/// One version for a whole set: what SotW calls `version_info`.
pub fn version_of_set<'a>(entries: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for (name, version) in entries {
        context.update(&(name.len() as u64).to_le_bytes());
        context.update(name.as_bytes());
        context.update(version.as_bytes());
    }
    hex(&context.finish().as_ref()[..8])
}

fn hash(any: &Any) -> Hash {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(any.type_url.as_bytes());
    context.update(&[0]);
    context.update(&any.value);
    let mut hash = Hash::default();
    hash.copy_from_slice(&context.finish().as_ref()[..16]);
    hash
}

/// Lower case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|b| [b >> 4, b & 15]).map(|n| char::from_digit(u32::from(n), 16).unwrap_or('0')).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::resources::ClientKind;

    fn node(id: &str) -> Node {
        Node {
            id: id.into(),
            kind: ClientKind::Envoy,
            namespace: "n".into(),
            service_account: "s".into(),
            ips: Vec::new(),
            labels: BTreeMap::new(),
            locality: Default::default(),
        }
    }

    fn any(value: &str) -> Any {
        Any { type_url: "t/x".into(), value: value.as_bytes().to_vec() }
    }

    #[test]
    fn cached_per_node_and_shared_between_nodes() {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let generation = Generation::new(3, "c".into(), move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            Resources { clusters: [("a".to_owned(), any("1"))].into(), ..Resources::default() }
        });
        let metrics = Metrics::default();
        let one = generation.snapshot(&node("one"), &metrics);
        let again = generation.snapshot(&node("one"), &metrics);
        assert!(Arc::ptr_eq(&one, &again));
        assert_eq!((calls.load(Ordering::Relaxed), one.generation), (1, 3));
        let two = generation.snapshot(&node("two"), &metrics);
        let body = |s: &Snapshot| Arc::clone(&s.set(&TypeUrl::Cluster)["a"].body);
        assert!(Arc::ptr_eq(&body(&one), &body(&two)));
    }

    #[test]
    fn nodes_that_left_are_forgotten() {
        let generation = Generation::new(1, "c".into(), |_| Resources::default());
        let metrics = Metrics::default();
        for i in 0..1000 {
            drop(generation.snapshot(&node(&i.to_string()), &metrics));
        }
        let held = generation.snapshots.lock().unwrap().len();
        assert!(held < 600, "{held} slots of nodes that are gone");
    }

    #[test]
    fn versions_follow_bytes() {
        assert_eq!(version(any("1")).version, version(any("1")).version);
        assert_ne!(version(any("1")).version, version(any("2")).version);
        assert_ne!(version_of_set([("a", "1"), ("b", "2")].into_iter()), version_of_set([("a", "1b2")].into_iter()));
        assert_eq!(hex(&[0, 0x1f, 0xff]), "001fff");
    }
}

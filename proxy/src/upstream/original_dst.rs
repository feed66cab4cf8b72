//! Endpoints of `ORIGINAL_DST` clusters: one per address a connection was meant for.
//!
//! Owns a bounded cache per worker, so a repeated destination keeps its endpoint object (and with it its pooled
//! connections). No lock, no clock: entries that two sweeps in a row found unused are dropped.

use std::{cell::RefCell, collections::HashMap, net::SocketAddr, sync::Arc};

use super::{
    cluster::{Cluster, Life},
    endpoint::Endpoint,
};
use crate::ir::endpoint::Address;

/// Destinations kept per worker over all clusters; beyond it endpoints are made for one use.
const CAPACITY: usize = 16_384;

struct Entry {
    endpoint: Arc<Endpoint>,
    cluster: Arc<Life>,
    /// The sweep count when it was last picked.
    used: u64,
}

#[derive(Default)]
struct Cache {
    entries: HashMap<(u64, SocketAddr), Entry, foldhash::fast::RandomState>,
    sweeps: u64,
}

thread_local! {
    static CACHE: RefCell<Cache> = RefCell::default();
}

/// The endpoint of `cluster` for `address`.
pub(super) fn endpoint(cluster: &Cluster, address: SocketAddr) -> Arc<Endpoint> {
    CACHE.with_borrow_mut(|cache| {
        let transport = cluster.parts().transports.select(None);
        let sweeps = cache.sweeps;
        let key = (cluster.id(), address);
        if let Some(entry) = cache.entries.get_mut(&key) {
            if entry.endpoint.is_same("", transport) {
                entry.used = sweeps;
                return entry.endpoint.clone();
            }
            // The transport socket changed: connections made with the old one are not to be reused.
            entry.endpoint.set_removed(true);
            cache.entries.remove(&key);
        }
        let endpoint = Endpoint::new(Address::Ip(address), "".into(), None, transport);
        if cache.entries.len() >= CAPACITY {
            cache.entries.retain(|_, e| Arc::strong_count(&e.endpoint) > 1);
        }
        if cache.entries.len() < CAPACITY {
            let entry = Entry { endpoint: endpoint.clone(), cluster: cluster.life().clone(), used: sweeps };
            cache.entries.insert(key, entry);
        } else {
            // Nobody will find it again: its connections are for one use.
            endpoint.set_removed(true);
        }
        endpoint
    })
}

/// Forgets the calling worker's destinations that were unused (no pick, no request, no pooled connection) since the
/// sweep before the last one. To be called periodically, Envoy's `cleanup_interval` being 5 s.
pub fn sweep() {
    CACHE.with_borrow_mut(|cache| {
        cache.sweeps += 1;
        let oldest = cache.sweeps.saturating_sub(1);
        for entry in cache.entries.values().filter(|e| e.cluster.is_retired()) {
            // Pools let go of idle connections to it, and with the last one the entry goes.
            entry.endpoint.set_removed(true);
        }
        cache.entries.retain(|_, e| e.used >= oldest || Arc::strong_count(&e.endpoint) > 1);
        if cache.entries.capacity() > 1024 && cache.entries.len() < cache.entries.capacity() / 8 {
            cache.entries.shrink_to_fit();
        }
    });
}

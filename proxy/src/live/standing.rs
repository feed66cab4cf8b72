//! What is in force for the connections of a filter chain, whichever version of the chain they came through.
//!
//! Shared by all versions of a chain: those with the same match of the same listener. A connection outlives an update
//! of its chain, its permissions do not. Invariant: what was replaced decides nothing any more, neither on a request
//! that comes later nor on whether a connection may go on.

use std::sync::{
    Arc, Mutex, PoisonError, Weak,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::{ArcSwap, ArcSwapOption};

use super::{LiveFilters, LiveNetwork};
use crate::drain::Source;

/// See the module's head.
#[derive(Default)]
pub struct Standing {
    network: ArcSwap<LiveNetwork>,
    /// `None` where the chain is not HTTP.
    http: ArcSwapOption<LiveFilters>,
    /// Counts replacements.
    generation: AtomicU64,
    /// The ends of the chain's versions: their connections listen there.
    sources: Mutex<Vec<Weak<Source>>>,
}

impl Standing {
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub fn network(&self) -> Arc<LiveNetwork> {
        self.network.load_full()
    }

    pub fn http(&self) -> Option<Arc<LiveFilters>> {
        self.http.load_full()
    }

    /// Puts the filters of the newest version in force and has every connection look at them.
    pub fn replace(&self, network: Arc<LiveNetwork>, http: Option<Arc<LiveFilters>>, source: &Arc<Source>) {
        self.network.store(network);
        self.http.store(http);
        {
            let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
            sources.retain(|known| known.strong_count() > 0);
            if !sources.iter().any(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(source))) {
                sources.push(Arc::downgrade(source));
            }
        }
        self.reconsider();
    }

    /// Has every connection look at which chain of its listener it belongs to by now, and what is in force there.
    pub fn reconsider(&self) {
        self.generation.fetch_add(1, Ordering::Release);
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.iter().filter_map(Weak::upgrade).for_each(|source| source.wake());
    }
}

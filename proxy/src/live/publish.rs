//! Publication: one writer, many workers, one atomic load to notice a change.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::Live;

#[cfg(test)]
#[path = "publish_tests.rs"]
mod tests;

/// A worker's own handle on a snapshot: cloning it touches no memory another worker writes.
pub type LiveRef = Rc<Arc<Live>>;

/// The writer's side.
pub struct Publisher {
    current: ArcSwap<Live>,
    /// Counts publications. Workers compare it before they touch `current`.
    generation: AtomicU64,
    changed: watch::Sender<u64>,
}

impl Default for Publisher {
    fn default() -> Self {
        Self {
            current: ArcSwap::from_pointee(Live::default()),
            generation: AtomicU64::new(0),
            changed: watch::Sender::new(0),
        }
    }
}

impl Publisher {
    pub fn current(&self) -> Arc<Live> {
        self.current.load_full()
    }

    /// Puts `live` in force for every connection and request from now on, and returns its predecessor.
    pub fn publish(&self, live: Arc<Live>) -> Arc<Live> {
        let previous = self.current.swap(live.clone());
        // First what filters refer to, then the filters: who sees new ones sees their clusters.
        let generation = self.generation.fetch_add(1, Ordering::Release) + 1;
        live.enforce(&previous);
        self.changed.send_replace(generation);
        previous
    }

    /// Notified of every publication.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

/// A worker's side: caches the snapshot until the generation moves.
pub struct Reader {
    publisher: Arc<Publisher>,
    seen: Cell<u64>,
    cached: RefCell<LiveRef>,
}

impl Reader {
    pub fn new(publisher: Arc<Publisher>) -> Self {
        // The generation is read first: a publication in between is then noticed at the next `get`.
        let seen = Cell::new(publisher.generation.load(Ordering::Acquire));
        let cached = RefCell::new(Rc::new(publisher.current()));
        Self { publisher, seen, cached }
    }

    /// The snapshot in force.
    pub fn get(&self) -> LiveRef {
        let generation = self.publisher.generation.load(Ordering::Acquire);
        if generation != self.seen.get() {
            *self.cached.borrow_mut() = Rc::new(self.publisher.current());
            self.seen.set(generation);
        }
        self.cached.borrow().clone()
    }
}

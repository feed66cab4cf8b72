//! What one worker needs to serve HTTP.

use std::{
    cell::{Cell, Ref, RefCell},
    rc::Rc,
    sync::{Arc, Weak},
    time::Instant,
};

use super::{body::Body, client::Pool, filters};
use crate::live::{Live, LiveJwt, Reader};

/// How short the process is of memory or descriptors, and what is given up for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    #[default]
    None,
    /// New connections and requests are refused.
    Shed,
    /// Connections that idle are closed besides.
    Tight,
}

/// One per worker: the snapshot in force and the upstream connections.
pub struct Engine {
    pub live: Reader,
    pub pool: Pool<Body>,
    /// What the worker's connections hold memory with.
    pub held: Rc<Gauge>,
    /// Filters whose keys are fetched ahead, of the snapshot looked at last.
    ahead: RefCell<(Weak<Live>, Vec<Arc<LiveJwt>>)>,
    /// As the control thread last said.
    pub pressure: Cell<Pressure>,
}

impl Engine {
    pub fn new(live: Reader) -> Self {
        Self { live, pool: Pool::new(), held: Rc::default(), ahead: RefCell::default(), pressure: Cell::default() }
    }

    /// Lets go of pooled connections nobody wants any more, and gets keys that will be wanted; to be called about once
    /// a second.
    pub fn sweep(self: &Rc<Self>, now: Instant) {
        self.pool.sweep(now);
        filters::fetch_ahead(self);
    }

    /// The filters in force whose keys are fetched before they are needed.
    pub(super) fn ahead(&self) -> Ref<'_, Vec<Arc<LiveJwt>>> {
        let live = self.live.get();
        let mut known = self.ahead.borrow_mut();
        if !std::ptr::eq(known.0.as_ptr(), Arc::as_ptr(&live)) {
            *known = (Arc::downgrade(&live), live.ahead().cloned().collect());
        }
        drop(known);
        Ref::map(self.ahead.borrow(), |(_, filters)| filters)
    }
}

/// Counts things that take memory, to tell when much of it was let go of.
#[derive(Debug, Default)]
pub struct Gauge {
    now: Cell<usize>,
    peak: Cell<usize>,
    #[cfg(test)]
    ever: Cell<usize>,
}

impl Gauge {
    /// Fewer are not worth a look.
    const MANY: usize = 64;

    /// Counts one until the guard is dropped.
    pub fn hold(self: &Rc<Self>) -> Held {
        self.now.set(self.now.get() + 1);
        self.peak.set(self.peak.get().max(self.now.get()));
        #[cfg(test)]
        self.ever.set(self.ever.get() + 1);
        Held(self.clone())
    }

    /// How many there are, and how many there ever were.
    #[cfg(test)]
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.now.get(), self.ever.get())
    }

    /// Whether much of what there was is gone since this last said so.
    pub fn fell(&self) -> bool {
        let (now, peak) = (self.now.get(), self.peak.get());
        let fell = peak - now >= Self::MANY.max(peak / 8);
        if fell {
            self.peak.set(now);
        }
        fell
    }
}

/// See [`Gauge::hold`].
#[derive(Debug)]
pub struct Held(Rc<Gauge>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.now.set(self.0.now.get() - 1);
    }
}

#[cfg(test)]
mod tests;

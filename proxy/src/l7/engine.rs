//! What one worker needs to serve HTTP.

use std::{
    cell::{Cell, Ref, RefCell},
    rc::Rc,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use super::{
    body::Body,
    client::Pool,
    filters,
    flow::{Flow, Kept},
};
use crate::live::{Live, LiveJwt, Reader};

/// How short the process is of memory or descriptors, and what is given up for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    #[default]
    None,
    /// Nothing is short, but there may only be so many requests: [`RequestBound`].
    Counted,
    /// New connections and requests are refused.
    Shed,
    /// Connections that idle are closed besides.
    Tight,
}

/// How many requests may be under way at once, over all workers.
#[derive(Debug)]
pub struct RequestBound {
    max: u64,
    active: AtomicU64,
}

/// A request under way, one of so many.
struct Admitted(Arc<RequestBound>);

impl RequestBound {
    pub fn new(max: u64) -> Self {
        Self { max, active: AtomicU64::new(0) }
    }

    fn admit(self: &Arc<Self>) -> Option<Admitted> {
        let within = |n: u64| (n < self.max).then(|| n + 1);
        self.active.fetch_update(Relaxed, Relaxed, within).ok().map(|_| Admitted(self.clone()))
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Relaxed);
    }
}

impl Kept for Admitted {
    fn end(self: Box<Self>, _: bool) {}
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
    /// Without one, requests are not counted.
    requests: Option<Arc<RequestBound>>,
}

impl Engine {
    pub fn new(live: Reader) -> Self {
        Self {
            live,
            pool: Pool::new(),
            held: Rc::default(),
            ahead: RefCell::default(),
            pressure: Cell::default(),
            requests: None,
        }
    }

    /// With a bound on requests.
    pub fn bounded(mut self, requests: Option<Arc<RequestBound>>) -> Self {
        self.requests = requests;
        self.press(Pressure::None);
        self
    }

    /// Notes how short the process is.
    pub fn press(&self, pressure: Pressure) {
        let least = if self.requests.is_some() { Pressure::Counted } else { Pressure::None };
        self.pressure.set(pressure.max(least));
    }

    /// Whether there is room for another request, which then takes it.
    pub(super) fn admit(&self, flow: &Flow) -> bool {
        let Some(bound) = &self.requests else { return true };
        bound.admit().map(|admitted| flow.keep(Box::new(admitted))).is_some()
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

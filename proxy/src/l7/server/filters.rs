//! The HTTP filters a connection's requests go through: the newest ones of its filter chain.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

use crate::live::{LiveFilters, LiveHcm, Standing};

/// The filters in force.
#[allow(clippy::redundant_allocation, reason = "requests count references on their own worker only")]
pub(super) type InForce = Rc<Arc<LiveFilters>>;

/// Kept per connection: asking costs one load of memory that is hardly ever written.
pub(super) struct Filters {
    seen: Cell<u64>,
    current: RefCell<InForce>,
}

impl Filters {
    pub(super) fn new(hcm: &LiveHcm) -> Self {
        // The generation first: what is replaced in between is noticed at the next look.
        let seen = Cell::new(hcm.standing.generation());
        let current = hcm.standing.http().unwrap_or_else(|| hcm.filters.clone());
        Self { seen, current: RefCell::new(Rc::new(current)) }
    }

    pub(super) fn get(&self, standing: &Standing) -> InForce {
        let generation = standing.generation();
        if self.seen.replace(generation) != generation
            && let Some(newest) = standing.http()
        {
            *self.current.borrow_mut() = Rc::new(newest);
        }
        self.current.borrow().clone()
    }
}

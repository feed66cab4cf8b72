//! Connections that may go on as long as the newest filters of their chain let them.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

use super::filters;
use crate::{
    drain::{Guard, Signal},
    live::{LiveChain, LiveNetwork, Standing},
    telemetry::record::ConnInfo,
};

/// The network filters that are in force, and a signal that ends the connection when later ones refuse it.
pub(super) fn of(chain: &LiveChain, info: &Rc<ConnInfo>, signal: Signal) -> (Signal, Arc<LiveNetwork>) {
    let standing = &chain.standing;
    let (seen, info) = (Cell::new(standing.generation()), info.clone());
    let network = standing.network();
    let guard = Revocable { standing: standing.clone(), seen, info, refusal: RefCell::default() };
    (signal.guarded(Rc::new(guard)), network)
}

struct Revocable {
    standing: Arc<Standing>,
    seen: Cell<u64>,
    info: Rc<ConnInfo>,
    refusal: RefCell<Option<Rc<str>>>,
}

impl Guard for Revocable {
    fn refusal(&self) -> Option<Rc<str>> {
        let generation = self.standing.generation();
        let mut refusal = self.refusal.borrow_mut();
        if refusal.is_none() && self.seen.replace(generation) != generation {
            *refusal = filters::again(&self.standing.network(), &self.info).map(Rc::from);
            if let Some(details) = &*refusal {
                tracing::debug!(peer = %self.info.remote, destination = %self.info.local, %details,
                    "connection closed: it is not allowed any more");
            }
        }
        refusal.clone()
    }
}

//! Connections that may go on as long as the newest filters of their chain let them.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

use super::{
    filters::{self, Refusal},
    review::Reviewed,
};
use crate::{
    drain::{Changes, Guard, Phase, Signal},
    l7::Engine,
    live::{LiveChain, LiveNetwork, Standing},
    telemetry::{flags::Flags, record::ConnInfo},
};

/// The generation of a chain's filters that a connection has seen which chose the chain in this configuration.
/// If that is not the one in force any more, none: the connection is judged again at once.
pub(super) fn seen(chain: &LiveChain, version: u64, engine: &Engine) -> u64 {
    // In this order: a publication comes before what it has connections look at.
    let generation = chain.standing.generation();
    match engine.live.get().version == version {
        true => generation,
        false => generation.wrapping_sub(1),
    }
}

/// The network filters that are in force, and a signal that ends the connection when later ones refuse it.
/// When another chain takes such connections, `reviewed` judges.
pub(super) fn of(
    chain: &LiveChain,
    seen: u64,
    info: &Rc<ConnInfo>,
    signal: Signal,
    reviewed: Option<Reviewed>,
) -> (Signal, Arc<LiveNetwork>) {
    let standing = &chain.standing;
    let (seen, info) = (Cell::new(seen), info.clone());
    let network = standing.network();
    let (refusal, changes) = (RefCell::default(), Rc::default());
    let guard = Revocable { standing: standing.clone(), seen, info, reviewed, refusal, changes };
    (signal.guarded(Rc::new(guard)), network)
}

/// Why a connection that has only just been accepted is not let in: what it came by is no more.
pub(super) fn refusal(signal: &Signal) -> Option<Refusal> {
    let refusal = signal.refusal();
    (refusal.is_some() || signal.phase() >= Phase::Overdue).then(|| {
        let details = refusal.map_or("drained".into(), |refusal| refusal.to_string().into());
        Refusal { flags: Flags::LOCAL_RESET, details, delay: None }
    })
}

struct Revocable {
    standing: Arc<Standing>,
    seen: Cell<u64>,
    info: Rc<ConnInfo>,
    reviewed: Option<Reviewed>,
    refusal: RefCell<Option<Rc<str>>>,
    changes: Rc<Changes>,
}

impl Guard for Revocable {
    fn refusal(&self, chain: Phase) -> Option<Rc<str>> {
        let generation = self.standing.generation();
        let newer = self.seen.replace(generation) != generation;
        if newer {
            self.changes.announce();
        }
        let mut refusal = self.refusal.borrow_mut();
        if refusal.is_none() && newer {
            *refusal = filters::again(&self.standing.network(), &self.info).map(Rc::from);
            if let Some(details) = &*refusal {
                tracing::debug!(peer = %self.info.remote, destination = %self.info.local, %details,
                    "connection closed: it is not allowed any more");
            }
        }
        if refusal.is_none()
            && (newer || chain >= Phase::Drain)
            && let Some(reviewed) = &self.reviewed
        {
            let replaced = chain >= Phase::Drain;
            *refusal = reviewed.refusal(&self.info, &self.standing, replaced).map(Rc::from);
        }
        refusal.clone()
    }

    fn changes(&self) -> Option<&Rc<Changes>> {
        Some(&self.changes)
    }
}

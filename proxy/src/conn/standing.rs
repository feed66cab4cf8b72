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
    drain::{Guard, Phase, Signal},
    live::{LiveChain, LiveNetwork, Standing},
    telemetry::{flags::Flags, record::ConnInfo},
};

/// The network filters that are in force, and a signal that ends the connection when later ones refuse it.
/// When the chain itself was replaced, `reviewed` judges.
pub(super) fn of(
    chain: &LiveChain,
    info: &Rc<ConnInfo>,
    signal: Signal,
    reviewed: Option<Reviewed>,
) -> (Signal, Arc<LiveNetwork>) {
    let standing = &chain.standing;
    let (seen, info) = (Cell::new(standing.generation()), info.clone());
    let network = standing.network();
    let guard = Revocable { standing: standing.clone(), seen, info, reviewed, refusal: RefCell::default() };
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
}

impl Guard for Revocable {
    fn refusal(&self, chain: Phase) -> Option<Rc<str>> {
        let generation = self.standing.generation();
        let mut refusal = self.refusal.borrow_mut();
        if refusal.is_none() && self.seen.replace(generation) != generation {
            *refusal = filters::again(&self.standing.network(), &self.info).map(Rc::from);
            if let Some(details) = &*refusal {
                tracing::debug!(peer = %self.info.remote, destination = %self.info.local, %details,
                    "connection closed: it is not allowed any more");
            }
        }
        if refusal.is_none()
            && chain >= Phase::Drain
            && let Some(reviewed) = &self.reviewed
        {
            *refusal = reviewed.refusal(&self.info).map(Rc::from);
        }
        refusal.clone()
    }
}

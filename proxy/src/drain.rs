//! The orderly end of connections: who asks for it, and how a connection hears of it.
//!
//! A [`Source`] belongs to whatever ends: the process (one per direction) or a filter chain that an update removed. A
//! connection holds a [`Signal`] over both of its sources and obeys the more urgent one. Phases only move forward. A
//! connection whose chain drains is judged by what replaced it: who would not be admitted any more is cut at once.

use std::rc::Rc;

use tokio::sync::watch;

/// How urgent the end is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    #[default]
    Run,
    /// Finish what is under way; tell HTTP peers to go elsewhere.
    Drain,
    /// Close now.
    Force,
}

/// The side that ends things.
#[derive(Debug, Default)]
pub struct Source(watch::Sender<State>);

#[derive(Clone, Copy, Debug, Default)]
struct State {
    phase: Phase,
    /// Grows whenever connections are to be judged anew.
    rules: u64,
}

/// Whether the configuration in force would still admit a connection.
pub type Review = Rc<dyn Fn() -> bool>;

impl Source {
    /// Moves to `phase`; going back is ignored.
    pub fn advance(&self, phase: Phase) {
        self.0.send_if_modified(|current| {
            let forward = phase > current.phase;
            if forward {
                current.phase = phase;
            }
            forward
        });
    }

    /// Has every connection look again at what else may end it.
    pub fn wake(&self) {
        self.0.send_modify(|state| state.rules += 1);
    }

    pub fn phase(&self) -> Phase {
        self.0.borrow().phase
    }

    /// How many connections listen to this source.
    pub fn listeners(&self) -> usize {
        self.0.receiver_count()
    }

    fn subscribe(&self) -> watch::Receiver<State> {
        self.0.subscribe()
    }
}

/// A reason of a connection's own to end. Asked whenever its chain's source says something.
pub trait Guard {
    /// Why it may not go on.
    fn refusal(&self) -> Option<Rc<str>>;
}

/// What a connection listens to.
#[derive(Clone)]
pub struct Signal {
    process: watch::Receiver<State>,
    chain: watch::Receiver<State>,
    guard: Option<Rc<dyn Guard>>,
    review: Option<Review>,
}

impl Signal {
    pub fn new(process: &Source, chain: &Source) -> Self {
        Self { process: process.subscribe(), chain: chain.subscribe(), guard: None, review: None }
    }

    /// The same for a connection that is judged again when its chain is gone.
    pub fn reviewed(self, review: Review) -> Self {
        Self { review: Some(review), ..self }
    }

    /// With a reason of the connection's own to close.
    pub fn guarded(self, guard: Rc<dyn Guard>) -> Self {
        Self { guard: Some(guard), ..self }
    }

    /// Why the connection may not go on, whatever the sources say.
    pub fn refusal(&self) -> Option<Rc<str>> {
        self.guard.as_ref().and_then(|guard| guard.refusal())
    }

    /// The more urgent phase of the two sources, refusals apart.
    pub fn phase(&self) -> Phase {
        let chain = self.chain.borrow().phase;
        self.process.borrow().phase.max(if self.revoked() { Phase::Force } else { chain })
    }

    /// Whether the configuration in force does not admit this connection any more.
    pub fn revoked(&self) -> bool {
        let draining = self.chain.borrow().phase >= Phase::Drain;
        draining && self.review.as_ref().is_some_and(|admits| !admits())
    }

    /// Resolves once draining (or worse) was asked for.
    pub async fn draining(&mut self) {
        // A source that is gone can ask for nothing any more: its side then waits for ever.
        tokio::select! {
            () = reached(&mut self.process, Phase::Drain, None) => {}
            () = reached(&mut self.chain, Phase::Drain, self.guard.as_deref()) => {}
        }
    }

    /// Resolves once the connection has to close now.
    pub async fn forced(&mut self) {
        tokio::select! {
            () = reached(&mut self.process, Phase::Force, None) => {}
            () = cut(&mut self.chain, self.guard.as_deref(), self.review.as_ref()) => {}
        }
    }
}

async fn reached(source: &mut watch::Receiver<State>, wanted: Phase, guard: Option<&dyn Guard>) {
    let refused = || guard.is_some_and(|guard| guard.refusal().is_some());
    if source.wait_for(|state| state.phase >= wanted || refused()).await.is_err() && source.borrow().phase < wanted {
        std::future::pending::<()>().await;
    }
}

/// Waits until a chain cuts its connections, or does not admit this one any more.
async fn cut(chain: &mut watch::Receiver<State>, guard: Option<&dyn Guard>, review: Option<&Review>) {
    loop {
        let phase = chain.borrow_and_update().phase;
        let refused = guard.is_some_and(|guard| guard.refusal().is_some());
        if refused || phase >= Phase::Force || (phase >= Phase::Drain && review.is_some_and(|admits| !admits())) {
            return;
        }
        if chain.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn either_source_is_heard_and_phases_never_go_back() {
        let (process, chain) = (Source::default(), Source::default());
        let mut signal = Signal::new(&process, &chain);
        assert_eq!(signal.phase(), Phase::Run);
        chain.advance(Phase::Drain);
        signal.draining().await;
        process.advance(Phase::Force);
        process.advance(Phase::Run);
        signal.forced().await;
        assert_eq!(signal.phase(), Phase::Force);
    }

    #[tokio::test]
    async fn who_is_not_admitted_any_more_is_cut_as_soon_as_the_chain_drains() {
        let (process, chain) = (Source::default(), Source::default());
        let admitted = Rc::new(std::cell::Cell::new(true));
        let verdict = admitted.clone();
        let mut signal = Signal::new(&process, &chain).reviewed(Rc::new(move || verdict.get()));
        admitted.set(false);
        assert_eq!(signal.phase(), Phase::Run, "a chain in force admits its connections");
        admitted.set(true);
        chain.advance(Phase::Drain);
        assert_eq!(signal.phase(), Phase::Drain);
        let mut other = signal.clone();
        let forced = signal.forced();
        tokio::pin!(forced);
        assert!(futures_util::poll!(&mut forced).is_pending());
        admitted.set(false);
        chain.wake();
        forced.await;
        other.forced().await;
        assert!(other.revoked());
    }

    #[tokio::test]
    async fn a_source_that_is_gone_asks_for_nothing() {
        let (process, chain) = (Source::default(), Source::default());
        let mut signal = Signal::new(&process, &chain);
        drop(chain);
        process.advance(Phase::Drain);
        signal.draining().await;
        assert_eq!(signal.phase(), Phase::Drain);
    }
}

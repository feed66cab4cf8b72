//! The orderly end of connections: who asks for it, and how a connection hears of it.
//!
//! A [`Source`] belongs to whatever ends: the process (one per direction) or a filter chain that an update removed. A
//! connection holds a [`Signal`] over both of its sources and obeys the more urgent one. Phases only move forward.

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
#[derive(Debug)]
pub struct Source(watch::Sender<Phase>);

impl Default for Source {
    fn default() -> Self {
        Self(watch::Sender::new(Phase::Run))
    }
}

impl Source {
    /// Moves to `phase`; going back is ignored.
    pub fn advance(&self, phase: Phase) {
        self.0.send_if_modified(|current| {
            let forward = phase > *current;
            if forward {
                *current = phase;
            }
            forward
        });
    }

    /// Has every connection look again at what else may end it.
    pub fn wake(&self) {
        self.0.send_modify(|_| {});
    }

    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// How many connections listen to this source.
    pub fn listeners(&self) -> usize {
        self.0.receiver_count()
    }

    fn subscribe(&self) -> watch::Receiver<Phase> {
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
    process: watch::Receiver<Phase>,
    chain: watch::Receiver<Phase>,
    guard: Option<Rc<dyn Guard>>,
}

impl Signal {
    pub fn new(process: &Source, chain: &Source) -> Self {
        Self { process: process.subscribe(), chain: chain.subscribe(), guard: None }
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
        (*self.process.borrow()).max(*self.chain.borrow())
    }

    /// Resolves once draining (or worse) was asked for.
    pub async fn draining(&mut self) {
        self.reached(Phase::Drain).await;
    }

    /// Resolves once the connection has to close now.
    pub async fn forced(&mut self) {
        self.reached(Phase::Force).await;
    }

    async fn reached(&mut self, wanted: Phase) {
        // A source that is gone can ask for nothing any more: its side then waits for ever.
        tokio::select! {
            () = reached(&mut self.process, wanted, None) => {}
            () = reached(&mut self.chain, wanted, self.guard.as_deref()) => {}
        }
    }
}

async fn reached(source: &mut watch::Receiver<Phase>, wanted: Phase, guard: Option<&dyn Guard>) {
    let refused = || guard.is_some_and(|guard| guard.refusal().is_some());
    if source.wait_for(|phase| *phase >= wanted || refused()).await.is_err() && *source.borrow() < wanted {
        std::future::pending::<()>().await;
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
    async fn a_source_that_is_gone_asks_for_nothing() {
        let (process, chain) = (Source::default(), Source::default());
        let mut signal = Signal::new(&process, &chain);
        drop(chain);
        process.advance(Phase::Drain);
        signal.draining().await;
        assert_eq!(signal.phase(), Phase::Drain);
    }
}

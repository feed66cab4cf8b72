//! The orderly end of connections: who asks for it, and how a connection hears of it.
//!
//! A [`Source`] belongs to whatever ends: the process (one per direction) or a filter chain that an update removed. A
//! connection holds a [`Signal`] over both of its sources and obeys the more urgent one. Phases only move forward.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::Waker,
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

/// Connections that are overdue close at a moment of their own within this time: not all of them connect again at once.
const SPREAD: Duration = Duration::from_secs(10);

/// How urgent the end is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    #[default]
    Run,
    /// Finish what is under way; tell HTTP peers to go elsewhere.
    Drain,
    /// Close soon, not all at once.
    Overdue,
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
    /// Why it may not go on, now that its chain is that far. Must not ask the chain's source, which is being read.
    fn refusal(&self, chain: Phase) -> Option<Rc<str>>;

    /// Told whenever it finds that others than before decide who may go on.
    fn changes(&self) -> Option<&Rc<Changes>> {
        None
    }
}

/// Wakes what goes on over a connection when others decide than before, and may not want it any more. Of one worker.
#[derive(Debug, Default)]
pub struct Changes(RefCell<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    places: Vec<Option<Waker>>,
    /// Places that nobody has.
    free: Vec<usize>,
}

/// A place among those that wait, once there is one.
#[derive(Debug, Default)]
pub struct Ticket(Cell<Option<usize>>);

impl Changes {
    /// Has `waker` woken by each change.
    pub fn register(&self, ticket: &Ticket, waker: &Waker) {
        let mut waiting = self.0.borrow_mut();
        let Waiting { places, free } = &mut *waiting;
        let place = ticket.0.get().or_else(|| free.pop()).unwrap_or(places.len());
        ticket.0.set(Some(place));
        let former = match places.get_mut(place) {
            Some(Some(known)) if known.will_wake(waker) => None,
            Some(known) => known.replace(waker.clone()),
            None => {
                places.push(Some(waker.clone()));
                None
            }
        };
        drop(waiting);
        // Not before: what hangs on it may wait here as well.
        drop(former);
    }

    pub fn forget(&self, ticket: &Ticket) {
        if let Some(place) = ticket.0.take() {
            let mut waiting = self.0.borrow_mut();
            let left = waiting.places.get_mut(place).and_then(Option::take);
            waiting.free.push(place);
            drop(waiting);
            drop(left);
        }
    }

    pub fn announce(&self) {
        self.0.borrow().places.iter().flatten().for_each(Waker::wake_by_ref);
    }
}

/// What a connection listens to.
#[derive(Clone)]
pub struct Signal {
    process: watch::Receiver<Phase>,
    chain: watch::Receiver<Phase>,
    guard: Option<Rc<dyn Guard>>,
    /// When it closes, once it is overdue.
    close_at: Option<Instant>,
}

impl Signal {
    pub fn new(process: &Source, chain: &Source) -> Self {
        Self { process: process.subscribe(), chain: chain.subscribe(), guard: None, close_at: None }
    }

    /// With a reason of the connection's own to close.
    pub fn guarded(self, guard: Rc<dyn Guard>) -> Self {
        Self { guard: Some(guard), ..self }
    }

    /// Why the connection may not go on, whatever the sources say.
    pub fn refusal(&self) -> Option<Rc<str>> {
        let chain = *self.chain.borrow();
        self.guard.as_ref().and_then(|guard| guard.refusal(chain))
    }

    /// What tells of changes of who decides.
    pub fn changes(&self) -> Option<Rc<Changes>> {
        self.guard.as_ref()?.changes().cloned()
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
        self.reached(Phase::Overdue).await;
        if self.phase() == Phase::Overdue && self.refusal().is_none() {
            let at = *self.close_at.get_or_insert_with(|| Instant::now() + SPREAD.mul_f64(fastrand::f64()));
            // Boxed: it is rare, and every connection has room for this future.
            Box::pin(async {
                tokio::select! {
                    () = self.reached(Phase::Force) => {}
                    () = sleep_until(at) => {}
                }
            })
            .await;
        }
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
    let refused = |phase| guard.is_some_and(|guard| guard.refusal(phase).is_some());
    if source.wait_for(|phase| *phase >= wanted || refused(*phase)).await.is_err() && *source.borrow() < wanted {
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

    struct Once(std::cell::Cell<bool>);

    impl Guard for Once {
        fn refusal(&self, chain: Phase) -> Option<Rc<str>> {
            (chain >= Phase::Drain && !self.0.get()).then(|| "not any more".into())
        }
    }

    #[tokio::test]
    async fn who_is_refused_once_its_chain_drains_is_cut() {
        let (process, chain) = (Source::default(), Source::default());
        let admitted = Rc::new(Once(std::cell::Cell::new(false)));
        let mut signal = Signal::new(&process, &chain).guarded(admitted.clone());
        assert!(signal.refusal().is_none(), "a chain in force admits its connections");
        admitted.0.set(true);
        chain.advance(Phase::Drain);
        {
            let forced = signal.forced();
            tokio::pin!(forced);
            assert!(futures_util::poll!(&mut forced).is_pending());
            admitted.0.set(false);
            chain.wake();
            forced.await;
        }
        assert_eq!(signal.refusal().as_deref(), Some("not any more"));
    }

    #[test]
    fn changes_wake_those_that_wait_and_nobody_else() {
        struct Count(std::sync::atomic::AtomicU32);
        impl std::task::Wake for Count {
            fn wake(self: std::sync::Arc<Self>) {
                self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        }
        let count = std::sync::Arc::new(Count(Default::default()));
        let woken = || count.0.load(std::sync::atomic::Ordering::Relaxed);
        let (changes, first, second) = (Changes::default(), Ticket::default(), Ticket::default());
        changes.forget(&first);
        for ticket in [&first, &second, &first] {
            changes.register(ticket, &count.clone().into());
        }
        changes.announce();
        assert_eq!(woken(), 2);
        changes.forget(&first);
        changes.announce();
        assert_eq!(woken(), 3, "until it is forgotten");
    }

    #[tokio::test]
    async fn overdue_connections_do_not_all_close_at_once() {
        let (process, chain) = (Source::default(), Source::default());
        chain.advance(Phase::Overdue);
        let (start, mut ends) = (Instant::now(), std::collections::BTreeSet::new());
        for _ in 0..50 {
            let mut signal = Signal::new(&process, &chain);
            signal.draining().await;
            let _ = futures_util::poll!(std::pin::pin!(signal.forced()));
            let end = signal.close_at.unwrap();
            // Asked again and again, as a loop does: its moment stays.
            let _ = futures_util::poll!(std::pin::pin!(signal.forced()));
            assert_eq!(signal.close_at, Some(end));
            assert!(end <= Instant::now() + SPREAD && end >= start);
            ends.insert(end);
        }
        assert!(ends.len() > 40, "{ends:?}");
        let mut late = Signal::new(&process, &chain);
        process.advance(Phase::Force);
        late.forced().await;
        assert_eq!(late.close_at, None, "what is forced is not put off");
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

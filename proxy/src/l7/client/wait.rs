//! Requests that wait for a connection, in order; those that were given up meanwhile do not count.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
};

use tokio::sync::oneshot;

use super::{Payload, dial::Plan, lane::Lease};
use crate::{
    telemetry::metrics::{ClusterStats, Sharded},
    upstream::{ConnectError, ConnectErrorKind},
};

/// What a waiting request gets.
pub(super) type Grant<B> = Result<Lease<B>, ConnectError>;

/// A request that waits.
pub(super) struct Waiter<B: Payload> {
    pub(super) answer: oneshot::Sender<Grant<B>>,
    plan: Rc<Plan>,
}

pub(super) struct Waiters<B: Payload> {
    queue: RefCell<VecDeque<Waiter<B>>>,
    /// How many in the queue nobody waits for any more.
    abandoned: Cell<usize>,
}

impl<B: Payload> Default for Waiters<B> {
    fn default() -> Self {
        Self { queue: RefCell::default(), abandoned: Cell::new(0) }
    }
}

impl<B: Payload> Waiters<B> {
    /// How many requests wait.
    pub(super) fn len(&self) -> usize {
        self.queue.borrow().len() - self.abandoned.get()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn push<'a>(&'a self, plan: Rc<Plan>, stats: &'a Sharded<ClusterStats>) -> Waiting<'a, B> {
        let (answer, granted) = oneshot::channel();
        self.queue.borrow_mut().push_back(Waiter { answer, plan });
        stats.local().upstream_rq_pending_active.inc();
        Waiting { waiters: self, stats, granted, done: false }
    }

    /// How to dial for the request that came last: it has the newest view of the cluster.
    pub(super) fn newest_plan(&self) -> Option<Rc<Plan>> {
        self.queue.borrow().back().map(|w| w.plan.clone())
    }

    /// Takes the request out that has waited longest.
    pub(super) fn next(&self) -> Option<Waiter<B>> {
        loop {
            let waiter = self.queue.borrow_mut().pop_front()?;
            if !waiter.answer.is_closed() {
                return Some(waiter);
            }
            self.abandoned.set(self.abandoned.get().saturating_sub(1));
        }
    }

    fn abandon(&self) {
        self.abandoned.set(self.abandoned.get() + 1);
        if self.abandoned.get() > 16 + self.queue.borrow().len() / 2 {
            self.queue.borrow_mut().retain(|w| !w.answer.is_closed());
            self.abandoned.set(0);
        }
    }
}

/// A place in the queue; dropping it gives it up.
pub(super) struct Waiting<'a, B: Payload> {
    waiters: &'a Waiters<B>,
    stats: &'a Sharded<ClusterStats>,
    granted: oneshot::Receiver<Grant<B>>,
    done: bool,
}

impl<B: Payload> Waiting<'_, B> {
    pub(super) async fn granted(mut self) -> Grant<B> {
        let grant = (&mut self.granted).await;
        self.done = true;
        grant.unwrap_or_else(|_| {
            let reason = "the connection pool is closed".to_owned();
            Err(ConnectError { kind: ConnectErrorKind::Io, reason })
        })
    }
}

impl<B: Payload> Drop for Waiting<'_, B> {
    fn drop(&mut self) {
        self.stats.local().upstream_rq_pending_active.dec();
        if self.done {
            return;
        }
        self.granted.close();
        match self.granted.try_recv() {
            // Granted in the same moment: the connection is not lost.
            Ok(Ok(lease)) => lease.give_back(),
            Ok(Err(_)) => {}
            Err(_) => self.waiters.abandon(),
        }
    }
}

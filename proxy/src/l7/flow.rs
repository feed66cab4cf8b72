//! One exchange while it runs: its record, and what its timers need to know.
//!
//! Shared by the pipeline and both bodies on one worker. Holds no I/O.

use std::{
    cell::{Cell, OnceCell, RefCell},
    rc::Rc,
    task::Waker,
    time::{Duration, Instant},
};

use super::{
    again::Admitted,
    server::{Active, Connection},
};
use crate::telemetry::{
    exchange::{HttpScope, RequestRecord},
    flags::Flags,
    metrics::ClusterStats,
};

/// See the module's head.
pub struct Flow {
    pub record: RequestRecord,
    /// `stream_idle_timeout`, as the route overrides it.
    idle: Cell<Option<Duration>>,
    last_activity: Cell<Instant>,
    watched: Cell<bool>,
    /// `flush_timeout`: how long a complete response may wait for the client, where that differs from `idle`.
    flush: Cell<Option<Option<Duration>>>,
    /// `per_try_idle_timeout` of the try whose response this is.
    try_idle: Cell<Option<Duration>>,
    /// The route's timeout: how long after the request's end the response must be through.
    response_limit: Cell<Option<Duration>>,
    /// Who waits for the request's last byte.
    waiter: RefCell<Option<Waker>>,
    /// The response body must be through by then.
    deadline: Cell<Option<Deadline>>,
    /// When the request was ready to go on, where filters held it up.
    resumed: Cell<Option<Instant>>,
    /// The request's body could not be understood.
    malformed: Cell<bool>,
    /// By what it may go on for long.
    admitted: OnceCell<Box<Admitted>>,
    /// What lives exactly as long as the exchange.
    kept: RefCell<Vec<Box<dyn Kept>>>,
    /// The connection this exchange keeps busy.
    active: Option<Active>,
}

/// What lives as long as an exchange.
pub trait Kept {
    /// The exchange ended, with its whole response sent or not.
    fn end(self: Box<Self>, answered: bool);
}

/// A moment after which a response body is cut, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    pub at: Instant,
    pub kind: DeadlineKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadlineKind {
    /// The route's timeout.
    Response,
    /// `max_stream_duration`.
    Stream,
    /// The cluster's `max_stream_duration`.
    Upstream,
}

impl Flow {
    pub(super) fn open(scope: Rc<HttpScope>, version: http::Version, active: Option<Active>) -> Rc<Self> {
        let record = RequestRecord::open(scope, version);
        let last_activity = Cell::new(record.started());
        Rc::new(Self {
            record,
            idle: Cell::new(None),
            last_activity,
            watched: Cell::new(false),
            flush: Cell::new(None),
            try_idle: Cell::new(None),
            response_limit: Cell::new(None),
            waiter: RefCell::default(),
            deadline: Cell::new(None),
            resumed: Cell::new(None),
            malformed: Cell::new(false),
            admitted: OnceCell::new(),
            kept: RefCell::default(),
            active,
        })
    }

    /// Notes by what the request was let through; the first time counts.
    pub(super) fn admit(&self, admitted: Admitted) {
        let _ = self.admitted.set(Box::new(admitted));
    }

    pub(super) fn admitted(&self) -> Option<&Admitted> {
        self.admitted.get().map(|admitted| &**admitted)
    }

    pub(super) fn connection(&self) -> Option<&Rc<Connection>> {
        self.active.as_ref().map(Active::connection)
    }

    pub fn set_idle(&self, idle: Option<Duration>) {
        self.idle.set(idle);
    }

    /// `flush_timeout`: limits how long a complete response may wait for the client.
    pub fn set_flush(&self, flush: Option<Duration>) {
        self.flush.set(Some(flush));
        if flush.is_some() {
            self.watch();
        }
    }

    /// How long a tunnel may be silent.
    pub fn idle(&self) -> Option<Duration> {
        self.idle.get().into_iter().chain(self.try_idle.get()).min()
    }

    /// Limits the silence of the try whose response goes to the client, which begins now.
    pub fn set_try_idle(&self, idle: Duration) {
        self.try_idle.set(Some(idle));
        self.last_activity.set(Instant::now());
    }

    /// When that try counts as idle, if nothing moves until then.
    pub fn try_idle_at(&self) -> Option<Instant> {
        let limit = self.try_idle.get().filter(|_| !self.record.is_response_complete());
        limit.map(|idle| self.last_activity.get() + idle)
    }

    pub fn limit_response(&self, limit: Duration) {
        self.response_limit.set(Some(limit));
    }

    /// Sets the earlier of the present and the given deadline.
    pub fn limit(&self, deadline: Deadline) {
        if self.deadline.get().is_none_or(|present| deadline.at < present.at) {
            self.deadline.set(Some(deadline));
        }
    }

    pub fn deadline(&self) -> Option<Deadline> {
        let (fixed, limit) = (self.deadline.get(), self.response_limit.get());
        if self.record.is_response_complete() {
            // All of it is here: no upstream is to blame any more.
            return fixed.filter(|d| d.kind == DeadlineKind::Stream);
        }
        let response = self.request_done().zip(limit).map(|(done, limit)| done + limit);
        match (fixed, response) {
            (Some(fixed), Some(at)) if fixed.at <= at => Some(fixed),
            (_, Some(at)) => Some(Deadline { at, kind: DeadlineKind::Response }),
            (fixed, None) => fixed,
        }
    }

    /// Whether there will be another deadline once the request is through.
    pub fn awaits_request(&self) -> bool {
        self.response_limit.get().is_some() && self.request_done().is_none()
    }

    /// A byte went in either direction.
    pub fn touch(&self) {
        if self.idle.get().is_some() || self.watched.get() {
            self.last_activity.set(Instant::now());
        }
    }

    /// Keeps track of activity even without an idle timeout of the stream.
    pub fn watch(&self) {
        self.watched.set(true);
    }

    pub fn last_activity(&self) -> Instant {
        self.last_activity.get()
    }

    /// When the stream counts as idle, if nothing moves until then.
    pub fn idle_at(&self) -> Option<Instant> {
        let flush = self.flush.get().filter(|_| self.record.is_response_complete());
        flush.unwrap_or(self.idle.get()).map(|idle| self.last_activity.get() + idle)
    }

    /// When the first limit on the response will be hit, if nothing moves until then.
    pub fn limit_at(&self) -> Option<Instant> {
        [self.deadline().map(|d| d.at), self.try_idle_at(), self.idle_at()].into_iter().flatten().min()
    }

    /// Notes and counts which limit on the response was hit.
    pub fn expire(&self, now: Instant, upstream: Option<&ClusterStats>) {
        let record = &self.record;
        let deadline = self.deadline().filter(|d| now >= d.at).map(|d| d.kind);
        let (flag, details) = match deadline {
            Some(DeadlineKind::Response) => (Flags::UPSTREAM_REQUEST_TIMEOUT, "response_timeout"),
            Some(DeadlineKind::Upstream) => {
                (Flags::UPSTREAM_MAX_STREAM_DURATION, "upstream_max_stream_duration_reached")
            }
            Some(DeadlineKind::Stream) => {
                record.scope().stats.local().downstream_rq_max_duration_reached.inc();
                (Flags::DURATION_TIMEOUT, "max_duration_timeout")
            }
            None if self.try_idle_at().is_some_and(|at| now >= at) => {
                (Flags::UPSTREAM_REQUEST_TIMEOUT, "upstream_per_try_idle_timeout")
            }
            None => {
                record.scope().stats.local().downstream_rq_idle_timeout.inc();
                (Flags::STREAM_IDLE_TIMEOUT, "stream_idle_timeout")
            }
        };
        if let Some(stats) = upstream {
            match details {
                "response_timeout" => stats.upstream_rq_timeout.inc(),
                "upstream_max_stream_duration_reached" => stats.upstream_rq_max_duration_reached.inc(),
                "upstream_per_try_idle_timeout" => stats.upstream_rq_per_try_idle_timeout.inc(),
                _ => {}
            }
        }
        record.flag(flag);
        record.details(details);
    }

    /// The request's last byte arrived: the timers that count from it start.
    pub fn request_complete(&self) {
        self.record.request_complete();
        if let Some(waiter) = self.waiter.borrow_mut().take() {
            waiter.wake();
        }
    }

    /// A filter held the request up until now: no upstream is to blame for that time.
    pub fn resume(&self) {
        self.resumed.set(Some(Instant::now()));
    }

    /// The request's body cannot be understood: the request is answered, not its client's leave noted.
    pub fn malformed(&self) {
        self.malformed.set(true);
    }

    pub fn is_malformed(&self) -> bool {
        self.malformed.get()
    }

    /// When the whole request was there and free to go on.
    pub fn request_done(&self) -> Option<Instant> {
        self.record.request_done().map(|done| self.resumed.get().map_or(done, |resumed| done.max(resumed)))
    }

    /// The request goes on as another one: what held on to the first is let go, its clocks are set back.
    pub fn start_over(&self) {
        self.release();
        self.record.start_over();
        self.deadline.set(None);
        self.resume();
    }

    /// Ends what was kept.
    fn release(&self) {
        for kept in self.kept.take() {
            kept.end(self.record.is_answered());
        }
    }

    /// Ends `guard` when the exchange ends.
    pub fn keep(&self, guard: Box<dyn Kept>) {
        self.kept.borrow_mut().push(guard);
    }

    pub fn wait_for_request(&self, waker: &Waker) {
        let mut waiter = self.waiter.borrow_mut();
        if !waiter.as_ref().is_some_and(|w| w.will_wake(waker)) {
            *waiter = Some(waker.clone());
        }
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.release();
        if self.record.request_done().is_some()
            && let Some(active) = &self.active
        {
            active.next_is_head();
        }
    }
}

//! Connections to one endpoint that are alike (protocol, ALPN, SNI), and the requests that wait for one.
//!
//! Owns the rules of waiting: a request takes what is free, else waits for whichever comes first, a released
//! connection or a new one. There are never more dials in progress than the waiting requests need, so a hundred
//! requests share one HTTP/2 dial. Knows nothing of how a connection carries a request.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Instant,
};

use super::{
    Payload,
    dial::{Dial, Plan, dial},
    http1::H1,
    http2::H2,
    types::{Attempt, HttpProtocol, Protocol, SendErrorKind},
    wait::Waiters,
};
use crate::upstream::{
    ConnectError, ConnectErrorKind, ConnectOptions, Endpoint, Scope,
    breaker::{Breaker, Permit},
};

/// Streams that a peer is taken to allow until it says otherwise; h2 assumes the same.
const ASSUMED_STREAMS: u32 = 100;

/// The right to send one request over a connection.
pub(super) enum Lease<B: Payload> {
    Http1(Rc<H1<B>>),
    Http2(Rc<H2<B>>),
}

impl<B: Payload> Lease<B> {
    pub(super) fn give_back(self) {
        match self {
            Self::Http1(connection) => connection.release(),
            Self::Http2(connection) => connection.release(),
        }
    }
}

pub(super) struct Lane<B: Payload> {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) scope: Rc<Scope>,
    pub(super) protocol: Protocol,
    alpn: Option<Arc<[Box<str>]>>,
    sni: Option<Box<str>>,
    /// HTTP/1 connections without a request, the last used on top.
    idle: RefCell<Vec<Rc<H1<B>>>>,
    /// All HTTP/1 connections.
    http1: RefCell<Vec<Rc<H1<B>>>>,
    /// HTTP/2 connections that take new streams, or still carry some.
    http2: RefCell<Vec<Rc<H2<B>>>>,
    waiters: Waiters<B>,
    dials: Cell<usize>,
    /// Streams that the dials in progress are expected to bring.
    expected: Cell<usize>,
    /// What the last handshake of an undecided dial agreed on.
    negotiated: Cell<Option<HttpProtocol>>,
    /// How many streams the peer allows, as far as its connections have said.
    peer_streams: Cell<u32>,
    pool: Permit,
    /// The host's failures that connections were let go of for.
    failures: Cell<u32>,
}

impl<B: Payload> Lane<B> {
    pub(super) fn new(attempt: &Attempt, pool: Permit) -> Rc<Self> {
        Rc::new(Self {
            endpoint: attempt.endpoint.clone(),
            scope: Scope::new(&attempt.cluster, attempt.endpoint.clone()),
            protocol: attempt.protocol,
            alpn: attempt.alpn.clone(),
            sni: attempt.sni.clone(),
            idle: RefCell::default(),
            http1: RefCell::default(),
            http2: RefCell::default(),
            waiters: Waiters::default(),
            dials: Cell::new(0),
            expected: Cell::new(0),
            negotiated: Cell::new(None),
            peer_streams: Cell::new(ASSUMED_STREAMS),
            pool,
            failures: Cell::new(attempt.endpoint.failures()),
        })
    }

    pub(super) fn serves(&self, attempt: &Attempt) -> bool {
        let same_alpn = match (&self.alpn, &attempt.alpn) {
            (Some(ours), Some(theirs)) => Arc::ptr_eq(ours, theirs) || ours == theirs,
            (None, None) => true,
            _ => false,
        };
        self.protocol == attempt.protocol && same_alpn && self.sni == attempt.sni
    }

    /// A connection that can take a request now.
    pub(super) fn checkout(&self, replayable: bool) -> Option<Lease<B>> {
        if let Some(shared) = self.http2.borrow().iter().find(|c| c.lease()) {
            return Some(Lease::Http2(shared.clone()));
        }
        if self.idle.borrow().is_empty() {
            return None;
        }
        let now = Instant::now();
        loop {
            let connection = self.idle.borrow_mut().pop()?;
            if connection.lease(now, replayable) {
                return Some(Lease::Http1(connection));
            }
            connection.close();
        }
    }

    /// Waits for a connection, with a dial if those in progress are not enough.
    pub(super) async fn wait(self: &Rc<Self>, attempt: &Attempt) -> Result<Lease<B>, SendErrorKind> {
        let stats = &attempt.cluster.stats;
        let Some(_pending) = self.scope.try_pending(attempt.high_priority) else {
            return Err(SendErrorKind::PoolOverflow);
        };
        let plan = Rc::new(Plan {
            cluster: attempt.cluster.clone(),
            options: ConnectOptions {
                alpn: self.alpn.clone().or_else(|| self.fallback_alpn()),
                sni: self.sni.clone(),
                downstream: attempt.downstream,
                high_priority: attempt.high_priority,
                past_limit: false,
            },
        });
        let waiting = self.waiters.push(plan, stats);
        self.dial_for_waiters();
        waiting.granted().await.map_err(SendErrorKind::Connect)
    }

    /// As Envoy: without configured protocols a connection offers what its pool speaks.
    fn fallback_alpn(&self) -> Option<Arc<[Box<str>]>> {
        if self.endpoint.tls.is_none() || self.endpoint.has_alpn() {
            return None;
        }
        let names: &[&str] = match self.protocol {
            Protocol::Http1 => &["http/1.1"],
            Protocol::Http2 => &["h2"],
            Protocol::Auto => &["h2", "http/1.1"],
        };
        Some(names.iter().map(|n| Box::from(*n)).collect())
    }

    /// The protocol of the next connection, as far as it is known.
    fn protocol(&self) -> Option<HttpProtocol> {
        match self.protocol {
            Protocol::Http1 => Some(HttpProtocol::Http1),
            Protocol::Http2 => Some(HttpProtocol::Http2),
            Protocol::Auto if self.endpoint.tls.is_none() => Some(HttpProtocol::Http1),
            Protocol::Auto => self.negotiated.get(),
        }
    }

    /// Counts a dial that is expected to bring so many streams.
    pub(super) fn dial_started(&self, brings: usize) {
        self.dials.set(self.dials.get() + 1);
        self.expected.set(self.expected.get() + brings);
    }

    pub(super) fn dial_ended(&self, brings: usize) {
        self.dials.set(self.dials.get() - 1);
        self.expected.set(self.expected.get() - brings);
    }

    pub(super) fn add_http1(&self, connection: Rc<H1<B>>) {
        self.negotiated.set(Some(HttpProtocol::Http1));
        self.http1.borrow_mut().push(connection);
    }

    pub(super) fn add_http2(&self, connection: Rc<H2<B>>) {
        self.negotiated.set(Some(HttpProtocol::Http2));
        self.http2.borrow_mut().push(connection);
    }

    /// How many streams the peer is known or taken to allow on a connection.
    pub(super) fn peer_streams(&self) -> u32 {
        self.peer_streams.get()
    }

    pub(super) fn learn_peer_streams(&self, streams: u32) {
        self.peer_streams.set(streams);
    }

    pub(super) fn dial_for_waiters(self: &Rc<Self>) {
        while self.expected.get() < self.waiters.len() {
            let Some(plan) = self.waiters.newest_plan() else { return };
            let brings = match self.protocol() {
                Some(HttpProtocol::Http1) => 1,
                // An undecided dial counts as HTTP/2 until the handshake says otherwise.
                Some(HttpProtocol::Http2) | None => {
                    let ours = plan.cluster.config.http.http2.max_concurrent_streams;
                    ours.min(self.peer_streams.get()).max(1) as usize
                }
            };
            let first = !self.has_connections() && self.dials.get() == 0;
            tokio::task::spawn_local(dial(Dial::new(self.clone(), brings), plan, first));
        }
    }

    /// A connection of ours is free, or took less than it could: it goes to those who wait.
    pub(super) fn offer_http1(&self, connection: Rc<H1<B>>) {
        if !self.waiters.is_empty() {
            if !connection.lease_fresh() {
                return connection.close();
            }
            let Some(waiter) = self.waiters.next() else { return self.push_idle(connection) };
            if let Err(Ok(lease)) = waiter.answer.send(Ok(Lease::Http1(connection))) {
                lease.give_back();
            }
            return;
        }
        self.push_idle(connection);
    }

    fn push_idle(&self, connection: Rc<H1<B>>) {
        connection.park();
        self.idle.borrow_mut().push(connection);
    }

    pub(super) fn offer_http2(&self, connection: &Rc<H2<B>>) {
        while !self.waiters.is_empty() && connection.lease() {
            let granted = self.waiters.next().map(|w| w.answer.send(Ok(Lease::Http2(connection.clone()))));
            if !matches!(granted, Some(Ok(()))) {
                connection.unlease();
            }
        }
    }

    /// A connection is gone: whoever waited for it may need another.
    pub(super) fn forget_http1(self: &Rc<Self>, connection: &Rc<H1<B>>) {
        self.idle.borrow_mut().retain(|c| !Rc::ptr_eq(c, connection));
        self.http1.borrow_mut().retain(|c| !Rc::ptr_eq(c, connection));
        self.dial_for_waiters();
    }

    pub(super) fn forget_http2(self: &Rc<Self>, connection: &Rc<H2<B>>) {
        self.http2.borrow_mut().retain(|c| !Rc::ptr_eq(c, connection));
        self.dial_for_waiters();
    }

    fn has_connections(&self) -> bool {
        !self.http1.borrow().is_empty() || !self.http2.borrow().is_empty()
    }

    /// A dial failed: requests beyond what the others will bring fail with it.
    pub(super) fn fail_waiters(&self, error: &ConnectError) {
        // At the connection limit with connections of our own, those are what the requests wait for.
        if error.kind == ConnectErrorKind::Overflow && (self.has_connections() || self.dials.get() > 0) {
            return;
        }
        while self.waiters.len() > self.expected.get() {
            let Some(waiter) = self.waiters.next() else { return };
            // The receiver may be gone in this very moment: nobody is left to tell.
            let _ = waiter.answer.send(Err(error.clone()));
        }
    }

    /// Closes what is to be closed by now.
    pub(super) fn sweep(&self, now: Instant) {
        // As in Envoy: connections to a host that was found to be failing are not what it is tried with again.
        let failures = self.endpoint.failures();
        let removed = self.failures.replace(failures) != failures || self.endpoint.is_removed();
        let generation = self.endpoint.tls.as_ref().map(|t| t.generation());
        // Closing calls back into the lane: work on copies.
        let http1: Vec<_> = self.http1.borrow().iter().cloned().collect();
        for connection in http1 {
            if connection.sweep(now, removed, generation) {
                self.idle.borrow_mut().retain(|c| !Rc::ptr_eq(c, &connection));
                connection.close();
            }
        }
        let http2: Vec<_> = self.http2.borrow().iter().cloned().collect();
        http2.iter().for_each(|c| c.sweep(now, removed, generation));
    }

    /// Closes everything that carries no request.
    pub(super) fn close_idle(&self) {
        let idle = std::mem::take(&mut *self.idle.borrow_mut());
        idle.iter().for_each(|c| c.close());
        let http2: Vec<_> = self.http2.borrow().iter().cloned().collect();
        http2.iter().for_each(|c| c.drain());
    }

    /// Whether `breaker` counts the lane.
    pub(super) fn is_of(&self, breaker: &Arc<Breaker>) -> bool {
        self.pool.is_of(breaker)
    }

    /// Whether the lane carries a request, or will in a moment.
    pub(super) fn is_busy(&self) -> bool {
        let idle = self.idle.borrow().len();
        let streams = self.http2.borrow().iter().any(|c| c.is_busy());
        streams || self.http1.borrow().len() > idle || self.dials.get() > 0 || !self.waiters.is_empty()
    }

    /// Whether nothing is left of the lane.
    pub(super) fn is_empty(&self) -> bool {
        !self.has_connections() && self.dials.get() == 0 && self.waiters.is_empty()
    }

    /// Connections: idle HTTP/1, all HTTP/1, HTTP/2.
    pub(super) fn counts(&self) -> [usize; 3] {
        [self.idle.borrow().len(), self.http1.borrow().len(), self.http2.borrow().len()]
    }
}

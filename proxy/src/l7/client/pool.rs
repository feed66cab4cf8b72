//! The pool of one worker: finds the lane of an attempt and sends through it.
//!
//! Looked up once per request by the endpoint's identity; the few lanes of an endpoint are compared in turn. Nothing
//! here outlives its use: a sweep drops connections, lanes and hosts that are no longer needed.

use std::{cell::RefCell, collections::HashMap, rc::Rc, sync::Arc, time::Instant};

use http::Request;
use smallvec::SmallVec;

use super::{
    Payload, http1, http2,
    lane::{Lane, Lease},
    types::{Attempt, SendError, SendErrorKind, Sent},
};
use crate::upstream::{Endpoint, breaker::Breaker};

/// All upstream HTTP connections of one worker.
pub struct Pool<B: Payload> {
    /// By the endpoint's address in memory; the lanes keep the endpoint alive, so it cannot be reused.
    hosts: RefCell<HashMap<*const Endpoint, Lanes<B>, foldhash::fast::RandomState>>,
}

type Lanes<B> = SmallVec<[Rc<Lane<B>>; 1]>;

impl<B: Payload> Default for Pool<B> {
    fn default() -> Self {
        Self { hosts: RefCell::default() }
    }
}

impl<B: Payload> Pool<B> {
    pub fn new() -> Self {
        Self::default()
    }

    /// Sends `request` over a pooled or new connection and waits for the response's headers. Dropping the future gives
    /// the request up. The head may be in HTTP/1 or HTTP/2 form, whatever the connection turns out to speak.
    #[allow(clippy::manual_async_fn, reason = "an async function would hold the request twice")]
    pub fn send<'a>(
        &'a self,
        attempt: &'a Attempt,
        request: Request<B>,
    ) -> impl Future<Output = Result<Sent, Box<SendError<B>>>> + 'a {
        async move {
            let Some(lane) = self.lane(attempt) else {
                return Err(unsent(SendErrorKind::PoolOverflow, request));
            };
            let lease = match lane.checkout(attempt.replayable) {
                Some(lease) => lease,
                None => match lane.wait(attempt).await {
                    Ok(lease) => lease,
                    Err(kind) => return Err(unsent(kind, request)),
                },
            };
            // As in Envoy a request counts as one from when it has a connection: who waits is limited by other means.
            let Some(permit) = lane.scope.try_request(attempt.high_priority) else {
                lease.give_back();
                return Err(unsent(SendErrorKind::PoolOverflow, request));
            };
            if let Some(clock) = &attempt.clock {
                clock.start();
            }
            match lease {
                Lease::Http1(connection) => http1::send(connection, request, permit).await,
                Lease::Http2(connection) => http2::send(connection, request, permit).await,
            }
        }
    }

    /// The pool of an attempt's kind; `None` when the cluster has as many as it may.
    pub(super) fn lane(&self, attempt: &Attempt) -> Option<Rc<Lane<B>>> {
        let host = Arc::as_ptr(&attempt.endpoint);
        if let Some(lane) = self.hosts.borrow().get(&host).and_then(|lanes| lanes.iter().find(|l| l.serves(attempt))) {
            return Some(lane.clone());
        }
        let breaker = attempt.cluster.breaker(attempt.high_priority);
        let Some(permit) = breaker.try_pool().or_else(|| {
            self.free_one(breaker);
            breaker.try_pool()
        }) else {
            attempt.cluster.stats.local().upstream_cx_pool_overflow.inc();
            return None;
        };
        let lane = Lane::new(attempt, permit);
        self.hosts.borrow_mut().entry(host).or_default().push(lane.clone());
        Some(lane)
    }

    /// Gives up a pool of the same cluster that carries no request, as Envoy does at the limit of pools.
    fn free_one(&self, breaker: &Arc<Breaker>) {
        let idle = self.all().into_iter().find(|lane| lane.is_of(breaker) && !lane.is_busy());
        let Some(lane) = idle else { return };
        lane.close_idle();
        let mut hosts = self.hosts.borrow_mut();
        if let Some(lanes) = hosts.get_mut(&Arc::as_ptr(&lane.endpoint)) {
            lanes.retain(|other| !Rc::ptr_eq(other, &lane));
        }
    }

    /// Closes what is idle too long, worn out, belongs to removed endpoints or to rotated certificates. To be called
    /// about once a second; that is also how long a timeout may be late.
    pub fn sweep(&self, now: Instant) {
        for lane in self.all() {
            lane.sweep(now);
        }
        self.hosts.borrow_mut().retain(|_, lanes| {
            // Somebody in `send` may hold a lane between lookup and checkout.
            lanes.retain(|l| Rc::strong_count(l) > 1 || !l.is_empty());
            !lanes.is_empty()
        });
    }

    /// Closes all connections that carry no request; to be called when the worker drains.
    pub fn close_idle(&self) {
        self.all().iter().for_each(|l| l.close_idle());
    }

    fn all(&self) -> Vec<Rc<Lane<B>>> {
        self.hosts.borrow().values().flatten().cloned().collect()
    }

    /// Whether nothing is pooled, dialled or in flight.
    pub fn is_empty(&self) -> bool {
        self.hosts.borrow().is_empty()
    }

    /// Connections of this worker: idle HTTP/1, all HTTP/1, HTTP/2.
    pub fn counts(&self) -> [usize; 3] {
        self.all().iter().fold([0; 3], |sum, lane| {
            let counts = lane.counts();
            [sum[0] + counts[0], sum[1] + counts[1], sum[2] + counts[2]]
        })
    }
}

fn unsent<B>(kind: SendErrorKind, request: Request<B>) -> Box<SendError<B>> {
    let reason = match &kind {
        SendErrorKind::Connect(error) => error.reason.clone(),
        _ => "overflow".to_owned(),
    };
    Box::new(SendError { kind, request: Some(request), reason, facts: None })
}

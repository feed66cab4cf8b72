//! What a failing exchange leaves for those who come when it is over.
//!
//! Invariant: a storm of failures costs each exchange a look at a clock and at a number of its own thread; what is told
//! is written down for as many as the ring takes in a second.

use std::net::SocketAddr;

use super::RequestRecord;
use crate::telemetry::{
    format::{Facts, Headers},
    tap,
};

/// Whether a failure is told.
#[derive(Debug, Default)]
pub(super) enum Telling {
    /// Nobody has asked so far.
    #[default]
    Unasked,
    /// Too many were told of late.
    Denied,
    Told(Box<Failing>),
}

/// What nobody would know at the end.
#[derive(Debug)]
pub(super) struct Failing {
    head: tap::Head,
    remote: SocketAddr,
    route: Option<Box<str>>,
}

impl RequestRecord {
    /// Notes the head of a request that fails, its client and its route; true where that is told.
    pub fn failing(&self, head: &dyn Headers, (remote, route): (SocketAddr, Option<&str>)) -> bool {
        let mut telling = self.telling.borrow_mut();
        if let Telling::Unasked = &*telling {
            *telling = match tap::may_note() {
                true => {
                    let route = route.filter(|name| !name.is_empty()).map(Into::into);
                    Telling::Told(Box::new(Failing { head: tap::Head::of(head), remote, route }))
                }
                false => Telling::Denied,
            };
        }
        matches!(*telling, Telling::Told(_))
    }

    /// The exchange failed.
    pub(super) fn tell(&self) {
        match self.telling.take() {
            Telling::Denied => {}
            Telling::Told(failing) => self.facts(None, |facts| {
                let route = facts.route.or(failing.route.as_deref());
                tap::tell(&Facts { remote: failing.remote, route, ..*facts }, Some(&failing.head));
            }),
            Telling::Unasked if tap::may_note() => {
                let seen = self.seen.borrow();
                let head = seen.as_ref().and_then(|seen| seen.head.as_deref());
                self.facts(None, |facts| tap::tell(facts, head));
            }
            Telling::Unasked => {}
        }
    }
}

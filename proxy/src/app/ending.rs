//! The orderly end of the process, in two phases.
//!
//! Inbound connections are told to end at once, while new ones are still accepted for a moment: callers learn only
//! later that this proxy goes away. The outbound side serves the application until nothing comes in any more, and as long
//! as the application is known to be there. What is left at the deadline is cut, and said. Knows the clock and the counts, not the sockets.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use crate::{conn::Directions, drain::Phase, worker::Shared};

/// How long connections that are cut may take to notice: they log and reset on their own workers.
const FORCE_TIME: Duration = Duration::from_secs(1);

/// How long an end may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// Connections still open after this are cut.
    pub(super) total: Duration,
    /// How long inbound connections are still accepted when there were any.
    pub(super) accepting: Duration,
}

/// An end under way.
pub(super) struct Ending {
    /// Until then new inbound connections are accepted.
    accepting_until: Instant,
    closed: bool,
    deadline: Instant,
    /// Set once connections were cut: when to stop waiting for them.
    forced: Option<Instant>,
    /// Somebody said that the application has ended.
    released: bool,
    handed_over: bool,
    /// A successor took over, and nobody asked for the end since.
    succeeded: bool,
}

impl Ending {
    /// Starts the end.
    pub(super) fn begin(shared: &Shared, times: Times) -> Self {
        shared.drains.inbound.advance(Phase::Drain);
        shared.drains.unspecified.advance(Phase::Drain);
        let now = Instant::now();
        // Nobody here, nobody to be waited for: an idle proxy ends at once.
        let accepting = if inbound(&shared.open) > 0 { times.accepting.min(times.total) } else { Duration::ZERO };
        tracing::info!(inbound = inbound(&shared.open), outbound = count(&shared.open.outbound), "draining");
        Self {
            accepting_until: now + accepting,
            closed: false,
            deadline: now + times.total,
            forced: None,
            released: false,
            handed_over: false,
            succeeded: false,
        }
    }

    /// A successor accepts from now on: all connections are told to go there, and have `total` for it.
    pub(super) fn hand_over(&mut self, shared: &Shared, total: Duration) {
        for source in [&shared.drains.inbound, &shared.drains.unspecified, &shared.drains.outbound] {
            source.advance(Phase::Drain);
        }
        // Nothing of the application depends on this process any more.
        (self.closed, self.released, self.handed_over, self.succeeded) = (true, true, true, true);
        self.deadline = Instant::now() + total;
    }

    /// Somebody wants the end of a process that drains since it was succeeded: true the first time. That has no hurry of
    /// its own, so whoever stops all of them does not cut what the predecessors still have.
    pub(super) fn hastens(&mut self, times: Times) -> bool {
        if self.succeeded {
            self.deadline = self.deadline.min(Instant::now() + times.total);
        }
        std::mem::take(&mut self.succeeded)
    }

    /// True once: when the inbound sockets are to be closed.
    pub(super) fn closes_inbound(&mut self) -> bool {
        let now = Instant::now();
        let due = !self.closed && (now >= self.accepting_until || self.forced.is_some());
        self.closed |= due;
        due
    }

    /// Cuts what is left.
    pub(super) fn cut(&mut self, shared: &Shared) {
        if self.forced.is_some() {
            return;
        }
        self.forced = Some(Instant::now() + FORCE_TIME);
        for source in [&shared.drains.inbound, &shared.drains.unspecified, &shared.drains.outbound] {
            source.advance(Phase::Force);
        }
    }

    /// The application has ended, whatever its ports say.
    pub(super) fn release(&mut self) {
        self.released = true;
    }

    /// Whether nothing was cut so far.
    pub(super) fn begins_to_cut(&self) -> bool {
        self.forced.is_none()
    }

    /// Whether it is time to cut what is left.
    pub(super) fn overdue(&self) -> bool {
        self.forced.is_none() && Instant::now() >= self.deadline
    }

    /// Whether connections may count only in a moment, of those that were accepted last before a successor took over.
    pub(super) fn awaits_sockets(&self) -> bool {
        self.handed_over && self.forced.is_none()
    }

    /// Moves on; true when nothing is left to wait for. `may_call`: the application is there and may call somebody.
    pub(super) fn over(&mut self, shared: &Shared, may_call: bool) -> bool {
        let now = Instant::now();
        if now >= self.deadline {
            self.cut(shared);
        }
        let empty = count(&shared.connections) == 0;
        if let Some(until) = self.forced {
            return empty || now >= until;
        }
        if !self.closed || (may_call && !self.released) {
            return false;
        }
        // Nothing comes in any more: the outbound connections have nothing left to serve but themselves.
        if inbound(&shared.open) == 0 {
            shared.drains.outbound.advance(Phase::Drain);
        }
        empty
    }
}

fn inbound(open: &Directions<AtomicU64>) -> u64 {
    count(&open.inbound) + count(&open.unspecified)
}

fn count(of: &AtomicU64) -> u64 {
    of.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests;

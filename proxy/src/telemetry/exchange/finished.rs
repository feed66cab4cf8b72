//! The end of an exchange: counted, logged, traced and shown, once.

use std::time::Instant;

use super::RequestRecord;
use crate::telemetry::{flags::Flags, tap};

impl RequestRecord {
    pub(super) fn finish(&self) {
        let stats = self.scope.stats.local();
        stats.downstream_rq_active.dec();
        if self.upgraded.get() {
            stats.downstream_cx_upgrades_active.dec();
        }
        // Dropped before the response was through, and nobody else said why: the client left.
        if !self.response_done.get() && !self.upgraded.get() && self.flags.get().is_empty() {
            self.flag(Flags::DOWNSTREAM_CONNECTION_TERMINATION);
            let mut details = self.details.borrow_mut();
            *details = Some("downstream_remote_disconnect".into());
            stats.downstream_rq_rx_reset.inc();
        }
        stats.downstream_rq_completed.inc();
        let took = self.ended.get().unwrap_or_else(Instant::now).saturating_duration_since(self.started);
        stats.downstream_rq_time.time(took);
        // Who left before anything went wrong is no failure.
        let left = self.flags.get() == Flags::DOWNSTREAM_CONNECTION_TERMINATION && self.status.get() < 400;
        let mut failed = !self.flags.get().is_empty() && !left;
        match self.status.get() / 100 {
            1 => stats.downstream_rq_1xx.inc(),
            2 => stats.downstream_rq_2xx.inc(),
            3 => stats.downstream_rq_3xx.inc(),
            4 => {
                stats.downstream_rq_4xx.inc();
                // What the upstream refuses is its own affair.
                failed |= self.details.borrow().is_some();
            }
            5 => {
                stats.downstream_rq_5xx.inc();
                failed = true;
            }
            _ => {}
        }
        if let Some(scope) = &self.scope.mesh {
            self.count(scope, took);
        }
        if failed {
            self.tell();
        }
        if self.logged() {
            self.facts(None, |facts| self.scope.logs.iter().for_each(|logger| logger.log(facts)));
            if let Some(span) = self.span() {
                self.facts(None, |facts| span.end(facts));
            }
            let seen = self.seen.borrow();
            if let Some(seen) = seen.as_ref().filter(|seen| seen.tapped) {
                self.facts(None, |facts| tap::show(facts, seen.head.as_deref()));
            }
        }
    }
}

//! What one worker counts one pair of peers by.

use std::{
    cell::{Cell, RefCell},
    fmt,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use super::{
    Mesh, Outcome, Protocol, Reporter,
    book::Found,
    series::{RequestCounts, Series, TcpCounts},
};
use crate::telemetry::flags::Flags;

/// Outcomes that are remembered; a pair that has more of them looks the rest up.
const REMEMBERED: usize = 16;

/// How often is counted beyond the bound before somebody asks whether there is room by now.
const ASK_AGAIN: u32 = 256;

/// See the module's head.
pub struct Pair {
    mesh: Arc<Mesh>,
    reporter: Reporter,
    labels: Arc<str>,
    /// The service is not known: Istio calls it by the request's host then.
    pub wants_host: bool,
    recent: RefCell<Vec<Recent>>,
}

struct Recent {
    outcome: Outcome,
    series: Arc<Series<RequestCounts>>,
    /// How often is still counted here without asking, where it is the series for what has no room.
    beyond: Option<Cell<u32>>,
}

impl Recent {
    fn holds(&self) -> bool {
        if let Some(left) = &self.beyond {
            left.set(left.get().saturating_sub(1));
            return left.get() > 0;
        }
        !self.series.retired.load(Relaxed)
    }
}

impl Pair {
    pub(super) fn new(mesh: Arc<Mesh>, reporter: Reporter, labels: Arc<str>, wants_host: bool) -> Self {
        Self { mesh, reporter, labels, wants_host, recent: RefCell::default() }
    }

    pub(super) fn labels(&self) -> &str {
        &self.labels
    }

    /// Counts a request that is over.
    pub fn request(&self, outcome: Outcome, took: Duration, (received, sent): (u64, u64)) {
        let count = |series: &Series<RequestCounts>| {
            let counts = series.counts.local();
            counts.duration.time(took);
            counts.request_bytes.size(received);
            counts.response_bytes.size(sent);
        };
        let mut recent = self.recent.borrow_mut();
        if let Some(known) = recent.iter().find(|known| known.outcome == outcome)
            && known.holds()
        {
            return count(&known.series);
        }
        recent.retain(|known| known.outcome != outcome);
        if recent.len() >= REMEMBERED {
            recent.remove(0);
        }
        let Found { series, beyond } = self.mesh.request(&self.labels, self.reporter, outcome);
        count(&series);
        recent.push(Recent { outcome, series, beyond: beyond.then(|| Cell::new(ASK_AGAIN)) });
    }

    /// Counts a connection as opened; its end comes with the drop of what this returns.
    pub fn connection(&self, flags: Flags) -> TcpConnection {
        let outcome = Outcome { code: 0, protocol: Protocol::Tcp, flags };
        let Found { series, .. } = self.mesh.connection(&self.labels, self.reporter, outcome);
        series.counts.local().opened.inc();
        TcpConnection { series, counted: (0, 0) }
    }
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pair").field(&self.labels).finish()
    }
}

/// An open connection.
#[derive(Debug)]
pub struct TcpConnection {
    series: Arc<Series<TcpCounts>>,
    counted: (u64, u64),
}

impl TcpConnection {
    /// So many bytes were received and sent so far.
    pub fn bytes(&mut self, received: u64, sent: u64) {
        let counts = self.series.counts.local();
        counts.received.add(received.saturating_sub(self.counted.0));
        counts.sent.add(sent.saturating_sub(self.counted.1));
        self.counted = (received, sent);
    }
}

impl Drop for TcpConnection {
    fn drop(&mut self) {
        self.series.counts.local().closed.inc();
    }
}

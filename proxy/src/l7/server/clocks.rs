//! The clocks of one connection and how far its end has come, whatever serves it at the moment.

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::Sleep;

use super::{Connection, DEFAULT_HEAD_TIMEOUT};
use crate::{
    drain,
    l7::{engine::Pressure, flow::Flow},
};

/// How long an HTTP/1 connection idles before its codec is given up with all its buffers. A client that asks more often
/// never notices; one that asks less often pays a few microseconds for another codec.
const REST_AFTER: Duration = Duration::from_millis(500);

/// The part of the drain time over which connections are told to go away.
const SPREAD: u32 = 4;

/// What serves a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Served {
    Http2,
    Http1,
    /// Nothing: it waits for a head.
    Resting,
}

/// What a clock or the drain brought.
pub(super) enum Due {
    /// Close now, with a reset.
    Cut,
    /// The end begins: responses say so from now on.
    Ending,
    /// A head was not complete in time.
    Head,
    Stalled(Rc<Flow>),
    Idle,
    /// The oldest a connection gets: the end begins.
    Old,
    Shutdown,
    /// An HTTP/1 connection idles for a while.
    Rest,
}

/// One set of clocks accompanies a connection through all its codecs.
pub(super) struct Clocks {
    /// A set polls what was woken only: asking the signal itself at every wake-up would cost a lock all workers share.
    phases: FuturesUnordered<Hearing>,
    timer: Option<Pin<Box<Sleep>>>,
    ending: Ending,
}

type Hearing = Pin<Box<dyn Future<Output = (drain::Phase, drain::Signal)>>>;

impl Clocks {
    pub(super) fn new(signal: drain::Signal) -> Self {
        let phases = FuturesUnordered::new();
        phases.push(hear(signal, drain::Phase::Drain));
        Self { phases, timer: None, ending: Ending::default() }
    }

    /// What is due next, when it is. The start of the end is noted here and reported once.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, conn: &Connection, served: Served) -> Poll<Due> {
        let begin = conn.used_up();
        while let Poll::Ready(Some((phase, signal))) = self.phases.poll_next_unpin(cx) {
            if !self.ending.begun {
                conn.scope.stats.local().downstream_cx_drain_close.inc();
            }
            if phase == drain::Phase::Force {
                return Poll::Ready(Due::Cut);
            }
            // HTTP/2 is told by itself, HTTP/1 with its next response, which nobody sends to all at once.
            let after = if served == Served::Http2 { moment(conn) } else { Duration::ZERO };
            self.ending.begin_at.get_or_insert_with(|| Instant::now() + after);
            self.phases.push(hear(signal, drain::Phase::Force));
        }
        if begin && !self.ending.begun {
            self.begin(conn);
            return Poll::Ready(Due::Ending);
        }
        loop {
            let Some((at, due)) = self.ending.next(conn, served) else { return Poll::Pending };
            if Instant::now() >= at {
                match due {
                    Due::Old => {
                        conn.scope.stats.local().downstream_cx_max_duration_reached.inc();
                        self.begin(conn);
                    }
                    Due::Ending => self.begin(conn),
                    _ => {}
                }
                return Poll::Ready(due);
            }
            ready!(poll_timer(&mut self.timer, at, cx));
        }
    }

    /// Notes that the connection is told to go away.
    pub(super) fn begin(&mut self, conn: &Connection) {
        if !self.ending.begun {
            self.ending.begun = true;
            conn.closing.set(true);
            // Closing an idle HTTP/1 connection at once would race with a request already on its way.
            self.ending.shutdown_at = Some(Instant::now() + conn.hcm.config.drain_timeout + moment(conn));
        }
    }

    /// Notes that the codec was told to finish.
    pub(super) fn shut(&mut self, conn: &Connection) {
        self.begin(conn);
        self.ending.shut = true;
    }
}

/// A moment of the connection's own, so that not all connect anew at once.
fn moment(conn: &Connection) -> Duration {
    (conn.hcm.config.drain_timeout / SPREAD).mul_f64(fastrand::f64())
}

/// Waits for a phase; the signal comes back to wait for the next.
fn hear(mut signal: drain::Signal, phase: drain::Phase) -> Hearing {
    Box::pin(async move {
        match phase {
            drain::Phase::Overdue | drain::Phase::Force => signal.forced().await,
            drain::Phase::Run | drain::Phase::Drain => signal.draining().await,
        }
        (phase, signal)
    })
}

/// How far a connection's end has come.
#[derive(Default)]
struct Ending {
    /// When the end begins.
    begin_at: Option<Instant>,
    /// Responses say `Connection: close` from now on.
    begun: bool,
    /// Close an HTTP/1 connection then, if no request used the last chance.
    shutdown_at: Option<Instant>,
    shut: bool,
}

impl Ending {
    /// What the clock brings next.
    fn next(&self, conn: &Connection, served: Served) -> Option<(Instant, Due)> {
        let config = &conn.hcm.config;
        let is_http1 = served == Served::Http1;
        let idle_since = conn.idle_since.get();
        let is_idle = conn.active.get() == 0 && !self.shut;
        // Short of memory, what idles goes first.
        let tight = conn.engine.pressure.get() == Pressure::Tight;
        let timeout = if tight { Some(Duration::ZERO) } else { config.idle_timeout };
        let idle = timeout.filter(|_| is_idle).map(|t| (idle_since + t, Due::Idle));
        let old =
            config.max_connection_duration.filter(|_| !self.begun).map(|t| (conn.scope.conn.started_at + t, Due::Old));
        let head = is_http1
            .then(|| conn.wire.head_since())
            .flatten()
            .map(|since| (since + config.request_headers_timeout.unwrap_or(DEFAULT_HEAD_TIMEOUT), Due::Head));
        let stalled = is_http1
            .then(|| conn.current.borrow().upgrade())
            .flatten()
            .filter(|flow| flow.record.is_responding())
            .and_then(|flow| Some((flow.limit_at()?, Due::Stalled(flow))));
        let rest =
            (is_http1 && is_idle && !self.begun && conn.may_rest()).then(|| (idle_since + REST_AFTER, Due::Rest));
        let shutdown = self.shutdown_at.filter(|_| !self.shut).map(|at| (at, Due::Shutdown));
        // h2 goes only once the client has answered its PING. One that never does holds no more than its last stream.
        let mute = (self.shut && served == Served::Http2 && conn.active.get() == 0)
            .then_some(self.shutdown_at)
            .flatten()
            .map(|at| (at.max(idle_since + config.drain_timeout), Due::Cut));
        let begin = self.begin_at.filter(|_| !self.begun).map(|at| (at, Due::Ending));
        [idle, old, head, stalled, rest, begin, shutdown, mute].into_iter().flatten().min_by_key(|(at, _)| *at)
    }
}

fn poll_timer(timer: &mut Option<Pin<Box<Sleep>>>, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
    let sleep = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at.into())));
    // A timer that fires early costs one look at the clock; resetting it per request would cost more.
    if sleep.is_elapsed() || sleep.deadline() > at.into() {
        sleep.as_mut().reset(at.into());
    }
    sleep.as_mut().poll(cx)
}

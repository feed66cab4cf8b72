//! The clocks of one connection, and how it comes to its end.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
    time::Instant,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use http::{HeaderMap, StatusCode, Version};
use tokio::time::Sleep;

use super::{Connection, DEFAULT_HEAD_TIMEOUT};
use crate::{
    drain,
    l7::flow::Flow,
    telemetry::{exchange::RequestRecord, flags::Flags},
};

/// Runs a codec to its end, with all the clocks on it.
pub(super) async fn drive<F: Future<Output = hyper::Result<()>>>(
    mut running: Pin<&mut F>,
    shutdown: impl Fn(Pin<&mut F>),
    (conn, is_http2): (&Rc<Connection>, bool),
    signal: &drain::Signal,
) {
    // A set polls what was woken only: asking the signal itself at every wake-up would cost a lock all workers share.
    let mut phases = FuturesUnordered::new();
    phases.push(hear(signal.clone(), drain::Phase::Drain));
    let mut timer = pin!(None::<Sleep>);
    let mut ending = Ending::default();
    let stats = conn.scope.stats.local();
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(result) = running.as_mut().poll(cx) {
                if let Err(error) = result {
                    note_error(conn, &error);
                }
                return Poll::Ready(());
            }
            let mut begin = conn.used_up();
            while let Poll::Ready(Some((phase, signal))) = phases.poll_next_unpin(cx) {
                if !ending.begun {
                    stats.downstream_cx_drain_close.inc();
                }
                if phase == drain::Phase::Force {
                    conn.wire.abort();
                    return Poll::Ready(());
                }
                begin = true;
                phases.push(hear(signal, drain::Phase::Force));
            }
            if begin && !ending.begun {
                ending.begin(conn);
                if is_http2 {
                    ending.shut = true;
                    shutdown(running.as_mut());
                    continue;
                }
            }
            let Some((at, due)) = ending.next(conn, is_http2) else { return Poll::Pending };
            if Instant::now() < at {
                if poll_timer(timer.as_mut(), at, cx).is_pending() {
                    return Poll::Pending;
                }
                continue;
            }
            match due {
                Due::Head => {
                    stats.downstream_rq_header_timeout.inc();
                    return Poll::Ready(());
                }
                Due::Stalled(flow) => {
                    // The client reads nothing, so hyper does not poll the body whose timer would end this.
                    flow.record.flag(Flags::STREAM_IDLE_TIMEOUT);
                    flow.record.details("stream_idle_timeout");
                    stats.downstream_rq_idle_timeout.inc();
                    conn.wire.abort();
                    return Poll::Ready(());
                }
                Due::Idle => stats.downstream_cx_idle_timeout.inc(),
                Due::Old => {
                    stats.downstream_cx_max_duration_reached.inc();
                    ending.begin(conn);
                    if !is_http2 {
                        continue;
                    }
                }
                Due::Shutdown => {}
            }
            ending.begin(conn);
            ending.shut = true;
            shutdown(running.as_mut());
        }
    })
    .await;
}

/// Waits for a phase; the signal comes back to wait for the next.
async fn hear(mut signal: drain::Signal, phase: drain::Phase) -> (drain::Phase, drain::Signal) {
    match phase {
        drain::Phase::Force => signal.forced().await,
        drain::Phase::Run | drain::Phase::Drain => signal.draining().await,
    }
    (phase, signal)
}

fn note_error(conn: &Connection, error: &hyper::Error) {
    tracing::debug!(%error, "downstream connection ended with an error");
    if error.is_parse() || error.is_parse_too_large() || conn.wire.refused() {
        let stats = conn.scope.stats.local();
        stats.downstream_cx_protocol_error.inc();
        // hyper answered it: it is a request like any other to whoever reads the log.
        let record = RequestRecord::open(conn.scope.clone(), Version::HTTP_11);
        record.flag(Flags::DOWNSTREAM_PROTOCOL_ERROR);
        let status = if error.is_parse_too_large() {
            stats.downstream_rq_too_large.inc();
            record.details("request_headers_too_large");
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
        } else {
            record.details("http1.codec_error");
            StatusCode::BAD_REQUEST
        };
        record.response_head(status.as_u16(), &HeaderMap::new());
        record.response_complete();
    }
    if error.is_user() {
        // A response was cut off: the close must not look like its end.
        conn.wire.abort();
    }
}

/// How far a connection's end has come.
#[derive(Default)]
struct Ending {
    /// Responses say `Connection: close` from now on.
    begun: bool,
    /// Close an HTTP/1 connection then, if no request used the last chance.
    shutdown_at: Option<Instant>,
    shut: bool,
}

enum Due {
    Head,
    Stalled(Rc<Flow>),
    Idle,
    Old,
    Shutdown,
}

impl Ending {
    fn begin(&mut self, conn: &Connection) {
        if !self.begun {
            self.begun = true;
            conn.closing.set(true);
            // Closing an idle HTTP/1 connection at once would race with a request already on its way.
            self.shutdown_at = Some(Instant::now() + conn.hcm.config.drain_timeout);
        }
    }

    /// What the clock brings next.
    fn next(&self, conn: &Connection, is_http2: bool) -> Option<(Instant, Due)> {
        let config = &conn.hcm.config;
        let idle = config
            .idle_timeout
            .filter(|_| conn.active.get() == 0 && !self.shut)
            .map(|t| (conn.idle_since.get() + t, Due::Idle));
        let old =
            config.max_connection_duration.filter(|_| !self.begun).map(|t| (conn.scope.conn.started_at + t, Due::Old));
        let head = (!is_http2)
            .then(|| conn.wire.head_since())
            .flatten()
            .map(|since| (since + config.request_headers_timeout.unwrap_or(DEFAULT_HEAD_TIMEOUT), Due::Head));
        let stalled = (!is_http2)
            .then(|| conn.current.borrow().upgrade())
            .flatten()
            .filter(|flow| flow.record.is_responding())
            .and_then(|flow| Some((flow.idle_at()?, Due::Stalled(flow))));
        let shutdown = self.shutdown_at.filter(|_| !self.shut).map(|at| (at, Due::Shutdown));
        [idle, old, head, stalled, shutdown].into_iter().flatten().min_by_key(|(at, _)| *at)
    }
}

fn poll_timer(mut timer: Pin<&mut Option<Sleep>>, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
    // A timer that fires early costs one look at the clock; resetting it per request would cost more.
    let late = timer.as_ref().as_pin_ref().is_none_or(|t| t.is_elapsed() || t.deadline() > at.into());
    if late {
        match timer.as_mut().as_pin_mut() {
            Some(sleep) => sleep.reset(at.into()),
            None => timer.set(Some(tokio::time::sleep_until(at.into()))),
        }
    }
    timer.as_pin_mut().expect("just set").poll(cx)
}

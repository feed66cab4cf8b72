//! The relay of bytes between two connections, with half-close both ways.
//!
//! Owns a connection pair from the first byte to its end and the clock on it. Knows nothing of protocols or policy.
//! Invariants: an end of stream reaches the other side as one, after all bytes before it; anything less than an
//! orderly end reaches it as a reset, so a cut-off stream never looks complete.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::AsyncWrite,
    time::{Instant, Sleep},
};

use super::half::{Broken, Half};
use crate::net::{io::Io, socket};

/// How long delivered-but-unacknowledged bytes may hold up a reset.
const RESET_GRACE: Duration = Duration::from_secs(2);
const RESET_POLL: Duration = Duration::from_millis(5);

/// Bounds on one relayed connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayOptions {
    /// Ends the relay when no byte moved in either direction for this long.
    pub idle_timeout: Option<Duration>,
    /// Ends the relay this long after it began, busy or not.
    pub max_duration: Option<Duration>,
    /// Bytes held in memory per direction. Bulk of plaintext passes through a pipe instead, where the limit allows a
    /// full buffer at all.
    pub buffer: usize,
}

/// Bytes delivered so far, live; and the way to have the relay end.
#[derive(Debug, Default)]
pub struct Progress {
    pub a_to_b: Cell<u64>,
    pub b_to_a: Cell<u64>,
    ends: Cell<bool>,
    /// Of the relay, to be told.
    waker: RefCell<Option<Waker>>,
}

impl Progress {
    pub fn total(&self) -> u64 {
        self.a_to_b.get().wrapping_add(self.b_to_a.get())
    }

    /// Has the relay end as one that idles does.
    pub fn end(&self) {
        self.ends.set(true);
        let waker = self.waker.take();
        waker.into_iter().for_each(Waker::wake);
    }

    /// Whether it was told to end.
    pub fn ends(&self) -> bool {
        self.ends.get()
    }

    fn poll_end(&self, cx: &Context<'_>) -> Poll<()> {
        if self.ends.get() {
            return Poll::Ready(());
        }
        let mut known = self.waker.borrow_mut();
        match &mut *known {
            Some(known) => known.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

/// One end of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    A,
    B,
}

/// Why a relay ended.
#[derive(Debug)]
pub enum RelayReason {
    /// Both directions reached their end.
    Closed,
    IdleTimeout,
    MaxDuration,
    /// Somebody had it end: [`Progress::end`].
    Told,
    /// `side` failed; the other one was reset.
    Error {
        side: Side,
        error: io::Error,
    },
}

/// How a relay ended.
#[derive(Debug)]
pub struct RelayEnd {
    pub reason: RelayReason,
    /// Whether bytes moved inside the kernel.
    pub spliced: bool,
}

/// Relays until both directions have ended, a bound is reached or a side fails.
pub fn relay(a: Io, b: Io, options: &RelayOptions, progress: &Progress) -> impl Future<Output = RelayEnd> {
    relay_from((a, b), Default::default(), options, progress)
}

/// [`relay`] of connections whose first bytes, of `a` and of `b`, were read by somebody else.
pub async fn relay_from(
    (a, b): (Io, Io),
    first: (Bytes, Bytes),
    options: &RelayOptions,
    progress: &Progress,
) -> RelayEnd {
    let mut pair = Pair {
        a,
        b,
        forth: Half::new(options.buffer).after(first.0),
        back: Half::new(options.buffer).after(first.1),
        forth_end: None,
        back_end: None,
        error: None,
        ended: false,
    };
    let mut timer = pin!(None);
    let mut clock = Clock::new(options, Instant::now());
    let reason = poll_fn(|cx| {
        if let Poll::Ready(reason) = pair.poll(cx, progress) {
            return Poll::Ready(reason);
        }
        if progress.poll_end(cx).is_ready() {
            return Poll::Ready(RelayReason::Told);
        }
        clock.poll(cx, timer.as_mut(), progress)
    })
    .await;
    pair.ended = true;
    let spliced = pair.forth.spliced || pair.back.spliced;
    // Boxed: only the unusual ends wait here, and their state need not lie in every idle relay.
    if !matches!(reason, RelayReason::Closed) {
        Box::pin(pair.finish(&reason)).await;
    }
    RelayEnd { reason, spliced }
}

struct Pair {
    a: Io,
    b: Io,
    forth: Half,
    back: Half,
    forth_end: Option<End>,
    back_end: Option<End>,
    error: Option<(Side, io::Error)>,
    ended: bool,
}

impl Drop for Pair {
    /// A relay dropped in the middle was cut, and both sides must see that.
    fn drop(&mut self) {
        if !self.ended {
            self.a.reset_on_close();
            self.b.reset_on_close();
        }
    }
}

/// How one direction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Clean,
    SourceFailed,
    TargetFailed,
}

impl Pair {
    fn poll(&mut self, cx: &mut Context<'_>, progress: &Progress) -> Poll<RelayReason> {
        if self.forth_end.is_none()
            && let Poll::Ready(result) = self.forth.poll(cx, &mut self.a, &mut self.b, &progress.a_to_b)
        {
            self.forth_end = Some(self.ended(result, Side::A, Side::B));
        }
        if self.back_end.is_none()
            && let Poll::Ready(result) = self.back.poll(cx, &mut self.b, &mut self.a, &progress.b_to_a)
        {
            self.back_end = Some(self.ended(result, Side::B, Side::A));
        }
        let over = match (self.forth_end, self.back_end) {
            // A side that can no longer be read is gone: nothing sent there would arrive.
            (Some(End::SourceFailed), _) | (_, Some(End::SourceFailed)) => true,
            // A side that takes no more may still have sent something worth delivering, as servers do that answer
            // and close without reading all of a request: the other direction goes on until it ends.
            (forth, back) => forth.is_some() && back.is_some(),
        };
        if !over {
            return Poll::Pending;
        }
        Poll::Ready(match self.error.take() {
            Some((side, error)) => RelayReason::Error { side, error },
            None => RelayReason::Closed,
        })
    }

    fn ended(&mut self, result: Result<(), Broken>, source: Side, target: Side) -> End {
        let (end, side, error) = match result {
            Ok(()) => return End::Clean,
            Err(Broken::Source(error)) => (End::SourceFailed, source, error),
            Err(Broken::Target(error)) => (End::TargetFailed, target, error),
        };
        // The first failure is the cause, later ones its consequences.
        self.error.get_or_insert((side, error));
        end
    }

    async fn finish(&mut self, reason: &RelayReason) {
        match reason {
            RelayReason::Closed => {}
            RelayReason::Error { side, .. } => {
                let (failed, healthy) = match side {
                    Side::A => (&self.a, &mut self.b),
                    Side::B => (&self.b, &mut self.a),
                };
                failed.reset_on_close();
                // Bytes that came before the failure are not taken back.
                delivered(healthy).await;
                healthy.reset_on_close();
            }
            RelayReason::IdleTimeout | RelayReason::MaxDuration | RelayReason::Told => {
                close_now(&mut self.b, self.forth.holds_bytes()).await;
                close_now(&mut self.a, self.back.holds_bytes()).await;
            }
        }
    }
}

/// Waits, not for ever, until the peer's kernel has what was written.
pub async fn delivered(io: &mut Io) {
    let deadline = Instant::now() + RESET_GRACE;
    let flush = poll_fn(|cx| Pin::new(&mut *io).poll_flush(cx));
    if !matches!(tokio::time::timeout_at(deadline, flush).await, Ok(Ok(()))) {
        return;
    }
    let Some(stream) = io.socket().tcp() else { return };
    while socket::unacknowledged(stream).is_ok_and(|bytes| bytes > 0) && Instant::now() < deadline {
        tokio::time::sleep(RESET_POLL).await;
    }
}

/// Ends a side whose time is up: orderly when it got everything, with a reset when bytes for it are left over.
async fn close_now(io: &mut Io, incomplete: bool) {
    if incomplete {
        io.reset_on_close();
        return;
    }
    // One attempt: a peer that does not even take a close_notify is not waited for.
    poll_fn(|cx| {
        let _ = Pin::new(&mut *io).poll_shutdown(cx);
        Poll::Ready(())
    })
    .await;
}

/// The idle and duration bounds on one timer. Activity only notes the time; the timer is moved when it fires.
struct Clock {
    idle: Option<Duration>,
    end: Option<Instant>,
    active: Instant,
    seen: u64,
}

impl Clock {
    fn new(options: &RelayOptions, now: Instant) -> Self {
        let end = options.max_duration.and_then(|d| now.checked_add(d));
        Self { idle: options.idle_timeout, end, active: now, seen: 0 }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut timer: Pin<&mut Option<Sleep>>,
        progress: &Progress,
    ) -> Poll<RelayReason> {
        if self.idle.is_none() && self.end.is_none() {
            return Poll::Pending;
        }
        let total = progress.total();
        if total != self.seen {
            self.moved(total, Instant::now());
        }
        loop {
            let Some(next) = self.next() else { return Poll::Pending };
            let Some(sleep) = timer.as_mut().as_pin_mut() else {
                timer.set(Some(tokio::time::sleep_until(next)));
                continue;
            };
            if sleep.poll(cx).is_pending() {
                return Poll::Pending;
            }
            if let Some(reason) = self.over(Instant::now()) {
                return Poll::Ready(reason);
            }
            if let Some(sleep) = timer.as_mut().as_pin_mut() {
                sleep.reset(next);
            }
        }
    }

    fn moved(&mut self, total: u64, now: Instant) {
        self.seen = total;
        self.active = now;
    }

    fn idle_at(&self) -> Option<Instant> {
        self.idle.and_then(|d| self.active.checked_add(d))
    }

    /// When to look again.
    fn next(&self) -> Option<Instant> {
        [self.idle_at(), self.end].into_iter().flatten().min()
    }

    fn over(&self, now: Instant) -> Option<RelayReason> {
        if self.end.is_some_and(|end| end <= now) {
            return Some(RelayReason::MaxDuration);
        }
        self.idle_at().is_some_and(|at| at <= now).then_some(RelayReason::IdleTimeout)
    }
}

#[cfg(test)]
mod tests;

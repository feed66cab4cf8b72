//! A response body that may only flow so fast: sixteen shares a second, the first one at once.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use crate::l7::{
    body::{Body, BodyError},
    flow::Flow,
    timer::Timer,
};

/// Shares of a second.
const SHARES: u64 = 16;
const SHARE: Duration = Duration::from_nanos(1_000_000_000 / SHARES);

/// See the module's head.
pub struct Throttled {
    body: Body,
    /// Read, but not let through yet.
    held: Bytes,
    share: u64,
    allowance: u64,
    refilled: Instant,
    timer: Timer,
}

impl Throttled {
    /// See [`Body::flow`].
    pub(in crate::l7) fn flow(&self) -> Option<&Rc<Flow>> {
        self.body.flow()
    }

    /// Slows `body` down to `kbps` KiB per second.
    pub(super) fn limit(body: Body, kbps: u64) -> Body {
        // What we say ourselves is not worth it.
        if !matches!(body, Body::Download(_)) || body.is_end_stream() {
            return body;
        }
        let share = kbps.saturating_mul(1024).div_ceil(SHARES).max(1);
        let refilled = Instant::now();
        let held = Bytes::new();
        Body::Throttled(Box::new(Self { body, held, share, allowance: share, refilled, timer: Timer::default() }))
    }

    pub(in crate::l7) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if self.held.is_empty() {
                match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) if data.is_empty() => continue,
                        Ok(data) => self.held = data,
                        Err(frame) => return Poll::Ready(Some(Ok(frame))),
                    },
                    end => return Poll::Ready(end),
                }
            }
            self.refill(Instant::now());
            if self.allowance == 0 {
                ready!(self.timer.poll_until(self.refilled + SHARE, cx));
                continue;
            }
            let most = usize::try_from(self.allowance).unwrap_or(usize::MAX).min(self.held.len());
            self.allowance -= most as u64;
            return Poll::Ready(Some(Ok(Frame::data(self.held.split_to(most)))));
        }
    }

    /// Adds the shares that became due, a second's worth at most.
    fn refill(&mut self, now: Instant) {
        let due = now.saturating_duration_since(self.refilled).as_nanos() / SHARE.as_nanos();
        let Ok(due) = u32::try_from(due) else { return };
        if due > 0 {
            self.refilled += SHARE * due;
            let most = self.share.saturating_mul(SHARES);
            self.allowance = self.allowance.saturating_add(self.share.saturating_mul(due.into())).min(most);
        }
    }

    pub(in crate::l7) fn is_end_stream(&self) -> bool {
        self.held.is_empty() && self.body.is_end_stream()
    }

    pub(in crate::l7) fn size_hint(&self) -> SizeHint {
        let (inner, held) = (self.body.size_hint(), self.held.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + held);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + held);
        }
        hint
    }
}

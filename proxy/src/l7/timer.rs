//! Timers of requests, used again.
//!
//! Nearly every request waits under some limit and nearly none runs into it. Entering a timer into the runtime's wheel
//! and taking it out again costs more than the rest of the bookkeeping of a request, so a timer stays in the wheel when
//! its request is done: the next request takes it as it is, and only when it fires (too early for its present owner)
//! is it moved. Owned by the worker's thread.

use std::{
    cell::RefCell,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Instant,
};

use tokio::time::Sleep;

/// Timers kept for later requests, per worker.
const KEPT: usize = 1024;

thread_local! {
    static IDLE: RefCell<Vec<Pin<Box<Sleep>>>> = const { RefCell::new(Vec::new()) };
}

/// A timer that exists once something had to wait for it.
#[derive(Default)]
pub struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Ready once `at` has come.
    pub fn poll_until(&mut self, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let at = at.into();
        let sleep = self.0.get_or_insert_with(|| {
            let kept = IDLE.with_borrow_mut(Vec::pop);
            kept.unwrap_or_else(|| Box::pin(tokio::time::sleep_until(at)))
        });
        // Early is as good: it is looked at again then.
        if sleep.deadline() > at {
            sleep.as_mut().reset(at);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if tokio::time::Instant::now() >= at {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(at);
        }
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let Some(mut sleep) = self.0.take() else { return };
        if sleep.is_elapsed() {
            return;
        }
        // The waker would keep the memory of a task that has ended.
        let _ = sleep.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        // At the end of the thread there is nothing to keep it in.
        let _ = IDLE.try_with(|idle| {
            if let Ok(mut idle) = idle.try_borrow_mut()
                && idle.len() < KEPT
            {
                idle.push(sleep);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use super::*;

    /// How long a wait of `wanted` milliseconds took.
    async fn wait(wanted: u64) -> Duration {
        let (start, wanted) = (Instant::now(), Duration::from_millis(wanted));
        let mut timer = Timer::default();
        poll_fn(|cx| timer.poll_until(start + wanted, cx)).await;
        start.elapsed()
    }

    /// Starts to wait and gives up.
    async fn give_up(millis: u64) {
        let at = Instant::now() + Duration::from_millis(millis);
        let mut timer = Timer::default();
        poll_fn(|cx| {
            assert!(timer.poll_until(at, cx).is_pending());
            Poll::Ready(())
        })
        .await;
    }

    #[tokio::test]
    async fn a_used_timer_is_not_early_for_its_next_owner() {
        give_up(20).await;
        assert!(wait(60).await >= Duration::from_millis(60));
        // One that fires among the kept ones.
        give_up(5).await;
        assert!(wait(30).await >= Duration::from_millis(30));
        assert!(wait(10).await >= Duration::from_millis(10));
    }

    #[tokio::test]
    async fn a_used_timer_is_not_late_for_its_next_owner() {
        give_up(3_600_000).await;
        wait(10).await;
        give_up(3_600_000).await;
        give_up(3_600_000).await;
        assert_eq!(IDLE.with_borrow(Vec::len), 1, "the one kept timer is taken again");
    }
}

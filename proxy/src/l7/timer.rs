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

    /// Waits `millis` on a paused clock.
    async fn wait(millis: u64) -> Duration {
        let start = tokio::time::Instant::now();
        let at = start + Duration::from_millis(millis);
        let mut timer = Timer::default();
        poll_fn(|cx| timer.poll_until(at.into_std(), cx)).await;
        start.elapsed()
    }

    /// Starts to wait and gives up.
    async fn give_up(millis: u64) {
        let at = tokio::time::Instant::now() + Duration::from_millis(millis);
        let mut timer = Timer::default();
        poll_fn(|cx| {
            assert!(timer.poll_until(at.into_std(), cx).is_pending());
            Poll::Ready(())
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn used_timers_are_exact_for_whoever_gets_them() {
        let close = |waited: Duration, millis| {
            let wanted = Duration::from_millis(millis);
            assert!(waited >= wanted && waited < wanted + Duration::from_millis(5), "{waited:?} for {wanted:?}");
        };
        close(wait(100).await, 100);
        // One that would fire too early, and one too late.
        give_up(50).await;
        close(wait(200).await, 200);
        give_up(10_000).await;
        close(wait(20).await, 20);
        give_up(30).await;
        give_up(30).await;
        tokio::time::advance(Duration::from_millis(40)).await;
        close(wait(100).await, 100);
        assert!(IDLE.with_borrow(Vec::len) <= 2);
    }
}

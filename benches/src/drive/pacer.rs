//! Wakes at exact moments: tokio's timers have a resolution of a millisecond, which is longer than what is measured.

use std::{
    fs::File,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use nix::sys::{
    time::{TimeSpec, TimeValLike as _},
    timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
};
use tokio::{io::AsyncReadExt, net::unix::pipe};

pub(super) struct Pacer {
    timer: TimerFd,
    /// The same timer for waiting: a descriptor that becomes readable is all that tokio's pipe asks of it.
    expiry: pipe::Receiver,
}

impl Pacer {
    pub(super) fn new() -> anyhow::Result<Self> {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        let expiry = pipe::Receiver::from_file_unchecked(File::from(timer.as_fd().try_clone_to_owned()?))?;
        Ok(Self { timer, expiry })
    }

    /// Returns at `when`, at once if that is past.
    pub(super) async fn until(&mut self, when: Instant) -> anyhow::Result<()> {
        let left = when.saturating_duration_since(Instant::now());
        if left < Duration::from_micros(2) {
            return Ok(());
        }
        let left = TimeSpec::nanoseconds(i64::try_from(left.as_nanos())?);
        self.timer.set(Expiration::OneShot(left), TimerSetTimeFlags::empty())?;
        let mut count = [0; 8];
        self.expiry.read_exact(&mut count).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wakes_after_the_moment_and_again() {
        crate::drive::block_on(async {
            let mut pacer = Pacer::new()?;
            for _ in 0..3 {
                let when = Instant::now() + Duration::from_micros(700);
                pacer.until(when).await?;
                assert!(Instant::now() >= when);
                pacer.until(when).await?;
            }
            Ok(())
        })
        .unwrap();
    }
}

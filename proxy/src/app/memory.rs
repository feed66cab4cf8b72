//! Giving memory back when a thread comes to rest.
//!
//! Reading a bootstrap or a large update takes many times the memory that its result needs. The allocator returns freed
//! pages only while it is being called, so a proxy that then idles would hold them for ever. The third place with
//! `unsafe` code beside sockets and splice: the allocator's crate has no safe name for this.
#![allow(unsafe_code)]

use std::time::{Duration, Instant};

/// Time without a change before memory is given back.
const QUIET: Duration = Duration::from_millis(300);

/// Time from one giving back to the next: single updates now and then are not worth one each.
const APART: Duration = Duration::from_secs(10);

/// Gives memory that this thread freed back to the kernel.
pub(super) fn give_back() {
    // SAFETY: the function has no preconditions and synchronises with other threads by itself.
    unsafe { libmimalloc_sys::mi_collect(true) };
}

/// Notices the moment when configuration stops changing.
#[derive(Debug, Default)]
pub(super) struct Trim {
    /// When to give back; `None` when there is nothing.
    due: Option<Instant>,
    last: Option<Instant>,
}

impl Trim {
    /// Configuration changed: memory was used and freed.
    pub(super) fn changed(&mut self, now: Instant) {
        self.due = Some(self.last.map_or(now, |last| last + APART).max(now + QUIET));
    }

    /// When [`Self::give_back`] is to be called.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Gives memory back, once per period of change.
    pub(super) fn give_back(&mut self, now: Instant) {
        if self.take(now) {
            give_back();
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        let taken = self.due.take_if(|due| *due <= now).is_some();
        if taken {
            self.last = Some(now);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_once_after_every_period_of_change() {
        let mut trim = Trim::default();
        let start = Instant::now();
        assert!(trim.due().is_none() && !trim.take(start));
        trim.changed(start);
        trim.changed(start + QUIET / 2);
        assert!(!trim.take(start + QUIET), "it changed in between");
        assert_eq!(trim.due(), Some(start + QUIET * 3 / 2));
        assert!(trim.take(start + QUIET * 3 / 2));
        assert!(trim.due().is_none() && !trim.take(start + QUIET * 9));
        trim.changed(start + QUIET * 2);
        assert!(!trim.take(start + QUIET * 3), "not again so soon");
        assert!(trim.take(start + QUIET * 3 / 2 + APART));
    }
}

//! Giving memory back when a thread comes to rest.
//!
//! Reading a bootstrap or a large update takes many times the memory that its result needs. The allocator returns freed
//! pages only while it is being called, so a proxy that then idles would hold them for ever. The third place with
//! `unsafe` code beside sockets and splice: the allocator's crate has no safe name for this.
#![allow(unsafe_code)]

/// Gives memory that this thread freed back to the kernel.
pub(super) fn give_back() {
    // SAFETY: the function has no preconditions and synchronises with other threads by itself.
    unsafe { libmimalloc_sys::mi_collect(true) };
}

/// Calls for [`Trim::tick`] without a change in between before memory is given back.
const QUIET_TICKS: u32 = 2;

/// Notices the moment when configuration stops changing.
#[derive(Debug, Default)]
pub(super) struct Trim {
    /// Ticks since the last change; `None` when there is nothing to give back.
    quiet: Option<u32>,
}

impl Trim {
    /// Configuration changed: memory was used and freed.
    pub(super) fn changed(&mut self) {
        self.quiet = Some(0);
    }

    /// To be called about once a second; gives memory back once per period of change.
    pub(super) fn tick(&mut self) {
        if self.due() {
            give_back();
        }
    }

    fn due(&mut self) -> bool {
        self.quiet = self.quiet.map(|ticks| ticks + 1);
        self.quiet.take_if(|ticks| *ticks >= QUIET_TICKS).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_once_after_every_period_of_change() {
        let mut trim = Trim::default();
        assert!(!trim.due() && !trim.due());
        trim.changed();
        assert!(!trim.due());
        trim.changed();
        assert!(!trim.due());
        assert!(trim.due());
        assert!(!trim.due() && !trim.due() && !trim.due());
    }
}

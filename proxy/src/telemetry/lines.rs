//! Log lines that others can cause: so many a second, so that nobody fills the log, or a disk, from outside.
//!
//! What is left out is counted elsewhere, in statistics; the log is for people.

use std::{num::NonZeroU32, sync::LazyLock};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

const PER_SECOND: NonZeroU32 = NonZeroU32::new(20).expect("not zero");

/// A share of the log.
pub struct Lines(LazyLock<DefaultDirectRateLimiter>);

impl Lines {
    /// Twenty lines a second, as many at once.
    pub const fn new() -> Self {
        Self(LazyLock::new(|| RateLimiter::direct(Quota::per_second(PER_SECOND))))
    }

    /// Whether another line may be written.
    pub fn allow(&self) -> bool {
        self.0.check().is_ok()
    }
}

impl Default for Lines {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_short() {
        let lines = Lines::new();
        let written = (0..100_000).filter(|_| lines.allow()).count();
        assert!((20..10_000).contains(&written), "{written}");
    }
}

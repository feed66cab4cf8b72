//! One epoch for everything that is decided by age: slow start, latencies that wear off.

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

/// The time since this was first asked.
pub fn uptime() -> Duration {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    EPOCH.get_or_init(Instant::now).elapsed()
}

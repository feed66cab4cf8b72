//! Waiting for conditions, never for time to pass.

use std::time::{Duration, Instant};

/// How long anything may take before a test fails: generous, because a loaded machine is slow but not wrong.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Polls until `probe` gives a value; panics with `what` and the last complaint after [`PATIENCE`]. How often it asked
/// and how long the slowest answer took tell a condition that never held from one probe that hung.
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    let (mut probes, mut slowest) = (0u32, Duration::ZERO);
    loop {
        let asked = Instant::now();
        let complaint = match probe() {
            Ok(value) => return value,
            Err(complaint) => complaint,
        };
        probes += 1;
        slowest = slowest.max(asked.elapsed());
        assert!(
            Instant::now() < deadline,
            "{what}: not within {PATIENCE:?}: {complaint} ({probes} probes, the slowest took {slowest:?})"
        );
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// Polls until `condition` holds.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    eventually(what, || if condition() { Ok(()) } else { Err("still false".to_owned()) });
}

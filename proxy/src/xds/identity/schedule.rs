//! When to renew: half way through the remaining validity, spread so that a fleet does not ask at once.

use std::time::{Duration, SystemTime};

/// Longest sleep between two looks at the wall clock and at the operator's roots, whose change nobody announces.
const STEP: Duration = Duration::from_secs(10);
/// A certificate that lives shorter than this is not asked for more often.
const MIN: Duration = Duration::from_secs(1);

/// The moment of renewal. `draw` is uniform in `0.0..1.0`.
pub(super) fn renewal(not_before: SystemTime, not_after: SystemTime, now: SystemTime, draw: f64) -> SystemTime {
    let from = not_before.max(now);
    let left = not_after.duration_since(from).unwrap_or_default();
    // Between 45 % and 55 % of what is left.
    let wait = left.mul_f64(0.45 + 0.1 * draw.clamp(0.0, 1.0)).max(MIN);
    // Authority and we may disagree about the time; our own clock decides when.
    now + wait
}

/// How long to sleep before looking again; `None` when it is time. A clock set back far does not stop renewal, because
/// `due` is compared anew after each step.
pub(super) fn rest(due: SystemTime, now: SystemTime) -> Option<Duration> {
    due.duration_since(now).ok().filter(|d| !d.is_zero()).map(|d| d.min(STEP))
}

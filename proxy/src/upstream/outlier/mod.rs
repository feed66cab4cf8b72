//! Outlier detection: hosts whose traffic fails are ejected from load balancing for a while, as in Envoy.
//!
//! [`Monitor`] counts on the workers, by atomics; [`Detector`] decides on the control thread, pure (events, time and
//! randomness in, [`Change`]s out). Neither knows balancers: what an ejection means is the cluster's.
//!
//! Unlike Envoy an ejected host does not return in full when its time is over. It is **half-open**: still out of the
//! balancer, it gets [`PROBES`] requests of those the balancer sent to hosts of its priority, and none beyond.
//! [`RETURN_AFTER`] good answers bring it back, [`EJECT_AFTER`] bad ones eject it again, for longer; one of the two is
//! reached by then. A probe without an answer (its client left) is given back. Where no other host can take a request
//! (all are out, and panic is off) a half-open one does, beyond the bound: nothing is risked that would not fail
//! anyway. In panic ejections do not count, and so neither does the bound. A half-open host nobody asks for returns
//! after another `base_ejection_time`.

mod detector;
mod monitor;
mod probe;
mod rate;
mod stats;

#[cfg(test)]
mod simulation_tests;
#[cfg(test)]
mod tests;

pub use detector::{Change, Detector, Kind, Rates};
pub use monitor::{Monitor, Outcome, Raised};
pub use probe::{Probe, Probes};
pub use rate::{Origin, Window};
pub use stats::OutlierStats;

/// Requests that a half-open host gets.
pub const PROBES: u32 = RETURN_AFTER + EJECT_AFTER - 1;

/// Good answers that return a half-open host.
pub const RETURN_AFTER: u32 = 3;

/// Bad answers that eject a half-open host again.
pub const EJECT_AFTER: u32 = 2;

//! The health of hosts as this proxy finds it out: the part of the control thread.
//!
//! [`Keeper`] feeds the decision cores (outlier detection, active checks) with what the workers and its own checks saw,
//! marks the endpoints, and says which clusters have to be published anew. It decides nothing itself, and delays no
//! request: what it does takes effect with the next publication.

mod active;
mod keeper;
mod passive;
mod probe;
mod state;
mod stats;

pub use keeper::Keeper;
pub use stats::CheckStats;

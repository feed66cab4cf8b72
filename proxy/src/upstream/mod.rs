//! Where traffic goes: clusters, their endpoints, load balancing, circuit breakers, name resolution and connections.
//!
//! A [`Cluster`] is an immutable view, checked on the control thread and compiled at its first use; everything that
//! changes at run time (counts, permits, cursors, pooled addresses) hangs off shared objects that the next view of the
//! same cluster takes over.
//! Knows nothing of HTTP, routes or listeners. Picking an endpoint takes no lock.

pub mod breaker;
pub mod cluster;
pub mod connect;
pub mod credit;
pub mod dns;
pub mod endpoint;
pub mod health;
pub mod lb;
mod original_dst;
pub mod outlier;
#[cfg(test)]
pub(crate) mod testing;
mod transport;
mod uptime;

pub use cluster::{Cluster, Deps, Member, PickContext, PickError, Picked};
pub use connect::{ConnectError, ConnectErrorKind, ConnectOptions, Connected, connect};
pub use endpoint::{ConnectionPermit, Endpoint, HealthFlag, RequestPermit, Scope};
pub use original_dst::sweep as sweep_original_dst;
pub use uptime::uptime;

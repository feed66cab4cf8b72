//! xDS: the only translation from wire to IR, and the clients that feed it.
//!
//! Owns the subscriptions (gRPC state of the world and delta, files, the workload identity), the store that warms what
//! arrives, and what `/config_dump` shows. It knows nothing of sockets, TLS or the data path: connections come from a
//! [`Transport`], results leave as [`Snapshot`](crate::ir::snapshot::Snapshot)s over a watch channel.
//! The invariant: a published snapshot is complete. Whatever it names is in it, or the control plane never had it.

pub mod client;
mod config;
pub mod decode;
mod driver;
pub mod dump;
#[cfg(test)]
mod e2e;
mod handle;
pub mod identity;
mod kind;
mod saved;
pub mod source;
mod status;
pub mod store;
mod subscriptions;
#[cfg(test)]
mod testing;

pub(crate) use self::driver::MAX_WAITING;
pub use self::{
    client::transport::{Connection, Transport},
    config::{AdsConfig, GrpcOptions, StartConfig, Statics, TokenFile, Warming},
    dump::{DumpError, DumpQuery},
    handle::Handle,
    identity::{IdentityConfig, workload::WORKLOAD_API},
    kind::Kind,
    saved::{SavedConfig, SavedStatus, read as read_saved},
    status::{IdentityStatus, KindStatus, Rejected, SourceStatus, Status},
};

/// Starts every task of the subscription on the current tokio runtime and returns at once.
///
/// The first snapshot, with the static resources that need nothing else, is already in the returned handle. Dropping
/// the last clone of the handle ends the tasks.
pub fn start(config: StartConfig, transport: std::sync::Arc<dyn Transport>) -> Handle {
    driver::start(config, transport)
}

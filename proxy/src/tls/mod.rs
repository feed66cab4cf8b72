//! TLS on both sides: contexts built from configuration and secrets, handshakes, peer identities.
//!
//! Owns every use of rustls on the data path. Knows nothing of clusters, listeners or xDS. Invariants: a context
//! always holds a complete, consistent configuration (the last good one when a rotation is bad), and no session is
//! resumed under rules other than those it was established under.

mod cause;
pub mod client;
mod context;
mod crypto;
pub mod error;
pub mod expiry;
pub mod files;
mod known;
mod material;
mod names;
mod peer;
pub mod secrets;
pub mod server;
pub mod shown;
pub use crate::ir::spiffe;
mod svid;
mod verify;

#[cfg(test)]
pub(crate) mod testing;

pub use cause::Cause;
pub use client::{ClientContext, ClientOptions};
pub use error::{HandshakeError, HandshakeErrorKind, TlsError};
pub use secrets::Secrets;
pub use server::{Client, ServerContext};

//! The HTTP client side: per-worker pools of HTTP/1 and HTTP/2 connections to endpoints.
//!
//! Owns connections from dial to close, decides which one carries a request, and says of every failure whether the
//! request can have been processed. Refuses to know routes, retries and bodies' meaning. Invariant: a request is given
//! back (or called unsent) only when no byte of it can have reached the peer.

mod pool;
mod types;

pub use pool::Pool;
pub use types::{Attempt, Facts, HttpProtocol, Protocol, SendError, SendErrorKind, Sent, StreamGuard};

//! The HTTP client side: per-worker pools of HTTP/1 and HTTP/2 connections to endpoints.
//!
//! Owns connections from dial to close, decides which one carries a request, and says of every failure whether the
//! request can have been processed. Refuses to know routes, retries and bodies' meaning. Invariant: a request is given
//! back (or called unsent) only when no byte of it can have reached the peer.

mod dial;
mod failure;
mod http1;
mod http2;
mod lane;
mod metered;
mod pool;
mod request;
mod types;
mod wait;

pub use metered::{Metered, Tunnel, tunnel};
pub use pool::Pool;
pub use types::{Attempt, Facts, HttpProtocol, Protocol, SendError, SendErrorKind, Sent, StreamGuard};

use std::error::Error;

/// The request bodies that a pool carries.
pub trait Payload:
    http_body::Body<Data = bytes::Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Unpin + 'static
{
}

impl<B> Payload for B where
    B: http_body::Body<Data = bytes::Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Unpin + 'static
{
}

#[cfg(test)]
mod tests;

//! HTTP: the server side, the request pipeline and the client side.
//!
//! [`server`] serves a downstream connection, [`pipeline`] is the life of one request in visible phases, [`client`]
//! holds the upstream connections. The other modules are single decisions or single mechanisms of those three.

mod again;
pub mod body;
pub mod client;
mod debug;
pub mod engine;
pub mod expect;
pub mod explain;
pub mod filters;
pub mod flow;
mod forward;
pub mod forwarded;
pub mod headers;
pub mod http2;
pub mod incoming;
mod local;
mod mesh;
pub mod mirror;
mod names;
mod outcome;
mod pipeline;
mod redirect;
pub mod replay;
mod reshape;
pub mod respond;
pub mod retry;
pub mod rewrite;
pub mod sanitize;
pub mod server;
pub mod side;
mod structs;
pub mod timeouts;
pub mod timer;
mod trace;
mod upgrade;
pub mod wire;

pub use body::{Body, BodyError};
pub use engine::{Engine, Pressure, RequestBound};

/// Largest HTTP/2 frame taken from a peer that makes such: each costs the same work, whatever its size.
const MAX_FRAME: u32 = 64 * 1024;

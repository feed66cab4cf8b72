//! HTTP: the server side, the request pipeline and the client side.
//!
//! [`server`] serves a downstream connection, [`pipeline`] is the life of one request in visible phases, [`client`]
//! holds the upstream connections. The other modules are single decisions or single mechanisms of those three.

mod body;
pub mod client;
mod engine;
mod expect;
mod flow;
mod forward;
mod forwarded;
mod headers;
mod outcome;
mod path;
mod pipeline;
mod replay;
mod respond;
mod retry;
mod rewrite;
mod sanitize;
pub mod server;
mod timeouts;
mod upgrade;
mod wire;

pub use body::{Body, BodyError};
pub use engine::Engine;

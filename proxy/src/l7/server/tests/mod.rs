//! The HTTP path from socket to socket: a proxy in this process between scripted peers.

mod failure;
mod http1;
mod http2;
mod limits;
mod outliers;
mod peer;
mod rest;
pub(crate) mod support;
mod tunnel;

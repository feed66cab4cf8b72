//! The HTTP path from socket to socket: a proxy in this process between scripted peers.

mod actions;
mod failure;
mod faults;
mod filters;
mod grpc_web;
mod http1;
mod http2;
mod limits;
mod mirror;
mod peer;
mod rest;
pub(crate) mod support;
mod tunnel;

//! The HTTP path from socket to socket: a proxy in this process between scripted peers.

mod actions;
mod authz;
mod balancing;
mod debug;
mod failure;
mod faults;
mod filters;
mod grpc_web;
mod hedging;
mod http1;
mod http2;
mod idle;
mod limits;
mod local_reply;
mod mirror;
mod outliers;
mod peer;
mod rate_limits;
mod rest;
mod retries;
mod running;
mod side;
pub(crate) mod support;
mod timeouts;
mod told;
mod tunnel;
mod upgrades;

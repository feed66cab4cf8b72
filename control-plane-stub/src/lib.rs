//! Outrigger's control plane: the operator's YAML in, Envoy's xDS v3 out, identities signed on the way.
//!
//! `model` reads and validates documents into one immutable [`model::World`]; `translate` is a pure function from
//! (world, node) to [`resources::Resources`]; `watch` turns a changing directory into generations; `server` serves
//! them over ADS; `ca` signs, `auth` knows who asks, `state` keeps the keys; `status` reports;
//! `explain` tells the way of one request; `cli` is both binaries.

pub mod auth;
pub mod ca;
pub mod cli;
pub mod explain;
pub mod model;
pub mod ratelimit;
pub mod resources;
pub mod server;
pub mod state;
pub mod status;
pub mod translate;
pub mod watch;

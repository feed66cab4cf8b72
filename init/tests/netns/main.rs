//! The program in real network namespaces: what it leaves in the packet filter, and what it proves about it.
//!
//! Needs root, iptables and nftables; without them each test says so and is skipped.

// The harness is no `#[test]` itself, so the lint's own exception for tests does not reach it.
#![allow(clippy::unwrap_used)]

mod check;
mod harness;
mod install;
mod port_guard;

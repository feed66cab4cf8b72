//! Decisions: pure functions over the configuration and the facts of a connection or request. No I/O, no clock.

pub mod chain;
pub mod concurrency;
pub mod cors;
pub mod fault;
pub mod rbac;
pub mod router;

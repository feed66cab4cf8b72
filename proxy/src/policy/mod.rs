//! Decisions: pure functions over the configuration and the facts of a connection or request. No I/O, no clock.

pub mod chain;
pub mod concurrency;
pub mod cors;
pub mod debug;
pub mod dry_run;
pub mod fault;
pub mod jwt;
pub mod mutation_rules;
pub mod path;
pub mod rate_limit;
pub mod rbac;
pub mod router;

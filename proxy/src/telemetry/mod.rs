//! What happened: counters, access logs, and the record of every connection and request that feeds them.

pub mod access_log;
pub mod exchange;
pub mod filters;
pub mod flags;
pub mod format;
mod format_time;
pub mod histogram;
pub mod limits;
pub mod lines;
pub mod mesh;
pub mod metadata;
pub mod metrics;
pub mod outbox;
pub mod own;
pub mod protobuf;
pub mod rbac;
pub mod record;
pub mod registry;
pub mod tap;
pub mod trace;
pub mod tracing_stats;

//! What happened: counters, access logs, and the record of every connection and request that feeds them.

pub mod flags;
pub mod metrics;
pub mod record;

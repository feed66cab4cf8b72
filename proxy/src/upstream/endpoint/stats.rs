//! What is counted of one endpoint, as `/clusters` shows it.

use std::sync::atomic::AtomicU64;

/// Counters of one endpoint; allocated at first use, for most endpoints of a large mesh get no traffic.
#[derive(Debug, Default)]
pub struct EndpointStats {
    pub cx_total: AtomicU64,
    pub cx_connect_fail: AtomicU64,
    pub rq_total: AtomicU64,
    pub rq_success: AtomicU64,
    pub rq_error: AtomicU64,
}

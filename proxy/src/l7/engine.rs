//! What one worker needs to serve HTTP.

use std::time::Instant;

use super::{body::Body, client::Pool};
use crate::live::Reader;

/// One per worker: the snapshot in force and the upstream connections.
pub struct Engine {
    pub live: Reader,
    pub pool: Pool<Body>,
}

impl Engine {
    pub fn new(live: Reader) -> Self {
        Self { live, pool: Pool::new() }
    }

    /// Lets go of pooled connections nobody wants any more; to be called about once a second.
    pub fn sweep(&self, now: Instant) {
        self.pool.sweep(now);
    }
}

//! The pool.
use std::{error::Error, marker::PhantomData, time::Instant};

use bytes::Bytes;
use http::Request;
use http_body::Body;

use super::types::{Attempt, SendError, Sent};

/// All upstream HTTP connections of one worker.
pub struct Pool<B> {
    _b: PhantomData<B>,
}

impl<B> Pool<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    pub fn new() -> Self {
        todo!()
    }

    /// Sends `request` over a pooled or new connection and waits for the response's headers.
    pub async fn send(&self, _attempt: &Attempt, _request: Request<B>) -> Result<Sent, Box<SendError<B>>> {
        todo!()
    }

    /// Closes what is idle too long, worn out, or belongs to removed endpoints. To be called about once a second.
    pub fn sweep(&self, _now: Instant) {
        todo!()
    }
}

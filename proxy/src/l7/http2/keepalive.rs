//! Pings that tell a silent peer from a dead one (Envoy's `connection_keepalive`).

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep};

/// The pings of one connection.
pub struct KeepAlive {
    pings: PingPong,
    interval: Duration,
    timeout: Duration,
    timer: Pin<Box<Sleep>>,
    /// Bytes that had come in when the ping under way was sent, or last extended.
    waiting: Option<u64>,
}

impl KeepAlive {
    /// A ping after every `interval`, and `timeout` for its answer.
    pub fn new(pings: PingPong, interval: Duration, timeout: Duration) -> Self {
        Self { pings, interval, timeout, timer: Box::pin(tokio::time::sleep(interval)), waiting: None }
    }

    /// Ready when the peer is dead. `received` is the number of bytes that came in so far: as in Envoy any byte
    /// extends the wait, since an answer can stand behind others' data.
    pub fn poll_dead(&mut self, cx: &mut Context<'_>, received: u64) -> Poll<()> {
        loop {
            if self.waiting.is_some() && matches!(self.pings.poll_pong(cx), Poll::Ready(Ok(_))) {
                self.waiting = None;
                self.again(self.interval);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            match self.waiting {
                Some(before) if before == received => return Poll::Ready(()),
                Some(_) => {
                    self.waiting = Some(received);
                    self.again(self.timeout);
                }
                None => {
                    // Fails only on a connection that is ending.
                    if self.pings.send_ping(Ping::opaque()).is_ok() {
                        self.waiting = Some(received);
                    }
                    self.again(self.timeout);
                }
            }
        }
    }

    fn again(&mut self, after: Duration) {
        self.timer.as_mut().reset(Instant::now() + after);
    }
}

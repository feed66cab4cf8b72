//! Accepting connections without ever spinning.
//!
//! Owns the reaction to failing `accept` calls. Knows nothing of what happens to a connection. Invariant: when the
//! process is out of descriptors or memory the loop sleeps, backing off, and logs once per interval.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    time::Instant,
};

const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// A listening socket whose `accept` only ever returns connections.
pub struct Acceptor<F> {
    listener: TcpListener,
    on_error: F,
    backoff: Backoff,
}

impl<F: FnMut(&io::Error)> Acceptor<F> {
    /// `on_error` counts; logging is done here.
    pub fn new(listener: TcpListener, on_error: F) -> Self {
        Self { listener, on_error, backoff: Backoff::default() }
    }

    /// Takes a socket of [`super::socket::bind_listener`]; must be called inside the worker's runtime.
    pub fn from_std(listener: std::net::TcpListener, on_error: F) -> io::Result<Self> {
        Ok(Self::new(TcpListener::from_std(listener)?, on_error))
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The next connection and its peer. Cancel safe.
    pub async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            if let Some(until) = self.backoff.until {
                tokio::time::sleep_until(until).await;
                self.backoff.until = None;
            }
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    self.backoff.success();
                    return (stream, super::socket::canonical(peer));
                }
                Err(error) => {
                    (self.on_error)(&error);
                    if let Some(unreported) = self.backoff.failure(&error, Instant::now()) {
                        let address = self.listener.local_addr().ok();
                        tracing::warn!(?address, %error, failures = unreported, "accepting connections fails");
                    }
                    // Even errors that need no pause must let the other tasks of the worker run.
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}

/// When to try again and when to say something.
#[derive(Debug, Default)]
struct Backoff {
    pause: Option<Duration>,
    until: Option<Instant>,
    logged: Option<Instant>,
    unreported: u64,
}

impl Backoff {
    fn success(&mut self) {
        self.pause = None;
    }

    /// Notes a failure; returns the number of failures to report when it is time to report.
    fn failure(&mut self, error: &io::Error, now: Instant) -> Option<u64> {
        if is_exhaustion(error) {
            let pause = self.pause.map_or(FIRST_PAUSE, |p| (p * 2).min(LONGEST_PAUSE));
            self.pause = Some(pause);
            self.until = Some(now + pause);
        }
        self.unreported += 1;
        if self.logged.is_some_and(|at| now < at + LOG_INTERVAL) {
            return None;
        }
        self.logged = Some(now);
        Some(std::mem::take(&mut self.unreported))
    }
}

/// Whether trying again at once is pointless. All else (`ECONNABORTED`, network errors Linux passes on from the new
/// connection) concerns only the connection that was lost.
fn is_exhaustion(error: &io::Error) -> bool {
    !matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::EINTR
                | libc::EPROTO
                | libc::ENETDOWN
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::EOPNOTSUPP
                | libc::ENETUNREACH
                | libc::EPERM
        )
    )
}

#[cfg(test)]
mod tests;

//! Inspection of the first bytes.
use crate::{ir::listener::Transport, net::io::Plain};
use std::time::Duration;
use tokio::net::TcpStream;

/// Which inspectors run and how far they may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InspectPlan {
    pub tls: bool,
    pub http: bool,
    /// `None` waits for ever.
    pub timeout: Option<Duration>,
    pub max_bytes: usize,
}

/// What the first bytes said.
#[derive(Debug)]
pub struct Inspected {
    pub plain: Plain,
    pub transport: Transport,
    /// SNI, lower case.
    pub server_name: Option<Box<str>>,
    /// ALPN as offered under TLS, or what the HTTP inspector detected: `http/1.0`, `http/1.1`, `h2c`.
    pub alpn: Vec<Box<str>>,
    pub timed_out: bool,
    /// The peer half-closed before the inspection was decided.
    pub eof: bool,
    /// The upstream spoke first.
    pub server_first: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    #[error("read failed: {0}")]
    Io(#[from] std::io::Error),
    /// A ClientHello or request line larger than the plan allows.
    #[error("the first message exceeds {0} bytes")]
    TooLarge(usize),
}

/// Reads until the first bytes of either side decide what the connection is.
pub async fn inspect(
    _stream: TcpStream,
    _plan: &InspectPlan,
    _server_first: impl Future<Output = ()>,
) -> Result<Inspected, InspectError> {
    todo!()
}

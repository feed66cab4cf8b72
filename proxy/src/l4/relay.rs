//! Relay.
use crate::net::io::Io;
use std::{cell::Cell, io, time::Duration};

/// Bounds on one relayed connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayOptions {
    /// Ends the relay when no byte moved in either direction for this long.
    pub idle_timeout: Option<Duration>,
    /// Ends the relay this long after it began, busy or not.
    pub max_duration: Option<Duration>,
    /// Bytes held per direction.
    pub buffer: usize,
}

/// Bytes written so far, live.
#[derive(Debug, Default)]
pub struct Progress {
    pub a_to_b: Cell<u64>,
    pub b_to_a: Cell<u64>,
}

/// One end of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    A,
    B,
}

/// Why a relay ended.
#[derive(Debug)]
pub enum RelayReason {
    /// Both directions reached their end.
    Closed,
    IdleTimeout,
    MaxDuration,
    /// `side` failed; the other one was reset, so that it cannot take a cut-off stream for a complete one.
    Error {
        side: Side,
        error: io::Error,
    },
}

/// How a relay ended.
#[derive(Debug)]
pub struct RelayEnd {
    pub reason: RelayReason,
    /// Whether bytes moved inside the kernel.
    pub spliced: bool,
}

pub async fn relay(_a: Io, _b: Io, _options: &RelayOptions, _progress: &Progress) -> RelayEnd {
    todo!()
}

//! What a failed send means: never sent, refused, reset, or somebody's fault.

use std::error::Error;

use super::types::SendErrorKind;
use crate::upstream::{ConnectError, ConnectErrorKind};

/// What is known of the stream that failed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    /// The connection carried requests before.
    pub(super) reused: bool,
    /// Bytes came in since the request was handed over (HTTP/1: it must be a response).
    pub(super) response_started: bool,
    /// Nothing was written since the request was handed over.
    pub(super) unwritten: bool,
}

/// The kind of an HTTP/1 connection's `error`, and its text with all causes.
pub(super) fn classify_http1(error: &hyper::Error, stream: Stream) -> (SendErrorKind, String) {
    let reason = text(error);
    if let Some(rejected) = rejected(&reason, stream) {
        return (rejected, reason);
    }
    let kind = if error.is_user() || error.is_body_write_aborted() {
        SendErrorKind::Body
    } else if error.is_parse() || error.is_parse_too_large() {
        SendErrorKind::Protocol
    } else if stream.unwritten {
        SendErrorKind::Unsent
    } else {
        reset(stream)
    };
    (kind, reason)
}

/// The kind of an HTTP/2 stream's or connection's `error`, and its text with all causes.
pub(super) fn classify_http2(error: &h2::Error, stream: Stream) -> (SendErrorKind, String) {
    let reason = text(error);
    let kind = rejected(&reason, stream).unwrap_or_else(|| of_http2(error, reset(stream)));
    (kind, reason)
}

fn reset(stream: Stream) -> SendErrorKind {
    SendErrorKind::Reset { response_started: stream.response_started, reused: stream.reused }
}

/// TLS 1.3 servers judge our certificate after our side of the handshake is done: the alert is the first thing we read,
/// and no request can have got through.
fn rejected(reason: &str, stream: Stream) -> Option<SendErrorKind> {
    let rejected = !stream.reused && !stream.response_started && reason.contains("received fatal alert");
    rejected.then(|| {
        SendErrorKind::Connect(ConnectError { kind: ConnectErrorKind::Tls, reason: format!("TLS error: {reason}") })
    })
}

fn of_http2(error: &h2::Error, reset: SendErrorKind) -> SendErrorKind {
    let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    // h2 fails only the streams above GOAWAY's last id with the peer's GOAWAY; those below end with the connection.
    if error.is_remote() && (refused || error.is_go_away()) {
        SendErrorKind::Refused
    } else if error.is_remote() && error.is_reset() {
        SendErrorKind::StreamReset
    } else if error.is_library() {
        SendErrorKind::Protocol
    } else if error.is_reset() && !error.is_remote() {
        // Reset by our side: the request body failed.
        SendErrorKind::Body
    } else if error.is_remote() || error.is_io() || error.reason().is_some() {
        reset
    } else {
        // What is left is h2's refusal of the head we gave it.
        SendErrorKind::Protocol
    }
}

/// Whether an HTTP/2 connection is beyond use after `error`, and not just one stream.
pub(super) fn ends_connection(error: &h2::Error) -> bool {
    error.is_go_away() || error.is_io()
}

/// All causes in one line, each said once.
fn text(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        next = error.source();
    }
    text
}

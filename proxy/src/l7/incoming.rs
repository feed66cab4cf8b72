//! The body of a message that comes in, whichever codec read it.

use std::{
    error::Error,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{
    expect::Awaited,
    filters::{Decoded, Gathered, Resumed, Retrailed},
    http2::{Received, Tunnel},
    mirror::Teed,
};

/// What a peer sends behind a head.
#[derive(Debug)]
pub enum Incoming {
    /// Nothing can follow.
    None,
    /// Over HTTP/1.
    Http1(hyper::body::Incoming),
    /// On an HTTP/2 stream.
    Http2(Received),
    /// The same, of a client that waits to be asked for it.
    Awaited(Box<Awaited>),
    /// An HTTP/2 stream that became a tunnel: no body follows.
    Tunnel(Box<Tunnel>),
    /// Read to its end already.
    Gathered(Box<Gathered>),
    /// Read ahead in part.
    Resumed(Box<Resumed>),
    /// gRPC-Web in its text form.
    Decoded(Box<Decoded>),
    /// Its trailers are mutated.
    Retrailed(Box<Retrailed<Incoming>>),
    /// Copied for mirrors as it passes.
    Teed(Box<Teed>),
}

/// Why a body broke off.
#[derive(Debug)]
pub enum IncomingError {
    Http1(hyper::Error),
    Http2(h2::Error),
    /// The text form of gRPC-Web, not well formed.
    Base64,
}

impl IncomingError {
    /// Whether the peer sent what cannot be understood.
    pub fn is_malformed(&self) -> bool {
        matches!(self, Self::Base64)
    }

    /// Whether the peer reset this one stream.
    pub fn is_reset(&self) -> bool {
        matches!(self, Self::Http2(_))
    }
}

impl fmt::Display for IncomingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http1(error) => error.fmt(f),
            Self::Http2(error) => error.fmt(f),
            Self::Base64 => f.write_str("invalid base64 data"),
        }
    }
}

impl Error for IncomingError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Http1(error) => error.source(),
            Self::Http2(error) => error.source(),
            Self::Base64 => None,
        }
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = IncomingError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, IncomingError>>> {
        match self.get_mut() {
            Self::Http1(body) => Pin::new(body).poll_frame(cx).map_err(IncomingError::Http1),
            Self::Http2(body) => Pin::new(body).poll_frame(cx).map_err(IncomingError::Http2),
            Self::Awaited(awaited) => awaited.ask().poll_frame(cx).map_err(IncomingError::Http2),
            Self::Teed(teed) => teed.poll_frame(cx),
            Self::Retrailed(retrailed) => retrailed.poll_frame(cx),
            Self::Decoded(decoded) => decoded.poll_frame(cx),
            Self::Gathered(all) => Poll::Ready(all.next().map(Ok)),
            Self::Resumed(resumed) => resumed.poll_frame(cx),
            Self::None | Self::Tunnel(_) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
            Self::Awaited(awaited) => awaited.body().is_end_stream(),
            Self::Gathered(all) => all.is_end(),
            Self::Resumed(resumed) => resumed.is_end(),
            Self::Teed(teed) => teed.is_end_stream(),
            Self::Retrailed(retrailed) => retrailed.is_end_stream(),
            Self::Decoded(decoded) => decoded.is_end_stream(),
            Self::None | Self::Tunnel(_) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
            Self::Awaited(awaited) => awaited.body().size_hint(),
            Self::Teed(teed) => teed.size_hint(),
            Self::Retrailed(retrailed) => retrailed.size_hint(),
            Self::Decoded(decoded) => decoded.size_hint(),
            Self::Gathered(all) => SizeHint::with_exact(all.length()),
            Self::Resumed(resumed) => resumed.size_hint(),
            Self::None | Self::Tunnel(_) => SizeHint::with_exact(0),
        }
    }
}

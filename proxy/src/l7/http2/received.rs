//! The bytes a peer sends on a stream, as a body. Only END_STREAM is its end: a reset is none, whatever its reason. One
//! with NO_ERROR after END_STREAM (RFC 9113 section 8.1, an early answer's) is not seen here; before it the body is cut.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::RecvStream;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::content_length;

/// The receiving half of a stream.
#[derive(Debug)]
pub struct Received {
    stream: RecvStream,
    /// What is left of the announced length.
    left: Option<u64>,
    data_done: bool,
}

impl Received {
    pub fn new(stream: RecvStream, headers: &HeaderMap) -> Self {
        let announced = content_length(headers);
        let left = announced.or_else(|| stream.is_end_stream().then_some(0));
        Self { stream, left, data_done: false }
    }

    pub fn into_stream(self) -> RecvStream {
        self.stream
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.data_done {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // A stream that was reset meanwhile has no window to give back.
                    let _ = self.stream.flow_control().release_capacity(data.len());
                    if let Some(left) = &mut self.left {
                        *left = left.saturating_sub(data.len() as u64);
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => self.data_done = true,
            }
        }
        Poll::Ready(match ready!(self.stream.poll_trailers(cx)) {
            Ok(trailers) => trailers.map(|t| Ok(Frame::trailers(t))),
            Err(error) => Some(Err(error)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

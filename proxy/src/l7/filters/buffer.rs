//! The buffer filter: a request goes on only when all of it is here.

use std::{collections::VecDeque, future::poll_fn, pin::Pin, pin::pin, task::Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body::{Body as _, Frame};

use super::{Call, Stop};
use crate::{
    l7::{flow::Flow, incoming::Incoming, pipeline::Inbound, respond::Reply, sanitize::Tunnel},
    telemetry::flags::Flags,
};

/// A request body that has come to its end.
#[derive(Debug, Default)]
pub struct Gathered {
    chunks: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
    length: u64,
}

impl Gathered {
    /// A body of these frames.
    pub(in crate::l7) fn new(frames: impl Iterator<Item = Frame<Bytes>>) -> Self {
        let mut all = Self::default();
        frames.for_each(|frame| all.push(frame));
        all
    }

    fn push(&mut self, frame: Frame<Bytes>) {
        match frame.into_data() {
            Ok(data) => {
                self.length += data.len() as u64;
                self.chunks.push_back(data);
            }
            Err(frame) => self.trailers = frame.into_trailers().ok(),
        }
    }

    pub(in crate::l7) fn next(&mut self) -> Option<Frame<Bytes>> {
        match self.chunks.pop_front() {
            Some(chunk) => {
                self.length -= chunk.len() as u64;
                Some(Frame::data(chunk))
            }
            None => self.trailers.take().map(Frame::trailers),
        }
    }

    pub(in crate::l7) fn is_end(&self) -> bool {
        self.chunks.is_empty() && self.trailers.is_none()
    }

    /// Bytes that are still here.
    pub(in crate::l7) fn length(&self) -> u64 {
        self.length
    }
}

/// Why a request could not be gathered.
enum Failure {
    TooLarge,
    BrokeOff,
}

impl Call<'_> {
    pub(super) async fn buffer(&self, limit: u32, request: &mut Inbound) -> Result<(), Stop> {
        // What follows the head of a tunnel is not a request.
        if request.body.is_end_stream() || request.sane.tunnel != Tunnel::None {
            return Ok(());
        }
        let mut body = std::mem::replace(&mut request.body, Incoming::None);
        let gathered = self.wait(pin!(gather(&mut body, self.flow, limit.into()))).await?;
        let gathered = gathered.map_err(|failure| {
            Stop::Reply(Box::new(match failure {
                Failure::TooLarge => {
                    Reply::new(StatusCode::PAYLOAD_TOO_LARGE, "request_payload_too_large").body("Payload Too Large")
                }
                Failure::BrokeOff => Reply::new(StatusCode::BAD_REQUEST, "downstream_remote_disconnect")
                    .flag(Flags::DOWNSTREAM_CONNECTION_TERMINATION),
            }))
        })?;
        let headers = &mut request.parts.headers;
        headers.remove(header::TRANSFER_ENCODING);
        // The client was told to go on already.
        headers.remove(header::EXPECT);
        headers.entry(header::CONTENT_LENGTH).or_insert(HeaderValue::from(gathered.length));
        request.body = Incoming::Gathered(Box::new(gathered));
        Ok(())
    }
}

async fn gather(body: &mut Incoming, flow: &Flow, limit: u64) -> Result<Gathered, Failure> {
    let mut all = Gathered::default();
    if body.size_hint().lower() > limit {
        return Err(Failure::TooLarge);
    }
    loop {
        let frame = poll_fn(|cx| match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(frame) => {
                flow.touch();
                Poll::Ready(frame)
            }
        })
        .await;
        match frame {
            None => break,
            Some(Err(error)) => {
                tracing::debug!(%error, "request body broke off");
                return Err(Failure::BrokeOff);
            }
            Some(Ok(frame)) => {
                all.push(frame);
                if all.length > limit {
                    return Err(Failure::TooLarge);
                }
            }
        }
    }
    flow.request_complete();
    Ok(all)
}

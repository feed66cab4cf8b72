//! The buffer filter: a request goes on only when all of it is here.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body::{Body as _, Frame, SizeHint};

use super::{Call, Stop};
use crate::{
    l7::{
        flow::Flow,
        incoming::{Incoming, IncomingError},
        pipeline::Inbound,
        respond::Reply,
        sanitize::Tunnel,
    },
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

    /// Reads until the body's end, or until it is `enough`.
    async fn fill(&mut self, body: &mut Incoming, flow: &Flow, enough: impl Fn(&Self) -> bool) -> Result<(), Failure> {
        while !enough(self) {
            let frame = poll_fn(|cx| match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(frame) => {
                    flow.touch();
                    Poll::Ready(frame)
                }
            })
            .await;
            match frame {
                None => {
                    flow.request_complete();
                    break;
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, "request body broke off");
                    return Err(Failure::BrokeOff);
                }
                Some(Ok(frame)) => self.push(frame),
            }
        }
        Ok(())
    }

    /// The first `limit` bytes.
    fn copy(&self, limit: usize) -> Bytes {
        let mut all = Vec::new();
        for chunk in &self.chunks {
            let room = limit - all.len();
            all.extend_from_slice(&chunk[..chunk.len().min(room)]);
        }
        all.into()
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

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Reply(Box::new(match failure {
            Failure::TooLarge => {
                Reply::new(StatusCode::PAYLOAD_TOO_LARGE, "request_payload_too_large").body("Payload Too Large")
            }
            Failure::BrokeOff => Reply::new(StatusCode::BAD_REQUEST, "downstream_remote_disconnect")
                .flag(Flags::DOWNSTREAM_CONNECTION_TERMINATION),
        }))
    }
}

impl Call<'_> {
    pub(super) async fn buffer(&self, limit: u32, request: &mut Inbound) -> Result<(), Stop> {
        // What follows the head of a tunnel is not a request.
        if request.body.is_end_stream() || request.sane.tunnel != Tunnel::None {
            return Ok(());
        }
        let mut body = std::mem::replace(&mut request.body, Incoming::None);
        let gathered = self.wait(pin!(gather(&mut body, self.flow, limit.into()))).await??;
        let headers = &mut request.parts.headers;
        headers.remove(header::TRANSFER_ENCODING);
        // The client was told to go on already.
        headers.remove(header::EXPECT);
        headers.entry(header::CONTENT_LENGTH).or_insert(HeaderValue::from(gathered.length));
        request.body = Incoming::Gathered(Box::new(gathered));
        Ok(())
    }

    /// Looks at the first `limit` bytes of a body, which goes on as it came; with the length of
    /// what was read, and whether more may follow. A longer one is answered here unless a part will do.
    pub(super) async fn look(
        &self,
        limit: u32,
        partial: bool,
        request: &mut Inbound,
    ) -> Result<(Bytes, u64, bool), Stop> {
        let mut rest = std::mem::replace(&mut request.body, Incoming::None);
        let bound = u64::from(limit);
        let (front, bytes) = if partial {
            let mut front = Gathered::default();
            self.wait(pin!(front.fill(&mut rest, self.flow, |front| front.length >= bound))).await??;
            let bytes = front.copy(limit as usize);
            (front, bytes)
        } else {
            let front = self.wait(pin!(gather(&mut rest, self.flow, bound))).await??;
            let bytes = front.copy(limit as usize);
            (front, bytes)
        };
        // The client was told to go on already.
        request.parts.headers.remove(header::EXPECT);
        let length = front.length;
        let whole = rest.is_end_stream();
        request.body = match whole {
            true => Incoming::Gathered(Box::new(front)),
            false => Incoming::Resumed(Box::new(Resumed { front, rest })),
        };
        // Read up to the bound, its end was not seen: there may be more even if so far nothing was cut off.
        Ok((bytes, length, partial && length >= bound && !whole))
    }
}

/// A body of which a part was read ahead.
#[derive(Debug)]
pub struct Resumed {
    front: Gathered,
    rest: Incoming,
}

impl Resumed {
    pub(in crate::l7) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, IncomingError>>> {
        match self.front.next() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    pub(in crate::l7) fn is_end(&self) -> bool {
        self.front.is_end() && self.rest.is_end_stream()
    }

    pub(in crate::l7) fn size_hint(&self) -> SizeHint {
        let (front, rest) = (self.front.length(), self.rest.size_hint());
        let mut hint = SizeHint::new();
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(front));
        }
        hint.set_lower(rest.lower().saturating_add(front));
        hint
    }
}

async fn gather(body: &mut Incoming, flow: &Flow, limit: u64) -> Result<Gathered, Failure> {
    let mut all = Gathered::default();
    if body.size_hint().lower() > limit {
        return Err(Failure::TooLarge);
    }
    all.fill(body, flow, |all| all.length > limit).await?;
    if all.length > limit { Err(Failure::TooLarge) } else { Ok(all) }
}

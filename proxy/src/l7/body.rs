//! The bodies of both directions: streamed frame by frame, counted, timed, never gathered.
//!
//! A body that breaks yields an error, and hyper then resets the other side: a cut body can never look complete.
//! Length and end are passed through, so framing is kept as the sender chose it. Knows no routes and no retries;
//! [`super::replay`] holds what a retry needs.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::{
    again,
    client::StreamGuard,
    expect::Gate,
    filters::{GrpcWeb, Retrailed, Throttled},
    flow::Flow,
    incoming::Incoming,
    mirror::Copy,
    replay::Replay,
    timer::Timer,
};
use crate::telemetry::flags::Flags;

/// Why a body ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    #[error("the client's request broke off")]
    Downstream,
    #[error("the upstream's response broke off")]
    Upstream,
    #[error("this try was given up")]
    Superseded,
    #[error("timed out")]
    Timeout,
    #[error("not allowed any more")]
    Revoked,
}

/// Any body this proxy sends.
pub enum Body {
    Empty,
    /// A local reply; `None` once it was taken.
    Full(Option<Bytes>),
    /// Nothing, but with the length that a `304` announces.
    Announced(u64),
    /// A request on its way up.
    Upload(Upload),
    /// A response on its way down.
    Download(Box<Download>),
    /// A response that is slowed down.
    Throttled(Box<Throttled>),
    /// A response whose trailers are mutated.
    Retrailed(Box<Retrailed<Body>>),
    /// A gRPC response in the form of gRPC-Web.
    GrpcWeb(Box<GrpcWeb>),
    /// A copy of a request on its way to a mirror.
    Copy(Copy),
}

impl Body {
    /// The exchange whose response this is, where it comes from an upstream.
    pub fn flow(&self) -> Option<&Rc<Flow>> {
        match self {
            Self::Download(download) => Some(&download.flow),
            Self::Throttled(throttled) => throttled.flow(),
            Self::Retrailed(retrailed) => retrailed.inner().flow(),
            Self::GrpcWeb(translated) => translated.flow(),
            Self::Empty | Self::Full(_) | Self::Announced(_) | Self::Upload(_) | Self::Copy(_) => None,
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty | Self::Announced(_) => Poll::Ready(None),
            Self::Full(data) => Poll::Ready(data.take().map(|data| Ok(Frame::data(data)))),
            Self::Upload(upload) => upload.poll_frame(cx),
            Self::Download(download) => download.poll_frame(cx),
            Self::Throttled(throttled) => throttled.poll_frame(cx),
            Self::GrpcWeb(web) => web.poll_frame(cx),
            Self::Retrailed(retrailed) => retrailed.poll_frame(cx),
            Self::Copy(copy) => copy.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Announced(_) => false,
            Self::Full(data) => data.is_none(),
            Self::Upload(upload) => upload.is_end_stream(),
            Self::Download(download) => download.incoming.is_end_stream(),
            Self::Throttled(throttled) => throttled.is_end_stream(),
            Self::GrpcWeb(web) => web.is_end_stream(),
            Self::Retrailed(retrailed) => retrailed.is_end_stream(),
            Self::Copy(copy) => copy.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Announced(length) => SizeHint::with_exact(*length),
            Self::Full(data) => SizeHint::with_exact(data.as_ref().map_or(0, |d| d.len() as u64)),
            Self::Upload(upload) => upload.size_hint(),
            Self::Download(download) => download.incoming.size_hint(),
            Self::Throttled(throttled) => throttled.size_hint(),
            Self::GrpcWeb(web) => web.size_hint(),
            Self::Retrailed(retrailed) => retrailed.size_hint(),
            Self::Copy(copy) => copy.size_hint(),
        }
    }
}

/// A request body.
pub struct Upload {
    source: Source,
    flow: Rc<Flow>,
    /// Holds the body back until the upstream wants it (`Expect: 100-continue`).
    gate: Option<Gate>,
}

enum Source {
    Direct(Incoming),
    /// Kept, within a limit, for further tries.
    Shared(Replay),
}

impl Upload {
    pub fn direct(incoming: Incoming, flow: Rc<Flow>) -> Self {
        Self { source: Source::Direct(incoming), flow, gate: None }
    }

    pub fn shared(replay: Replay, flow: Rc<Flow>) -> Self {
        Self { source: Source::Shared(replay), flow, gate: None }
    }

    pub fn set_gate(&mut self, gate: Gate) {
        self.gate = Some(gate);
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(gate) = &mut self.gate {
            ready!(gate.poll_open(cx));
            self.gate = None;
        }
        match &mut self.source {
            Source::Direct(incoming) => poll_upload(incoming, &self.flow, cx),
            Source::Shared(replay) => replay.poll_frame(&self.flow, cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Direct(incoming) => incoming.is_end_stream(),
            Source::Shared(replay) => replay.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Direct(incoming) => incoming.size_hint(),
            Source::Shared(replay) => replay.size_hint(),
        }
    }
}

/// Takes one frame from the client, counting it.
pub(super) fn poll_upload(
    incoming: &mut Incoming,
    flow: &Flow,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
    let frame = ready!(Pin::new(&mut *incoming).poll_frame(cx));
    flow.touch();
    Poll::Ready(match frame {
        None => {
            flow.request_complete();
            None
        }
        Some(Ok(frame)) => {
            if let Some(data) = frame.data_ref() {
                flow.record.received(data.len());
            }
            if frame.is_trailers() || incoming.is_end_stream() {
                flow.request_complete();
            }
            Some(Ok(frame))
        }
        Some(Err(error)) if error.is_malformed() => {
            flow.malformed();
            Some(Err(BodyError::Downstream))
        }
        Some(Err(error)) => {
            tracing::debug!(%error, "request body broke off");
            flow.record.flag(Flags::DOWNSTREAM_CONNECTION_TERMINATION);
            flow.record.details("downstream_remote_disconnect");
            Some(Err(BodyError::Downstream))
        }
    })
}

/// A response body.
pub struct Download {
    incoming: Incoming,
    /// The stream's place on its upstream connection.
    guard: Option<StreamGuard>,
    flow: Rc<Flow>,
    timer: Timer,
}

impl Download {
    pub fn new(incoming: Incoming, guard: StreamGuard, flow: Rc<Flow>) -> Self {
        Self { incoming, guard: Some(guard), flow, timer: Timer::default() }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Pending if again::poll_refused(&self.flow, cx).is_ready() => {
                self.give_up();
                Poll::Ready(Some(Err(BodyError::Revoked)))
            }
            Poll::Pending => self.poll_timers(cx).map(|()| Some(Err(BodyError::Timeout))),
            Poll::Ready(None) => {
                self.complete();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Ok(frame))) => {
                self.flow.touch();
                if let Some(data) = frame.data_ref() {
                    self.flow.record.sent(data.len());
                } else if let Some(trailers) = frame.trailers_ref() {
                    self.flow.record.trailers(trailers);
                }
                if frame.is_trailers() || self.incoming.is_end_stream() {
                    self.complete();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                tracing::debug!(%error, "response body broke off");
                let (flag, details) = if error.is_reset() {
                    (Flags::UPSTREAM_REMOTE_RESET, "upstream_reset_after_response_started{remote_reset}")
                } else {
                    (
                        Flags::UPSTREAM_CONNECTION_TERMINATION,
                        "upstream_reset_after_response_started{connection_termination}",
                    )
                };
                self.flow.record.flag(flag);
                self.flow.record.details(details);
                self.guard.iter().for_each(|guard| guard.answered(false));
                self.give_up();
                Poll::Ready(Some(Err(BodyError::Upstream)))
            }
        }
    }

    fn complete(&mut self) {
        let now = Instant::now();
        self.flow.record.response_complete_at(now);
        let done = self.flow.request_done();
        if let Some(guard) = &self.guard {
            guard.took(done.map(|done| now.saturating_duration_since(done)));
        }
        if done.is_none() {
            // Answered early: what is left of the request has nowhere to go, and nobody is to wait for it.
            self.give_up();
        }
        // Dropping the guard hands the connection back.
        self.guard.take().iter().for_each(|guard| guard.answered(true));
        self.timer = Timer::default();
    }

    fn give_up(&mut self) {
        if let Some(guard) = self.guard.take() {
            guard.abort();
        }
    }

    /// Ready when the stream sat idle too long or a deadline passed. The timer exists only once a body stalls.
    fn poll_timers(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.flow.awaits_request() {
                self.flow.wait_for_request(cx.waker());
            }
            let Some(next) = self.flow.limit_at() else { return Poll::Pending };
            let now = Instant::now();
            if now >= next {
                self.flow.expire(now, self.guard.as_ref().map(StreamGuard::stats));
                self.give_up();
                return Poll::Ready(());
            }
            ready!(self.timer.poll_until(next, cx));
        }
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        // Not complete: the client went away, and the upstream's work is of no use to anyone.
        self.give_up();
    }
}

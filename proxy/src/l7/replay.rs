//! A request body that can be sent again, within a limit.
//!
//! Frames are passed on as they come and kept at the same time. Past the limit what was kept is dropped and the body
//! goes on as a plain stream: memory per request is bounded, and a request that grew too big is not retried.

use std::{
    cell::RefCell,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};

use super::{
    body::{BodyError, poll_upload},
    flow::Flow,
    incoming::Incoming,
};

/// Bytes kept per request.
pub const LIMIT: usize = 64 * 1024;

struct State {
    incoming: Incoming,
    chunks: Vec<Bytes>,
    trailers: Option<HeaderMap>,
    size: usize,
    ended: bool,
    overflow: bool,
    failed: bool,
    /// The try that may read; a former one that is still about must not take frames away.
    current: u32,
}

/// The kept body, of which tries are made.
#[derive(Clone)]
pub struct Kept {
    state: Rc<RefCell<State>>,
    hint: SizeHint,
}

impl Kept {
    pub fn new(incoming: Incoming) -> Self {
        let hint = incoming.size_hint();
        let state = State {
            incoming,
            chunks: Vec::new(),
            trailers: None,
            size: 0,
            ended: false,
            overflow: false,
            failed: false,
            current: 0,
        };
        Self { state: Rc::new(RefCell::new(state)), hint }
    }

    /// Whether a new try would see the whole body.
    pub fn is_whole(&self) -> bool {
        let state = self.state.borrow();
        !state.overflow && !state.failed
    }

    /// A body that starts at the first byte. Earlier ones end with an error from now on.
    pub fn attempt(&self) -> Replay {
        let mut state = self.state.borrow_mut();
        state.current += 1;
        Replay { kept: self.clone(), attempt: state.current, next: 0, trailers_sent: false }
    }
}

/// One try's view of a [`Kept`] body.
pub struct Replay {
    kept: Kept,
    attempt: u32,
    next: usize,
    trailers_sent: bool,
}

impl Replay {
    pub(super) fn poll_frame(
        &mut self,
        flow: &Flow,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut state = self.kept.state.borrow_mut();
        let state = &mut *state;
        if state.current != self.attempt {
            return Poll::Ready(Some(Err(BodyError::Superseded)));
        }
        if state.failed {
            return Poll::Ready(Some(Err(BodyError::Downstream)));
        }
        if !state.overflow {
            if let Some(chunk) = state.chunks.get(self.next) {
                self.next += 1;
                return Poll::Ready(Some(Ok(Frame::data(chunk.clone()))));
            }
            if state.ended {
                let trailers = state.trailers.clone().filter(|_| !self.trailers_sent);
                self.trailers_sent = true;
                return Poll::Ready(trailers.map(|t| Ok(Frame::trailers(t))));
            }
        }
        let frame = ready!(poll_upload(&mut state.incoming, flow, cx));
        match &frame {
            None => state.ended = true,
            Some(Err(_)) => state.failed = true,
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    state.size += data.len();
                    state.overflow |= state.size > LIMIT;
                    if state.overflow {
                        state.chunks = Vec::new();
                    } else {
                        state.chunks.push(data.clone());
                        self.next = state.chunks.len();
                    }
                } else if let Some(trailers) = frame.trailers_ref() {
                    state.trailers = Some(trailers.clone());
                    state.ended = true;
                    self.trailers_sent = true;
                }
                state.ended |= state.incoming.is_end_stream();
            }
        }
        Poll::Ready(frame)
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let state = self.kept.state.borrow();
        let drained = state.overflow || self.next >= state.chunks.len();
        drained && (state.ended || state.incoming.is_end_stream()) && (self.trailers_sent || state.trailers.is_none())
    }

    /// Exact only before the first byte: that is when framing is decided.
    pub(super) fn size_hint(&self) -> SizeHint {
        if self.next == 0 { self.kept.hint } else { SizeHint::default() }
    }
}

//! A request body that can be sent again, within a limit.
//!
//! Frames are passed on as they come and kept at the same time. Past the limit what was kept is dropped and the body
//! goes on as a plain stream: memory per request is bounded, and a request that grew too big is not retried. Only the
//! newest try reads on from the client; an earlier one may only repeat what is kept.

use std::{
    cell::RefCell,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};

use super::{
    body::{BodyError, poll_upload},
    flow::Flow,
    incoming::Incoming,
};

#[cfg(test)]
#[path = "replay_tests.rs"]
mod tests;

/// Smaller pieces are copied together: each would hold the memory it was read into.
const SMALL: usize = 1024;
/// How much is copied together.
const BLOCK: usize = 16 * 1024;

/// What was kept of a body.
#[derive(Default)]
struct Store {
    chunks: Vec<Bytes>,
    /// Small pieces that came after the chunks.
    tail: BytesMut,
    size: u64,
}

/// How far into a [`Store`] a try has read.
#[derive(Clone, Copy, Default)]
struct Place {
    chunk: usize,
    offset: usize,
}

impl Store {
    fn push(&mut self, data: &Bytes) {
        self.size += data.len() as u64;
        let small = data.len() < SMALL;
        if !self.tail.is_empty() && (!small || self.tail.len() + data.len() > BLOCK) {
            let tail = std::mem::take(&mut self.tail);
            self.chunks.push(tail.freeze());
        }
        if small {
            self.tail.extend_from_slice(data);
        } else {
            self.chunks.push(data.clone());
        }
    }

    fn end(&self) -> Place {
        Place { chunk: self.chunks.len(), offset: self.tail.len() }
    }

    /// The next piece, if there is more.
    fn read(&self, place: &mut Place) -> Option<Bytes> {
        while let Some(chunk) = self.chunks.get(place.chunk) {
            let rest = chunk.slice(place.offset.min(chunk.len())..);
            *place = Place { chunk: place.chunk + 1, offset: 0 };
            if !rest.is_empty() {
                return Some(rest);
            }
        }
        let rest = self.tail.get(place.offset..).filter(|rest| !rest.is_empty())?;
        place.offset = self.tail.len();
        Some(Bytes::copy_from_slice(rest))
    }

    fn is_read(&self, place: Place) -> bool {
        self.chunks.len() <= place.chunk && self.tail.len() <= place.offset
    }
}

struct State {
    incoming: Incoming,
    store: Store,
    limit: u64,
    trailers: Option<HeaderMap>,
    ended: bool,
    overflow: bool,
    failed: bool,
    /// There will be no further try.
    settled: bool,
    /// The try that may read on; a former one that is still about must not take frames away.
    current: u32,
}

/// The kept body, of which tries are made.
#[derive(Clone)]
pub struct Kept {
    state: Rc<RefCell<State>>,
    hint: SizeHint,
}

impl Kept {
    /// Keeps up to `limit` bytes.
    pub fn new(incoming: Incoming, limit: u64) -> Self {
        let hint = incoming.size_hint();
        let state = State {
            // What is known to be too long is not worth a start.
            overflow: hint.lower() > limit,
            incoming,
            store: Store::default(),
            limit,
            trailers: None,
            ended: false,
            failed: false,
            settled: false,
            current: 0,
        };
        Self { state: Rc::new(RefCell::new(state)), hint }
    }

    /// Whether a new try would see the whole body.
    pub fn is_whole(&self) -> bool {
        let state = self.state.borrow();
        !state.overflow && !state.failed
    }

    /// The newest try is the last one.
    pub fn settle(&self) {
        self.state.borrow_mut().settled = true;
    }

    /// Whether the body is longer than may be kept.
    pub fn is_too_long(&self) -> bool {
        self.state.borrow().overflow
    }

    /// A body that starts at the first byte. From now on it is the one that reads on.
    pub fn attempt(&self) -> Replay {
        let mut state = self.state.borrow_mut();
        state.current += 1;
        Replay {
            kept: self.clone(),
            attempt: state.current,
            place: Place::default(),
            begun: false,
            trailers_sent: false,
        }
    }
}

/// One try's view of a [`Kept`] body.
pub struct Replay {
    kept: Kept,
    attempt: u32,
    place: Place,
    begun: bool,
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
        self.begun = true;
        if state.failed {
            return Poll::Ready(Some(Err(BodyError::Downstream)));
        }
        if !state.overflow {
            if let Some(data) = state.store.read(&mut self.place) {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            if state.ended {
                let trailers = state.trailers.clone().filter(|_| !self.trailers_sent);
                self.trailers_sent = true;
                return Poll::Ready(trailers.map(|t| Ok(Frame::trailers(t))));
            }
        }
        if state.current != self.attempt {
            return Poll::Ready(Some(Err(BodyError::Superseded)));
        }
        let frame = ready!(poll_upload(&mut state.incoming, flow, cx));
        match &frame {
            None => state.ended = true,
            Some(Err(_)) => state.failed = true,
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    state.overflow |= !state.settled && state.store.size + data.len() as u64 > state.limit;
                    if state.overflow || state.settled {
                        (state.store, self.place) = (Store::default(), Place::default());
                    } else {
                        state.store.push(data);
                        self.place = state.store.end();
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
        let drained = state.overflow || state.store.is_read(self.place);
        drained && (state.ended || state.incoming.is_end_stream()) && (self.trailers_sent || state.trailers.is_none())
    }

    /// Exact only before the first byte: that is when framing is decided.
    pub(super) fn size_hint(&self) -> SizeHint {
        if self.begun { SizeHint::default() } else { self.kept.hint }
    }
}

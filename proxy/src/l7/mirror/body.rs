//! A request body and its copies: a bounded queue between each pair.

use std::{
    cell::RefCell,
    collections::VecDeque,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use smallvec::SmallVec;

use crate::l7::{
    body::BodyError,
    filters::Gathered,
    incoming::{Incoming, IncomingError},
};

#[cfg(test)]
mod tests;

/// A request body that is copied as it passes.
pub struct Teed {
    pub(super) incoming: Incoming,
    pub(super) copies: SmallVec<[Queue; 1]>,
    /// Told of each copy that is cut.
    pub(super) cut: Box<dyn Fn()>,
}

impl Teed {
    pub(in crate::l7) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, IncomingError>>> {
        let polled = Pin::new(&mut self.incoming).poll_frame(cx);
        match &polled {
            Poll::Pending => {}
            Poll::Ready(None) => self.finish(),
            Poll::Ready(Some(Ok(frame))) => {
                for copy in &self.copies {
                    if !copy.push(frame) {
                        (self.cut)();
                    }
                }
                if frame.is_trailers() || self.incoming.is_end_stream() {
                    self.finish();
                }
            }
            Poll::Ready(Some(Err(_))) => self.copies.clear(),
        }
        polled
    }

    pub(in crate::l7) fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    pub(in crate::l7) fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }

    fn finish(&mut self) {
        self.copies.iter().for_each(Queue::finish);
    }
}

impl std::fmt::Debug for Teed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Teed({:?})", self.incoming)
    }
}

impl Drop for Teed {
    fn drop(&mut self) {
        self.copies.iter().for_each(Queue::give_up);
    }
}

/// What passed of a body, to send it once more.
pub struct Recording(Queue);

impl Recording {
    /// Records `body` from now on, up to so many bytes.
    pub(in crate::l7) fn of(body: &mut Incoming, limit: usize) -> Self {
        let queue = Queue::new(limit);
        let incoming = std::mem::replace(body, Incoming::None);
        let copies = [queue.clone()].into_iter().collect();
        *body = Incoming::Teed(Box::new(Teed { incoming, copies, cut: Box::new(|| ()) }));
        Self(queue)
    }

    /// The whole body, if it came to its end within the limit.
    pub(in crate::l7) fn whole(self) -> Option<Gathered> {
        let mut state = self.0.0.borrow_mut();
        let complete = state.end == End::Complete;
        complete.then(|| Gathered::new(std::mem::take(&mut state.frames).into_iter()))
    }
}

/// What the original's body is ahead of the copy's.
#[derive(Clone)]
pub(super) struct Queue(Rc<RefCell<State>>);

struct State {
    frames: VecDeque<Frame<Bytes>>,
    bytes: usize,
    limit: usize,
    end: End,
    reader: Option<Waker>,
}

#[derive(Clone, PartialEq, Eq)]
enum End {
    Open,
    Complete,
    /// The copy cannot be completed any more.
    Cut,
}

impl Queue {
    pub(super) fn new(limit: usize) -> Self {
        let state = State { frames: VecDeque::new(), bytes: 0, limit, end: End::Open, reader: None };
        Self(Rc::new(RefCell::new(state)))
    }

    /// Whether the copy goes on; false once, when it is cut.
    fn push(&self, frame: &Frame<Bytes>) -> bool {
        let mut state = self.0.borrow_mut();
        if state.end != End::Open {
            return true;
        }
        let copy = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => Frame::data(data.clone()),
            (None, Some(trailers)) => Frame::trailers(trailers.clone()),
            (None, None) => return true,
        };
        state.bytes += frame.data_ref().map_or(0, Bytes::len);
        let fits = state.bytes <= state.limit;
        if fits {
            state.frames.push_back(copy);
        } else {
            state.cut();
        }
        state.wake();
        fits
    }

    fn finish(&self) {
        let mut state = self.0.borrow_mut();
        if state.end == End::Open {
            state.end = End::Complete;
        }
        state.wake();
    }

    fn give_up(&self) {
        let mut state = self.0.borrow_mut();
        if state.end == End::Open {
            state.cut();
        }
        state.wake();
    }
}

impl State {
    fn cut(&mut self) {
        self.end = End::Cut;
        self.frames = VecDeque::new();
    }

    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

/// The body of a copy.
pub struct Copy {
    pub(super) queue: Queue,
    pub(super) hint: SizeHint,
}

impl Copy {
    pub(in crate::l7) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut state = self.queue.0.borrow_mut();
        if let Some(frame) = state.frames.pop_front() {
            state.bytes -= frame.data_ref().map_or(0, Bytes::len);
            return Poll::Ready(Some(Ok(frame)));
        }
        match state.end {
            End::Complete => Poll::Ready(None),
            End::Cut => Poll::Ready(Some(Err(BodyError::Superseded))),
            End::Open => {
                state.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    pub(in crate::l7) fn is_end_stream(&self) -> bool {
        let state = self.queue.0.borrow();
        state.frames.is_empty() && state.end == End::Complete
    }

    /// The original's: it decides the framing before the first byte.
    pub(in crate::l7) fn size_hint(&self) -> SizeHint {
        self.hint
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // Nobody reads what would be queued from now on.
        self.queue.give_up();
    }
}

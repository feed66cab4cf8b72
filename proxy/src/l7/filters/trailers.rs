//! A body whose trailers are mutated as they pass.

use std::{
    fmt,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::mutation::All;
use crate::{
    ir::filters::{Mutation, Mutations},
    l7::{flow::Flow, headers},
};

/// Which of the mutations concern the trailers.
type Pick = fn(&Mutations) -> &[Mutation];

/// See the module's head.
pub struct Retrailed<B> {
    body: B,
    all: All,
    pick: Pick,
    flow: Rc<Flow>,
}

impl<B> Retrailed<B> {
    pub(in crate::l7) fn inner(&self) -> &B {
        &self.body
    }
}

impl<B: Body<Data = Bytes> + Unpin> Retrailed<B> {
    /// Whether there is anything to do.
    pub(super) fn wanted(all: &All, pick: Pick) -> bool {
        all.iter().any(|mutations| !pick(mutations).is_empty())
    }

    pub(super) fn new(body: B, all: All, pick: Pick, flow: Rc<Flow>) -> Self {
        Self { body, all, pick, flow }
    }

    pub(in crate::l7) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let polled = ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(polled.map(|frame| {
            frame.map(|frame| match frame.into_trailers() {
                Ok(trailers) => Frame::trailers(self.mutated(trailers)),
                Err(frame) => frame,
            })
        }))
    }

    fn mutated(&self, mut trailers: HeaderMap) -> HeaderMap {
        for mutation in self.all.iter().flat_map(|mutations| (self.pick)(mutations)) {
            self.flow.record.facts(None, |facts| {
                headers::mutate(mutation, &mut trailers, |add, _| headers::evaluate(add, facts));
            });
        }
        trailers
    }

    pub(in crate::l7) fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    pub(in crate::l7) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> fmt::Debug for Retrailed<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Retrailed")
    }
}

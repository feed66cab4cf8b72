//! A body on its way into a stream.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::Body;

/// Moves a body into a stream as fast as the peer's windows allow; ends with the body, the stream or the connection.
/// Dropping it before resets the stream, unless somebody else still holds it.
pub struct Pump<B> {
    body: B,
    stream: SendStream<Bytes>,
    /// Taken from the body, waiting for room; and whether it is the last.
    held: Option<(Bytes, bool)>,
    /// What the peer is told of a body that broke off.
    broken: Reason,
}

impl<B: Body<Data = Bytes> + Unpin> Pump<B> {
    pub fn new(body: B, stream: SendStream<Bytes>, broken: Reason) -> Self {
        Self { body, stream, held: None, broken }
    }

    /// Whether it is the peer that holds it up.
    pub fn waits_for_room(&self) -> bool {
        self.held.is_some()
    }

    /// The errors are not told: whoever waits on the stream hears of them there.
    fn step(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        loop {
            // Registers for the peer's reset, too, which may come while the body or the window has nothing.
            if let Poll::Ready(reason) = self.stream.poll_reset(cx)? {
                return Poll::Ready(Err(reason.into()));
            }
            if let Some((data, last)) = self.held.take() {
                while self.stream.capacity() == 0 {
                    match self.stream.poll_capacity(cx) {
                        Poll::Pending => {
                            self.held = Some((data, last));
                            return Poll::Pending;
                        }
                        Poll::Ready(Some(Ok(_))) => {}
                        Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                        Poll::Ready(None) => return Poll::Ready(Ok(())),
                    }
                }
                self.stream.send_data(data, last)?;
                if last {
                    return Poll::Ready(Ok(()));
                }
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => return Poll::Ready(self.stream.send_data(Bytes::new(), true)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        let last = self.body.is_end_stream();
                        if data.is_empty() {
                            self.stream.send_data(data, last)?;
                            if last {
                                return Poll::Ready(Ok(()));
                            }
                        } else {
                            // A place in the queue for room, no more: a claim for the whole chunk would take window
                            // that other streams could use while this one waits.
                            self.stream.reserve_capacity(1);
                            self.held = Some((data, last));
                        }
                    }
                    Err(frame) => {
                        if let Ok(trailers) = frame.into_trailers() {
                            self.stream.reserve_capacity(0);
                            return Poll::Ready(self.stream.send_trailers(trailers));
                        }
                    }
                },
                Some(Err(_)) => {
                    // A body that broke off must not look complete.
                    self.stream.send_reset(self.broken);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Future for Pump<B> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.get_mut().step(cx).map(|ended| {
            if let Err(error) = ended {
                tracing::debug!(%error, "a body could not be sent to its end");
            }
        })
    }
}

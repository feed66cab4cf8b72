//! How answers leave: in pieces, and with the turn that they were made in.
//!
//! Answers that take much memory are made one after the other; the next one's turn comes when this one is delivered, or
//! when that takes too long. Invariant: an answer that was not made to its end is broken off, not ended.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::tap::Lines;

/// Of pieces.
pub(super) const PIECE: usize = 64 << 10;

/// Pieces that wait for the client.
const WAITING: usize = 2;

/// How long one client may keep all others from answers of this kind.
const DELIVERY: Duration = Duration::from_secs(5);

/// How often a maker looks whether there is room for the next piece.
const LOOK: Duration = Duration::from_millis(2);

/// The turn to make a large answer, until it is dropped or took too long.
pub(super) struct Turn {
    _over: oneshot::Sender<()>,
}

impl Turn {
    pub(super) fn new(permit: OwnedSemaphorePermit) -> Self {
        Self::within(DELIVERY, permit)
    }

    fn within(time: Duration, permit: OwnedSemaphorePermit) -> Self {
        let (_over, over) = oneshot::channel::<()>();
        tokio::spawn(async move {
            let _ = tokio::time::timeout(time, over).await;
            drop(permit);
        });
        Self { _over }
    }
}

/// The body of an answer.
pub(super) enum Content {
    Whole(Bytes, Option<Turn>),
    Pieces(Pieces),
    Lines(Box<Lines>),
}

impl Body for Content {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut *self {
            Self::Whole(rest, turn) => {
                if rest.is_empty() {
                    *turn = None;
                    return Poll::Ready(None);
                }
                let piece = rest.split_to(rest.len().min(PIECE));
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Self::Pieces(pieces) => pieces.poll(cx).map(|piece| piece.map(|piece| piece.map(Frame::data))),
            Self::Lines(lines) => lines.poll(cx).map(|line| line.map(|line| Ok(Frame::data(line)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(rest, _) if rest.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(rest, _) => SizeHint::with_exact(rest.len() as u64),
            Self::Pieces(_) | Self::Lines(_) => SizeHint::default(),
        }
    }
}

/// A body in the making.
pub(super) struct Pieces {
    pieces: mpsc::Receiver<Bytes>,
    whole: Arc<AtomicBool>,
}

impl Pieces {
    /// A body, and what to put into it from a thread that may wait.
    pub(super) fn new() -> (Self, Maker) {
        let (sender, pieces) = mpsc::channel(WAITING);
        let whole = Arc::<AtomicBool>::default();
        (Self { pieces, whole: whole.clone() }, Maker { sender, whole, until: Instant::now() + DELIVERY })
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        self.pieces.poll_recv(cx).map(|piece| match piece {
            Some(piece) => Some(Ok(piece)),
            None if self.whole.load(Ordering::Acquire) => None,
            None => Some(Err(io::Error::other("the answer was not made to its end"))),
        })
    }
}

/// Makes a body.
pub(super) struct Maker {
    sender: mpsc::Sender<Bytes>,
    whole: Arc<AtomicBool>,
    until: Instant,
}

impl Maker {
    /// Waits until there is room; `false`: nobody wants it any more, or it took too long.
    pub(super) fn put(&self, piece: Bytes) -> bool {
        let mut piece = piece;
        loop {
            match self.sender.try_send(piece) {
                Ok(()) => return true,
                Err(mpsc::error::TrySendError::Closed(_)) => return false,
                Err(mpsc::error::TrySendError::Full(back)) if Instant::now() < self.until => {
                    piece = back;
                    std::thread::sleep(LOOK);
                }
                Err(mpsc::error::TrySendError::Full(_)) => return false,
            }
        }
    }

    /// That was all.
    pub(super) fn end(self) {
        self.whole.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn a_body_comes_in_pieces_and_is_whole_or_broken() {
        let (pieces, maker) = Pieces::new();
        let made = tokio::task::spawn_blocking(move || {
            let all = (0..20).all(|n| maker.put(vec![n; PIECE].into()));
            maker.end();
            all
        });
        let body = Content::Pieces(pieces).collect().await.unwrap().to_bytes();
        assert_eq!((body.len(), made.await.unwrap()), (20 * PIECE, true));
        let (pieces, maker) = Pieces::new();
        assert!(maker.put("half".into()));
        drop(maker);
        assert!(Content::Pieces(pieces).collect().await.is_err());
        // Who is gone is not worked for, who does not read not for ever.
        let (pieces, maker) = Pieces::new();
        drop(pieces);
        assert!(!maker.put("x".into()));
        let (_unread, mut maker) = Pieces::new();
        maker.until = Instant::now();
        assert!((0..WAITING).all(|_| maker.put("x".into())));
        assert!(!maker.put("x".into()));
    }

    #[tokio::test]
    async fn the_turn_passes_when_the_answer_is_delivered_or_takes_too_long() {
        let turns = Arc::new(tokio::sync::Semaphore::new(1));
        let turn = Turn::new(turns.clone().acquire_owned().await.unwrap());
        let mut body = Content::Whole(vec![0; PIECE + 1].into(), Some(turn));
        assert!(turns.try_acquire().is_err());
        while body.frame().await.is_some() {}
        drop(turns.acquire().await.unwrap());
        let turn = Turn::within(Duration::ZERO, turns.clone().acquire_owned().await.unwrap());
        let _unread = Content::Whole(vec![0; PIECE + 1].into(), Some(turn));
        drop(turns.acquire().await.unwrap());
    }
}

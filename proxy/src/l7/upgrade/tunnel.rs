//! A tunnel between its two sides, from the switch to its end.
//!
//! Over the raw connections where both sides speak HTTP/1, else over the codecs' streams. Invariant, as in the relay of
//! connections: an end reaches the other side as one, after all bytes before it; anything less reaches it as a reset.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::{Buf, Bytes};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Half;
use crate::{
    l4::relay::{self, Progress, RelayOptions, RelayReason},
    l7::{client, flow::Flow, http2, wire::Wire},
    net::io::Io,
    upstream::ConnectionPermit,
};

/// Bytes held per direction.
const BUFFER: usize = 16 * 1024;

/// Relays until both sides are done.
pub(super) async fn run(down: Half, up: Half, flow: &Flow) {
    let (down, up): (Box<dyn Side>, _) = match (down, up) {
        (Half::Http1(down), Half::Http1(up)) => match (take(down), client::tunnel(up)) {
            (Ok((a, a_read)), Ok(upstream)) => {
                let _permit = upstream.permit;
                return raw((a, a_read), (upstream.io, upstream.read), flow).await;
            }
            (down, up) => (side(down), up.map_or_else(|stream| (plain(stream), None), hold)),
        },
        (Half::Http1(down), Half::Http2(up)) => (side(take(down)), (up, None)),
        (Half::Http2(down), Half::Http1(up)) => {
            (down, client::tunnel(up).map_or_else(|stream| (plain(stream), None), hold))
        }
        (Half::Http2(down), Half::Http2(up)) => (down, (up, None)),
    };
    let (up, _permit) = up;
    over_streams(down, up, flow).await;
}

fn side(taken: Result<(Io, Bytes), Upgraded>) -> Box<dyn Side> {
    taken.map_or_else(plain, |(io, read)| Box::new(Rewound { read, io }))
}

fn hold(tunnel: client::Tunnel) -> (Box<dyn Side>, Option<ConnectionPermit>) {
    (Box::new(Rewound { read: tunnel.read, io: tunnel.io }), Some(tunnel.permit))
}

fn plain(stream: Upgraded) -> Box<dyn Side> {
    Box::new(TokioIo::new(stream))
}

/// Takes an upgraded downstream HTTP/1 connection apart.
fn take(upgraded: Upgraded) -> Result<(Io, Bytes), Upgraded> {
    let parts = upgraded.downcast::<TokioIo<Wire>>()?;
    Ok((parts.io.into_inner().into_inner(), parts.read_buf))
}

/// Over the connections themselves, beginning with what hyper read beyond the heads.
async fn raw((a, a_read): (Io, Bytes), (b, b_read): (Io, Bytes), flow: &Flow) {
    let now = Instant::now();
    let options = RelayOptions {
        idle_timeout: flow.idle(),
        max_duration: flow.deadline().map(|d| d.at.saturating_duration_since(now)),
        buffer: BUFFER,
    };
    let progress = Counted { progress: Progress::default(), flow };
    let end = relay::relay_from((a, b), (a_read, b_read), &options, &progress.progress).await;
    match end.reason {
        RelayReason::Closed => {}
        RelayReason::IdleTimeout | RelayReason::MaxDuration | RelayReason::Told => flow.expire(Instant::now(), None),
        RelayReason::Error { error, .. } => tracing::debug!(%error, "tunnel broke off"),
    }
}

/// Books the relayed bytes however the relay ends.
struct Counted<'a> {
    progress: Progress,
    flow: &'a Flow,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let bytes = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        self.flow.record.received(bytes(self.progress.a_to_b.get()));
        self.flow.record.sent(bytes(self.progress.b_to_a.get()));
    }
}

/// One end of a tunnel.
trait Side: AsyncRead + AsyncWrite + Unpin {
    /// The connection, where it is this side's own. A stream is reset by being dropped before its end.
    fn connection(&mut self) -> Option<&mut Io>;
}

impl Side for http2::Tunnel {
    fn connection(&mut self) -> Option<&mut Io> {
        None
    }
}

impl Side for TokioIo<Upgraded> {
    fn connection(&mut self) -> Option<&mut Io> {
        None
    }
}

impl Side for Rewound {
    fn connection(&mut self) -> Option<&mut Io> {
        Some(&mut self.io)
    }
}

/// A connection with bytes in front that were read already.
struct Rewound {
    read: Bytes,
    io: Io,
}

impl AsyncRead for Rewound {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let count = self.read.len().min(buf.remaining());
        buf.put_slice(&self.read[..count]);
        self.read.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// How the relay over streams ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Whole,
    Broken,
    Expired,
}

async fn over_streams(a: Box<dyn Side>, b: Box<dyn Side>, flow: &Flow) {
    let mut pair = Pair { a, b, forth: Way::new(), back: Way::new(), forth_end: None, back_end: None, whole: false };
    let end = tokio::select! {
        end = poll_fn(|cx| pair.poll(cx, flow)) => end,
        () = idle(flow) => End::Expired,
        () = expired(flow) => End::Expired,
    };
    match end {
        End::Whole => pair.whole = true,
        End::Broken => pair.deliver().await,
        End::Expired => {
            flow.expire(Instant::now(), None);
            pair.whole = !pair.forth.holds_bytes() && !pair.back.holds_bytes();
        }
    }
}

struct Pair {
    a: Box<dyn Side>,
    b: Box<dyn Side>,
    forth: Way,
    back: Way,
    /// Whether a direction that is over came to its end in order.
    forth_end: Option<bool>,
    back_end: Option<bool>,
    whole: bool,
}

impl Pair {
    fn poll(&mut self, cx: &mut Context<'_>, flow: &Flow) -> Poll<End> {
        let Self { a, b, .. } = self;
        if self.forth_end.is_none() {
            let moved = |n| {
                flow.touch();
                flow.record.received(n);
            };
            match self.forth.poll(cx, (a, b), moved) {
                Poll::Ready(Err(Broken::Source)) => return Poll::Ready(End::Broken),
                Poll::Ready(result) => self.forth_end = Some(result.is_ok()),
                Poll::Pending => {}
            }
        }
        if self.back_end.is_none() {
            let moved = |n| {
                flow.touch();
                flow.record.sent(n);
            };
            match self.back.poll(cx, (b, a), moved) {
                Poll::Ready(Err(Broken::Source)) => return Poll::Ready(End::Broken),
                Poll::Ready(result) => self.back_end = Some(result.is_ok()),
                Poll::Pending => {}
            }
        }
        // A side that takes no more may still have sent something worth delivering.
        match (self.forth_end, self.back_end) {
            (Some(true), Some(true)) => Poll::Ready(End::Whole),
            (Some(_), Some(_)) => Poll::Ready(End::Broken),
            _ => Poll::Pending,
        }
    }

    /// Bytes that came before the tunnel broke are not taken back.
    async fn deliver(&mut self) {
        for side in [&mut self.a, &mut self.b] {
            if let Some(io) = side.connection() {
                relay::delivered(io).await;
            }
        }
    }
}

impl Drop for Pair {
    /// Also of a tunnel that was cut in the middle.
    fn drop(&mut self) {
        if !self.whole {
            for io in [&mut self.a, &mut self.b].into_iter().filter_map(|side| side.connection()) {
                io.reset_on_close();
            }
        }
    }
}

/// Which end of a direction failed.
#[derive(Debug)]
enum Broken {
    Source,
    Target,
}

/// One direction; its end becomes the target's half-close.
struct Way {
    buffer: Vec<u8>,
    /// The held bytes are `buffer[start..end]`.
    start: usize,
    end: usize,
    closing: bool,
    unflushed: bool,
}

impl Way {
    fn new() -> Self {
        Self { buffer: vec![0; BUFFER], start: 0, end: 0, closing: false, unflushed: false }
    }

    /// Whether bytes were read that the target has not taken.
    fn holds_bytes(&self) -> bool {
        self.start < self.end
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        (from, to): (&mut Box<dyn Side>, &mut Box<dyn Side>),
        moved: impl Fn(usize),
    ) -> Poll<Result<(), Broken>> {
        let source = |error: io::Error| {
            tracing::debug!(%error, "tunnel broke off");
            Broken::Source
        };
        let target = |error: io::Error| {
            tracing::debug!(%error, "tunnel takes no more");
            Broken::Target
        };
        loop {
            while self.holds_bytes() {
                let count = ready!(Pin::new(&mut *to).poll_write(cx, &self.buffer[self.start..self.end]));
                match count.map_err(target)? {
                    0 => return Poll::Ready(Err(target(io::ErrorKind::WriteZero.into()))),
                    count => self.start += count,
                }
                self.unflushed = true;
            }
            if self.closing {
                return Pin::new(&mut *to).poll_shutdown(cx).map_err(target);
            }
            let mut read = ReadBuf::new(&mut self.buffer);
            match Pin::new(&mut *from).poll_read(cx, &mut read).map_err(source)? {
                Poll::Ready(()) => {
                    (self.start, self.end) = (0, read.filled().len());
                    match self.end {
                        0 => self.closing = true,
                        count => moved(count),
                    }
                }
                Poll::Pending => {
                    if self.unflushed {
                        ready!(Pin::new(&mut *to).poll_flush(cx)).map_err(target)?;
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}

async fn idle(flow: &Flow) {
    while let Some(at) = flow.idle_at().into_iter().chain(flow.try_idle_at()).min() {
        if Instant::now() >= at {
            return;
        }
        tokio::time::sleep_until(at.into()).await;
    }
    std::future::pending().await
}

async fn expired(flow: &Flow) {
    match flow.deadline() {
        Some(deadline) => tokio::time::sleep_until(deadline.at.into()).await,
        None => std::future::pending().await,
    }
}

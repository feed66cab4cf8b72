//! The byte stream of a pooled connection: counts bytes and holds the connection's permit for as long as it is open.
//!
//! The counts tell whether anything of a request left and whether anything of a response came, which is what makes a
//! replay provably safe. A tunnel (101, CONNECT) gets stream and permit back out of hyper with [`tunnel`].

use std::{
    io::{self, IoSlice},
    os::fd::{AsRawFd, RawFd},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    net::io::{Io, Stream},
    telemetry::metrics::{ClusterStats, Sharded},
    upstream::ConnectionPermit,
};

/// Bytes that crossed one connection.
#[derive(Debug, Default)]
pub(super) struct Meter {
    read: AtomicU64,
    written: AtomicU64,
    /// What is written goes out with the end, which is near.
    ending: AtomicBool,
}

impl Meter {
    pub(super) fn read(&self) -> u64 {
        self.read.load(Relaxed)
    }

    pub(super) fn written(&self) -> u64 {
        self.written.load(Relaxed)
    }

    /// Nothing will be sent any more but a farewell and the end: they share a packet.
    pub(super) fn end(&self) {
        self.ending.store(true, Relaxed);
    }
}

/// An upstream connection as hyper sees it.
#[derive(Debug)]
pub struct Metered {
    io: Io,
    meter: Arc<Meter>,
    stats: Arc<Sharded<ClusterStats>>,
    permit: ConnectionPermit,
}

impl Metered {
    pub(super) fn new(io: Io, stats: Arc<Sharded<ClusterStats>>, permit: ConnectionPermit) -> Self {
        Self { io, meter: Arc::default(), stats, permit }
    }

    pub(super) fn meter(&self) -> Arc<Meter> {
        self.meter.clone()
    }

    /// The descriptor, for [`is_dead`]; valid as long as this stream lives.
    pub(super) fn descriptor(&self) -> RawFd {
        match self.io.socket().stream() {
            Stream::Tcp(stream) => stream.as_raw_fd(),
            Stream::Unix(stream) => stream.as_raw_fd(),
        }
    }
}

/// Whether an idle connection must not be used again: the peer closed it, or sent bytes nobody asked for. The caller
/// vouches that the descriptor is still open.
pub(super) fn is_dead(descriptor: RawFd) -> bool {
    use nix::{
        errno::Errno,
        sys::socket::{MsgFlags, recv},
    };
    // The reactor may not have heard of a FIN that is already in the socket's queue: ask the kernel.
    let seen = recv(descriptor, &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT);
    !matches!(seen, Err(Errno::EAGAIN | Errno::EINTR))
}

/// What is left of a connection that became a tunnel.
#[derive(Debug)]
pub struct Tunnel {
    pub io: Io,
    /// Bytes of the peer that hyper had read already: they come first.
    pub read: Bytes,
    /// Keeps the connection counted: to be held until the tunnel ends.
    pub permit: ConnectionPermit,
}

/// Takes an upgraded HTTP/1 connection apart; an HTTP/2 stream comes back as it is.
pub fn tunnel(upgraded: Upgraded) -> Result<Tunnel, Upgraded> {
    let parts = upgraded.downcast::<TokioIo<Metered>>()?;
    let Metered { io, permit, .. } = parts.io.into_inner();
    Ok(Tunnel { io, read: parts.read_buf, permit })
}

impl AsyncRead for Metered {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        let n = (buf.filled().len() - before) as u64;
        this.meter.read.fetch_add(n, Relaxed);
        this.stats.local().upstream_cx_rx_bytes_total.add(n);
        Poll::Ready(Ok(()))
    }
}

impl Metered {
    fn hold_back(&mut self) {
        if self.meter.ending.load(Relaxed) {
            self.io.hold_back();
        }
    }

    fn sent(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(n)) = written {
            self.meter.written.fetch_add(n as u64, Relaxed);
            self.stats.local().upstream_cx_tx_bytes_total.add(n as u64);
        }
        written
    }
}

impl AsyncWrite for Metered {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.hold_back();
        let written = Pin::new(&mut this.io).poll_write(cx, buf);
        this.sent(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.hold_back();
        let written = Pin::new(&mut this.io).poll_write_vectored(cx, bufs);
        this.sent(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.meter.ending.load(Relaxed) {
            return Poll::Ready(Ok(()));
        }
        // HTTP/2 flushes after every frame.
        this.io.poll_flush_lazily(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

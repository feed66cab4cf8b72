//! The byte streams of the data path: plain sockets (with bytes already read by inspection in front) and TLS over them.
//!
//! Owns the one type every room hands connections around in. Knows nothing of listeners, handshakes or protocols.
//! Invariant: bytes in `prefix` are read before any byte of the socket.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};

pub mod handshake;
mod incoming;
mod tls;

pub use tls::TlsStream;

/// A connected socket.
#[derive(Debug)]
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A plain socket with the bytes that were read from it before its protocol was known.
#[derive(Debug)]
pub struct Plain {
    stream: Stream,
    prefix: Bytes,
}

impl From<TcpStream> for Plain {
    fn from(stream: TcpStream) -> Self {
        Self { stream: Stream::Tcp(stream), prefix: Bytes::new() }
    }
}

impl From<UnixStream> for Plain {
    fn from(stream: UnixStream) -> Self {
        Self { stream: Stream::Unix(stream), prefix: Bytes::new() }
    }
}

impl Plain {
    /// A stream whose reader sees `prefix` first.
    pub fn new(stream: Stream, prefix: Bytes) -> Self {
        Self { stream, prefix }
    }

    /// The TCP socket, `None` for a Unix one.
    pub fn tcp(&self) -> Option<&TcpStream> {
        match &self.stream {
            Stream::Tcp(stream) => Some(stream),
            Stream::Unix(_) => None,
        }
    }

    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Bytes that were read from the socket but not by the reader of this stream.
    pub fn prefix(&self) -> &Bytes {
        &self.prefix
    }

    pub fn into_parts(self) -> (Stream, Bytes) {
        (self.stream, self.prefix)
    }

    /// Local address; an error for Unix sockets.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp().ok_or_else(not_ip)?.local_addr().map(super::socket::canonical)
    }

    /// Peer address; an error for Unix sockets.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.tcp().ok_or_else(not_ip)?.peer_addr().map(super::socket::canonical)
    }

    /// Makes the coming close a reset instead of an orderly end, so a cut-off stream cannot look complete.
    pub fn reset_on_close(&self) {
        // Failing means the socket is already beyond saving: closing it is all that is left either way.
        let _ = match &self.stream {
            Stream::Tcp(stream) => stream.set_zero_linger(),
            Stream::Unix(_) => Ok(()),
        };
    }

    /// Waits until there is something to see; never [`Probe::Quiet`].
    fn poll_probe(&self, cx: &mut Context<'_>) -> Poll<Probe> {
        if !self.prefix.is_empty() {
            return Poll::Ready(Probe::Readable);
        }
        let mut byte = [MaybeUninit::uninit()];
        let seen = match &self.stream {
            Stream::Tcp(stream) => ready!(stream.poll_peek(cx, &mut ReadBuf::uninit(&mut byte))),
            Stream::Unix(stream) => ready!(stream.poll_read_ready(cx)).map(|()| 1),
        };
        Poll::Ready(if matches!(seen, Ok(1..)) { Probe::Readable } else { Probe::Closed })
    }

    fn probe(&self) -> Probe {
        if !self.prefix.is_empty() {
            return Probe::Readable;
        }
        let mut byte = [MaybeUninit::uninit()];
        let seen = match &self.stream {
            Stream::Tcp(stream) => socket2::SockRef::from(stream).peek(&mut byte),
            Stream::Unix(stream) => socket2::SockRef::from(stream).peek(&mut byte),
        };
        match seen {
            Ok(0) => Probe::Closed,
            Ok(_) => Probe::Readable,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Probe::Quiet,
            Err(_) => Probe::Closed,
        }
    }
}

fn not_ip() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "a Unix socket has no IP address")
}

/// What an idle connection looks like right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Open, and nothing waits to be read.
    Quiet,
    /// Bytes wait to be read. Under TLS they may be session tickets or a close_notify.
    Readable,
    /// The peer closed or reset the connection.
    Closed,
}

/// A connection, plain or encrypted.
#[derive(Debug)]
pub enum Io {
    Plain(Plain),
    TlsServer(Box<TlsStream<rustls::ServerConnection>>),
    TlsClient(Box<TlsStream<rustls::ClientConnection>>),
}

impl From<Plain> for Io {
    fn from(plain: Plain) -> Self {
        Self::Plain(plain)
    }
}

impl From<TcpStream> for Io {
    fn from(stream: TcpStream) -> Self {
        Self::Plain(stream.into())
    }
}

impl From<TlsStream<rustls::ServerConnection>> for Io {
    fn from(stream: TlsStream<rustls::ServerConnection>) -> Self {
        Self::TlsServer(Box::new(stream))
    }
}

impl From<TlsStream<rustls::ClientConnection>> for Io {
    fn from(stream: TlsStream<rustls::ClientConnection>) -> Self {
        Self::TlsClient(Box::new(stream))
    }
}

impl Io {
    /// See [`TlsStream::poll_flush_lazily`]; plain sockets hold nothing back.
    pub fn poll_flush_lazily(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::TlsServer(io) => io.poll_flush_lazily(cx),
            Self::TlsClient(io) => io.poll_flush_lazily(cx),
        }
    }

    /// Lets small messages wait for the next flush or the end; plain sockets hold nothing back.
    pub fn hold_back(&mut self) {
        match self {
            Self::Plain(_) => {}
            Self::TlsServer(io) => io.hold_back(),
            Self::TlsClient(io) => io.hold_back(),
        }
    }

    /// The socket below.
    pub fn socket(&self) -> &Plain {
        match self {
            Self::Plain(plain) => plain,
            Self::TlsServer(tls) => tls.get_ref().0,
            Self::TlsClient(tls) => tls.get_ref().0,
        }
    }

    pub fn is_tls(&self) -> bool {
        !matches!(self, Self::Plain(_))
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket().local_addr()
    }

    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.socket().peer_addr()
    }

    /// Looks at the socket without consuming anything and without a waker.
    pub fn probe(&self) -> Probe {
        self.socket().probe()
    }

    /// Waits, consuming nothing, until bytes wait to be read or the peer closed; never [`Probe::Quiet`].
    pub fn poll_probe(&self, cx: &mut Context<'_>) -> Poll<Probe> {
        self.socket().poll_probe(cx)
    }

    /// Whether bytes wait on the socket, or the peer closed it.
    pub fn is_readable_now(&self) -> bool {
        self.probe() != Probe::Quiet
    }

    /// See [`Plain::reset_on_close`].
    pub fn reset_on_close(&self) {
        self.socket().reset_on_close();
    }

    /// The plain stream, or the unchanged TLS one.
    #[allow(clippy::result_large_err, reason = "the error is the caller's own value handed back")]
    pub fn into_plain(self) -> Result<Plain, Self> {
        match self {
            Self::Plain(plain) => Ok(plain),
            tls => Err(tls),
        }
    }
}

impl AsyncRead for Plain {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.prefix.is_empty() {
            let n = this.prefix.len().min(buf.remaining());
            buf.put_slice(&this.prefix[..n]);
            this.prefix.advance(n);
            if this.prefix.is_empty() {
                // Gives the memory back: a relay may hold this stream for hours.
                this.prefix = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        match &mut this.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Plain {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Self::TlsServer(io) => Pin::new(io).poll_read(cx, buf),
            Self::TlsClient(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Self::TlsServer(io) => Pin::new(io).poll_write(cx, buf),
            Self::TlsClient(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Self::TlsServer(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Self::TlsClient(io) => Pin::new(io).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(io) => io.is_write_vectored(),
            Self::TlsServer(io) => io.is_write_vectored(),
            Self::TlsClient(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_flush(cx),
            Self::TlsServer(io) => Pin::new(io).poll_flush(cx),
            Self::TlsClient(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Self::TlsServer(io) => Pin::new(io).poll_shutdown(cx),
            Self::TlsClient(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests;

//! The byte stream under a downstream HTTP codec: knows when a head begins and whether it is ambiguous.
//!
//! hyper tolerates two things that intermediaries can read differently (both are how requests get smuggled): bare LF as
//! line end, and `Transfer-Encoding` next to `Content-Length`. What comes in is looked at once, but for bodies, and such a
//! head is made unparsable: the client gets a 400 and the connection ends. The same look tells when the first byte of a
//! head came, for `request_headers_timeout`. And it adds a `TE` where there is none: hyper writes trailers only for clients
//! that asked, while applications send and read them without; [`SILENT_TE`] marks it as ours.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    mem::MaybeUninit,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::io::Io;

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;

/// The value of an added `TE`: hyper compares without case, clients do not write it so.
pub const SILENT_TE: &str = "tRAILERS";
const TE_LINE: &[u8] = b"te: tRAILERS\r\n";

/// What wire and server tell each other. Atomics only because hyper wants upgradable streams `Send`; all of it is on
/// one thread.
#[derive(Debug)]
pub struct Shared {
    epoch: Instant,
    /// A request is under way: what comes in is body, or pipelined.
    busy: AtomicBool,
    /// Milliseconds after `epoch` at which the head now coming in began, plus one; 0 is none.
    head_since: AtomicU64,
    /// Close with a reset: a response was cut off.
    abort: AtomicBool,
    /// The head was refused here.
    refused: AtomicBool,
    /// Everything the codec wrote has left it.
    flushed: AtomicBool,
    /// The codec ends, the connection does not.
    rest: AtomicBool,
}

impl Shared {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            epoch: Instant::now(),
            busy: AtomicBool::new(false),
            head_since: AtomicU64::new(0),
            abort: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            flushed: AtomicBool::new(true),
            rest: AtomicBool::new(false),
        })
    }

    /// A request head was taken: its body, if it has one, is not looked at until [`Self::idle`].
    pub fn busy(&self) {
        self.busy.store(true, Relaxed);
        self.head_since.store(0, Relaxed);
    }

    /// The exchange is over: what comes next is a head.
    pub fn idle(&self) {
        self.busy.store(false, Relaxed);
    }

    /// When the first byte of an unfinished head came.
    pub fn head_since(&self) -> Option<Instant> {
        match self.head_since.load(Relaxed) {
            0 => None,
            since => Some(self.epoch + std::time::Duration::from_millis(since - 1)),
        }
    }

    pub fn abort(&self) {
        self.abort.store(true, Relaxed);
    }

    /// Whether, as seen from here, the codec is between two requests.
    pub fn at_rest(&self) -> bool {
        self.flushed.load(Relaxed) && !self.busy.load(Relaxed) && self.head_since.load(Relaxed) == 0
    }

    /// Whether nothing of an answer is under way: what is written now stands by itself.
    pub fn is_quiet(&self) -> bool {
        self.flushed.load(Relaxed) && !self.busy.load(Relaxed)
    }

    /// From now on (or not), the end of the codec leaves the connection open.
    pub fn rest(&self, rest: bool) {
        self.rest.store(rest, Relaxed);
    }

    pub fn refused(&self) -> bool {
        self.refused.load(Relaxed)
    }
}

/// An [`Io`] under a server codec.
pub struct Wire {
    io: Option<Io>,
    /// Read before the codec was known.
    prefix: Bytes,
    shared: Arc<Shared>,
    /// `None` for HTTP/2.
    scan: Option<Scan>,
    /// Whether responses may have trailers.
    trailers: bool,
}

impl Wire {
    pub fn http1(io: Io, prefix: Bytes, shared: Arc<Shared>, trailers: bool) -> Self {
        Self { io: Some(io), prefix, shared, scan: Some(Scan::default()), trailers }
    }

    pub fn http2(io: Io, prefix: Bytes, shared: Arc<Shared>) -> Self {
        Self { io: Some(io), prefix, shared, scan: None, trailers: false }
    }

    /// The stream; what the codec did not read is with the codec.
    pub fn into_inner(mut self) -> Io {
        self.io.take().expect("taken only here")
    }

    fn io(&mut self) -> Pin<&mut Io> {
        Pin::new(self.io.as_mut().expect("taken only with the whole"))
    }

    fn poll_bytes(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return self.io().poll_read(cx, buf);
        }
        let count = self.prefix.len().min(buf.remaining());
        buf.put_slice(&self.prefix[..count]);
        self.prefix.advance(count);
        if self.prefix.is_empty() {
            self.prefix = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let Some(io) = &self.io
            && self.shared.abort.load(Relaxed)
        {
            io.reset_on_close();
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let start = buf.filled().len();
        let this = &mut *self;
        let result = this.poll_bytes(cx, buf);
        if let (Some(scan), Poll::Ready(Ok(()))) = (&mut this.scan, &result)
            && buf.filled().len() > start
        {
            let busy = this.shared.busy.load(Relaxed);
            if scan.done {
                // The codec takes a head before it reads on: this is its body, or a head pipelined behind it. hyper takes
                // such a head for chunked and closes after it, so no two readers can differ over what follows.
                if busy {
                    return result;
                }
                *scan = Scan::behind_a_body();
            }
            if !busy && this.shared.head_since.load(Relaxed) == 0 {
                let since = u64::try_from(this.shared.epoch.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
                this.shared.head_since.store(since + 1, Relaxed);
            }
            let mut ends = Ends::new();
            if scan.feed(&buf.filled()[start..], &mut ends) {
                if this.trailers {
                    add_te(buf, start, &ends);
                }
            } else {
                this.shared.refused.store(true, Relaxed);
                buf.set_filled(start);
                // No octet of a head may be NUL, whatever part of it comes next.
                let poison = b"\0\r\n\r\n";
                let length = poison.len().min(buf.remaining());
                buf.put_slice(&poison[..length]);
                this.scan = None;
            }
        }
        result
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.shared.flushed.store(false, Relaxed);
        self.io().poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.shared.flushed.store(false, Relaxed);
        self.io().poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.as_ref().is_some_and(Io::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.scan.is_none() {
            // HTTP/2 flushes after every frame.
            return self.io().get_mut().poll_flush_lazily(cx);
        }
        let result = self.io().poll_flush(cx);
        // Codecs flush once they have nothing left to write.
        self.shared.flushed.store(matches!(result, Poll::Ready(Ok(()))), Relaxed);
        result
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nothing is left to say on a plain socket: the close that follows says it.
        if self.shared.rest.load(Relaxed) || !self.io.as_ref().is_some_and(Io::is_tls) {
            return Poll::Ready(Ok(()));
        }
        self.io().poll_shutdown(cx)
    }
}

/// Where heads without `TE` end in a read: the offsets of their last, empty lines.
type Ends = smallvec::SmallVec<[usize; 4]>;

/// Adds [`TE_LINE`] to the heads that end at `ends`, as far as there is room.
fn add_te(buf: &mut ReadBuf<'_>, start: usize, ends: &Ends) {
    for end in ends.iter().rev() {
        if buf.remaining() >= TE_LINE.len() {
            buf.put_slice(TE_LINE);
            buf.filled_mut()[start + end..].rotate_right(TE_LINE.len());
        }
    }
}

/// The incremental look at a request head.
#[derive(Debug, Default)]
struct Scan {
    /// First bytes of the line under way.
    line: Vec<u8>,
    /// Length of that line so far.
    length: usize,
    last: u8,
    started: bool,
    done: bool,
    transfer_encoding: bool,
    content_length: bool,
    /// CONNECT or an upgrade: what follows the head may be anything.
    tunnel: bool,
    te: bool,
    lines: u32,
}

/// hyper parses heads of up to 100 fields: one more must not be ours.
const MAX_LINES: u32 = 100;

/// Enough of a line to recognise `transfer-encoding:`.
const LINE_START: usize = 18;

impl Scan {
    /// Begins somewhere in a head: its first part, up to a CR if it is so, may have come along with the body before it.
    fn behind_a_body() -> Self {
        Self { last: b'\r', ..Self::default() }
    }

    /// Looks at more bytes; false when a head is ambiguous. Behind a head that can have no body comes the next head;
    /// what comes behind others is not looked at.
    fn feed(&mut self, all: &[u8], ends: &mut Ends) -> bool {
        let mut bytes = all;
        while !self.done {
            let Some(at) = bytes.iter().position(|b| *b == b'\n') else {
                self.extend(bytes);
                return true;
            };
            self.extend(&bytes[..at]);
            if self.last != b'\r' {
                return false;
            }
            // Empty lines before a request line are tolerated (RFC 9112 section 2.2).
            if self.length == 1 {
                // The empty line lies in this read as a whole, or its CR is already with hyper.
                if self.started && !self.te && !self.tunnel && at == 1 && self.lines < MAX_LINES {
                    ends.push(all.len() - bytes.len());
                }
                if self.started && !self.transfer_encoding && !self.content_length && !self.tunnel {
                    *self = Self::default();
                    bytes = &bytes[at + 1..];
                    continue;
                }
                self.done = self.started;
            } else {
                self.tunnel |= !self.started && self.line.starts_with(b"CONNECT ");
                self.started = true;
                self.note_header();
            }
            if self.transfer_encoding && self.content_length {
                return false;
            }
            self.line.clear();
            self.length = 0;
            self.last = b'\n';
            bytes = &bytes[at + 1..];
        }
        true
    }

    fn extend(&mut self, bytes: &[u8]) {
        let room = LINE_START.saturating_sub(self.line.len()).min(bytes.len());
        self.line.extend_from_slice(&bytes[..room]);
        self.length += bytes.len();
        if let Some(last) = bytes.last() {
            self.last = *last;
        }
    }

    fn note_header(&mut self) {
        let is = |name: &[u8]| {
            self.line.len() > name.len()
                && self.line[name.len()] == b':'
                && self.line[..name.len()].eq_ignore_ascii_case(name)
        };
        self.transfer_encoding |= is(b"transfer-encoding");
        self.content_length |= is(b"content-length");
        self.tunnel |= is(b"upgrade");
        self.te |= is(b"te");
        self.lines = self.lines.saturating_add(1);
    }
}

/// Reads until the first bytes tell HTTP/2 from HTTP/1; what was read comes back to be read again. Looks at a bounded
/// number of bytes: the caller bounds the time.
pub async fn detect(io: &mut Io) -> io::Result<(bool, Bytes)> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let mut seen = BytesMut::new();
    loop {
        let count = poll_fn(|cx| {
            // On the stack, so that a silent connection holds no buffer.
            let mut chunk = [MaybeUninit::uninit(); 1024];
            let mut buf = ReadBuf::uninit(&mut chunk);
            ready!(Pin::new(&mut *io).poll_read(cx, &mut buf))?;
            seen.extend_from_slice(buf.filled());
            Poll::Ready(io::Result::Ok(buf.filled().len()))
        })
        .await?;
        let compared = seen.len().min(PREFACE.len());
        if seen[..compared] != PREFACE[..compared] || count == 0 {
            return Ok((false, seen.freeze()));
        }
        if compared == PREFACE.len() {
            return Ok((true, seen.freeze()));
        }
    }
}

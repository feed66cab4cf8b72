//! TLS over a plain socket, with many records in one system call.
//!
//! Owns what lies between socket and session after a handshake: the network stack costs more than the cipher, so bytes
//! come and go by the [`BATCH`]. Knows nothing of handshakes and certificates. Invariants: nothing is read while bytes
//! wait to be decrypted and no more than a batch waits to be sent, so a slow reader slows its source; a small message is
//! sent at once (with a handshake's last words before it: at the first flush) and the end of a bulk at the latest by a
//! flush; an idle stream holds no buffer.

use std::{
    fmt,
    io::{self, BufRead as _, IoSlice, Write as _},
    ops::DerefMut,
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustls::{ConnectionCommon, SideData};
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Plain, incoming::Incoming};
use crate::net::buffers::CHUNK;

/// Plaintext of a full record.
const RECORD: usize = 16 * 1024;
/// No record grows by more.
const OVERHEAD: usize = 64;
/// Ciphertext that is sent without waiting for a flush, and beyond which no more is accepted.
const BATCH: usize = 2 * CHUNK;

/// A connection after its handshake; `C` is rustls' connection of either side.
pub struct TlsStream<C> {
    plain: Plain,
    session: C,
    incoming: Incoming,
    /// Why reading cannot go on, told after the bytes before it.
    broken: Option<io::Error>,
    /// Plaintext too short for a full record, until more comes or a flush.
    tail: Vec<u8>,
    /// Bytes that wait in the session to be sent: about, and not less.
    queued: usize,
    /// Bytes were written since the last flush, lazy or not.
    fresh: bool,
    /// Of what waits for company: a handshake's last words, or what [`Self::hold_back`] is meant for.
    few: Few,
    closing: bool,
}

/// A few bytes that are better sent together with what comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Few {
    /// For the first flush, or for a reader that finds nothing to read twice.
    Waits,
    /// A reader found nothing to read, and was told to look once more.
    Asked,
    Gone,
}

impl<C> fmt::Debug for TlsStream<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream").field("plain", &self.plain).field("queued", &self.queued).finish_non_exhaustive()
    }
}

impl<C, S> TlsStream<C>
where
    C: DerefMut<Target = ConnectionCommon<S>>,
    S: SideData,
{
    /// Takes over what a handshake left: bytes of the peer, and perhaps a few of ours.
    pub(super) fn new(plain: Plain, mut session: C, incoming: Incoming) -> Self {
        let few = if session.wants_write() { Few::Waits } else { Few::Gone };
        // The limit here is `BATCH`.
        session.set_buffer_limit(None);
        Self { plain, session, incoming, broken: None, tail: Vec::new(), queued: 0, fresh: false, few, closing: false }
    }

    /// Sends what waits in the session.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.few = Few::Gone;
        while self.session.wants_write() {
            match self.session.write_tls(&mut Writer { plain: &mut self.plain, cx }) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(n) => self.queued = self.queued.saturating_sub(n),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
        self.queued = 0;
        Poll::Ready(Ok(()))
    }

    /// Encrypts `parts` of `length` bytes in all.
    fn encrypt(&mut self, parts: &[IoSlice<'_>], length: usize) -> io::Result<()> {
        let n = self.session.writer().write_vectored(parts)?;
        if n != length {
            return Err(io::Error::other("the TLS session takes no more"));
        }
        self.queued += length + length.div_ceil(RECORD) * OVERHEAD;
        Ok(())
    }

    fn encrypt_tail(&mut self) -> io::Result<()> {
        if self.tail.is_empty() {
            return Ok(());
        }
        let tail = std::mem::take(&mut self.tail);
        self.encrypt(&[IoSlice::new(&tail)], tail.len())
    }

    /// Takes as much of `bufs` as may wait: full records are encrypted, what is left over waits for more.
    fn take(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let room = BATCH.saturating_sub(self.queued).max(RECORD);
        let taken = bufs.iter().map(|b| b.len()).sum::<usize>().min(room);
        let total = self.tail.len() + taken;
        let whole = total - total % RECORD;
        let mut rest = taken;
        if whole > 0 {
            let direct = whole - self.tail.len();
            rest = taken - direct;
            let tail = std::mem::take(&mut self.tail);
            let mut parts = SmallVec::<[IoSlice<'_>; 16]>::new();
            if !tail.is_empty() {
                parts.push(IoSlice::new(&tail));
            }
            parts.extend(window(bufs, 0, direct).map(IoSlice::new));
            self.encrypt(&parts, whole)?;
        }
        for part in window(bufs, taken - rest, rest) {
            self.tail.extend_from_slice(part);
        }
        self.fresh |= taken > 0;
        Ok(taken)
    }

    /// Flushes, unless bulk is passing and the batch is not full yet: then the task is woken to flush soon. For writers
    /// that flush after every frame; what they write next joins the batch. A flush with nothing written since is one.
    pub fn poll_flush_lazily(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let fresh = std::mem::take(&mut self.fresh);
        if fresh && (RECORD..BATCH).contains(&self.queued) {
            cx.waker().wake_by_ref();
            return Poll::Ready(Ok(()));
        }
        self.flush(cx)
    }

    /// Lets small messages wait for the next flush or the end.
    pub fn hold_back(&mut self) {
        if self.few == Few::Gone {
            self.few = Few::Waits;
        }
    }

    fn flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.fresh = false;
        self.encrypt_tail()?;
        self.poll_send(cx)
    }

    /// Hands bytes to the session until it has plaintext or there are no more.
    fn decrypt(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while !self.incoming.is_empty() {
            let n = self.session.read_tls(&mut self.incoming.bytes())?;
            if n == 0 {
                // What follows a close_notify counts for nothing.
                self.incoming.clear();
                break;
            }
            self.incoming.consume(n);
            match self.session.process_new_packets() {
                Ok(state) if state.plaintext_bytes_to_read() > 0 => break,
                Ok(_) => {}
                Err(error) => {
                    self.incoming.clear();
                    // The alert that says why, if the socket takes it at once.
                    let _ = self.poll_send(cx);
                    return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                }
            }
        }
        Ok(())
    }

    /// A reader waits. Whoever has something to send has had its turn when the reader comes again.
    fn send_few(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.few {
            Few::Gone => Ok(()),
            Few::Waits => {
                self.few = Few::Asked;
                cx.waker().wake_by_ref();
                Ok(())
            }
            Few::Asked => {
                self.encrypt_tail()?;
                if self.poll_send(cx)?.is_pending() {
                    self.few = Few::Asked;
                }
                Ok(())
            }
        }
    }

    /// Fills `buf` as far as bytes are at hand. Ready without a byte is the orderly end.
    fn fill(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.drain(buf)? || buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if self.incoming.is_empty() {
                match self.incoming.poll_receive(cx, &mut self.plain)? {
                    Poll::Ready(0) => {
                        // Without a close_notify before it, the reader calls this end an unexpected one.
                        self.session.read_tls(&mut io::empty())?;
                    }
                    Poll::Ready(_) => {}
                    Poll::Pending => {
                        self.send_few(cx)?;
                        return Poll::Pending;
                    }
                }
            }
            if let Err(error) = self.decrypt(cx) {
                // What was good before it comes first, now and in later reads.
                let _ = self.drain(buf);
                return Poll::Ready(Err(error));
            }
        }
    }

    /// Hands over what is decrypted, as far as there is room; true at the orderly end.
    fn drain(&mut self, buf: &mut ReadBuf<'_>) -> io::Result<bool> {
        while buf.remaining() > 0 {
            let n = match self.session.reader().into_first_chunk() {
                Ok([]) => return Ok(true),
                Ok(chunk) => {
                    let n = chunk.len().min(buf.remaining());
                    buf.put_slice(&chunk[..n]);
                    n
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(e),
            };
            self.session.reader().consume(n);
        }
        Ok(false)
    }
}

impl<C> TlsStream<C> {
    /// The socket and the session.
    pub fn get_ref(&self) -> (&Plain, &C) {
        (&self.plain, &self.session)
    }
}

impl<C, S> AsyncRead for TlsStream<C>
where
    C: DerefMut<Target = ConnectionCommon<S>> + Unpin,
    S: SideData,
{
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        if this.broken.is_some() {
            let _ = this.drain(buf);
            let error = if buf.filled().len() == before { this.broken.take() } else { None };
            return Poll::Ready(error.map_or(Ok(()), Err));
        }
        match this.fill(cx, buf) {
            outcome if buf.filled().len() == before => outcome,
            Poll::Ready(Err(error)) => {
                this.broken = Some(error);
                Poll::Ready(Ok(()))
            }
            _ => Poll::Ready(Ok(())),
        }
    }
}

impl<C, S> AsyncWrite for TlsStream<C>
where
    C: DerefMut<Target = ConnectionCommon<S>> + Unpin,
    S: SideData,
{
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.queued >= BATCH
            && let Poll::Pending = this.poll_send(cx)?
            && this.queued >= BATCH
        {
            return Poll::Pending;
        }
        let taken = this.take(bufs)?;
        if this.few != Few::Gone && this.queued < RECORD {
            return Poll::Ready(Ok(taken));
        }
        if this.queued == 0 {
            // Not part of a bulk: nothing is gained by waiting for a flush.
            this.encrypt_tail()?;
        }
        if this.queued >= BATCH || this.queued < RECORD {
            // Blocked or not: the bytes are taken, and whoever writes or flushes next waits.
            let _ = this.poll_send(cx)?;
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.closing {
            this.encrypt_tail()?;
            this.session.send_close_notify();
            this.closing = true;
        }
        ready!(this.poll_send(cx))?;
        match ready!(Pin::new(&mut this.plain).poll_shutdown(cx)) {
            Err(e) if e.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            result => Poll::Ready(result),
        }
    }
}

/// The bytes `start..start + length` of `bufs` taken together.
fn window<'a>(bufs: &'a [IoSlice<'_>], start: usize, length: usize) -> impl Iterator<Item = &'a [u8]> {
    let (mut skip, mut left) = (start, length);
    bufs.iter().filter_map(move |buf| {
        let from = skip.min(buf.len());
        let to = (from + left).min(buf.len());
        skip -= from;
        left -= to - from;
        (from < to).then(|| &buf[from..to])
    })
}

/// The socket as rustls wants it; blocked is [`io::ErrorKind::WouldBlock`].
pub(super) struct Writer<'a, 'b> {
    pub(super) plain: &'a mut Plain,
    pub(super) cx: &'a mut Context<'b>,
}

impl Writer<'_, '_> {
    fn result<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
        match poll {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl io::Write for Writer<'_, '_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Self::result(Pin::new(&mut *self.plain).poll_write(self.cx, buf))
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        Self::result(Pin::new(&mut *self.plain).poll_write_vectored(self.cx, bufs))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;

//! One direction of a relay: bytes from a source to a target until the source ends, then the target's half-close.
//!
//! Owns the choice between copying and splicing. Knows nothing of time or of the other direction. Invariants: bytes
//! are read only when none are held, so a slow target slows its source; an idle direction holds neither buffer nor
//! pipe.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::splice::{Pipe, Spliced};
use crate::net::{
    buffers::{self, CHUNK},
    io::Io,
};

/// Bytes moved before the other connections of the worker get their turn.
const TURN: usize = 1024 * 1024;
/// Most bytes of one splice. They stay in the kernel, as those of the sockets do: the relay's limit is one on memory.
const SPLICE_MOST: usize = 1024 * 1024;
/// A read of this much is bulk: what follows is worth a pipe.
const SPLICE_FROM: usize = 32 * 1024;
/// Reads smaller than this are cheaper to copy than to splice.
const SPLICE_WORTHWHILE: usize = 8 * 1024;

/// Which end of a direction failed.
#[derive(Debug)]
pub(super) enum Broken {
    Source(io::Error),
    Target(io::Error),
}

#[derive(Debug)]
enum State {
    Copying,
    Splicing,
    /// The source has ended; what remains is to flush and half-close the target.
    Closing,
    Done,
}

#[derive(Debug)]
pub(super) struct Half {
    state: State,
    buffer: Option<Box<[u8]>>,
    /// The held bytes are `buffer[start..end]`.
    start: usize,
    end: usize,
    limit: usize,
    pipe: Option<Pipe>,
    may_splice: bool,
    /// The last splice was small: once the pipe is empty, copy.
    dwindled: bool,
    unflushed: bool,
    /// What goes to the target before anything of the source. Boxed: hardly any relay has it.
    first: Option<Box<Bytes>>,
    pub(super) spliced: bool,
}

impl Half {
    /// A direction that holds at most `limit` bytes in memory.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            state: State::Copying,
            buffer: None,
            start: 0,
            end: 0,
            limit: limit.max(1),
            pipe: None,
            may_splice: true,
            dwindled: false,
            // Something may have been written before the relay began.
            unflushed: true,
            first: None,
            spliced: false,
        }
    }

    /// With bytes of the source that were read from it already.
    pub(super) fn after(mut self, first: Bytes) -> Self {
        self.first = (!first.is_empty()).then(|| Box::new(first));
        self
    }

    /// Whether bytes were read that the target has not taken.
    pub(super) fn holds_bytes(&self) -> bool {
        self.start < self.end || self.first.is_some() || self.pipe.as_ref().is_some_and(|p| p.held() > 0)
    }

    /// Moves bytes until it can go no further; `moved` counts those the target took.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Io,
        target: &mut Io,
        moved: &Cell<u64>,
    ) -> Poll<Result<(), Broken>> {
        let mut turn = TURN;
        loop {
            match self.state {
                State::Copying => ready!(self.poll_copy(cx, source, target, moved, &mut turn))?,
                State::Splicing => ready!(self.poll_splice(cx, source, target, moved, &mut turn))?,
                State::Closing => {
                    ready!(poll_close(cx, target)).map_err(Broken::Target)?;
                    self.state = State::Done;
                }
                State::Done => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Writes what was read before there was a relay.
    fn poll_first(
        &mut self,
        cx: &mut Context<'_>,
        target: &mut Io,
        moved: &Cell<u64>,
        turn: &mut usize,
    ) -> Poll<Result<(), Broken>> {
        while let Some(first) = &mut self.first {
            let n = ready!(Pin::new(&mut *target).poll_write(cx, first)).map_err(Broken::Target)?;
            if n == 0 {
                return Poll::Ready(Err(Broken::Target(io::ErrorKind::WriteZero.into())));
            }
            first.advance(n);
            if first.is_empty() {
                self.first = None;
            }
            self.unflushed = true;
            *turn = turn.saturating_sub(n);
            moved.set(moved.get() + n as u64);
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what the buffer holds.
    fn poll_held(
        &mut self,
        cx: &mut Context<'_>,
        target: &mut Io,
        moved: &Cell<u64>,
        turn: &mut usize,
    ) -> Poll<Result<(), Broken>> {
        while let Some(buffer) = self.buffer.as_ref().filter(|_| self.start < self.end) {
            let write = Pin::new(&mut *target).poll_write(cx, &buffer[self.start..self.end]);
            let n = ready!(write).map_err(Broken::Target)?;
            if n == 0 {
                return Poll::Ready(Err(Broken::Target(io::ErrorKind::WriteZero.into())));
            }
            self.start += n;
            self.unflushed = true;
            *turn = turn.saturating_sub(n);
            moved.set(moved.get() + n as u64);
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when the state changed.
    fn poll_copy(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Io,
        target: &mut Io,
        moved: &Cell<u64>,
        turn: &mut usize,
    ) -> Poll<Result<(), Broken>> {
        ready!(self.poll_first(cx, target, moved, turn))?;
        loop {
            ready!(self.poll_held(cx, target, moved, turn))?;
            if let Some(pipe) = self.pipe.as_mut().filter(|p| p.held() > 0) {
                let buffer = self.buffer.get_or_insert_with(buffers::take);
                let n = pipe.recover(buffer).map_err(Broken::Target)?;
                (self.start, self.end) = (0, n);
                continue;
            }
            if *turn == 0 {
                self.release();
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let size = self.limit.min(CHUNK);
            let buffer = self.buffer.get_or_insert_with(buffers::take);
            let mut read = ReadBuf::new(&mut buffer[..size]);
            match Pin::new(&mut *source).poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) => {
                    (self.start, self.end) = (0, read.filled().len());
                    if self.end == 0 {
                        self.release();
                        self.state = State::Closing;
                        return Poll::Ready(Ok(()));
                    }
                    if self.end >= SPLICE_FROM && self.may_splice && splice_pair(source, target).is_some() {
                        // Bulk: the bytes at hand are still copied, what follows goes through the kernel.
                        self.state = State::Splicing;
                        return Poll::Ready(Ok(()));
                    }
                }
                Poll::Ready(Err(e)) => {
                    self.release();
                    return Poll::Ready(Err(Broken::Source(e)));
                }
                Poll::Pending => {
                    self.release();
                    if self.unflushed {
                        ready!(Pin::new(&mut *target).poll_flush(cx)).map_err(Broken::Target)?;
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Io,
        target: &mut Io,
        moved: &Cell<u64>,
        turn: &mut usize,
    ) -> Poll<Result<(), Broken>> {
        ready!(self.poll_held(cx, target, moved, turn))?;
        self.release_buffer();
        let Some((from, to)) = splice_pair(source, target) else {
            self.state = State::Copying;
            return Poll::Ready(Ok(()));
        };
        loop {
            if let Some(pipe) = self.pipe.as_mut().filter(|p| p.held() > 0) {
                ready!(to.poll_write_ready(cx)).map_err(Broken::Target)?;
                match pipe.drain(to) {
                    Spliced::Moved(0) => return Poll::Ready(Err(Broken::Target(io::ErrorKind::WriteZero.into()))),
                    Spliced::Moved(n) => {
                        *turn = turn.saturating_sub(n);
                        moved.set(moved.get() + n as u64);
                    }
                    Spliced::WouldBlock => {}
                    Spliced::Unsupported => return self.copy_from_now_on(),
                    Spliced::Failed(e) => return Poll::Ready(Err(Broken::Target(e))),
                }
                continue;
            }
            if std::mem::take(&mut self.dwindled) {
                self.release();
                self.state = State::Copying;
                return Poll::Ready(Ok(()));
            }
            if *turn == 0 {
                self.release();
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match from.poll_read_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(e)) => return Poll::Ready(Err(Broken::Source(e))),
                Poll::Pending => {
                    self.release();
                    return Poll::Pending;
                }
            }
            if self.pipe.is_none() {
                self.pipe = Pipe::take();
            }
            let Some(pipe) = &mut self.pipe else { return self.copy_from_now_on() };
            match pipe.fill(from, SPLICE_MOST) {
                Spliced::Moved(0) => {
                    self.release();
                    self.state = State::Closing;
                    return Poll::Ready(Ok(()));
                }
                Spliced::Moved(n) => {
                    self.spliced = true;
                    self.dwindled = n < SPLICE_WORTHWHILE;
                }
                Spliced::WouldBlock => {}
                Spliced::Unsupported => return self.copy_from_now_on(),
                Spliced::Failed(e) => return Poll::Ready(Err(Broken::Source(e))),
            }
        }
    }

    fn copy_from_now_on(&mut self) -> Poll<Result<(), Broken>> {
        self.may_splice = false;
        self.state = State::Copying;
        Poll::Ready(Ok(()))
    }

    fn release_buffer(&mut self) {
        if self.start >= self.end
            && let Some(buffer) = self.buffer.take()
        {
            (self.start, self.end) = (0, 0);
            buffers::give_back(buffer);
        }
    }

    /// Gives back what an idle direction does not need.
    fn release(&mut self) {
        self.release_buffer();
        if let Some(pipe) = self.pipe.take_if(|p| p.held() == 0) {
            pipe.give_back();
        }
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        self.start = self.end;
        self.release();
    }
}

/// The sockets, when bytes may bypass this process: both plain TCP and no byte waits in memory.
fn splice_pair<'a>(source: &'a Io, target: &'a Io) -> Option<(&'a tokio::net::TcpStream, &'a tokio::net::TcpStream)> {
    match (source, target) {
        (Io::Plain(source), Io::Plain(target)) if source.prefix().is_empty() => Some((source.tcp()?, target.tcp()?)),
        _ => None,
    }
}

fn poll_close(cx: &mut Context<'_>, target: &mut Io) -> Poll<io::Result<()>> {
    ready!(Pin::new(&mut *target).poll_flush(cx))?;
    match ready!(Pin::new(&mut *target).poll_shutdown(cx)) {
        // The target is gone already: it has said all it had to say, and everything for it was written.
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotConnected | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
            ) =>
        {
            Poll::Ready(Ok(()))
        }
        result => Poll::Ready(result),
    }
}

#[cfg(test)]
mod tests;

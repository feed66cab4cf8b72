//! Ciphertext on its way from a socket to a TLS session.
//!
//! Invariant: a buffer is held only while bytes wait in it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, ReadBuf};

use crate::net::buffers;

#[derive(Default)]
pub(super) struct Incoming {
    buffer: Option<Box<[u8]>>,
    /// The bytes are `buffer[start..end]`.
    start: usize,
    end: usize,
}

impl Incoming {
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.buffer.as_ref().map_or(&[], |buffer| &buffer[self.start..self.end])
    }

    /// Drops `n` bytes, and the buffer with the last.
    pub(super) fn consume(&mut self, n: usize) {
        self.start = (self.start + n).min(self.end);
        if self.is_empty() {
            self.clear();
        }
    }

    pub(super) fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
        if let Some(buffer) = self.buffer.take() {
            buffers::give_back(buffer);
        }
    }

    /// Reads what the socket has, up to a buffer full; only when empty. 0 is the end.
    pub(super) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut (impl AsyncRead + Unpin),
    ) -> Poll<io::Result<usize>> {
        debug_assert!(self.is_empty(), "what waits would be overwritten");
        let mut buffer = buffers::take();
        let mut read = ReadBuf::new(&mut buffer);
        let outcome = Pin::new(source).poll_read(cx, &mut read);
        let n = read.filled().len();
        if n > 0 {
            (self.buffer, self.start, self.end) = (Some(buffer), 0, n);
        } else {
            buffers::give_back(buffer);
        }
        ready!(outcome)?;
        Poll::Ready(Ok(n))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.clear();
    }
}

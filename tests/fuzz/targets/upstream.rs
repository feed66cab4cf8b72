//! The upstream of [`stage`](super::stage): one that looks closely at what it is asked, or one that says what it likes.

use std::{cell::Cell, rc::Rc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use super::{
    stage::Upstream,
    strict::{self, Head},
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const MOST_READ: usize = 32 << 20;

/// Serves one connection; `moved` counts what comes.
pub(super) async fn serve(stream: UnixStream, behaviour: Upstream, moved: Rc<Cell<u64>>) {
    let mut peer = Peer { stream, buffer: Vec::new(), moved };
    match behaviour {
        Upstream::Strict => peer.look_closely().await,
        Upstream::Says(bytes) => peer.say(&bytes).await,
    };
}

struct Peer {
    stream: UnixStream,
    buffer: Vec<u8>,
    moved: Rc<Cell<u64>>,
}

impl Peer {
    /// Reads more; `None` at the end.
    async fn more(&mut self) -> Option<()> {
        let before = self.buffer.len();
        assert!(before < MOST_READ, "a request without end");
        self.buffer.reserve(16 << 10);
        let n = self.stream.read_buf(&mut self.buffer).await.ok().filter(|n| *n > 0)?;
        self.moved.set(self.moved.get() + n as u64);
        Some(())
    }

    async fn look_closely(&mut self) -> Option<()> {
        loop {
            while self.buffer.is_empty() {
                self.more().await?;
            }
            if PREFACE.starts_with(&self.buffer) || self.buffer.starts_with(PREFACE) {
                return self.http2().await;
            }
            let head = loop {
                match strict::request(&self.buffer) {
                    Some(head) => break head,
                    None => self.more().await?,
                }
            };
            self.buffer.drain(..head.size);
            if head.method == "CONNECT" || head.upgrade {
                return self.tunnel(&head).await;
            }
            let size = loop {
                match strict::body(head.framing, &self.buffer) {
                    Some(size) => break size,
                    None => self.more().await?,
                }
            };
            self.buffer.drain(..size);
            let answer: &[u8] = match head.method.as_str() {
                "HEAD" => b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx-up: 1\r\n\r\n",
                _ => b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx-up: 1\r\n\r\nhello",
            };
            self.stream.write_all(answer).await.ok()?;
        }
    }

    async fn tunnel(&mut self, head: &Head) -> Option<()> {
        let answer: &[u8] = match head.method.as_str() {
            "CONNECT" => b"HTTP/1.1 200 OK\r\n\r\n",
            _ => b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        };
        self.stream.write_all(answer).await.ok()?;
        loop {
            let echo = std::mem::take(&mut self.buffer);
            self.stream.write_all(&echo).await.ok()?;
            self.more().await?;
        }
    }

    /// Checks the frames; says nothing but that it is there.
    async fn http2(&mut self) -> Option<()> {
        while self.buffer.len() < PREFACE.len() {
            self.more().await?;
        }
        self.buffer.drain(..PREFACE.len());
        self.stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.ok()?;
        loop {
            while self.buffer.len() >= 9 {
                let length =
                    usize::from(self.buffer[0]) << 16 | usize::from(self.buffer[1]) << 8 | usize::from(self.buffer[2]);
                assert!(length <= 16_384, "a frame larger than allowed");
                if self.buffer.len() < 9 + length {
                    break;
                }
                // A request is answered with 200 and an end.
                if self.buffer[3] == 1 {
                    let stream = [self.buffer[5], self.buffer[6], self.buffer[7], self.buffer[8]];
                    let answer = [&[0, 0, 1, 1, 5], &stream[..], &[0x88]].concat();
                    self.stream.write_all(&answer).await.ok()?;
                }
                self.buffer.drain(..9 + length);
            }
            self.more().await?;
        }
    }

    async fn say(&mut self, bytes: &[u8]) -> Option<()> {
        // To somebody who asked: HTTP/2 speaks first only after its preface.
        while !self.buffer.windows(4).any(|end| end == b"\r\n\r\n") {
            self.more().await?;
        }
        let half = bytes.len() / 2;
        self.stream.write_all(&bytes[..half]).await.ok()?;
        tokio::task::yield_now().await;
        self.stream.write_all(&bytes[half..]).await.ok()?;
        self.stream.shutdown().await.ok()?;
        while self.more().await.is_some() {
            self.buffer.clear();
        }
        None
    }
}

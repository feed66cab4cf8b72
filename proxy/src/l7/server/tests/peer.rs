//! Peers that say exactly what a test tells them to.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// A raw connection.
pub(super) struct Peer {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

impl Peer {
    pub(super) fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::new() }
    }

    pub(super) async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads until `end` was seen and returns everything up to and including it.
    pub(super) async fn until(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = find(&self.buffer, end.as_bytes()) {
                let rest = self.buffer.split_off(at + end.len());
                let text = std::mem::replace(&mut self.buffer, rest);
                return String::from_utf8(text).unwrap();
            }
            let count = self.stream.read_buf(&mut self.buffer).await.unwrap();
            let seen = String::from_utf8_lossy(&self.buffer);
            assert_ne!(count, 0, "closed before {end:?}, saw {seen:?}");
        }
    }

    pub(super) async fn head(&mut self) -> String {
        self.until("\r\n\r\n").await
    }

    /// A head, or what came before the peer closed.
    pub(super) async fn head_or_end(&mut self) -> String {
        while find(&self.buffer, b"\r\n\r\n").is_none() {
            if self.stream.read_buf(&mut self.buffer).await.unwrap_or(0) == 0 {
                break;
            }
        }
        String::from_utf8_lossy(&self.buffer).into_owned()
    }

    /// Head and body by its length.
    pub(super) async fn message(&mut self) -> (String, String) {
        let head = self.head().await;
        let length = header(&head, "content-length").map_or(0, |l| l.parse().unwrap());
        (head, self.exactly(length).await)
    }

    pub(super) async fn exactly(&mut self, length: usize) -> String {
        while self.buffer.len() < length {
            assert_ne!(self.stream.read_buf(&mut self.buffer).await.unwrap(), 0, "closed in the body");
        }
        let rest = self.buffer.split_off(length);
        String::from_utf8(std::mem::replace(&mut self.buffer, rest)).unwrap()
    }

    /// As [`Self::exactly`], not text.
    pub(super) async fn bytes(&mut self, length: usize) -> Vec<u8> {
        while self.buffer.len() < length {
            assert_ne!(self.stream.read_buf(&mut self.buffer).await.unwrap(), 0, "closed in the body");
        }
        let rest = self.buffer.split_off(length);
        std::mem::replace(&mut self.buffer, rest)
    }

    /// Everything until the peer closes; the error if it reset.
    pub(super) async fn rest(&mut self) -> std::io::Result<String> {
        let mut all = std::mem::take(&mut self.buffer);
        self.stream.read_to_end(&mut all).await?;
        Ok(String::from_utf8(all).unwrap())
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

/// The value of a header in a raw head.
pub(super) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).filter_map(|l| l.split_once(": ")).find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v)
}

/// An upstream under the test's control.
pub(super) struct Upstream(pub TcpListener);

impl Upstream {
    pub(super) async fn bind() -> (Self, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (Self(listener), address)
    }

    pub(super) async fn accept(&self) -> Peer {
        Peer::new(self.0.accept().await.unwrap().0)
    }
}

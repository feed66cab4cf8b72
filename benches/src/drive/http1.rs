//! The smallest HTTP/1.1 client that can be trusted: one request at a time, bodies with a known length.

use std::{
    io::{Error, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// More than any head in these benches.
const MAX_HEAD: usize = 16 << 10;

/// The bytes of a request; `more` are further header lines, each with its line end.
pub(crate) fn request(method: &str, path: &str, host: &str, more: &str) -> Vec<u8> {
    format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n{more}\r\n").into_bytes()
}

/// The head of a response.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) length: u64,
    /// Bytes of the head itself.
    size: usize,
}

fn bad(reason: &str) -> Error {
    Error::new(ErrorKind::InvalidData, reason.to_owned())
}

/// The head at the start of `bytes`, if it is whole.
fn parse(bytes: &[u8]) -> Result<Option<Head>, Error> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(bytes) {
        Ok(httparse::Status::Complete(size)) => {
            let length = response.headers.iter().find(|h| h.name.eq_ignore_ascii_case("content-length"));
            let length = length.and_then(|h| std::str::from_utf8(h.value).ok()?.trim().parse().ok());
            let length = length.ok_or_else(|| bad("a response without content-length"))?;
            Ok(Some(Head { status: response.code.unwrap_or(0), length, size }))
        }
        Ok(httparse::Status::Partial) if bytes.len() > MAX_HEAD => Err(bad("the head is too long")),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(error) => Err(bad(&error.to_string())),
    }
}

/// A kept connection.
pub(crate) struct Connection {
    stream: tokio::net::TcpStream,
    buffer: Vec<u8>,
    filled: usize,
}

impl Connection {
    pub(crate) async fn open(to: SocketAddr) -> Result<Self, Error> {
        let stream = tokio::net::TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; 64 << 10], filled: 0 })
    }

    /// Sends a request without a body and reads the whole response: its head and the first byte of its body.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> Result<(Head, Option<u8>), Error> {
        self.stream.write_all(request).await?;
        let (head, mut had) = self.head().await?;
        let mut first = (had > 0).then(|| self.buffer[head.size]);
        self.filled = 0;
        while (had as u64) < head.length {
            let count = self.stream.read(&mut self.buffer).await?;
            if count == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            first = first.or(Some(self.buffer[0]));
            had += count;
        }
        if had as u64 > head.length { Err(bad("more than one response")) } else { Ok((head, first)) }
    }

    /// Reads a head; how much of the body came with it.
    pub(crate) async fn head(&mut self) -> Result<(Head, usize), Error> {
        loop {
            if let Some(head) = parse(&self.buffer[..self.filled])? {
                return Ok((head, self.filled - head.size));
            }
            let count = self.stream.read(&mut self.buffer[self.filled..]).await?;
            if count == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            self.filled += count;
        }
    }

    /// The socket, for a body whose first bytes [`Connection::head`] has read.
    pub(crate) fn stream(&mut self) -> &mut tokio::net::TcpStream {
        self.filled = 0;
        &mut self.stream
    }
}

/// One request on a blocking connection, which stays open; its status.
pub(crate) fn on(stream: &mut TcpStream, request: &[u8]) -> Result<u16, Error> {
    stream.write_all(request)?;
    let (mut buffer, mut filled) = ([0; 4096], 0);
    loop {
        let count = stream.read(&mut buffer[filled..])?;
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        filled += count;
        if let Some(head) = parse(&buffer[..filled])?
            && filled as u64 >= head.size as u64 + head.length
        {
            return Ok(head.status);
        }
    }
}

/// One request on a connection of its own.
pub(crate) fn once(to: SocketAddr, request: &[u8], patience: Duration) -> Result<u16, Error> {
    let mut stream = TcpStream::connect_timeout(&to, patience)?;
    stream.set_read_timeout(Some(patience))?;
    on(&mut stream, request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_whole_or_not_at_all() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nabcdefg";
        assert!(parse(&text[..20]).unwrap().is_none());
        let head = parse(text).unwrap().unwrap();
        assert_eq!((head.status, head.length, head.size), (200, 7, text.len() - 7));
        assert!(parse(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
        assert!(parse(b"SSH-2.0-x\r\n\r\n").is_err());
    }
}

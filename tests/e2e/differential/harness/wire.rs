//! HTTP/1 as bytes, for both ends of a proxy: what was said, nothing made better.
//!
//! Owns framing. Knows neither scripts nor comparison. Input is bounded: these peers are proxies under test.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const LONGEST_HEAD: usize = 256 << 10;
const LONGEST_BODY: usize = 64 << 20;

/// Anything that is a byte stream.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Header fields in order, names in lower case.
pub(crate) type Fields = Vec<(String, String)>;

pub(crate) struct Head {
    /// Request or status line.
    pub(crate) line: String,
    pub(crate) fields: Fields,
    /// As they were written.
    pub(crate) names: Vec<String>,
}

impl Head {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// A word of the first line.
    pub(crate) fn word(&self, index: usize) -> &str {
        self.line.split(' ').nth(index).unwrap_or_default()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    None,
    Length(usize),
    Chunked,
    UntilClose,
}

impl Framing {
    fn of(head: &Head, otherwise: Self) -> Self {
        if head.get("transfer-encoding").is_some_and(|v| v.to_ascii_lowercase().ends_with("chunked")) {
            return Self::Chunked;
        }
        head.get("content-length").and_then(|v| v.parse().ok()).map_or(otherwise, Self::Length)
    }

    pub(crate) fn of_request(head: &Head) -> Self {
        Self::of(head, Self::None)
    }

    pub(crate) fn of_response(head: &Head, method: &str, status: u16) -> Self {
        if method == "HEAD" || matches!(status, 100..=199 | 204 | 304) {
            return Self::None;
        }
        Self::of(head, Self::UntilClose)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Complete,
    /// The connection ended before the message did.
    Cut,
    Reset(String),
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Complete => f.write_str("complete"),
            Self::Cut => f.write_str("cut"),
            Self::Reset(why) => write!(f, "reset {why}"),
        }
    }
}

pub(crate) struct Body {
    pub(crate) data: Vec<u8>,
    pub(crate) trailers: Fields,
    pub(crate) end: End,
}

/// A byte stream with what was read too far.
pub(crate) struct Wire {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
}

impl Wire {
    pub(crate) fn new(stream: impl Stream + 'static) -> Self {
        Self { stream: Box::new(stream), buffer: Vec::new() }
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    pub(crate) async fn finish(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Reads more: `Ok(0)` at the end.
    pub(crate) async fn fill(&mut self) -> std::io::Result<usize> {
        self.buffer.reserve(16 << 10);
        self.stream.read_buf(&mut self.buffer).await
    }

    /// Everything until the end, and how that came.
    pub(crate) async fn rest(&mut self) -> Body {
        self.until_close().await
    }

    pub(crate) fn take_buffered(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    /// The next head; `Err` says how the connection ended instead.
    pub(crate) async fn head(&mut self) -> Result<Head, End> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                let bytes: Vec<u8> = self.buffer.drain(..at + 4).collect();
                return Ok(parse(&bytes[..at]));
            }
            if self.buffer.len() > LONGEST_HEAD {
                return Err(End::Reset("head too long".to_owned()));
            }
            match self.fill().await {
                Ok(0) if self.buffer.is_empty() => return Err(End::Complete),
                Ok(0) => return Err(End::Cut),
                Ok(_) => {}
                Err(e) => return Err(End::Reset(reason(&e))),
            }
        }
    }

    pub(crate) async fn body(&mut self, framing: Framing) -> Body {
        match framing {
            Framing::None => Body { data: Vec::new(), trailers: Vec::new(), end: End::Complete },
            Framing::Length(length) => self.exactly(length.min(LONGEST_BODY)).await,
            Framing::Chunked => self.chunked().await,
            Framing::UntilClose => self.until_close().await,
        }
    }

    async fn exactly(&mut self, length: usize) -> Body {
        let mut end = End::Complete;
        while self.buffer.len() < length {
            match self.fill().await {
                Ok(0) => end = End::Cut,
                Ok(_) => continue,
                Err(e) => end = End::Reset(reason(&e)),
            }
            break;
        }
        let data = self.buffer.drain(..length.min(self.buffer.len())).collect();
        Body { data, trailers: Vec::new(), end }
    }

    async fn chunked(&mut self) -> Body {
        let (mut data, mut trailers) = (Vec::new(), Vec::new());
        loop {
            let size = match self.line().await {
                Ok(line) => usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16),
                Err(end) => return Body { data, trailers, end },
            };
            let size = match size {
                Ok(size) if data.len() + size <= LONGEST_BODY => size,
                _ => return Body { data, trailers, end: End::Reset("bad chunk".to_owned()) },
            };
            if size == 0 {
                break;
            }
            let mut chunk = self.exactly(size + 2).await;
            chunk.data.truncate(size);
            data.append(&mut chunk.data);
            if chunk.end != End::Complete {
                return Body { data, trailers, end: chunk.end };
            }
        }
        loop {
            match self.line().await {
                Ok(line) if line.is_empty() => return Body { data, trailers, end: End::Complete },
                Ok(line) => trailers.push(field(&line)),
                Err(end) => return Body { data, trailers, end },
            }
        }
    }

    async fn line(&mut self) -> Result<String, End> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                let bytes: Vec<u8> = self.buffer.drain(..at + 2).collect();
                return Ok(String::from_utf8_lossy(&bytes[..at]).into_owned());
            }
            match self.fill().await {
                Ok(0) => return Err(End::Cut),
                Ok(_) => {}
                Err(e) => return Err(End::Reset(reason(&e))),
            }
        }
    }

    async fn until_close(&mut self) -> Body {
        let end = loop {
            match self.fill().await {
                Ok(0) => break End::Complete,
                Ok(_) if self.buffer.len() > LONGEST_BODY => break End::Reset("too much".to_owned()),
                Ok(_) => {}
                Err(e) => break End::Reset(reason(&e)),
            }
        };
        Body { data: self.take_buffered(), trailers: Vec::new(), end }
    }
}

/// The kinds of socket errors that mean the same are one word.
fn reason(error: &std::io::Error) -> String {
    use std::io::ErrorKind as K;
    match error.kind() {
        K::ConnectionReset | K::BrokenPipe | K::ConnectionAborted => "by peer".to_owned(),
        K::UnexpectedEof => "without close_notify".to_owned(),
        other => format!("{other:?}"),
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

fn field(line: &str) -> (String, String) {
    let (name, value) = line.split_once(':').unwrap_or((line, ""));
    (name.to_ascii_lowercase(), value.trim().to_owned())
}

fn parse(bytes: &[u8]) -> Head {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.split("\r\n");
    let line = lines.next().unwrap_or_default().to_owned();
    let (mut fields, mut names) = (Vec::new(), Vec::new());
    for line in lines {
        names.push(line.split(':').next().unwrap_or_default().to_owned());
        fields.push(field(line));
    }
    Head { line, fields, names }
}

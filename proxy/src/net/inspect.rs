//! Reading the first bytes of an accepted connection until they say what it is.
//!
//! Owns the wait, its bounds in bytes and time, and the bytes read, which go back in front of the stream. Knows
//! nothing of filter chains. Invariant: the first byte of either side ends the wait for the other one.

use std::{
    future::Future,
    io,
    pin::{Pin, pin},
    time::Duration,
};

use bytes::BytesMut;
use tokio::net::TcpStream;

use super::{
    io::{Plain, Stream},
    sniff::{Interest, MAX_BYTES, Verdict, classify_for},
};
use crate::ir::listener::Transport;

/// Bytes read at once; holds every usual ClientHello and request line.
const CHUNK: usize = 4 * 1024;

/// Which inspectors run and how far they may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InspectPlan {
    pub tls: bool,
    pub http: bool,
    /// `None` waits for ever.
    pub timeout: Option<Duration>,
    /// At most [`MAX_BYTES`] whatever is asked.
    pub max_bytes: usize,
}

/// What the first bytes said.
#[derive(Debug)]
pub struct Inspected {
    pub plain: Plain,
    pub transport: Transport,
    /// SNI, lower case.
    pub server_name: Option<Box<str>>,
    /// ALPN as offered under TLS, or what the HTTP inspector detected: `http/1.0`, `http/1.1`, `h2c`.
    pub alpn: Vec<Box<str>>,
    pub timed_out: bool,
    /// The peer half-closed before the inspection was decided.
    pub eof: bool,
    /// The other side spoke first.
    pub server_first: bool,
}

/// Why no filter chain can be chosen.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    #[error("read failed: {0}")]
    Io(#[from] io::Error),
    /// A ClientHello or request line larger than the plan allows.
    #[error("the first message exceeds {0} bytes")]
    TooLarge(usize),
}

/// Reads until the first bytes decide what the connection is. What `server_first` makes completes when the upstream has
/// spoken; it counts only while the client is silent, and is made only for one that is.
pub async fn inspect<F: Future<Output = ()>>(
    stream: TcpStream,
    plan: &InspectPlan,
    server_first: impl FnOnce() -> F,
) -> Result<Inspected, InspectError> {
    let interest = Interest { tls: plan.tls, http: plan.http };
    let mut buffer = BytesMut::new();
    if !interest.tls && !interest.http {
        return Ok(decided(stream, buffer, Verdict::Other));
    }
    let limit = plan.max_bytes.clamp(1, MAX_BYTES);
    // Many connections bring their first bytes along: nothing to wait with is made for those.
    let mut server_first = Some(server_first);
    let mut spoken = None;
    let mut timer = pin!(None);
    loop {
        match read(&stream, &mut buffer, limit) {
            Ok(0) => return Ok(Inspected { eof: true, ..decided(stream, buffer, Verdict::Other) }),
            Ok(_) => match classify_for(&buffer, interest) {
                Verdict::NeedMore if buffer.len() >= limit => return Err(InspectError::TooLarge(limit)),
                Verdict::NeedMore => continue,
                verdict => return Ok(decided(stream, buffer, verdict)),
            },
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e.into()),
        }
        if let Some(server_first) = server_first.take() {
            timer.set(plan.timeout.map(tokio::time::sleep));
            spoken = Some(Box::pin(server_first()));
        }
        tokio::select! {
            biased;
            ready = stream.readable() => ready?,
            () = completed(&mut spoken), if buffer.is_empty() => {
                return Ok(Inspected { server_first: true, ..decided(stream, buffer, Verdict::Other) });
            }
            () = elapsed(timer.as_mut()) => {
                return Ok(Inspected { timed_out: true, ..decided(stream, buffer, Verdict::Other) });
            }
        }
    }
}

async fn completed<F: Future<Output = ()>>(future: &mut Option<Pin<Box<F>>>) {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn elapsed(timer: Pin<&mut Option<tokio::time::Sleep>>) {
    match timer.as_pin_mut() {
        Some(timer) => timer.await,
        None => std::future::pending().await,
    }
}

/// One read; the buffer is allocated only once there is something to read.
fn read(stream: &TcpStream, buffer: &mut BytesMut, limit: usize) -> io::Result<usize> {
    if buffer.capacity() == 0 {
        let mut chunk = [0u8; CHUNK];
        let want = CHUNK.min(limit);
        let n = stream.try_read(&mut chunk[..want])?;
        buffer.extend_from_slice(&chunk[..n]);
        return Ok(n);
    }
    let start = buffer.len();
    buffer.resize((start + CHUNK).min(limit), 0);
    let result = stream.try_read(&mut buffer[start..]);
    buffer.truncate(start + *result.as_ref().unwrap_or(&0));
    result
}

fn decided(stream: TcpStream, buffer: BytesMut, verdict: Verdict) -> Inspected {
    let mut inspected = Inspected {
        plain: Plain::new(Stream::Tcp(stream), buffer.freeze()),
        transport: Transport::RawBuffer,
        server_name: None,
        alpn: Vec::new(),
        timed_out: false,
        eof: false,
        server_first: false,
    };
    match verdict {
        Verdict::Tls(hello) => {
            inspected.transport = Transport::Tls;
            inspected.server_name = hello.sni;
            inspected.alpn = hello.alpn;
        }
        Verdict::Http1 { http10: true } => inspected.alpn.push("http/1.0".into()),
        Verdict::Http1 { http10: false } => inspected.alpn.push("http/1.1".into()),
        Verdict::Http2 => inspected.alpn.push("h2c".into()),
        Verdict::NeedMore | Verdict::Other => {}
    }
    inspected
}

#[cfg(test)]
mod tests;

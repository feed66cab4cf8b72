//! HTTP/1.1 clients: kept connections and new ones.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::super::tally::End;
use super::{Clients, Told, app};

const MOST: usize = 256 << 10;

/// What came back.
struct Answer {
    status: u16,
    /// Bytes of the body.
    body: usize,
    /// The connection is not to be used again.
    closes: bool,
}

/// Why nothing came back.
enum Failure {
    /// The connection had been used before and ended without a byte of an answer: a client asks again.
    Stale,
    /// A head came, its body did not.
    Cut(u16),
    Other(anyhow::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Other(error.into())
    }
}

/// A client with a kept connection.
pub(super) struct Kept {
    to: SocketAddr,
    host: &'static str,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
    told: Arc<Told>,
    turn: usize,
}

impl Kept {
    pub(super) fn new(clients: &Clients, to: SocketAddr, host: &'static str) -> Self {
        Self { to, host, stream: None, buffer: vec![0; 64 << 10], told: clients.told.clone(), turn: 0 }
    }

    /// Ordinary requests of several sizes, one of ten with a body.
    pub(super) async fn mixed(&mut self) -> anyhow::Result<End> {
        self.turn += 1;
        let bytes = [100, 1000, 4, 20_000, 300, 64, 5000, 120_000, 10, 700][self.turn % 10];
        let (method, body) = if self.turn.is_multiple_of(10) { ("POST", 9000) } else { ("GET", 0) };
        let (answer, again) = self.ask(method, &format!("/bytes/{bytes}"), body).await?;
        ensure!(answer.status == 200, "status {}", answer.status);
        ensure!(answer.body == bytes, "{} bytes in place of {bytes}", answer.body);
        Ok(if again { End::Explained("good on a new connection, the kept one had ended") } else { End::Good })
    }

    /// Paths whose answers the mesh's configuration gives.
    pub(super) async fn told(&mut self) -> anyhow::Result<End> {
        self.turn += 1;
        let (path, wanted): (_, &[u16]) = match self.turn % 4 {
            0 => ("/slow", &[504]),
            1 => ("/fail", &[500]),
            2 => ("/fault", &[418]),
            _ => ("/denied", &[200, 403]),
        };
        let (answer, _) = self.ask("GET", path, 0).await?;
        ensure!(wanted.contains(&answer.status), "{path}: status {}", answer.status);
        Ok(End::Explained(match answer.status {
            504 => "504: slower than the route's timeout",
            500 => "500: what the application said",
            418 => "418: an injected fault",
            403 => "403: denied by policy",
            _ => "200: not denied by policy",
        }))
    }

    /// A service of two replicas, one of which misbehaves: retries have to make it good.
    pub(super) async fn flaky(&mut self) -> anyhow::Result<End> {
        match self.attempt("GET", "/", 0).await {
            Err(Failure::Cut(_)) if self.told.breaks() => Ok(End::Explained("broken off by the application")),
            Err(Failure::Stale) => {
                let (answer, _) = self.ask("GET", "/", 0).await?;
                ensure!(answer.status == 200, "status {}", answer.status);
                Ok(End::Explained("good on a new connection, the kept one had ended"))
            }
            other => {
                let answer = other.map_err(reason)?;
                ensure!(answer.status == 200, "status {} while {}", answer.status, self.told.mood());
                Ok(End::Good)
            }
        }
    }

    /// Asks, once more where the kept connection turns out to have ended; whether that was so.
    async fn ask(&mut self, method: &str, path: &str, body: usize) -> anyhow::Result<(Answer, bool)> {
        match self.attempt(method, path, body).await {
            Ok(answer) => Ok((answer, false)),
            Err(Failure::Stale) => {
                let answer = self.attempt(method, path, body).await.map_err(reason);
                Ok((answer.context("on a new connection")?, true))
            }
            Err(other) => Err(reason(other)),
        }
    }

    async fn attempt(&mut self, method: &str, path: &str, body: usize) -> Result<Answer, Failure> {
        let kept = self.stream.take();
        let used = kept.is_some();
        let mut stream = match kept {
            Some(stream) => stream,
            None => connect(self.to).await.map_err(|e| Failure::Other(anyhow::Error::from(e).context("connect")))?,
        };
        let length = if body > 0 { format!("content-length: {body}\r\n") } else { String::new() };
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n{length}\r\n", self.host).into_bytes();
        request.resize(request.len() + body, b'y');
        // Its end may be known already; whether an answer came says the read.
        let written = stream.write_all(&request).await;
        match read(&mut stream, &mut self.buffer).await {
            Ok(answer) => {
                written?;
                if !answer.closes {
                    self.stream = Some(stream);
                }
                Ok(answer)
            }
            Err(Failure::Stale) if !used => Err(Failure::Other(anyhow::anyhow!("a new connection ended unanswered"))),
            Err(other) => Err(other),
        }
    }
}

fn reason(failure: Failure) -> anyhow::Error {
    match failure {
        Failure::Stale => anyhow::anyhow!("the connection ended unanswered"),
        Failure::Cut(status) => anyhow::anyhow!("an answer with status {status} was cut"),
        Failure::Other(error) => error,
    }
}

/// One request on a connection of its own.
pub(super) async fn fresh() -> anyhow::Result<End> {
    let mut stream = connect(app(80)).await.context("connect")?;
    stream.write_all(b"GET /bytes/500 HTTP/1.1\r\nhost: app\r\nconnection: close\r\n\r\n").await?;
    let answer = read(&mut stream, &mut vec![0; 8 << 10]).await.map_err(reason)?;
    ensure!(answer.status == 200 && answer.body == 500, "status {}, {} bytes", answer.status, answer.body);
    Ok(End::Good)
}

/// Connections that were refused at first.
static REFUSED: AtomicU64 = AtomicU64::new(0);

pub(in crate::soak) fn refused() -> u64 {
    REFUSED.load(Relaxed)
}

/// Once more where it is refused: with redirection both ends of thousands of ended connections wait in one namespace,
/// and the kernel may refuse a port whose former connection is not quite over.
pub(super) async fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = match TcpStream::connect(to).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            REFUSED.fetch_add(1, Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
            TcpStream::connect(to).await?
        }
        other => other?,
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn read(stream: &mut TcpStream, buffer: &mut [u8]) -> Result<Answer, Failure> {
    let mut filled = 0;
    let (mut answer, size, length) = loop {
        if let Some(found) = parse(&buffer[..filled]).map_err(Failure::Other)? {
            break found;
        }
        match stream.read(&mut buffer[filled..]).await {
            Ok(0) | Err(_) if filled == 0 => return Err(Failure::Stale),
            Ok(0) => return Err(Failure::Other(anyhow::anyhow!("the head was cut"))),
            Ok(count) => filled += count,
            Err(error) => return Err(error.into()),
        }
    };
    answer.body = filled - size;
    while answer.body < length {
        match stream.read(buffer).await {
            Ok(0) | Err(_) => return Err(Failure::Cut(answer.status)),
            Ok(count) => answer.body += count,
        }
    }
    Ok(answer)
}

/// The answer, the size of its head, the length of its body.
fn parse(bytes: &[u8]) -> anyhow::Result<Option<(Answer, usize, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(size) = response.parse(bytes)? else { return Ok(None) };
    let header = |name: &str| {
        let found = response.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name));
        found.and_then(|h| std::str::from_utf8(h.value).ok())
    };
    let status = response.code.unwrap_or(0);
    let Some(length) = header("content-length").and_then(|v| v.parse().ok()) else {
        bail!("status {status} without content-length");
    };
    ensure!(length <= MOST, "a body of {length} bytes");
    let closes = header("connection").is_some_and(|v| v.eq_ignore_ascii_case("close"));
    Ok(Some((Answer { status, body: 0, closes }, size, length)))
}

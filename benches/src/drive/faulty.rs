//! An application that takes its time for every request, and misbehaves when told to.
//!
//! What it is told is shared with whoever tells it, and so is the number of requests that came. Requests have no bodies.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const BODY: [u8; 100] = [b'f'; 100];

/// How the answers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Mood {
    Well,
    /// Late.
    Slow,
    /// 503, at once.
    Unavailable,
    /// The head and half of the body, then a reset.
    Breaks,
    /// 503 for every second request, at once.
    Moody,
}

/// One application's strings.
#[derive(Debug)]
pub(crate) struct Controls {
    mood: AtomicU8,
    requests: AtomicU64,
    takes: Duration,
    slow_takes: Duration,
}

impl Controls {
    pub(crate) fn new(takes: Duration, slow_takes: Duration) -> Arc<Self> {
        Arc::new(Self { mood: AtomicU8::new(Mood::Well as u8), requests: AtomicU64::new(0), takes, slow_takes })
    }

    pub(crate) fn set(&self, mood: Mood) {
        self.mood.store(mood as u8, Relaxed);
    }

    fn is(&self, mood: Mood) -> bool {
        self.mood.load(Relaxed) == mood as u8
    }

    /// Requests that came so far.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }
}

pub(crate) async fn serve(listener: TcpListener, controls: Arc<Controls>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let controls = controls.clone();
        connections.spawn_local(async move { drop(converse(stream, &controls).await) });
    }
}

async fn converse(mut stream: TcpStream, controls: &Controls) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut buffer, mut filled) = (vec![0; 16 << 10], 0);
    loop {
        let count = stream.read(&mut buffer[filled..]).await?;
        if count == 0 {
            return Ok(());
        }
        filled += count;
        while let Some(end) = buffer[..filled].windows(4).position(|w| w == b"\r\n\r\n") {
            buffer.copy_within(end + 4..filled, 0);
            filled -= end + 4;
            answer(&mut stream, controls).await?;
        }
    }
}

async fn answer(stream: &mut TcpStream, controls: &Controls) -> io::Result<()> {
    let number = controls.requests.fetch_add(1, Relaxed);
    if controls.is(Mood::Unavailable) || controls.is(Mood::Moody) && number.is_multiple_of(2) {
        return stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
    }
    tokio::time::sleep(if controls.is(Mood::Slow) { controls.slow_takes } else { controls.takes }).await;
    let mut bytes = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", BODY.len()).into_bytes();
    if controls.is(Mood::Breaks) {
        bytes.extend_from_slice(&BODY[..BODY.len() / 2]);
        stream.write_all(&bytes).await?;
        // A reset overtakes what its receiver has not read yet.
        tokio::time::sleep(Duration::from_millis(5)).await;
        stream.set_zero_linger()?;
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    bytes.extend_from_slice(&BODY);
    stream.write_all(&bytes).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drive::{self, Service, http1};

    #[test]
    fn it_does_as_it_is_told() {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let to = listener.local_addr().unwrap();
        let controls = Controls::new(Duration::ZERO, Duration::from_millis(1));
        let strings = controls.clone();
        let _service = Service::start(listener, move |listener| serve(listener, strings)).unwrap();
        let request = http1::request("GET", "/", "x", "");
        let ask = || {
            drive::block_on(async {
                let mut connection = http1::Connection::open(to).await?;
                Ok(connection.exchange(&request).await.map(|(head, _)| head.status))
            })
            .unwrap()
        };
        let said = |mood| {
            controls.set(mood);
            (ask().ok(), ask().ok())
        };
        assert_eq!(said(Mood::Well), (Some(200), Some(200)));
        assert_eq!(said(Mood::Slow), (Some(200), Some(200)));
        assert_eq!(said(Mood::Unavailable), (Some(503), Some(503)));
        assert_eq!(said(Mood::Moody), (Some(503), Some(200)));
        assert_eq!(said(Mood::Breaks), (None, None), "half of a body is no answer");
        assert_eq!(controls.requests(), 10);
    }
}

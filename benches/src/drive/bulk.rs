//! Much data in one direction: a server that sends and takes what is asked, and streams that keep it busy.

use std::{
    cell::Cell,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::ensure;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::http1;

/// Body of one request.
const BODY: u64 = 256 << 20;
const CHUNK: usize = 256 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the server.
    Down,
    /// To the server.
    Up,
}

/// Serves `GET /BYTES` and takes any `POST`.
pub(crate) async fn serve(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        // A client that goes away in the middle is the usual end.
        tokio::task::spawn_local(async move { drop(answer(stream).await) });
    }
}

async fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let chunk: Rc<[u8]> = vec![b'x'; CHUNK].into();
    let mut buffer = vec![0; CHUNK];
    let mut filled = 0;
    loop {
        let (size, asked, length) = loop {
            if let Some(found) = parse(&buffer[..filled])? {
                break found;
            }
            let count = stream.read(&mut buffer[filled..]).await?;
            if count == 0 {
                return Ok(());
            }
            filled += count;
        };
        let mut left = length.saturating_sub((filled - size) as u64);
        while left > 0 {
            let count = stream.read(&mut buffer).await?;
            if count == 0 {
                return Ok(());
            }
            left = left.saturating_sub(count as u64);
        }
        filled = 0;
        stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {asked}\r\n\r\n").as_bytes()).await?;
        let mut left = asked;
        while left > 0 {
            let next = left.min(CHUNK as u64) as usize;
            stream.write_all(&chunk[..next]).await?;
            left -= next as u64;
        }
    }
}

/// Size of the head, bytes asked for by the path, length of the body that comes.
fn parse(bytes: &[u8]) -> std::io::Result<Option<(usize, u64, u64)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let parsed = request.parse(bytes).map_err(|e| std::io::Error::other(e.to_string()))?;
    let httparse::Status::Complete(size) = parsed else { return Ok(None) };
    let asked = request.path.and_then(|p| p.trim_start_matches('/').parse().ok()).unwrap_or(1);
    let length = request.headers.iter().find(|h| h.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|h| std::str::from_utf8(h.value).ok()?.parse().ok()).unwrap_or(0);
    Ok(Some((size, asked, length)))
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) to: SocketAddr,
    pub(crate) direction: Direction,
    pub(crate) streams: usize,
    pub(crate) length: Duration,
}

/// Keeps the streams busy; bytes of bodies moved, and how long it took.
pub(crate) async fn run(load: Load, host: &str) -> anyhow::Result<(u64, Duration)> {
    let moved = Rc::new(Cell::new(0));
    let request: Rc<[u8]> = match load.direction {
        Direction::Down => http1::request("GET", &format!("/{BODY}"), host, ""),
        Direction::Up => http1::request("POST", "/1", host, &format!("content-length: {BODY}\r\n")),
    }
    .into();
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..load.streams {
        tasks.spawn_local(stream(load, request.clone(), moved.clone()));
    }
    let ended = tokio::time::timeout(load.length, tasks.join_next()).await;
    let took = start.elapsed();
    if let Ok(Some(result)) = ended {
        result??;
    }
    tasks.shutdown().await;
    ensure!(moved.get() > 0, "nothing moved in {took:?}");
    Ok((moved.get(), took))
}

/// Ends only with an error.
async fn stream(load: Load, request: Rc<[u8]>, moved: Rc<Cell<u64>>) -> anyhow::Result<()> {
    let mut connection = http1::Connection::open(load.to).await?;
    let mut buffer = vec![0; CHUNK];
    loop {
        connection.stream().write_all(&request).await?;
        if load.direction == Direction::Up {
            let mut left = BODY;
            while left > 0 {
                let next = left.min(CHUNK as u64) as usize;
                connection.stream().write_all(&buffer[..next]).await?;
                left -= next as u64;
                moved.set(moved.get() + next as u64);
            }
        }
        let (head, had) = connection.head().await?;
        ensure!(head.status == 200, "status {}", head.status);
        let mut left = head.length.saturating_sub(had as u64);
        if load.direction == Direction::Down {
            moved.set(moved.get() + had as u64);
        }
        while left > 0 {
            let count = connection.stream().read(&mut buffer).await?;
            ensure!(count > 0, "the body ended early");
            left = left.saturating_sub(count as u64);
            if load.direction == Direction::Down {
                moved.set(moved.get() + count as u64);
            }
        }
        connection.stream();
    }
}

//! The application: HTTP/1 with paths that misbehave, WebSockets, and an echo of bytes.
//!
//! `/bytes/N` is answered with N bytes, `/slow` after two seconds, `/late` after half a second, `/fail` with 500; what
//! asks for an upgrade gets it and hears what it says; everything else is 200.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
};

/// Longest head.
const HEAD: usize = 16 << 10;
const BLOCK: [u8; 8192] = [b'x'; 8192];

/// Echoes bytes.
pub(super) async fn echo(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::task::spawn_local(async move {
            let _ = stream.set_nodelay(true);
            let (mut read, mut write) = stream.split();
            // A client that goes away is an end like any other.
            let _ = copy(&mut read, &mut write).await;
        });
    }
}

pub(super) async fn http(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::task::spawn_local(async move { drop(converse(stream).await) });
    }
}

/// What of a request matters.
struct Asked {
    path: String,
    /// Of the head.
    size: usize,
    body: usize,
    upgrade: bool,
}

fn parse(bytes: &[u8]) -> std::io::Result<Option<Asked>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let parsed = request.parse(bytes).map_err(|e| std::io::Error::other(e.to_string()))?;
    let httparse::Status::Complete(size) = parsed else { return Ok(None) };
    let header = |name: &str| {
        let found = request.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name));
        found.and_then(|h| std::str::from_utf8(h.value).ok())
    };
    Ok(Some(Asked {
        path: request.path.unwrap_or("/").to_owned(),
        size,
        body: header("content-length").and_then(|v| v.parse().ok()).unwrap_or(0),
        upgrade: header("upgrade").is_some_and(|v| v.eq_ignore_ascii_case("websocket")),
    }))
}

async fn converse(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut buffer, mut filled) = (vec![0; HEAD], 0);
    loop {
        let asked = loop {
            if let Some(asked) = parse(&buffer[..filled])? {
                break asked;
            }
            let count = stream.read(&mut buffer[filled..]).await?;
            if count == 0 {
                return Ok(());
            }
            filled += count;
        };
        let had = (filled - asked.size).min(asked.body);
        buffer.copy_within(asked.size + had..filled, 0);
        filled -= asked.size + had;
        let mut left = asked.body - had;
        let mut scratch = [0; 8192];
        while left > 0 {
            let count = stream.read(&mut scratch[..left.min(8192)]).await?;
            if count == 0 {
                return Ok(());
            }
            left -= count;
        }
        if asked.upgrade {
            stream
                .write_all(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
                .await?;
            stream.write_all(&buffer[..filled]).await?;
            let (mut read, mut write) = stream.split();
            return copy(&mut read, &mut write).await.map(|_| ());
        }
        answer(&mut stream, &asked.path).await?;
    }
}

async fn answer(stream: &mut TcpStream, path: &str) -> std::io::Result<()> {
    let (status, mut left) = match path.strip_prefix("/bytes/").map(str::parse) {
        Some(Ok(bytes)) => (200, bytes),
        _ if path.starts_with("/fail") => (500, 4),
        _ => (200, 4usize),
    };
    match path {
        "/slow" => tokio::time::sleep(Duration::from_secs(2)).await,
        "/late" => tokio::time::sleep(Duration::from_millis(500)).await,
        _ => {}
    }
    let head = format!("HTTP/1.1 {status} Answer\r\ncontent-type: text/plain\r\ncontent-length: {left}\r\n\r\n");
    let first = left.min(BLOCK.len());
    stream.write_all(&[head.as_bytes(), &BLOCK[..first]].concat()).await?;
    left -= first;
    while left > 0 {
        let count = stream.write(&BLOCK[..left.min(BLOCK.len())]).await?;
        left -= count;
    }
    Ok(())
}

//! Bytes: short and long TCP connections, and WebSockets.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::super::tally::End;
use super::{app, http1::connect};

/// How long a long connection lives.
pub(super) const LIFE: Duration = Duration::from_secs(60);
/// How often something is said on it.
pub(super) const PULSE: Duration = Duration::from_secs(1);

const UPGRADE: &[u8] = b"GET /chat HTTP/1.1\r\nhost: app\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
    sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Says something, hears it, and hears the end after its own.
pub(super) async fn short() -> anyhow::Result<End> {
    let mut stream = connect(app(7000)).await.context("connect")?;
    said_and_heard(&mut stream, &[b'm'; 3000]).await?;
    stream.shutdown().await.context("end")?;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.context("the other end")?;
    ensure!(rest.is_empty(), "{} bytes too many", rest.len());
    Ok(End::Good)
}

pub(super) async fn long() -> anyhow::Result<End> {
    let stream = connect(app(7000)).await.context("connect")?;
    live(stream).await
}

pub(super) async fn websocket() -> anyhow::Result<End> {
    let mut stream = connect(app(80)).await.context("connect")?;
    stream.write_all(UPGRADE).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(head.len() < 4096, "a long head");
        head.push(stream.read_u8().await.context("the upgrade's answer")?);
    }
    let head = String::from_utf8_lossy(&head);
    ensure!(head.starts_with("HTTP/1.1 101 "), "{}", head.lines().next().unwrap_or_default());
    live(stream).await
}

/// Says something every second.
async fn live(mut stream: TcpStream) -> anyhow::Result<End> {
    let started = Instant::now();
    while started.elapsed() < LIFE {
        said_and_heard(&mut stream, &[b'p'; 40]).await.with_context(|| {
            let age = started.elapsed().as_secs() / 10 * 10;
            format!("a connection of {age} s or more")
        })?;
        tokio::time::sleep(PULSE).await;
    }
    Ok(End::Good)
}

async fn said_and_heard(stream: &mut TcpStream, message: &[u8]) -> anyhow::Result<()> {
    stream.write_all(message).await.context("say")?;
    let mut heard = vec![0; message.len()];
    stream.read_exact(&mut heard).await.context("hear")?;
    ensure!(heard == message, "what came back is something else");
    Ok(())
}

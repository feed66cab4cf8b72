//! Clients that go away in the middle. Nobody waits for an answer, so nothing but a connection can fail.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::Request;
use tokio::io::AsyncWriteExt;

use super::super::tally::End;
use super::{app, http1::connect};

/// One of them after the other.
pub(super) async fn one(turn: &mut usize) -> anyhow::Result<End> {
    *turn += 1;
    let (port, said): (u16, &[u8]) = match *turn % 6 {
        0 => (80, b"GET /bytes/100 HTTP/1.1\r\nhost: a"),
        1 => (80, b"GET /late HTTP/1.1\r\nhost: app\r\n\r\n"),
        2 => (80, b"POST /bytes/4 HTTP/1.1\r\nhost: app\r\ncontent-length: 100000\r\n\r\nsome of it"),
        3 => (80, b"GET /bytes/120000 HTTP/1.1\r\nhost: app\r\n\r\n"),
        4 => (7000, b"half of a thought"),
        _ => return call().await,
    };
    let mut stream = connect(app(port)).await.context("connect")?;
    stream.write_all(said).await.context("say")?;
    tokio::time::sleep(Duration::from_millis(10)).await;
    // With a reset every second time, without a word otherwise.
    if turn.is_multiple_of(2) {
        stream.set_zero_linger().context("linger")?;
    }
    Ok(End::Explained("went away in the middle"))
}

/// A call whose client is gone before the end.
async fn call() -> anyhow::Result<End> {
    let stream = connect(app(9090)).await.context("connect")?;
    let (sender, connection) = h2::client::handshake(stream).await.context("handshake")?;
    let connection = tokio::task::spawn_local(async move { drop(connection.await) });
    let mut sender = sender.ready().await.context("ready")?;
    let request = Request::post("http://app:9090/soak.Echo/Gone").header("te", "trailers").body(())?;
    let (_response, mut send) = sender.send_request(request, false).context("send")?;
    send.send_data(Bytes::from_static(&[0; 50]), false).context("data")?;
    tokio::time::sleep(Duration::from_millis(10)).await;
    connection.abort();
    Ok(End::Explained("went away in the middle"))
}

//! Requests to the control plane's status port and to a proxy's admin interface. Bounded in bytes and time.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use super::table::plain;
use crate::status::report::Report;

const MAX_BODY: usize = 256 << 20;
const PATIENCE: Duration = Duration::from_secs(20);
/// Of one line of a stream.
const MAX_LINE: usize = 1 << 20;

/// Fetches the report; with `sync` the control plane looks at its directory first.
pub(super) async fn report(address: &str, sync: bool) -> anyhow::Result<Report> {
    let path = if sync { "/status?sync=1" } else { "/status" };
    let body = call(address, Method::GET, path).await.context("control plane's status port")?;
    serde_json::from_slice(&body).with_context(|| format!("{address} does not answer like a control plane"))
}

/// The body of an answer; any other status than 200 is an error with what was said.
pub(super) async fn call(address: &str, method: Method, path: &str) -> anyhow::Result<Bytes> {
    let fetch = async {
        let (response, _driver) = send(address, method, path).await?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_BODY).collect().await.map_err(|e| anyhow::anyhow!("{e}"))?.to_bytes();
        if head.status != StatusCode::OK {
            bail!("{address} answers {}: {}", head.status, said(&body));
        }
        Ok(body)
    };
    timeout(PATIENCE, fetch).await.with_context(|| format!("{address} does not answer"))?
}

/// What somebody answered in place of what was asked for, fit to be shown.
fn said(body: &[u8]) -> String {
    plain(String::from_utf8_lossy(body).trim())
}

/// Calls `each` for every line of an answer as it comes, until that returns `false` or there are no more. An answer that
/// does not end in its `time` is an error.
pub(super) async fn lines(
    address: &str,
    path: &str,
    time: Duration,
    each: impl FnMut(&str) -> bool,
) -> anyhow::Result<()> {
    lines_within(time.saturating_add(PATIENCE), address, path, each).await
}

async fn lines_within(
    limit: Duration,
    address: &str,
    path: &str,
    each: impl FnMut(&str) -> bool,
) -> anyhow::Result<()> {
    timeout(limit, read_lines(address, path, each))
        .await
        .with_context(|| format!("{address} does not end its answer"))?
}

async fn read_lines(address: &str, path: &str, mut each: impl FnMut(&str) -> bool) -> anyhow::Result<()> {
    let unanswered = || format!("{address} does not answer");
    let (response, _driver) = timeout(PATIENCE, send(address, Method::GET, path)).await.with_context(unanswered)??;
    let status = response.status();
    let mut body = response.into_body();
    if status != StatusCode::OK {
        let whole = timeout(PATIENCE, Limited::new(body, MAX_LINE).collect()).await.with_context(unanswered)?;
        bail!("{address} answers {status}: {}", said(&whole.map_err(|e| anyhow::anyhow!("{e}"))?.to_bytes()));
    }
    let mut held = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        held.extend_from_slice(&data);
        while let Some(end) = held.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = held.drain(..=end).collect();
            if !each(String::from_utf8_lossy(&line).trim_end()) {
                return Ok(());
            }
        }
        if held.len() > MAX_LINE {
            bail!("{address} sends a line of more than {MAX_LINE} bytes");
        }
    }
    Ok(())
}

/// Ends the connection when it is dropped.
struct Driver(tokio::task::JoinHandle<hyper::Result<()>>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn send(address: &str, method: Method, path: &str) -> anyhow::Result<(Response<Incoming>, Driver)> {
    let stream = TcpStream::connect(address).await.with_context(|| format!("cannot reach {address}"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = Driver(tokio::spawn(connection));
    let request = Request::builder().method(method).uri(path).header(header::HOST, address);
    let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
    Ok((response, driver))
}

/// A query of these parameters, those without a value left out.
pub(super) fn query<'a>(parameters: impl IntoIterator<Item = (&'a str, Option<String>)>) -> String {
    let encoded = |text: &str| {
        text.bytes().fold(String::new(), |mut out, byte| {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/' | b':') {
                out.push(char::from(byte));
            } else {
                out += &format!("%{byte:02X}");
            }
            out
        })
    };
    let pairs = parameters.into_iter().filter_map(|(key, value)| Some(format!("{key}={}", encoded(&value?))));
    pairs.collect::<Vec<_>>().join("&")
}

/// A runtime for one command.
pub(super) fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    #[tokio::test]
    async fn lines_that_never_end_are_not_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            let (mut io, _) = listener.accept().await.unwrap();
            io.read_u8().await.unwrap();
            io.write_all(b"HTTP/1.1 200 OK\r\n\r\none\n").await.unwrap();
            std::future::pending::<()>().await;
        });
        let mut seen = 0;
        let each = |_: &str| {
            seen += 1;
            true
        };
        let read = super::lines_within(Duration::from_millis(500), &address, "/tap", each).await;
        assert!(read.unwrap_err().to_string().contains("does not end"));
        assert!(seen <= 1);
    }

    #[test]
    fn a_query_holds_any_text() {
        let all = [("a", Some("x y&z=\u{e9}".to_owned())), ("b", None), ("c", Some("/p".to_owned()))];
        assert_eq!(super::query(all), "a=x%20y%26z%3D%C3%A9&c=/p");
    }
}

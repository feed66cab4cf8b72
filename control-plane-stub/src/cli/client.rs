//! A GET to the status port. One request, one connection, bounded in bytes and time.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use crate::status::report::Report;

const MAX_BODY: usize = 256 << 20;
const PATIENCE: Duration = Duration::from_secs(20);

/// Fetches the report; with `sync` the control plane looks at its directory first.
pub(super) async fn report(address: &str, sync: bool) -> anyhow::Result<Report> {
    let path = if sync { "/status?sync=1" } else { "/status" };
    let fetch = async {
        let stream = TcpStream::connect(address)
            .await
            .with_context(|| format!("cannot reach the control plane's status port at {address}"))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection);
        let request = Request::get(path).header(header::HOST, address).body(Empty::<Bytes>::new())?;
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, MAX_BODY).collect().await.map_err(|e| anyhow::anyhow!("{e}"))?.to_bytes();
        driver.abort();
        if head.status != StatusCode::OK {
            bail!("{address} answers {}: {}", head.status, String::from_utf8_lossy(&body).trim());
        }
        serde_json::from_slice(&body).with_context(|| format!("{address} does not answer like a control plane"))
    };
    timeout(PATIENCE, fetch).await.with_context(|| format!("{address} does not answer"))?
}

/// A runtime for one command.
pub(super) fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}

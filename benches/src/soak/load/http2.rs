//! HTTP/2 with prior knowledge, as gRPC speaks it: calls that share a connection, and long streams.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::Request;

use super::super::tally::End;
use super::{app, http1::connect, raw};
use crate::drive::grpc::message;

/// So long a connection is used.
const AGE: Duration = Duration::from_secs(45);

type Sender = h2::client::SendRequest<Bytes>;

/// A client that makes its calls on one connection, and a new one now and then.
pub(super) struct Shared {
    path: &'static str,
    connection: Option<(Sender, Instant)>,
}

impl Shared {
    pub(super) fn new(path: &'static str) -> Self {
        Self { path, connection: None }
    }

    /// One message there and back.
    pub(super) async fn call(&mut self) -> anyhow::Result<End> {
        let kept = self.connection.take().filter(|(_, since)| since.elapsed() < AGE);
        let reused = kept.is_some();
        let (sender, since) = match kept {
            Some(kept) => kept,
            None => (open().await.context("connect")?, Instant::now()),
        };
        let keep = sender.clone();
        match exchange(sender, self.path).await {
            Ok(()) => {
                self.connection = Some((keep, since));
                Ok(End::Good)
            }
            // What the other side says it has not looked at is asked again, as every client does.
            Err(error) if reused && untouched(&error) => {
                let sender = open().await.context("connect again")?;
                let keep = sender.clone();
                exchange(sender, self.path).await.context("on a new connection")?;
                self.connection = Some((keep, Instant::now()));
                Ok(End::Explained("good on a new connection, the kept one was going away"))
            }
            Err(error) => Err(error),
        }
    }
}

/// The connection was given up in order, before the call was looked at.
fn untouched(error: &anyhow::Error) -> bool {
    let Some(error) = error.chain().find_map(|cause| cause.downcast_ref::<h2::Error>()) else { return false };
    let refused = error.reason() == Some(h2::Reason::REFUSED_STREAM);
    let ended = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
    refused || ended
}

async fn open() -> anyhow::Result<Sender> {
    let (sender, connection) = h2::client::handshake(connect(app(9090)).await?).await?;
    // Ends when nobody has the sender any more.
    tokio::task::spawn_local(async move { drop(connection.await) });
    Ok(sender)
}

fn request(path: &str) -> anyhow::Result<Request<()>> {
    let request = Request::post(format!("http://app:9090{path}"));
    Ok(request.header("content-type", "application/grpc").header("te", "trailers").body(())?)
}

async fn exchange(sender: Sender, path: &str) -> anyhow::Result<()> {
    let mut sender = sender.ready().await.context("ready")?;
    let (response, mut send) = sender.send_request(request(path)?, false).context("send")?;
    send.send_data(message(), true).context("data")?;
    let response = response.await.context("response")?;
    let (status, mut body) = (response.status(), response.into_body());
    let mut heard = 0;
    while let Some(data) = body.data().await {
        let data = data.context("body")?;
        heard += data.len();
        body.flow_control().release_capacity(data.len())?;
    }
    let trailers = body.trailers().await.context("trailers")?;
    let grpc = trailers.as_ref().and_then(|trailers| trailers.get("grpc-status"));
    ensure!(
        status == 200 && heard == message().len() && grpc.is_some_and(|grpc| grpc == "0"),
        "status {status}, {heard} bytes, grpc-status {grpc:?}"
    );
    Ok(())
}

/// A stream that says something every second for its life's length, on a connection of its own.
pub(super) async fn stream() -> anyhow::Result<End> {
    let mut sender = open().await.context("connect")?.ready().await.context("ready")?;
    let (response, mut send) = sender.send_request(request("/soak.Echo/Stream")?, false).context("send")?;
    send.send_data(message(), false).context("data")?;
    let response = response.await.context("response")?;
    ensure!(response.status() == 200, "status {}", response.status());
    let mut body = response.into_body();
    let started = Instant::now();
    let mut owed = message().len();
    loop {
        while owed > 0 {
            let data = body.data().await.with_context(|| format!("ended after {:?}", started.elapsed()))?;
            let data = data.context("broke within its life")?;
            body.flow_control().release_capacity(data.len())?;
            owed = owed.checked_sub(data.len()).context("more than was sent came back")?;
        }
        if started.elapsed() > raw::LIFE {
            break;
        }
        tokio::time::sleep(raw::PULSE).await;
        send.send_data(message(), false).context("data")?;
        owed = message().len();
    }
    send.send_data(Bytes::new(), true).context("end")?;
    while let Some(data) = body.data().await {
        data.context("at the end")?;
    }
    let trailers = body.trailers().await.context("trailers")?.context("no trailers")?;
    ensure!(trailers.get("grpc-status").is_some_and(|status| status == "0"), "trailers {trailers:?}");
    Ok(End::Good)
}

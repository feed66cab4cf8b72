//! gRPC's shape on HTTP/2: a server that echoes messages with trailers, and long streams of small messages.

use std::{
    cell::RefCell,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::net::{TcpListener, TcpStream};

use super::{histogram, micros};

/// A length-prefixed message of 100 bytes.
pub(crate) fn message() -> Bytes {
    let mut bytes = vec![0, 0, 0, 0, 100];
    bytes.resize(105, b'm');
    bytes.into()
}

/// Echoes every stream's data as it comes, then trailers: right for unary and for streaming calls.
pub(crate) async fn serve(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::task::spawn_local(async move {
            let _ = stream.set_nodelay(true);
            let mut builder = h2::server::Builder::new();
            builder.max_concurrent_streams(1000).initial_window_size(1 << 20).initial_connection_window_size(16 << 20);
            let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
            while let Some(Ok((request, respond))) = connection.accept().await {
                // A stream that its client resets is over.
                tokio::task::spawn_local(async move { drop(echo(request, respond).await) });
            }
        });
    }
}

/// A rate limit service that allows everything.
pub(crate) async fn serve_limits(listener: TcpListener) {
    // `overall_code: OK` as a message of its own.
    const OK: Bytes = Bytes::from_static(&[0, 0, 0, 0, 2, 8, 1]);
    while let Ok((stream, _)) = listener.accept().await {
        tokio::task::spawn_local(async move {
            let _ = stream.set_nodelay(true);
            let mut builder = h2::server::Builder::new();
            builder.max_concurrent_streams(1000);
            let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
            while let Some(Ok((request, respond))) = connection.accept().await {
                tokio::task::spawn_local(async move { drop(answer(request, respond, OK).await) });
            }
        });
    }
}

/// Takes a message and answers with another.
async fn answer(
    request: Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    message: Bytes,
) -> anyhow::Result<()> {
    let mut body = request.into_body();
    while let Some(data) = body.data().await {
        let length = data?.len();
        body.flow_control().release_capacity(length)?;
    }
    let mut head = Response::new(());
    head.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    let mut send = respond.send_response(head, false)?;
    send.send_data(message, false)?;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    send.send_trailers(trailers)?;
    Ok(())
}

async fn echo(request: Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>) -> anyhow::Result<()> {
    let mut head = Response::new(());
    head.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    let mut send = respond.send_response(head, false)?;
    let mut body = request.into_body();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        // Empty frames that do not end a stream look like an attack to some proxies.
        if !data.is_empty() {
            send.send_data(data, false)?;
        }
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    send.send_trailers(trailers)?;
    Ok(())
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) to: SocketAddr,
    pub(crate) connections: usize,
    /// On each connection.
    pub(crate) streams: usize,
    pub(crate) length: Duration,
}

/// Every stream sends a message and waits for its echo, again and again: round trips in microseconds.
pub(crate) async fn stream(load: Load, host: &str) -> anyhow::Result<Histogram<u64>> {
    let trips = Rc::new(RefCell::new(histogram()));
    let end = Instant::now() + load.length;
    let mut connections = tokio::task::JoinSet::new();
    let mut streams = tokio::task::JoinSet::new();
    for _ in 0..load.connections {
        let socket = TcpStream::connect(load.to).await?;
        socket.set_nodelay(true)?;
        let (sender, connection) = h2::client::handshake(socket).await?;
        connections.spawn_local(connection);
        for _ in 0..load.streams {
            let request = Request::post(format!("http://{host}/bench.Echo/Stream"))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(())?;
            streams.spawn_local(converse(sender.clone(), request, end, trips.clone()));
        }
    }
    while let Some(result) = streams.join_next().await {
        result??;
    }
    connections.shutdown().await;
    Ok(Rc::into_inner(trips).context("the streams are gone")?.into_inner())
}

async fn converse(
    sender: h2::client::SendRequest<Bytes>,
    request: Request<()>,
    end: Instant,
    trips: Rc<RefCell<Histogram<u64>>>,
) -> anyhow::Result<()> {
    let mut sender = sender.ready().await?;
    let (response, mut send) = sender.send_request(request, false)?;
    let message = message();
    let mut sent = Instant::now();
    send.send_data(message.clone(), false)?;
    let response = response.await?;
    ensure!(response.status() == 200, "status {}", response.status());
    let mut body = response.into_body();
    loop {
        let mut left = message.len();
        while left > 0 {
            let data = body.data().await.context("the stream ended early")??;
            body.flow_control().release_capacity(data.len())?;
            left = left.checked_sub(data.len()).context("more than was sent came back")?;
        }
        trips.borrow_mut().saturating_record(micros(sent.elapsed()).max(1));
        if Instant::now() >= end {
            break;
        }
        sent = Instant::now();
        send.send_data(message.clone(), false)?;
    }
    send.send_data(Bytes::new(), true)?;
    while let Some(data) = body.data().await {
        data?;
    }
    let trailers = body.trailers().await?.context("no trailers")?;
    ensure!(trailers.get("grpc-status").is_some_and(|s| s == "0"), "trailers {trailers:?}");
    Ok(())
}

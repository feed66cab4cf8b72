//! The status port: `/status` (JSON), `/metrics` (Prometheus), `/ready`.
//!
//! Read only, except that `/status?sync=1` first looks at the configuration directory, so that the answer is about
//! what the directory holds now.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc, oneshot},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    Status,
    metrics::{header, line},
    report::{Report, kind},
};
use crate::resources::ClientKind;

const MAX_CONNECTIONS: usize = 256;
const HEADER_TIME: Duration = Duration::from_secs(10);
/// Longest life of one connection.
const CONNECTION_TIME: Duration = Duration::from_secs(300);
/// Longest wait for the directory to be looked at.
const SYNC_TIME: Duration = Duration::from_secs(10);

/// Asks the watcher to look at the directory now; the sender is dropped once it has.
pub type Rescan = mpsc::Sender<oneshot::Sender<()>>;

/// Serves until shutdown.
pub async fn serve(listener: TcpListener, status: Arc<Status>, rescan: Rescan, shutdown: CancellationToken) {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let next = async {
            let permit = Arc::clone(&connections).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accept) = tokio::select! {
            () = shutdown.cancelled() => return,
            next = next => next,
        };
        match accept {
            Ok((stream, _)) => {
                let (status, rescan) = (Arc::clone(&status), rescan.clone());
                tokio::spawn(async move {
                    let _permit = permit;
                    // A connection that breaks or takes too long concerns nobody but its client.
                    let _ = timeout(CONNECTION_TIME, connection(stream, status, rescan)).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed on the status port");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, status: Arc<Status>, rescan: Rescan) -> hyper::Result<()> {
    let service = service_fn(move |request| {
        let (status, rescan) = (Arc::clone(&status), rescan.clone());
        async move { Ok::<_, Infallible>(answer(&request, &status, &rescan).await) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(64 << 10)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

async fn answer(request: &Request<Incoming>, status: &Status, rescan: &Rescan) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".into());
    }
    match request.uri().path() {
        "/status" => {
            let sync = request.uri().query().is_some_and(|q| q.split('&').any(|pair| pair == "sync=1"));
            if sync && let Err(error) = sync_directory(rescan).await {
                return text(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n"));
            }
            let body = serde_json::to_vec_pretty(&Report::of(status)).unwrap_or_default();
            with_type(StatusCode::OK, "application/json", body)
        }
        "/metrics" => with_type(StatusCode::OK, "text/plain; version=0.0.4", metrics(status).into_bytes()),
        "/ready" => match status.config().version {
            0 => text(StatusCode::SERVICE_UNAVAILABLE, "no valid configuration has been loaded yet\n".into()),
            version => text(StatusCode::OK, format!("serving generation {version}\n")),
        },
        _ => text(StatusCode::NOT_FOUND, "/status /metrics /ready\n".into()),
    }
}

async fn sync_directory(rescan: &Rescan) -> io::Result<()> {
    let (done, wait) = oneshot::channel();
    let ask = async {
        rescan.send(done).await.map_err(|_| io::Error::other("the watcher has stopped"))?;
        // Dropped or sent: either way the watcher has looked.
        let _ = wait.await;
        Ok(())
    };
    timeout(SYNC_TIME, ask).await.unwrap_or_else(|_| Err(io::Error::other("the directory took too long to read")))
}

fn metrics(status: &Status) -> String {
    let mut out = String::new();
    let config = status.config();
    let mut gauge = |name: &str, help: &str, value: u64| {
        header(&mut out, name, help, "gauge");
        line(&mut out, name, "", value);
    };
    gauge("outrigger_control_world_version", "Generation of the configuration being served", config.version);
    gauge(
        "outrigger_control_config_errors",
        "Problems in the configuration directory that keep it from being served",
        config.problems.len() as u64,
    );
    let proxies = status.proxies();
    let name = "outrigger_control_connected_proxies";
    header(&mut out, name, "Clients with an open ADS stream", "gauge");
    for client in [ClientKind::Envoy, ClientKind::Outrigger, ClientKind::Grpc] {
        let count = proxies.iter().filter(|p| p.node.kind == client).count();
        line(&mut out, name, &format!("{{kind=\"{}\"}}", kind(client)), count);
    }
    let name = "outrigger_control_refusing_proxies";
    header(&mut out, name, "Clients that refuse something of what they were last sent", "gauge");
    line(&mut out, name, "", proxies.iter().filter(|p| p.state().types.values().any(|t| t.refused)).count());
    status.metrics.render(&mut out);
    if let Some(limits) = status.rate_limits.get() {
        limits.render(&mut out);
    }
    out
}

fn text(code: StatusCode, body: String) -> Response<Full<Bytes>> {
    with_type(code, "text/plain", body.into_bytes())
}

fn with_type(code: StatusCode, kind: &'static str, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

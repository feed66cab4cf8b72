//! One active check: connect, ask, judge the answer. Nothing of a host's answer is read without a bound.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    body::{Bytes, Incoming},
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::AbortHandle,
    time::Instant,
};

use super::{
    state::{Fault, Outcome},
    stats::CheckStats,
};
use crate::{
    ir::health_check::{GrpcProbe, HealthCheck, HttpProbe, Probe, TcpProbe},
    net::io::Io,
    upstream::{
        Cluster, ConnectErrorKind, ConnectOptions, Endpoint,
        connect::{Detour, connect_for_check},
    },
};

/// Most of an answer that is read, whatever is looked for in it.
const MAX_ANSWER: usize = 64 << 10;
/// Most of an answer's head that is read.
const MAX_HEAD: usize = 64 << 10;

const DEGRADED: HeaderName = HeaderName::from_static("x-envoy-degraded");
const FAIL_NOW: HeaderName = HeaderName::from_static("x-envoy-immediate-health-check-fail");
const CHECKED_CLUSTER: HeaderName = HeaderName::from_static("x-envoy-upstream-healthchecked-cluster");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const USER_AGENT: HeaderValue = HeaderValue::from_static("Envoy/HC");

/// What all checks of one host have in common.
pub(super) struct Target {
    pub(super) cluster: Arc<Cluster>,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) detour: Detour,
    /// The `host` header.
    pub(super) host: HeaderValue,
    pub(super) stats: Arc<CheckStats>,
}

/// A connection that goes on between checks.
#[derive(Default)]
pub(super) struct Kept(Option<Connection>);

struct Connection {
    sender: Sender,
    task: AbortHandle,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Failure = (Fault, String);

fn network(error: &dyn std::fmt::Display) -> Failure {
    (Fault::Network, error.to_string())
}

fn answer(reason: impl Into<String>) -> Failure {
    (Fault::Answer, reason.into())
}

/// Checks once, within the check's timeout.
pub(super) async fn probe(target: &Target, check: &HealthCheck, kept: &mut Kept) -> Outcome {
    let deadline = Instant::now() + check.timeout;
    let mut connection = kept.0.take().filter(|c| c.is_usable());
    let asked = tokio::time::timeout_at(deadline, ask(target, check, &mut connection, deadline));
    let result = asked.await.unwrap_or_else(|_| Err((Fault::Timeout, "timeout".to_owned())));
    if check.reuse_connection && result.is_ok() {
        kept.0 = connection;
    }
    match result {
        Ok(degraded) => Outcome::Passed { degraded },
        Err((fault, reason)) => Outcome::Failed { fault, reason },
    }
}

/// Whether the host calls itself degraded.
async fn ask(
    target: &Target,
    check: &HealthCheck,
    connection: &mut Option<Connection>,
    deadline: Instant,
) -> Result<bool, Failure> {
    let protocols: &[&str] = match &check.probe {
        Probe::Tcp(tcp_probe) => return tcp(tcp_probe, connect(target, check, &[], deadline).await?).await,
        Probe::Http(probe) if !probe.http2 => &["http/1.1"],
        Probe::Http(_) | Probe::Grpc(_) => &["h2"],
    };
    if connection.is_none() {
        let io = connect(target, check, protocols, deadline).await?;
        *connection = Some(Connection::open(io, protocols == ["h2"]).await?);
    }
    let Some(connection) = connection else { return Err(network(&"no connection")) };
    match &check.probe {
        Probe::Http(probe) => http(target, probe, connection).await,
        Probe::Grpc(probe) => grpc(target, probe, connection).await,
        Probe::Tcp(_) => Ok(false),
    }
}

async fn connect(target: &Target, check: &HealthCheck, protocols: &[&str], deadline: Instant) -> Result<Io, Failure> {
    let spoken = || protocols.iter().map(|p| Box::from(*p)).collect();
    let silent = target.endpoint.has_alpn() || protocols.is_empty();
    let alpn = check.alpn.clone().or_else(|| (!silent).then(spoken));
    let options = ConnectOptions { alpn, ..ConnectOptions::default() };
    let connected = connect_for_check(&target.cluster, &target.endpoint, &options, &target.detour, deadline);
    connected.await.map_err(|error| match error.kind {
        ConnectErrorKind::Timeout => (Fault::Timeout, error.reason),
        _ => (Fault::Network, error.reason),
    })
}

impl Connection {
    async fn open(io: Io, http2: bool) -> Result<Self, Failure> {
        let io = TokioIo::new(io);
        // The driver's errors come back with the request that they fail.
        if http2 {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.max_header_list_size(MAX_HEAD as u32);
            let (sender, driver) = builder.handshake(io).await.map_err(|e| network(&e))?;
            let task = tokio::spawn(async move { drop(driver.await) }).abort_handle();
            return Ok(Self { sender: Sender::Http2(sender), task });
        }
        let mut builder = http1::Builder::new();
        builder.max_buf_size(MAX_HEAD);
        let (sender, driver) = builder.handshake(io).await.map_err(|e| network(&e))?;
        let task = tokio::spawn(async move { drop(driver.await) }).abort_handle();
        Ok(Self { sender: Sender::Http1(sender), task })
    }

    fn is_usable(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => sender.is_ready(),
            Sender::Http2(sender) => sender.is_ready(),
        }
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Failure> {
        let sent = match &mut self.sender {
            Sender::Http1(sender) => sender.send_request(request).await,
            Sender::Http2(sender) => sender.send_request(request).await,
        };
        sent.map_err(|e| network(&e))
    }

    /// A request in the form that the connection wants.
    fn request(
        &self,
        target: &Target,
        method: &Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Request<Full<Bytes>>, Failure> {
        let builder = Request::builder().method(method);
        let built = match self.sender {
            Sender::Http1(_) => builder.uri(path).header(header::HOST, &target.host),
            Sender::Http2(_) => {
                let scheme = if target.is_tls() { "https" } else { "http" };
                builder.uri(format!("{scheme}://{}{path}", authority(&target.host)))
            }
        };
        let built = built.header(header::USER_AGENT, USER_AGENT).body(Full::from(body));
        built.map_err(|e| answer(format!("the request cannot be made: {e}")))
    }
}

impl Target {
    fn is_tls(&self) -> bool {
        self.detour.transport.as_ref().unwrap_or(&self.endpoint.tls).is_some()
    }
}

/// Cluster names are free text; an authority is not.
fn authority(host: &HeaderValue) -> String {
    let text = host.to_str().unwrap_or_default();
    if text.parse::<http::uri::Authority>().is_ok() {
        return text.to_owned();
    }
    text.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '-' }).collect()
}

async fn http(target: &Target, probe: &HttpProbe, connection: &mut Connection) -> Result<bool, Failure> {
    let mut request = connection.request(target, &probe.method, &probe.path, probe.send.clone())?;
    for (name, value) in &probe.headers {
        request.headers_mut().append(name, value.clone());
    }
    for name in &probe.remove {
        request.headers_mut().remove(name);
    }
    let response = connection.send(request).await?;
    let (head, body) = response.into_parts();
    let status = head.status.as_u16();
    if !probe.expected.iter().any(|range| range.contains(status)) {
        let retriable = probe.retriable.iter().any(|range| range.contains(status));
        let fault = if retriable { Fault::Retriable } else { Fault::Answer };
        return Err((fault, format!("status {status}")));
    }
    if head.headers.contains_key(&FAIL_NOW) {
        return Err(answer("the host asks for no traffic"));
    }
    if let Some(expected) = &probe.service_name {
        target.stats.verified();
        let name = head.headers.get(&CHECKED_CLUSTER).and_then(|v| v.to_str().ok()).unwrap_or_default();
        if !expected.matches(name) {
            return Err(answer(format!("another service answers: {name:?}")));
        }
    }
    let limit = MAX_ANSWER.max(probe.response_buffer);
    let body = Limited::new(body, limit).collect().await.map_err(|e| network(&e))?.to_bytes();
    if !found(&body[..body.len().min(probe.response_buffer)], &probe.receive) {
        return Err(answer("the body has not what is expected"));
    }
    Ok(head.headers.contains_key(&DEGRADED))
}

/// Whether all `blocks` are in `bytes`, in this order.
fn found(bytes: &[u8], blocks: &[Vec<u8>]) -> bool {
    let mut rest = bytes;
    blocks.iter().filter(|block| !block.is_empty()).all(|block| {
        let at = rest.windows(block.len()).position(|window| window == &block[..]);
        rest = at.map_or(&[][..], |at| &rest[at + block.len()..]);
        at.is_some()
    })
}

async fn tcp(probe: &TcpProbe, mut io: Io) -> Result<bool, Failure> {
    if !probe.send.is_empty() {
        io.write_all(&probe.send).await.map_err(|e| network(&e))?;
        io.flush().await.map_err(|e| network(&e))?;
    }
    let mut seen = Vec::new();
    while !found(&seen, &probe.receive) {
        if seen.len() >= MAX_ANSWER {
            return Err(answer("the answer has not what is expected"));
        }
        let mut part = [0; 1024];
        match io.read(&mut part).await.map_err(|e| network(&e))? {
            0 => return Err(network(&"closed before the expected answer")),
            n => seen.extend_from_slice(&part[..n]),
        }
    }
    Ok(false)
}

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, Message)]
struct CheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, PartialEq, Message)]
struct CheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

const SERVING: i32 = 1;

async fn grpc(target: &Target, probe: &GrpcProbe, connection: &mut Connection) -> Result<bool, Failure> {
    let message = CheckRequest { service: probe.service.as_ref().to_owned() }.encode_to_vec();
    let mut body = vec![0];
    body.extend(u32::try_from(message.len()).unwrap_or_default().to_be_bytes());
    body.extend(message);
    let mut request = connection.request(target, &Method::POST, "/grpc.health.v1.Health/Check", body)?;
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    for (name, value) in &probe.metadata {
        headers.append(name, value.clone());
    }
    let (head, body) = connection.send(request).await?.into_parts();
    if head.status != http::StatusCode::OK {
        return Err(answer(format!("status {}", head.status.as_u16())));
    }
    let collected = Limited::new(body, MAX_ANSWER).collect().await.map_err(|e| network(&e))?;
    let status = collected.trailers().and_then(|t| t.get(&GRPC_STATUS)).or_else(|| head.headers.get(&GRPC_STATUS));
    match status.map(HeaderValue::as_bytes) {
        Some(b"0") => {}
        Some(other) => return Err(answer(format!("gRPC status {}", String::from_utf8_lossy(other)))),
        None => return Err(answer("no gRPC status")),
    }
    let bytes = collected.to_bytes();
    let message = bytes.get(5..).filter(|_| bytes[0] == 0).and_then(|m| CheckResponse::decode(m).ok());
    match message {
        Some(CheckResponse { status: SERVING }) => Ok(head.headers.contains_key(&DEGRADED)),
        Some(CheckResponse { status }) => Err(answer(format!("serving status {status}"))),
        None => Err(answer("no message that can be read")),
    }
}

#[cfg(test)]
#[path = "probe_tests.rs"]
mod tests;

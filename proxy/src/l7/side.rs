//! Side calls: a filter asks a cluster something on behalf of a request or a connection.
//!
//! One HTTP request, or one unary gRPC call, to a cluster by name: through the worker's pools, the cluster's load
//! balancing, TLS, circuit breakers and statistics, like any request. [`http`] gives the whole response, [`unary`] the
//! one message of it. Both are bounded in time and in bytes and are never retried by themselves. Dropping the future
//! gives the call up, so whoever waits for a client's request is cancelled with it. Refuses to know what is asked.

use std::{net::SocketAddr, pin::Pin, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body::Body as _;
use prost::Message;

use super::{
    Engine,
    body::Body,
    client::{Attempt, Protocol, Sent},
    forward, forwarded, mirror, outcome,
};
use crate::{
    ir::Name,
    policy::router::strip_port,
    upstream::{Cluster, PickContext},
};

mod details;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const EXPECTED_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Whom to ask and how long to wait for how much.
#[derive(Clone, Debug)]
pub struct Ask {
    pub cluster: Name,
    /// For everything: a connection, the response's head, and its body.
    pub timeout: Option<Duration>,
    /// Bytes of the response's body.
    pub limit: usize,
    /// Whose request or connection it is about: for clusters that keep a downstream's connections apart.
    pub downstream: Option<SocketAddr>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SideError {
    #[error("there is no such cluster")]
    NoCluster,
    #[error("no healthy upstream")]
    NoHost,
    #[error("timeout")]
    Timeout,
    /// No response; the reason is for logs.
    #[error("{0}")]
    Failed(String),
    #[error("the answer is longer than allowed")]
    TooLarge,
    /// A gRPC status that is not OK.
    #[error("gRPC status {0}: {1}")]
    Status(u16, String),
    /// As [`Self::Status`], with the word that the same may be asked again after a while.
    #[error("gRPC status {code}: {message}")]
    Later { code: u16, message: String, delay: Duration },
    #[error("the answer cannot be read")]
    Malformed,
}

/// Asks over HTTP. The request needs a path and a `host` header; the answer's body is complete, its trailers are in the
/// extensions as a [`HeaderMap`].
pub async fn http(engine: &Engine, ask: &Ask, request: Request<Bytes>) -> Result<Response<Bytes>, SideError> {
    call(engine, ask, request, false).await
}

/// Makes a unary gRPC call of the method `path`, `/package.Service/Method`; `head` is its metadata, with `host` in it
/// where the authority is not to be the cluster's name.
pub async fn unary<Q: Message, A: Message + Default>(
    engine: &Engine,
    ask: &Ask,
    (path, head): (&'static str, HeaderMap),
    question: &Q,
) -> Result<A, SideError> {
    let answer = unary_bytes(engine, ask, (path, head), &question.encode_to_vec()).await?;
    A::decode(answer).map_err(|_| SideError::Malformed)
}

/// As [`unary`], with messages that are encoded by whoever asks.
pub async fn unary_bytes(
    engine: &Engine,
    ask: &Ask,
    (path, head): (&'static str, HeaderMap),
    question: &[u8],
) -> Result<Bytes, SideError> {
    let mut request = Request::new(framed(question));
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = http::Uri::from_static(path);
    let headers = request.headers_mut();
    *headers = head;
    if !headers.contains_key(header::HOST) {
        headers.insert(header::HOST, authority(&ask.cluster));
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    if let Some(timeout) = ask.timeout {
        headers.insert(GRPC_TIMEOUT, grpc_timeout(timeout));
    }
    let response = call(engine, ask, request, true).await?;
    if response.status() != StatusCode::OK {
        let status = super::respond::grpc_status(response.status());
        return Err(SideError::Status(status, format!("HTTP status {}", response.status().as_u16())));
    }
    let trailers = response.extensions().get::<HeaderMap>();
    let status = trailers.filter(|t| t.contains_key(GRPC_STATUS)).unwrap_or(response.headers());
    match status.get(GRPC_STATUS).map(HeaderValue::as_bytes) {
        Some(b"0") => {}
        Some(code) => {
            let code = std::str::from_utf8(code).ok().and_then(|c| c.parse().ok()).unwrap_or(2);
            let message = status.get(GRPC_MESSAGE).map(|m| String::from_utf8_lossy(m.as_bytes()).into_owned());
            let message = message.unwrap_or_default();
            return Err(match details::retry_delay(status) {
                Some(delay) => SideError::Later { code, message, delay },
                None => SideError::Status(code, message),
            });
        }
        None => return Err(SideError::Malformed),
    }
    let body = response.into_body();
    unframed(&body).map(|message| body.slice_ref(message)).ok_or(SideError::Malformed)
}

fn framed(message: &[u8]) -> Bytes {
    let mut body = Vec::with_capacity(message.len() + 5);
    body.push(0);
    body.extend(u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    body.extend_from_slice(message);
    body.into()
}

/// The one message of a body; compressed ones were not asked for.
fn unframed(body: &[u8]) -> Option<&[u8]> {
    let (head, message) = body.split_at_checked(5)?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    (head[0] == 0 && usize::try_from(length) == Ok(message.len())).then_some(message)
}

/// At most eight digits, in the finest unit that fits.
fn grpc_timeout(timeout: Duration) -> HeaderValue {
    let millis = timeout.as_millis();
    let text = match millis {
        0..=99_999_999 => format!("{millis}m"),
        _ => format!("{}S", (millis / 1000).min(99_999_999)),
    };
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("99999999S"))
}

/// Cluster names are free text; an authority is not.
fn authority(cluster: &str) -> HeaderValue {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':') { c } else { '-' };
    let text = match cluster.parse::<http::uri::Authority>() {
        Ok(_) => cluster.to_owned(),
        Err(_) => cluster.chars().map(plain).collect(),
    };
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("cluster"))
}

async fn call(engine: &Engine, ask: &Ask, request: Request<Bytes>, h2: bool) -> Result<Response<Bytes>, SideError> {
    let live = engine.live.get();
    let cluster = live.cluster(&ask.cluster).ok_or(SideError::NoCluster)?.clone();
    // It may be long until the answer is there: what was in force is not kept until then.
    drop(live);
    let asked = exchange(engine, ask, &cluster, request, h2);
    let result = match ask.timeout {
        // Boxed: what waits is large, and few wait.
        Some(limit) => tokio::time::timeout(limit, Box::pin(asked)).await.unwrap_or_else(|_| {
            cluster.stats.local().upstream_rq_timeout.inc();
            Err(SideError::Timeout)
        }),
        None => Box::pin(asked).await,
    };
    let status = match &result {
        Ok(response) => response.status(),
        Err(SideError::Timeout) => StatusCode::GATEWAY_TIMEOUT,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    outcome::count(&cluster, status);
    result
}

async fn exchange(
    engine: &Engine,
    ask: &Ask,
    cluster: &std::sync::Arc<Cluster>,
    request: Request<Bytes>,
    h2: bool,
) -> Result<Response<Bytes>, SideError> {
    let context = PickContext {
        original_dst: None,
        random: fastrand::u64(..),
        exclude: &[],
        attempts: 1,
        hash: None,
        criteria: None,
        tried: None,
    };
    let endpoint = cluster.pick(&context).map_err(|_| SideError::NoHost)?;
    let host = request.headers().get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
    let attempt = Attempt {
        endpoint,
        // What is no gRPC peer fails the call, as it should.
        protocol: if h2 { Protocol::Http2 } else { forward::protocol(cluster, request.version()) },
        alpn: None,
        sni: cluster.config.http.auto_sni.then(|| strip_port(host).into()),
        downstream: ask.downstream,
        replayable: false,
        high_priority: false,
        clock: None,
        cluster: cluster.clone(),
    };
    let mut request = request.map(|body| if body.is_empty() { Body::Empty } else { Body::Full(Some(body)) });
    let headers = request.headers_mut();
    headers.insert(mirror::INTERNAL, HeaderValue::from_static("true"));
    if h2 && let Some(address) = mirror::local_address() {
        forwarded::append(headers, &mirror::FORWARDED_FOR, address);
    }
    if let Some(timeout) = ask.timeout {
        headers.insert(EXPECTED_TIMEOUT, HeaderValue::from(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)));
    }
    let sent = engine.pool.send(&attempt, request).await.map_err(|error| SideError::Failed(error.reason.clone()))?;
    let Sent { response, guard, .. } = sent;
    let (mut head, mut body) = response.into_parts();
    let mut all = Vec::new();
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let failure = match frame.map(http_body::Frame::into_data) {
            Ok(Ok(data)) if all.len() + data.len() <= ask.limit => {
                all.extend_from_slice(&data);
                continue;
            }
            Ok(Ok(_)) => SideError::TooLarge,
            Ok(Err(frame)) => {
                if let Ok(trailers) = frame.into_trailers() {
                    head.extensions.insert(trailers);
                }
                continue;
            }
            Err(error) => SideError::Failed(error.to_string()),
        };
        guard.abort();
        return Err(failure);
    }
    Ok(Response::from_parts(head, all.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_holds_one_plain_message() {
        assert_eq!(unframed(&framed(b"text")), Some(&b"text"[..]));
        for broken in
            [&b""[..], &[0; 4], &[1, 0, 0, 0, 0], &[0, 0, 0, 0, 1], &[0, 0, 0, 0, 1, 2, 3], &[0, 255, 255, 255, 255]]
        {
            assert_eq!(unframed(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn timeouts_have_eight_digits_at_most() {
        let of = |timeout| grpc_timeout(timeout).to_str().unwrap().to_owned();
        assert_eq!(of(Duration::from_millis(200)), "200m");
        assert_eq!(of(Duration::from_secs(100_000)), "100000S");
        assert_eq!(of(Duration::MAX), "99999999S");
    }

    #[test]
    fn any_cluster_has_an_authority() {
        assert_eq!(authority("authz.ns:80"), "authz.ns:80");
        assert_eq!(authority("outbound|80||a b.c"), "outbound-80--a-b.c");
    }
}

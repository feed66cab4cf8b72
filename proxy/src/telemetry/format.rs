//! Evaluates the operator language of `ir::format` over the facts of a connection or request.
//!
//! One evaluator serves access logs and header values; they differ only in what stands for an absent value (`-` or
//! nothing). Knows no I/O and no clock: every time comes from the record.

use std::{borrow::Cow, fmt::Write, net::SocketAddr, time::SystemTime};

use http::HeaderMap;

use super::{
    format_time,
    record::{ConnInfo, UpstreamFacts},
};
use crate::ir::format::{Operator, Segment, Template};

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;

/// Where `REQ`, `RESP` and `TRAILER` look names up; pseudo headers keep their colon.
pub trait Headers {
    fn get(&self, name: &str) -> Option<Cow<'_, str>>;
}

impl Headers for HeaderMap {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        let mut values = self.get_all(name).iter();
        let first = String::from_utf8_lossy(values.next()?.as_bytes());
        Some(values.fold(first, |mut all, value| {
            all.to_mut().push(',');
            all.to_mut().push_str(&String::from_utf8_lossy(value.as_bytes()));
            all
        }))
    }
}

/// The result of one operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    Absent,
    Text(Cow<'a, str>),
    Number(u64),
}

/// What is known of one exchange beyond its connection.
pub trait Exchange {
    fn protocol(&self) -> Option<&'static str>;
    fn status(&self) -> u16;
    fn details(&self) -> Option<Cow<'_, str>>;
    fn flags(&self) -> super::flags::Flags;
    fn start(&self) -> SystemTime;
    /// Milliseconds from the start to each milestone.
    fn milestone(&self, which: Milestone) -> Option<u64>;
    fn bytes_received(&self) -> u64;
    fn bytes_sent(&self) -> u64;
    fn upstream(&self) -> std::cell::Ref<'_, UpstreamFacts>;
    fn route(&self) -> Option<Cow<'_, str>>;
    fn stream_id(&self) -> Option<Cow<'_, str>>;
    /// The client's address as the forwarding headers tell it, else the peer's.
    fn remote(&self) -> SocketAddr;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Milestone {
    Total,
    RequestDone,
    ResponseHead,
    ResponseTx,
}

/// All facts an evaluation may look at.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    pub conn: &'a ConnInfo,
    pub exchange: &'a dyn Exchange,
    pub request: Option<&'a dyn Headers>,
    pub response: Option<&'a dyn Headers>,
    pub trailers: Option<&'a dyn Headers>,
}

/// Appends the template's text; `absent` stands for values that are not there.
pub fn render(template: &Template, facts: &Facts<'_>, absent: &str, out: &mut String) {
    for segment in &template.segments {
        match segment {
            Segment::Text(text) => out.push_str(text),
            Segment::Op { op, max_len } => match value(op, facts) {
                Value::Absent => out.push_str(absent),
                Value::Number(n) => {
                    let _ = write!(out, "{n}");
                }
                Value::Text(text) => out.push_str(truncate(&text, *max_len)),
            },
        }
    }
}

pub(super) fn truncate(text: &str, max_len: Option<usize>) -> &str {
    match max_len.and_then(|max| text.char_indices().nth(max)) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

fn text<'a>(value: impl Into<Cow<'a, str>>) -> Value<'a> {
    Value::Text(value.into())
}

fn optional<'a, T: Into<Cow<'a, str>>>(value: Option<T>) -> Value<'a> {
    value.map_or(Value::Absent, text)
}

fn header<'a>(source: Option<&'a dyn Headers>, name: &str, alternative: Option<&str>) -> Value<'a> {
    optional(source.and_then(|s| s.get(name).or_else(|| alternative.and_then(|a| s.get(a)))))
}

/// Evaluates one operator.
pub fn value<'a>(op: &'a Operator, facts: &Facts<'a>) -> Value<'a> {
    let (conn, exchange) = (facts.conn, facts.exchange);
    let milestone = |which| exchange.milestone(which).map_or(Value::Absent, Value::Number);
    let tls = conn.tls.as_deref();
    match op {
        Operator::Req(name, alternative) => header(facts.request, name, alternative.as_deref()),
        Operator::Resp(name, alternative) => header(facts.response, name, alternative.as_deref()),
        Operator::Trailer(name, alternative) => header(facts.trailers, name, alternative.as_deref()),
        Operator::Protocol => optional(exchange.protocol()),
        Operator::ResponseCode => Value::Number(exchange.status().into()),
        Operator::ResponseCodeDetails => optional(exchange.details()),
        Operator::ResponseFlags => match exchange.flags() {
            flags if flags.is_empty() => Value::Absent,
            flags => text(flags.to_string()),
        },
        Operator::StartTime(format) => {
            text(format_time::format(format.as_deref().unwrap_or(format_time::DEFAULT), exchange.start()))
        }
        Operator::Duration => milestone(Milestone::Total),
        Operator::RequestDuration => milestone(Milestone::RequestDone),
        Operator::ResponseDuration => milestone(Milestone::ResponseHead),
        Operator::ResponseTxDuration => milestone(Milestone::ResponseTx),
        Operator::BytesReceived | Operator::UpstreamWireBytesSent => Value::Number(exchange.bytes_received()),
        Operator::BytesSent | Operator::UpstreamWireBytesReceived => Value::Number(exchange.bytes_sent()),
        Operator::UpstreamHost | Operator::UpstreamRemoteAddress => {
            optional(exchange.upstream().host.as_deref().map(str::to_owned))
        }
        Operator::UpstreamCluster => optional(exchange.upstream().cluster.as_deref().map(str::to_owned)),
        Operator::UpstreamLocalAddress => optional(exchange.upstream().local.map(|a| a.to_string())),
        Operator::UpstreamTransportFailureReason => {
            optional(exchange.upstream().transport_failure.as_deref().map(|r| r.replace(' ', "_")))
        }
        Operator::UpstreamRequestAttemptCount => Value::Number(exchange.upstream().attempts.into()),
        Operator::UpstreamProtocol => optional(exchange.upstream().protocol),
        Operator::DownstreamRemoteAddress => text(exchange.remote().to_string()),
        Operator::DownstreamRemoteAddressWithoutPort => text(exchange.remote().ip().to_string()),
        Operator::DownstreamRemotePort => Value::Number(exchange.remote().port().into()),
        Operator::DownstreamDirectRemoteAddress => text(conn.remote.to_string()),
        Operator::DownstreamDirectRemoteAddressWithoutPort => text(conn.remote.ip().to_string()),
        Operator::DownstreamLocalAddress => text(conn.local.to_string()),
        Operator::DownstreamLocalAddressWithoutPort => text(conn.local.ip().to_string()),
        Operator::DownstreamLocalPort => Value::Number(conn.local.port().into()),
        Operator::DownstreamPeerUriSan => tls.map_or(Value::Absent, |t| joined(&t.uri_sans)),
        Operator::DownstreamLocalUriSan => tls.map_or(Value::Absent, |t| joined(&t.local_uri_sans)),
        Operator::DownstreamPeerSubject => optional(tls.map(|t| &*t.subject).filter(|s| !s.is_empty())),
        Operator::DownstreamTlsVersion => optional(tls.map(|t| t.version)),
        Operator::DownstreamTlsCipher => optional(tls.map(|t| t.cipher)),
        Operator::RequestedServerName => optional(conn.server_name.as_deref()),
        Operator::RouteName => optional(exchange.route()),
        Operator::ConnectionId => Value::Number(conn.id),
        Operator::StreamId => optional(exchange.stream_id()),
        Operator::Hostname => optional(hostname()),
        Operator::FilterChainName => optional(Some(&*conn.chain).filter(|c| !c.is_empty())),
        Operator::Environment(name) => optional(environment(name)),
        // Nothing in the data path produces these: an exchange that has none is logged as such.
        Operator::ConnectionTerminationDetails
        | Operator::DownstreamTransportFailureReason
        | Operator::VirtualClusterName
        | Operator::Metadata(_)
        | Operator::FilterState(_) => Value::Absent,
    }
}

fn joined(names: &[Box<str>]) -> Value<'static> {
    if names.is_empty() { Value::Absent } else { text(names.join(",")) }
}

fn hostname() -> Option<&'static str> {
    static NAME: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    NAME.get_or_init(|| nix::unistd::gethostname().ok()?.into_string().ok()).as_deref()
}

/// The environment does not change under a running proxy: each name is read once per evaluation, no cache needed.
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

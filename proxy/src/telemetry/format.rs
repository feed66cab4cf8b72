//! Evaluates the operator language of `ir::format` over the facts of a connection or request.
//!
//! One evaluator serves access logs and header values; they differ only in what stands for an absent value (`-` or
//! nothing). Knows no I/O and no clock: every time comes from the record.

use std::{borrow::Cow, net::SocketAddr, time::SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value as Json;

use super::{
    flags::Flags,
    format_time,
    record::{ConnInfo, UpstreamFacts},
    trace::context::{self, TraceId},
};
use crate::ir::{
    Metadata,
    format::{MetadataPath, MetadataSource, Operator, PathSource, Segment, Template},
    metadata::value_at,
};

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;

/// Where `REQ`, `RESP` and `TRAILER` look names up; pseudo headers keep their colon.
pub trait Headers {
    fn get(&self, name: &str) -> Option<Cow<'_, str>>;
}

impl Headers for HeaderMap {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        if self.len() > FEW {
            return joined_values(self.get_all(name).iter());
        }
        let is_named = |(key, _): &(&HeaderName, _)| key.as_str().eq_ignore_ascii_case(name);
        joined_values(self.iter().filter(is_named).map(|(_, value)| value))
    }
}

/// Among so many headers looking at each is quicker than hashing a name.
const FEW: usize = 16;

fn joined_values<'a>(mut values: impl Iterator<Item = &'a HeaderValue>) -> Option<Cow<'a, str>> {
    let first = String::from_utf8_lossy(values.next()?.as_bytes());
    Some(values.fold(first, |mut all, value| {
        all.to_mut().push(',');
        all.to_mut().push_str(&String::from_utf8_lossy(value.as_bytes()));
        all
    }))
}

/// The result of one operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    Absent,
    Text(Cow<'a, str>),
    Number(u64),
    /// Neither text nor nothing.
    Json(Cow<'a, Json>),
}

/// Milestones in milliseconds since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    pub total: u64,
    pub request_done: Option<u64>,
    pub response_head: Option<u64>,
}

/// All facts an evaluation may look at.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    pub conn: &'a ConnInfo,
    /// `None` for an L4 connection.
    pub protocol: Option<&'static str>,
    pub status: u16,
    pub flags: Flags,
    pub details: Option<&'a str>,
    pub start: SystemTime,
    pub times: Times,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    pub upstream: &'a UpstreamFacts,
    pub downstream_failure: Option<&'a str>,
    pub termination: Option<&'a str>,
    /// Of a request that is traced.
    pub trace: Option<TraceId>,
    pub route: Option<&'a str>,
    /// The client's address as trusted forwarding headers tell it, else the peer's.
    pub remote: SocketAddr,
    pub request: Option<&'a dyn Headers>,
    pub response: Option<&'a dyn Headers>,
    pub trailers: Option<&'a dyn Headers>,
    pub metadata: Known<'a>,
}

/// The metadata an evaluation may look at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known<'a> {
    pub dynamic: Option<&'a Metadata>,
    pub route: Option<&'a Metadata>,
}

/// Appends the template's text; `absent` stands for values that are not there.
pub fn render(template: &Template, facts: &Facts<'_>, absent: &str, out: &mut String) {
    for segment in &template.segments {
        match segment {
            Segment::Text(text) => out.push_str(text),
            Segment::Op { op, max_len } => match value(op, facts) {
                Value::Absent => out.push_str(absent),
                Value::Number(n) => {
                    out.push_str(itoa::Buffer::new().format(n));
                }
                Value::Text(text) => out.push_str(truncate(&text, *max_len)),
                Value::Json(json) => out.push_str(truncate(&json.to_string(), *max_len)),
            },
        }
    }
}

/// The text of a template that nobody's request is there for.
pub fn constant(template: &Template) -> String {
    let text = |segment: &Segment| match segment {
        Segment::Text(text) => Some(text.to_string()),
        Segment::Op { op: Operator::Environment(name), max_len } => {
            environment(name).map(|value| truncate(&value, *max_len).to_owned())
        }
        Segment::Op { .. } => None,
    };
    template.segments.iter().filter_map(text).collect()
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

fn path<'a>(source: Option<&'a dyn Headers>, query: bool, from: PathSource) -> Value<'a> {
    let found = source.and_then(|headers| from.headers().iter().find_map(|name| headers.get(name)));
    let Some(whole) = found else { return Value::Absent };
    match whole.find('?').filter(|_| !query) {
        None => text(whole),
        Some(end) => match whole {
            Cow::Borrowed(whole) => text(&whole[..end]),
            Cow::Owned(mut whole) => {
                whole.truncate(end);
                text(whole)
            }
        },
    }
}

/// Evaluates one operator.
pub fn value<'a>(op: &'a Operator, facts: &Facts<'a>) -> Value<'a> {
    let (conn, times, upstream) = (facts.conn, &facts.times, facts.upstream);
    let number = |value: Option<u64>| value.map_or(Value::Absent, Value::Number);
    let tls = conn.tls.as_deref();
    match op {
        Operator::Req(name, alternative) => header(facts.request, name, alternative.as_deref()),
        Operator::Resp(name, alternative) => header(facts.response, name, alternative.as_deref()),
        Operator::Trailer(name, alternative) => header(facts.trailers, name, alternative.as_deref()),
        Operator::Path { query, source } => path(facts.request, *query, *source),
        Operator::Protocol => optional(facts.protocol),
        Operator::ResponseCode => Value::Number(facts.status.into()),
        Operator::ResponseCodeDetails => optional(facts.details),
        Operator::ResponseFlags => match facts.flags {
            // In a header too: no flag is a fact, not an absent one.
            flags if flags.is_empty() => text("-"),
            flags => text(flags.to_string()),
        },
        Operator::StartTime(format) => {
            text(format_time::format(format.as_deref().unwrap_or(format_time::DEFAULT), facts.start))
        }
        Operator::Duration => Value::Number(times.total),
        Operator::RequestDuration => number(times.request_done),
        Operator::ResponseDuration => number(times.response_head),
        Operator::ResponseTxDuration => number(times.response_head.map(|head| times.total.saturating_sub(head))),
        Operator::BytesReceived | Operator::UpstreamWireBytesSent => Value::Number(facts.bytes_received),
        Operator::BytesSent | Operator::UpstreamWireBytesReceived => Value::Number(facts.bytes_sent),
        Operator::UpstreamHost | Operator::UpstreamRemoteAddress => optional(upstream.host.as_deref()),
        Operator::UpstreamCluster => optional(upstream.cluster.as_deref()),
        Operator::UpstreamLocalAddress => optional(upstream.local.map(|a| a.to_string())),
        Operator::UpstreamTransportFailureReason => {
            optional(upstream.transport_failure.as_deref().map(|r| r.replace(' ', "_")))
        }
        Operator::UpstreamRequestAttemptCount => Value::Number(upstream.attempts.into()),
        Operator::UpstreamProtocol => optional(upstream.protocol),
        Operator::DownstreamRemoteAddress => text(facts.remote.to_string()),
        Operator::DownstreamRemoteAddressWithoutPort => text(facts.remote.ip().to_string()),
        Operator::DownstreamRemotePort => Value::Number(facts.remote.port().into()),
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
        Operator::DownstreamTransportFailureReason => optional(facts.downstream_failure.map(|r| r.replace(' ', "_"))),
        Operator::ConnectionTerminationDetails => optional(facts.termination),
        Operator::RequestedServerName => optional(conn.server_name.as_deref()),
        Operator::RouteName => optional(facts.route),
        Operator::ConnectionId => Value::Number(conn.id),
        Operator::StreamId => header(facts.request, "x-request-id", None),
        Operator::TraceId => optional(facts.trace.map(|id| context::text(&id.0))),
        Operator::Hostname => optional(hostname()),
        Operator::FilterChainName => optional(Some(&*conn.chain).filter(|c| !c.is_empty())),
        Operator::Environment(name) => optional(environment(name)),
        // Nothing in the data path produces these: an exchange that has none is logged as such.
        Operator::LocalReplyBody | Operator::VirtualClusterName | Operator::FilterState(_) => Value::Absent,
        Operator::Metadata(path) => metadata(path, &facts.metadata),
    }
}

fn metadata<'a>(path: &MetadataPath, known: &Known<'a>) -> Value<'a> {
    let source = match path.source {
        MetadataSource::Dynamic => known.dynamic,
        MetadataSource::Route => known.route,
        MetadataSource::Other => None,
    };
    let Some(all) = source else { return Value::Absent };
    if path.path.is_empty() {
        let whole = all.get(&*path.namespace);
        return whole.map_or(Value::Absent, |fields| Value::Json(Cow::Owned(Json::Object(fields.clone()))));
    }
    match value_at(all, &path.namespace, &path.path) {
        None | Some(Json::Null) => Value::Absent,
        Some(Json::String(value)) => text(value.as_str()),
        Some(other) => Value::Json(Cow::Borrowed(other)),
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

/// Whole milliseconds, as log lines have them.
pub(super) fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

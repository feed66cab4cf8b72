//! The operator language of access logs and header values (Envoy's "substitution formatter"), parsed once.

mod parse;

use std::sync::Arc;

use super::{Fraction, matcher::HeaderMatcher};

/// A parsed format string.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    pub segments: Vec<Segment>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    Text(Box<str>),
    Op {
        op: Operator,
        /// `%OP:N%` keeps the first N characters.
        max_len: Option<usize>,
    },
}

/// Which path `PATH` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathSource {
    /// Before it was rewritten: `x-envoy-original-path`.
    Original,
    Current,
    OriginalOrCurrent,
}

impl PathSource {
    /// The headers it may stand in, the first that is there counts.
    pub fn headers(self) -> &'static [&'static str] {
        match self {
            Self::Original => &["x-envoy-original-path"],
            Self::Current => &[":path"],
            Self::OriginalOrCurrent => &["x-envoy-original-path", ":path"],
        }
    }
}

/// Every operator that exists here. An unknown one is refused when the configuration is decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `REQ(NAME?ALTERNATIVE)`; names are lower case, pseudo headers keep their colon.
    Req(Box<str>, Option<Box<str>>),
    Resp(Box<str>, Option<Box<str>>),
    Trailer(Box<str>, Option<Box<str>>),
    /// `PATH(WQ|NQ:ORIG|PATH|ORIG_OR_PATH)`.
    Path {
        query: bool,
        source: PathSource,
    },
    Protocol,
    ResponseCode,
    ResponseCodeDetails,
    ResponseFlags,
    ConnectionTerminationDetails,
    /// `START_TIME` with an optional strftime format.
    StartTime(Option<Box<str>>),
    /// Total time in milliseconds.
    Duration,
    RequestDuration,
    ResponseDuration,
    ResponseTxDuration,
    BytesReceived,
    BytesSent,
    UpstreamWireBytesSent,
    UpstreamWireBytesReceived,
    UpstreamHost,
    UpstreamCluster,
    UpstreamLocalAddress,
    UpstreamRemoteAddress,
    UpstreamTransportFailureReason,
    UpstreamRequestAttemptCount,
    UpstreamProtocol,
    DownstreamRemoteAddress,
    DownstreamRemoteAddressWithoutPort,
    DownstreamRemotePort,
    DownstreamDirectRemoteAddress,
    DownstreamDirectRemoteAddressWithoutPort,
    DownstreamLocalAddress,
    DownstreamLocalAddressWithoutPort,
    DownstreamLocalPort,
    DownstreamPeerUriSan,
    DownstreamPeerSubject,
    DownstreamLocalUriSan,
    DownstreamTlsVersion,
    DownstreamTlsCipher,
    DownstreamTransportFailureReason,
    RequestedServerName,
    RouteName,
    VirtualClusterName,
    ConnectionId,
    StreamId,
    /// Of a request that is traced.
    TraceId,
    Hostname,
    FilterChainName,
    Environment(Box<str>),
    /// The body of a local reply; in body formats the configured text stands in its place.
    LocalReplyBody,
    /// `METADATA(TYPE:NAMESPACE:KEY...)` and `DYNAMIC_METADATA(NAMESPACE:KEY...)`.
    Metadata(MetadataPath),
    /// `FILTER_STATE(...)`: always the empty marker, nothing sets any.
    FilterState(Box<str>),
}

/// Which value of which metadata; without keys it is the whole namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataPath {
    pub source: MetadataSource,
    pub namespace: Box<str>,
    pub path: Box<[Box<str>]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetadataSource {
    /// What filters noted of the stream.
    Dynamic,
    Route,
    /// Known to Envoy and not kept here: always absent.
    Other,
}

impl Template {
    /// Puts `text` in the place of an operator.
    pub fn substitute(&mut self, operator: &Operator, text: &str) {
        for segment in &mut self.segments {
            if matches!(segment, Segment::Op { op, .. } if op == operator) {
                *segment = Segment::Text(text.into());
            }
        }
    }
}

/// One access logger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    pub sink: Sink,
    pub format: LogFormat,
    /// Log only what this accepts; `None` logs everything.
    pub filter: Option<LogFilter>,
}

/// `AccessLogFilter`. A filter that cannot be evaluated is not here: such a logger logs everything, with a note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogFilter {
    StatusCode(Comparison, u32),
    /// Total duration in milliseconds.
    Duration(Comparison, u32),
    /// Logs this share.
    Sample(Fraction),
    And(Vec<LogFilter>),
    Or(Vec<LogFilter>),
    RequestHeader(HeaderMatcher),
    /// Any of these short names (`UF`, `NR`) is set; empty: any flag at all.
    ResponseFlags(Vec<Box<str>>),
    GrpcStatus {
        codes: Vec<u8>,
        exclude: bool,
    },
    /// The request is traced.
    Traceable,
    /// `/healthz`-like requests do not exist here (no health check filter): accepts everything.
    NotHealthCheck,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Eq,
    Ge,
    Le,
    Ne,
}

impl Comparison {
    pub fn holds(self, value: u64, bound: u32) -> bool {
        let bound = u64::from(bound);
        match self {
            Self::Eq => value == bound,
            Self::Ge => value >= bound,
            Self::Le => value <= bound,
            Self::Ne => value != bound,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Sink {
    File(Arc<str>),
    Stdout,
    Stderr,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text(Template),
    /// Keys in alphabetical order: protobuf keeps none.
    Json(Vec<(Box<str>, JsonField)>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JsonField {
    Value(Template),
    Object(Vec<(Box<str>, JsonField)>),
}

impl LogFormat {
    /// As [`Template::substitute`], everywhere in the format.
    pub fn substitute(&mut self, operator: &Operator, text: &str) {
        fn each(fields: &mut [(Box<str>, JsonField)], operator: &Operator, text: &str) {
            for (_, field) in fields {
                match field {
                    JsonField::Value(template) => template.substitute(operator, text),
                    JsonField::Object(fields) => each(fields, operator, text),
                }
            }
        }
        match self {
            Self::Text(template) => template.substitute(operator, text),
            Self::Json(fields) => each(fields, operator, text),
        }
    }
}

//! The parser of the operator language: text with `%OPERATOR(ARGUMENTS):LENGTH%`, `%%` for a percent sign.
//!
//! Refuses what it does not know, by name: a log that silently lacks a field is found out when it is needed.

use super::{MetadataPath, MetadataSource, Operator, PathSource, Segment, Template};

/// Longest format string accepted.
const MAX_LEN: usize = 64 << 10;

impl Template {
    /// Envoy's default access log line.
    pub const DEFAULT_ACCESS_LOG: &str = concat!(
        "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" ",
        "%RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% ",
        "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" ",
        "\"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n",
    );

    /// Parses a format string.
    pub fn parse(source: &str) -> Result<Self, String> {
        if source.len() > MAX_LEN {
            return Err(format!("format string of {} bytes is longer than {MAX_LEN}", source.len()));
        }
        let mut segments = Vec::new();
        let mut text = String::new();
        let mut rest = source;
        while let Some(start) = rest.find('%') {
            text.push_str(&rest[..start]);
            rest = &rest[start + 1..];
            if let Some(after) = rest.strip_prefix('%') {
                text.push('%');
                rest = after;
                continue;
            }
            let (segment, after) = operator(rest)?;
            if !text.is_empty() {
                segments.push(Segment::Text(std::mem::take(&mut text).into()));
            }
            segments.push(segment);
            rest = after;
        }
        text.push_str(rest);
        if !text.is_empty() {
            segments.push(Segment::Text(text.into()));
        }
        Ok(Self { segments })
    }

    /// Parses Envoy's default access log format.
    pub fn default_access_log() -> Self {
        Self::parse(Self::DEFAULT_ACCESS_LOG).expect("the default format is valid, a test parses it")
    }

    /// The text, when no operator is in it.
    pub fn literal(&self) -> Option<&str> {
        match self.segments.as_slice() {
            [] => Some(""),
            [Segment::Text(text)] => Some(text),
            _ => None,
        }
    }
}

/// Parses one operator; `source` starts behind its percent sign. Returns what follows the closing one.
fn operator(source: &str) -> Result<(Segment, &str), String> {
    let name_len = source.bytes().take_while(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || *b == b'_').count();
    let (name, mut rest) = source.split_at(name_len);
    let broken = || {
        let shown: String = source.chars().take(40).collect();
        format!("incorrect operator at `%{shown}`: expected `%NAME(ARGUMENTS):LENGTH%`")
    };
    if name.is_empty() {
        return Err(broken());
    }
    let mut arguments = None;
    if let Some(inner) = rest.strip_prefix('(') {
        let (text, after) = inner.split_once(')').ok_or_else(broken)?;
        arguments = Some(text);
        rest = after;
    }
    let mut max_len = None;
    if let Some(after) = rest.strip_prefix(':') {
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        max_len = Some(after[..digits].parse::<usize>().map_err(|_| broken())?);
        rest = &after[digits..];
    }
    let rest = rest.strip_prefix('%').ok_or_else(broken)?;
    let op = named(name, arguments)?;
    let cuttable = !matches!(op, Operator::StartTime(_));
    if max_len.is_some() && !cuttable {
        return Err(format!("operator `{name}` takes no length"));
    }
    Ok((Segment::Op { op, max_len }, rest))
}

/// Resolves an operator's name.
fn named(name: &str, arguments: Option<&str>) -> Result<Operator, String> {
    let header = |make: fn(Box<str>, Option<Box<str>>) -> Operator| {
        let text =
            arguments.filter(|a| !a.is_empty()).ok_or_else(|| format!("operator `{name}` needs a header name"))?;
        let (main, alternative) = match text.split_once('?') {
            Some((main, alternative)) => (main, Some(header_name(name, alternative)?)),
            None => (text, None),
        };
        Ok::<_, String>(make(header_name(name, main)?, alternative))
    };
    let given = || {
        let text = arguments.filter(|a| !a.is_empty());
        text.map(Box::from).ok_or_else(|| format!("operator `{name}` needs an argument"))
    };
    match name {
        "REQ" => return header(Operator::Req),
        "RESP" => return header(Operator::Resp),
        "TRAILER" => return header(Operator::Trailer),
        "PATH" => return path(arguments.unwrap_or_default()),
        "START_TIME" => return Ok(Operator::StartTime(arguments.filter(|a| !a.is_empty()).map(Box::from))),
        "ENVIRONMENT" => return given().map(Operator::Environment),
        "DYNAMIC_METADATA" => return metadata(MetadataSource::Dynamic, &given()?),
        "METADATA" => {
            let text = given()?;
            let (source, rest) = text.split_once(':').unwrap_or((&text, ""));
            let source = match source {
                "DYNAMIC" => MetadataSource::Dynamic,
                "ROUTE" => MetadataSource::Route,
                "CLUSTER" | "UPSTREAM_HOST" | "LISTENER" | "LISTENER_FILTER_CHAIN" | "VIRTUAL_HOST" => {
                    MetadataSource::Other
                }
                other => return Err(format!("operator `METADATA`: `{other}` is not a kind of metadata")),
            };
            return metadata(source, rest);
        }
        "FILTER_STATE" => return given().map(Operator::FilterState),
        _ => {}
    }
    let Some((_, op)) = PLAIN.iter().find(|(known, _)| *known == name) else {
        return Err(format!("unknown operator `{name}`"));
    };
    match arguments {
        Some(_) => Err(format!("operator `{name}` takes no arguments")),
        None => Ok(op.clone()),
    }
}

fn metadata(source: MetadataSource, text: &str) -> Result<Operator, String> {
    let mut parts = text.split(':').map(Box::from);
    let namespace = parts.next().unwrap_or_default();
    Ok(Operator::Metadata(MetadataPath { source, namespace, path: parts.collect() }))
}

/// `WQ|NQ:ORIG|PATH|ORIG_OR_PATH`, of which either may be left out.
fn path(arguments: &str) -> Result<Operator, String> {
    let (query, source) = arguments.split_once(':').unwrap_or((arguments, ""));
    let query = match query {
        "" | "WQ" => true,
        "NQ" => false,
        other => return Err(format!("operator `PATH`: `{other}` is neither WQ nor NQ")),
    };
    let source = match source {
        "" | "ORIG_OR_PATH" => PathSource::OriginalOrCurrent,
        "ORIG" => PathSource::Original,
        "PATH" => PathSource::Current,
        other => return Err(format!("operator `PATH`: `{other}` is not one of ORIG, PATH, ORIG_OR_PATH")),
    };
    Ok(Operator::Path { query, source })
}

/// Lower-cases a header name, refusing what could never be one.
fn header_name(operator: &str, name: &str) -> Result<Box<str>, String> {
    let lower = name.to_ascii_lowercase();
    let token = lower.strip_prefix(':').unwrap_or(&lower);
    match http::HeaderName::from_bytes(token.as_bytes()) {
        Ok(_) => Ok(lower.into()),
        Err(_) => Err(format!("operator `{operator}`: `{name}` is not a header name")),
    }
}

/// The operators without arguments.
const PLAIN: &[(&str, Operator)] = &[
    ("PROTOCOL", Operator::Protocol),
    ("RESPONSE_CODE", Operator::ResponseCode),
    ("RESPONSE_CODE_DETAILS", Operator::ResponseCodeDetails),
    ("RESPONSE_FLAGS", Operator::ResponseFlags),
    ("CONNECTION_TERMINATION_DETAILS", Operator::ConnectionTerminationDetails),
    ("DURATION", Operator::Duration),
    ("REQUEST_DURATION", Operator::RequestDuration),
    ("RESPONSE_DURATION", Operator::ResponseDuration),
    ("RESPONSE_TX_DURATION", Operator::ResponseTxDuration),
    ("BYTES_RECEIVED", Operator::BytesReceived),
    ("BYTES_SENT", Operator::BytesSent),
    ("UPSTREAM_WIRE_BYTES_SENT", Operator::UpstreamWireBytesSent),
    ("UPSTREAM_WIRE_BYTES_RECEIVED", Operator::UpstreamWireBytesReceived),
    ("UPSTREAM_HOST", Operator::UpstreamHost),
    ("UPSTREAM_CLUSTER", Operator::UpstreamCluster),
    ("UPSTREAM_CLUSTER_RAW", Operator::UpstreamCluster),
    ("UPSTREAM_LOCAL_ADDRESS", Operator::UpstreamLocalAddress),
    ("UPSTREAM_REMOTE_ADDRESS", Operator::UpstreamRemoteAddress),
    ("UPSTREAM_TRANSPORT_FAILURE_REASON", Operator::UpstreamTransportFailureReason),
    ("UPSTREAM_REQUEST_ATTEMPT_COUNT", Operator::UpstreamRequestAttemptCount),
    ("UPSTREAM_PROTOCOL", Operator::UpstreamProtocol),
    ("DOWNSTREAM_REMOTE_ADDRESS", Operator::DownstreamRemoteAddress),
    ("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", Operator::DownstreamRemoteAddressWithoutPort),
    ("DOWNSTREAM_REMOTE_PORT", Operator::DownstreamRemotePort),
    ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS", Operator::DownstreamDirectRemoteAddress),
    ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", Operator::DownstreamDirectRemoteAddressWithoutPort),
    ("DOWNSTREAM_LOCAL_ADDRESS", Operator::DownstreamLocalAddress),
    ("DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", Operator::DownstreamLocalAddressWithoutPort),
    ("DOWNSTREAM_LOCAL_PORT", Operator::DownstreamLocalPort),
    ("DOWNSTREAM_PEER_URI_SAN", Operator::DownstreamPeerUriSan),
    ("DOWNSTREAM_PEER_SUBJECT", Operator::DownstreamPeerSubject),
    ("DOWNSTREAM_LOCAL_URI_SAN", Operator::DownstreamLocalUriSan),
    ("DOWNSTREAM_TLS_VERSION", Operator::DownstreamTlsVersion),
    ("DOWNSTREAM_TLS_CIPHER", Operator::DownstreamTlsCipher),
    ("DOWNSTREAM_TRANSPORT_FAILURE_REASON", Operator::DownstreamTransportFailureReason),
    ("REQUESTED_SERVER_NAME", Operator::RequestedServerName),
    ("ROUTE_NAME", Operator::RouteName),
    ("VIRTUAL_CLUSTER_NAME", Operator::VirtualClusterName),
    ("CONNECTION_ID", Operator::ConnectionId),
    ("STREAM_ID", Operator::StreamId),
    ("TRACE_ID", Operator::TraceId),
    ("HOSTNAME", Operator::Hostname),
    ("LOCAL_REPLY_BODY", Operator::LocalReplyBody),
    ("FILTER_CHAIN_NAME", Operator::FilterChainName),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn op(op: Operator) -> Segment {
        Segment::Op { op, max_len: None }
    }

    #[test]
    fn text_and_operators() {
        let parsed = Template::parse("a%%b %REQ(X-Foo?:PATH):12% %RESPONSE_CODE%!").unwrap();
        let req = Operator::Req("x-foo".into(), Some(":path".into()));
        assert_eq!(
            parsed.segments,
            [
                Segment::Text("a%b ".into()),
                Segment::Op { op: req, max_len: Some(12) },
                Segment::Text(" ".into()),
                op(Operator::ResponseCode),
                Segment::Text("!".into()),
            ]
        );
        let time = Template::parse("%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%").unwrap();
        assert_eq!(time.segments, [op(Operator::StartTime(Some("%Y-%m-%dT%H:%M:%S.%3fZ".into())))]);
        assert_eq!(Template::parse("plain").unwrap().literal(), Some("plain"));
        assert_eq!(Template::parse("").unwrap().literal(), Some(""));
        assert_eq!(parsed.literal(), None);
    }

    #[test]
    fn paths() {
        for (text, query, source) in [
            ("%PATH%", true, PathSource::OriginalOrCurrent),
            ("%PATH(NQ)%", false, PathSource::OriginalOrCurrent),
            ("%PATH(WQ:ORIG)%", true, PathSource::Original),
            ("%PATH(NQ:PATH)%", false, PathSource::Current),
        ] {
            assert_eq!(Template::parse(text).unwrap().segments, [op(Operator::Path { query, source })], "{text}");
        }
    }

    #[test]
    fn the_default_format_has_all_its_operators() {
        let ops = Template::default_access_log().segments.iter().filter(|s| matches!(s, Segment::Op { .. })).count();
        assert_eq!(ops, 15);
    }

    #[test]
    fn metadata_has_a_namespace_and_keys() {
        let at = |source, namespace: &str, path: &[&str]| {
            let path = path.iter().map(|key| Box::from(*key)).collect();
            op(Operator::Metadata(MetadataPath { source, namespace: namespace.into(), path }))
        };
        for (format, wanted) in [
            ("%DYNAMIC_METADATA(a.b:c:d)%", at(MetadataSource::Dynamic, "a.b", &["c", "d"])),
            ("%METADATA(DYNAMIC:a)%", at(MetadataSource::Dynamic, "a", &[])),
            ("%METADATA(ROUTE:a:b)%", at(MetadataSource::Route, "a", &["b"])),
            ("%METADATA(CLUSTER:a:b)%", at(MetadataSource::Other, "a", &["b"])),
        ] {
            assert_eq!(Template::parse(format).unwrap().segments, [wanted], "{format}");
        }
    }

    #[test]
    fn refusals_name_the_operator() {
        for (format, part) in [
            ("%NO_SUCH_THING%", "unknown operator `NO_SUCH_THING`"),
            ("100%", "incorrect operator"),
            ("%REQ%", "`REQ` needs a header name"),
            ("%REQ(:METHOD%", "incorrect operator"),
            ("%REQ(a b)%", "is not a header name"),
            ("%PROTOCOL(x)%", "takes no arguments"),
            ("%PATH(XQ)%", "neither WQ nor NQ"),
            ("%PATH(NQ:HERE)%", "not one of ORIG"),
            ("%PROTOCOL:x%", "incorrect operator"),
            ("%PROTOCOL:99999999999999999999999%", "incorrect operator"),
            ("%START_TIME(%s):3%", "takes no length"),
            ("%lower%", "incorrect operator"),
            ("%ENVIRONMENT()%", "needs an argument"),
            ("%DYNAMIC_METADATA()%", "needs an argument"),
            ("%METADATA(NOWHERE:a)%", "`NOWHERE` is not a kind"),
        ] {
            let error = Template::parse(format).unwrap_err();
            assert!(error.contains(part), "{format}: {error}");
        }
        assert!(Template::parse(&"x".repeat(MAX_LEN + 1)).is_err());
    }
}

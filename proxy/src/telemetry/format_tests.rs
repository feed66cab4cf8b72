use std::{
    sync::Arc,
    time::{Duration, Instant, UNIX_EPOCH},
};

use super::*;
use crate::{
    ir::listener::Direction,
    telemetry::{format::Times, record::PeerInfo},
};

fn conn() -> ConnInfo {
    ConnInfo {
        id: 7,
        remote: "10.0.0.1:1234".parse().unwrap(),
        local: "[2001:db8::1]:443".parse().unwrap(),
        original_dst: None,
        direction: Direction::Inbound,
        listener: "l".into(),
        chain: "c".into(),
        server_name: Some("sni.example".into()),
        tls: Some(Arc::new(PeerInfo {
            uri_sans: vec!["spiffe://a".into(), "spiffe://b".into()],
            version: "TLSv1.3",
            cipher: "TLS_AES_128_GCM_SHA256",
            ..PeerInfo::default()
        })),
        started: UNIX_EPOCH,
        started_at: Instant::now(),
        buffer_limit: 1 << 20,
        metadata: Default::default(),
    }
}

fn metadata(source: MetadataSource, namespace: &str, path: &[&str]) -> Operator {
    let path = path.iter().map(|key| Box::from(*key)).collect();
    Operator::Metadata(MetadataPath { source, namespace: namespace.into(), path })
}

fn op(op: Operator) -> Template {
    Template { segments: vec![Segment::Op { op, max_len: None }] }
}

#[test]
fn operators_are_evaluated() {
    let conn = conn();
    let upstream = UpstreamFacts {
        cluster: Some("up".into()),
        host: Some("1.2.3.4:80".into()),
        attempts: 2,
        transport_failure: Some("delayed connect error: 111".into()),
        ..UpstreamFacts::default()
    };
    let dynamic = serde_json::json!({"ns": {"text": "value", "deep": {"n": 7}, "null": null}, "one": {"n": 7}});
    let dynamic = serde_json::from_value(dynamic).unwrap();
    let mut request = HeaderMap::new();
    request.append("x-many", "a".parse().unwrap());
    request.append("x-envoy-original-path", "/a?b?c".parse().unwrap());
    request.append("x-many", "b".parse().unwrap());
    request.append("x-latin", http::HeaderValue::from_bytes(b"\xe9").unwrap());
    let facts = Facts {
        conn: &conn,
        protocol: Some("HTTP/2"),
        status: 503,
        flags: Flags::UPSTREAM_OVERFLOW,
        details: Some("overflow"),
        start: UNIX_EPOCH + Duration::from_millis(1500),
        times: Times { total: 30, request_done: Some(5), response_head: Some(20) },
        bytes_received: 11,
        bytes_sent: 22,
        upstream: &upstream,
        downstream_failure: None,
        termination: None,
        trace: Some(crate::telemetry::trace::context::TraceId([0xab; 16])),
        route: Some("r"),
        remote: "9.9.9.9:0".parse().unwrap(),
        request: Some(&request),
        response: None,
        trailers: None,
        metadata: Known { dynamic: Some(&dynamic), route: None },
    };
    for (operator, expected) in [
        (Operator::Req("x-many".into(), None), "a,b"),
        (Operator::Path { query: true, source: PathSource::OriginalOrCurrent }, "/a?b?c"),
        (Operator::Path { query: false, source: PathSource::Original }, "/a"),
        (Operator::Path { query: false, source: PathSource::Current }, "-"),
        (Operator::Req("x-none".into(), Some("x-many".into())), "a,b"),
        (Operator::Req("x-none".into(), None), "-"),
        (Operator::Req("x-latin".into(), None), "\u{fffd}"),
        (Operator::Resp("x".into(), None), "-"),
        (Operator::Protocol, "HTTP/2"),
        (Operator::ResponseCode, "503"),
        (Operator::ResponseFlags, "UO"),
        (Operator::ResponseCodeDetails, "overflow"),
        (Operator::StartTime(None), "1970-01-01T00:00:01.500Z"),
        (Operator::StartTime(Some("%s".into())), "1"),
        (Operator::Duration, "30"),
        (Operator::RequestDuration, "5"),
        (Operator::ResponseDuration, "20"),
        (Operator::ResponseTxDuration, "10"),
        (Operator::BytesReceived, "11"),
        (Operator::BytesSent, "22"),
        (Operator::UpstreamHost, "1.2.3.4:80"),
        (Operator::UpstreamCluster, "up"),
        (Operator::UpstreamLocalAddress, "-"),
        (Operator::UpstreamTransportFailureReason, "delayed_connect_error:_111"),
        (Operator::UpstreamRequestAttemptCount, "2"),
        (Operator::DownstreamRemoteAddress, "9.9.9.9:0"),
        (Operator::DownstreamDirectRemoteAddress, "10.0.0.1:1234"),
        (Operator::DownstreamLocalAddress, "[2001:db8::1]:443"),
        (Operator::DownstreamLocalAddressWithoutPort, "2001:db8::1"),
        (Operator::DownstreamLocalPort, "443"),
        (Operator::DownstreamPeerUriSan, "spiffe://a,spiffe://b"),
        (Operator::DownstreamLocalUriSan, "-"),
        (Operator::DownstreamPeerSubject, "-"),
        (Operator::DownstreamTlsVersion, "TLSv1.3"),
        (Operator::RequestedServerName, "sni.example"),
        (Operator::RouteName, "r"),
        (Operator::TraceId, "abababababababababababababababab"),
        (Operator::ConnectionId, "7"),
        (Operator::FilterChainName, "c"),
        (Operator::Environment("NO_SUCH_VARIABLE_HERE".into()), "-"),
        (metadata(MetadataSource::Dynamic, "ns", &["text"]), "value"),
        (metadata(MetadataSource::Dynamic, "ns", &["deep", "n"]), "7"),
        (metadata(MetadataSource::Dynamic, "ns", &["deep"]), r#"{"n":7}"#),
        (metadata(MetadataSource::Dynamic, "one", &[]), r#"{"n":7}"#),
        (metadata(MetadataSource::Dynamic, "ns", &["null"]), "-"),
        (metadata(MetadataSource::Dynamic, "ns", &["none"]), "-"),
        (metadata(MetadataSource::Dynamic, "none", &[]), "-"),
        (metadata(MetadataSource::Route, "ns", &["text"]), "-"),
        (metadata(MetadataSource::Other, "ns", &["text"]), "-"),
    ] {
        let template = op(operator);
        let mut out = String::new();
        render(&template, &facts, "-", &mut out);
        assert_eq!(out, expected, "{template:?}");
    }
}

#[test]
fn truncation_counts_characters() {
    assert_eq!(truncate("héllo", Some(2)), "hé");
    assert_eq!(truncate("hé", Some(2)), "hé");
    assert_eq!(truncate("hé", Some(0)), "");
    assert_eq!(truncate("hé", None), "hé");
}

#[test]
fn a_header_is_found_among_few_and_among_many() {
    let mut headers = HeaderMap::new();
    headers.append("x-several", "one".parse().unwrap());
    headers.insert("x-one", HeaderValue::from_bytes("é".as_bytes()).unwrap());
    headers.append("x-several", "two".parse().unwrap());
    let asked = |headers: &HeaderMap| {
        let get = |name| Headers::get(headers, name).map(Cow::into_owned);
        ["x-several", "X-Several", "x-one", "x-on", ""].map(get)
    };
    let few = asked(&headers);
    assert_eq!(few.clone().map(|v| v.unwrap_or_default()), ["one,two", "one,two", "é", "", ""]);
    assert!(few[3].is_none() && few[4].is_none());
    for n in 0..FEW {
        headers.insert(HeaderName::try_from(format!("x-{n}")).unwrap(), "v".parse().unwrap());
    }
    assert_eq!(asked(&headers), few);
}

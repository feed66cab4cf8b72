//! Active health checks of a cluster and of its endpoints.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, Method};
use outrigger_wire::pb::{
    envoy::{
        config::{
            core::v3::{
                HeaderValueOption, HealthCheck as Pb, RequestMethod,
                health_check::{
                    GrpcHealthCheck, HealthChecker, HttpHealthCheck, Payload, TcpHealthCheck, payload::Payload as Bytes,
                },
            },
            endpoint::v3::endpoint::HealthCheckConfig,
        },
        r#type::v3::{CodecClientType, Int64Range},
    },
    google::protobuf::UInt32Value,
};

use super::{
    at::At,
    fields::fields,
    matcher, metadata,
    report::Reject,
    scalar::{bool_or, enumeration, header_name, not_empty, port, positive},
};
use crate::ir::{
    endpoint::Address,
    health_check::{EndpointCheck, GrpcProbe, HealthCheck, HttpProbe, Pace, Probe, StatusRange, TcpProbe},
};

const NO_TRAFFIC: Duration = Duration::from_secs(60);
/// Looked at of a response's body where nothing is configured.
const RESPONSE_BUFFER: u64 = 1024;
/// Looked at of a response's body at most; 0 stands for it.
const MAX_RESPONSE_BUFFER: u64 = 1 << 20;

/// Envoy knows one check per cluster.
pub(crate) fn check(messages: &[Pb], at: &At<'_>) -> Result<Option<HealthCheck>, Reject> {
    match messages {
        [] => Ok(None),
        [message] => one(message, &at.index("health_checks", 0)).map(Some),
        _ => Err(at.field("health_checks").reject("a cluster has one health check at most")),
    }
}

fn one(message: &Pb, at: &At<'_>) -> Result<HealthCheck, Reject> {
    fields!(at, message => Pb {
        read: [
            timeout, interval, initial_jitter, interval_jitter, interval_jitter_percent, unhealthy_threshold,
            healthy_threshold, reuse_connection, no_traffic_interval, no_traffic_healthy_interval, unhealthy_interval,
            unhealthy_edge_interval, healthy_edge_interval, always_log_health_check_failures,
            always_log_health_check_success, tls_options, transport_socket_match_criteria, health_checker,
        ],
        unsupported: [alt_port, event_log_path, event_logger, event_service],
    });
    let time = |name: &str, value| positive(at.duration(name, value)?, &at.field(name));
    let required = |name: &str, value| time(name, value)?.ok_or_else(|| at.field(name).reject("is required"));
    let threshold = |name: &str, value: &Option<UInt32Value>| at.required(name, value).map(|v| v.value);
    let timeout = required("timeout", &message.timeout)?;
    let interval = required("interval", &message.interval)?;
    let no_traffic_interval = time("no_traffic_interval", &message.no_traffic_interval)?.unwrap_or(NO_TRAFFIC);
    let no_traffic_healthy = time("no_traffic_healthy_interval", &message.no_traffic_healthy_interval)?;
    let unhealthy_interval = time("unhealthy_interval", &message.unhealthy_interval)?.unwrap_or(interval);
    let unhealthy_edge = time("unhealthy_edge_interval", &message.unhealthy_edge_interval)?;
    let pace = Pace {
        interval,
        initial_jitter: at.duration("initial_jitter", &message.initial_jitter)?.unwrap_or_default(),
        interval_jitter: at.duration("interval_jitter", &message.interval_jitter)?.unwrap_or_default(),
        interval_jitter_percent: message.interval_jitter_percent,
        no_traffic_interval,
        no_traffic_healthy_interval: no_traffic_healthy.unwrap_or(no_traffic_interval),
        unhealthy_interval,
        unhealthy_edge_interval: unhealthy_edge.unwrap_or(unhealthy_interval),
        healthy_edge_interval: time("healthy_edge_interval", &message.healthy_edge_interval)?.unwrap_or(interval),
    };
    let probe = match at.required("health_checker", &message.health_checker)? {
        HealthChecker::HttpHealthCheck(m) => Probe::Http(Box::new(http(m, &at.field("http_health_check"))?)),
        HealthChecker::TcpHealthCheck(m) => Probe::Tcp(tcp(m, &at.field("tcp_health_check"))?),
        HealthChecker::GrpcHealthCheck(m) => Probe::Grpc(grpc(m, &at.field("grpc_health_check"))?),
        HealthChecker::CustomHealthCheck(_) => {
            return Err(at.field("custom_health_check").reject("is not supported by this release"));
        }
    };
    let alpn = message.tls_options.as_ref().map(|m| m.alpn_protocols.iter().map(|p| p.as_str().into()).collect());
    let transport = message.transport_socket_match_criteria.as_ref().map(|m| {
        let criteria = metadata::object(m);
        Arc::new(BTreeMap::from([("envoy.transport_socket_match".to_owned(), criteria)]))
    });
    Ok(HealthCheck {
        timeout,
        unhealthy_threshold: threshold("unhealthy_threshold", &message.unhealthy_threshold)?,
        healthy_threshold: threshold("healthy_threshold", &message.healthy_threshold)?,
        reuse_connection: bool_or(&message.reuse_connection, true),
        always_log_failures: message.always_log_health_check_failures,
        always_log_successes: message.always_log_health_check_success,
        pace,
        probe,
        alpn: alpn.filter(|list: &Arc<[_]>| !list.is_empty()),
        transport,
    })
}

fn http(message: &HttpHealthCheck, at: &At<'_>) -> Result<HttpProbe, Reject> {
    fields!(at, message => HttpHealthCheck {
        read: [
            host, path, send, receive, response_buffer_size, request_headers_to_add, request_headers_to_remove,
            expected_statuses, retriable_statuses, codec_client_type, service_name_matcher, method,
        ],
    });
    let path = not_empty(&message.path, &at.field("path"))?;
    if !path.starts_with('/') || path.parse::<http::Uri>().is_err() {
        return Err(at.field("path").reject("is no path"));
    }
    let host = host(&message.host, &at.field("host"))?;
    let method_at = at.field("method");
    let method = match enumeration(message.method, &method_at)? {
        RequestMethod::MethodUnspecified | RequestMethod::Get => Method::GET,
        RequestMethod::Head => Method::HEAD,
        RequestMethod::Post => Method::POST,
        RequestMethod::Put => Method::PUT,
        RequestMethod::Delete => Method::DELETE,
        RequestMethod::Options => Method::OPTIONS,
        RequestMethod::Trace => Method::TRACE,
        RequestMethod::Patch => Method::PATCH,
        RequestMethod::Connect => return Err(method_at.reject("CONNECT is no health check")),
    };
    let send = match &message.send {
        Some(m) => payload(m, &at.field("send"))?,
        None => Vec::new(),
    };
    if !send.is_empty() && !matches!(method, Method::POST | Method::PUT | Method::PATCH | Method::OPTIONS) {
        return Err(at.field("send").reject("the method carries no body"));
    }
    let codec_at = at.field("codec_client_type");
    let http2 = match enumeration(message.codec_client_type, &codec_at)? {
        CodecClientType::Http1 => false,
        CodecClientType::Http2 => true,
        CodecClientType::Http3 => return Err(codec_at.reject("HTTP/3 is not supported by this release")),
    };
    let mut expected = at.each("expected_statuses", &message.expected_statuses, statuses)?;
    if expected.is_empty() {
        expected.push(StatusRange { first: 200, end: 201 });
    }
    let service_name = match &message.service_name_matcher {
        Some(m) => Some(matcher::string(m, &at.field("service_name_matcher"))?),
        None => None,
    };
    let buffer = match message.response_buffer_size.as_ref().map_or(RESPONSE_BUFFER, |v| v.value) {
        0 => MAX_RESPONSE_BUFFER,
        size => size.min(MAX_RESPONSE_BUFFER),
    };
    Ok(HttpProbe {
        host,
        path: path.into(),
        method,
        http2,
        send,
        receive: at.each("receive", &message.receive, payload)?,
        response_buffer: buffer as usize,
        headers: headers("request_headers_to_add", &message.request_headers_to_add, at)?,
        remove: at
            .each("request_headers_to_remove", &message.request_headers_to_remove, |name, at| header_name(name, at))?,
        expected,
        retriable: at.each("retriable_statuses", &message.retriable_statuses, statuses)?,
        service_name,
    })
}

/// A host header, or nothing.
fn host(text: &str, at: &At<'_>) -> Result<Box<str>, Reject> {
    match HeaderValue::from_str(text) {
        Ok(_) => Ok(text.into()),
        Err(_) => Err(at.reject("is no host header")),
    }
}

fn statuses(message: &Int64Range, at: &At<'_>) -> Result<StatusRange, Reject> {
    let status = |value: i64| u16::try_from(value).ok().filter(|v| (100..=600).contains(v));
    match (status(message.start), status(message.end)) {
        (Some(first), Some(end)) if first < end => Ok(StatusRange { first, end }),
        _ => Err(at.reject("is no range within 100 to 600")),
    }
}

fn tcp(message: &TcpHealthCheck, at: &At<'_>) -> Result<TcpProbe, Reject> {
    fields!(at, message => TcpHealthCheck { read: [send, receive], refuse: [proxy_protocol_config] });
    let send = match &message.send {
        Some(m) => payload(m, &at.field("send"))?,
        None => Vec::new(),
    };
    Ok(TcpProbe { send, receive: at.each("receive", &message.receive, payload)? })
}

fn grpc(message: &GrpcHealthCheck, at: &At<'_>) -> Result<GrpcProbe, Reject> {
    fields!(at, message => GrpcHealthCheck { read: [service_name, authority, initial_metadata] });
    Ok(GrpcProbe {
        service: message.service_name.as_str().into(),
        authority: host(&message.authority, &at.field("authority"))?,
        metadata: headers("initial_metadata", &message.initial_metadata, at)?,
    })
}

/// Hexadecimal text, or bytes.
fn payload(message: &Payload, at: &At<'_>) -> Result<Vec<u8>, Reject> {
    match at.required("payload", &message.payload)? {
        Bytes::Binary(bytes) => Ok(bytes.clone()),
        Bytes::Text(text) => hex(text).ok_or_else(|| at.field("text").reject("is not hexadecimal")),
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?)).collect()
}

fn headers(name: &str, messages: &[HeaderValueOption], at: &At<'_>) -> Result<Vec<(HeaderName, HeaderValue)>, Reject> {
    let added = at.each(name, messages, |message, at| {
        let header = at.required("header", &message.header)?;
        let at = at.field("header");
        let raw = std::str::from_utf8(&header.raw_value).unwrap_or_default();
        let text = if header.value.is_empty() { raw } else { &header.value };
        if text.contains('%') {
            at.field("value").unsupported("operators in a check's headers mean nothing: the header is left out");
            return Ok(None);
        }
        let value = HeaderValue::from_str(text).map_err(|_| at.field("value").reject("is no header value"))?;
        Ok(Some((header_name(&header.key, &at.field("key"))?, value)))
    })?;
    Ok(added.into_iter().flatten().collect())
}

/// What the checks of one host do differently.
pub(crate) fn endpoint(message: &HealthCheckConfig, at: &At<'_>) -> Result<Arc<EndpointCheck>, Reject> {
    fields!(at, message => HealthCheckConfig {
        read: [port_value, hostname, address, disable_active_health_check],
    });
    let (mut ip, mut alternative) = (None, message.port_value);
    if let Some(m) = &message.address {
        let at = at.field("address");
        match super::address::upstream(m, false, &at)? {
            Some(Address::Ip(address)) => {
                ip = Some(address.ip());
                if alternative == 0 {
                    alternative = address.port().into();
                }
            }
            _ => return Err(at.reject("is no IP address")),
        }
    }
    let number = port(alternative, &at.field("port_value"))?;
    Ok(Arc::new(EndpointCheck {
        port: Some(number).filter(|p| *p != 0),
        address: ip,
        hostname: host(&message.hostname, &at.field("hostname"))?,
        disabled: message.disable_active_health_check,
    }))
}

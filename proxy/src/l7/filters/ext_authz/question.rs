//! What an authorization service is told of a request.

use std::{net::SocketAddr, time::SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};
use outrigger_wire::pb::{
    envoy::{
        config::core::v3::{
            Address, HeaderMap as PbHeaderMap, HeaderValue as PbHeader, Metadata as PbMetadata, SocketAddress, address,
            socket_address::PortSpecifier,
        },
        service::auth::v3::{
            AttributeContext, CheckRequest,
            attribute_context::{HttpRequest, Peer, Request as PbRequest, TlsSession},
        },
    },
    google::protobuf::Timestamp,
};

use super::Seen;
use crate::{
    ir::{
        Metadata,
        ext_authz::{CheckSettings, ExtAuthz, HttpService},
        format::Template,
        matcher::StringMatcher,
        service::GrpcService,
    },
    l7::{
        filters::Call, forwarded::url_encoded_pem, headers::Pseudo, headers::RequestView, pipeline::Inbound, structs,
    },
    telemetry::{exchange::protocol, format, record::PeerInfo},
};

const PARTIAL: &str = "x-envoy-auth-partial-body";
const SERVICE: HeaderName = HeaderName::from_static("x-envoy-downstream-service-cluster");

/// What a question is about.
pub(super) struct About<'a> {
    pub call: &'a Call<'a>,
    pub config: &'a ExtAuthz,
    pub check: &'a CheckSettings,
    pub seen: &'a Seen,
    pub request: &'a Inbound,
}

type Field = (String, Vec<u8>);

impl About<'_> {
    /// The request's header fields that may be told, pseudo headers among them; values as they are, or joined and text.
    fn fields(&self) -> Vec<Field> {
        let (config, request) = (self.config, self.request);
        let told = |name: &str| {
            let any = |list: &[StringMatcher]| list.iter().any(|m| m.matches(name));
            // Ours, whoever else says so.
            name != PARTIAL && !any(&config.disallowed_headers) && config.allowed_headers.as_deref().is_none_or(any)
        };
        let pseudo = [
            (":authority", request.authority()),
            (":path", request.path()),
            (":method", request.parts.method.as_str()),
            (":scheme", request.sane.origin.scheme),
        ];
        let mut fields: Vec<Field> = pseudo
            .into_iter()
            .filter(|(name, value)| !value.is_empty() && told(name))
            .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
            .collect();
        for name in request.parts.headers.keys().filter(|n| *n != header::HOST && told(n.as_str())) {
            let values = request.parts.headers.get_all(name).iter();
            if config.raw_headers {
                fields.extend(values.map(|v| (name.as_str().to_owned(), v.as_bytes().to_vec())));
            } else {
                let values: Vec<String> = values.map(|v| text(v.as_bytes())).collect();
                fields.push((name.as_str().to_owned(), values.join(",").into_bytes()));
            }
        }
        if self.seen.bytes.is_some() {
            let partial: &[u8] = if self.seen.partial { b"true" } else { b"false" };
            fields.push((PARTIAL.to_owned(), partial.to_vec()));
        }
        fields
    }

    fn rendered(&self, template: &Template) -> String {
        let (flow, parts) = (self.call.flow, &self.request.parts);
        let scheme = self.request.sane.origin.scheme;
        let pseudo = Pseudo { method: &parts.method, path: self.request.path(), scheme };
        let view = RequestView { pseudo, headers: &parts.headers };
        let mut text = String::new();
        flow.record.facts(Some(&view), |facts| format::render(template, facts, "", &mut text));
        text
    }
}

/// Bytes outside UTF-8 become exclamation marks, as Envoy has it.
fn text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| '!'));
    }
    text
}

/// The metadata of a call over gRPC.
pub(super) fn metadata(service: &GrpcService, about: &About<'_>) -> HeaderMap {
    let mut head = HeaderMap::new();
    for (name, template) in &service.metadata {
        if let Ok(value) = HeaderValue::from_str(&about.rendered(template)) {
            head.append(name, value);
        }
    }
    if let Some(authority) = &service.authority {
        head.insert(header::HOST, authority.clone());
    }
    head
}

/// The question over gRPC.
pub(super) fn check(about: &About<'_>) -> CheckRequest {
    let (call, config, request) = (about.call, about.config, about.request);
    let conn = &call.conn.scope.conn;
    let tls = conn.tls.as_deref();
    let service = request.parts.headers.get(SERVICE).map(|v| text(v.as_bytes())).unwrap_or_default();
    let source = Peer {
        address: Some(address(conn.remote)),
        service,
        principal: tls.map(remote_principal).unwrap_or_default(),
        certificate: tls
            .and_then(|t| t.certificate.as_deref())
            .filter(|_| config.include_peer_certificate)
            .map(|der| url_encoded_pem([der]))
            .unwrap_or_default(),
        ..Peer::default()
    };
    let destination = Peer {
        address: Some(address(conn.local)),
        principal: tls.and_then(|t| t.local_uri_sans.first()).map(|s| s.to_string()).unwrap_or_default(),
        ..Peer::default()
    };
    let age = call.flow.record.started().elapsed();
    let since = (SystemTime::now() - age).duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let time = Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or_default(),
    };
    let request = PbRequest { time: Some(time), http: Some(http_request(about)) };
    let stream = call.flow.record.metadata.get();
    let connection = conn.metadata.get();
    let route = call.selected.and_then(|s| s.route.metadata.as_deref());
    CheckRequest {
        attributes: Some(AttributeContext {
            source: Some(source),
            destination: Some(destination),
            request: Some(request),
            context_extensions: about.check.context.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
            metadata_context: Some(context(&[stream.as_deref(), connection.as_deref()], &config.metadata_namespaces)),
            route_metadata_context: Some(context(&[route], &config.route_metadata_namespaces)),
            tls_session: config
                .include_tls_session
                .then(|| TlsSession { sni: conn.server_name.as_deref().unwrap_or_default().to_owned() }),
        }),
    }
}

fn http_request(about: &About<'_>) -> HttpRequest {
    let request = about.request;
    let fields = about.fields();
    let (mut headers, mut header_map) = (std::collections::HashMap::new(), None);
    if about.config.raw_headers {
        let header = |(key, value): Field| PbHeader { key, raw_value: value, value: String::new() };
        header_map = Some(PbHeaderMap { headers: fields.into_iter().map(header).collect() });
    } else {
        headers = fields.into_iter().map(|(name, value)| (name, text(&value))).collect();
    }
    let body = about.seen.bytes.clone().unwrap_or_default();
    let (body, raw_body) = if about.seen.raw { (String::new(), body.to_vec()) } else { (text(&body), Vec::new()) };
    HttpRequest {
        id: fastrand::u64(..).to_string(),
        method: request.parts.method.as_str().to_owned(),
        headers,
        header_map,
        path: request.path().to_owned(),
        host: request.authority().to_owned(),
        scheme: request.sane.origin.scheme.to_owned(),
        size: i64::try_from(about.seen.length).unwrap_or(i64::MAX),
        protocol: protocol(about.call.flow.record.version()).to_owned(),
        body,
        raw_body,
        ..HttpRequest::default()
    }
}

/// The question over HTTP; `None` when it has no method, path or authority.
pub(super) fn http(service: &HttpService, about: &About<'_>) -> Option<Request<Bytes>> {
    let body = about.seen.bytes.clone().unwrap_or_default();
    let mut request = Request::new(Bytes::new());
    *request.version_mut() = about.request.parts.version;
    let (mut method, mut path, mut headers) = (None, None, HeaderMap::new());
    for (name, value) in about.fields() {
        match name.as_str() {
            ":method" => method = Method::from_bytes(&value).ok(),
            ":path" => path = Some(value),
            ":scheme" => {}
            ":authority" => drop(headers.insert(header::HOST, HeaderValue::from_bytes(&value).ok()?)),
            // Of the request's own connection: the question is no upgrade, whatever it is about.
            "content-length" | "transfer-encoding" | "connection" | "upgrade" => {}
            _ => drop(
                headers.append(HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_bytes(&value).ok()?),
            ),
        }
    }
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    for (name, template) in &service.headers_to_add {
        let name = if name == "host" { header::HOST } else { name.clone() };
        headers.insert(name, HeaderValue::from_str(&about.rendered(template)).ok()?);
    }
    let path = match &service.path_override {
        Some(path) => path.to_string(),
        None => format!("{}{}", service.path_prefix, String::from_utf8(path?).ok()?),
    };
    *request.method_mut() = method?;
    *request.uri_mut() = path.parse().ok()?;
    headers.contains_key(header::HOST).then_some(())?;
    *request.headers_mut() = headers;
    Some(request.map(|_| body))
}

/// The named namespaces, each from the first source that has it.
fn context(sources: &[Option<&Metadata>], namespaces: &[Box<str>]) -> PbMetadata {
    let find = |name: &str| sources.iter().flatten().find_map(|metadata| metadata.get(name));
    let found = namespaces.iter().filter_map(|name| Some((name.to_string(), structs::to_struct(find(name)?))));
    PbMetadata { filter_metadata: found.collect(), ..PbMetadata::default() }
}

/// The first of URI, DNS name and subject.
fn remote_principal(tls: &PeerInfo) -> String {
    let san = tls.uri_sans.first().or(tls.dns_sans.first());
    san.unwrap_or(&tls.subject).to_string()
}

fn address(address: SocketAddr) -> Address {
    let socket = SocketAddress {
        address: address.ip().to_string(),
        port_specifier: Some(PortSpecifier::PortValue(address.port().into())),
        ..SocketAddress::default()
    };
    Address { address: Some(address::Address::SocketAddress(socket)) }
}

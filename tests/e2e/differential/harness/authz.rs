//! Authorization over gRPC: what a service is asked, as lines, and what it answers.

use std::collections::BTreeMap;

use outrigger_wire::pb::{
    envoy::{
        config::core::v3::{HeaderValue, HeaderValueOption, QueryParameter},
        service::auth::v3::{
            AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse, attribute_context::Peer,
            check_response::HttpResponse,
        },
        r#type::v3::HttpStatus,
    },
    google::{
        protobuf::{Struct, Value, value::Kind},
        rpc::Status,
    },
};
use prost::Message;

use super::{
    observe::field_line,
    reply::{Reply, ok},
};

pub(crate) const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// The lines of a question; `None` when the body is none.
pub(super) fn lines(prefix: &str, body: &[u8]) -> Option<Vec<String>> {
    let attributes = CheckRequest::decode(body.get(5..)?).ok()?.attributes?;
    let AttributeContext {
        source,
        destination,
        request,
        context_extensions,
        metadata_context,
        route_metadata_context,
        tls_session,
    } = attributes;
    let mut lines = Vec::new();
    let peer = |name: &str, peer: Option<Peer>| {
        let peer = peer.unwrap_or_default();
        let address = if peer.address.is_some() { "an address" } else { "no address" };
        format!("{prefix} {name} {address} {:?} {:?} {:?}", peer.service, peer.principal, peer.certificate.len())
    };
    lines.push(peer("source", source));
    lines.push(peer("destination", destination));
    let request = request.unwrap_or_default();
    let http = request.http.unwrap_or_default();
    lines.push(format!(
        "{prefix} asks {} {} {} {} {} {} {}",
        http.method,
        http.scheme,
        http.host,
        http.path,
        http.protocol,
        http.size,
        request.time.is_some()
    ));
    let mut fields: Vec<String> =
        http.headers.iter().map(|(n, v)| field_line(&format!("{prefix} header"), n, v)).collect();
    for header in http.header_map.unwrap_or_default().headers {
        let value = if header.raw_value.is_empty() { header.value.into() } else { header.raw_value };
        fields.push(field_line(&format!("{prefix} raw header"), &header.key, &String::from_utf8_lossy(&value)));
    }
    fields.sort();
    lines.append(&mut fields);
    lines.push(format!("{prefix} body {:?} raw {:?}", http.body, String::from_utf8_lossy(&http.raw_body)));
    lines.push(format!("{prefix} context {:?}", context_extensions.into_iter().collect::<BTreeMap<_, _>>()));
    for (name, metadata) in [("metadata", metadata_context), ("route metadata", route_metadata_context)] {
        let all: BTreeMap<String, String> = metadata
            .unwrap_or_default()
            .filter_metadata
            .into_iter()
            .map(|(k, v)| {
                (
                    k,
                    format!(
                        "{:?}",
                        v.fields
                            .into_iter()
                            .collect::<BTreeMap<_, _>>()
                            .into_iter()
                            .map(|(k, v)| format!("{k}={:?}", v.kind))
                            .collect::<Vec<_>>()
                    ),
                )
            })
            .collect();
        lines.push(format!("{prefix} {name} {all:?}"));
    }
    lines.push(format!("{prefix} session {:?}", tls_session.map(|s| s.sni)));
    Some(lines)
}

/// An answer with these bytes as its one message.
pub(crate) fn message(message: &impl Message) -> Reply {
    let body = message.encode_to_vec();
    let mut all = vec![0];
    all.extend(u32::try_from(body.len()).expect("a short message").to_be_bytes());
    all.extend(body);
    ok().header("content-type", "application/grpc").bytes(all).trailer("grpc-status", "0")
}

pub(crate) fn option(key: &str, value: &str) -> HeaderValueOption {
    let header = HeaderValue { key: key.to_owned(), value: value.to_owned(), ..HeaderValue::default() };
    HeaderValueOption { header: Some(header), ..HeaderValueOption::default() }
}

/// With the old way to say whether it is appended.
#[allow(deprecated)]
pub(crate) fn appended(key: &str, value: &str, append: bool) -> HeaderValueOption {
    let append = Some(outrigger_wire::pb::google::protobuf::BoolValue { value: append });
    HeaderValueOption { append, ..option(key, value) }
}

pub(crate) fn acting(key: &str, value: &str, append_action: i32) -> HeaderValueOption {
    HeaderValueOption { append_action, ..option(key, value) }
}

pub(crate) fn parameter(key: &str, value: &str) -> QueryParameter {
    QueryParameter { key: key.to_owned(), value: value.to_owned() }
}

pub(crate) fn fields(pairs: &[(&str, &str)]) -> Struct {
    let value = |v: &str| Value { kind: Some(Kind::StringValue(v.to_owned())) };
    Struct { fields: pairs.iter().map(|(k, v)| ((*k).to_owned(), value(v))).collect() }
}

fn status(code: i32) -> Option<Status> {
    Some(Status { code, ..Status::default() })
}

pub(crate) fn allowed(response: OkHttpResponse) -> CheckResponse {
    CheckResponse {
        status: status(0),
        http_response: Some(HttpResponse::OkResponse(response)),
        ..CheckResponse::default()
    }
}

pub(crate) fn denial(code: i32, headers: Vec<HeaderValueOption>, body: &str) -> DeniedHttpResponse {
    DeniedHttpResponse { status: Some(HttpStatus { code }), headers, body: body.to_owned() }
}

pub(crate) fn denied(response: Option<DeniedHttpResponse>) -> CheckResponse {
    CheckResponse {
        status: status(7),
        http_response: response.map(HttpResponse::DeniedResponse),
        ..CheckResponse::default()
    }
}

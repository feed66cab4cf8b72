//! Answers that a route makes by itself: direct responses, and the mutations that they and redirects get.

use http::{HeaderValue, Response, StatusCode, header};

use super::{
    body::Body,
    flow::Flow,
    headers::{self, Pseudo, RequestView},
    pipeline::{Inbound, levels},
    respond,
};
use crate::{
    ir::{format::LogFormat, route::DirectResponse},
    policy::router::{RouteTable, Selected},
    telemetry::access_log,
};

/// What a route answers by itself.
pub(super) fn direct_response(direct: &DirectResponse, flow: &Flow, request: &Inbound) -> Response<Body> {
    let scheme = request.sane.origin.scheme;
    let (body, content_type) = match &direct.format {
        None => (direct.body.clone(), None),
        Some(format) => {
            let pseudo = Pseudo { method: &request.parts.method, path: request.path(), scheme };
            let view = RequestView { pseudo, headers: &request.parts.headers };
            let mut text = String::new();
            flow.record.facts(Some(&view), |facts| access_log::render(&format.format, facts, &mut text));
            let content_type = match (&format.content_type, &format.format) {
                (Some(content_type), _) => Some(content_type.clone()),
                (None, LogFormat::Json(_)) => Some(HeaderValue::from_static("application/json")),
                (None, LogFormat::Text(_)) => None,
            };
            (text.into(), content_type)
        }
    };
    let mut response = if request.sane.grpc {
        respond::grpc_reply(direct.status, &String::from_utf8_lossy(&body))
    } else {
        respond::text_response(direct.status, body)
    };
    if let Some(content_type) = content_type {
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    }
    // Envoy says where a created or moved thing is: here.
    if (direct.status == StatusCode::CREATED || direct.status.is_redirection())
        && let Ok(here) = HeaderValue::from_str(&format!("{scheme}://{}{}", request.authority(), request.path()))
    {
        response.headers_mut().insert(header::LOCATION, here);
    }
    response
}

/// A redirect or direct response with the route's response mutations.
pub(super) fn finished(
    flow: &Flow,
    table: &RouteTable,
    selected: Selected<'_>,
    request: &Inbound,
    mut response: Response<Body>,
) -> Response<Body> {
    let pseudo = Pseudo { method: &request.parts.method, path: request.path(), scheme: request.sane.origin.scheme };
    let view = RequestView { pseudo, headers: &request.parts.headers };
    for ops in levels(table, selected, None) {
        let status = response.status();
        flow.record.facts(Some(&view), |facts| headers::apply_response(ops, response.headers_mut(), status, facts));
    }
    response
}

//! Answers that a route makes by itself: direct responses, and the mutations that they and redirects get.

use http::{HeaderValue, Response, StatusCode, header};

use super::{
    body::Body,
    flow::Flow,
    headers::{self, Pseudo, RequestView},
    pipeline::{Inbound, levels},
    reshape::{self, Reshaped},
    respond,
    server::Connection,
};
use crate::{
    ir::route::DirectResponse,
    policy::router::{RouteTable, Selected},
    telemetry::access_log,
};

/// What a route answers by itself.
pub(super) fn direct_response(
    direct: &DirectResponse,
    conn: &Connection,
    flow: &Flow,
    request: &Inbound,
) -> Response<Body> {
    let scheme = request.sane.origin.scheme;
    let pseudo = Pseudo { method: &request.parts.method, path: request.path(), scheme };
    let view = RequestView { pseudo, headers: &request.parts.headers };
    let mut body = direct.body.clone();
    let mut status = direct.status;
    let mut reshaped = Reshaped::default();
    if let Some(format) = &direct.format {
        let mut text = String::new();
        flow.record.facts(Some(&view), |facts| access_log::render(&format.format, facts, &mut text));
        body = text.into();
        reshaped.content_type = reshape::content_type(format);
    }
    if let Some(shape) = conn.shape(&view) {
        let own = reshaped.content_type.take();
        let mut text = String::from_utf8_lossy(&body).into_owned().into();
        reshaped = shape.apply(flow, &mut status, &mut text);
        reshaped.content_type = reshaped.content_type.or(own);
        body = text.into_owned().into();
    }
    let mut response = if request.sane.grpc {
        respond::grpc_reply(status, &String::from_utf8_lossy(&body))
    } else {
        respond::text_response(status, body)
    };
    reshaped.dress(&mut response, request.sane.grpc);
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

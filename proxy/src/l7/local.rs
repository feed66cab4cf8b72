//! Answers that a route makes by itself: direct responses, and the mutations that they and redirects get.

use http::{HeaderValue, Response, StatusCode, header};

use super::{
    body::Body,
    flow::Flow,
    headers::{self, Pseudo, RequestView},
    pipeline::{Inbound, levels, render},
    reshape::{self, Reshaped},
    respond::{self, Reply},
    rewrite::{self, Line},
    server::Connection,
};
use crate::{
    ir::route::{DirectResponse, PathRewrite, Redirect},
    policy::router::{RouteTable, Selected},
    telemetry::{access_log, flags::Flags},
};

/// The answer of a virtual host that is for TLS only.
pub(super) fn wants_tls(selected: Selected<'_>, request: &Inbound) -> Option<Reply> {
    (selected.virtual_host.require_tls && request.sane.origin.scheme != "https").then(|| {
        let location = format!("https://{}{}", request.authority(), request.path());
        Reply::new(StatusCode::MOVED_PERMANENTLY, "direct_response").location(location)
    })
}

/// The answer of a route that redirects.
pub(super) fn redirected(redirect: &Redirect, selected: Selected<'_>, flow: &Flow, request: &Inbound) -> Reply {
    let line = Line { scheme: request.sane.origin.scheme, authority: request.authority(), path: request.path() };
    let rendered = match &redirect.rewrite {
        Some(PathRewrite::Format(template)) => Some(render(template, "", flow, request)).filter(|p| !p.is_empty()),
        _ => None,
    };
    let (status, location) = match rendered {
        Some(path) => {
            let formatted = Redirect { path: Some(path.into()), rewrite: None, ..redirect.clone() };
            rewrite::redirect(&formatted, &selected.route.matches, &line)
        }
        None => rewrite::redirect(redirect, &selected.route.matches, &line),
    };
    Reply::new(status, "direct_response").location(location)
}

/// The answer where a route is for clients that balance for themselves: here it leads to no cluster.
pub(super) fn leads_nowhere() -> Reply {
    Reply::new(StatusCode::SERVICE_UNAVAILABLE, "cluster_not_found").flag(Flags::NO_CLUSTER)
}

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

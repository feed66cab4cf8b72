//! The life of one request, in order: sanitise, route, filter, act (reply, redirect or forward), finish the response.
//!
//! Every phase is one call; a phase that decides to answer returns a [`Reply`], and there is one place that turns it
//! into a response. The record travels in the [`Flow`] and speaks whichever way this future ends.

use std::{pin::Pin, rc::Rc};

use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header, request::Parts};

use super::{
    again,
    body::{Body, BodyError},
    engine::Pressure,
    filters::{self, After, Progress, Stop},
    flow::Flow,
    forward::{Forwarded, Forwarding},
    headers::{Pseudo, RequestView},
    incoming::Incoming,
    local, mesh, outcome,
    redirect::Hops,
    respond::{self, Reply},
    sanitize::{REQUEST_ID, Sane, sanitize},
    server::Connection,
    trace,
    upgrade::Promise,
};
use crate::{
    ir::{
        format::Template,
        http::{RouteSource, ServerHeader},
        route::{Action, HeaderOps},
    },
    live::{Live, LiveFilters},
    policy::router::{Miss, RequestFacts, RouteTable, Selected},
    telemetry::{flags::Flags, format},
};

/// A sane request and what came with it.
pub(in crate::l7) struct Inbound {
    pub parts: Parts,
    pub body: Incoming,
    pub sane: Sane,
    /// The codec's promise of the raw connection or stream, where the request asked for one.
    pub upgrade: Option<Promise>,
}

impl Inbound {
    pub(super) fn path(&self) -> &str {
        path(&self.parts)
    }

    pub(super) fn view(&self) -> RequestView<'_> {
        let pseudo = Pseudo { method: &self.parts.method, path: self.path(), scheme: self.sane.origin.scheme };
        RequestView { pseudo, headers: &self.parts.headers }
    }

    /// What routes and policies match on.
    pub(super) fn facts(&self, random: u64) -> RequestFacts<'_> {
        RequestFacts {
            authority: self.authority(),
            path: self.path(),
            method: &self.parts.method,
            scheme: self.sane.origin.scheme,
            headers: &self.parts.headers,
            certificate: self.sane.origin.certificate,
            random,
        }
    }

    pub(super) fn authority(&self) -> &str {
        self.parts.headers.get(header::HOST).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }
}

pub(super) fn path(parts: &Parts) -> &str {
    if parts.method == Method::CONNECT {
        return "";
    }
    parts.uri.path_and_query().map_or("/", |p| p.as_str())
}

/// What finishing a response needs to know of its request.
pub(in crate::l7) struct Ending {
    version: Version,
    head: bool,
    connect: bool,
    grpc: bool,
    /// The head was not in order: what the peer takes for the rest of the request may not be what we do.
    distrusted: bool,
    request_id: Option<HeaderValue>,
}

/// What serving a request comes to.
pub(super) type Handling = Pin<Box<dyn Future<Output = Result<Response<Body>, BodyError>>>>;

/// Serves one request. In memory of its own: connections would keep room for it while they idle, and what is moved
/// about on the way to its task would be all of it.
pub(super) fn handle(conn: Rc<Connection>, request: Request<Incoming>, upgrade: Option<Promise>) -> Handling {
    let flow = conn.open(request.version());
    let (mut parts, body) = request.into_parts();
    if http_body::Body::is_end_stream(&body) {
        flow.request_complete();
    }
    let mut ending = Ending {
        version: parts.version,
        head: parts.method == Method::HEAD,
        connect: parts.method == Method::CONNECT,
        grpc: false,
        distrusted: false,
        request_id: None,
    };
    let sane = match conn.engine.pressure.get() {
        Pressure::None => sanitize(&conn.hcm.config, &conn.scope.conn, &mut parts),
        Pressure::Counted if conn.engine.admit(&flow) => sanitize(&conn.hcm.config, &conn.scope.conn, &mut parts),
        Pressure::Counted | Pressure::Shed | Pressure::Tight => Err(outcome::shed(&conn.scope.stats)),
    };
    let sane = match sane {
        Ok(sane) => sane,
        Err(reply) => {
            note_head(&flow, &parts, "http");
            ending.grpc = respond::is_grpc(&parts.headers);
            ending.distrusted = !reply.status.is_redirection();
            count_reply(&conn, &reply);
            mesh::replied(&conn, &flow, &parts.headers, None);
            let pseudo = Pseudo { method: &parts.method, path: path(&parts), scheme: "http" };
            let view = RequestView { pseudo, headers: &parts.headers };
            if reply.status.as_u16() >= 400 {
                flow.record.failing(&view, (conn.scope.conn.remote, None));
            }
            let response = reply.into_response(&flow, ending.grpc, conn.shape(&view));
            let response = finish(&conn, &flow, &ending, response);
            return Box::pin(std::future::ready(Ok(response)));
        }
    };
    ending.grpc = sane.grpc;
    flow.record.grpc(sane.grpc);
    flow.record.remote_address(sane.origin.remote);
    Box::pin(serve(conn, flow, ending, Inbound { parts, body, sane, upgrade }))
}

#[allow(clippy::manual_async_fn, reason = "an async function would hold its arguments twice")]
pub(in crate::l7) fn serve(
    conn: Rc<Connection>,
    flow: Rc<Flow>,
    mut ending: Ending,
    mut request: Inbound,
) -> impl Future<Output = Result<Response<Body>, BodyError>> {
    async move {
        let mut after = After::default();
        let mut hops = Hops::default();
        let response = loop {
            // In this order: filters never look for a cluster in a snapshot older than they are.
            let in_force = conn.filters();
            let live = conn.engine.live.get();
            match act(&conn, &flow, (&live, &in_force), &mut request, (&mut after, &mut hops, &mut ending)).await {
                Ok(Forwarded::Response(response)) => break response,
                Ok(Forwarded::Elsewhere) => {
                    // As a new request: filters see it once more, limits count anew.
                    after = After::default();
                    flow.start_over();
                }
                Err(reply) => {
                    count_reply(&conn, &reply);
                    mesh::replied(&conn, &flow, &request.parts.headers, None);
                    let view = request.view();
                    if reply.status.as_u16() >= 400 {
                        flow.record.failing(&view, (request.sane.origin.remote, None));
                    }
                    break reply.into_response(&flow, ending.grpc, conn.shape(&view));
                }
            }
        };
        // Boxed: few responses are changed, all would keep the room for it.
        let response = if after.is_empty() { response } else { Box::pin(after.apply(&conn, &flow, response)).await };
        Ok(finish(&conn, &flow, &ending, response))
    }
}

/// Routes the request and does what the route says.
async fn act(
    conn: &Rc<Connection>,
    flow: &Rc<Flow>,
    (live, in_force): (&Live, &LiveFilters),
    request: &mut Inbound,
    (after, hops, ending): (&mut After, &mut Hops, &mut Ending),
) -> Result<Forwarded, Reply> {
    let random = fastrand::u64(..);
    let table = routes(conn, live);
    let scheme = request.sane.origin.scheme;
    let select =
        |request: &Inbound| table.ok_or(Miss::NoVirtualHost).and_then(|table| table.select(&request.facts(random)));
    let mut selected = select(request);
    if let Some(tracing) = &conn.hcm.tracing
        && hops.is_start()
    {
        trace::begin(tracing, (conn, flow), request, selected.as_ref().ok());
    }
    // Tracing notes in it what was decided.
    if conn.hcm.config.request_id_in_response && hops.is_start() {
        ending.request_id = request.parts.headers.get(&REQUEST_ID).cloned();
    }
    if in_force.look_at_notes || table.is_some_and(|t| t.looks_at_notes) {
        flow.record.watch(request.sane.origin.remote);
    }
    if let Ok(selected) = &selected {
        flow.record.route(&selected.route.name, &selected.route.metadata);
    }
    flow.set_idle(conn.hcm.config.stream_idle_timeout);
    if let Some(flush) = conn.hcm.config.stream_flush_timeout {
        flow.set_flush(flush);
    }
    let mut from = 0;
    loop {
        let filtered = filters::Call { conn, filters: in_force, flow, live, table, selected: selected.ok(), random };
        let Some(levels) = filtered.concerned() else { break };
        // Boxed: few requests wait here, all would keep the room for it.
        match Box::pin(filtered.run((&levels, from), request, after)).await {
            Ok(Progress::Through) => break,
            Ok(Progress::Rerouted(next)) => {
                from = next;
                selected = select(request);
                if let Ok(selected) = &selected {
                    flow.record.route(&selected.route.name, &selected.route.metadata);
                }
            }
            Err(stop) => {
                note_head(flow, &request.parts, scheme);
                let route = selected.as_ref().ok().map(|selected| &*selected.route.name);
                mesh::replied(conn, flow, &request.parts.headers, route);
                if stop.status().as_u16() >= 400 {
                    flow.record.failing(&request.view(), (request.sane.origin.remote, route));
                }
                return match stop {
                    Stop::Reply(reply) => Err(*reply),
                    Stop::Answer(response) => Ok(Forwarded::Response(*response)),
                };
            }
        }
    }
    let (table, selected) = match (table, selected) {
        (Some(table), Ok(selected)) => (table, selected),
        (_, selected) => {
            note_head(flow, &request.parts, scheme);
            return Err(no_route(selected.err().unwrap_or(Miss::NoVirtualHost)));
        }
    };
    if let Some(reply) = local::wants_tls(selected, request) {
        note_head(flow, &request.parts, scheme);
        return Err(reply);
    }
    let response = match &selected.route.action {
        Action::Forward(route) => {
            again::admit(conn, flow, in_force, request, random);
            let forwarding = Forwarding { conn, flow, live, table, selected, route, random };
            return forwarding.run(request, hops).await;
        }
        Action::Redirect(redirect) => {
            note_head(flow, &request.parts, scheme);
            mesh::replied(conn, flow, &request.parts.headers, Some(&selected.route.name));
            conn.scope.stats.local().rq_redirect.inc();
            let reply = local::redirected(redirect, selected, flow, request);
            let response = reply.into_response(flow, request.sane.grpc, conn.shape(&request.view()));
            local::finished(flow, table, selected, request, response)
        }
        Action::Direct(direct) => {
            note_head(flow, &request.parts, scheme);
            mesh::replied(conn, flow, &request.parts.headers, Some(&selected.route.name));
            conn.scope.stats.local().rq_direct_response.inc();
            flow.record.details("direct_response");
            local::finished(flow, table, selected, request, local::direct_response(direct, conn, flow, request))
        }
        Action::NonForwarding => {
            note_head(flow, &request.parts, scheme);
            return Err(local::leads_nowhere());
        }
    };
    Ok(Forwarded::Response(response))
}

pub(super) fn routes<'a>(conn: &'a Connection, live: &'a Live) -> Option<&'a RouteTable> {
    match &conn.hcm.config.routes {
        RouteSource::Inline(_) => conn.hcm.inline_routes.as_deref(),
        RouteSource::Rds { name, .. } => live.routes(name).map(|table| &**table),
    }
}

/// Envoy says the same whatever was missing.
pub(super) fn no_route(_: Miss) -> Reply {
    Reply::new(StatusCode::NOT_FOUND, "route_not_found").flag(Flags::NO_ROUTE)
}

pub(super) fn count_reply(conn: &Connection, reply: &Reply) {
    let stats = conn.scope.stats.local();
    if reply.flags.contains(Flags::NO_ROUTE) {
        stats.no_route.inc();
    }
    if reply.flags.contains(Flags::NO_CLUSTER) {
        stats.no_cluster.inc();
    }
    match &*reply.details {
        "path_normalization_failed" => stats.downstream_rq_failed_path_normalization.inc(),
        "path_normalization_redirect" => stats.downstream_rq_redirected_with_normalized_path.inc(),
        "request_headers_too_large" | "request_payload_too_large" => stats.downstream_rq_too_large.inc(),
        "upgrade_failed" => stats.downstream_rq_ws_on_non_ws_route.inc(),
        "request_overall_timeout" => stats.downstream_rq_timeout.inc(),
        "stream_idle_timeout" => stats.downstream_rq_idle_timeout.inc(),
        "max_duration_timeout" => stats.downstream_rq_max_duration_reached.inc(),
        _ => {}
    }
}

/// Notes the request head for the access log as it stands.
pub(super) fn note_head(flow: &Flow, parts: &Parts, scheme: &str) {
    if flow.record.logged() {
        let pseudo = Pseudo { method: &parts.method, path: path(parts), scheme };
        flow.record.request_head(&RequestView { pseudo, headers: &parts.headers });
    }
}

/// The mutations of a route's levels in the order they apply.
pub(super) fn levels<'a>(
    table: &'a RouteTable,
    selected: Selected<'a>,
    weighted: Option<&'a HeaderOps>,
) -> impl Iterator<Item = &'a HeaderOps> {
    let mut levels =
        [weighted, Some(&*selected.route.headers), Some(&*selected.virtual_host.headers), Some(&table.config.headers)];
    if table.config.most_specific_wins {
        levels.reverse();
    }
    levels.into_iter().flatten().filter(|ops| !ops.is_empty())
}

/// The value of a template for a request, `absent` standing for what is not there.
pub(super) fn render(template: &Template, absent: &str, flow: &Flow, request: &Inbound) -> String {
    let mut text = String::new();
    flow.record.facts(Some(&request.view()), |facts| format::render(template, facts, absent, &mut text));
    text
}

/// The last touch to every response, local or not.
fn finish(conn: &Connection, flow: &Rc<Flow>, ending: &Ending, mut response: Response<Body>) -> Response<Body> {
    let config = &conn.hcm.config;
    let status = response.status();
    let headers = response.headers_mut();
    match config.server_header {
        ServerHeader::Overwrite => {
            headers.insert(header::SERVER, config.server_name.clone());
        }
        ServerHeader::AppendIfAbsent if !headers.contains_key(header::SERVER) => {
            headers.insert(header::SERVER, config.server_name.clone());
        }
        ServerHeader::AppendIfAbsent | ServerHeader::PassThrough => {}
    }
    if !config.via.is_empty() {
        super::forwarded::append(headers, &header::VIA, &config.via);
    }
    if let Some(id) = &ending.request_id {
        headers.insert(REQUEST_ID, id.clone());
    }
    let http1 = ending.version != Version::HTTP_2;
    let tunnel = status == StatusCode::SWITCHING_PROTOCOLS || (ending.connect && status.is_success());
    // Who is answered before all of the request came may never send the rest: nothing can follow it.
    let early = flow.record.request_done().is_none();
    if http1 && !tunnel && (ending.distrusted || early || conn.last_request()) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(span) = flow.record.span() {
        span.exchange_names(headers);
    }
    flow.record.response_head(status.as_u16(), headers);
    match response.body() {
        Body::Download(_)
        | Body::Upload(_)
        | Body::Throttled(_)
        | Body::GrpcWeb(_)
        | Body::Retrailed(_)
        | Body::Copy(_) => {}
        Body::Empty => {
            flow.record.response_complete();
            // hyper drops the length of a bodiless 304 unless the body itself claims it.
            if http1
                && !ending.head
                && status == StatusCode::NOT_MODIFIED
                && let Some(length) = response.headers().get(header::CONTENT_LENGTH)
                && let Some(length) = length.to_str().ok().and_then(|v| v.parse().ok())
            {
                *response.body_mut() = Body::Announced(length);
            }
        }
        Body::Full(_) | Body::Announced(_) => {
            flow.record.response_complete();
            if ending.head {
                *response.body_mut() = Body::Empty;
            } else if let Body::Full(Some(data)) = response.body() {
                flow.record.sent(data.len());
            }
        }
    }
    response
}

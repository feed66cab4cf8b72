//! What a request would come to, and why: decided by the functions that decide on requests, in the pipeline's order.
//!
//! The request is a copy, its record one that nobody reads: nothing is counted, logged, taken or sent. What cannot be
//! known without asking somebody is said to be unknown. Invariant: no decision is made here.

use std::{collections::BTreeMap, rc::Rc, sync::Arc};

use http::request::Parts;
use serde_json::{Value, json};

use super::{
    engine::Engine,
    filters::{self, Foretold, Progress},
    flow::Flow,
    forward::Forwarding,
    headers::{Pseudo, RequestView},
    incoming::Incoming,
    local, outcome,
    pipeline::{self, Inbound},
    respond::{Reply, is_grpc},
    sanitize::sanitize,
    server::Connection,
};
use crate::{
    ir::route::{Action, PathMatch, Route},
    live::{Live, LiveFilters, LiveHcm, Publisher, Reader},
    policy::router::{Chosen, Miss, RouteTable, Selected, pick_target},
    telemetry::{exchange::HttpScope, record::ConnInfo},
};

/// Draws that are made to see what is left to chance.
const DRAWS: u32 = 1024;

/// Explains a request that nobody sent, on a connection that nobody made.
pub fn explain(publisher: &Arc<Publisher>, hcm: &Arc<LiveHcm>, info: ConnInfo, mut parts: Parts) -> Value {
    let engine = Rc::new(Engine::new(Reader::new(publisher.clone())));
    let conn = Connection::imagined(Rc::new(info), hcm.clone(), engine);
    let mut report = json!({"connection_manager": *hcm.config.stat_prefix});
    match sanitize(&conn.hcm.config, &conn.scope.conn, &mut parts) {
        Ok(sane) => {
            let request = Inbound { parts, body: Incoming::None, sane, upgrade: None };
            let (live, in_force) = (conn.engine.live.get(), conn.filters());
            decide(&conn, (&live, &in_force), request, fastrand::u64(..), &mut report);
        }
        Err(reply) => {
            let flow = Flow::open(conn.scope.clone(), parts.version, None);
            flow.record.imagine();
            let grpc = is_grpc(&parts.headers);
            report["outcome"] = answered(reply, (&conn, &flow), (&parts, "http", grpc));
        }
    }
    report
}

/// Explains a request among the filters, as it stands.
pub(super) fn of(call: &filters::Call<'_>, request: &Inbound) -> Value {
    let copy =
        Inbound { parts: request.parts.clone(), body: Incoming::None, sane: request.sane.clone(), upgrade: None };
    let mut report = json!({"connection_manager": *call.conn.hcm.config.stat_prefix});
    decide(call.conn, (call.live, call.filters), copy, call.random, &mut report);
    report
}

/// An answer of our own as the client gets it.
fn answered(reply: Reply, (conn, flow): (&Connection, &Flow), (parts, scheme, grpc): (&Parts, &str, bool)) -> Value {
    let pseudo = Pseudo { method: &parts.method, path: pipeline::path(parts), scheme };
    let view = RequestView { pseudo, headers: &parts.headers };
    let (details, flags, location) = (reply.details.to_string(), reply.flags.to_string(), reply.location.clone());
    let response = reply.into_response(flow, grpc, conn.shape(&view));
    let grpc_status = response.headers().get("grpc-status").and_then(|v| v.to_str().ok());
    json!({
        "kind": "answered",
        "status": response.status().as_u16(),
        "grpc_status": grpc_status,
        "details": details,
        "flags": flags,
        "location": location,
    })
}

fn decide(
    conn: &Rc<Connection>,
    (live, in_force): (&Live, &LiveFilters),
    mut request: Inbound,
    random: u64,
    report: &mut Value,
) {
    let scope = HttpScope { conn: conn.scope.conn.clone(), stats: Arc::default(), logs: Arc::default(), mesh: None };
    let flow = &Flow::open(Rc::new(scope), request.parts.version, None);
    flow.record.imagine();
    flow.record.watch(request.sane.origin.remote);
    let table = pipeline::routes(conn, live);
    report["request"] = json!({
        "method": request.parts.method.as_str(),
        "authority": request.authority(),
        "path": request.path(),
        "scheme": request.sane.origin.scheme,
        "client": request.sane.origin.remote.to_string(),
    });
    report["route_configuration"] = table.map(|t| t.config.name.to_string()).into();
    let select = |request: &Inbound| {
        let selected = table.ok_or(Miss::NoVirtualHost).and_then(|table| table.select(&request.facts(random)));
        if let Ok(selected) = &selected {
            flow.record.route(&selected.route.name, &selected.route.metadata);
        }
        selected
    };
    let mut selected = select(&request);
    let mut told = Foretold::default();
    let mut from = 0;
    loop {
        let call = filters::Call { conn, filters: in_force, flow, live, table, selected: selected.ok(), random };
        let Some(levels) = call.concerned() else { break };
        match call.foretell((&levels, from), &mut request, &mut told) {
            Progress::Through => break,
            Progress::Rerouted(next) => {
                from = next;
                selected = select(&request);
            }
        }
    }
    if let Ok(selected) = selected {
        report["virtual_host"] = (*selected.virtual_host.name).into();
        report["route"] = route(selected);
    }
    if let Some(table) = table {
        report["by_chance"] = by_chance(table, &request);
    }
    report["filters"] = told.filters.into();
    report["unknown"] = told.unknown.into();
    let answered = |reply: Reply, request: &Inbound| {
        answered(reply, (conn, flow), (&request.parts, request.sane.origin.scheme, request.sane.grpc))
    };
    if let Some((status, details)) = told.answer {
        report["outcome"] = json!({"kind": "answered", "status": status.as_u16(), "details": details});
        return;
    }
    let (table, selected) = match (table, selected) {
        (Some(table), Ok(selected)) => (table, selected),
        (_, selected) => {
            let reply = pipeline::no_route(selected.err().unwrap_or(Miss::NoVirtualHost));
            report["outcome"] = answered(reply, &request);
            return;
        }
    };
    if let Some(reply) = local::wants_tls(selected, &request) {
        report["outcome"] = answered(reply, &request);
        return;
    }
    report["outcome"] = match &selected.route.action {
        Action::Forward(route) => {
            let forwarding = Forwarding { conn, flow, live, table, selected, route, random };
            match forwarding.foretell(&mut request) {
                Ok(plan) => {
                    let outcome = match plan["endpoints"]["eligible"].as_u64() {
                        Some(0) => answered(outcome::none_healthy(), &request),
                        _ => json!({"kind": "forwarded", "cluster": plan["cluster"]}),
                    };
                    report["forwarding"] = plan;
                    outcome
                }
                Err(reply) => answered(reply, &request),
            }
        }
        Action::Redirect(redirect) => answered(local::redirected(redirect, selected, flow, &request), &request),
        Action::Direct(direct) => {
            let response = local::direct_response(direct, conn, flow, &request);
            json!({"kind": "answered", "status": response.status().as_u16(), "details": "direct_response"})
        }
        Action::NonForwarding => answered(local::leads_nowhere(), &request),
    };
}

/// Where else the same request might go: routes for a fraction of the requests, and weighted clusters. Found by drawing,
/// so that shares are about right and what is very rare may be missing. Null where nothing is left to chance.
fn by_chance(table: &RouteTable, request: &Inbound) -> Value {
    let mut found: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    // No seed: the same question gets the same answer.
    let mut draws = fastrand::Rng::with_seed(0);
    for _ in 0..DRAWS {
        let random = draws.u64(..);
        let Ok(selected) = table.select(&request.facts(random)) else {
            *found.entry(("", "")).or_default() += 1;
            continue;
        };
        let cluster = match &selected.route.action {
            Action::Forward(route) => pick_target(&route.target, &request.parts.headers, random).map(Chosen::cluster),
            _ => None,
        };
        *found.entry((&selected.route.name, cluster.unwrap_or_default())).or_default() += 1;
    }
    if found.len() < 2 {
        return Value::Null;
    }
    let one = |((route, cluster), times)| json!({"route": route, "cluster": cluster, "percent": times * 100 / DRAWS});
    found.into_iter().map(one).collect()
}

fn route(selected: Selected<'_>) -> Value {
    let Route { name, matches, action, .. } = &**selected.route;
    let place = selected.virtual_host.routes.iter().position(|r| Arc::ptr_eq(r, selected.route));
    let path = match &matches.path {
        PathMatch::Prefix(text) => json!({"prefix": **text}),
        PathMatch::Exact(text) => json!({"path": **text}),
        other => json!({"pattern": format!("{other:?}")}),
    };
    json!({
        "name": **name,
        "place": place,
        "match": path,
        "further_conditions": matches.headers.len() + matches.query.len(),
        "action": match action {
            Action::Forward(_) => "forward",
            Action::Redirect(_) => "redirect",
            Action::Direct(_) => "direct_response",
            Action::NonForwarding => "non_forwarding",
        },
    })
}

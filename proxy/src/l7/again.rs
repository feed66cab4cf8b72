//! Whether rules that came later still let a request through that is under way: a tunnel, or a gRPC stream.
//!
//! What its RBAC filters looked at is kept as it was when they let it pass, as cheaply as can be: headers only where the
//! rules in force read any. Invariant: rules that look at what is not known any more refuse. Who asks others (JWT,
//! external authorization) is not asked again.

use std::{
    cell::Cell,
    rc::Rc,
    task::{Context, Poll},
};

use http::{HeaderMap, HeaderValue, Method, Uri, header};

use super::{
    filters::Call,
    flow::Flow,
    forwarded::Origin,
    pipeline::{self, Inbound},
    sanitize::Tunnel,
    server::Connection,
};
use crate::{
    drain::{Changes, Ticket},
    live::LiveFilters,
    policy::router::RequestFacts,
    telemetry::flags::Flags,
};

/// What is known of a request that was let through.
pub(super) struct Admitted {
    changes: Rc<Changes>,
    ticket: Ticket,
    /// The generation of the filters that let it through.
    seen: Cell<u64>,
    method: Method,
    uri: Uri,
    authority: Option<HeaderValue>,
    /// `None`: not kept.
    headers: Option<HeaderMap>,
    origin: Origin,
    random: u64,
}

/// Notes a request that may go on for long and was let through by `filters`.
pub(super) fn admit(conn: &Connection, flow: &Flow, filters: &LiveFilters, request: &Inbound, random: u64) {
    let tunnel = request.sane.tunnel != Tunnel::None;
    if !tunnel && !request.sane.grpc {
        return;
    }
    let Some(changes) = &conn.changes else { return };
    // In this order: what is replaced in between is found at the first look.
    let generation = conn.hcm.standing.generation();
    let current = std::ptr::eq(&**conn.filters(), filters);
    let headers = &request.parts.headers;
    flow.admit(Admitted {
        changes: changes.clone(),
        ticket: Ticket::default(),
        seen: Cell::new(if current { generation } else { generation.wrapping_sub(1) }),
        method: request.parts.method.clone(),
        uri: request.parts.uri.clone(),
        authority: headers.get(header::HOST).cloned(),
        headers: (tunnel || filters.reads_headers).then(|| headers.clone()),
        origin: request.sane.origin,
        random,
    });
}

/// Ready once rules that are in force now refuse what goes on. Then that is noted, and to be cut.
pub(super) fn poll_refused(flow: &Rc<Flow>, cx: &mut Context<'_>) -> Poll<()> {
    let (Some(admitted), Some(conn)) = (flow.admitted(), flow.connection()) else { return Poll::Pending };
    admitted.changes.register(&admitted.ticket, cx.waker());
    let generation = conn.hcm.standing.generation();
    if admitted.seen.replace(generation) == generation {
        return Poll::Pending;
    }
    let Some(details) = admitted.refusal(conn, flow) else { return Poll::Pending };
    tracing::debug!(peer = %conn.scope.conn.remote, details, "stream cut: it is not allowed any more");
    flow.record.flag(Flags::LOCAL_RESET);
    flow.record.details(details);
    Poll::Ready(())
}

impl Admitted {
    fn refusal(&self, conn: &Rc<Connection>, flow: &Rc<Flow>) -> Option<String> {
        // In this order: filters never look for a cluster in a snapshot older than they are.
        let filters = conn.filters();
        let live = conn.engine.live.get();
        let table = pipeline::routes(conn, &live);
        let unknown = HeaderMap::new();
        let path = match self.method {
            Method::CONNECT => "",
            _ => self.uri.path_and_query().map_or("/", |p| p.as_str()),
        };
        let facts = RequestFacts {
            authority: self.authority.as_ref().and_then(|v| v.to_str().ok()).unwrap_or_default(),
            path,
            method: &self.method,
            scheme: self.origin.scheme,
            headers: self.headers.as_ref().unwrap_or(&unknown),
            certificate: self.origin.certificate,
            random: self.random,
        };
        let selected = table.and_then(|table| table.select(&facts).ok());
        let call = Call { conn, filters: &filters, flow, live: &live, table, selected, random: self.random };
        call.refused_again(facts, self.origin.remote, self.headers.is_some())
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.changes.forget(&self.ticket);
    }
}

//! Where requests meet tracing: the first look, and what tries came to. The rest is with the record.

use std::{rc::Rc, sync::Arc};

use http::{HeaderMap, request::Parts};

use super::{
    body::Body,
    client::{SendError, SendErrorKind, Sent},
    flow::Flow,
    names::Names,
    pipeline::Inbound,
    server::Connection,
    timeouts::Expired,
};
use crate::{
    ir::listener::Direction,
    policy::router::Selected,
    telemetry::trace::{Head, Request, Tracing, TryResult},
};

/// Decides whether the request is traced, and begins its span.
#[inline(never)]
pub(super) fn begin(
    tracing: &Arc<Tracing>,
    (conn, flow): (&Rc<Connection>, &Rc<Flow>),
    request: &mut Inbound,
    selected: Option<&Selected<'_>>,
) {
    let Inbound { parts: Parts { method, uri, headers, .. }, sane, .. } = request;
    let asked = Request {
        headers,
        has_context: sane.names.has(Names::TRACE),
        has_client_id: sane.names.has(Names::CLIENT_TRACE),
        has_envoy: sane.names.has(Names::ENVOY),
        egress: conn.scope.conn.direction == Direction::Outbound,
        route: selected.and_then(|selected| selected.route.tracing.as_ref()),
        started: flow.record.started(),
    };
    let head = |headers: &HeaderMap| {
        let path = uri.path_and_query().map_or("", |path| path.as_str());
        Head::new((method, path, sane.origin.scheme), headers, sane.grpc)
    };
    if let Some(span) = tracing.open(asked, head) {
        flow.record.trace(span, sane.origin.remote);
    }
}

/// What a try came to, before anybody judged it.
type Answer = Result<Result<Sent, Box<SendError<Body>>>, Expired>;

/// Tells the request's span, where it has one, what a try came to.
#[inline]
pub(super) fn tried(flow: &Flow, number: u32, result: &Answer) {
    if let Some(span) = flow.record.span() {
        span.try_ended(number, of_try(result));
    }
}

#[cold]
fn of_try(result: &Answer) -> TryResult {
    match result {
        Ok(Ok(sent)) => TryResult::Status(sent.response.status().as_u16()),
        Ok(Err(error)) => TryResult::Failed(match error.kind {
            SendErrorKind::Connect(_) => "connection_failure",
            SendErrorKind::Refused => "refused",
            SendErrorKind::Unsent | SendErrorKind::Reset { .. } => "connection_termination",
            SendErrorKind::StreamReset => "remote_reset",
            SendErrorKind::PoolOverflow => "overflow",
            SendErrorKind::Protocol => "protocol_error",
            SendErrorKind::Body => "request_aborted",
        }),
        Err(expired) => TryResult::Failed(match expired {
            Expired::PerTry | Expired::PerTryIdle => "per_try_timeout",
            Expired::Upstream | Expired::Stream => "max_duration",
            Expired::Response | Expired::Request => "timeout",
            Expired::Idle => "idle_timeout",
        }),
    }
}

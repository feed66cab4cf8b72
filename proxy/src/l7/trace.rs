//! Where requests meet tracing: the first look, and what tries came to. The rest is with the record.

use std::{rc::Rc, sync::Arc};

use super::{
    body::Body,
    client::{SendError, SendErrorKind, Sent},
    flow::Flow,
    names::Names,
    pipeline::{self, Inbound},
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
    let Inbound { parts, sane, .. } = request;
    let path = pipeline::path(parts).to_owned();
    let (method, scheme, grpc) = (parts.method.clone(), sane.origin.scheme, sane.grpc);
    let asked = Request {
        headers: &mut parts.headers,
        has_context: sane.names.has(Names::TRACE),
        has_client_id: sane.names.has(Names::CLIENT_TRACE),
        has_envoy: sane.names.has(Names::ENVOY),
        egress: conn.scope.conn.direction == Direction::Outbound,
        route: selected.and_then(|selected| selected.route.tracing.as_ref()),
        started: flow.record.started(),
    };
    if let Some(span) = tracing.open(asked, |headers| Head::new((&method, &path, scheme), headers, grpc)) {
        flow.record.trace(span, sane.origin.remote);
    }
}

/// Tells the request's span, where it has one, what a try came to.
pub(super) fn tried(flow: &Flow, number: u32, result: &Result<Result<Sent, Box<SendError<Body>>>, Expired>) {
    let Some(span) = flow.record.span() else { return };
    let result = match result {
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
    };
    span.try_ended(number, result);
}

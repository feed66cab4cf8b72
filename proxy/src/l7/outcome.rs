//! What failures are called: Envoy's texts, flags and details for every way a try can end, and its counters.

use http::StatusCode;

use super::{client::SendErrorKind, respond::Reply, retry::Failure, timeouts::Expired};
use crate::{
    telemetry::{
        flags::Flags,
        metrics::{HttpStats, Sharded},
    },
    upstream::{Cluster, ConnectErrorKind},
};

const BEFORE_HEADERS: &str = "upstream connect error or disconnect/reset before headers. ";

/// The answer to a request that comes while the process is short of memory.
#[cold]
pub(super) fn shed(stats: &Sharded<HttpStats>) -> Reply {
    stats.local().downstream_rq_overload_close.inc();
    Reply::new(StatusCode::SERVICE_UNAVAILABLE, "overload").body("envoy overloaded").overloaded(true)
}

/// Names a failed try.
pub(super) fn classify(kind: &SendErrorKind, reason: &str) -> (Failure, Reply) {
    let reply = |reset: &'static str, flag| {
        Reply::new(StatusCode::SERVICE_UNAVAILABLE, details(reset, None))
            .body(format!("{BEFORE_HEADERS}reset reason: {reset}"))
            .flag(flag)
    };
    match kind {
        SendErrorKind::Connect(error) if error.kind == ConnectErrorKind::Overflow => (Failure::Overflow, overflow()),
        SendErrorKind::Connect(error) => {
            let reset = match error.kind {
                ConnectErrorKind::Timeout => "connection timeout",
                ConnectErrorKind::Refused
                | ConnectErrorKind::Unreachable
                | ConnectErrorKind::Tls
                | ConnectErrorKind::Io
                | ConnectErrorKind::Overflow => "remote connection failure",
            };
            // The reason goes to the log only: what our network looks like is not the client's business.
            let reason = (error.kind != ConnectErrorKind::Timeout).then_some(reason);
            let reply = Reply::new(StatusCode::SERVICE_UNAVAILABLE, details(reset, reason))
                .body(format!("{BEFORE_HEADERS}reset reason: {reset}"))
                .flag(Flags::UPSTREAM_CONNECTION_FAILURE);
            (Failure::Connect, reply)
        }
        SendErrorKind::PoolOverflow => (Failure::Overflow, overflow()),
        SendErrorKind::Refused => {
            (Failure::Refused, reply("remote refused stream reset", Flags::UPSTREAM_REMOTE_RESET))
        }
        SendErrorKind::Unsent => {
            (Failure::Unsent, reply("connection termination", Flags::UPSTREAM_CONNECTION_TERMINATION))
        }
        SendErrorKind::Reset { reused, response_started } => (
            Failure::Reset { reused: *reused && !response_started },
            reply("connection termination", Flags::UPSTREAM_CONNECTION_TERMINATION),
        ),
        SendErrorKind::StreamReset => {
            (Failure::Reset { reused: false }, reply("remote reset", Flags::UPSTREAM_REMOTE_RESET))
        }
        SendErrorKind::Protocol => {
            let reply = Reply::new(StatusCode::BAD_GATEWAY, details("protocol error", None))
                .body(format!("{BEFORE_HEADERS}reset reason: protocol error"))
                .flag(Flags::UPSTREAM_PROTOCOL_ERROR);
            (Failure::Protocol, reply)
        }
        // The client's own body broke off: whatever is answered, there is hardly anyone to hear it.
        SendErrorKind::Body => (
            Failure::Reset { reused: false },
            Reply::new(StatusCode::BAD_REQUEST, "downstream_remote_disconnect")
                .flag(Flags::DOWNSTREAM_CONNECTION_TERMINATION),
        ),
    }
}

/// Says in the reply to a failed try that it was not the first.
pub(super) fn retried(reply: &mut Reply) {
    if let Some(reset) = reply.body.strip_prefix(BEFORE_HEADERS) {
        reply.body = format!("{BEFORE_HEADERS}retried and the latest {reset}").into();
    }
}

fn overflow() -> Reply {
    Reply::new(StatusCode::SERVICE_UNAVAILABLE, details("overflow", None))
        .body(format!("{BEFORE_HEADERS}reset reason: overflow"))
        .flag(Flags::UPSTREAM_OVERFLOW)
        .overloaded(true)
}

/// `upstream_reset_before_response_started{...}`, spaces as underscores.
fn details(reset: &str, reason: Option<&str>) -> String {
    let reason = reason.map(|r| format!("|{r}")).unwrap_or_default();
    format!("upstream_reset_before_response_started{{{reset}{reason}}}").replace(' ', "_")
}

/// The reply when a limit ran out before the response came; `arrived`: after all of the request had.
pub(super) fn expired(expired: Expired, arrived: bool) -> Reply {
    // The status gRPC clients expect where Envoy names one: DEADLINE_EXCEEDED.
    const DEADLINE_EXCEEDED: u16 = 4;
    // Whose fault it is that nothing came of it.
    let late = if arrived { StatusCode::GATEWAY_TIMEOUT } else { StatusCode::REQUEST_TIMEOUT };
    match expired {
        Expired::Response => Reply::new(StatusCode::GATEWAY_TIMEOUT, "response_timeout")
            .body("upstream request timeout")
            .flag(Flags::UPSTREAM_REQUEST_TIMEOUT),
        Expired::PerTry => Reply::new(StatusCode::GATEWAY_TIMEOUT, "upstream_per_try_timeout")
            .body("upstream request timeout")
            .flag(Flags::UPSTREAM_REQUEST_TIMEOUT),
        Expired::PerTryIdle => Reply::new(StatusCode::GATEWAY_TIMEOUT, "upstream_per_try_idle_timeout")
            .body("upstream request timeout")
            .flag(Flags::UPSTREAM_REQUEST_TIMEOUT),
        Expired::Upstream => Reply::new(late, "upstream_max_stream_duration_reached")
            .body("upstream max stream duration reached")
            .flag(Flags::UPSTREAM_MAX_STREAM_DURATION),
        Expired::Request => Reply::new(StatusCode::REQUEST_TIMEOUT, "request_overall_timeout").body("request timeout"),
        Expired::Stream => Reply::new(late, "max_duration_timeout")
            .body("downstream duration timeout")
            .flag(Flags::DURATION_TIMEOUT)
            .grpc(DEADLINE_EXCEEDED),
        Expired::Idle => {
            Reply::new(late, "stream_idle_timeout").body("stream timeout").flag(Flags::STREAM_IDLE_TIMEOUT)
        }
    }
}

/// No host can be chosen.
pub(super) fn none_healthy() -> Reply {
    Reply::new(StatusCode::SERVICE_UNAVAILABLE, "no_healthy_upstream")
        .body("no healthy upstream")
        .flag(Flags::NO_HEALTHY_UPSTREAM)
}

/// A reply for what cannot happen, in place of a panic that would take the connection with it.
pub(super) fn internal() -> Reply {
    Reply::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error")
}

/// Counts a reply as what the upstream came to, where that is to blame.
pub(super) fn count_reply(cluster: &Cluster, reply: &Reply) {
    if reply.attempts > 0 && !reply.flags.contains(Flags::UPSTREAM_MAX_STREAM_DURATION) {
        count(cluster, reply.status);
    }
}

/// Counts an upstream response.
pub(super) fn count(cluster: &Cluster, status: StatusCode) {
    let stats = cluster.stats.local();
    stats.upstream_rq_completed.inc();
    match status.as_u16() / 100 {
        1 => stats.upstream_rq_1xx.inc(),
        2 => stats.upstream_rq_2xx.inc(),
        3 => stats.upstream_rq_3xx.inc(),
        4 => stats.upstream_rq_4xx.inc(),
        _ => stats.upstream_rq_5xx.inc(),
    }
}

/// Istio switches the ALPN override off for clusters whose peers are no sidecars.
pub(super) fn alpn_override_allowed(cluster: &Cluster) -> bool {
    let metadata = cluster.config.metadata.as_deref();
    let value = metadata.and_then(|m| m.get("istio")).and_then(|m| m.get("alpn_override"));
    value.and_then(serde_json::Value::as_str) != Some("false")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::ConnectError;

    #[test]
    fn failed_connections_have_envoys_details() {
        let details = |kind, reason: &str| {
            let error = SendErrorKind::Connect(ConnectError { kind, reason: reason.to_owned() });
            classify(&error, reason).1.details.into_owned()
        };
        assert_eq!(
            details(ConnectErrorKind::Timeout, "connection timeout"),
            "upstream_reset_before_response_started{connection_timeout}"
        );
        assert_eq!(
            details(ConnectErrorKind::Refused, "delayed connect error: Connection refused"),
            "upstream_reset_before_response_started{remote_connection_failure|\
             delayed_connect_error:_Connection_refused}"
        );
    }

    #[test]
    fn only_what_was_tried_again_says_so() {
        let mut reply = overflow();
        retried(&mut reply);
        assert_eq!(reply.body, format!("{BEFORE_HEADERS}retried and the latest reset reason: overflow"));
        let mut reply = expired(Expired::Response, true);
        retried(&mut reply);
        assert_eq!(reply.body, "upstream request timeout");
    }
}

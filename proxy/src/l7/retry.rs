//! Whether an attempt is worth another one: pure decisions over a policy, the request and what happened.
//!
//! Two rules, kept apart. What provably never reached an application is replayed without any policy, a few times.
//! Everything else needs a policy that names the condition, and a permit from the cluster's retry budget, which the
//! caller asks for.

use std::time::Duration;

use http::{HeaderMap, HeaderName, Method, StatusCode};

use crate::{
    ir::route::{RetryOn, RetryPolicy},
    policy::router::header_value,
};

#[cfg(test)]
#[path = "retry_tests.rs"]
mod tests;

const PER_TRY_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-upstream-rq-per-try-timeout-ms");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// Replays of provably unprocessed requests, per request.
pub const MAX_REPLAYS: u32 = 3;
/// Default of `x-envoy-max-retries` when only `x-envoy-retry-on` is sent.
const DEFAULT_BASE: Duration = Duration::from_millis(25);

/// How an attempt failed before a response head came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection could be made.
    Connect,
    /// A limit (circuit breaker, pending requests) refused it here.
    Overflow,
    /// REFUSED_STREAM, GOAWAY: the peer says it did not process it.
    Refused,
    /// The connection was closed before a byte of the request was written.
    Unsent,
    /// The connection or stream broke after something was written. `reused`: not the connection's first request.
    Reset {
        reused: bool,
    },
    PerTryTimeout,
    /// The peer does not speak HTTP.
    Protocol,
}

/// What an attempt came to.
#[derive(Clone, Copy, Debug)]
pub enum Outcome<'a> {
    Response { status: StatusCode, headers: &'a HeaderMap },
    Failed(Failure),
}

/// Facts of the request that decide with.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub method: &'a Method,
    /// Whether the request body can be sent again from its start.
    pub replayable: bool,
    pub has_body: bool,
}

/// What the route (or the request's own `x-envoy-*` headers) allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    pub on: RetryOn,
    pub max_retries: u32,
    pub per_try_timeout: Option<Duration>,
    pub per_try_idle_timeout: Option<Duration>,
    pub status: Vec<u16>,
    pub base: Duration,
    pub max: Duration,
    pub avoid_previous_hosts: bool,
    pub host_selection_attempts: u32,
}

impl Rules {
    /// Combines a policy with the request's headers; `headers` is `None` where the router suppresses them.
    pub fn new(policy: Option<&RetryPolicy>, headers: Option<&HeaderMap>) -> Option<Self> {
        let mut rules = policy.map(|p| Self {
            on: p.on,
            max_retries: p.max_retries,
            per_try_timeout: p.per_try_timeout,
            per_try_idle_timeout: p.per_try_idle_timeout,
            status: p.retriable_status.clone(),
            base: p.backoff_base,
            max: p.backoff_max,
            avoid_previous_hosts: p.avoid_previous_hosts,
            host_selection_attempts: p.host_selection_attempts,
        });
        let Some(headers) = headers else { return rules };
        let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
        for name in ["x-envoy-retry-on", "x-envoy-retry-grpc-on"] {
            if let Some(list) = text(name) {
                let rules = rules.get_or_insert_with(|| Self {
                    max_retries: 1,
                    base: DEFAULT_BASE,
                    max: DEFAULT_BASE * 10,
                    host_selection_attempts: 1,
                    ..Self::default()
                });
                rules.on = rules.on.union(RetryOn::parse(list).0);
            }
        }
        let rules = rules.as_mut()?;
        if let Some(list) = text("x-envoy-retriable-status-codes") {
            rules.status.extend(list.split(',').filter_map(|code| code.trim().parse::<u16>().ok()).take(32));
        }
        if let Some(max) = text("x-envoy-max-retries").and_then(|v| v.trim().parse().ok()) {
            rules.max_retries = max;
        }
        if let Some(timeout) = super::headers::millis(headers, &PER_TRY_TIMEOUT) {
            rules.per_try_timeout = Some(timeout).filter(|t| !t.is_zero());
        }
        Some(rules.clone())
    }
}

/// The verdict on one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send it again at once, policy or not.
    Replay,
    /// Try again after a backoff, if the budget allows.
    Retry,
    GiveUp,
    /// The policy would have retried, but its limit is reached.
    LimitExceeded,
}

/// Decides. `replays` and `retries` count what was already done for this request.
pub fn decide(
    rules: Option<&Rules>,
    policy: Option<&RetryPolicy>,
    request: &Request<'_>,
    outcome: &Outcome<'_>,
    done: (u32, u32),
) -> Verdict {
    let (replays, retries) = done;
    if let Outcome::Failed(failure) = outcome
        && replays < MAX_REPLAYS
        && is_safe(*failure, request)
    {
        return Verdict::Replay;
    }
    let Some(rules) = rules else { return Verdict::GiveUp };
    if !request.replayable || !wants(rules, policy, outcome) {
        return Verdict::GiveUp;
    }
    if retries >= rules.max_retries { Verdict::LimitExceeded } else { Verdict::Retry }
}

/// Whether sending again cannot make an application do anything twice.
fn is_safe(failure: Failure, request: &Request<'_>) -> bool {
    match failure {
        // Nothing was written, or the peer says it did nothing with it.
        Failure::Unsent | Failure::Refused => request.replayable,
        // A connection that idled to its death: safe for methods that may be repeated (RFC 9110 section 9.2.2).
        Failure::Reset { reused: true } => request.replayable && !request.has_body && request.method.is_idempotent(),
        Failure::Reset { reused: false }
        | Failure::Connect
        | Failure::Overflow
        | Failure::PerTryTimeout
        | Failure::Protocol => false,
    }
}

fn wants(rules: &Rules, policy: Option<&RetryPolicy>, outcome: &Outcome<'_>) -> bool {
    let on = |flag| rules.on.contains(flag);
    match outcome {
        Outcome::Failed(failure) => match failure {
            Failure::Connect => {
                on(RetryOn::CONNECT_FAILURE)
                    || on(RetryOn::SERVER_ERROR)
                    || on(RetryOn::GATEWAY_ERROR)
                    || on(RetryOn::RESET)
                    || on(RetryOn::RESET_BEFORE_REQUEST)
            }
            Failure::Refused => {
                on(RetryOn::REFUSED_STREAM)
                    || on(RetryOn::SERVER_ERROR)
                    || on(RetryOn::GATEWAY_ERROR)
                    || on(RetryOn::RESET)
            }
            Failure::Unsent => {
                on(RetryOn::RESET_BEFORE_REQUEST)
                    || on(RetryOn::RESET)
                    || on(RetryOn::SERVER_ERROR)
                    || on(RetryOn::GATEWAY_ERROR)
            }
            Failure::Reset { .. } | Failure::PerTryTimeout | Failure::Protocol => {
                on(RetryOn::RESET) || on(RetryOn::SERVER_ERROR) || on(RetryOn::GATEWAY_ERROR)
            }
            // Envoy never retries what a circuit breaker refused.
            Failure::Overflow => false,
        },
        Outcome::Response { status, headers } => wants_response(rules, policy, *status, headers),
    }
}

fn wants_response(rules: &Rules, policy: Option<&RetryPolicy>, status: StatusCode, headers: &HeaderMap) -> bool {
    let on = |flag| rules.on.contains(flag);
    let code = status.as_u16();
    let marks = super::headers::among(headers, &["x-envoy-overloaded", "x-envoy-ratelimited"]);
    if marks.iter().any(|mark| mark == "x-envoy-overloaded") {
        return false;
    }
    if !marks.is_empty() {
        return on(RetryOn::ENVOY_RATE_LIMITED);
    }
    if on(RetryOn::SERVER_ERROR) && status.is_server_error()
        || on(RetryOn::GATEWAY_ERROR) && matches!(code, 502..=504)
        || on(RetryOn::RETRIABLE_4XX) && code == 409
        || on(RetryOn::RETRIABLE_STATUS) && rules.status.contains(&code)
    {
        return true;
    }
    if on(RetryOn::RETRIABLE_HEADERS)
        && policy.is_some_and(|p| {
            p.retriable_headers.iter().any(|m| match &*m.name {
                ":status" => m.matches(Some(status.as_str())),
                name => m.matches(header_value(headers, name).as_deref()),
            })
        })
    {
        return true;
    }
    // Only a headers-only gRPC response still can be retried; its status is in the headers.
    match headers.get(&GRPC_STATUS).and_then(|v| v.to_str().ok()) {
        Some("1") => on(RetryOn::GRPC_CANCELLED),
        Some("4") => on(RetryOn::GRPC_DEADLINE_EXCEEDED),
        Some("8") => on(RetryOn::GRPC_RESOURCE_EXHAUSTED),
        Some("13") => on(RetryOn::GRPC_INTERNAL),
        Some("14") => on(RetryOn::GRPC_UNAVAILABLE),
        _ => false,
    }
}

/// Fully jittered exponential backoff before retry number `retry` (1 is the first).
pub fn backoff(rules: &Rules, retry: u32, random: u64) -> Duration {
    let factor = 1u32.checked_shl(retry.min(16)).unwrap_or(u32::MAX) - 1;
    let ceiling = rules.base.saturating_mul(factor).min(rules.max.max(rules.base));
    let nanos = u64::try_from(ceiling.as_nanos()).unwrap_or(u64::MAX);
    if nanos == 0 { Duration::ZERO } else { Duration::from_nanos(random % nanos) }
}

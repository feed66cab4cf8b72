//! Whether an attempt is worth another one: pure decisions over a policy, the request and what happened.
//!
//! Two rules, kept apart. What provably never reached an application is replayed without any policy, a few times; what
//! very likely did not, because it met an idle connection's end, once and out of the retry budget. Everything else needs
//! a policy that names the condition, and a permit from that budget, which the caller asks for.

use std::{
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderName, Method, StatusCode};

use crate::{
    ir::{
        Metadata,
        matcher::HeaderMatcher,
        route::{RetryOn, RetryPolicy},
    },
    policy::router::header_value,
};

#[cfg(test)]
#[path = "retry_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "retry_sim_tests.rs"]
mod simulation;

/// What holds for requests that ask for retries where no policy is configured.
static UNCONFIGURED: LazyLock<RetryPolicy> = LazyLock::new(RetryPolicy::default);

const RATE_LIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// Replays of provably unprocessed requests, per request.
pub const MAX_REPLAYS: u32 = 3;
/// How soon after its start a request that meets an idle connection's end hears of it: a round trip and some scheduling.
/// Later, the application has most likely had it.
pub const IDLE_RACE: Duration = Duration::from_millis(100);
/// Most names a request may list in one header.
const MAX_LISTED: usize = 32;

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
    /// The connection or stream broke after something was written. `reused`: not the connection's first request, and
    /// nothing came back for this one.
    Reset { reused: bool },
    /// A limit of one try ran out, and this side reset it.
    TryTimeout,
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
    /// Since its first try.
    pub age: Duration,
}

/// What the policy and the request's own `x-envoy-*` headers allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules<'p> {
    pub on: RetryOn,
    pub max_retries: u32,
    pub policy: &'p RetryPolicy,
    /// `x-envoy-retriable-status-codes`.
    status: Vec<u16>,
    /// `x-envoy-retriable-header-names`.
    headers: Vec<HeaderName>,
}

impl<'p> Rules<'p> {
    /// Combines a policy with the request's headers; `steered` is whether any of those is there, `matches` decides the
    /// policy's conditions on requests. `None` when nothing will ever be retried.
    pub fn new(
        policy: Option<&'p RetryPolicy>,
        headers: &HeaderMap,
        steered: bool,
        matches: impl FnOnce(&[HeaderMatcher]) -> bool,
    ) -> Option<Self> {
        let text = |name: &str| steered.then(|| headers.get(name)).flatten().and_then(|v| v.to_str().ok());
        let listed = |name: &str| text(name).unwrap_or_default().split(',').map(str::trim).take(MAX_LISTED);
        let mut on = policy.map(|p| p.on).unwrap_or_default();
        if let Some(list) = text("x-envoy-retry-on") {
            on = on.union(RetryOn::parse(list).0.http());
        }
        if let Some(list) = text("x-envoy-retry-grpc-on") {
            on = on.union(RetryOn::parse(list).0.grpc());
        }
        if on.is_empty() {
            return None;
        }
        let policy = policy.unwrap_or(&UNCONFIGURED);
        let only = &policy.retriable_request_headers;
        if !only.is_empty() && !matches(only) {
            return None;
        }
        let max = text("x-envoy-max-retries").and_then(|v| v.trim().parse::<u64>().ok());
        Some(Self {
            on,
            max_retries: max.map_or(policy.max_retries, |max| u32::try_from(max).unwrap_or(u32::MAX)),
            policy,
            status: listed("x-envoy-retriable-status-codes").filter_map(|code| code.parse().ok()).collect(),
            headers: listed("x-envoy-retriable-header-names").filter_map(|name| name.parse().ok()).collect(),
        })
    }

    /// Whether the policy names the condition that `outcome` is.
    pub fn wants(&self, outcome: &Outcome<'_>) -> bool {
        match outcome {
            Outcome::Failed(failure) => self.wants_failure(*failure),
            Outcome::Response { status, headers } => self.wants_response(*status, headers),
        }
    }

    fn wants_failure(&self, failure: Failure) -> bool {
        let on = |flag| self.on.contains(flag);
        // Envoy counts every reset as the 5xx it would come to.
        let reset = on(RetryOn::RESET) || on(RetryOn::SERVER_ERROR) || on(RetryOn::GATEWAY_ERROR);
        match failure {
            Failure::Connect => reset || on(RetryOn::CONNECT_FAILURE) || on(RetryOn::RESET_BEFORE_REQUEST),
            Failure::Refused => reset || on(RetryOn::REFUSED_STREAM),
            Failure::Unsent => reset || on(RetryOn::RESET_BEFORE_REQUEST),
            Failure::Reset { .. } | Failure::TryTimeout | Failure::Protocol => reset,
            // Trying again what a circuit breaker refused would defeat it.
            Failure::Overflow => false,
        }
    }

    fn wants_response(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        let limited = self.on.contains(RetryOn::ENVOY_RATE_LIMITED);
        let named = self.names(status, headers);
        // The header decides over all other conditions; it is looked for only where that could change something.
        if (named || limited) && headers.contains_key(&RATE_LIMITED) { limited } else { named }
    }

    /// Whether a condition names the response by its status or a header.
    fn names(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        let on = |flag| self.on.contains(flag);
        let code = status.as_u16();
        if on(RetryOn::SERVER_ERROR) && status.is_server_error()
            || on(RetryOn::GATEWAY_ERROR) && matches!(code, 502..=504)
            || on(RetryOn::RETRIABLE_4XX) && code == 409
            || on(RetryOn::RETRIABLE_STATUS)
                && (self.policy.retriable_status.contains(&code) || self.status.contains(&code))
        {
            return true;
        }
        if on(RetryOn::RETRIABLE_HEADERS)
            && (any_matches(&self.policy.retriable_headers, status, headers)
                || self.headers.iter().any(|name| headers.contains_key(name)))
        {
            return true;
        }
        if self.on.grpc().is_empty() {
            return false;
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
}

/// Whether retries avoid a host by what its metadata says.
pub fn is_omitted(policy: &RetryPolicy, host: Option<&Metadata>) -> bool {
    const NAMESPACE: &str = "envoy.lb";
    let Some(labels) = host.and_then(|m| m.get(NAMESPACE)) else { return false };
    let has_all = |wanted: &Metadata| {
        let wanted = wanted.get(NAMESPACE).filter(|w| !w.is_empty());
        wanted.is_some_and(|w| w.iter().all(|(key, value)| labels.get(key).is_some_and(|v| is_or_has(v, value))))
    };
    policy.omit_canary && labels.get("canary") == Some(&true.into())
        || policy.omit_metadata.iter().any(|wanted| has_all(wanted))
}

/// A list stands for each of its values.
fn is_or_has(value: &serde_json::Value, wanted: &serde_json::Value) -> bool {
    value == wanted || value.as_array().is_some_and(|list| list.contains(wanted))
}

fn any_matches(matchers: &[HeaderMatcher], status: StatusCode, headers: &HeaderMap) -> bool {
    matchers.iter().any(|m| match &*m.name {
        ":status" => m.matches(Some(status.as_str())),
        name => m.matches(header_value(headers, name).as_deref()),
    })
}

/// The verdict on one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send it again at once, policy or not.
    Replay,
    /// Send it again at once, policy or not, if the budget allows.
    ReplayOnce,
    /// Try again after a backoff, if the budget allows.
    Retry,
    /// Nothing calls for another attempt.
    Enough,
    /// The policy would have retried, but the request cannot be sent again.
    Unable,
    /// The policy would have retried, but its limit is reached.
    LimitExceeded,
}

/// Decides. `done` counts the replays and the retries of this request so far.
pub fn decide(rules: Option<&Rules<'_>>, request: &Request<'_>, outcome: &Outcome<'_>, done: (u32, u32)) -> Verdict {
    let (replays, retries) = done;
    if let Outcome::Failed(failure) = outcome {
        match failure {
            // Nothing was written, or the peer says it did nothing with it.
            Failure::Unsent | Failure::Refused if replays < MAX_REPLAYS && request.replayable => {
                return Verdict::Replay;
            }
            Failure::Reset { reused: true } if replays == 0 && met_idle_end(request) => return Verdict::ReplayOnce,
            _ => {}
        }
    }
    match rules {
        Some(rules) if rules.wants(outcome) => {
            if !request.replayable {
                Verdict::Unable
            } else if retries >= rules.max_retries {
                Verdict::LimitExceeded
            } else {
                Verdict::Retry
            }
        }
        _ => Verdict::Enough,
    }
}

/// Whether a request on a reused connection that broke may be sent again although no policy says so: it is one that may
/// be repeated (RFC 9110 section 9.2.2), and the connection broke as one does that idled to its death.
fn met_idle_end(request: &Request<'_>) -> bool {
    request.replayable && !request.has_body && request.method.is_idempotent() && request.age < IDLE_RACE
}

/// How long to wait before a retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    Exponential(Duration),
    /// As long as the upstream asked for, and a little more.
    RateLimited(Duration),
}

/// The wait before retry number `retry` (1 is the first) of an attempt with these response headers.
pub fn wait(policy: &RetryPolicy, retry: u32, response: Option<&HeaderMap>, clock: SystemTime, random: u64) -> Wait {
    if let Some(asked) = response.and_then(|headers| reset_interval(policy, headers, clock)) {
        return Wait::RateLimited(asked + below(asked / 2, random));
    }
    Wait::Exponential(backoff(policy, retry, random))
}

/// When a rate limited request may come back, as its response says.
fn reset_interval(policy: &RetryPolicy, headers: &HeaderMap, clock: SystemTime) -> Option<Duration> {
    policy.reset_headers.iter().find_map(|reset| {
        let seconds: u64 = headers.get(&reset.name)?.to_str().ok()?.trim().parse().ok()?;
        let interval = if reset.unix_time {
            let now = clock.duration_since(SystemTime::UNIX_EPOCH).ok()?;
            seconds.checked_sub(now.as_secs())?
        } else {
            seconds
        };
        Some(Duration::from_secs(interval)).filter(|i| !i.is_zero() && *i <= policy.reset_max)
    })
}

/// Fully jittered exponential backoff.
fn backoff(policy: &RetryPolicy, retry: u32, random: u64) -> Duration {
    let factor = 1u32.checked_shl(retry.min(16)).unwrap_or(u32::MAX) - 1;
    let ceiling = policy.backoff_base.saturating_mul(factor).min(policy.backoff_max.max(policy.backoff_base));
    below(ceiling, random)
}

fn below(ceiling: Duration, random: u64) -> Duration {
    let nanos = u64::try_from(ceiling.as_nanos()).unwrap_or(u64::MAX);
    if nanos == 0 { Duration::ZERO } else { Duration::from_nanos(random % nanos) }
}

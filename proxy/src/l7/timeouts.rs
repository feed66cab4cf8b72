//! The timeouts of one forwarded request: which apply, and waiting for a response under all of them at once.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::Poll,
    time::{Duration, Instant},
};

use super::{flow::Flow, headers, retry::Rules, timer::Timer};
use crate::ir::{
    http::{ConnectionManager, Router},
    route::Forward,
};
use http::{HeaderMap, HeaderName, HeaderValue};

#[cfg(test)]
#[path = "timeouts_tests.rs"]
mod tests;

const EXPECTED: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
const RQ_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-upstream-rq-timeout-ms");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Which limits a request runs under.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// For the whole response over all tries, from the end of the request.
    pub response: Option<Duration>,
    pub per_try: Option<Duration>,
    /// Without a byte in either direction, of one try.
    pub per_try_idle: Option<Duration>,
    /// For the request to arrive, from its first byte.
    pub request: Option<Duration>,
    /// For the whole stream.
    pub stream: Option<Duration>,
}

impl Timeouts {
    /// Collects what configuration and headers say.
    pub fn new(
        hcm: &ConnectionManager,
        route: &Forward,
        rules: Option<&Rules>,
        request: (&HeaderMap, bool),
        router: Option<&Router>,
    ) -> Self {
        let (headers, grpc) = request;
        let mut response = route.timeout;
        if grpc && let Some(max) = route.grpc_timeout_max {
            let asked = headers.get(&GRPC_TIMEOUT).and_then(|v| v.to_str().ok()).and_then(parse_grpc_timeout);
            response = match (asked, max) {
                (Some(asked), Some(max)) => Some(asked.min(max)),
                (asked, max) => asked.or(max),
            };
        }
        let suppressed = router.is_some_and(|r| r.suppress_envoy_headers);
        let respected = router.is_some_and(|r| r.respect_expected_rq_timeout);
        let expected = respected.then(|| headers::millis(headers, &EXPECTED)).flatten();
        if let Some(expected) = expected {
            // The proxy before us said how long it will wait.
            response = Some(expected).filter(|t| !t.is_zero());
        } else if !suppressed && let Some(asked) = headers::millis(headers, &RQ_TIMEOUT) {
            response = Some(asked).filter(|t| !t.is_zero());
        }
        let mut per_try = rules.and_then(|r| r.per_try_timeout);
        if response.is_some() && per_try >= response {
            per_try = None;
        }
        let stream = route.max_stream_duration.unwrap_or(hcm.max_stream_duration);
        let per_try_idle = rules.and_then(|r| r.per_try_idle_timeout);
        Self { response, per_try, per_try_idle, request: hcm.request_timeout, stream }
    }

    /// Tells the upstream how long its answer is waited for.
    pub fn announce(&self, route: &Forward, request: (&mut HeaderMap, bool), envoy_headers: bool) {
        let (headers, grpc) = request;
        let Some(expected) = self.per_try.or(self.response) else { return };
        let millis = u64::try_from(expected.as_millis()).unwrap_or(u64::MAX);
        if envoy_headers {
            headers::insert_number(headers, EXPECTED, millis);
        }
        if grpc && route.grpc_timeout_max.is_some() {
            let text = if millis < 100_000_000 {
                format!("{millis}m")
            } else {
                format!("{}S", (millis / 1000).min(99_999_999))
            };
            if let Ok(value) = HeaderValue::from_str(&text) {
                headers.insert(GRPC_TIMEOUT, value);
            }
        }
    }
}

/// `grpc-timeout`: up to eight digits and a unit.
pub fn parse_grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

/// Which limit was hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expired {
    Response,
    PerTry,
    Request,
    Stream,
    Idle,
    PerTryIdle,
}

/// Waits for `work`, but not beyond any limit.
pub async fn within<F: Future>(
    timeouts: &Timeouts,
    flow: &Flow,
    try_started: Instant,
    mut work: Pin<&mut F>,
) -> Result<F::Output, Expired> {
    let mut timer = Timer::default();
    poll_fn(move |cx| {
        if let Poll::Ready(output) = work.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        if flow.record.request_done().is_none() {
            flow.wait_for_request(cx.waker());
        }
        loop {
            let Some((next, kind)) = next(timeouts, flow, try_started) else { return Poll::Pending };
            if Instant::now() >= next {
                return Poll::Ready(Err(kind));
            }
            if timer.poll_until(next, cx).is_pending() {
                return Poll::Pending;
            }
        }
    })
    .await
}

/// The next moment at which a limit would be hit.
fn next(timeouts: &Timeouts, flow: &Flow, try_started: Instant) -> Option<(Instant, Expired)> {
    let started = flow.record.started();
    let mut first: Option<(Instant, Expired)> = None;
    let mut consider = |at: Option<Instant>, kind| {
        if let Some(at) = at
            && first.is_none_or(|(earliest, _)| at < earliest)
        {
            first = Some((at, kind));
        }
    };
    match flow.request_done() {
        Some(done) => {
            consider(timeouts.response.map(|t| done + t), Expired::Response);
            consider(timeouts.per_try.map(|t| done.max(try_started) + t), Expired::PerTry);
        }
        None => consider(timeouts.request.map(|t| started + t), Expired::Request),
    }
    consider(timeouts.stream.map(|t| started + t), Expired::Stream);
    consider(flow.idle_at(), Expired::Idle);
    consider(timeouts.per_try_idle.map(|t| flow.last_activity().max(try_started) + t), Expired::PerTryIdle);
    first
}

//! The timeouts of one forwarded request: which apply, and waiting for a response under all of them at once.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use super::{flow::Flow, headers, timer::Timer};
use crate::ir::{
    http::{ConnectionManager, Router},
    route::{Forward, RetryPolicy},
};
use http::{HeaderMap, HeaderName, HeaderValue};

#[cfg(test)]
#[path = "timeouts_tests.rs"]
mod tests;

const EXPECTED: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
const RQ_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-upstream-rq-timeout-ms");
const PER_TRY_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-upstream-rq-per-try-timeout-ms");
const STREAM_DURATION: HeaderName = HeaderName::from_static("x-envoy-upstream-stream-duration-ms");
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
    /// For one try's stream, as its cluster limits it.
    pub upstream: Option<Duration>,
}

/// The parts of a configuration that have a say.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    pub hcm: &'a ConnectionManager,
    pub route: &'a Forward,
    pub retry: Option<&'a RetryPolicy>,
    pub router: Option<&'a Router>,
    /// The cluster's `max_stream_duration`.
    pub upstream: Option<Duration>,
    /// The request has headers that steer the proxy.
    pub steered: bool,
}

impl Timeouts {
    /// Collects what configuration and headers say.
    pub fn new(sources: Sources<'_>, headers: &HeaderMap, grpc: bool) -> Self {
        let Sources { hcm, route, retry, router, upstream, steered } = sources;
        let millis = |name: HeaderName| steered.then(|| headers::millis(headers, &name)).flatten();
        let off = |t: Duration| Some(t).filter(|t| !t.is_zero());
        let asked = || headers.get(&GRPC_TIMEOUT).and_then(|v| v.to_str().ok()).and_then(parse_grpc_timeout);
        let mut response = match (&route.stream, route.grpc_timeout_max) {
            // A route with a limit on streams has no other, unless the request names one.
            (Some(_), _) => None,
            (None, Some(max)) if grpc => {
                let asked = asked().and_then(off);
                let offset = route.grpc_timeout_offset;
                let asked = asked.map(|t| if offset < t { t - offset } else { t });
                asked.map_or(max, |asked| Some(max.map_or(asked, |max| asked.min(max))))
            }
            (None, _) => route.timeout,
        };
        let respected = router.is_some_and(|r| r.respect_expected_rq_timeout);
        // The proxy before us said how long it will wait.
        let expected = respected.then(|| headers::millis(headers, &EXPECTED)).flatten();
        if let Some(given) = expected.or_else(|| millis(RQ_TIMEOUT)) {
            response = off(given);
        }
        let mut per_try = retry.and_then(|r| r.per_try_timeout);
        if let Some(given) = millis(PER_TRY_TIMEOUT) {
            per_try = off(given);
        }
        if response.is_some() && per_try >= response {
            per_try = None;
        }
        let stream = match route.stream.as_deref() {
            None => hcm.max_stream_duration,
            Some(limits) => match limits.grpc_max.and_then(|max| Some((asked()?, max))) {
                Some((asked, max)) => Some(asked.min(max.unwrap_or(asked)).saturating_sub(limits.grpc_offset)),
                None => limits.max.unwrap_or(hcm.max_stream_duration),
            },
        };
        let per_try_idle = retry.and_then(|r| r.per_try_idle_timeout);
        let upstream = millis(STREAM_DURATION).map_or(upstream, off);
        Self { response, per_try, per_try_idle, request: hcm.request_timeout, stream, upstream }
    }

    /// Whether any limit is on a single try.
    pub fn limit_tries(&self) -> bool {
        self.per_try.is_some() || self.per_try_idle.is_some() || self.upstream.is_some()
    }

    /// Tells the upstream how long its answer is waited for. `elapsed`: how long that has been done already.
    pub fn announce(&self, headers: &mut HeaderMap, elapsed: Duration, to: &Audience) {
        let per_try = self.per_try.filter(|_| !to.hedged);
        if let Some(expected) = per_try.or(self.response) {
            let left = self.response.map_or(expected, |all| all.saturating_sub(elapsed).min(expected));
            // Nothing would read as no limit.
            let left = left.max(Duration::from_millis(1));
            if to.envoy_headers {
                headers::insert_number(headers, EXPECTED, u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
            }
            if to.grpc == GrpcTimeout::Response {
                headers.insert(GRPC_TIMEOUT, grpc_timeout(left));
            }
        }
        if to.grpc == GrpcTimeout::Stream
            && elapsed.is_zero()
            && let Some(stream) = self.stream
        {
            headers.insert(GRPC_TIMEOUT, grpc_timeout(stream));
        }
    }
}

/// What the upstream is told of the timeouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Audience {
    pub envoy_headers: bool,
    /// A try that takes long is joined by others and goes on.
    pub hedged: bool,
    pub grpc: GrpcTimeout,
}

/// What `grpc-timeout` says on the way up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrpcTimeout {
    /// What it said on the way in.
    Untouched,
    Response,
    Stream,
}

impl GrpcTimeout {
    pub fn new(route: &Forward, grpc: bool) -> Self {
        match (&route.stream, route.grpc_timeout_max) {
            _ if !grpc => Self::Untouched,
            (Some(_), _) => Self::Stream,
            (None, Some(_)) => Self::Response,
            (None, None) => Self::Untouched,
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

fn grpc_timeout(value: Duration) -> HeaderValue {
    const MOST: u64 = 99_999_999;
    let millis = u64::try_from(value.as_millis()).unwrap_or(u64::MAX);
    let seconds = millis / 1000;
    let text = match millis {
        0..=MOST => format!("{millis}m"),
        _ if seconds <= MOST => format!("{seconds}S"),
        _ => format!("{}H", (seconds / 3600).min(MOST)),
    };
    HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).unwrap_or_else(|_| HeaderValue::from_static("0m"))
}

/// Which limit was hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expired {
    Response,
    PerTry,
    PerTryIdle,
    /// The cluster's limit on a stream.
    Upstream,
    Request,
    Stream,
    Idle,
}

/// The clock of one try. It runs from the moment there is a connection to send the request over.
#[derive(Debug, Default)]
pub struct TryClock(Cell<Option<Instant>>);

impl TryClock {
    /// Starts it, unless it runs.
    pub fn start(&self) {
        if self.0.get().is_none() {
            self.0.set(Some(Instant::now()));
        }
    }

    pub fn started(&self) -> Option<Instant> {
        self.0.get()
    }
}

/// The earliest of several moments, and what happens then.
#[derive(Clone, Copy, Debug, Default)]
pub struct Earliest(pub Option<(Instant, Expired)>);

impl Earliest {
    fn consider(&mut self, at: Option<Instant>, kind: Expired) {
        if let Some(at) = at
            && self.0.is_none_or(|(earliest, _)| at < earliest)
        {
            self.0 = Some((at, kind));
        }
    }

    /// With the limits on the request as a whole.
    pub fn overall(mut self, timeouts: &Timeouts, flow: &Flow) -> Self {
        let started = flow.record.started();
        match flow.request_done() {
            Some(done) => self.consider(timeouts.response.map(|t| done + t), Expired::Response),
            None => self.consider(timeouts.request.map(|t| started + t), Expired::Request),
        }
        self.consider(timeouts.stream.map(|t| started + t), Expired::Stream);
        self.consider(flow.idle_at(), Expired::Idle);
        self
    }

    /// With the limits on one try.
    pub fn of_try(mut self, timeouts: &Timeouts, flow: &Flow, clock: &TryClock) -> Self {
        let Some(connected) = clock.started() else { return self };
        self.consider(timeouts.upstream.map(|t| connected + t), Expired::Upstream);
        if let Some(done) = flow.request_done() {
            let since = done.max(connected);
            self.consider(timeouts.per_try.map(|t| since + t), Expired::PerTry);
            self.consider(timeouts.per_try_idle.map(|t| flow.last_activity().max(since) + t), Expired::PerTryIdle);
        }
        self
    }

    /// Ready with what happens once its moment has come.
    pub fn poll(self, timer: &mut Timer, cx: &mut Context<'_>) -> Poll<Expired> {
        let Some((at, kind)) = self.0 else { return Poll::Pending };
        if Instant::now() >= at {
            return Poll::Ready(kind);
        }
        timer.poll_until(at, cx).map(|()| kind)
    }
}

/// Waits for `work`, but not beyond any limit. Limits on a try count where it has a clock.
pub async fn within<F: Future>(
    timeouts: &Timeouts,
    flow: &Flow,
    clock: Option<&TryClock>,
    mut work: Pin<&mut F>,
) -> Result<F::Output, Expired> {
    let mut timer = Timer::default();
    poll_fn(move |cx| {
        if let Poll::Ready(output) = work.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        if flow.request_done().is_none() {
            flow.wait_for_request(cx.waker());
        }
        let mut next = Earliest::default().overall(timeouts, flow);
        if let Some(clock) = clock {
            next = next.of_try(timeouts, flow, clock);
        }
        next.poll(&mut timer, cx).map(Err)
    })
    .await
}

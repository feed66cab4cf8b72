//! Whether and which faults a request gets: the decision of the fault filter.
//!
//! Pure: the draws come in. Follows Envoy's order of checks, so that the same request is hit or spared.

use std::time::Duration;

use http::{HeaderMap, StatusCode};

use super::router::{RequestFacts, header_matches};
use crate::ir::{
    Fraction,
    filters::{AbortKind, Fault},
};

#[cfg(test)]
mod tests;

const NODE: &str = "x-envoy-downstream-service-node";
const DELAY: &str = "x-envoy-fault-delay-request";
const DELAY_PERCENTAGE: &str = "x-envoy-fault-delay-request-percentage";
const ABORT: &str = "x-envoy-fault-abort-request";
const ABORT_GRPC: &str = "x-envoy-fault-abort-grpc-request";
const ABORT_PERCENTAGE: &str = "x-envoy-fault-abort-request-percentage";
const RATE: &str = "x-envoy-fault-throughput-response";
const RATE_PERCENTAGE: &str = "x-envoy-fault-throughput-response-percentage";

/// Longest delay a request's header may ask for.
const LONGEST_DELAY: Duration = Duration::from_secs(3600);

/// One uniform draw for each kind of fault.
#[derive(Clone, Copy, Debug, Default)]
pub struct Draws {
    pub delay: u32,
    pub abort: u32,
    pub rate: u32,
}

/// The faults of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Injected {
    pub delay: Option<Duration>,
    /// After the delay.
    pub abort: Option<Abort>,
    /// KiB per second of the response body.
    pub kbps: Option<u64>,
}

/// With which status a request is aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abort {
    Http(StatusCode),
    Grpc(u16),
}

/// Whether the fault concerns the request at all; `cluster` is where it goes, if anywhere.
pub fn concerns(fault: &Fault, facts: &RequestFacts<'_>, cluster: Option<&str>) -> bool {
    if fault.upstream_cluster.is_some() && fault.upstream_cluster.as_deref() != cluster {
        return false;
    }
    let node = || facts.headers.get(NODE).map(|v| v.as_bytes());
    if !fault.downstream_nodes.is_empty()
        && !node().is_some_and(|node| fault.downstream_nodes.iter().any(|n| n.as_bytes() == node))
    {
        return false;
    }
    fault.headers.iter().all(|matcher| header_matches(matcher, facts))
}

/// Draws the faults of a request that [`concerns`] the filter.
pub fn inject(fault: &Fault, headers: &HeaderMap, draws: Draws) -> Injected {
    let kbps = fault.rate_limit.as_ref().and_then(|rate| {
        let kbps = rate.kbps.or_else(|| number(headers, RATE).filter(|n| *n > 0))?;
        let by_header = rate.kbps.is_none().then_some(RATE_PERCENTAGE);
        percentage(rate.percentage, headers, by_header).hit(draws.rate).then_some(kbps)
    });
    let delay = fault.delay.as_ref().and_then(|delay| {
        let by_header = delay.duration.is_none().then_some(DELAY_PERCENTAGE);
        if !percentage(delay.percentage, headers, by_header).hit(draws.delay) {
            return None;
        }
        let asked = || number(headers, DELAY).map(|millis| Duration::from_millis(millis).min(LONGEST_DELAY));
        delay.duration.or_else(asked).filter(|d| !d.is_zero())
    });
    let abort = fault.abort.as_ref().and_then(|abort| {
        let by_header = (abort.kind == AbortKind::Header).then_some(ABORT_PERCENTAGE);
        if !percentage(abort.percentage, headers, by_header).hit(draws.abort) {
            return None;
        }
        match abort.kind {
            AbortKind::Http(status) => Some(Abort::Http(status)),
            AbortKind::Grpc(status) => Some(Abort::Grpc(status)),
            AbortKind::Header => asked_abort(headers),
        }
    });
    Injected { delay, abort, kbps }
}

fn asked_abort(headers: &HeaderMap) -> Option<Abort> {
    let http = number(headers, ABORT).filter(|code| (200..600).contains(code));
    let http = http.and_then(|code| StatusCode::from_u16(u16::try_from(code).ok()?).ok()).map(Abort::Http);
    http.or_else(|| number(headers, ABORT_GRPC).and_then(|code| u16::try_from(code).ok()).map(Abort::Grpc))
}

/// A header may lower the share, never raise it.
fn percentage(configured: Fraction, headers: &HeaderMap, header: Option<&str>) -> Fraction {
    let asked = header.and_then(|name| number(headers, name)).and_then(|n| u32::try_from(n).ok());
    Fraction { numerator: asked.map_or(configured.numerator, |n| n.min(configured.numerator)), ..configured }
}

/// The first value of a header as a number.
fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

//! Which requests are traced: pure decisions, with chance and time as arguments.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::context::TraceId;
use crate::ir::tracing::{Sampler, Shares};

#[cfg(test)]
#[path = "sampling_tests.rs"]
mod tests;

/// Why a request is traced, or that it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    NotTraceable,
    /// Chance had it so.
    Sampling,
    /// A service set `x-envoy-force-trace`.
    ServiceForced,
    /// A client set `x-client-trace-id`.
    ClientForced,
}

impl Reason {
    pub fn is_traced(self) -> bool {
        self != Self::NotTraceable
    }

    /// Whether somebody asked for it.
    pub fn is_forced(self) -> bool {
        matches!(self, Self::ServiceForced | Self::ClientForced)
    }

    /// The digit of a request id that notes it.
    fn digit(self) -> u8 {
        match self {
            Self::NotTraceable => b'4',
            Self::Sampling => b'9',
            Self::ServiceForced => b'a',
            Self::ClientForced => b'b',
        }
    }

    fn noted(digit: u8) -> Self {
        match digit {
            b'9' => Self::Sampling,
            b'a' => Self::ServiceForced,
            b'b' => Self::ClientForced,
            _ => Self::NotTraceable,
        }
    }
}

/// What a request says for itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plea {
    pub client_id: bool,
    pub forced: bool,
}

/// Envoy's decision. `noted` is what the request id says already; nothing is drawn (`None`) for a request that has no
/// usable id.
pub fn reason(shares: &Shares, plea: Plea, noted: Reason, draw: Option<u32>) -> Reason {
    let Some(draw) = draw else { return noted };
    let reason = match noted {
        // Overall shares cap it, but nobody asks twice.
        Reason::NotTraceable if plea.client_id && shares.client.hit(draw) => Reason::ClientForced,
        Reason::NotTraceable if plea.forced => Reason::ServiceForced,
        Reason::NotTraceable if shares.random.hit(draw) => Reason::Sampling,
        noted => noted,
    };
    if reason.is_traced() && !shares.overall.hit(draw) { Reason::NotTraceable } else { reason }
}

/// Whether a span is recorded. `called`: how the caller decided. Without a sampler a caller's word holds, and Envoy's
/// reason where there is none.
pub fn sampled(
    sampler: Option<&Sampler>,
    called: Option<bool>,
    reason: Reason,
    limit: &RateLimit,
    of: &Sample,
) -> bool {
    match sampler {
        None => called.unwrap_or(reason.is_traced()),
        Some(Sampler::AlwaysOn) => true,
        Some(Sampler::Ratio(share)) => of.trace.chance() % u64::from(share.denominator) < u64::from(share.numerator),
        Some(Sampler::ParentBased(inner)) => called.unwrap_or_else(|| sampled(Some(inner), called, reason, limit, of)),
        Some(Sampler::RateLimited(rate)) => reason.is_forced() || limit.take(of.now, *rate),
    }
}

/// What samplers look at.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub trace: TraceId,
    /// Nanoseconds of some clock.
    pub now: u64,
}

/// What chance is taken from in a request id, and what it notes; `None` where it is no UUID.
pub fn of_request_id(id: &[u8]) -> Option<(u32, Reason)> {
    let head = std::str::from_utf8(id.get(..8)?).ok()?;
    let draw = u32::from_str_radix(head, 16).ok().filter(|_| head.as_bytes()[0] != b'+')?;
    let is_uuid = id.len() == 36 && [8, 13, 18, 23].iter().all(|at| id[*at] == b'-');
    Some((draw, if is_uuid { Reason::noted(id[14]) } else { Reason::NotTraceable }))
}

/// The request id with `reason` noted in it; `None` where it says so already or cannot.
pub fn with_reason(id: &[u8], reason: Reason) -> Option<Vec<u8>> {
    let (_, noted) = of_request_id(id)?;
    if id.len() != 36 || noted == reason {
        return None;
    }
    let mut id = id.to_vec();
    id[14] = reason.digit();
    Some(id)
}

impl Sampler {
    /// How many a second it takes at most.
    pub fn rate(&self) -> Option<u32> {
        match self {
            Self::RateLimited(rate) => Some(*rate),
            Self::ParentBased(inner) => inner.rate(),
            Self::AlwaysOn | Self::Ratio(_) => None,
        }
    }
}

/// A number of traces a second for the whole process, evenly: what was saved up in one second is the most at once.
/// One for all who name the same number: what one number owes is nothing to another.
#[derive(Debug, Default)]
pub struct RateLimit {
    /// When the next would be due if all came evenly.
    due: AtomicU64,
}

impl RateLimit {
    const SECOND: u64 = 1_000_000_000;

    /// Takes one of `rate` a second.
    pub fn take(&self, now: u64, rate: u32) -> bool {
        if rate == 0 {
            return false;
        }
        let each = Self::SECOND / u64::from(rate);
        let next = |due: u64| {
            let due = due.max(now.saturating_sub(Self::SECOND - each));
            (due <= now).then(|| due.saturating_add(each))
        };
        self.due.fetch_update(Relaxed, Relaxed, next).is_ok()
    }
}

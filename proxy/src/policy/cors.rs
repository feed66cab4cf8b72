//! Which cross-origin requests are allowed, and what browsers are told: the decision of the CORS filter.
//!
//! Pure. Policies come in from the most to the least specific level; each field is decided by the first that sets it.

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use smallvec::SmallVec;

use crate::ir::filters::Cors;

#[cfg(test)]
mod tests;

const PRIVATE_REQUEST: &str = "access-control-request-private-network";
const PRIVATE_ALLOW: HeaderName = HeaderName::from_static("access-control-allow-private-network");

/// The policies that apply to a request, the most specific one first.
pub type Policies<'a> = SmallVec<[&'a Cors; 4]>;

/// One uniform draw for each of the two shares.
#[derive(Clone, Copy, Debug, Default)]
pub struct Draws {
    pub enabled: u32,
    pub shadow: u32,
}

/// What the filter does with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not a cross-origin request, or not enabled.
    Pass,
    /// Only counted: whether the origin is valid.
    Counted { valid: bool },
    /// Forwarded; an allowed origin's response gets these headers.
    Simple { grant: Option<HeaderMap> },
    /// A preflight, answered here with status 200 and these headers.
    Preflight { valid: bool, answer: HeaderMap },
}

/// Decides on a request by its method and headers.
pub fn decide(policies: &Policies<'_>, method: &Method, headers: &HeaderMap, draws: Draws) -> Verdict {
    let Some(first) = policies.first() else { return Verdict::Pass };
    let enabled = first.enabled.hit(draws.enabled);
    if !enabled && !first.shadow.is_some_and(|share| share.hit(draws.shadow)) {
        return Verdict::Pass;
    }
    let Some(origin) = headers.get(header::ORIGIN).filter(|o| !o.is_empty()) else { return Verdict::Pass };
    let valid = is_allowed(policies, origin);
    if !enabled {
        return Verdict::Counted { valid };
    }
    let grant = valid.then(|| grant(policies, origin));
    let asked = headers.get(header::ACCESS_CONTROL_REQUEST_METHOD).filter(|m| !m.is_empty());
    let Some(asked) = asked.filter(|_| *method == Method::OPTIONS) else { return Verdict::Simple { grant } };
    if !valid && first_of(policies, |p| p.forward_not_matching_preflights).unwrap_or(true) {
        return Verdict::Simple { grant };
    }
    let mut answer = grant.unwrap_or_default();
    if credentials(policies) {
        answer.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    if let Some(methods) = first_of(policies, |p| p.allow_methods.as_ref()) {
        let methods = if methods == "*" { asked } else { methods };
        answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods.clone());
    }
    if let Some(allowed) = first_of(policies, |p| p.allow_headers.as_ref()) {
        let asked = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
        let value =
            if allowed == "*" { asked.cloned().unwrap_or(HeaderValue::from_static("")) } else { allowed.clone() };
        answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, value);
    }
    if let Some(age) = first_of(policies, |p| p.max_age.as_ref()) {
        answer.insert(header::ACCESS_CONTROL_MAX_AGE, age.clone());
    }
    if first_of(policies, |p| p.allow_private_network).unwrap_or(false)
        && headers.get(PRIVATE_REQUEST).is_some_and(|v| v == "true")
    {
        answer.insert(PRIVATE_ALLOW, HeaderValue::from_static("true"));
    }
    Verdict::Preflight { valid, answer }
}

/// What every response to an allowed origin says.
fn grant(policies: &Policies<'_>, origin: &HeaderValue) -> HeaderMap {
    let mut grant = HeaderMap::with_capacity(3);
    grant.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    if credentials(policies) {
        grant.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    if let Some(expose) = first_of(policies, |p| p.expose_headers.as_ref()) {
        grant.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
    }
    grant
}

fn is_allowed(policies: &Policies<'_>, origin: &HeaderValue) -> bool {
    let Some(policy) = policies.iter().find(|p| !p.allow_origins.is_empty()) else { return false };
    // A pattern that would take `*` itself takes every origin, whatever bytes it has.
    let text = origin.to_str().ok();
    policy.allow_origins.iter().any(|m| m.matches("*") || text.is_some_and(|text| m.matches(text)))
}

fn credentials(policies: &Policies<'_>) -> bool {
    first_of(policies, |p| p.allow_credentials).unwrap_or(false)
}

fn first_of<'a, T>(policies: &Policies<'a>, field: impl Fn(&'a Cors) -> Option<T>) -> Option<T> {
    policies.iter().find_map(|policy| field(policy))
}

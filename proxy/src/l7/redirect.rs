//! Internal redirects: an upstream's `location` is followed here instead of by the client.
//!
//! Decides whether, and makes the request that goes there. Whatever speaks against it, the client gets the redirect.

use std::{borrow::Cow, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header, request::Parts};

use super::{
    pipeline::{Inbound, path},
    sanitize::Tunnel,
};
use crate::{
    ir::{
        http::ConnectionManager,
        route::{InternalRedirect, RedirectPredicate, Route},
    },
    policy::{
        path::{Normalized, normalize},
        router::{RequestFacts, RouteTable},
    },
    telemetry::filters::FilterStats,
};

#[cfg(test)]
#[path = "redirect_tests.rs"]
mod tests;

const ORIGINAL_URL: HeaderName = HeaderName::from_static("x-envoy-original-url");

/// How much of a request body is kept to go along.
pub(super) const BODY_LIMIT: usize = 64 * 1024;

/// The redirects that a request has followed.
#[derive(Default)]
pub(super) struct Hops {
    count: u32,
    /// From which route to which.
    taken: Vec<(Arc<Route>, Arc<Route>)>,
}

impl Hops {
    /// Whether the request is still where its client sent it.
    pub(super) fn is_start(&self) -> bool {
        self.count == 0
    }
}

/// Why a redirect goes to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The request has a body that cannot be sent again.
    Body,
    Location,
    UnsafeScheme,
    TooMany,
    NoRoute,
    Predicate,
}

impl Refused {
    pub(super) fn count(self, stats: &FilterStats) {
        match self {
            Self::Body => return,
            Self::Location => &stats.redirect_bad_location,
            Self::UnsafeScheme => &stats.redirect_unsafe_scheme,
            Self::TooMany => &stats.redirect_too_many,
            Self::NoRoute => &stats.redirect_no_route,
            Self::Predicate => &stats.redirect_predicate,
        }
        .inc();
    }
}

/// The upstream's answer, and the route whose cluster gave it.
pub(super) struct Answer<'a> {
    pub status: StatusCode,
    pub headers: &'a HeaderMap,
    pub route: &'a Arc<Route>,
    pub hcm: &'a ConnectionManager,
}

/// Turns the request's head into the one that the answer redirects to.
pub(super) fn follow(
    policy: &InternalRedirect,
    answer: &Answer<'_>,
    table: &RouteTable,
    (request, body_is_lost): (&mut Inbound, bool),
    hops: &mut Hops,
) -> Result<(), Refused> {
    if body_is_lost || request.sane.tunnel != Tunnel::None {
        return Err(Refused::Body);
    }
    let scheme = request.sane.origin.scheme;
    let target = Target::of(answer.hcm, answer.headers)?;
    if target.scheme != scheme && !policy.cross_scheme {
        return Err(Refused::UnsafeScheme);
    }
    if hops.count >= policy.max {
        return Err(Refused::TooMany);
    }
    let parts = redirected(policy, answer, &target, (request, scheme));
    let facts = RequestFacts {
        authority: &target.authority,
        path: path(&parts),
        method: &parts.method,
        scheme: target.scheme,
        headers: &parts.headers,
        certificate: request.sane.origin.certificate,
        random: 0,
    };
    let route = table.select(&facts).map_err(|_| Refused::NoRoute)?.route.clone();
    let step = (answer.route.clone(), route);
    let allowed = policy.predicates.iter().all(|predicate| match predicate {
        RedirectPredicate::PreviousRoutes => {
            !hops.taken.iter().any(|(from, to)| Arc::ptr_eq(from, &step.0) && Arc::ptr_eq(to, &step.1))
        }
        RedirectPredicate::AllowListedRoutes(names) => names.contains(&step.1.name),
        RedirectPredicate::SafeCrossScheme => scheme == "https" || target.scheme == "http",
    });
    if !allowed {
        return Err(Refused::Predicate);
    }
    hops.count += 1;
    hops.taken.push(step);
    request.parts = parts;
    request.sane.origin.scheme = target.scheme;
    Ok(())
}

/// Where a `location` leads.
struct Target {
    scheme: &'static str,
    authority: String,
    path: Uri,
}

impl Target {
    /// Only a whole URL says where to go.
    fn of(hcm: &ConnectionManager, headers: &HeaderMap) -> Result<Self, Refused> {
        let location = headers.get(header::LOCATION).and_then(|v| v.to_str().ok()).ok_or(Refused::Location)?;
        let uri: Uri = location.parse().map_err(|_| Refused::Location)?;
        let scheme = match uri.scheme_str() {
            Some("http") => "http",
            Some("https") => "https",
            _ => return Err(Refused::Location),
        };
        let authority = uri.authority().filter(|a| !a.as_str().contains('@')).ok_or(Refused::Location)?.to_string();
        // Decided on, and sent on, in the form that a request of a client would have.
        let whole = uri.path_and_query().map_or("/", |p| p.as_str());
        let whole = if whole.starts_with('/') { whole.into() } else { Cow::Owned(format!("/{whole}")) };
        let path = match normalize(hcm, &whole) {
            Normalized::Unchanged => whole,
            Normalized::Changed(path) => Cow::Owned(path.into_owned()),
            Normalized::Redirect(_) | Normalized::Rejected => return Err(Refused::Location),
        };
        let path = path.parse().map_err(|_| Refused::Location)?;
        Ok(Self { scheme, authority, path })
    }
}

fn redirected(
    policy: &InternalRedirect,
    answer: &Answer<'_>,
    target: &Target,
    (request, scheme): (&Inbound, &str),
) -> Parts {
    let mut parts = request.parts.clone();
    let origin = format!("{scheme}://{}{}", request.authority(), request.path());
    parts.uri = target.path.clone();
    if answer.status == StatusCode::SEE_OTHER && parts.method != Method::HEAD {
        parts.method = Method::GET;
        parts.headers.remove(header::CONTENT_LENGTH);
        parts.headers.remove(header::TRANSFER_ENCODING);
    }
    for name in &policy.copied_headers {
        parts.headers.remove(name);
        for value in answer.headers.get_all(name) {
            parts.headers.append(name, value.clone());
        }
    }
    if let Ok(host) = HeaderValue::from_str(&target.authority) {
        parts.headers.insert(header::HOST, host);
    }
    if let Ok(origin) = HeaderValue::from_str(&origin) {
        parts.headers.insert(ORIGINAL_URL, origin);
    }
    parts
}

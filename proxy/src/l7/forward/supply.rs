//! What the tries of a request are made of: its head and body, kept or given away, and where a try of it goes.

use std::{rc::Rc, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, Method, Request, Uri, header, request::Parts};

use super::{ATTEMPT_COUNT, Forwarding, Plan};
use crate::{
    ir::route::HostRewrite,
    l7::{
        body::{Body, Upload},
        expect,
        flow::Flow,
        headers,
        incoming::Incoming,
        outcome,
        replay::Kept,
        respond::Reply,
        retry::is_omitted,
    },
    upstream::{Endpoint, PickContext, Picked},
};

const TIMEOUT_RETRY: HeaderName = HeaderName::from_static("x-envoy-is-timeout-retry");
/// Most picks for one try, whatever the configuration says.
const MAX_PICKS: u32 = 32;

/// What tries are made of.
pub(super) struct Supply<'a> {
    /// The head, kept where a second try is possible; else given away with the first.
    head: Option<&'a mut Parts>,
    body: Source,
    /// A request that came back whole from a failed try.
    pub(super) returned: Option<Box<Request<Body>>>,
    pub(super) keep: bool,
    /// That the body is too long to be kept was counted.
    pub(super) abandoned: bool,
}

enum Source {
    Empty,
    Once(Option<Incoming>),
    Kept(Kept),
}

impl<'a> Supply<'a> {
    /// `keep`: the head is needed after the tries, too.
    pub(super) fn new(plan: &Plan<'_>, parts: &'a mut Parts, body: Incoming, keep: bool) -> Self {
        let keep = keep || plan.rules.is_some() || (!plan.has_body && plan.method.is_idempotent());
        let body = match (plan.has_body, plan.rules.is_some()) {
            (false, _) => Source::Empty,
            (true, true) => Source::Kept(Kept::new(body, plan.buffer)),
            (true, false) => Source::Once(Some(body)),
        };
        Self { head: Some(parts), body, returned: None, keep, abandoned: false }
    }
}

impl Forwarding<'_> {
    /// The endpoint of one try.
    pub(super) fn pick(&self, plan: &Plan<'_>, tried: &[Arc<Endpoint>]) -> Result<Picked, Reply> {
        let rules = plan.rules.as_ref().filter(|_| !tried.is_empty());
        let avoid = rules.is_some_and(|r| r.policy.avoid_previous_hosts);
        let context = PickContext {
            original_dst: self.conn.scope.conn.original_dst,
            random: fastrand::u64(..),
            exclude: if avoid { tried } else { &[] },
            tried: rules.and_then(|r| Some((tried, r.policy.previous_priorities?))),
            attempts: rules.map_or(1, |r| r.policy.host_selection_attempts),
            hash: plan.key.hash,
            criteria: self.criteria(plan),
        };
        let picked = match rules {
            Some(rules) if rules.policy.omit_canary || !rules.policy.omit_metadata.is_empty() => {
                let mut picked = plan.cluster.pick(&context);
                for _ in 0..rules.policy.host_selection_attempts.min(MAX_PICKS) {
                    if !picked.as_ref().is_ok_and(|endpoint| is_omitted(rules.policy, endpoint.metadata().as_deref())) {
                        break;
                    }
                    picked = plan.cluster.pick(&PickContext { random: fastrand::u64(..), ..context });
                }
                picked
            }
            _ => plan.cluster.pick(&context),
        };
        plan.cluster.admit(picked, &context).map_err(|_| outcome::none_healthy())
    }

    /// The request of one try.
    pub(super) fn attempt_request(
        &self,
        plan: &Plan<'_>,
        supply: &mut Supply<'_>,
        endpoint: &Endpoint,
        (attempt, timed_out): (u32, bool),
    ) -> Result<Request<Body>, Reply> {
        let returned = supply.returned.take();
        let written = returned.is_some() && !supply.keep;
        let (mut head, body) = match returned {
            Some(mut request) => {
                origin_form(&mut request);
                let (head, body) = request.into_parts();
                // A head of its own for each try: what was written into this one for its host is not the next one's.
                (if supply.keep { supply.head().unwrap_or(head) } else { head }, body)
            }
            None => {
                let (Some(head), Some(body)) = (supply.head(), supply.body.next(self.flow)) else {
                    return Err(outcome::internal());
                };
                (head, body)
            }
        };
        if self.route.host_rewrite == Some(HostRewrite::Auto)
            && !endpoint.hostname.is_empty()
            && let Ok(host) = HeaderValue::from_str(&endpoint.hostname)
        {
            if written {
                // It says already what the host was.
                head.headers.insert(header::HOST, host);
            } else {
                self.set_host(&mut head, host);
            }
        }
        let host = self.selected.virtual_host;
        if host.attempt_count_in_request {
            headers::insert_number(&mut head.headers, ATTEMPT_COUNT, attempt.into());
        }
        if attempt > 1 {
            let elapsed = self.flow.request_done().map_or(Duration::ZERO, |done| done.elapsed());
            plan.timeouts.announce(&mut head.headers, elapsed, &plan.audience);
            if host.timeout_retry_header {
                let value = if timed_out { "true" } else { "false" };
                head.headers.insert(TIMEOUT_RETRY, HeaderValue::from_static(value));
            }
        }
        if let Some(extended) = &plan.extended {
            head.method = Method::CONNECT;
            head.extensions.insert(extended.protocol.clone());
        }
        let mut request = Request::from_parts(head, body);
        if plan.gated {
            let gate = expect::gate(&mut request);
            if let Body::Upload(upload) = request.body_mut() {
                upload.set_gate(gate);
            }
        }
        Ok(request)
    }
}

impl Supply<'_> {
    /// The head for a try.
    fn head(&mut self) -> Option<Parts> {
        if self.keep {
            return self.head.as_ref().map(|head| (**head).clone());
        }
        self.head.take().map(|head| {
            // What it was stays, for those who ask about failures.
            let mut rest = Request::new(()).into_parts().0;
            (rest.method, rest.uri) = (head.method.clone(), head.uri.clone());
            std::mem::replace(head, rest)
        })
    }

    /// Whether the body turned out to be more than may be kept.
    pub(super) fn is_too_long(&self) -> bool {
        matches!(&self.body, Source::Kept(kept) if kept.is_too_long())
    }

    /// There will be no other try: what is kept of the body may go once it is sent.
    pub(super) fn settle(&self) {
        if let Source::Kept(kept) = &self.body {
            kept.settle();
        }
    }

    /// Whether another try would send the same request from its first byte.
    pub(super) fn can_repeat(&self) -> bool {
        self.returned.is_some()
            || self.keep
                && match &self.body {
                    Source::Empty => true,
                    Source::Once(body) => body.is_some(),
                    Source::Kept(kept) => kept.is_whole(),
                }
    }
}

impl Source {
    fn next(&mut self, flow: &Rc<Flow>) -> Option<Body> {
        Some(match self {
            Self::Empty => Body::Empty,
            Self::Once(body) => Body::Upload(Upload::direct(body.take()?, flow.clone())),
            Self::Kept(kept) => Body::Upload(Upload::shared(kept.attempt(), flow.clone())),
        })
    }
}

/// A request that came back from the pool may be in HTTP/2's form: the authority goes back to `Host`.
fn origin_form(request: &mut Request<Body>) {
    if request.method() == Method::CONNECT && request.uri().path_and_query().is_none() {
        return;
    }
    if let Some(authority) = request.uri().authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        request.headers_mut().insert(header::HOST, host);
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path.map_or_else(|| Uri::from_static("/"), Uri::from);
    }
}

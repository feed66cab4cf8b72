//! The retry loop: { pick an endpoint, send under the timeouts, classify, go again or not }.

use std::{pin::pin, rc::Rc, sync::Arc, time::Instant};

use http::{HeaderValue, Method, Request, StatusCode, Uri, header, request::Parts};
use http_body::Body as _;

use super::{ATTEMPT_COUNT, Forwarding, Plan, feed};
use crate::{
    ir::route::HostRewrite,
    l7::{
        body::{Body, Upload},
        client::{Attempt, SendError, SendErrorKind, Sent},
        expect,
        flow::Flow,
        headers,
        incoming::Incoming,
        outcome,
        replay::Kept,
        respond::Reply,
        retry::{self, Failure, Outcome, Verdict},
        timeouts::{Expired, Timeouts, within},
    },
    telemetry::flags::Flags,
    upstream::{Endpoint, PickContext, Picked, breaker::Permit},
};

/// What tries are made of.
struct Supply<'a> {
    /// The head, kept where a second try is possible; else given away with the first.
    head: Option<&'a mut Parts>,
    body: Source,
    /// A request that came back whole from a failed try.
    returned: Option<Box<Request<Body>>>,
    keep: bool,
}

enum Source {
    Empty,
    Once(Option<Incoming>),
    Kept(Kept),
}

/// What one try came to.
enum Tried {
    Response(Box<Sent>),
    Failed(Failure, Reply),
}

impl Tried {
    /// Makes this try's result the request's.
    fn end(self, plan: &Plan<'_>, count: &Count) -> Result<(Sent, u32), Reply> {
        match self {
            Self::Failed(_, reply) => Err(reply),
            Self::Response(sent) => {
                if count.retries > 0 && !sent.response.status().is_server_error() {
                    plan.cluster.stats.local().upstream_rq_retry_success.inc();
                }
                Ok((*sent, count.tries))
            }
        }
    }

    /// Lets go of a response that another try will replace.
    fn forget(self) {
        if let Self::Response(sent) = self
            && !sent.response.body().is_end_stream()
        {
            // Nobody will read the rest of this body.
            sent.guard.abort();
        }
    }
}

/// How often what was done.
#[derive(Default)]
struct Count {
    tries: u32,
    replays: u32,
    retries: u32,
}

/// What follows on a try.
enum Next {
    Stop,
    Replay,
    Retry(Permit),
}

impl Forwarding<'_> {
    /// Tries until there is a response, or a reason to give up; returns the number of tries too.
    pub(super) async fn tries(&self, plan: &Plan<'_>, parts: &mut Parts, body: Incoming) -> Result<(Sent, u32), Reply> {
        let keep = plan.rules.is_some() || (!plan.has_body && plan.method.is_idempotent());
        let body = match (plan.has_body, plan.rules.is_some()) {
            (false, _) => Source::Empty,
            (true, true) => Source::Kept(Kept::new(body)),
            (true, false) => Source::Once(Some(body)),
        };
        let mut supply = Supply { head: Some(parts), body, returned: None, keep };
        let mut tried: Vec<Arc<Endpoint>> = Vec::new();
        let mut count = Count::default();
        let mut permit: Option<Permit> = None;
        loop {
            let avoid = plan.rules.as_ref().is_some_and(|r| r.avoid_previous_hosts);
            let Picked { endpoint, probe } = self.pick(plan, if avoid { &tried } else { &[] })?;
            count.tries += 1;
            self.flow.record.upstream(|u| u.attempts = count.tries);
            let started = Instant::now();
            let request = self.attempt_request(plan, &mut supply, &endpoint, count.tries)?;
            // What would be replayed once is not risked twice.
            let replayable = count.tries == 1 && supply.keep && !plan.has_body && plan.method.is_idempotent();
            let attempt = self.attempt(plan, &endpoint, replayable);
            let result = {
                let sending = pin!(self.conn.engine.pool.send(&attempt, request));
                within(&plan.timeouts, self.flow, started, sending).await
            };
            feed::report(plan.cluster, &endpoint, probe, &result);
            let result = match result {
                Ok(Ok(sent)) => Tried::Response(Box::new(sent)),
                Ok(Err(error)) => self.failed(*error, &mut supply),
                Err(expired) => self.expired(plan, expired)?,
            };
            drop(permit.take());
            match self.judge(plan, &result, &supply, &mut count) {
                Next::Stop => return result.end(plan, &count),
                Next::Replay => result.forget(),
                Next::Retry(granted) => {
                    permit = Some(granted);
                    result.forget();
                    self.back_off(plan, started, count.retries).await?;
                }
            }
            tried.push(endpoint);
        }
    }

    /// Asks the rules, and the budget where they would retry.
    fn judge(&self, plan: &Plan<'_>, result: &Tried, supply: &Supply<'_>, count: &mut Count) -> Next {
        let stats = plan.cluster.stats.local();
        let outcome = match result {
            Tried::Failed(failure, _) => Outcome::Failed(*failure),
            Tried::Response(sent) => {
                Outcome::Response { status: sent.response.status(), headers: sent.response.headers() }
            }
        };
        let request = retry::Request { method: &plan.method, replayable: supply.can_repeat(), has_body: plan.has_body };
        let policy = plan.policy.map(|p| &**p);
        match retry::decide(plan.rules.as_ref(), policy, &request, &outcome, (count.replays, count.retries)) {
            Verdict::Replay => {
                count.replays += 1;
                stats.upstream_rq_replayed.inc();
                Next::Replay
            }
            Verdict::Retry => match plan.cluster.breaker(self.route.high_priority).try_retry() {
                Some(permit) => {
                    count.retries += 1;
                    stats.upstream_rq_retry.inc();
                    Next::Retry(permit)
                }
                None => {
                    stats.upstream_rq_retry_overflow.inc();
                    Next::Stop
                }
            },
            Verdict::LimitExceeded => {
                stats.upstream_rq_retry_limit_exceeded.inc();
                self.flow.record.flag(Flags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
                Next::Stop
            }
            Verdict::GiveUp => Next::Stop,
        }
    }

    /// A limit was hit: of one try, which may be worth another, or of the whole request.
    fn expired(&self, plan: &Plan<'_>, expired: Expired) -> Result<Tried, Reply> {
        let stats = plan.cluster.stats.local();
        let reply = outcome::expired(expired);
        match expired {
            Expired::PerTry | Expired::PerTryIdle => {
                stats.upstream_rq_per_try_timeout.inc();
                Ok(Tried::Failed(Failure::PerTryTimeout, reply))
            }
            Expired::Response => {
                stats.upstream_rq_timeout.inc();
                Err(reply)
            }
            Expired::Request | Expired::Stream | Expired::Idle => Err(reply),
        }
    }

    async fn back_off(&self, plan: &Plan<'_>, started: Instant, retries: u32) -> Result<(), Reply> {
        let wait = plan.rules.as_ref().map(|r| retry::backoff(r, retries, fastrand::u64(..)));
        let sleep = tokio::time::sleep(wait.unwrap_or_default());
        let timeouts = Timeouts { per_try: None, per_try_idle: None, ..plan.timeouts };
        within(&timeouts, self.flow, started, pin!(sleep)).await.map_err(outcome::expired)
    }

    fn pick(&self, plan: &Plan<'_>, exclude: &[Arc<Endpoint>]) -> Result<Picked, Reply> {
        let context = PickContext {
            original_dst: self.conn.scope.conn.original_dst,
            random: fastrand::u64(..),
            exclude,
            attempts: plan.rules.as_ref().map_or(1, |r| r.host_selection_attempts.max(1)),
            hash: None,
        };
        plan.cluster.pick_for_try(&context).map_err(|_| {
            Reply::new(StatusCode::SERVICE_UNAVAILABLE, "no_healthy_upstream")
                .body("no healthy upstream")
                .flag(Flags::NO_HEALTHY_UPSTREAM)
        })
    }

    fn attempt(&self, plan: &Plan<'_>, endpoint: &Arc<Endpoint>, replayable: bool) -> Attempt {
        Attempt {
            cluster: plan.cluster.clone(),
            endpoint: endpoint.clone(),
            protocol: plan.protocol,
            alpn: plan.alpn.clone(),
            sni: plan.sni.clone(),
            downstream: Some(self.conn.scope.conn.remote),
            replayable,
            high_priority: self.route.high_priority,
        }
    }

    /// The request of one try.
    fn attempt_request(
        &self,
        plan: &Plan<'_>,
        supply: &mut Supply<'_>,
        endpoint: &Endpoint,
        attempt: u32,
    ) -> Result<Request<Body>, Reply> {
        let (mut head, body) = match supply.returned.take() {
            Some(mut request) => {
                origin_form(&mut request);
                request.into_parts()
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
            self.set_host(&mut head, host);
        }
        if self.selected.virtual_host.attempt_count_in_request {
            headers::insert_number(&mut head.headers, ATTEMPT_COUNT, attempt.into());
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

    /// Classifies a failed try and keeps what came back of it.
    fn failed(&self, error: SendError<Body>, supply: &mut Supply<'_>) -> Tried {
        let record = &self.flow.record;
        if let Some(facts) = &error.facts {
            self.note_connection(facts);
        }
        if matches!(error.kind, SendErrorKind::Connect(_)) && record.logged() {
            record.upstream(|u| u.transport_failure = Some(error.reason.as_str().into()));
        }
        let (failure, reply) = outcome::classify(&error.kind, &error.reason);
        supply.returned = error.request.map(Box::new);
        tracing::debug!(?failure, reason = %error.reason, "try failed");
        Tried::Failed(failure, reply)
    }
}

impl Supply<'_> {
    /// The head for a try.
    fn head(&mut self) -> Option<Parts> {
        if self.keep {
            return self.head.as_ref().map(|head| (**head).clone());
        }
        let nothing = || Request::new(()).into_parts().0;
        self.head.take().map(|head| std::mem::replace(head, nothing()))
    }

    /// Whether another try would send the same request from its first byte.
    fn can_repeat(&self) -> bool {
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

//! The retry loop: { pick an endpoint, send under the timeouts, classify, go again or not }.

use std::{
    pin::pin,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use http::{Request, StatusCode, request::Parts};
use http_body::Body as _;

use super::{Forwarding, Plan, feed, supply::Supply};
use crate::{
    ir::cluster::RetryBudget,
    l7::{
        body::Body,
        client::{Attempt, SendError, SendErrorKind, Sent},
        incoming::Incoming,
        outcome,
        respond::Reply,
        retry::{self, Failure, Outcome, Verdict, Wait},
        timeouts::{Expired, TryClock, within},
        trace,
    },
    telemetry::{flags::Flags, own::own},
    upstream::{Endpoint, Picked, breaker::Permit, outlier::Probe},
};

/// A retry budget of all requests is none: there is nothing to save then.
const UNLIMITED: u32 = 1000;

/// What the pool made of a try.
pub(super) type Answer = Result<Sent, Box<SendError<Body>>>;

/// What one try came to.
pub(super) enum Tried {
    Response(Box<Sent>),
    Failed(Failure, Reply),
}

/// The try whose response goes to the client.
pub(super) struct Won {
    pub sent: Box<Sent>,
    pub attempts: u32,
    /// When it had a connection, where a limit counts from there.
    pub connected: Option<Instant>,
}

impl Tried {
    pub(super) fn outcome(&self) -> Outcome<'_> {
        match self {
            Self::Failed(failure, _) => Outcome::Failed(*failure),
            Self::Response(sent) => {
                Outcome::Response { status: sent.response.status(), headers: sent.response.headers() }
            }
        }
    }

    /// Makes this try's result the request's.
    pub(super) fn end(self, count: &Count, clock: Option<&TryClock>) -> Result<Won, Reply> {
        match self {
            Self::Failed(_, mut reply) => {
                if count.tries > 1 {
                    outcome::retried(&mut reply);
                }
                Err(reply.attempts(count.tries))
            }
            Self::Response(sent) => {
                Ok(Won { sent, attempts: count.tries, connected: clock.and_then(TryClock::started) })
            }
        }
    }

    /// Lets go of a response that another try will replace.
    pub(super) fn forget(self) {
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
pub(super) struct Count {
    pub tries: u32,
    pub replays: u32,
    pub retries: u32,
    /// Retries that took credit.
    pub charged: u32,
}

/// What follows on a try.
pub(super) enum Next {
    /// Nothing; `wanted`: although the policy would have had it otherwise.
    Stop {
        wanted: bool,
    },
    /// At once; with a permit where the budget pays.
    Replay(Option<Permit>),
    Retry(Permit, Duration),
}

/// Where a try goes and what it is.
pub(super) struct Launch {
    pub attempt: Attempt,
    pub request: Request<Body>,
    /// The try shows whether its host is well again.
    pub probe: Option<Probe>,
}

impl Forwarding<'_> {
    /// Tries until there is a response, or a reason to give up.
    pub(super) async fn tries(&self, plan: &Plan<'_>, parts: &mut Parts, body: Incoming) -> Result<Won, Reply> {
        let mut supply = Supply::new(plan, parts, body, self.route.internal_redirect.is_some());
        if plan.hedged {
            return Box::pin(self.hedged(plan, supply)).await;
        }
        let mut tried: Vec<Arc<Endpoint>> = Vec::new();
        let mut count = Count::default();
        let mut permit: Option<Permit> = None;
        let mut timed_out = false;
        loop {
            let Launch { attempt, request, probe } = self.launch(plan, &mut supply, &mut count, (&tried, timed_out))?;
            let started = plan.cluster.observes_latency().then(Instant::now);
            let result = {
                let sending = pin!(self.conn.engine.pool.send(&attempt, request));
                within(&plan.timeouts, self.flow, attempt.clock.as_deref(), sending).await
            };
            feed::report(plan.cluster, &attempt.endpoint, probe, &result);
            if !matches!(result, Ok(Ok(_))) {
                self.missed(plan, &attempt.endpoint);
            }
            self.observe(plan, &attempt.endpoint, started, &result);
            trace::tried(self.flow, count.tries, &result);
            timed_out = matches!(result, Err(Expired::PerTry | Expired::PerTryIdle));
            let result = self.settle(plan, result, &mut supply, &count)?;
            drop(permit.take());
            match self.judge(plan, &attempt.endpoint, &result, &mut supply, &mut count) {
                Next::Stop { wanted } => {
                    supply.settle();
                    self.account(plan, &result, wanted, &count);
                    return result.end(&count, attempt.clock.as_deref());
                }
                Next::Replay(granted) => {
                    permit = granted;
                    result.forget();
                }
                Next::Retry(granted, wait) => {
                    permit = Some(granted);
                    result.forget();
                    let sleep = tokio::time::sleep(wait);
                    if let Err(expired) = within(&plan.timeouts, self.flow, None, pin!(sleep)).await {
                        return Err(self.out_of_time(plan, expired, &count));
                    }
                }
            }
            tried.push(attempt.endpoint);
        }
    }

    /// Tells the balancer how long a host took for a try, where it wants to know.
    pub(super) fn observe(
        &self,
        plan: &Plan<'_>,
        endpoint: &Endpoint,
        since: Option<Instant>,
        result: &Result<Answer, Expired>,
    ) {
        if let Some(since) = since
            && matches!(result, Ok(Ok(_)) | Err(Expired::PerTry | Expired::PerTryIdle | Expired::Response))
        {
            plan.cluster.answered(endpoint, since.elapsed());
        }
    }

    /// Gets a try ready.
    pub(super) fn launch(
        &self,
        plan: &Plan<'_>,
        supply: &mut Supply<'_>,
        count: &mut Count,
        (tried, timed_out): (&[Arc<Endpoint>], bool),
    ) -> Result<Launch, Reply> {
        count.tries += 1;
        self.flow.record.upstream(|u| u.attempts = count.tries);
        let Picked { endpoint, probe } = self.pick(plan, tried).map_err(|reply| reply.attempts(count.tries))?;
        if self.flow.record.logged() {
            // Also of a try that no connection came of.
            self.flow.record.upstream(|u| u.host = Some(own(&endpoint.label)));
        }
        let mut request = self.attempt_request(plan, supply, &endpoint, (count.tries, timed_out))?;
        if let Some(span) = self.flow.record.span() {
            span.try_begins(count.tries, endpoint.label.clone(), request.headers_mut());
        }
        // What would be replayed once is not risked twice.
        let replayable = count.tries == 1 && supply.keep && !plan.has_body && plan.method.is_idempotent();
        Ok(Launch { attempt: self.attempt(plan, endpoint, replayable), request, probe })
    }

    /// What a try came to, however it ended; an error when with it the whole request did.
    pub(super) fn settle(
        &self,
        plan: &Plan<'_>,
        result: Result<Answer, Expired>,
        supply: &mut Supply<'_>,
        count: &Count,
    ) -> Result<Tried, Reply> {
        match result {
            Ok(Ok(sent)) => Ok(Tried::Response(Box::new(sent))),
            Ok(Err(error)) => Ok(self.failed(*error, supply)),
            Err(expired) => self.expired(plan, expired, count),
        }
    }

    /// Asks the rules, and the budget where they would retry.
    pub(super) fn judge(
        &self,
        plan: &Plan<'_>,
        endpoint: &Endpoint,
        result: &Tried,
        supply: &mut Supply<'_>,
        count: &mut Count,
    ) -> Next {
        let stats = plan.cluster.stats.local();
        if supply.is_too_long() && !std::mem::replace(&mut supply.abandoned, true) {
            stats.retry_or_shadow_abandoned.inc();
        }
        let age = match result {
            Tried::Failed(..) => self.flow.record.started().elapsed(),
            Tried::Response(_) => Duration::ZERO,
        };
        let (replayable, has_body) = (supply.can_repeat(), plan.has_body);
        let request = retry::Request { method: &plan.method, replayable, has_body, age };
        let done = (count.replays, count.retries);
        let mut verdict = retry::decide(plan.rules.as_ref(), &request, &result.outcome(), done);
        let mut paid = None;
        if verdict == Verdict::ReplayOnce {
            paid = plan.cluster.breaker(self.route.high_priority).try_retry();
            if paid.is_none() {
                let done = (retry::MAX_REPLAYS, count.retries);
                verdict = retry::decide(plan.rules.as_ref(), &request, &result.outcome(), done);
            }
        }
        let measured = plan.rules.is_some() && verdict != Verdict::Replay;
        let failing = measured && endpoint.streak.ended(verdict == Verdict::Enough);
        match verdict {
            Verdict::Replay | Verdict::ReplayOnce => {
                count.replays += 1;
                stats.upstream_rq_replayed.inc();
                Next::Replay(paid)
            }
            Verdict::Retry => self.retry(plan, failing.then_some(endpoint), Some(result), count),
            Verdict::LimitExceeded => self.limit_exceeded(plan),
            Verdict::Enough => Next::Stop { wanted: false },
            Verdict::Unable => Next::Stop { wanted: true },
        }
    }

    /// Asks the budget for another try, after the one that came to `result`. `failing`: its host, if it failed before.
    pub(super) fn retry(
        &self,
        plan: &Plan<'_>,
        failing: Option<&Endpoint>,
        result: Option<&Tried>,
        count: &mut Count,
    ) -> Next {
        let stats = plan.cluster.stats.local();
        let Some((rules, permit)) = plan.rules.as_ref().zip(self.permit(plan, failing, count)) else {
            stats.upstream_rq_retry_overflow.inc();
            self.flow.record.flag(Flags::UPSTREAM_OVERFLOW);
            return Next::Stop { wanted: true };
        };
        count.retries += 1;
        stats.upstream_rq_retry.inc();
        let response = match result {
            Some(Tried::Response(sent)) if !rules.policy.reset_headers.is_empty() => Some(sent.response.headers()),
            _ => None,
        };
        match retry::wait(rules.policy, count.retries, response, SystemTime::now(), fastrand::u64(..)) {
            Wait::Exponential(wait) => {
                stats.upstream_rq_retry_backoff_exponential.inc();
                Next::Retry(permit, wait)
            }
            Wait::RateLimited(wait) => {
                stats.upstream_rq_retry_backoff_ratelimited.inc();
                Next::Retry(permit, wait)
            }
        }
    }

    /// What a retry needs: a place in the budget, and credit; or that what failed is a single host.
    fn permit(&self, plan: &Plan<'_>, failing: Option<&Endpoint>, count: &mut Count) -> Option<Permit> {
        let (breaker, budget) = (plan.cluster.breaker(self.route.high_priority), self.retry_budget(plan));
        if budget.yields && failing.is_some_and(|host| plan.cluster.is_own_fault(host, fastrand::u64(..))) {
            return breaker.try_any_retry();
        }
        let permit = breaker.try_retry()?;
        if budget.permille < UNLIMITED {
            if !plan.cluster.credit().take() {
                return None;
            }
            count.charged += 1;
        }
        Some(permit)
    }

    fn retry_budget(&self, plan: &Plan<'_>) -> RetryBudget {
        let config = &plan.cluster.config;
        if self.route.high_priority { config.breaker_high.retry_budget } else { config.breaker.retry_budget }
    }

    /// The credit for the request's last result.
    pub(super) fn account(&self, plan: &Plan<'_>, result: &Tried, wanted: bool, count: &Count) {
        if plan.rules.is_none() {
            return;
        }
        let credit = plan.cluster.credit();
        let good = !wanted && matches!(result, Tried::Response(_));
        credit.ended(good, self.retry_budget(plan).permille);
        if good && count.retries > 0 {
            plan.cluster.stats.local().upstream_rq_retry_success.inc();
            if count.charged > 0 {
                credit.give_back();
            }
        }
    }

    pub(super) fn limit_exceeded(&self, plan: &Plan<'_>) -> Next {
        plan.cluster.stats.local().upstream_rq_retry_limit_exceeded.inc();
        self.flow.record.flag(Flags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
        Next::Stop { wanted: true }
    }

    /// A limit was hit: of one try, which may be worth another, or of the whole request.
    fn expired(&self, plan: &Plan<'_>, expired: Expired, count: &Count) -> Result<Tried, Reply> {
        let stats = plan.cluster.stats.local();
        match expired {
            Expired::PerTry => stats.upstream_rq_per_try_timeout.inc(),
            Expired::PerTryIdle => stats.upstream_rq_per_try_idle_timeout.inc(),
            Expired::Upstream => stats.upstream_rq_max_duration_reached.inc(),
            Expired::Response => {
                stats.upstream_rq_timeout.inc();
                return Err(self.out_of_time(plan, expired, count));
            }
            Expired::Request | Expired::Stream | Expired::Idle => {
                return Err(self.out_of_time(plan, expired, count));
            }
        }
        Ok(Tried::Failed(Failure::TryTimeout, self.out_of_time(plan, expired, count)))
    }

    /// The reply to a request that is out of time.
    pub(super) fn out_of_time(&self, plan: &Plan<'_>, expired: Expired, count: &Count) -> Reply {
        let mut reply = outcome::expired(expired, self.flow.request_done().is_some());
        if plan.timeout_is_204 && reply.flags.contains(Flags::UPSTREAM_REQUEST_TIMEOUT) {
            (reply.status, reply.body) = (StatusCode::NO_CONTENT, "".into());
        }
        match expired {
            // Not the router's doing: Envoy's connection manager knows of no tries.
            Expired::Request | Expired::Stream | Expired::Idle => reply,
            Expired::Response | Expired::PerTry | Expired::PerTryIdle | Expired::Upstream => {
                reply.attempts(count.tries)
            }
        }
    }

    fn attempt(&self, plan: &Plan<'_>, endpoint: Arc<Endpoint>, replayable: bool) -> Attempt {
        Attempt {
            cluster: plan.cluster.clone(),
            endpoint,
            protocol: plan.protocol,
            alpn: plan.alpn.clone(),
            sni: plan.sni.clone(),
            downstream: Some(self.conn.scope.conn.remote),
            replayable,
            high_priority: self.route.high_priority,
            clock: plan.timeouts.limit_tries().then(Rc::default),
        }
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

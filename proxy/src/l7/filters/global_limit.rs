//! The global rate limit filter: asks the rate limit service, and where it does not answer, the local fallback.

use std::{pin::pin, rc::Rc, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use outrigger_wire::pb::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};

use super::{
    After, Call, Levels, Stop,
    local_limit::{RESOURCE_EXHAUSTED, add_to_response},
    settings,
};
use crate::{
    ir::{
        filters::Setting,
        format::Template,
        http::HttpFilter,
        rate_limit::{GlobalRateLimit, LimitService, RequestKind, RouteRateLimit, Rule},
    },
    l7::{
        engine::Engine,
        flow::Kept,
        outcome,
        pipeline::Inbound,
        respond::Reply,
        side::{self, Ask, SideError},
    },
    live::LiveGlobalLimit,
    policy::{
        rate_limit::{Descriptors, limits::LocalLimit, service},
        router::RequestFacts,
    },
    telemetry::flags::Flags,
    upstream::{Cluster, uptime},
};

const INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");
const LIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");

/// Bytes of an answer.
const MAX_ANSWER: usize = 64 << 10;

const METHOD: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";

/// What came of asking.
enum Verdict {
    Ok(Box<RateLimitResponse>),
    OverLimit(Box<RateLimitResponse>),
    /// No service, and no local limit that has a say.
    Error,
}

impl Call<'_> {
    pub(super) async fn limit_globally(
        &self,
        (place, filter): (usize, &HttpFilter),
        config: &GlobalRateLimit,
        (levels, after): (&Levels<'_>, &mut After),
        request: &mut Inbound,
    ) -> Result<(), Stop> {
        if !config.enabled.hit(fastrand::u32(..)) || !concerns(config.requests, &request.parts.headers) {
            return Ok(());
        }
        let chosen = self.cluster(request).map(|c| c.cluster().to_owned());
        let Some(cluster) = chosen.and_then(|name| self.live.cluster(&name)) else { return Ok(()) };
        let per_route = settings(filter, levels).find_map(|setting| match setting {
            Setting::RateLimit(per_route) => Some(&**per_route),
            _ => None,
        });
        let domain = per_route.and_then(|r| r.domain.as_deref()).unwrap_or(&config.service.domain);
        let verdict = {
            let facts = request.facts(self.random);
            let later = self.global_descriptors((config, per_route), true, &facts, request);
            if !later.is_empty() {
                self.flow.keep(Box::new(AfterTheStream {
                    engine: self.conn.engine.clone(),
                    ask: self.ask_limits(&config.service),
                    head: self.limit_metadata(&config.service, request),
                    question: service::question(domain, &later),
                }));
            }
            let descriptors = self.global_descriptors((config, per_route), false, &facts, request);
            if descriptors.is_empty() {
                return Ok(());
            }
            let question = service::question(domain, &descriptors);
            let head = self.limit_metadata(&config.service, request);
            let ask = self.ask_limits(&config.service);
            let engine = &self.conn.engine;
            let asked = self.wait(pin!(ask_service(engine, &ask, head, &question))).await?;
            self.verdict(asked, place, levels, (cluster, &descriptors))
        };
        self.carry_out_limit(verdict, config, cluster, (request, after))
    }

    /// The rules in force: the route's own for this filter, the filter's, or those of route and virtual host.
    pub(super) fn global_descriptors<'d>(
        &'d self,
        (config, per_route): (&'d GlobalRateLimit, Option<&'d RouteRateLimit>),
        later: bool,
        facts: &'d RequestFacts<'d>,
        request: &'d Inbound,
    ) -> Descriptors<'d> {
        let own = per_route.map_or(&[][..], |r| &r.rules);
        let own = if own.is_empty() { &config.rules[..] } else { own };
        if !own.is_empty() {
            return self.descriptors(own.iter().filter(|r| r.on_stream_done == later), facts, request);
        }
        let rules = self.rules_of_route(per_route.map(|r| r.virtual_host).unwrap_or_default());
        let concerned = |rule: &&Rule| rule.stage == config.stage && rule.on_stream_done == later;
        self.descriptors(rules.into_iter().flatten().filter(concerned), facts, request)
    }

    fn verdict(
        &self,
        asked: Result<RateLimitResponse, SideError>,
        place: usize,
        levels: &Levels<'_>,
        (cluster, descriptors): (&Cluster, &Descriptors<'_>),
    ) -> Verdict {
        let stats = cluster.stats.local();
        if let Ok(answer) = asked {
            match service::allows(&answer) {
                Some(true) => {
                    stats.ratelimit_ok.inc();
                    return Verdict::Ok(Box::new(answer));
                }
                Some(false) => {
                    stats.ratelimit_over_limit.inc();
                    return Verdict::OverLimit(Box::new(answer));
                }
                None => {}
            }
        }
        stats.ratelimit_error.inc();
        let Some(global) = self.filters.global(place) else { return Verdict::Error };
        let Some(limit) = self.fallback(global, levels) else { return Verdict::Error };
        let share = self.live.cluster(&global.replicas).map_or(1, |c| c.members().len());
        let share = u32::try_from(share.max(1)).unwrap_or(u32::MAX);
        let decision = limit.limiter.decide(uptime().as_secs_f64(), descriptors, share);
        match (decision.unlimited, decision.allowed) {
            (true, _) => Verdict::Error,
            (false, true) => {
                stats.ratelimit_fallback_ok.inc();
                Verdict::Ok(Box::default())
            }
            (false, false) => {
                stats.ratelimit_fallback_over_limit.inc();
                Verdict::OverLimit(Box::default())
            }
        }
    }

    /// The local limit that stands in for the service.
    fn fallback<'l>(&'l self, global: &'l LiveGlobalLimit, levels: &Levels<'l>) -> Option<&'l Arc<LocalLimit>> {
        match levels.iter().flatten().find_map(|level| level.get(&global.fallback_name)) {
            Some(Setting::LocalRateLimit(config)) => self.table?.limits.get(config),
            Some(Setting::Disabled) => None,
            Some(_) | None => global.fallback.as_ref(),
        }
    }

    fn carry_out_limit(
        &self,
        verdict: Verdict,
        config: &GlobalRateLimit,
        cluster: &Cluster,
        (request, after): (&mut Inbound, &mut After),
    ) -> Result<(), Stop> {
        let (over, answer) = match verdict {
            Verdict::Ok(answer) => (false, answer),
            Verdict::OverLimit(answer) => (true, answer),
            Verdict::Error if !config.failure_deny.hit(fastrand::u32(..)) => {
                cluster.stats.local().ratelimit_failure_mode_allowed.inc();
                return Ok(());
            }
            Verdict::Error => {
                let reply = Reply::new(config.status_on_error, "rate_limiter_error");
                return Err(Stop::Reply(Box::new(reply.flag(Flags::RATE_LIMIT_SERVICE_ERROR))));
            }
        };
        if let Some(noted) = answer.dynamic_metadata.as_ref().filter(|m| !m.fields.is_empty()) {
            self.flow.record.metadata.set(&config.metadata_namespace, service::fields(noted));
        }
        let mut headers = service::headers(&answer.response_headers_to_add, false);
        if over {
            outcome::count(cluster, config.limited_status);
            if config.limited_header {
                headers.insert(LIMITED, HeaderValue::from_static("true"));
            }
        }
        if config.headers {
            service::announce(&answer.statuses, &mut headers);
        }
        if !over || !config.enforced.hit(fastrand::u32(..)) {
            after.add(headers);
            append(&mut request.parts.headers, &service::headers(&answer.request_headers_to_add, true));
            return Ok(());
        }
        if config.retry_after
            && config.limited_status == http::StatusCode::TOO_MANY_REQUESTS
            && let Some(seconds) = service::retry_after(&answer.statuses)
        {
            headers.entry(header::RETRY_AFTER).or_insert(seconds.into());
        }
        Err(self.refuse_globally(config, &answer.raw_body, headers, request))
    }

    fn refuse_globally(&self, config: &GlobalRateLimit, body: &[u8], added: HeaderMap, request: &Inbound) -> Stop {
        let body = String::from_utf8_lossy(body).into_owned();
        let mut reply = Reply::new(config.limited_status, "request_rate_limited").body(body).flag(Flags::RATE_LIMITED);
        if config.resource_exhausted {
            reply = reply.grpc(RESOURCE_EXHAUSTED);
        }
        let mut response = self.local_reply(reply, request);
        if added.contains_key(header::CONTENT_TYPE) {
            response.headers_mut().remove(header::CONTENT_TYPE);
        }
        append(response.headers_mut(), &added);
        add_to_response(&config.response_headers, self.flow, request, &mut response);
        Stop::Answer(Box::new(response))
    }

    fn ask_limits(&self, service: &LimitService) -> Ask {
        Ask {
            cluster: service.cluster.clone(),
            timeout: service.timeout,
            limit: MAX_ANSWER,
            downstream: Some(self.conn.scope.conn.remote),
        }
    }

    /// The metadata of a call.
    fn limit_metadata(&self, service: &LimitService, request: &Inbound) -> HeaderMap {
        let render = |template: &Template| crate::l7::pipeline::render(template, "", self.flow, request);
        metadata(service, render)
    }
}

/// The metadata of a call to a service, as far as it is configured.
pub(crate) fn metadata(service: &LimitService, render: impl Fn(&Template) -> String) -> HeaderMap {
    let mut head = HeaderMap::new();
    if let Ok(authority) = HeaderValue::from_str(&service.authority)
        && !authority.is_empty()
    {
        head.insert(header::HOST, authority);
    }
    for (name, template) in &service.metadata {
        let text = template.literal().map_or_else(|| render(template), str::to_owned);
        if let Ok(value) = HeaderValue::from_str(&text) {
            head.append(name.clone(), value);
        }
    }
    head
}

/// Asks the service.
pub(crate) async fn ask_service(
    engine: &Engine,
    ask: &Ask,
    head: HeaderMap,
    question: &RateLimitRequest,
) -> Result<RateLimitResponse, SideError> {
    let answer = side::unary(engine, ask, (METHOD, head), question).await;
    if let Err(error) = &answer {
        tracing::debug!(cluster = %ask.cluster, %error, "the rate limit service cannot be asked");
    }
    answer
}

/// `x-envoy-internal` tells whose request it is.
pub(super) fn concerns(kind: RequestKind, headers: &HeaderMap) -> bool {
    let internal = headers.get(&INTERNAL).is_some_and(|v| v.as_bytes() == b"true");
    match kind {
        RequestKind::Both => true,
        RequestKind::Internal => internal,
        RequestKind::External => !internal,
    }
}

/// Adds what there is room for.
pub(super) fn append(headers: &mut HeaderMap, added: &HeaderMap) {
    for (name, value) in added {
        let _ = headers.try_append(name, value.clone());
    }
}

/// `apply_on_stream_done`: what the service hears once the exchange is over.
struct AfterTheStream {
    engine: Rc<Engine>,
    ask: Ask,
    head: HeaderMap,
    question: RateLimitRequest,
}

impl Kept for AfterTheStream {
    fn end(self: Box<Self>, _answered: bool) {
        tokio::task::spawn_local(async move {
            let Self { engine, ask, head, question } = *self;
            // Nobody waits for the answer.
            let _ = ask_service(&engine, &ask, head, &question).await;
        });
    }
}

//! The local rate limit filter: counts, limits, and tells clients how much is left.

use std::{
    cell::{OnceCell, RefCell},
    rc::Rc,
    sync::Arc,
};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::{After, Call, Levels, Stop, settings};
use crate::{
    ir::{
        filters::Setting,
        format::Template,
        http::HttpFilter,
        rate_limit::{LocalRateLimit, Rule, VirtualHostLimits},
        route::{Action, HeaderAdd},
    },
    l7::{
        flow::Flow,
        headers::{self, Pseudo, RequestView, ResponseView},
        pipeline::Inbound,
        respond::Reply,
    },
    policy::{
        rate_limit::{
            Descriptors,
            descriptors::Facts,
            limits::{self, LocalLimit},
            local::{Decision, Drawn, LocalLimiter},
        },
        router::{Chosen, RequestFacts},
    },
    telemetry::{flags::Flags, format},
    upstream::uptime,
};

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// `RESOURCE_EXHAUSTED`.
pub(super) const RESOURCE_EXHAUSTED: u16 = 8;

/// What a bucket has left when the response goes out.
pub(super) fn announce(drawn: &Drawn, headers: &mut HeaderMap) {
    let now = uptime().as_secs_f64();
    headers.append(LIMIT, drawn.bucket.max().into());
    headers.append(REMAINING, drawn.bucket.remaining(now).into());
    headers.append(RESET, whole_seconds(drawn.bucket.wait(now, 1.0)).into());
}

/// Up to the next whole second.
fn whole_seconds(seconds: f64) -> u64 {
    seconds.ceil() as u64
}

impl Call<'_> {
    pub(super) fn limit_locally(
        &self,
        (place, filter): (usize, &HttpFilter),
        levels: &Levels<'_>,
        request: &mut Inbound,
        after: &mut After,
    ) -> Result<(), Stop> {
        let Some(limit) = self.local_limit(place, filter, levels) else { return Ok(()) };
        let config = &limit.config;
        if !config.enabled.hit(fastrand::u32(..)) {
            return Ok(());
        }
        let stats = limit.stats.local();
        stats.enabled.inc();
        let decision = self.judge_locally(limit, request, |limiter, descriptors, share| {
            limiter.decide(uptime().as_secs_f64(), descriptors, share)
        });
        let Decision { allowed, drawn, headers, shadowed, .. } = decision;
        if headers.unwrap_or(config.headers)
            && let Some(drawn) = &drawn
        {
            after.announce(drawn.clone());
        }
        if shadowed > 0 {
            stats.shadow_mode.inc();
        }
        if allowed {
            // What only shadows refuse is counted as if it were refused.
            if shadowed > 0 { &stats.rate_limited } else { &stats.ok }.inc();
            return Ok(());
        }
        stats.rate_limited.inc();
        if !config.enforced.hit(fastrand::u32(..)) {
            add_to_request(&config.request_headers, self.flow, request);
            return Ok(());
        }
        stats.enforced.inc();
        Err(self.refuse_locally(config, drawn.as_deref(), request))
    }

    /// Has `judge` look at the request's descriptors, with the share that a token counts for.
    pub(super) fn judge_locally(
        &self,
        limit: &LocalLimit,
        request: &Inbound,
        judge: impl Fn(&LocalLimiter, &Descriptors<'_>, u32) -> Decision,
    ) -> Decision {
        let config = &limit.config;
        let facts = request.facts(self.random);
        let descriptors = match config.descriptors.is_empty() {
            true => Descriptors::new(),
            false => self.local_descriptors(config, &facts, request),
        };
        let share = if config.shared { self.filters.callers.hosts() } else { 1 };
        let share = u32::try_from(share).unwrap_or(u32::MAX);
        match config.per_connection {
            true => judge(&self.conn.limits.of(config), &descriptors, share),
            false => judge(&limit.limiter, &descriptors, share),
        }
    }

    /// The limit that is in force: the most specific one.
    pub(super) fn local_limit<'l>(
        &'l self,
        place: usize,
        filter: &HttpFilter,
        levels: &Levels<'l>,
    ) -> Option<&'l Arc<LocalLimit>> {
        let of_route = settings(filter, levels).find_map(|setting| match setting {
            Setting::LocalRateLimit(config) => Some(config),
            _ => None,
        });
        match of_route {
            Some(config) => self.table?.limits.get(config),
            None => self.filters.limit(place),
        }
    }

    fn local_descriptors<'d>(
        &'d self,
        config: &'d LocalRateLimit,
        request: &'d RequestFacts<'d>,
        inbound: &'d Inbound,
    ) -> Descriptors<'d> {
        if !config.rules.is_empty() {
            return self.descriptors(config.rules.iter(), request, inbound);
        }
        let rules = self.rules_of_route(config.virtual_host);
        let concerned = |rule: &&Rule| rule.stage == config.stage && !rule.disable_key && !rule.on_stream_done;
        self.descriptors(rules.into_iter().flatten().filter(concerned), request, inbound)
    }

    /// The rules of the route and, as far as they count, of the virtual host.
    pub(super) fn rules_of_route(&self, option: VirtualHostLimits) -> [&[Rule]; 2] {
        let Some(selected) = self.selected else { return [&[], &[]] };
        if !matches!(selected.route.action, Action::Forward(_)) {
            return [&[], &[]];
        }
        let route = selected.route.overrides.as_deref().and_then(|o| o.rate_limits.as_deref());
        let host = selected.virtual_host.overrides.as_deref().and_then(|o| o.rate_limits.as_deref());
        let own = route.map_or(&[][..], |l| &l.rules);
        let include = route.is_some_and(|l| l.include_virtual_host) || option == VirtualHostLimits::Include;
        let host = host.filter(|_| include || (option == VirtualHostLimits::Override && own.is_empty()));
        [own, host.map_or(&[][..], |l| &l.rules)]
    }

    /// What rules make of the request.
    pub(super) fn descriptors<'d>(
        &'d self,
        rules: impl Iterator<Item = &'d Rule>,
        request: &'d RequestFacts<'d>,
        inbound: &'d Inbound,
    ) -> Descriptors<'d> {
        let mut descriptors = Descriptors::new();
        let render = |template: &Template| -> String {
            let pseudo = Pseudo { method: request.method, path: request.path, scheme: request.scheme };
            let view = RequestView { pseudo, headers: request.headers };
            let mut text = String::new();
            self.flow.record.facts(Some(&view), |facts| format::render(template, facts, "", &mut text));
            text
        };
        let mut rules = rules.peekable();
        if rules.peek().is_none() {
            return descriptors;
        }
        let noted = self.flow.record.metadata.get();
        let cluster = self.cluster(inbound).map(Chosen::cluster);
        let cluster_metadata = || self.live.cluster(cluster?)?.config.metadata.as_deref();
        let facts = Facts {
            request,
            remote: inbound.sane.origin.remote.ip(),
            service_cluster: &self.filters.callers.service_cluster,
            cluster,
            route: self.selected.and_then(|s| s.route.metadata.as_deref()),
            cluster_metadata: &cluster_metadata,
            dynamic: noted.as_deref(),
            render: &render,
        };
        rules.for_each(|rule| rule.describe(&facts, &mut descriptors));
        descriptors
    }

    pub(super) fn refuse_locally(&self, config: &LocalRateLimit, drawn: Option<&Drawn>, request: &Inbound) -> Stop {
        let mut reply =
            Reply::new(config.status, "local_rate_limited").body("local_rate_limited").flag(Flags::RATE_LIMITED);
        if config.resource_exhausted {
            reply = reply.grpc(RESOURCE_EXHAUSTED);
        }
        let mut response = self.local_reply(reply, request);
        add_to_response(&config.response_headers, self.flow, request, &mut response);
        if config.retry_after
            && config.status == StatusCode::TOO_MANY_REQUESTS
            && let Some(drawn) = drawn
        {
            let wait = whole_seconds(drawn.bucket.wait(uptime().as_secs_f64(), 1.0)).max(1);
            response.headers_mut().entry(header::RETRY_AFTER).or_insert(wait.into());
        }
        Stop::Answer(Box::new(response))
    }
}

/// Adds headers to the request, which their values may refer to.
pub(super) fn add_to_request(adds: &[HeaderAdd], flow: &Flow, request: &mut Inbound) {
    let scheme = request.sane.origin.scheme;
    let http::request::Parts { method, uri, headers: map, .. } = &mut request.parts;
    let path = uri.path_and_query().map_or("", |p| p.as_str());
    for add in adds {
        let pseudo = Pseudo { method, path, scheme };
        let view = RequestView { pseudo, headers: map };
        let value = flow.record.facts(Some(&view), |facts| headers::evaluate(add, facts));
        headers::insert(map, add, value);
    }
}

/// Adds headers to an answer that is made here.
pub(super) fn add_to_response<B>(adds: &[HeaderAdd], flow: &Flow, request: &Inbound, response: &mut http::Response<B>) {
    let pseudo = Pseudo { method: &request.parts.method, path: request.path(), scheme: request.sane.origin.scheme };
    let view = RequestView { pseudo, headers: &request.parts.headers };
    let content_type = response.headers().get(header::CONTENT_TYPE).cloned().filter(|_| request.sane.grpc);
    for add in adds {
        let (status, map) = (response.status(), response.headers_mut());
        // The code of the answer is not noted yet, as in Envoy.
        let value: Option<HeaderValue> = flow.record.facts(Some(&view), |facts| {
            let seen = ResponseView(status, map);
            headers::evaluate(add, &format::Facts { response: Some(&seen), ..*facts })
        });
        headers::insert(map, add, value);
    }
    // An answer to a gRPC client stays one.
    if let Some(content_type) = content_type {
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    }
}

/// Buckets that a connection has for itself, by the limit they are of.
#[derive(Default)]
pub(in crate::l7) struct OwnLimits(OnceCell<Box<RefCell<Own>>>);

type Own = Vec<(Arc<LocalRateLimit>, Rc<LocalLimiter>)>;

impl OwnLimits {
    fn of(&self, config: &Arc<LocalRateLimit>) -> Rc<LocalLimiter> {
        let mut all = self.0.get_or_init(Box::default).borrow_mut();
        if let Some((_, known)) = all.iter().find(|(c, _)| Arc::ptr_eq(c, config)) {
            return known.clone();
        }
        // Of a configuration that is no more nothing needs to be known.
        all.retain(|(c, _)| Arc::strong_count(c) > 1);
        let made = Rc::new(limits::limiter(config));
        all.push((config.clone(), made.clone()));
        made
    }
}

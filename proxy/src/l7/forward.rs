//! Forwarding: from a chosen route to an upstream's response, over as many tries as it takes.
//!
//! The loop is { pick an endpoint, send under the timeouts, classify, reply or go again }. What may be repeated is
//! decided in [`super::retry`], purely; this module keeps the means (the kept head and body) and does the counting.

use std::{borrow::Cow, rc::Rc, sync::Arc, time::Instant};

use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header, request::Parts};
use http_body::Body as _;
use hyper::body::Incoming;

use super::{
    body::{Body, Upload},
    client::{Attempt, HttpProtocol, Protocol, SendError, SendErrorKind, Sent},
    expect,
    flow::{Deadline, DeadlineKind, Flow},
    headers::{self, Pseudo, RequestView},
    outcome,
    pipeline::{Inbound, levels, note_head},
    replay::Kept,
    respond::Reply,
    retry::{self, Failure, Outcome, Rules, Verdict},
    rewrite,
    server::Connection,
    timeouts::{Expired, Timeouts, within},
    upgrade,
};
use crate::{
    ir::{
        cluster::UpstreamProtocol,
        http::FilterKind,
        route::{Forward, HostRewrite, RetryPolicy, Target, WeightedTarget},
    },
    live::Live,
    policy::router::{RouteTable, Selected, pick_weighted, strip_port},
    telemetry::flags::Flags,
    upstream::{Cluster, Endpoint, PickContext, breaker::Permit},
};

const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const ATTEMPT_COUNT: &str = "x-envoy-attempt-count";

/// One request being forwarded.
pub(super) struct Forwarding<'a> {
    pub conn: &'a Rc<Connection>,
    pub flow: &'a Rc<Flow>,
    pub live: &'a Live,
    pub table: &'a RouteTable,
    pub selected: Selected<'a>,
    pub route: &'a Forward,
    pub random: u64,
}

/// Everything that stays the same over the tries.
struct Plan<'a> {
    cluster: &'a Arc<Cluster>,
    weighted: Option<&'a WeightedTarget>,
    rules: Option<Rules>,
    policy: Option<&'a Arc<RetryPolicy>>,
    timeouts: Timeouts,
    protocol: Protocol,
    alpn: Option<Arc<[Box<str>]>>,
    sni: Option<Box<str>>,
    method: Method,
    has_body: bool,
    gated: bool,
    /// Our own `x-envoy-*` headers go up and down.
    envoy_headers: bool,
    scheme: &'static str,
}

/// What tries are made of.
struct Supply {
    /// The head, kept where a second try is possible; else given away with the first.
    head: Option<Parts>,
    body: Source,
    /// A request that came back whole from a failed try.
    returned: Option<Request<Body>>,
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
    Expired(Expired),
}

impl<'a> Forwarding<'a> {
    pub(super) async fn run(self, mut request: Inbound) -> Result<Response<Body>, Reply> {
        let scheme = request.sane.origin.scheme;
        let (cluster, weighted) = match self.target(&request) {
            Ok(found) => found,
            Err(reply) => {
                note_head(self.flow, &request.parts, scheme);
                return Err(reply);
            }
        };
        self.flow.record.upstream(|u| u.cluster = self.flow.record.logged().then(|| cluster.config.name.clone()));
        if let Err(reply) = upgrade::check(&self.conn.hcm.config, self.route, &request) {
            note_head(self.flow, &request.parts, scheme);
            return Err(reply);
        }
        let mut plan = self.plan(cluster, weighted, &mut request);
        let copy = self.copy_head(&plan, &request);
        upgrade::prepare(&mut request, plan.protocol);
        plan.method = request.parts.method.clone();
        note_head(self.flow, &request.parts, scheme);
        if let Some(idle) = self.route.idle_timeout {
            self.flow.set_idle(idle);
        }
        if let Some(limit) = plan.timeouts.stream {
            let at = self.flow.record.started() + limit;
            self.flow.limit(Deadline { at, kind: DeadlineKind::Stream });
        }
        let Inbound { parts, body, sane, upgrade } = request;
        let (sent, attempts) = self.tries(&plan, parts, body).await?;
        let down = upgrade::Downstream { tunnel: sane.tunnel, promise: upgrade, grpc: sane.grpc };
        self.response(&plan, sent, attempts, (down, copy))
    }

    /// The cluster the route leads to.
    fn target(&self, request: &Inbound) -> Result<(&'a Arc<Cluster>, Option<&'a WeightedTarget>), Reply> {
        let (name, weighted): (Cow<'_, str>, _) = match &self.route.target {
            Target::Cluster(name) => ((**name).into(), None),
            Target::Header(name) => {
                let value = request.parts.headers.get(name).and_then(|v| v.to_str().ok());
                (value.unwrap_or_default().into(), None)
            }
            Target::Weighted(targets) => match pick_weighted(targets, self.random) {
                Some(target) => ((*target.cluster).into(), Some(target)),
                None => ("".into(), None),
            },
        };
        match self.live.cluster(&name) {
            Some(cluster) => Ok((cluster, weighted)),
            None => Err(Reply::new(self.route.cluster_not_found, "cluster_not_found").flag(Flags::NO_CLUSTER)),
        }
    }

    /// Decides what holds for all tries and gives the request head its final form.
    fn plan(&self, cluster: &'a Arc<Cluster>, weighted: Option<&'a WeightedTarget>, request: &mut Inbound) -> Plan<'a> {
        let config = &self.conn.hcm.config;
        let mut envoy_headers = true;
        let mut alpn_override = None;
        for filter in &config.filters {
            match &filter.kind {
                FilterKind::Router(router) => envoy_headers = !router.suppress_envoy_headers,
                FilterKind::Alpn(lists) => alpn_override = Some(lists),
            }
        }
        let policy = self.route.retry.as_ref().or(self.selected.virtual_host.retry.as_ref());
        let grpc = request.sane.grpc;
        let headers = &mut request.parts.headers;
        let rules = Rules::new(policy.map(|p| &**p), envoy_headers.then_some(&*headers));
        let timeouts = Timeouts::new(config, self.route, rules.as_ref(), (headers, grpc), envoy_headers);
        for name in
            ["x-envoy-retry-on", "x-envoy-retry-grpc-on", "x-envoy-max-retries", "x-envoy-retriable-status-codes"]
        {
            headers.remove(name);
        }
        timeouts.announce(self.route, (headers, grpc), envoy_headers);
        let has_body = !request.body.is_end_stream();
        let gated = has_body && expect::is_expected(headers);
        if gated && !config.proxy_100_continue {
            headers.remove(header::EXPECT);
        }
        self.rewrite(weighted, request, envoy_headers);
        let protocol = match cluster.config.http.protocol {
            UpstreamProtocol::Http1 => Protocol::Http1,
            UpstreamProtocol::Http2 => Protocol::Http2,
            UpstreamProtocol::Auto => Protocol::Auto,
            UpstreamProtocol::UseDownstream if request.parts.version == Version::HTTP_2 => Protocol::Http2,
            UpstreamProtocol::UseDownstream => Protocol::Http1,
        };
        frame(&mut request.parts, &request.body);
        let alpn = alpn_override.filter(|_| outcome::alpn_override_allowed(cluster)).map(|lists| {
            match (protocol, request.parts.version) {
                (Protocol::Http2, _) => &lists.http2,
                (Protocol::Http1 | Protocol::Auto, Version::HTTP_10) => &lists.http10,
                (Protocol::Http1 | Protocol::Auto, _) => &lists.http11,
            }
            .clone()
        });
        let sni = cluster.config.http.auto_sni.then(|| strip_port(request.authority()).into());
        Plan {
            cluster,
            weighted,
            rules,
            policy,
            timeouts,
            protocol,
            alpn: alpn.filter(|list| !list.is_empty() && protocol != Protocol::Auto),
            sni,
            method: request.parts.method.clone(),
            has_body,
            gated: gated && config.proxy_100_continue,
            envoy_headers,
            scheme: request.sane.origin.scheme,
        }
    }

    /// Header mutations, host and path rewrites, in Envoy's order.
    fn rewrite(&self, weighted: Option<&WeightedTarget>, request: &mut Inbound, envoy_headers: bool) {
        let scheme = request.sane.origin.scheme;
        for ops in levels(self.table, self.selected, weighted.map(|w| &w.headers)) {
            let Parts { method, uri, headers, .. } = &mut request.parts;
            let path = uri.path_and_query().map_or("", |p| p.as_str());
            self.flow
                .record
                .facts(None, |facts| headers::apply_request(ops, headers, Pseudo { method, path, scheme }, facts));
        }
        let host = match weighted.and_then(|w| w.host_rewrite.as_deref()) {
            Some(host) => Some(host.to_owned()),
            None => {
                let rewrite = self.route.host_rewrite.as_ref();
                rewrite.and_then(|r| rewrite::host(r, &request.parts.headers, request.path()))
            }
        };
        if let Some(host) = host.and_then(|h| HeaderValue::from_str(&h).ok()) {
            self.set_host(&mut request.parts, host);
        }
        let rewritten = self
            .route
            .path_rewrite
            .as_ref()
            .and_then(|r| rewrite::path(r, &self.selected.route.matches, request.path()))
            // A rewrite that leaves no leading slash would not be a path any more.
            .map(|p| if p.starts_with('/') { p } else { format!("/{p}") });
        if let Some(new) = rewritten.and_then(|p| p.parse::<Uri>().ok()) {
            if envoy_headers && let Ok(old) = HeaderValue::from_str(request.path()) {
                request.parts.headers.insert(ORIGINAL_PATH, old);
            }
            request.parts.uri = new;
        }
    }

    fn set_host(&self, parts: &mut Parts, host: HeaderValue) {
        let old = parts.headers.insert(header::HOST, host);
        if self.route.append_forwarded_host
            && let Some(old) = old
        {
            let value = match parts.headers.get(&FORWARDED_HOST) {
                Some(list) => HeaderValue::from_bytes(&[list.as_bytes(), b",", old.as_bytes()].concat()).unwrap_or(old),
                None => old,
            };
            parts.headers.insert(FORWARDED_HOST, value);
        }
    }

    /// The request head, where response mutations refer to it.
    fn copy_head(&self, plan: &Plan<'_>, request: &Inbound) -> Option<Box<(Method, String, http::HeaderMap)>> {
        levels(self.table, self.selected, plan.weighted.map(|w| &w.headers))
            .any(|ops| headers::mentions_request(&ops.response_add))
            .then(|| Box::new((request.parts.method.clone(), request.path().to_owned(), request.parts.headers.clone())))
    }

    /// The retry loop.
    async fn tries(&self, plan: &Plan<'_>, parts: Parts, body: Incoming) -> Result<(Sent, u32), Reply> {
        let keep = plan.rules.is_some() || (!plan.has_body && plan.method.is_idempotent());
        let body = match (plan.has_body, plan.rules.is_some()) {
            (false, _) => Source::Empty,
            (true, true) => Source::Kept(Kept::new(body)),
            (true, false) => Source::Once(Some(body)),
        };
        let mut supply = Supply { head: Some(parts), body, returned: None, keep };
        let stats = plan.cluster.stats.local();
        let mut tried: Vec<Arc<Endpoint>> = Vec::new();
        let (mut attempts, mut replays, mut retries) = (0u32, 0, 0);
        let mut permit: Option<Permit> = None;
        loop {
            let avoid = plan.rules.as_ref().is_some_and(|r| r.avoid_previous_hosts);
            let endpoint = self.pick(plan, if avoid { &tried } else { &[] })?;
            attempts += 1;
            self.flow.record.upstream(|u| u.attempts = attempts);
            let started = Instant::now();
            let request = self.attempt_request(plan, &mut supply, &endpoint, attempts)?;
            let attempt = self.attempt(plan, &endpoint);
            let tried_out =
                match within(&plan.timeouts, self.flow, started, self.conn.engine.pool.send(&attempt, request)).await {
                    Err(expired) => Tried::Expired(expired),
                    Ok(Ok(sent)) => Tried::Response(Box::new(sent)),
                    Ok(Err(error)) => self.failed(*error, &mut supply),
                };
            drop(permit.take());
            let (outcome, reply) = match &tried_out {
                Tried::Expired(Expired::PerTry) => {
                    stats.upstream_rq_per_try_timeout.inc();
                    (Outcome::Failed(Failure::PerTryTimeout), Some(outcome::expired(Expired::PerTry)))
                }
                Tried::Expired(expired) => {
                    if *expired == Expired::Response {
                        stats.upstream_rq_timeout.inc();
                    }
                    return Err(outcome::expired(*expired));
                }
                Tried::Failed(failure, reply) => (Outcome::Failed(*failure), Some(reply.clone())),
                Tried::Response(sent) => {
                    let response = &sent.response;
                    (Outcome::Response { status: response.status(), headers: response.headers() }, None)
                }
            };
            let facts =
                retry::Request { method: &plan.method, replayable: supply.can_repeat(), has_body: plan.has_body };
            let policy = plan.policy.map(|p| &**p);
            let verdict = retry::decide(plan.rules.as_ref(), policy, &facts, &outcome, (replays, retries));
            let again = match verdict {
                Verdict::Replay => {
                    replays += 1;
                    stats.upstream_rq_replayed.inc();
                    true
                }
                Verdict::Retry => {
                    permit = plan.cluster.breaker(self.route.high_priority).try_retry();
                    if permit.is_none() {
                        stats.upstream_rq_retry_overflow.inc();
                    }
                    permit.is_some()
                }
                Verdict::LimitExceeded => {
                    stats.upstream_rq_retry_limit_exceeded.inc();
                    self.flow.record.flag(Flags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
                    false
                }
                Verdict::GiveUp => false,
            };
            if !again {
                return match (tried_out, reply) {
                    (Tried::Response(sent), _) => {
                        if retries > 0 && !sent.response.status().is_server_error() {
                            stats.upstream_rq_retry_success.inc();
                        }
                        Ok((*sent, attempts))
                    }
                    (_, Some(reply)) => Err(reply),
                    (_, None) => unreachable!("every failure has its reply"),
                };
            }
            if let Tried::Response(sent) = tried_out
                && !sent.response.body().is_end_stream()
            {
                // Nobody will read the rest of this body.
                sent.guard.abort();
            }
            tried.push(endpoint);
            if verdict == Verdict::Retry {
                retries += 1;
                stats.upstream_rq_retry.inc();
                let wait = plan.rules.as_ref().map(|r| retry::backoff(r, retries, fastrand::u64(..)));
                let sleep = tokio::time::sleep(wait.unwrap_or_default());
                let without_try = Timeouts { per_try: None, ..plan.timeouts };
                if let Err(expired) = within(&without_try, self.flow, started, sleep).await {
                    return Err(outcome::expired(expired));
                }
            }
        }
    }

    fn pick(&self, plan: &Plan<'_>, exclude: &[Arc<Endpoint>]) -> Result<Arc<Endpoint>, Reply> {
        let context = PickContext {
            original_dst: self.conn.scope.conn.original_dst,
            random: fastrand::u64(..),
            exclude,
            attempts: plan.rules.as_ref().map_or(1, |r| r.host_selection_attempts.max(1)),
            hash: None,
        };
        plan.cluster.pick(&context).map_err(|_| {
            Reply::new(StatusCode::SERVICE_UNAVAILABLE, "no_healthy_upstream")
                .body("no healthy upstream")
                .flag(Flags::NO_HEALTHY_UPSTREAM)
        })
    }

    fn attempt(&self, plan: &Plan<'_>, endpoint: &Arc<Endpoint>) -> Attempt {
        Attempt {
            cluster: plan.cluster.clone(),
            endpoint: endpoint.clone(),
            protocol: plan.protocol,
            alpn: plan.alpn.clone(),
            sni: plan.sni.clone(),
            downstream: Some(self.conn.scope.conn.remote),
            high_priority: self.route.high_priority,
        }
    }

    /// The request of one try.
    fn attempt_request(
        &self,
        plan: &Plan<'_>,
        supply: &mut Supply,
        endpoint: &Endpoint,
        attempt: u32,
    ) -> Result<Request<Body>, Reply> {
        let mut request = match supply.returned.take() {
            Some(mut request) => {
                origin_form(&mut request);
                request
            }
            None => {
                let head = if supply.keep { supply.head.clone() } else { supply.head.take() };
                let (Some(head), Some(body)) = (head, supply.body.next(self.flow)) else {
                    return Err(outcome::internal());
                };
                Request::from_parts(head, body)
            }
        };
        let (mut head, body) = request.into_parts();
        if self.route.host_rewrite == Some(HostRewrite::Auto)
            && !endpoint.hostname.is_empty()
            && let Ok(host) = HeaderValue::from_str(&endpoint.hostname)
        {
            self.set_host(&mut head, host);
        }
        if self.selected.virtual_host.attempt_count_in_request {
            headers::insert_number(&mut head.headers, ATTEMPT_COUNT, attempt.into());
        }
        request = Request::from_parts(head, body);
        if plan.gated {
            let gate = expect::gate(&mut request);
            if let Body::Upload(upload) = request.body_mut() {
                upload.set_gate(gate);
            }
        }
        Ok(request)
    }

    /// Classifies a failed try and keeps what came back of it.
    fn failed(&self, error: SendError<Body>, supply: &mut Supply) -> Tried {
        let record = &self.flow.record;
        if let Some(facts) = &error.facts {
            self.note_connection(facts);
        }
        if matches!(error.kind, SendErrorKind::Connect(_)) && record.logged() {
            record.upstream(|u| u.transport_failure = Some(error.reason.as_str().into()));
        }
        let (failure, reply) = outcome::classify(&error.kind, &error.reason);
        supply.returned = error.request;
        tracing::debug!(?failure, reason = %error.reason, "try failed");
        Tried::Failed(failure, reply)
    }

    fn note_connection(&self, facts: &super::client::Facts) {
        if self.flow.record.logged() {
            self.flow.record.upstream(|u| {
                u.host = Some(facts.host.clone());
                u.local = facts.local;
                u.protocol = Some(match facts.protocol {
                    HttpProtocol::Http1 => "HTTP/1.1",
                    HttpProtocol::Http2 => "HTTP/2",
                });
            });
        }
    }

    /// The response phase: what the upstream said becomes what the client hears.
    fn response(
        &self,
        plan: &Plan<'_>,
        sent: Sent,
        attempts: u32,
        (down, copy): (upgrade::Downstream, Option<Box<(Method, String, http::HeaderMap)>>),
    ) -> Result<Response<Body>, Reply> {
        let Sent { mut response, guard, facts, .. } = sent;
        self.note_connection(&facts);
        outcome::count(plan.cluster, response.status());
        let now = Instant::now();
        let record = &self.flow.record;
        let since = record.request_done().unwrap_or_else(|| record.started());
        if let Some(limit) = plan.timeouts.response.filter(|_| down.tunnel == super::sanitize::Tunnel::None) {
            self.flow.limit(Deadline { at: since + limit, kind: DeadlineKind::Response });
        }
        let switched = upgrade::accept(&mut response, &down, facts.protocol);
        let status = response.status();
        let trailers_to_http1 = record.version() == Version::HTTP_11 && facts.protocol == HttpProtocol::Http2;
        let headers = response.headers_mut();
        let upgraded = headers.get(header::UPGRADE).cloned().filter(|_| status == StatusCode::SWITCHING_PROTOCOLS);
        headers::strip_hop_by_hop(headers);
        if headers.contains_key(header::TRANSFER_ENCODING) {
            // The encoding frames the body; a length next to it is a lie to some reader (RFC 9112 section 6.3).
            headers.remove(header::CONTENT_LENGTH);
        }
        if trailers_to_http1 && down.grpc {
            // HTTP/1 writers only write trailers that were announced.
            headers
                .entry(header::TRAILER)
                .or_insert(HeaderValue::from_static("grpc-status, grpc-message, grpc-status-details-bin"));
        }
        if plan.envoy_headers {
            let millis = now.saturating_duration_since(since).as_millis();
            headers::insert_number(headers, "x-envoy-upstream-service-time", u64::try_from(millis).unwrap_or(u64::MAX));
        }
        if self.selected.virtual_host.attempt_count_in_response {
            headers::insert_number(headers, ATTEMPT_COUNT, attempts.into());
        }
        let view = copy.as_deref().map(|(method, path, headers)| RequestView {
            pseudo: Pseudo { method, path, scheme: plan.scheme },
            headers,
        });
        for ops in levels(self.table, self.selected, plan.weighted.map(|w| &w.headers)) {
            let request = view.as_ref().map(|v| v as &dyn crate::telemetry::format::Headers);
            record.facts(request, |facts| headers::apply_response(ops, headers, status, facts));
        }
        if let Some(kind) = upgraded {
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(header::UPGRADE, kind);
        }
        if switched {
            return upgrade::join(self.conn, self.flow, response, (down, guard));
        }
        let (parts, incoming) = response.into_parts();
        let body = if incoming.is_end_stream() {
            drop(guard);
            Body::Empty
        } else {
            Body::Download(Box::new(super::body::Download::new(incoming, guard, self.flow.clone())))
        };
        Ok(Response::from_parts(parts, body))
    }
}

impl Supply {
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

/// The framing of the body as an HTTP/1 connection would need it; HTTP/2 drops what does not concern it.
fn frame(parts: &mut Parts, body: &Incoming) {
    if body.is_end_stream() {
        parts.headers.remove(header::TRANSFER_ENCODING);
    } else if !parts.headers.contains_key(header::CONTENT_LENGTH)
        && !parts.headers.contains_key(header::TRANSFER_ENCODING)
    {
        // hyper would take a GET without this for one without a body.
        parts.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
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

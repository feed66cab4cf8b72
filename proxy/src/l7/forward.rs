//! Forwarding: from a chosen route to an upstream's response, over as many tries as it takes.
//!
//! Here a request gets its final form and a plan that holds for all tries; [`tries`] runs them, [`answer`] makes the
//! client's response of what came back.

mod answer;
mod feed;
mod foretell;
mod hash;
mod head;
mod hedge;
mod supply;
mod tries;

use std::{borrow::Cow, rc::Rc, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version, header};
use http_body::Body as _;

use super::{
    body::Body,
    client::Protocol,
    expect, filters,
    flow::{Deadline, DeadlineKind, Flow},
    headers,
    incoming::Incoming,
    mesh,
    mirror::{self, Recording},
    outcome,
    pipeline::{Inbound, levels, note_head},
    redirect::{self, Answer, Hops},
    respond::Reply,
    retry::Rules,
    sanitize::Tunnel,
    server::Connection,
    timeouts::{Audience, GrpcTimeout, Sources, Timeouts},
    upgrade,
};
use crate::{
    ir::{
        cluster::UpstreamProtocol,
        http::{FilterKind, HttpFilter},
        route::{BodyBuffer, Forward, InternalRedirect, Target, WeightedTarget},
    },
    live::Live,
    policy::router::{RouteTable, Selected, header_matches, pick_weighted, strip_port, weighted_cluster},
    telemetry::{flags::Flags, own::own},
    upstream::Cluster,
};

const EXPECTED_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");

/// Headers that only steer this proxy.
const STEERING: &[&str] = &[
    "x-envoy-retry-on",
    "x-envoy-retry-grpc-on",
    "x-envoy-max-retries",
    "x-envoy-retriable-status-codes",
    "x-envoy-retriable-header-names",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-upstream-stream-duration-ms",
    "x-envoy-hedge-on-per-try-timeout",
];

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

/// What forwarding comes to.
pub(super) enum Forwarded {
    Response(Response<Body>),
    /// The upstream named another place, which the request now asks for.
    Elsewhere,
}

/// Method, path and headers of a request that response mutations refer to.
type HeadCopy = (Method, String, HeaderMap);

/// Everything that stays the same over the tries.
struct Plan<'a> {
    cluster: &'a Arc<Cluster>,
    weighted: Option<&'a WeightedTarget>,
    rules: Option<Rules<'a>>,
    timeouts: Timeouts,
    audience: Audience,
    /// A try that takes too long is joined by another.
    hedged: bool,
    /// A timeout is answered with 204 and not with 504.
    timeout_is_204: bool,
    /// Bytes of the request's body that may be kept.
    buffer: u64,
    protocol: Protocol,
    /// What makes a try an extended CONNECT.
    extended: Option<Box<upgrade::Extended>>,
    alpn: Option<Arc<[Box<str>]>>,
    sni: Option<Box<str>>,
    method: Method,
    has_body: bool,
    gated: bool,
    scheme: &'static str,
    key: hash::Key,
}

/// What the end of a request needs of its beginning.
#[derive(Default)]
struct Ending<'a> {
    weighted: Option<&'a WeightedTarget>,
    copy: Option<Box<HeadCopy>>,
    /// Our own `x-envoy-*` headers go up and down.
    envoy_headers: bool,
}

impl<'a> Forwarding<'a> {
    pub(super) async fn run(self, request: &mut Inbound, hops: &mut Hops) -> Result<Forwarded, Reply> {
        let mut ending = Ending::default();
        let result = self.exchange(request, &mut ending, hops).await;
        Ok(result.unwrap_or_else(|reply| Forwarded::Response(self.refusal(reply, &ending, request))))
    }

    async fn exchange(
        &self,
        request: &mut Inbound,
        ending: &mut Ending<'a>,
        hops: &mut Hops,
    ) -> Result<Forwarded, Reply> {
        let scheme = request.sane.origin.scheme;
        let (cluster, weighted) = match self.target(request) {
            Ok(found) => found,
            Err(reply) => {
                note_head(self.flow, &request.parts, scheme);
                return Err(reply);
            }
        };
        self.flow.record.upstream(|u| u.cluster = self.flow.record.logged().then(|| own(&cluster.config.name)));
        if let Err(reply) = upgrade::check(&self.conn.hcm.config, self.route, request, spoken(cluster, request)) {
            note_head(self.flow, &request.parts, scheme);
            return Err(reply);
        }
        mesh::by_host(self.conn, self.flow, cluster, request.authority());
        let mut plan = self.plan(cluster, weighted, request);
        let copy = self.copy_head(&plan, request);
        *ending = Ending { weighted, copy, envoy_headers: plan.audience.envoy_headers };
        plan.extended = upgrade::prepare(request, plan.protocol);
        note_head(self.flow, &request.parts, scheme);
        if let Some(idle) = self.route.idle_timeout {
            self.flow.set_idle(idle);
        }
        if let Some(flush) = self.route.flush_timeout {
            self.flow.set_flush(flush);
        }
        if plan.timeouts.per_try_idle.is_some() {
            self.flow.watch();
        }
        if let Some(limit) = plan.timeouts.stream {
            let at = self.flow.record.started() + limit;
            self.flow.limit(Deadline { at, kind: DeadlineKind::Stream });
        }
        if !self.route.mirrors.is_empty() {
            mirror::start(self.conn, self.flow, self.live, (self.route, plan.timeouts.response), request);
        }
        // Only what is recorded can go to another place.
        let recording = (self.route.internal_redirect.is_some() && plan.has_body)
            .then(|| Recording::of(&mut request.body, redirect::BODY_LIMIT));
        let body = std::mem::replace(&mut request.body, Incoming::None);
        let won = match self.tries(&plan, &mut request.parts, body).await {
            Ok(won) => won,
            Err(_) if self.flow.is_malformed() => {
                let reply = Reply::new(StatusCode::BAD_REQUEST, "grpc_base_64_decode_failed");
                return Err(reply.body("Bad gRPC-web request, invalid base64 data."));
            }
            Err(reply) => {
                outcome::count_reply(cluster, &reply);
                if !self.flow.record.has_peers() {
                    mesh::failed(self.conn, self.flow, cluster, None);
                }
                self.flow.record.upstream(|u| u.cluster = Some(cluster.config.name.clone()));
                return Err(reply);
            }
        };
        if let Some(policy) = &self.route.internal_redirect
            && policy.codes.contains(&won.sent.response.status())
        {
            let body = recording.map(Recording::whole);
            let lost = matches!(body, Some(None));
            if self.redirected((policy, cluster), &won.sent.response, (request, lost), hops) {
                if let Some(body) = body.flatten().filter(|_| request.parts.method == plan.method) {
                    request.body = Incoming::Gathered(Box::new(body));
                }
                let sent = won.sent;
                outcome::count(cluster, sent.response.status());
                if !sent.response.body().is_end_stream() {
                    sent.guard.abort();
                }
                return Ok(Forwarded::Elsewhere);
            }
        }
        let tunnel = std::mem::replace(&mut request.sane.tunnel, Tunnel::None);
        let down = upgrade::Downstream { tunnel, promise: request.upgrade.take(), grpc: request.sane.grpc };
        self.response(&plan, won, (request, down, ending.copy.as_deref())).map(Forwarded::Response)
    }

    /// Whether the request goes on where the answer redirects to.
    fn redirected(
        &self,
        (policy, cluster): (&InternalRedirect, &Cluster),
        response: &Response<Incoming>,
        request: (&mut Inbound, bool),
        hops: &mut Hops,
    ) -> bool {
        let (status, headers) = (response.status(), response.headers());
        let answer = Answer { status, headers, route: self.selected.route, hcm: &self.conn.hcm.config };
        let followed = redirect::follow(policy, &answer, self.table, request, hops);
        let stats = cluster.stats.local();
        match followed {
            Ok(()) => stats.upstream_internal_redirect_succeeded_total.inc(),
            Err(refused) => {
                stats.upstream_internal_redirect_failed_total.inc();
                refused.count(self.conn.hcm.filters.stats.local());
            }
        }
        followed.is_ok()
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
                Some(target) => {
                    (weighted_cluster(target, &request.parts.headers).unwrap_or_default().into(), Some(target))
                }
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
        let mut router = None;
        let mut alpn_override = None;
        let off = |filter: &HttpFilter| {
            let overrides = filters::levels(Some(self.table), Some(self.selected), weighted);
            !filters::is_on(filter, &overrides)
        };
        for filter in &config.filters {
            match &filter.kind {
                FilterKind::Router(options) => router = Some(options),
                FilterKind::Alpn(lists) if !off(filter) => alpn_override = Some(lists),
                FilterKind::Alpn(_)
                | FilterKind::Fault(_)
                | FilterKind::Cors
                | FilterKind::HeaderMutation { .. }
                | FilterKind::Buffer(_)
                | FilterKind::AdaptiveConcurrency(_)
                | FilterKind::LocalRateLimit(_)
                | FilterKind::RateLimit(_)
                | FilterKind::GrpcWeb
                | FilterKind::ExtAuthz(_)
                | FilterKind::JwtAuthn(_)
                | FilterKind::Rbac(_) => {}
            }
        }
        let envoy_headers = router.is_none_or(|r| !r.suppress_envoy_headers);
        let host = self.selected.virtual_host;
        let policy = cluster.config.http.retry.as_deref().or(self.route.retry.as_deref()).or(host.retry.as_deref());
        let grpc = request.sane.grpc;
        // Most requests have none of these headers: one look at the names saves a dozen searches.
        let steering = headers::among(&request.parts.headers, STEERING);
        let steered = !steering.is_empty();
        let rules = Rules::new(policy, &request.parts.headers, steered, |matchers| {
            let facts = request.facts(self.random);
            matchers.iter().any(|matcher| header_matches(matcher, &facts))
        });
        let headers = &mut request.parts.headers;
        let upstream = cluster.config.http.max_stream_duration;
        let sources = Sources { hcm: config, route: self.route, retry: policy, router, upstream, steered };
        let mut timeouts = Timeouts::new(sources, headers, grpc);
        let mut hedged = self.route.hedge.unwrap_or(host.hedge);
        let mut timeout_is_204 = false;
        let respected = router.is_some_and(|r| r.respect_expected_rq_timeout);
        for name in steering {
            if respected && name == "x-envoy-upstream-rq-timeout-ms" && headers.contains_key(EXPECTED_TIMEOUT) {
                // Not what decided here: it is meant for a proxy further on.
                continue;
            }
            let value = headers.remove(&name);
            match (name.as_str(), value.as_ref().map(HeaderValue::as_bytes)) {
                ("x-envoy-hedge-on-per-try-timeout", Some(b"true")) => hedged = true,
                ("x-envoy-hedge-on-per-try-timeout", Some(b"false")) => hedged = false,
                ("x-envoy-upstream-rq-timeout-alt-response", _) => timeout_is_204 = true,
                _ => {}
            }
        }
        let audience = Audience { envoy_headers, hedged, grpc: GrpcTimeout::new(self.route, grpc) };
        timeouts.announce(headers, Duration::ZERO, &audience);
        if hedged && rules.is_none() {
            // A try that is not joined goes on until the whole is out of time.
            (timeouts.per_try, timeouts.per_try_idle) = (None, None);
        }
        let has_body = !request.body.is_end_stream();
        let gated = has_body && expect::is_expected(headers);
        if gated && !config.proxy_100_continue {
            headers.remove(header::EXPECT);
        }
        self.rewrite(weighted, request, envoy_headers);
        let protocol = spoken(cluster, request);
        head::frame(&mut request.parts, &request.body, protocol);
        let alpn = alpn_override.filter(|_| outcome::alpn_override_allowed(cluster)).map(|lists| {
            match (protocol, request.parts.version) {
                (Protocol::Http2, _) => &lists.http2,
                (Protocol::Http1 | Protocol::Auto, Version::HTTP_10) => &lists.http10,
                (Protocol::Http1 | Protocol::Auto, _) => &lists.http11,
            }
            .clone()
        });
        let alpn = alpn.filter(|list| !list.is_empty() && protocol != Protocol::Auto);
        let sni = cluster.config.http.auto_sni.then(|| strip_port(request.authority()).into());
        Plan {
            cluster,
            weighted,
            hedged: hedged && rules.is_some() && timeouts.limit_tries(),
            rules,
            timeouts,
            audience,
            timeout_is_204,
            buffer: self.buffer(),
            protocol,
            extended: None,
            alpn: alpn.or_else(|| undecided(cluster, protocol)),
            sni,
            method: request.parts.method.clone(),
            has_body,
            gated: gated && config.proxy_100_continue,
            scheme: request.sane.origin.scheme,
            key: self.key(cluster, request),
        }
    }

    /// How much of a request's body may be kept to send it again.
    fn buffer(&self) -> u64 {
        let connection = u64::from(self.conn.scope.conn.buffer_limit);
        match self.route.body_buffer.as_ref().or(self.selected.virtual_host.body_buffer.as_deref()) {
            Some(BodyBuffer::Exactly(limit)) => *limit,
            Some(BodyBuffer::AtMost(limit)) => connection.min(u64::from(*limit)),
            None => connection,
        }
    }

    /// The request head, where response mutations or answers of our own refer to it.
    fn copy_head(&self, plan: &Plan<'_>, request: &Inbound) -> Option<Box<HeadCopy>> {
        let mentioned = levels(self.table, self.selected, plan.weighted.map(|w| &w.headers))
            .any(|ops| headers::mentions_request(&ops.response_add));
        (mentioned || self.conn.hcm.config.local_reply.is_some())
            .then(|| Box::new((request.parts.method.clone(), request.path().to_owned(), request.parts.headers.clone())))
    }
}

/// What to speak to a cluster for a request.
fn spoken(cluster: &Cluster, request: &Inbound) -> Protocol {
    upgrade::speak(&request.sane.tunnel, protocol(cluster, request.parts.version))
}

/// The ALPN list of a connection that was decided here though the host may choose.
fn undecided(cluster: &Cluster, protocol: Protocol) -> Option<Arc<[Box<str>]>> {
    let decided = cluster.config.http.protocol == UpstreamProtocol::Auto && protocol == Protocol::Http1;
    decided.then(|| Arc::from([Box::from("http/1.1")]))
}

/// What to speak to a cluster, for a request of this version.
pub(super) fn protocol(cluster: &Cluster, version: Version) -> Protocol {
    match cluster.config.http.protocol {
        UpstreamProtocol::Http1 => Protocol::Http1,
        UpstreamProtocol::Http2 => Protocol::Http2,
        UpstreamProtocol::Auto => Protocol::Auto,
        UpstreamProtocol::UseDownstream if version == Version::HTTP_2 => Protocol::Http2,
        UpstreamProtocol::UseDownstream => Protocol::Http1,
    }
}

//! The response phase: what the upstream said becomes what the client hears.

use std::{future::poll_fn, pin::Pin, time::Duration};

use http::{HeaderName, HeaderValue, Method, Response, StatusCode, Version, header};
use http_body::Body as _;

use super::{ATTEMPT_COUNT, Ending, Forwarding, HeadCopy, Plan, tries::Won};
use crate::{
    l7::{
        body::{Body, Download},
        client::{Facts, HttpProtocol, Sent, StreamGuard},
        flow::{Deadline, DeadlineKind},
        headers::{self, Pseudo, RequestView},
        incoming::Incoming,
        mesh, outcome,
        pipeline::{self, Inbound, count_reply, levels},
        respond::Reply,
        sanitize::Tunnel,
        upgrade,
    },
    telemetry::{
        flags::Flags,
        format::{self, Headers},
        own::own,
    },
    upstream::Endpoint,
};

const OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-overloaded");
const SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");

/// How long the end of a stream may come after a head that nothing can follow.
const END: Duration = Duration::from_secs(1);

fn is_bodiless(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// Waits for the end that HTTP/2 may send in a frame of its own; a stream with anything else in it is reset.
async fn end(mut incoming: Incoming, guard: StreamGuard) {
    let next = poll_fn(|cx| Pin::new(&mut incoming).poll_frame(cx));
    let ended = matches!(tokio::time::timeout(END, next).await, Ok(None));
    guard.answered(true);
    if !ended {
        drop(incoming);
        guard.abort();
    }
}

impl Forwarding<'_> {
    pub(super) fn note_connection(&self, facts: &Facts) {
        if self.flow.record.logged() {
            self.flow.record.upstream(|u| {
                u.host = Some(own(&facts.host));
                u.local = facts.local;
                u.protocol = Some(match facts.protocol {
                    HttpProtocol::Http1 => "HTTP/1.1",
                    HttpProtocol::Http2 => "HTTP/2",
                });
            });
        }
    }

    /// What those who ask about failures are told of a response where nothing else notes it.
    #[cold]
    fn note_end(&self, plan: &Plan<'_>, (attempts, status): (u32, StatusCode), facts: &Facts, request: &Inbound) {
        let record = &self.flow.record;
        let told = status.is_server_error() && {
            record.failing(&request.view(), (request.sane.origin.remote, Some(&self.selected.route.name)))
        };
        if told {
            record.upstream(|u| u.cluster = Some(plan.cluster.config.name.clone()));
        }
        if told || attempts > 1 {
            // Not the one that failed before.
            record.upstream(|u| u.host = Some(facts.host.clone()));
        }
    }

    /// A try came to no response.
    pub(super) fn missed(&self, plan: &Plan<'_>, endpoint: &Endpoint) {
        mesh::failed(self.conn, self.flow, plan.cluster, Some(endpoint));
        self.flow.record.upstream(|u| u.host = Some(endpoint.label.clone()));
    }

    /// Makes the client's response.
    pub(super) fn response(
        &self,
        plan: &Plan<'_>,
        won: Won,
        (request, down, copy): (&Inbound, upgrade::Downstream, Option<&HeadCopy>),
    ) -> Result<Response<Body>, Reply> {
        let Won { sent, attempts, connected } = won;
        let Sent { mut response, guard, facts, .. } = *sent;
        self.note_connection(&facts);
        if attempts > 1 || response.status().is_server_error() {
            self.note_end(plan, (attempts, response.status()), &facts, request);
        }
        mesh::answered(self.conn, self.flow, plan.cluster, &facts);
        outcome::count(plan.cluster, response.status());
        let record = &self.flow.record;
        if let Some(limit) = plan.timeouts.response.filter(|_| down.tunnel == Tunnel::None) {
            self.flow.limit_response(limit);
        }
        if let Some((connected, limit)) = connected.zip(plan.timeouts.upstream) {
            self.flow.limit(Deadline { at: connected + limit, kind: DeadlineKind::Upstream });
        }
        if let Some(idle) = plan.timeouts.per_try_idle {
            self.flow.set_try_idle(idle);
        }
        let switched = upgrade::accept(&mut response, &down, (facts.protocol, plan.extended.as_deref()));
        // What version the upstream speaks is between it and us.
        *response.version_mut() = Version::HTTP_11;
        let status = response.status();
        let trailers_to_http1 = record.version() == Version::HTTP_11 && facts.protocol == HttpProtocol::Http2;
        let has_body = !response.body().is_end_stream();
        let headers = response.headers_mut();
        let upgraded =
            (status == StatusCode::SWITCHING_PROTOCOLS).then(|| headers.get(header::UPGRADE).cloned()).flatten();
        headers::strip_hop_by_hop(headers);
        if facts.protocol == HttpProtocol::Http1 && headers.contains_key(header::TRANSFER_ENCODING) {
            // The encoding frames the body; a length next to it is a lie to some reader (RFC 9112 section 6.3).
            headers.remove(header::CONTENT_LENGTH);
        }
        if trailers_to_http1 && down.grpc && has_body && !headers.contains_key(header::CONTENT_LENGTH) {
            // HTTP/1 writers only write trailers that were announced.
            headers
                .entry(header::TRAILER)
                .or_insert(HeaderValue::from_static("grpc-status, grpc-message, grpc-status-details-bin"));
        }
        // An answer to half a request says nothing of how long the service takes.
        if plan.audience.envoy_headers
            && down.tunnel == Tunnel::None
            && let Some(since) = self.flow.request_done()
        {
            let millis = since.elapsed().as_millis();
            headers::insert_number(headers, SERVICE_TIME, u64::try_from(millis).unwrap_or(u64::MAX));
        }
        if self.selected.virtual_host.attempt_count_in_response {
            headers::insert_number(headers, ATTEMPT_COUNT, attempts.into());
        }
        let view = copy.map(|(method, path, headers)| RequestView {
            pseudo: Pseudo { method, path, scheme: plan.scheme },
            headers,
        });
        for ops in levels(self.table, self.selected, plan.weighted.map(|w| &w.headers)) {
            let request = view.as_ref().map(|v| v as &dyn Headers);
            record.facts(request, |facts| {
                let facts = format::Facts { status: status.as_u16(), ..*facts };
                headers::apply_response(ops, headers, status, &facts);
            });
        }
        for cookie in &plan.key.cookies {
            headers.append(header::SET_COOKIE, cookie.clone());
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
            guard.took(self.flow.request_done().map(|since| since.elapsed()));
            guard.answered(true);
            if self.flow.request_done().is_none() {
                // Answered early: as with a body, what is left of the request has nowhere to go.
                guard.abort();
            }
            Body::Empty
        } else if record.version() != Version::HTTP_2 && (plan.method == Method::HEAD || is_bodiless(status)) {
            guard.took(self.flow.request_done().map(|since| since.elapsed()));
            // hyper does not ask for a body that cannot be: the end of the stream has to be heard here.
            tokio::task::spawn_local(end(incoming, guard));
            Body::Empty
        } else {
            Body::Download(Box::new(Download::new(incoming, guard, self.flow.clone())))
        };
        Ok(Response::from_parts(parts, body))
    }

    /// Answers in place of the upstream, with the route's header mutations.
    pub(super) fn refusal(&self, mut reply: Reply, ending: &Ending<'_>, request: &Inbound) -> Response<Body> {
        reply.overloaded &= ending.envoy_headers;
        count_reply(self.conn, &reply);
        let overloaded = reply.flags.contains(Flags::UPSTREAM_OVERFLOW);
        let attempts = reply.attempts;
        // What could not be read as gRPC-Web has no right to an answer of that kind.
        let grpc = request.sane.grpc && !self.flow.is_malformed();
        let scheme = request.sane.origin.scheme;
        let (method, path, head) = match ending.copy.as_deref() {
            Some((method, path, head)) => (method, path.as_str(), head),
            None => (&request.parts.method, pipeline::path(&request.parts), &request.parts.headers),
        };
        let view = RequestView { pseudo: Pseudo { method, path, scheme }, headers: head };
        self.flow.record.failing(&view, (request.sane.origin.remote, Some(&self.selected.route.name)));
        mesh::replied(self.conn, self.flow, &request.parts.headers, Some(&self.selected.route.name));
        let mut response = reply.into_response(self.flow, grpc, self.conn.shape(&view));
        let status = response.status();
        let headers = response.headers_mut();
        for ops in levels(self.table, self.selected, ending.weighted.map(|w| &w.headers)) {
            self.flow.record.facts(Some(&view), |facts| {
                let facts = format::Facts { status: status.as_u16(), ..*facts };
                headers::apply_response(ops, headers, status, &facts);
            });
        }
        if overloaded && ending.envoy_headers {
            headers.insert(OVERLOADED, HeaderValue::from_static("true"));
        }
        if attempts > 0 && self.selected.virtual_host.attempt_count_in_response {
            headers::insert_number(headers, ATTEMPT_COUNT, attempts.into());
        }
        response
    }
}

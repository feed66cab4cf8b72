//! The response phase: what the upstream said becomes what the client hears.

use std::time::Instant;

use http::{HeaderName, HeaderValue, Response, StatusCode, Version, header};
use http_body::Body as _;

use super::{ATTEMPT_COUNT, Forwarding, HeadCopy, Plan};
use crate::{
    l7::{
        body::{Body, Download},
        client::{Facts, HttpProtocol, Sent},
        flow::{Deadline, DeadlineKind},
        headers::{self, Pseudo, RequestView},
        outcome,
        pipeline::levels,
        respond::Reply,
        sanitize::Tunnel,
        upgrade,
    },
    telemetry::format::Headers,
};

const SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");

impl Forwarding<'_> {
    pub(super) fn note_connection(&self, facts: &Facts) {
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

    /// Makes the client's response.
    pub(super) fn response(
        &self,
        plan: &Plan<'_>,
        sent: Sent,
        attempts: u32,
        (down, copy): (upgrade::Downstream, Option<Box<HeadCopy>>),
    ) -> Result<Response<Body>, Reply> {
        let Sent { mut response, guard, facts, .. } = sent;
        self.note_connection(&facts);
        outcome::count(plan.cluster, response.status());
        let now = Instant::now();
        let record = &self.flow.record;
        let since = record.request_done().unwrap_or_else(|| record.started());
        if let Some(limit) = plan.timeouts.response.filter(|_| down.tunnel == Tunnel::None) {
            self.flow.limit(Deadline { at: since + limit, kind: DeadlineKind::Response });
        }
        if let Some(idle) = plan.timeouts.per_try_idle {
            self.flow.set_idle(Some(self.flow.idle().map_or(idle, |present| present.min(idle))));
            self.flow.touch();
        }
        let switched = upgrade::accept(&mut response, &down, facts.protocol);
        // What version the upstream speaks is between it and us.
        *response.version_mut() = Version::HTTP_11;
        let status = response.status();
        let trailers_to_http1 = record.version() == Version::HTTP_11 && facts.protocol == HttpProtocol::Http2;
        let has_body = !response.body().is_end_stream();
        let headers = response.headers_mut();
        let upgraded = headers.get(header::UPGRADE).cloned().filter(|_| status == StatusCode::SWITCHING_PROTOCOLS);
        headers::strip_hop_by_hop(headers);
        if headers.contains_key(header::TRANSFER_ENCODING) {
            // The encoding frames the body; a length next to it is a lie to some reader (RFC 9112 section 6.3).
            headers.remove(header::CONTENT_LENGTH);
        }
        if trailers_to_http1 && down.grpc && has_body && !headers.contains_key(header::CONTENT_LENGTH) {
            // HTTP/1 writers only write trailers that were announced.
            headers
                .entry(header::TRAILER)
                .or_insert(HeaderValue::from_static("grpc-status, grpc-message, grpc-status-details-bin"));
        }
        if plan.envoy_headers {
            let millis = now.saturating_duration_since(since).as_millis();
            headers::insert_number(headers, SERVICE_TIME, u64::try_from(millis).unwrap_or(u64::MAX));
        }
        if self.selected.virtual_host.attempt_count_in_response {
            headers::insert_number(headers, ATTEMPT_COUNT, attempts.into());
        }
        let view = copy.as_deref().map(|(method, path, headers)| RequestView {
            pseudo: Pseudo { method, path, scheme: plan.scheme },
            headers,
        });
        for ops in levels(self.table, self.selected, plan.weighted.map(|w| &w.headers)) {
            let request = view.as_ref().map(|v| v as &dyn Headers);
            record.facts(request, |facts| headers::apply_response(ops, headers, status, facts));
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
            drop(guard);
            Body::Empty
        } else {
            Body::Download(Box::new(Download::new(incoming, guard, self.flow.clone())))
        };
        Ok(Response::from_parts(parts, body))
    }
}

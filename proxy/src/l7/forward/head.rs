//! The head of a request as it goes upstream: header mutations, host and path rewrites, the framing of its body.

use http::{HeaderName, HeaderValue, Method, Uri, header, request::Parts};
use http_body::Body as _;

use super::Forwarding;
use crate::{
    ir::{
        http::{FilterKind, HttpFilter},
        route::{HostRewrite, PathRewrite, WeightedTarget},
    },
    l7::{
        client::Protocol,
        headers::{self, Pseudo},
        incoming::Incoming,
        pipeline::{Inbound, levels, render},
        rewrite,
    },
};

const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");
const ORIGINAL_HOST: HeaderName = HeaderName::from_static("x-envoy-original-host");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

impl Forwarding<'_> {
    /// Header mutations, host and path rewrites, in Envoy's order.
    pub(super) fn rewrite(&self, weighted: Option<&WeightedTarget>, request: &mut Inbound, envoy_headers: bool) {
        let scheme = request.sane.origin.scheme;
        for ops in levels(self.table, self.selected, weighted.map(|w| &w.headers)) {
            let Parts { method, uri, headers, .. } = &mut request.parts;
            let path = uri.path_and_query().map_or("", |p| p.as_str());
            self.flow
                .record
                .facts(None, |facts| headers::apply_request(ops, headers, Pseudo { method, path, scheme }, facts));
        }
        let value = |host: &str| HeaderValue::from_str(host).ok();
        if let Some(host) = weighted.and_then(|w| w.host_rewrite.as_deref()) {
            // Envoy keeps no trace of the old host here.
            if let Some(host) = value(host) {
                request.parts.headers.insert(header::HOST, host);
            }
        } else if let Some(rewrite) = &self.route.host_rewrite
            && let Some(host) = match rewrite {
                HostRewrite::Format(template) => {
                    Some(render(template, "-", self.flow, request)).filter(|h| !h.is_empty())
                }
                rewrite => rewrite::host(rewrite, &request.parts.headers, request.path()),
            }
            && let Some(host) = value(&host)
        {
            self.set_host(&mut request.parts, host);
        }
        let rewritten = self
            .route
            .path_rewrite
            .as_ref()
            .and_then(|r| match r {
                PathRewrite::Format(template) => {
                    rewrite::formatted(&render(template, "", self.flow, request), request.path())
                }
                r => rewrite::path(r, &self.selected.route.matches, request.path()),
            })
            // A rewrite that leaves no leading slash would not be a path any more.
            .map(|p| if p.starts_with('/') { p } else { format!("/{p}") });
        if let Some(new) = rewritten.and_then(|p| p.parse::<Uri>().ok()) {
            if envoy_headers && let Ok(old) = HeaderValue::from_str(request.path()) {
                request.parts.headers.insert(ORIGINAL_PATH, old);
            }
            request.parts.uri = new;
        }
    }

    pub(super) fn set_host(&self, parts: &mut Parts, host: HeaderValue) {
        let old = parts.headers.insert(header::HOST, host);
        let suppressed = |f: &HttpFilter| matches!(&f.kind, FilterKind::Router(r) if r.suppress_envoy_headers);
        if let Some(old) = &old
            && !self.conn.hcm.config.filters.iter().any(suppressed)
        {
            parts.headers.insert(ORIGINAL_HOST, old.clone());
        }
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
}

/// The framing of the body as an HTTP/1 connection would need it; HTTP/2 drops what does not concern it.
pub(super) fn frame(parts: &mut Parts, body: &Incoming, protocol: Protocol) {
    if body.is_end_stream() {
        parts.headers.remove(header::TRANSFER_ENCODING);
        let may_be_bodiless =
            matches!(parts.method, Method::GET | Method::HEAD | Method::DELETE | Method::CONNECT | Method::TRACE);
        if protocol == Protocol::Http1 && !may_be_bodiless {
            // Servers may ask for the length of what usually has a body (RFC 9110 section 8.6).
            parts.headers.entry(header::CONTENT_LENGTH).or_insert(HeaderValue::from_static("0"));
        }
    } else if !parts.headers.contains_key(header::CONTENT_LENGTH)
        && !parts.headers.contains_key(header::TRANSFER_ENCODING)
    {
        // hyper would take a GET without this for one without a body.
        parts.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

//! A finished request as spans on the wire: OpenTelemetry's conventions, and Envoy's tags that they lack.

use std::{
    net::SocketAddr,
    time::{Duration, Instant, SystemTime},
};

use http::Method;

use super::{
    context::SpanId,
    redact::redacted,
    span::{RequestSpan, Seen, Try, TryResult},
};
use crate::{
    ir::format::Template,
    telemetry::{
        format::{self, Facts},
        mesh::principals,
        protobuf::{Any, Message},
    },
};

/// Most bytes of a custom tag's value.
const LONGEST_TAG: usize = 4096;

const SERVER: u64 = 2;
const CLIENT: u64 = 3;
const ERROR: u64 = 2;

/// Fields of `Span`.
mod field {
    pub(super) const TRACE: u64 = 1;
    pub(super) const SPAN: u64 = 2;
    pub(super) const STATE: u64 = 3;
    pub(super) const PARENT: u64 = 4;
    pub(super) const NAME: u64 = 5;
    pub(super) const KIND: u64 = 6;
    pub(super) const START: u64 = 7;
    pub(super) const END: u64 = 8;
    pub(super) const ATTRIBUTE: u64 = 9;
    pub(super) const EVENT: u64 = 11;
    pub(super) const STATUS: u64 = 15;
}

/// Puts a request's spans on their way.
pub(super) fn end(span: &RequestSpan, facts: &Facts<'_>) {
    let Some(outbox) = &span.tracing.outbox else { return };
    let now = Instant::now();
    let seen = &*span.seen.borrow();
    let (request, response, trailers) = (
        seen.request.under(&span.names.request),
        seen.response.under(&span.names.response),
        seen.trailers.under(&span.names.trailers),
    );
    let facts = &Facts { request: Some(&request), response: Some(&response), trailers: Some(&trailers), ..*facts };
    outbox.push(of_request(span, seen, facts, now));
    if span.tracing.config.spawn_upstream_span {
        let last = seen.tries.len().saturating_sub(1);
        for (at, of) in seen.tries.iter().enumerate() {
            // The last one's response is the request's.
            let end = of.end.filter(|_| at < last || matches!(of.result, Some(TryResult::Failed(_)))).unwrap_or(now);
            outbox.push(of_try(span, (of, end), facts));
        }
    }
}

fn of_request(span: &RequestSpan, seen: &Seen, facts: &Facts<'_>, now: Instant) -> Vec<u8> {
    let (head, config) = (&span.head, &span.tracing.config);
    let client = span.origin.egress && !config.spawn_upstream_span;
    let mut message = Message::default();
    begin(&mut message, span, span.origin.context.span, span.origin.from.parent.map(|parent| parent.span));
    message.text(field::NAME, &name(span, seen, facts));
    message.number(field::KIND, if client { CLIENT } else { SERVER });
    message.fixed64(field::START, unix(span.start));
    message.fixed64(field::END, at(span, now));
    let mut tag = |key: &str, value: Any<'_>| message.attribute(field::ATTRIBUTE, key, value);
    about_request(span, client, &mut tag);
    if let Some(agent) = &head.agent {
        tag("user_agent.original", Any::Text(agent));
    }
    tag("network.protocol.name", Any::Text("http"));
    if let Some(version) = facts.protocol.and_then(|p| p.strip_prefix("HTTP/")) {
        tag("network.protocol.version", Any::Text(version));
    }
    let peer =
        if client { facts.upstream.host.as_deref().and_then(|h| h.parse().ok()) } else { Some(facts.conn.remote) };
    if let Some(peer) = peer {
        network_peer(peer, &mut tag);
    }
    tag("client.address", Any::Text(&facts.remote.ip().to_string()));
    tag("http.request.body.size", Any::Int(facts.bytes_received.cast_signed()));
    tag("http.response.body.size", Any::Int(facts.bytes_sent.cast_signed()));
    let outcome = (facts.status != 0).then_some(TryResult::Status(facts.status));
    let failed = response(
        outcome.unwrap_or(TryResult::Failed(unanswered(facts))),
        (head.grpc, seen.grpc_status),
        client,
        &mut tag,
    );
    about_envoy(span, facts, &mut tag);
    custom(span, facts, &mut tag);
    if !config.spawn_upstream_span {
        tries(span, seen, &mut message);
    }
    if config.verbose {
        moments(span, seen, (facts, now), &mut message);
    }
    if failed {
        message.message(field::STATUS, |status| status.number(3, ERROR));
    }
    message.into_bytes()
}

fn of_try(span: &RequestSpan, (of, end): (&Try, Instant), facts: &Facts<'_>) -> Vec<u8> {
    let config = &span.tracing.config;
    let mut message = Message::default();
    begin(&mut message, span, of.span, Some(span.origin.context.span));
    let cluster = facts.upstream.cluster.as_deref().unwrap_or_default();
    let operation = span.own().and_then(|own| own.upstream_operation.as_ref());
    let named = operation.or(config.upstream_operation.as_ref()).map(|template| rendered(template, facts));
    let named = named.filter(|name| !name.is_empty()).unwrap_or_else(|| format!("router {cluster} egress"));
    message.text(field::NAME, &named);
    message.number(field::KIND, CLIENT);
    message.fixed64(field::START, at(span, of.begin));
    message.fixed64(field::END, at(span, end));
    let mut tag = |key: &str, value: Any<'_>| message.attribute(field::ATTRIBUTE, key, value);
    about_request(span, true, &mut tag);
    if let Ok(peer) = of.host.parse() {
        network_peer(peer, &mut tag);
    }
    if of.number > 1 {
        tag("http.request.resend_count", Any::Int(i64::from(of.number) - 1));
    }
    let grpc_status = span.seen.borrow().grpc_status.filter(|_| of.end != Some(end));
    let result = of.result.unwrap_or(TryResult::Failed("cancelled"));
    let failed = response(result, (span.head.grpc, grpc_status), true, &mut tag);
    tag("component", Any::Text("proxy"));
    tag("upstream_cluster", Any::Text(cluster));
    tag("upstream_cluster.name", Any::Text(cluster));
    tag("upstream_address", Any::Text(&of.host));
    custom(span, facts, &mut tag);
    if failed {
        message.message(field::STATUS, |status| status.number(3, ERROR));
    }
    message.into_bytes()
}

fn begin(message: &mut Message, span: &RequestSpan, id: SpanId, parent: Option<SpanId>) {
    message.bytes(field::TRACE, &span.origin.context.trace.0);
    message.bytes(field::SPAN, &id.0);
    message.text(field::STATE, span.origin.state.as_deref().unwrap_or_default());
    if let Some(parent) = parent {
        message.bytes(field::PARENT, &parent.0);
    }
}

/// As Envoy calls it: the configured name, the other side's, the route's, or the direction.
fn name(span: &RequestSpan, seen: &Seen, facts: &Facts<'_>) -> String {
    let configured = span.own().and_then(|own| own.operation.as_ref()).or(span.tracing.config.operation.as_ref());
    if let Some(name) = configured.map(|template| rendered(template, facts)).filter(|name| !name.is_empty()) {
        return name;
    }
    let decorator = span.route.as_ref().and_then(|r| r.decorator.as_ref()).map(|d| &d.operation);
    match seen.operation.as_ref().or(decorator).filter(|name| !name.is_empty()) {
        Some(name) => name.to_string(),
        None if span.origin.egress => format!("egress {}", span.head.authority),
        None => "ingress".into(),
    }
}

fn rendered(template: &Template, facts: &Facts<'_>) -> String {
    let mut text = String::new();
    format::render(template, facts, "", &mut text);
    format::truncate(&text, Some(LONGEST_TAG)).to_owned()
}

type Tag<'t> = dyn FnMut(&str, Any<'_>) + 't;

/// What was asked for.
fn about_request(span: &RequestSpan, client: bool, tag: &mut Tag<'_>) {
    let head = &span.head;
    let known = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::CONNECT,
        Method::OPTIONS,
        Method::TRACE,
        Method::PATCH,
    ];
    if known.contains(&head.method) {
        tag("http.request.method", Any::Text(head.method.as_str()));
    } else {
        // Anybody's text: what is counted by method stays countable.
        tag("http.request.method", Any::Text("_OTHER"));
        tag("http.request.method_original", Any::Text(head.method.as_str()));
    }
    let most = span.tracing.config.max_path;
    let short = head.path.char_indices().nth(most).map_or(&*head.path, |(end, _)| &head.path[..end]);
    if client {
        let (path, query) = short.split_once('?').map_or((short, None), |(path, query)| (path, Some(query)));
        let query = query.map(|query| format!("?{}", redacted(query))).unwrap_or_default();
        tag("url.full", Any::Text(&format!("{}://{}{path}{query}", head.scheme, head.authority)));
    } else {
        let (path, query) = short.split_once('?').unwrap_or((short, ""));
        tag("url.scheme", Any::Text(head.scheme));
        tag("url.path", Any::Text(path));
        if !query.is_empty() {
            tag("url.query", Any::Text(&redacted(query)));
        }
    }
    let (host, port) = split_port(&head.authority);
    tag("server.address", Any::Text(host));
    if let Some(port) = port {
        tag("server.port", Any::Int(port.into()));
    }
    if head.grpc {
        tag("rpc.system", Any::Text("grpc"));
        let path = head.path.split_once('?').map_or(&*head.path, |(path, _)| path);
        if let Some((service, method)) = path.strip_prefix('/').and_then(|path| path.rsplit_once('/')) {
            tag("rpc.service", Any::Text(service));
            tag("rpc.method", Any::Text(method));
        }
    }
}

/// An authority's host, without the brackets of an address, and its port.
fn split_port(authority: &str) -> (&str, Option<u16>) {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) => (authority, None),
        },
        _ => (authority, None),
    };
    (host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host), port)
}

fn network_peer(peer: SocketAddr, tag: &mut Tag<'_>) {
    tag("network.peer.address", Any::Text(&peer.ip().to_string()));
    tag("network.peer.port", Any::Int(peer.port().into()));
}

/// What came back; whether that is an error on this side.
fn response(result: TryResult, (grpc, grpc_status): (bool, Option<u16>), client: bool, tag: &mut Tag<'_>) -> bool {
    let status = match result {
        TryResult::Status(status) => {
            tag("http.response.status_code", Any::Int(status.into()));
            status
        }
        TryResult::Failed(why) => {
            tag("error.type", Any::Text(why));
            return true;
        }
    };
    if let Some(code) = grpc_status.filter(|_| grpc) {
        tag("rpc.grpc.status_code", Any::Int(code.into()));
        // UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE and DATA_LOSS are the server's fault.
        if if client { code != 0 } else { matches!(code, 2 | 4 | 12..=15) } {
            tag("error.type", Any::Text(itoa::Buffer::new().format(code)));
            return true;
        }
    }
    let failed = status >= if client { 400 } else { 500 };
    if failed {
        tag("error.type", Any::Text(itoa::Buffer::new().format(status)));
    }
    failed
}

/// Why nobody was answered, in few words.
fn unanswered(facts: &Facts<'_>) -> &'static str {
    match facts.details {
        Some("downstream_remote_disconnect") => "downstream_remote_disconnect",
        _ => "no_response",
    }
}

/// Envoy's tags.
fn about_envoy(span: &RequestSpan, facts: &Facts<'_>, tag: &mut Tag<'_>) {
    let head = &span.head;
    tag("component", Any::Text("proxy"));
    if let Some(id) = &head.request_id {
        tag("guid:x-request-id", Any::Text(id));
    }
    if let Some(id) = &head.client_trace {
        tag("guid:x-client-trace-id", Any::Text(id));
    }
    tag("downstream_cluster", Any::Text(head.downstream_cluster.as_deref().unwrap_or("-")));
    if let Some(cluster) = facts.upstream.cluster.as_deref() {
        tag("upstream_cluster", Any::Text(cluster));
        tag("upstream_cluster.name", Any::Text(cluster));
    }
    if let Some(host) = facts.upstream.host.as_deref() {
        tag("upstream_address", Any::Text(host));
    }
    let flags = if facts.flags.is_empty() { "-".to_owned() } else { facts.flags.to_string() };
    tag("response_flags", Any::Text(&flags));
    if let Some(details) = facts.details {
        tag("response_code_details", Any::Text(format::truncate(details, Some(LONGEST_TAG))));
    }
    if let Some(route) = facts.route {
        tag("route_name", Any::Text(route));
    }
    if facts.upstream.attempts > 1 {
        tag("http.request.resend_count", Any::Int(i64::from(facts.upstream.attempts) - 1));
    }
    if let (_, Some(name)) = principals(facts.conn.tls.as_deref()) {
        tag("source.principal", Any::Text(name));
    }
}

/// The configured tags; a route's before the connection manager's of the same name.
fn custom(span: &RequestSpan, facts: &Facts<'_>, tag: &mut Tag<'_>) {
    let own = span.own().map_or(&[][..], |own| &own.custom_tags);
    let general = &span.tracing.config.custom_tags;
    for custom in own.iter().chain(general.iter().filter(|g| own.iter().all(|o| o.name != g.name))) {
        let value = rendered(&custom.value, facts);
        let value = if value.is_empty() { &*custom.default } else { &*value };
        if !value.is_empty() {
            tag(&custom.name, Any::Text(value));
        }
    }
}

/// Tries that others followed, where they have no spans of their own.
fn tries(span: &RequestSpan, seen: &Seen, message: &mut Message) {
    for pair in seen.tries.windows(2) {
        let [of, next] = pair else { continue };
        message.message(field::EVENT, |event| {
            event.fixed64(1, at(span, of.end.unwrap_or(of.begin)));
            // Who is redirected counts from one again.
            event.text(2, if next.number == 1 { "internal_redirect" } else { "retry" });
            event.attribute(3, "upstream_address", &*of.host);
            event.attribute(3, "attempt", Any::Int(of.number.into()));
            match of.result {
                Some(TryResult::Status(status)) => {
                    event.attribute(3, "http.response.status_code", Any::Int(status.into()));
                }
                Some(TryResult::Failed(why)) => event.attribute(3, "error.type", why),
                None => {}
            }
        });
    }
}

/// `verbose`: when what passed, under Envoy's names.
fn moments(span: &RequestSpan, seen: &Seen, (facts, now): (&Facts<'_>, Instant), message: &mut Message) {
    let after = |millis: Option<u64>| millis.map(|millis| span.start + Duration::from_millis(millis));
    let of = |at: Option<Instant>| at.map(|at| span.start + at.saturating_duration_since(span.origin.started));
    let (first, last) = (seen.tries.first(), seen.tries.last());
    for (name, when) in [
        ("last_downstream_rx_byte_received", after(facts.times.request_done)),
        ("first_upstream_tx_byte_sent", of(first.map(|t| t.begin))),
        ("first_upstream_rx_byte_received", of(last.and_then(|t| t.end))),
        ("first_downstream_tx_byte_sent", after(facts.times.response_head)),
        ("last_downstream_tx_byte_sent", of(Some(now))),
    ] {
        let Some(when) = when else { continue };
        message.message(field::EVENT, |event| {
            event.fixed64(1, unix(when));
            event.text(2, name);
        });
    }
}

fn at(span: &RequestSpan, moment: Instant) -> u64 {
    unix(span.start + moment.saturating_duration_since(span.origin.started))
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}

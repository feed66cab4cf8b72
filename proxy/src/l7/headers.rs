//! Header work shared by both directions: what belongs to one hop only, and the configured mutations.
//!
//! Connection-specific fields never cross the proxy (RFC 9110 section 7.6.1); everything else does, untouched.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use smallvec::SmallVec;

use crate::{
    ir::{
        filters::Mutation,
        format::{Operator, Segment},
        route::{AppendAction, HeaderAdd, HeaderOps},
    },
    telemetry::format::{self, Facts, Headers},
};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Removes connection-specific fields and those that `Connection` names, except `Transfer-Encoding` (the framing of a
/// body of unknown length is carried over) and `TE: trailers`. Returns whether `Connection: close` was there.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) -> bool {
    // One look over the names is cheaper than a search for each: most messages have one of them, or none.
    let (mut connection, mut others, mut te) = (false, false, false);
    for name in headers.keys() {
        match name.as_str() {
            "connection" => connection = true,
            "keep-alive" | "proxy-connection" | "upgrade" => others = true,
            "te" => te = true,
            _ => {}
        }
    }
    let close = connection && strip_named(headers);
    if others {
        headers.remove(KEEP_ALIVE);
        headers.remove(PROXY_CONNECTION);
        headers.remove(header::UPGRADE);
    }
    if te && let Some(te) = headers.get(header::TE) {
        let trailers = te.to_str().is_ok_and(|te| {
            te.split(',').any(|t| t.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("trailers"))
        });
        if trailers {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        } else {
            headers.remove(header::TE);
        }
    }
    close
}

/// Whether a message's body is chunked or not coded at all. Any other list would describe another body than goes on,
/// which is chunked once, and the next reader might believe it. It compares letters, maybe: they are small from here on.
pub fn chunked_at_most(headers: &mut HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let plain = match (codings.next(), codings.next()) {
        (None, _) => return true,
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => coding == "chunked",
        _ => return false,
    };
    if !plain {
        headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    true
}

/// Removes `Connection` and what it names; returns whether it says `close`.
fn strip_named(headers: &mut HeaderMap) -> bool {
    let mut lines = headers.get_all(header::CONNECTION).iter();
    let (first, more) = (lines.next(), lines.next().is_some());
    if !more && first.is_some_and(|line| line.as_bytes().eq_ignore_ascii_case(b"keep-alive")) {
        headers.remove(KEEP_ALIVE);
        headers.remove(header::CONNECTION);
        return false;
    }
    let mut close = false;
    let lines: Vec<HeaderValue> = headers.get_all(header::CONNECTION).iter().cloned().collect();
    headers.remove(header::CONNECTION);
    for name in lines.iter().filter_map(|l| l.to_str().ok()).flat_map(|l| l.split(',')).map(str::trim) {
        close |= name.eq_ignore_ascii_case("close");
        // A peer must not talk us out of fields that are end to end or frame the message.
        if let Ok(name) = HeaderName::from_bytes(name.as_bytes())
            && !is_protected(&name)
        {
            headers.remove(name);
        }
    }
    close
}

/// The names among `headers` that are also in `list`, all of which begin with `x-envoy-`; hardly ever any.
pub fn among(headers: &HeaderMap, list: &[&str]) -> SmallVec<[HeaderName; 2]> {
    let mut found = SmallVec::new();
    for name in headers.keys() {
        let text = name.as_str();
        if text.starts_with("x-envoy-") && list.contains(&text) {
            found.push(name.clone());
        }
    }
    found
}

fn is_protected(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::HOST
            | header::CONTENT_LENGTH
            | header::TRANSFER_ENCODING
            | header::TE
            | header::CONTENT_TYPE
            | header::AUTHORIZATION
            | header::COOKIE
    ) || name.as_str().starts_with("x-forwarded-")
        || name.as_str().starts_with("x-envoy-")
}

/// Joins cookie crumbs (RFC 9113 section 8.2.3) into the one line HTTP/1 servers expect.
pub fn join_cookies(headers: &mut HeaderMap) {
    let mut lines = headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(_)) = (lines.next(), lines.next()) else { return };
    let mut joined = first.as_bytes().to_vec();
    for crumb in headers.get_all(header::COOKIE).iter().skip(1) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(crumb.as_bytes());
    }
    if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(joined)) {
        headers.insert(header::COOKIE, value);
    }
}

/// The request line, for values that refer to pseudo headers.
#[derive(Clone, Copy, Debug)]
pub struct Pseudo<'a> {
    pub method: &'a Method,
    pub path: &'a str,
    pub scheme: &'a str,
}

/// A request head in the form this room keeps it: origin-form path, authority in `Host`.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    pub pseudo: Pseudo<'a>,
    pub headers: &'a HeaderMap,
}

impl Headers for RequestView<'_> {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        match name {
            ":path" => Some(self.pseudo.path.into()).filter(|p: &Cow<'_, str>| !p.is_empty()),
            ":method" => Some(self.pseudo.method.as_str().into()),
            ":scheme" => Some(self.pseudo.scheme.into()),
            ":authority" => Headers::get(self.headers, "host"),
            name => Headers::get(self.headers, name),
        }
    }
}

/// A response head.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResponseView<'a>(pub StatusCode, pub &'a HeaderMap);

impl Headers for ResponseView<'_> {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        if name == ":status" { Some(self.0.as_str().into()) } else { Headers::get(self.1, name) }
    }
}

/// Applies one level of request mutations: additions, then removals.
pub fn apply_request(ops: &HeaderOps, headers: &mut HeaderMap, pseudo: Pseudo<'_>, facts: &Facts<'_>) {
    for add in &ops.request_add {
        // Values may refer to the message being changed.
        let value = evaluate(add, &Facts { request: Some(&RequestView { pseudo, headers }), ..*facts });
        insert(headers, add, value);
    }
    for name in &ops.request_remove {
        headers.remove(name);
    }
}

/// Applies one level of response mutations: additions, then removals.
pub fn apply_response(ops: &HeaderOps, headers: &mut HeaderMap, status: StatusCode, facts: &Facts<'_>) {
    for add in &ops.response_add {
        let response = ResponseView(status, headers);
        let value = evaluate(add, &Facts { status: status.as_u16(), response: Some(&response), ..*facts });
        insert(headers, add, value);
    }
    for name in &ops.response_remove {
        headers.remove(name);
    }
}

/// Applies one mutation, with `value` to find what is added.
pub(super) fn mutate(
    mutation: &Mutation,
    headers: &mut HeaderMap,
    value: impl FnOnce(&HeaderAdd, &HeaderMap) -> Option<HeaderValue>,
) {
    match mutation {
        Mutation::Add(add) => {
            let value = value(add, headers);
            insert(headers, add, value);
        }
        Mutation::Remove(name) => {
            headers.remove(name);
        }
        Mutation::RemoveMatching(matcher) => {
            let gone: SmallVec<[HeaderName; 4]> =
                headers.keys().filter(|n| !is_framing(n) && matcher.matches(n.as_str())).cloned().collect();
            for name in gone {
                headers.remove(name);
            }
        }
    }
}

/// What a message cannot do without.
fn is_framing(name: &HeaderName) -> bool {
    matches!(*name, header::HOST | header::CONTENT_LENGTH | header::TRANSFER_ENCODING)
}

/// The value to add; `None` when there is none.
pub(super) fn evaluate(add: &HeaderAdd, facts: &Facts<'_>) -> Option<HeaderValue> {
    let mut text = String::new();
    format::render(&add.value, facts, "", &mut text);
    if text.is_empty() && !add.keep_empty_value {
        return None;
    }
    // A value with control characters would split the header: it is left out.
    HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).ok()
}

/// Whether a value looks at the request: response mutations then need a copy of its head.
pub fn mentions_request(adds: &[HeaderAdd]) -> bool {
    adds.iter().any(|add| add.value.segments.iter().any(|s| matches!(s, Segment::Op { op: Operator::Req(..), .. })))
}

pub(super) fn insert(headers: &mut HeaderMap, add: &HeaderAdd, value: Option<HeaderValue>) {
    let Some(value) = value else { return };
    let name = add.name.clone();
    match add.action {
        AppendAction::AppendIfExistsOrAdd if name == header::HOST => {
            headers.insert(name, value);
        }
        AppendAction::AppendIfExistsOrAdd => {
            headers.append(name, value);
        }
        AppendAction::AddIfAbsent => {
            headers.entry(name).or_insert(value);
        }
        AppendAction::OverwriteIfExistsOrAdd => {
            headers.insert(name, value);
        }
        AppendAction::OverwriteIfExists => {
            if headers.contains_key(&name) {
                headers.insert(name, value);
            }
        }
    }
}

/// Inserts a decimal number.
pub fn insert_number(headers: &mut HeaderMap, name: HeaderName, value: u64) {
    const DIGITS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
    // Most of these numbers are tries and milliseconds: small ones need no memory of their own.
    let small = usize::try_from(value).ok().and_then(|n| DIGITS.get(n));
    let value = small.map_or_else(|| HeaderValue::from(value), |digit| HeaderValue::from_static(digit));
    headers.insert(name, value);
}

/// The value of a header as a positive number of milliseconds; anything else counts as absent.
pub fn millis(headers: &HeaderMap, name: &HeaderName) -> Option<std::time::Duration> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok().map(std::time::Duration::from_millis)
}

//! Whether one route matches: path, headers, query, gRPC, fraction.

use std::{borrow::Cow, cell::OnceCell};

use http::{HeaderMap, Method, header};

use super::RequestFacts;
use crate::ir::{
    matcher::HeaderMatcher,
    route::{FurtherMatch, PathMatch, RouteMatch},
};

/// The path of a request, split once per decision.
pub(super) struct PathFacts<'a> {
    /// Without query and fragment.
    path: &'a str,
    query: Option<&'a str>,
    /// Lower-cased copy, made for the first case-insensitive route.
    folded: OnceCell<String>,
}

impl<'a> PathFacts<'a> {
    pub(super) fn new(facts: &RequestFacts<'a>) -> Self {
        let whole = facts.path.split('#').next().unwrap_or_default();
        let (path, query) = match whole.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (whole, None),
        };
        Self { path, query, folded: OnceCell::new() }
    }

    fn cased(&self, sensitive: bool) -> &str {
        if sensitive { self.path } else { self.folded.get_or_init(|| self.path.to_ascii_lowercase()) }
    }
}

pub(super) fn route(rule: &RouteMatch, facts: &RequestFacts<'_>, path: &PathFacts<'_>) -> bool {
    path_matches(rule, facts, path)
        && (!rule.grpc || is_grpc(facts.headers))
        && rule.headers.iter().all(|matcher| header(matcher, facts))
        && rule.query.iter().all(|matcher| matcher.matches(query_value(path.query, &matcher.name)))
        && rule.further.as_deref().is_none_or(|further| self::further(further, facts))
        // The high half: the low bits of the same draw choose among weighted clusters.
        && rule.fraction.is_none_or(|fraction| fraction.hit((facts.random >> 32) as u32))
}

fn further(rule: &FurtherMatch, facts: &RequestFacts<'_>) -> bool {
    let is = |wanted: Option<bool>, is: bool| wanted.is_none_or(|wanted| wanted == is);
    is(rule.presented, facts.certificate.presented)
        && is(rule.validated, facts.certificate.validated)
        && rule.cookies.iter().all(|matcher| {
            let value = cookie(facts.headers, &matcher.name).map(String::from_utf8_lossy);
            matcher.matches(value.as_deref())
        })
}

/// The value of the first cookie of that name, without quotes around it.
pub fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    let lines = headers.get_all(header::COOKIE).iter();
    let mut cookies = lines.flat_map(|line| line.as_bytes().split(|b| *b == b';'));
    cookies.find_map(|cookie| {
        let equals = cookie.iter().position(|b| *b == b'=')?;
        let (key, value) = (&cookie[..equals], &cookie[equals + 1..]);
        let start = key.iter().position(|b| *b != b' ')?;
        (&key[start..] == name.as_bytes()).then_some(match value {
            [b'"', inner @ .., b'"'] => inner,
            value => value,
        })
    })
}

fn path_matches(rule: &RouteMatch, facts: &RequestFacts<'_>, path: &PathFacts<'_>) -> bool {
    let is_connect = facts.method == Method::CONNECT;
    let text = path.cased(rule.case_sensitive);
    match &rule.path {
        PathMatch::Connect => is_connect,
        // A plain CONNECT has no path: only `connect_matcher` and the match-all prefix of RFC 8441 requests apply.
        _ if is_connect && text.is_empty() => false,
        PathMatch::Prefix(prefix) => text.starts_with(&**prefix),
        PathMatch::Exact(exact) => text == &**exact,
        PathMatch::SeparatedPrefix(prefix) => {
            text.strip_prefix(&**prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        // A regular expression says itself whether case matters.
        PathMatch::Regex(regex) => regex.is_match(path.path),
        PathMatch::Template(template) => template.is_match(path.path),
    }
}

/// `application/grpc` or `application/grpc+…`, as Envoy's `Grpc::Common::isGrpcRequestHeaders`.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.as_bytes().strip_prefix(b"application/grpc"))
        .is_some_and(|rest| rest.is_empty() || rest[0] == b'+')
}

/// Decides one header matcher, pseudo headers included; bytes outside UTF-8 count as U+FFFD.
pub fn header(matcher: &HeaderMatcher, facts: &RequestFacts<'_>) -> bool {
    match &*matcher.name {
        ":method" => matcher.matches(Some(facts.method.as_str())),
        ":path" => matcher.matches(Some(facts.path)),
        ":authority" | "host" => matcher.matches(Some(facts.authority)),
        ":scheme" => matcher.matches(Some(facts.scheme)),
        name if is_absent(facts.headers, name) => matcher.matches(None),
        name => matcher.matches_any(facts.headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes()))),
    }
}

/// Whether a header is surely not there: a look over few names is cheaper than to hash the one.
fn is_absent(headers: &HeaderMap, name: &str) -> bool {
    const FEW: usize = 16;
    headers.keys_len() <= FEW && !headers.keys().any(|key| key.as_str() == name)
}

/// The value of a header, several joined by commas; bytes outside UTF-8 become U+FFFD.
pub fn joined<'a>(headers: &'a HeaderMap, name: &str) -> Option<Cow<'a, str>> {
    let mut values = headers.get_all(name).iter();
    let first = String::from_utf8_lossy(values.next()?.as_bytes());
    let mut all: Option<String> = None;
    for value in values {
        let text = all.get_or_insert_with(|| first.to_string());
        text.push(',');
        text.push_str(&String::from_utf8_lossy(value.as_bytes()));
    }
    Some(all.map_or(first, Cow::Owned))
}

/// The first value of a query parameter, not decoded; a parameter without `=` has the empty value.
fn query_value<'a>(query: Option<&'a str>, name: &str) -> Option<&'a str> {
    query?.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}

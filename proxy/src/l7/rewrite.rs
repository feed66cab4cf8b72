//! Where a request goes instead: path and host rewrites, and redirects.
//!
//! Pure. Works on the origin-form path with its query; the query survives every rewrite.

use http::{HeaderMap, StatusCode};

use crate::{
    ir::route::{HostRewrite, PathMatch, PathRewrite, Redirect, RouteMatch},
    policy::router::strip_port,
};

#[cfg(test)]
#[path = "rewrite_tests.rs"]
mod tests;

/// The part of a request that redirects and rewrites look at.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    pub scheme: &'a str,
    pub authority: &'a str,
    /// Path with query.
    pub path: &'a str,
}

/// Splits path and `?query` (or fragment).
fn split(path: &str) -> (&str, &str) {
    path.split_at(path.find(['?', '#']).unwrap_or(path.len()))
}

/// The path after `rewrite`, `None` when the rewrite does not apply to it.
pub fn path(rewrite: &PathRewrite, matched: &RouteMatch, whole: &str) -> Option<String> {
    let (path, query) = split(whole);
    match rewrite {
        PathRewrite::Prefix(with) => {
            let length = matched_length(&matched.path, path)?;
            Some(format!("{with}{}{query}", path.get(length..)?))
        }
        PathRewrite::Regex { pattern, substitution } => {
            Some(format!("{}{query}", pattern.replace_all(path, substitution)))
        }
        // Its value takes more than the path to know.
        PathRewrite::Format(_) => None,
        PathRewrite::Template(rewrite) => match &matched.path {
            PathMatch::Template(template) => Some(format!("{}{query}", template.rewrite(path, rewrite)?)),
            PathMatch::Prefix(_)
            | PathMatch::Exact(_)
            | PathMatch::SeparatedPrefix(_)
            | PathMatch::Regex(_)
            | PathMatch::Connect => None,
        },
    }
}

/// The path of a format's value, with the query of `whole` unless it brings its own; `None` when there is no value.
pub fn formatted(value: &str, whole: &str) -> Option<String> {
    let query = if value.contains('?') { "" } else { split(whole).1 };
    (!value.is_empty()).then(|| format!("{value}{query}"))
}

/// How much of the path the route matched: what a prefix rewrite replaces.
fn matched_length(matched: &PathMatch, path: &str) -> Option<usize> {
    match matched {
        PathMatch::Prefix(prefix) | PathMatch::SeparatedPrefix(prefix) => Some(prefix.len()),
        PathMatch::Exact(_) | PathMatch::Regex(_) | PathMatch::Template(_) => Some(path.len()),
        PathMatch::Connect => None,
    }
}

/// The authority after `rewrite`; [`HostRewrite::Auto`] is decided when the endpoint is known.
pub fn host(rewrite: &HostRewrite, headers: &HeaderMap, whole: &str) -> Option<String> {
    match rewrite {
        HostRewrite::Literal(host) => Some(host.to_string()),
        HostRewrite::Auto | HostRewrite::Format(_) => None,
        HostRewrite::Header(name) => {
            headers.get(name).and_then(|v| v.to_str().ok()).filter(|v| !v.is_empty()).map(str::to_owned)
        }
        HostRewrite::PathRegex { pattern, substitution } => Some(pattern.replace_all(split(whole).0, substitution)),
    }
}

/// Status and `location` of a redirect.
pub fn redirect(redirect: &Redirect, matched: &RouteMatch, line: &Line<'_>) -> (StatusCode, String) {
    let scheme = match (&redirect.scheme, redirect.https) {
        (Some(scheme), _) => &**scheme,
        (None, true) => "https",
        (None, false) => line.scheme,
    };
    let (host, own_port) = match &redirect.host {
        Some(host) => (&**host, None),
        None => {
            let host = strip_port(line.authority);
            (host, line.authority[host.len()..].strip_prefix(':').and_then(|p| p.parse::<u16>().ok()))
        }
    };
    // A port that was the old scheme's default makes no sense for a new scheme.
    let own_port = own_port
        .filter(|port| !(scheme != line.scheme && matches!((line.scheme, *port), ("http", 80) | ("https", 443))));
    let port = redirect.port.or(own_port).map(|port| format!(":{port}")).unwrap_or_default();
    let (path, query) = split(line.path);
    let target = match (&redirect.path, &redirect.rewrite) {
        (Some(path), _) => path.to_string(),
        (None, Some(rewrite)) => self::path(rewrite, matched, path).unwrap_or_else(|| path.to_owned()),
        (None, None) => path.to_owned(),
    };
    // A redirect path may bring a query of its own; the request's is then dropped.
    let keeps_query = !redirect.strip_query && !target.contains('?');
    let query = if keeps_query { query } else { "" };
    (redirect.status, format!("{scheme}://{host}{port}{target}{query}"))
}

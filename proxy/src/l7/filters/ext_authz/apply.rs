//! Does to a request what an authorization service says, as far as it may.
//!
//! A change that cannot be made, or that the rules forbid, makes the whole answer invalid: half of what a service wants
//! may be the half that lets somebody pass for another.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};

use super::verdict::{Change, Verdict, is_hop};
use crate::{
    ir::{ext_authz::ExtAuthz, route::AppendAction},
    l7::pipeline::Inbound,
    policy::mutation_rules::{self, Ruling, rule},
};

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;

/// The answer cannot be carried out.
#[derive(Debug)]
pub(super) struct Invalid;

/// A change of a response header.
#[derive(Clone, Debug)]
pub(in crate::l7::filters) struct Ready {
    name: HeaderName,
    value: HeaderValue,
    action: AppendAction,
}

/// An answer to the client in place of the upstream's.
pub(super) struct Denial {
    pub status: StatusCode,
    pub details: &'static str,
    pub body: Cow<'static, str>,
    pub headers: Vec<Ready>,
}

/// Changes the request; `limits` are those on the number and bytes of its headers.
pub(super) fn request(
    config: &ExtAuthz,
    verdict: &Verdict,
    (count, bytes): (u32, u32),
    request: &mut Inbound,
) -> Result<(), Invalid> {
    let rules = config.rules.as_ref();
    for change in &verdict.request {
        let kind = if change.joined { mutation_rules::Change::Append } else { mutation_rules::Change::Set };
        match rule(rules, kind, &change.name) {
            Ruling::Allowed => one(change, request)?,
            Ruling::Ignored => {}
            Ruling::Forbidden => return Err(Invalid),
        }
    }
    for name in verdict.remove.iter().map(|name| name.to_ascii_lowercase()) {
        match rule(rules, mutation_rules::Change::Remove, &name) {
            Ruling::Allowed => drop(request.parts.headers.remove(name.as_str())),
            Ruling::Ignored => {}
            Ruling::Forbidden => return Err(Invalid),
        }
    }
    if !(verdict.query.is_empty() && verdict.query_remove.is_empty()) {
        if config.validate_mutations && !verdict.query.iter().all(|(k, v)| is_encoded(k) && is_encoded(v)) {
            return Err(Invalid);
        }
        let path = query(request.path(), &verdict.query, &verdict.query_remove);
        request.parts.uri = path.parse().map_err(|_| Invalid)?;
    }
    let headers = &request.parts.headers;
    let size: usize = headers.iter().map(|(n, v)| n.as_str().len() + v.len()).sum();
    // The pseudo headers count, the host among them.
    if headers.len() + 3 > count as usize || size + request.path().len() > bytes as usize {
        return Err(Invalid);
    }
    Ok(())
}

fn one(change: &Change, request: &mut Inbound) -> Result<(), Invalid> {
    let value = HeaderValue::from_bytes(&change.value).map_err(|_| Invalid)?;
    let parts = &mut request.parts;
    match change.name.as_str() {
        ":path" => {
            let path = value.to_str().map_err(|_| Invalid)?;
            if !path.starts_with('/') {
                return Err(Invalid);
            }
            parts.uri = path.parse::<Uri>().map_err(|_| Invalid)?;
        }
        ":method" => parts.method = Method::from_bytes(&change.value).map_err(|_| Invalid)?,
        ":authority" | "host" => drop(parts.headers.insert(header::HOST, value)),
        // It says how the client came here.
        ":scheme" => {}
        // How the message is framed is not the service's to say.
        name if is_hop(&name.to_ascii_lowercase()) => {}
        name => {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| Invalid)?;
            if change.joined {
                join(&mut parts.headers, name, &value);
            } else {
                set(&mut parts.headers, name, value, change.action);
            }
        }
    }
    Ok(())
}

/// Appends to what is there within one line; what is not there stays away.
fn join(headers: &mut HeaderMap, name: HeaderName, value: &HeaderValue) {
    let lines: Vec<&[u8]> = headers.get_all(&name).iter().map(HeaderValue::as_bytes).collect();
    if lines.is_empty() {
        return;
    }
    let joined = [&lines.join(&b","[..])[..], b",", value.as_bytes()].concat();
    if let Ok(joined) = HeaderValue::from_bytes(&joined) {
        headers.insert(name, joined);
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: HeaderValue, action: AppendAction) {
    match action {
        AppendAction::AppendIfExistsOrAdd => drop(headers.append(name, value)),
        AppendAction::AddIfAbsent => drop(headers.entry(name).or_insert(value)),
        AppendAction::OverwriteIfExistsOrAdd => drop(headers.insert(name, value)),
        AppendAction::OverwriteIfExists if headers.contains_key(&name) => drop(headers.insert(name, value)),
        AppendAction::OverwriteIfExists => {}
    }
}

fn ready(changes: &[Change]) -> Result<Vec<Ready>, Invalid> {
    let one = |change: &Change| {
        let name = HeaderName::from_bytes(change.name.as_bytes()).map_err(|_| Invalid)?;
        let value = HeaderValue::from_bytes(&change.value).map_err(|_| Invalid)?;
        Ok(Ready { name, value, action: change.action })
    };
    // The status line is not among the headers, and how the answer is framed is not the service's to say.
    let is_own = |name: &str| name.starts_with(':') || is_hop(&name.to_ascii_lowercase());
    changes.iter().filter(|c| !is_own(&c.name)).map(one).collect()
}

/// What the upstream's response is to get.
pub(super) fn response_changes(verdict: &Verdict) -> Result<Vec<Ready>, Invalid> {
    ready(&verdict.response)
}

pub(super) fn denial(config: &ExtAuthz, verdict: &Verdict) -> Result<Denial, Invalid> {
    let status = verdict.status.unwrap_or(StatusCode::FORBIDDEN);
    answer(config, verdict, status, "ext_authz_denied")
}

/// The service's own word on why it cannot say.
pub(super) fn failure(config: &ExtAuthz, verdict: &Verdict) -> Result<Denial, Invalid> {
    answer(config, verdict, verdict.status.unwrap_or(config.status_on_error), "ext_authz_error")
}

fn answer(config: &ExtAuthz, verdict: &Verdict, status: StatusCode, details: &'static str) -> Result<Denial, Invalid> {
    let mut body: Bytes = verdict.body.clone();
    if config.max_denied_body > 0 {
        body.truncate(config.max_denied_body as usize);
    }
    let body = String::from_utf8_lossy(&body).into_owned().into();
    // What the service names replaces what is there; named twice it is there twice.
    let mut headers = ready(&verdict.response)?;
    for i in 0..headers.len() {
        let again = headers[..i].iter().any(|h| h.name == headers[i].name);
        if headers[i].action == AppendAction::AppendIfExistsOrAdd && !again {
            headers[i].action = AppendAction::OverwriteIfExistsOrAdd;
        }
    }
    Ok(Denial { status, details, body, headers })
}

/// Makes the changes of a response.
pub(in crate::l7::filters) fn all(changes: &[Ready], headers: &mut HeaderMap) {
    for change in changes {
        set(headers, change.name.clone(), change.value.clone(), change.action);
    }
}

/// As [`all`], but there are never more than `limit` headers; whether something was left out.
pub(in crate::l7::filters) fn within(limit: usize, changes: &[Ready], headers: &mut HeaderMap) -> bool {
    let mut left_out = false;
    for change in changes {
        let adds = change.action == AppendAction::AppendIfExistsOrAdd || !headers.contains_key(&change.name);
        if adds && headers.len() + 1 >= limit {
            left_out |= change.action != AppendAction::OverwriteIfExists;
            continue;
        }
        set(headers, change.name.clone(), change.value.clone(), change.action);
    }
    left_out
}

/// Whether a query parameter needs no more encoding.
fn is_encoded(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.~%+!*'();:@$,/?[]".contains(&b))
}

/// The path with its parameters changed; as in Envoy they then stand in the order of their names.
fn query(path: &str, set: &[(String, String)], remove: &[String]) -> String {
    let path = path.split('#').next().unwrap_or_default();
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let mut pairs: Vec<(&str, &str)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .collect();
    for (key, value) in set {
        pairs.retain(|(k, _)| k != key);
        pairs.push((key, value));
    }
    pairs.retain(|(key, _)| !remove.iter().any(|gone| gone == key));
    pairs.sort_by_key(|(key, _)| *key);
    let mut out = path.to_owned();
    for (i, (key, value)) in pairs.iter().enumerate() {
        out.push(if i == 0 { '?' } else { '&' });
        out.push_str(key);
        out.push('=');
        out.push_str(value);
    }
    out
}

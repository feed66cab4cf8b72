//! Where tokens are in a request, for one provider or for all.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, header};

use crate::ir::jwt_authn::JwtProvider;

/// A token, and who says that one may be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found<'p> {
    pub token: String,
    /// The issuers it may be of; `None`: any.
    pub issuers: Option<Vec<&'p str>>,
    pub location: Location<'p>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Location<'p> {
    Header(&'p HeaderName),
    Param(&'p str),
    Cookie(&'p str),
}

impl Found<'_> {
    /// Whether a token of this issuer may be there.
    pub fn allows(&self, issuer: &str) -> bool {
        self.issuers.as_ref().is_none_or(|issuers| issuers.contains(&issuer))
    }
}

/// Places by name, each with the issuers that use it.
struct Places<'p, K>(Vec<(K, Option<Vec<&'p str>>)>);

impl<'p, K: Ord> Places<'p, K> {
    fn add(&mut self, key: K, issuer: &'p str) {
        let at = match self.0.binary_search_by(|(known, _)| known.cmp(&key)) {
            Ok(at) => at,
            Err(at) => {
                self.0.insert(at, (key, Some(Vec::new())));
                at
            }
        };
        let issuers = &mut self.0[at].1;
        match issuers {
            Some(_) if issuer.is_empty() => *issuers = None,
            Some(all) => all.push(issuer),
            None => {}
        }
    }
}

/// The tokens of a request in the places that the providers name; `path` is the request's, with its query.
pub fn locate<'p>(providers: impl Iterator<Item = &'p JwtProvider>, headers: &HeaderMap, path: &str) -> Vec<Found<'p>> {
    let (mut in_headers, mut in_params, mut in_cookies) = (Places(vec![]), Places(vec![]), Places(vec![]));
    for provider in providers {
        for (name, prefix) in &provider.headers {
            in_headers.add((name.as_str(), &**prefix, HeaderKey(name)), &provider.issuer);
        }
        provider.params.iter().for_each(|name| in_params.add(&**name, &provider.issuer));
        provider.cookies.iter().for_each(|name| in_cookies.add(&**name, &provider.issuer));
    }
    let mut found = Vec::new();
    for ((_, prefix, HeaderKey(name)), issuers) in in_headers.0 {
        if let Some(token) = in_header(headers, name, prefix) {
            found.push(Found { token, issuers, location: Location::Header(name) });
        }
    }
    let query = path.split('#').next().unwrap_or_default().split_once('?').map_or("", |(_, query)| query);
    for (name, issuers) in in_params.0 {
        if let Some(token) = param(query, name) {
            found.push(Found { token, issuers, location: Location::Param(name) });
        }
    }
    for (name, issuers) in in_cookies.0 {
        if let Some(token) = cookie(headers, name) {
            found.push(Found { token, issuers, location: Location::Cookie(name) });
        }
    }
    found
}

/// A header's name beside its text: equal texts are equal names.
struct HeaderKey<'p>(&'p HeaderName);

impl PartialEq for HeaderKey<'_> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl Eq for HeaderKey<'_> {}
impl PartialOrd for HeaderKey<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for HeaderKey<'_> {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

fn in_header(headers: &HeaderMap, name: &HeaderName, prefix: &str) -> Option<String> {
    let mut values = headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes()));
    let first = values.next()?;
    let all = values.fold(first, |all, value| Cow::Owned(format!("{all},{value}")));
    if prefix.is_empty() {
        return Some(all.into_owned());
    }
    // All that follows: what is no token then fails as one.
    all.find(prefix).map(|at| all[at + prefix.len()..].trim().to_owned())
}

fn param(query: &str, name: &str) -> Option<String> {
    let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(key) == name && !pair.is_empty()).then(|| decoded(value))
    })
}

fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get_all(header::COOKIE).iter().find_map(|line| {
        // Strange bytes in one cookie must not hide the others.
        let line = String::from_utf8_lossy(line.as_bytes());
        line.split(';').find_map(|pair| {
            let (key, value) = pair.split_once('=')?;
            let value = value.trim();
            let quoted = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
            (key.trim() == name).then(|| quoted.unwrap_or(value).to_owned())
        })
    })
}

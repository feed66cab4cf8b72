//! The key of a request: what the hash policies of its route, or of the load balancer, make of it.
//!
//! Computed once per request, and only where the cluster's balancer looks at it. Each policy's hash goes into the
//! result as in Envoy, so that the same request has the same key behind either proxy.

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue};

use super::{Forwarding, Plan};
use crate::{
    ir::{
        balancing::Criteria,
        route::{HashCookie, HashHeader, HashPolicy, Rewrite},
    },
    l7::pipeline::Inbound,
    policy::router::cookie as find_cookie,
    upstream::{
        Cluster,
        lb::hash::{combine, of_ip, xxhash64},
    },
};

/// What picks of one request go by.
#[derive(Default)]
pub(super) struct Key {
    pub(super) hash: Option<u64>,
    /// Cookies made for a client without them.
    pub(super) cookies: Vec<HeaderValue>,
}

/// A request as hash policies see it.
struct View<'a> {
    headers: &'a HeaderMap,
    method: &'a str,
    authority: &'a str,
    path: &'a str,
    scheme: &'a str,
    remote: IpAddr,
    /// What a cookie is made of: both ends of the connection.
    connection: &'a dyn Fn() -> String,
}

impl Forwarding<'_> {
    /// The key of `request`, whose head has its final form.
    pub(super) fn key(&self, cluster: &Cluster, request: &Inbound) -> Key {
        if !cluster.config.lb.is_hashed() {
            return Key::default();
        }
        let own = &cluster.config.lb_options.hash_policy;
        let policies = if own.is_empty() { &self.route.hash_policy } else { own };
        let conn = &self.conn.scope.conn;
        let view = View {
            headers: &request.parts.headers,
            method: request.parts.method.as_str(),
            authority: request.authority(),
            path: request.path(),
            scheme: request.sane.origin.scheme,
            remote: request.sane.origin.remote.ip(),
            connection: &|| format!("{}{}", conn.remote, conn.local),
        };
        let mut key = Key::default();
        key.hash = view.hash(policies, &mut key.cookies);
        key
    }

    /// The labels that the route, or the weighted cluster it chose, asks of hosts.
    pub(super) fn criteria<'p>(&'p self, plan: &'p Plan<'_>) -> Option<&'p Criteria> {
        plan.weighted.map_or(&self.route.criteria, |weighted| &weighted.criteria).as_deref()
    }
}

impl View<'_> {
    fn hash(&self, policies: &[HashPolicy], cookies: &mut Vec<HeaderValue>) -> Option<u64> {
        let mut hash = None;
        for policy in policies {
            let (own, terminal) = match policy {
                HashPolicy::Header { name, rewrite, terminal } => (self.header(name, rewrite.as_ref()), *terminal),
                HashPolicy::Cookie(cookie) => (self.cookie(cookie, cookies), cookie.terminal),
                HashPolicy::SourceIp { terminal } => (Some(of_ip(self.remote)), *terminal),
                HashPolicy::Query { name, terminal } => {
                    (query(self.path, name).map(|value| xxhash64(value.as_bytes(), 0)), *terminal)
                }
            };
            hash = combine(hash, own);
            if terminal && hash.is_some() {
                break;
            }
        }
        hash
    }

    fn header(&self, name: &HashHeader, rewrite: Option<&Rewrite>) -> Option<u64> {
        let one = |value: &str| Some(rewritten(value.as_bytes(), rewrite, |value| xxhash64(value, 0)));
        let name = match name {
            HashHeader::Authority => return one(self.authority).filter(|_| !self.authority.is_empty()),
            HashHeader::Method => return one(self.method),
            HashHeader::Path => return one(self.path).filter(|_| !self.path.is_empty()),
            HashHeader::Scheme => return one(self.scheme),
            HashHeader::Regular(name) => name,
        };
        let mut values = self.headers.get_all(name).iter();
        let first = values.next()?;
        let Some(second) = values.next() else {
            return Some(rewritten(first.as_bytes(), rewrite, |value| xxhash64(value, 0)));
        };
        // In any order the same.
        let all = [first, second].into_iter().chain(values);
        let mut all: Vec<Vec<u8>> = all.map(|v| rewritten(v.as_bytes(), rewrite, <[u8]>::to_vec)).collect();
        all.sort_unstable();
        Some(all.iter().fold(0, |seed, value| xxhash64(value, seed)))
    }

    fn cookie(&self, cookie: &HashCookie, made: &mut Vec<HeaderValue>) -> Option<u64> {
        if let Some(value) = find_cookie(self.headers, &cookie.name).filter(|value| !value.is_empty()) {
            return Some(xxhash64(value, 0));
        }
        cookie.ttl?;
        let value = format!("{:016x}", xxhash64((self.connection)().as_bytes(), 0));
        let line = format!("{}=\"{value}\"{}", cookie.name, cookie.attributes);
        made.extend(HeaderValue::try_from(line));
        Some(xxhash64(value.as_bytes(), 0))
    }
}

fn rewritten<T>(value: &[u8], rewrite: Option<&Rewrite>, then: impl Fn(&[u8]) -> T) -> T {
    match (rewrite, std::str::from_utf8(value)) {
        (Some(rewrite), Ok(text)) => then(rewrite.pattern.replace_all(text, &rewrite.substitution).as_bytes()),
        _ => then(value),
    }
}

/// The first value of a query parameter, as it was sent.
fn query<'p>(path: &'p str, name: &str) -> Option<&'p str> {
    let (_, parameters) = path.split_once('?')?;
    parameters.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}

#[cfg(test)]
#[path = "hash_tests.rs"]
mod tests;

//! Delegation: a route of one VirtualService stands for the routes of another, which has no hosts of its own.
//!
//! Istio's rules: conditions are joined pairwise where the delegate's is the narrower; what the delegate does not set,
//! the delegating route does; a route that could never match is left out. Pure.

use std::collections::{BTreeMap, HashMap};

use super::{HttpMatch, HttpRoute, StringMatch, VirtualService};
use crate::model::{Problem, document::Object, names::Visibility, scalars::RegexText};

type Seen = (Visibility, Object<VirtualService>);

/// The VirtualServices that have hosts, with the routes of their delegates in place.
pub(in crate::model) fn resolve(all: &[Seen], notes: &mut Vec<String>, problems: &mut Vec<Problem>) -> Vec<Seen> {
    let places = all.iter().filter(|(_, object)| object.spec.hosts.is_empty());
    let delegates: HashMap<(&str, &str), &Seen> =
        places.map(|seen| ((seen.1.meta.namespace.as_str(), seen.1.meta.name.as_str()), seen)).collect();
    let mut effective = Vec::new();
    for (visibility, object) in all.iter().filter(|(_, object)| !object.spec.hosts.is_empty()) {
        let mut object = object.clone();
        if object.spec.http.iter().any(|route| route.delegate.is_some()) {
            let mut routes = Vec::new();
            for (index, route) in std::mem::take(&mut object.spec.http).into_iter().enumerate() {
                let Some(delegate) = &route.delegate else {
                    routes.push(route);
                    continue;
                };
                let namespace = delegate.namespace.as_deref().unwrap_or(&object.meta.namespace);
                match delegates.get(&(namespace, delegate.name.as_str())) {
                    Some((seen, to)) if seen.includes(&object.meta.namespace) => {
                        for sub in &to.spec.http {
                            match merged(&route, sub) {
                                Some(route) => routes.push(route),
                                None => notes.push(format!(
                                    "a route of VirtualService {namespace}/{} contradicts the conditions of route {index} \
                                     of {}/{}, which delegates to it: it is left out",
                                    delegate.name, object.meta.namespace, object.meta.name
                                )),
                            }
                        }
                    }
                    Some(_) => problems.push(object.source.problem(
                        format!("spec.http[{index}].delegate.name"),
                        format!(
                            "VirtualService {namespace}/{} is not exported to {}",
                            delegate.name, object.meta.namespace
                        ),
                    )),
                    None => problems.push(object.source.problem(
                        format!("spec.http[{index}].delegate.name"),
                        format!("there is no VirtualService {namespace}/{} without hosts: add it", delegate.name),
                    )),
                }
            }
            object.spec.http = routes;
        }
        effective.push((visibility.clone(), object));
    }
    effective
}

fn merged(root: &HttpRoute, delegate: &HttpRoute) -> Option<HttpRoute> {
    let mut out = delegate.clone();
    out.matches = conditions(&root.matches, &delegate.matches)?;
    out.name = match (&root.name, &delegate.name) {
        (Some(root), Some(own)) => Some(format!("{root}-{own}")),
        (root, own) => own.clone().or_else(|| root.clone()),
    };
    out.rewrite = out.rewrite.or_else(|| root.rewrite.clone());
    out.timeout = out.timeout.or(root.timeout);
    out.retries = out.retries.or_else(|| root.retries.clone());
    out.fault = out.fault.or_else(|| root.fault.clone());
    out.mirror = out.mirror.or_else(|| root.mirror.clone());
    out.mirror_percent = out.mirror_percent.or(root.mirror_percent);
    out.mirror_percentage = out.mirror_percentage.or(root.mirror_percentage);
    out.cors_policy = out.cors_policy.or_else(|| root.cors_policy.clone());
    if out.mirrors.is_empty() {
        out.mirrors.clone_from(&root.mirrors);
    }
    if out.headers == Default::default() {
        out.headers.clone_from(&root.headers);
    }
    // What answers at once has no use for what concerns forwarding.
    if out.route.is_empty() {
        (out.rewrite, out.timeout, out.retries) = (None, None, None);
    }
    Some(out)
}

/// None: some condition of the delegate fits none of the root.
fn conditions(root: &[HttpMatch], delegate: &[HttpMatch]) -> Option<Vec<HttpMatch>> {
    if root.is_empty() {
        return Some(delegate.to_vec());
    }
    if delegate.is_empty() {
        return Some(root.to_vec());
    }
    let mut out = Vec::new();
    for leaf in delegate {
        let fitting = root.iter().filter(|root| !conflict(root, leaf)).map(|root| joined(root, leaf));
        let before = out.len();
        out.extend(fitting);
        if out.len() == before {
            return None;
        }
    }
    Some(out)
}

fn joined(root: &HttpMatch, leaf: &HttpMatch) -> HttpMatch {
    let both = |root: &BTreeMap<String, StringMatch>, leaf: &BTreeMap<String, StringMatch>| {
        let mut all = root.clone();
        all.extend(leaf.iter().map(|(name, value)| (name.clone(), value.clone())));
        all
    };
    let mut out = leaf.clone();
    out.name = match (&root.name, &leaf.name) {
        (Some(root), Some(own)) => Some(format!("{root}-{own}")),
        (root, own) => own.clone().or_else(|| root.clone()),
    };
    out.uri = out.uri.or_else(|| root.uri.clone());
    out.scheme = out.scheme.or_else(|| root.scheme.clone());
    out.method = out.method.or_else(|| root.method.clone());
    out.authority = out.authority.or_else(|| root.authority.clone());
    out.headers = both(&root.headers, &leaf.headers);
    out.without_headers = both(&root.without_headers, &leaf.without_headers);
    out.query_params = both(&root.query_params, &leaf.query_params);
    out.port = out.port.or(root.port);
    // Sources are the root's to say.
    out.source_labels.clone_from(&root.source_labels);
    out.source_namespace.clone_from(&root.source_namespace);
    out.gateways.clone_from(&root.gateways);
    out.stat_prefix = out.stat_prefix.or_else(|| root.stat_prefix.clone());
    out
}

fn conflict(root: &HttpMatch, leaf: &HttpMatch) -> bool {
    let texts = [
        (&root.uri, &leaf.uri),
        (&root.scheme, &leaf.scheme),
        (&root.method, &leaf.method),
        (&root.authority, &leaf.authority),
    ];
    let maps = [(&root.headers, &leaf.headers), (&root.query_params, &leaf.query_params)];
    // What is narrower turns into what is wider when it is excluded: only the same twice is no conflict.
    let mut excluded = leaf.without_headers.iter();
    texts.into_iter().any(|(root, leaf)| wider(root.as_ref(), leaf.as_ref()))
        || maps.into_iter().any(|(root, leaf)| leaf.iter().any(|(name, value)| wider(root.get(name), Some(value))))
        || excluded.any(|(name, value)| root.without_headers.get(name).is_some_and(|root| root != value))
        || root.ignore_uri_case != leaf.ignore_uri_case
        || root.port.zip(leaf.port).is_some_and(|(root, leaf)| root != leaf)
}

/// Whether the leaf would match what the root does not. Of regular expressions nobody can tell, unless they are equal.
fn wider(root: Option<&StringMatch>, leaf: Option<&StringMatch>) -> bool {
    let (Some(root), Some(leaf)) = (root, leaf) else { return false };
    match (root, leaf) {
        (StringMatch::Regex(RegexText(a)), StringMatch::Regex(RegexText(b))) => a != b,
        (StringMatch::Present, _) => false,
        (StringMatch::Exact(a), StringMatch::Exact(b)) => a != b,
        (StringMatch::Prefix(a), StringMatch::Exact(b) | StringMatch::Prefix(b)) => !b.starts_with(a.as_str()),
        _ => true,
    }
}

//! The rate limits that a request meets where it arrives.

use std::{collections::BTreeSet, net::SocketAddr};

use super::{Kind, Request, report::Target};
use crate::model::{Address, LimitKey, LimitMatch, LimitMode, Object, RateLimit, Scope, StringMatch, World};

/// Of all endpoints that may take it, each limit once.
pub(super) fn met(world: &World, request: &Request, http: bool, targets: &[Target]) -> Vec<String> {
    let addresses = targets.iter().flat_map(|target| &target.endpoints);
    let addresses: Vec<SocketAddr> = addresses.filter_map(|endpoint| endpoint.address.parse().ok()).collect();
    let mut found = BTreeSet::new();
    for at in addresses {
        let here = |address: &Address| address.ip() == Some(at.ip());
        for workload in world.workloads.iter().filter(|w| w.meshed && w.addresses.iter().any(here)) {
            let limits = world.rate_limits(&workload.namespace, &workload.labels);
            let port = |object: &&Object<RateLimit>| object.spec.matching.port.is_none_or(|port| port == at.port());
            let concerned = limits.filter(port).filter(|object| match http && request.kind == Kind::Http {
                true => takes(&object.spec.matching, request),
                false => object.spec.counts_connections(),
            });
            found.extend(concerned.map(described));
        }
    }
    found.into_iter().collect()
}

fn takes(wanted: &LimitMatch, request: &Request) -> bool {
    let path = request.path.split('?').next().unwrap_or_default();
    let header = |(name, condition): (&String, &StringMatch)| {
        let value = match name.as_str() {
            ":authority" => Some(request.authority()),
            name => request.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned),
        };
        value.is_some_and(|value| holds(condition, &value))
    };
    (wanted.methods.is_empty() || wanted.methods.iter().any(|method| method == request.method.as_str()))
        && wanted.path.as_ref().is_none_or(|condition| holds(condition, path))
        && wanted.headers.iter().all(header)
}

fn holds(condition: &StringMatch, text: &str) -> bool {
    match condition {
        StringMatch::Exact(wanted) => text == wanted,
        StringMatch::Prefix(wanted) => text.starts_with(wanted.as_str()),
        StringMatch::Regex(pattern) => {
            regex::Regex::new(&format!("^(?:{})$", pattern.0)).is_ok_and(|pattern| pattern.is_match(text))
        }
        StringMatch::Present => true,
    }
}

fn described(object: &Object<RateLimit>) -> String {
    let Object { meta, source, spec } = object;
    let file = source.file.file_name().unwrap_or_default().to_string_lossy();
    let rate = &spec.rate;
    let mut text = format!(
        "RateLimit {}/{} ({file} document {}): {} per {}",
        meta.namespace,
        meta.name,
        source.document,
        rate.requests,
        rate.unit.as_str()
    );
    if rate.capacity() != rate.requests {
        text += &format!(", {} at once", rate.capacity());
    }
    if !spec.key.is_empty() {
        let keys: Vec<_> = spec.key.iter().map(LimitKey::name).collect();
        text += &format!(", for each {}", keys.join(" and "));
    }
    text += match spec.scope {
        Scope::Local => ", of each instance",
        Scope::Global => ", of all instances together",
    };
    if spec.mode == LimitMode::DryRun {
        text += ", only counted";
    }
    text
}

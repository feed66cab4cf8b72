//! From matches and keys to rate limit actions, and to the descriptors that come of them.

use super::super::{
    matches,
    pb::{self, route, types},
};
use super::name;
use crate::{
    model::{LimitKey, LimitMatch, Object, RateLimit, StringMatch},
    ratelimit::{rate::Rate, rules::OBJECT},
};
use outrigger_wire::pb::envoy::extensions::common::ratelimit::v3::{
    LocalRateLimitDescriptor, rate_limit_descriptor::Entry,
};
use route::{
    header_matcher::HeaderMatchSpecifier,
    rate_limit::{
        Action,
        action::{ActionSpecifier, GenericKey, HeaderValueMatch, RemoteAddress, RequestHeaders},
    },
};

/// Where the identity of the caller stands for the filters behind.
pub(super) const IDENTITY: &str = "x-outrigger-limit-identity";
/// Where the path without the query stands.
pub(super) const PATH: &str = "x-outrigger-limit-path";
/// Where the address of the connection stands.
pub(super) const ADDRESS: &str = "x-outrigger-limit-address";

/// The header that a part of a key is taken from, if it is one of ours.
pub(super) fn own_header(key: &LimitKey) -> Option<&'static str> {
    match key {
        LimitKey::SourceIdentity => Some(IDENTITY),
        LimitKey::Path => Some(PATH),
        LimitKey::RemoteAddress { forwarded: false } => Some(ADDRESS),
        LimitKey::RemoteAddress { forwarded: true } | LimitKey::Header(_) => None,
    }
}

/// How a request becomes a descriptor: none, unless it matches.
pub(super) fn rule(object: &Object<RateLimit>) -> route::RateLimit {
    let mut actions = vec![first(object)];
    actions.extend(object.spec.key.iter().map(part));
    let actions = actions.into_iter().map(|action| Action { action_specifier: Some(action) }).collect();
    route::RateLimit { actions, ..Default::default() }
}

fn first(object: &Object<RateLimit>) -> ActionSpecifier {
    let matching = &object.spec.matching;
    let (descriptor_key, descriptor_value) = (OBJECT.to_owned(), name(object));
    if !matching.is_http() {
        return ActionSpecifier::GenericKey(GenericKey { descriptor_key, descriptor_value, ..Default::default() });
    }
    ActionSpecifier::HeaderValueMatch(HeaderValueMatch {
        descriptor_key,
        descriptor_value,
        headers: conditions(matching),
        ..Default::default()
    })
}

fn conditions(matching: &LimitMatch) -> Vec<route::HeaderMatcher> {
    let mut conditions = Vec::new();
    match matching.methods.as_slice() {
        [] => {}
        [only] => conditions.push(by(":method", HeaderMatchSpecifier::StringMatch(pb::exact(only)))),
        several => conditions.push(by(":method", expression(&several.join("|")))),
    }
    match &matching.path {
        None | Some(StringMatch::Present) => {}
        Some(StringMatch::Prefix(prefix)) => {
            conditions.push(by(":path", HeaderMatchSpecifier::StringMatch(pb::prefix(prefix))));
        }
        // The header has the query, which is no part of the path.
        Some(StringMatch::Exact(path)) => {
            conditions.push(by(":path", expression(&format!(r"{}(\?.*)?", regex::escape(path)))));
        }
        Some(StringMatch::Regex(path)) => conditions.push(by(":path", expression(&format!(r"(?:{})(\?.*)?", path.0)))),
    }
    conditions.extend(matching.headers.iter().map(|(name, value)| matches::header(name, value)));
    conditions
}

fn by(name: &str, specifier: HeaderMatchSpecifier) -> route::HeaderMatcher {
    route::HeaderMatcher { name: name.to_owned(), header_match_specifier: Some(specifier), ..Default::default() }
}

fn expression(text: &str) -> HeaderMatchSpecifier {
    let pattern = pb::matcher::string_matcher::MatchPattern::SafeRegex(pb::regex(text));
    HeaderMatchSpecifier::StringMatch(pb::string(pattern))
}

fn part(key: &LimitKey) -> ActionSpecifier {
    let header = |name: &str, skip_if_absent| {
        ActionSpecifier::RequestHeaders(RequestHeaders {
            header_name: name.to_owned(),
            descriptor_key: key.name(),
            skip_if_absent,
        })
    };
    match (own_header(key), key) {
        (Some(name), _) => header(name, false),
        // Without it the other parts still count: leaving a header out is no way around a limit.
        (None, LimitKey::Header(name)) => header(name, true),
        (None, _) => ActionSpecifier::RemoteAddress(RemoteAddress {}),
    }
}

/// The bucket of a rate.
pub(super) fn bucket(rate: &Rate) -> types::TokenBucket {
    types::TokenBucket {
        max_tokens: rate.burst,
        tokens_per_fill: pb::number(rate.requests),
        fill_interval: pb::duration(std::time::Duration::from_secs(rate.unit.seconds())),
    }
}

/// Every form that a descriptor of `object` may have, each value of its key with a bucket of its own.
pub(super) fn buckets(object: &Object<RateLimit>) -> Vec<LocalRateLimitDescriptor> {
    let entry = |key: String, value: String| Entry { key, value };
    let mut forms = vec![vec![entry(OBJECT.to_owned(), name(object))]];
    for key in &object.spec.key {
        let without = matches!(key, LimitKey::Header(_)).then(|| forms.clone());
        forms.iter_mut().for_each(|form| form.push(entry(key.name(), String::new())));
        forms.extend(without.into_iter().flatten());
    }
    let descriptor = |entries| LocalRateLimitDescriptor {
        entries,
        token_bucket: Some(bucket(&object.spec.rate)),
        ..Default::default()
    };
    forms.into_iter().map(descriptor).collect()
}

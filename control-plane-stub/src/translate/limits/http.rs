//! The HTTP filters of limits.

use super::{
    super::{
        filters::http_filter,
        pb::{self, any, core, hcm, types},
    },
    descriptors::{self, ADDRESS, IDENTITY, PATH},
    filter_name,
    global::Group,
};
use crate::{
    model::{LimitMode, LimitResponse, Object, RateLimit},
    resources::ClientKind,
};
use outrigger_wire::pb::envoy::{
    config::common::mutation_rules::v3::{HeaderMutation as Mutation, header_mutation::Action},
    extensions::{
        common::ratelimit::v3::XRateLimitHeadersRfcVersion,
        filters::http::{
            header_mutation::v3::{HeaderMutation, Mutations},
            local_ratelimit::v3::LocalRateLimit,
            ratelimit::v3::{RateLimit as GlobalRateLimit, rate_limit},
        },
    },
};

/// The name under which callers without an identity are counted.
const NOBODY: &str = "none";
/// More of a path tells nothing apart.
const PATH_LENGTH: usize = 512;

/// Our own headers that keys are taken from.
pub(super) fn headers(objects: &[&Object<RateLimit>]) -> Vec<String> {
    let keys = || objects.iter().flat_map(|object| &object.spec.key).filter_map(descriptors::own_header);
    let needed = |header: &&str| keys().any(|key| key == *header);
    [IDENTITY, PATH, ADDRESS].into_iter().filter(needed).map(str::to_owned).collect()
}

/// Writes those headers, whatever they held.
pub(super) fn sources(objects: &[&Object<RateLimit>], mutual_tls: bool) -> Option<hcm::HttpFilter> {
    let mutations: Vec<_> = headers(objects)
        .into_iter()
        .flat_map(|name| {
            let value = match name.as_str() {
                IDENTITY if mutual_tls => "%DOWNSTREAM_PEER_URI_SAN%".to_owned(),
                IDENTITY => NOBODY.to_owned(),
                PATH => format!("%PATH(NQ:PATH):{PATH_LENGTH}%"),
                _ => "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%".to_owned(),
            };
            let set = core::HeaderValueOption {
                header: Some(core::HeaderValue { key: name.clone(), value, ..Default::default() }),
                append_action: core::header_value_option::HeaderAppendAction::OverwriteIfExistsOrAdd as i32,
                ..Default::default()
            };
            // Removed first: to overwrite replaces one of several, and an empty value is not written at all.
            [Action::Remove(name), Action::Append(set)]
        })
        .map(|action| Mutation { action: Some(action) })
        .collect();
    let config = HeaderMutation {
        mutations: Some(Mutations { request_mutations: mutations, ..Default::default() }),
        ..Default::default()
    };
    let needed = config.mutations.as_ref().is_some_and(|m| !m.request_mutations.is_empty());
    needed.then(|| http_filter("outrigger.ratelimit.keys", any(config)))
}

/// A limit of the proxy's own.
pub(super) fn local(object: &Object<RateLimit>) -> hcm::HttpFilter {
    let (spec, name) = (&object.spec, filter_name(object));
    let mut config = bucketed(name.clone(), &spec.response);
    config.filter_enforced = share(spec.mode == LimitMode::Enforce);
    if spec.key.is_empty() && !spec.matching.is_http() {
        config.token_bucket = Some(descriptors::bucket(&spec.rate));
    } else {
        config.rate_limits = vec![descriptors::rule(object)];
        config.descriptors = descriptors::buckets(object);
        config.max_dynamic_descriptors = pb::number(spec.max_keys);
    }
    http_filter(&name, any(config))
}

/// Without limits but those of descriptors: what has none takes from a bucket that is never empty.
fn bucketed(stat_prefix: String, response: &LimitResponse) -> LocalRateLimit {
    let (headers, retry_after) = (response.headers, response.retry_after);
    LocalRateLimit {
        stat_prefix,
        status: Some(types::HttpStatus { code: response.status.into() }),
        token_bucket: Some(types::TokenBucket {
            max_tokens: u32::MAX,
            tokens_per_fill: pb::number(u32::MAX),
            fill_interval: pb::duration(std::time::Duration::from_secs(1)),
        }),
        filter_enabled: share(true),
        filter_enforced: share(true),
        always_consume_default_token_bucket: pb::no(),
        rate_limited_as_resource_exhausted: true,
        enable_x_ratelimit_headers: match headers {
            true => XRateLimitHeadersRfcVersion::DraftVersion03 as i32,
            false => XRateLimitHeadersRfcVersion::Off as i32,
        },
        enable_retry_after_header: retry_after,
        ..Default::default()
    }
}

/// All or nothing.
fn share(all: bool) -> Option<core::RuntimeFractionalPercent> {
    let numerator = if all { 100 } else { 0 };
    let denominator = types::fractional_percent::DenominatorType::Hundred as i32;
    Some(core::RuntimeFractionalPercent {
        default_value: Some(types::FractionalPercent { numerator, denominator }),
        ..Default::default()
    })
}

/// Limits that the service counts.
pub(super) fn global(group: &Group<'_>) -> hcm::HttpFilter {
    let (first, name) = (group.first(), group.name());
    let config = GlobalRateLimit {
        domain: group.domain(),
        timeout: group.timeout(),
        failure_mode_deny: group.denies_on_failure(),
        rate_limited_as_resource_exhausted: true,
        rate_limit_service: Some(group.service()),
        enable_x_ratelimit_headers: match first.response.headers {
            true => rate_limit::XRateLimitHeadersRfcVersion::DraftVersion03 as i32,
            false => rate_limit::XRateLimitHeadersRfcVersion::Off as i32,
        },
        enable_retry_after_header: first.response.retry_after,
        rate_limited_status: Some(types::HttpStatus { code: first.response.status.into() }),
        filter_enabled: share(true),
        filter_enforced: share(first.mode == LimitMode::Enforce),
        stat_prefix: name.clone(),
        rate_limits: group.objects.iter().map(|object| descriptors::rule(object)).collect(),
        ..Default::default()
    };
    http_filter(&name, any(config))
}

/// What our own proxy does while the service is away. Envoy would know the filter, but nothing that switches it on.
pub(super) fn fallback(group: &Group<'_>, kind: ClientKind) -> Option<hcm::HttpFilter> {
    if kind != ClientKind::Outrigger || !group.has_fallback() {
        return None;
    }
    let name = format!("{}.fallback", group.name());
    let mut config = bucketed(name.clone(), &group.first().response);
    config.descriptors = group.objects.iter().flat_map(|object| descriptors::buckets(object)).collect();
    config.max_dynamic_descriptors = pb::number(group.objects.iter().map(|o| o.spec.max_keys).max().unwrap_or(1));
    Some(hcm::HttpFilter { disabled: true, ..http_filter(&name, any(config)) })
}

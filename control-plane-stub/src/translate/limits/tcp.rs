//! The network filters of limits: connections per time.

use super::{
    super::{filters::network, pb::any},
    descriptors, filter_name,
    global::Group,
    name,
};
use crate::{
    model::{LimitMode, Object, RateLimit},
    ratelimit::rules::OBJECT,
};
use outrigger_wire::pb::envoy::{
    config::listener::v3::Filter,
    extensions::{
        common::ratelimit::v3::{RateLimitDescriptor, rate_limit_descriptor::Entry},
        filters::network::{local_ratelimit::v3::LocalRateLimit, ratelimit::v3::RateLimit as GlobalRateLimit},
    },
};

/// A limit of the proxy's own, one bucket for all chains.
pub(super) fn local(object: &Object<RateLimit>) -> Filter {
    let config = LocalRateLimit {
        stat_prefix: filter_name(object),
        token_bucket: Some(descriptors::bucket(&object.spec.rate)),
        share_key: name(object),
        ..Default::default()
    };
    network(&filter_name(object), any(config))
}

/// Limits that the service counts. This filter cannot only count: what the service answers is done, so that a dry run
/// is for a service that knows of it.
pub(super) fn global(group: &Group<'_>) -> Option<Filter> {
    let first = group.first();
    if first.mode == LimitMode::DryRun && first.global.service.is_some() {
        return None;
    }
    let descriptor =
        |object: &&Object<RateLimit>| {
            let mut entries = vec![Entry { key: OBJECT.to_owned(), value: name(object) }];
            entries.extend(object.spec.key.iter().map(|key| Entry {
                key: key.name(),
                value: "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%".to_owned(),
            }));
            RateLimitDescriptor { entries, ..Default::default() }
        };
    let config = GlobalRateLimit {
        stat_prefix: group.name(),
        domain: group.domain(),
        descriptors: group.objects.iter().map(descriptor).collect(),
        timeout: group.timeout(),
        failure_mode_deny: group.denies_on_failure(),
        rate_limit_service: Some(group.service()),
    };
    Some(network(&group.name(), any(config)))
}

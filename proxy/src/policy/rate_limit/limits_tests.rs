use std::{sync::Arc, time::Duration};

use http::StatusCode;

use super::limits::RouteLimits;
use crate::ir::{
    Fraction,
    filters::{Override, Overrides, Setting},
    rate_limit::{LocalRateLimit, TokenBucket, VirtualHostLimits},
    route::RouteConfiguration,
};

pub(super) fn limit(place: &str, max_tokens: u32) -> Arc<LocalRateLimit> {
    let all = Fraction { numerator: 100, denominator: 100 };
    Arc::new(LocalRateLimit {
        place: place.into(),
        stat_prefix: "p".into(),
        status: StatusCode::TOO_MANY_REQUESTS,
        bucket: Some(TokenBucket { max_tokens, tokens_per_fill: 1, fill_interval: Duration::from_secs(60) }),
        enabled: all,
        enforced: all,
        request_headers: Vec::new(),
        response_headers: Vec::new(),
        descriptors: Vec::new(),
        stage: 0,
        per_connection: false,
        shared: false,
        headers: false,
        virtual_host: VirtualHostLimits::Override,
        always_default: true,
        resource_exhausted: false,
        rules: Vec::new(),
        max_dynamic: 20,
        retry_after: false,
    })
}

fn routes(limits: &[&Arc<LocalRateLimit>]) -> RouteConfiguration {
    let one = |(i, limit): (usize, &&Arc<LocalRateLimit>)| Override {
        filter: format!("f{i}").into(),
        setting: Setting::LocalRateLimit((*limit).clone()),
    };
    let overrides = Overrides { filters: limits.iter().enumerate().map(one).collect(), ..Overrides::default() };
    RouteConfiguration { overrides: Some(Arc::new(overrides)), ..RouteConfiguration::default() }
}

#[test]
fn buckets_outlive_updates_that_leave_their_limit_as_it_is() {
    let table = |config: &RouteConfiguration, before: Option<&RouteLimits>| {
        RouteLimits::new(config, before, &|_| Arc::default())
    };
    let (a, b) = (limit("a", 1), limit("b", 1));
    let first = table(&routes(&[&a, &b]), None);
    let admits = |limits: &RouteLimits, of: &Arc<LocalRateLimit>| {
        limits.get(of).expect("it is in the table").limiter.decide(0.0, &[], 1).allowed
    };
    assert!(admits(&first, &a) && !admits(&first, &a), "one token");
    // The same limit at the same place, another one at another.
    let (same, changed) = (limit("a", 1), limit("b", 2));
    let second = table(&routes(&[&changed, &same]), Some(&first));
    assert!(!admits(&second, &same), "what was taken stays taken");
    assert!(admits(&second, &changed) && admits(&second, &changed), "a full one");
    assert!(second.get(&a).is_none() && second.get(&limit("a", 1)).is_none(), "not of this table");
}

//! Which endpoint of a cluster takes a request: balancer, consistent hashing, slow start, localities.

use super::pb::{self, cluster, core, route, types};
use crate::model::{Balance, ConsistentHash, LoadBalancer, TrafficPolicy};
use cluster::cluster::{
    CommonLbConfig, LbConfig, LbPolicy, LeastRequestLbConfig, MaglevLbConfig, RingHashLbConfig, RoundRobinLbConfig,
    SlowStartConfig,
    common_lb_config::{LocalityConfigSpecifier, LocalityWeightedLbConfig},
};
use route::route_action::{HashPolicy, hash_policy};

/// Envoy's own default, which Istio sends too.
const RING_SIZE: u64 = 1024;

/// Whether the client's choice of address counts instead of a balancer.
pub(super) fn passes_through(policy: &TrafficPolicy) -> bool {
    let balancer = policy.load_balancer.as_ref();
    balancer.is_some_and(|b| b.simple == Some(Balance::Passthrough) && b.consistent_hash.is_none())
}

/// The consistent hash that holds, if one does.
pub(super) fn hash(policy: &TrafficPolicy) -> Option<&ConsistentHash> {
    policy.load_balancer.as_ref()?.consistent_hash.as_ref()
}

pub(super) fn apply(cluster: &mut cluster::Cluster, balancer: Option<&LoadBalancer>) {
    let (policy, config) = match balancer.and_then(|b| b.consistent_hash.as_ref()) {
        Some(hash) => hashed(hash),
        None => simple(balancer),
    };
    cluster.lb_policy = policy as i32;
    cluster.lb_config = config;
}

fn simple(balancer: Option<&LoadBalancer>) -> (LbPolicy, Option<LbConfig>) {
    let slow_start_config = balancer.and_then(slow_start);
    let gradual = slow_start_config.is_some();
    match balancer.and_then(|b| b.simple).unwrap_or(Balance::LeastRequest) {
        Balance::LeastRequest => {
            let config = LeastRequestLbConfig { slow_start_config, ..Default::default() };
            (LbPolicy::LeastRequest, gradual.then_some(LbConfig::LeastRequestLbConfig(config)))
        }
        Balance::RoundRobin => {
            let config = RoundRobinLbConfig { slow_start_config };
            (LbPolicy::RoundRobin, gradual.then_some(LbConfig::RoundRobinLbConfig(config)))
        }
        Balance::Random => (LbPolicy::Random, None),
        Balance::Passthrough => (LbPolicy::ClusterProvided, None),
    }
}

fn slow_start(balancer: &LoadBalancer) -> Option<SlowStartConfig> {
    let window = |duration: crate::model::HumanDuration| pb::duration(duration.0);
    let Some(warmup) = &balancer.warmup else {
        let slow_start_window = window(balancer.warmup_duration_secs?);
        return Some(SlowStartConfig { slow_start_window, ..Default::default() });
    };
    let aggression = |default_value| core::RuntimeDouble {
        default_value,
        // Envoy demands a key, although nobody sets it.
        runtime_key: "outrigger.slow_start.aggression".to_owned(),
    };
    Some(SlowStartConfig {
        slow_start_window: window(warmup.duration?),
        aggression: warmup.aggression.map(aggression),
        min_weight_percent: warmup.minimum_percent.map(|value| types::Percent { value }),
    })
}

fn hashed(hash: &ConsistentHash) -> (LbPolicy, Option<LbConfig>) {
    let size = |value| Some(pb::UInt64Value { value });
    if let Some(maglev) = hash.maglev {
        let config = maglev.table_size.map(|n| LbConfig::MaglevLbConfig(MaglevLbConfig { table_size: size(n) }));
        return (LbPolicy::Maglev, config);
    }
    let minimum = hash.ring_hash.map_or(hash.minimum_ring_size, |ring| ring.minimum_ring_size);
    let config = RingHashLbConfig { minimum_ring_size: size(minimum.unwrap_or(RING_SIZE)), ..Default::default() };
    (LbPolicy::RingHash, Some(LbConfig::RingHashLbConfig(config)))
}

/// What of a request a route hashes.
pub(super) fn hash_policy(hash: &ConsistentHash) -> Option<HashPolicy> {
    use hash_policy::{ConnectionProperties, Cookie, Header, PolicySpecifier, QueryParameter};
    let specifier = if let Some(name) = &hash.http_header_name {
        PolicySpecifier::Header(Header { header_name: name.clone(), ..Default::default() })
    } else if let Some(cookie) = &hash.http_cookie {
        PolicySpecifier::Cookie(Cookie {
            name: cookie.name.clone(),
            ttl: cookie.ttl.and_then(|ttl| pb::duration(ttl.0)),
            path: cookie.path.clone(),
            ..Default::default()
        })
    } else if hash.use_source_ip {
        PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true })
    } else {
        PolicySpecifier::QueryParameter(QueryParameter { name: hash.http_query_parameter_name.clone()? })
    };
    Some(HashPolicy { terminal: false, policy_specifier: Some(specifier) })
}

/// What concerns all endpoints: when to panic, and whether localities have weights of their own.
pub(super) fn common(policy: &TrafficPolicy) -> CommonLbConfig {
    let setting = policy.load_balancer.as_ref().and_then(|b| b.locality_lb_setting.as_ref());
    let setting = setting.filter(|setting| setting.enabled != Some(false));
    let ejects = policy.outlier_detection.is_some();
    // Istio's rule: only an explicit setting gives localities a weight, or least request would be of little use.
    let weighted = setting.is_some_and(|s| {
        !s.distribute.is_empty() || ejects && !(s.failover.is_empty() && s.failover_priority.is_empty())
    });
    // Istio's default: no panic mode, unhealthy endpoints stay out. It needs a percentage only with ejection.
    let healthy = policy.outlier_detection.as_ref().and_then(|o| o.min_health_percent).unwrap_or(0);
    CommonLbConfig {
        healthy_panic_threshold: Some(types::Percent { value: healthy.into() }),
        locality_config_specifier: weighted
            .then_some(LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig {})),
        ..Default::default()
    }
}

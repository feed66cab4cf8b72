//! Load balancing of a cluster: the policy, and what is common to all.

use outrigger_wire::pb::envoy::config::cluster::v3::{
    Cluster as Pb,
    cluster::{
        CommonLbConfig, LbConfig, LbPolicy as PbPolicy, LeastRequestLbConfig, MaglevLbConfig, RingHashLbConfig,
        RoundRobinLbConfig,
        common_lb_config::{ConsistentHashingLbConfig, LocalityConfigSpecifier, ZoneAwareLbConfig},
        ring_hash_lb_config::HashFunction,
    },
};

use super::{
    at::At,
    fields::fields,
    lb_options::{self, Localities, least_request, table_size, zone_aware},
    lb_policy, lb_subset,
    report::Reject,
    scalar::{enumeration, percent},
};
use crate::ir::{
    balancing::{HashKeys, LbOptions, LeastRequest, Maglev, PeakEwma, RingHash},
    cluster::LbPolicy,
};

/// The policy and whether localities are chosen by weight.
pub(crate) struct Balancing {
    pub policy: LbPolicy,
    pub options: LbOptions,
    pub locality_weighted: bool,
    pub panic_threshold: u8,
}

/// Metadata of a cluster that makes least request take latencies into account: `latency_aware: true`.
const NAMESPACE: &str = "outrigger.load_balancing";

pub(crate) fn balancing(message: &Pb, at: &At<'_>) -> Result<Balancing, Reject> {
    let common = common(&message.common_lb_config, at)?;
    let policy: PbPolicy = enumeration(message.lb_policy, &at.field("lb_policy"))?;
    let subsets = lb_subset::legacy(&message.lb_subset_config, at)?;
    if let Some(m) = &message.load_balancing_policy {
        // It overrides `lb_policy`, as in Envoy.
        if subsets.is_some() {
            return Err(at.field("lb_subset_config").reject("excludes load_balancing_policy"));
        }
        let mut found = lb_policy::extensions(m, &at.field("load_balancing_policy"), 0)?;
        found.localities = found.localities.or(common.localities);
        return Ok(finish(message, found, common.panic_threshold));
    }
    let mut options = LbOptions { subsets, ..LbOptions::default() };
    let policy = match policy {
        PbPolicy::RoundRobin => {
            if let Some(LbConfig::RoundRobinLbConfig(m)) = &message.lb_config {
                let at = at.field("round_robin_lb_config");
                fields!(&at, m => RoundRobinLbConfig { read: [slow_start_config] });
                options.slow_start = lb_options::legacy_slow_start(&m.slow_start_config, &at)?;
            }
            LbPolicy::RoundRobin
        }
        PbPolicy::Random => LbPolicy::Random,
        PbPolicy::ClusterProvided => LbPolicy::ClusterProvided,
        PbPolicy::LeastRequest => match &message.lb_config {
            Some(LbConfig::LeastRequestLbConfig(m)) => {
                let at = at.field("least_request_lb_config");
                fields!(&at, m => LeastRequestLbConfig {
                    read: [choice_count, active_request_bias, slow_start_config],
                });
                options.slow_start = lb_options::legacy_slow_start(&m.slow_start_config, &at)?;
                LbPolicy::LeastRequest(least_request(&m.choice_count, &m.active_request_bias, false, &at)?)
            }
            _ => LbPolicy::LeastRequest(LeastRequest::default()),
        },
        PbPolicy::RingHash => LbPolicy::RingHash(ring_hash(message, common.keys, at)?),
        PbPolicy::Maglev => {
            let mut maglev = Maglev { keys: common.keys, ..Maglev::default() };
            if let Some(LbConfig::MaglevLbConfig(m)) = &message.lb_config {
                let at = at.field("maglev_lb_config");
                fields!(&at, m => MaglevLbConfig { read: [table_size] });
                maglev.table_size = table_size(&m.table_size, &at)?;
            }
            LbPolicy::Maglev(maglev)
        }
        PbPolicy::LoadBalancingPolicyConfig => {
            return Err(at.field("load_balancing_policy").reject("is required by LOAD_BALANCING_POLICY_CONFIG"));
        }
    };
    let unread = match (&message.lb_config, policy) {
        (Some(LbConfig::RoundRobinLbConfig(_)), LbPolicy::RoundRobin)
        | (Some(LbConfig::LeastRequestLbConfig(_)), LbPolicy::LeastRequest(_))
        | (Some(LbConfig::RingHashLbConfig(_)), LbPolicy::RingHash(_))
        | (Some(LbConfig::MaglevLbConfig(_)), LbPolicy::Maglev(_))
        | (Some(LbConfig::OriginalDstLbConfig(_)) | None, _) => false,
        (Some(_), _) => true,
    };
    if unread {
        at.field("lb_config").harmless("belongs to another lb_policy than the cluster's");
    }
    let found = lb_policy::Found { policy, options, localities: common.localities };
    Ok(finish(message, found, common.panic_threshold))
}

/// Puts together what depends on each other.
fn finish(message: &Pb, found: lb_policy::Found, panic_threshold: u8) -> Balancing {
    let lb_policy::Found { mut policy, mut options, localities } = found;
    let asked = message.metadata.as_ref().and_then(|m| m.filter_metadata.get(NAMESPACE));
    let latency_aware =
        asked.map(super::metadata::object).is_some_and(|m| m.get("latency_aware") == Some(&true.into()));
    if let LbPolicy::LeastRequest(config) = policy
        && latency_aware
    {
        policy = LbPolicy::PeakEwma(PeakEwma { choices: config.choices, ..PeakEwma::default() });
    }
    let zones = match localities {
        Localities::Unsaid => Some(Default::default()),
        Localities::Zones(zones) => Some(zones),
        Localities::Weighted => None,
    };
    // Consistent hashing and clusters that choose for themselves know no zones.
    options.zone_aware = zones.filter(|_| !policy.is_hashed() && policy != LbPolicy::ClusterProvided);
    let locality_weighted = matches!(localities, Localities::Weighted) && policy != LbPolicy::ClusterProvided;
    Balancing { policy, options, locality_weighted, panic_threshold }
}

fn ring_hash(message: &Pb, keys: HashKeys, at: &At<'_>) -> Result<RingHash, Reject> {
    let default = RingHash { keys, ..RingHash::default() };
    let Some(LbConfig::RingHashLbConfig(m)) = &message.lb_config else { return Ok(default) };
    let at = at.field("ring_hash_lb_config");
    fields!(&at, m => RingHashLbConfig { read: [minimum_ring_size, hash_function, maximum_ring_size] });
    let (min_size, max_size) = lb_options::ring_sizes((&m.minimum_ring_size, &m.maximum_ring_size), &at)?;
    let function: HashFunction = enumeration(m.hash_function, &at.field("hash_function"))?;
    Ok(RingHash { min_size, max_size, murmur: function == HashFunction::MurmurHash2, ..default })
}

struct Common {
    panic_threshold: u8,
    localities: Localities,
    keys: HashKeys,
}

/// What is common to all policies.
fn common(message: &Option<CommonLbConfig>, at: &At<'_>) -> Result<Common, Reject> {
    let mut common = Common { panic_threshold: 50, localities: Localities::Unsaid, keys: HashKeys::default() };
    let Some(m) = message else { return Ok(common) };
    let at = at.field("common_lb_config");
    fields!(&at, m => CommonLbConfig {
        read: [healthy_panic_threshold, locality_config_specifier, consistent_hashing_lb_config],
        harmless: [update_merge_window, override_host_status],
        unsupported: [ignore_new_hosts_until_first_hc, close_connections_on_host_set_change],
    });
    if let Some(p) = &m.healthy_panic_threshold {
        // The threshold is compared with whole percents in Envoy, too.
        common.panic_threshold = percent(p, &at.field("healthy_panic_threshold"))? as u8;
    }
    match &m.locality_config_specifier {
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => common.localities = Localities::Weighted,
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(m)) => {
            let at = at.field("zone_aware_lb_config");
            fields!(&at, m => ZoneAwareLbConfig { read: [routing_enabled, min_cluster_size, fail_traffic_on_panic] });
            let zones = zone_aware((&m.routing_enabled, &m.min_cluster_size), m.fail_traffic_on_panic, &at)?;
            common.localities = Localities::Zones(zones);
        }
        None => {}
    }
    if let Some(m) = &m.consistent_hashing_lb_config {
        let at = at.field("consistent_hashing_lb_config");
        fields!(&at, m => ConsistentHashingLbConfig { read: [use_hostname_for_hashing, hash_balance_factor] });
        common.keys = lb_options::hash_keys(m.use_hostname_for_hashing, &m.hash_balance_factor, &at)?;
    }
    Ok(common)
}

//! Load balancing of a cluster: the policy, and what is common to all.

use outrigger_wire::pb::envoy::{
    config::cluster::v3::{
        Cluster as Pb, LoadBalancingPolicy,
        cluster::{
            CommonLbConfig, LbConfig, LbPolicy as PbPolicy, LeastRequestLbConfig, RoundRobinLbConfig,
            common_lb_config::LocalityConfigSpecifier,
        },
    },
    extensions::load_balancing_policies::{
        cluster_provided::v3::ClusterProvided,
        common::v3::{LocalityLbConfig, locality_lb_config},
        least_request::v3::{LeastRequest, least_request::SelectionMethod},
        maglev::v3::Maglev,
        random::v3::Random,
        ring_hash::v3::RingHash,
        round_robin::v3::RoundRobin,
        wrr_locality::v3::WrrLocality,
    },
};

use super::{
    at::At,
    extension,
    fields::fields,
    report::Reject,
    scalar::{enumeration, percent, u32_in},
};
use crate::ir::cluster::LbPolicy;

const NEXT_RELEASE: &str = "consistent hashing is not supported by this release";

/// The policy and whether localities are chosen by weight.
pub(crate) struct Balancing {
    pub policy: LbPolicy,
    pub locality_weighted: bool,
    pub panic_threshold: u8,
}

pub(crate) fn balancing(message: &Pb, at: &At<'_>) -> Result<Balancing, Reject> {
    let (panic_threshold, mut locality_weighted) = common(&message.common_lb_config, at)?;
    let policy: PbPolicy = enumeration(message.lb_policy, &at.field("lb_policy"))?;
    if let Some(m) = &message.load_balancing_policy {
        // It overrides `lb_policy`, as in Envoy.
        let (policy, weighted) = extensions(m, &at.field("load_balancing_policy"), 0)?;
        return Ok(Balancing { policy, locality_weighted: weighted || locality_weighted, panic_threshold });
    }
    let policy = match policy {
        PbPolicy::RoundRobin => LbPolicy::RoundRobin,
        PbPolicy::Random => LbPolicy::Random,
        PbPolicy::ClusterProvided => LbPolicy::ClusterProvided,
        PbPolicy::LeastRequest => LbPolicy::LeastRequest { choices: choices(message, at)? },
        PbPolicy::RingHash => return Err(at.field("lb_policy").reject(format!("RING_HASH: {NEXT_RELEASE}"))),
        PbPolicy::Maglev => return Err(at.field("lb_policy").reject(format!("MAGLEV: {NEXT_RELEASE}"))),
        PbPolicy::LoadBalancingPolicyConfig => {
            return Err(at.field("load_balancing_policy").reject("is required by LOAD_BALANCING_POLICY_CONFIG"));
        }
    };
    if let Some(LbConfig::RoundRobinLbConfig(m)) = &message.lb_config {
        let at = at.field("round_robin_lb_config");
        fields!(&at, m => RoundRobinLbConfig { read: [], unsupported: [slow_start_config] });
    }
    locality_weighted &= policy != LbPolicy::ClusterProvided;
    Ok(Balancing { policy, locality_weighted, panic_threshold })
}

fn choices(message: &Pb, at: &At<'_>) -> Result<u32, Reject> {
    let Some(LbConfig::LeastRequestLbConfig(m)) = &message.lb_config else { return Ok(2) };
    let at = at.field("least_request_lb_config");
    fields!(&at, m => LeastRequestLbConfig {
        read: [choice_count],
        unsupported: [active_request_bias, slow_start_config],
    });
    u32_in(&m.choice_count, 2, 2..=u32::MAX, &at.field("choice_count"))
}

/// The first policy that is known wins, as in Envoy; `depth` bounds policies in policies.
fn extensions(message: &LoadBalancingPolicy, at: &At<'_>, depth: u32) -> Result<(LbPolicy, bool), Reject> {
    let mut seen = Vec::new();
    for (i, policy) in message.policies.iter().enumerate() {
        let at = at.index("policies", i);
        let at = at.field("typed_extension_config");
        let config = policy.typed_extension_config.as_ref();
        let any = config.and_then(|c| c.typed_config.as_ref()).ok_or_else(|| at.reject("is required"))?;
        let extension = extension::open(any, &at)?;
        if extension.is::<RoundRobin>() {
            let m: RoundRobin = extension.message(&at)?;
            fields!(&at, &m => RoundRobin { read: [locality_lb_config], unsupported: [slow_start_config] });
            return Ok((LbPolicy::RoundRobin, locality(&m.locality_lb_config, &at)));
        }
        if extension.is::<Random>() {
            let m: Random = extension.message(&at)?;
            return Ok((LbPolicy::Random, locality(&m.locality_lb_config, &at)));
        }
        if extension.is::<LeastRequest>() {
            let m: LeastRequest = extension.message(&at)?;
            fields!(&at, &m => LeastRequest {
                read: [choice_count, locality_lb_config, selection_method],
                unsupported: [active_request_bias, slow_start_config, enable_full_scan],
            });
            let method: SelectionMethod = enumeration(m.selection_method, &at.field("selection_method"))?;
            if method == SelectionMethod::FullScan {
                at.field("selection_method").unsupported("FULL_SCAN is not supported: N_CHOICES is used");
            }
            let choices = u32_in(&m.choice_count, 2, 2..=u32::MAX, &at.field("choice_count"))?;
            return Ok((LbPolicy::LeastRequest { choices }, locality(&m.locality_lb_config, &at)));
        }
        if extension.is::<ClusterProvided>() {
            return Ok((LbPolicy::ClusterProvided, false));
        }
        if extension.is::<WrrLocality>() && depth == 0 {
            let m: WrrLocality = extension.message(&at)?;
            let inner = at.required("endpoint_picking_policy", &m.endpoint_picking_policy)?;
            let (policy, _) = extensions(inner, &at.field("endpoint_picking_policy"), depth + 1)?;
            return Ok((policy, true));
        }
        if extension.is::<RingHash>() || extension.is::<Maglev>() {
            return Err(at.reject(format!("{}: {NEXT_RELEASE}", extension.kind)));
        }
        seen.push(extension.kind.into_owned());
    }
    Err(at.field("policies").reject(format!("none of the policies is supported by this release: {}", seen.join(", "))))
}

fn locality(message: &Option<LocalityLbConfig>, at: &At<'_>) -> bool {
    match message.as_ref().and_then(|m| m.locality_config_specifier.as_ref()) {
        Some(locality_lb_config::LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => true,
        Some(locality_lb_config::LocalityConfigSpecifier::ZoneAwareLbConfig(_)) => {
            at.field("locality_lb_config").unsupported("zone-aware routing is not supported by this release");
            false
        }
        None => false,
    }
}

/// The panic threshold in percent, and whether localities are weighted.
fn common(message: &Option<CommonLbConfig>, at: &At<'_>) -> Result<(u8, bool), Reject> {
    let Some(m) = message else { return Ok((50, false)) };
    let at = at.field("common_lb_config");
    fields!(&at, m => CommonLbConfig {
        read: [healthy_panic_threshold, locality_config_specifier],
        harmless: [update_merge_window, consistent_hashing_lb_config, override_host_status],
        unsupported: [ignore_new_hosts_until_first_hc, close_connections_on_host_set_change],
    });
    let threshold = match &m.healthy_panic_threshold {
        // The threshold is compared with whole percents in Envoy, too.
        Some(p) => percent(p, &at.field("healthy_panic_threshold"))? as u8,
        None => 50,
    };
    let weighted = match &m.locality_config_specifier {
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => true,
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(_)) => {
            at.field("zone_aware_lb_config").unsupported("zone-aware routing is not supported by this release");
            false
        }
        None => false,
    };
    Ok((threshold, weighted))
}

//! Parts of load balancing policies that the cluster's own fields and the extensions have in common.

use outrigger_wire::pb::{
    envoy::{
        config::{cluster::v3::cluster::SlowStartConfig as LegacySlowStart, core::v3::RuntimeDouble},
        extensions::load_balancing_policies::common::v3::{
            LocalityLbConfig, SlowStartConfig,
            locality_lb_config::{
                LocalityConfigSpecifier, ZoneAwareLbConfig,
                zone_aware_lb_config::{ForceLocalZone, LocalityBasis},
            },
        },
        r#type::v3::Percent,
    },
    google::protobuf::{Duration, UInt32Value, UInt64Value},
};

use super::{
    at::At,
    fields::fields,
    report::Reject,
    scalar::{enumeration, percent, runtime_key, u32_in, u32_or},
};
use crate::ir::balancing::{HashKeys, LeastRequest, Maglev, Number, RingHash, SlowStart, ZoneAware};

/// What part localities play.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Localities {
    /// Zones count as far as the proxy knows its own cluster.
    Unsaid,
    Weighted,
    Zones(ZoneAware),
}

impl Localities {
    pub(crate) fn or(self, other: Self) -> Self {
        if self == Self::Unsaid { other } else { self }
    }
}

pub(crate) fn localities(message: &Option<LocalityLbConfig>, at: &At<'_>) -> Result<Localities, Reject> {
    let at = at.field("locality_lb_config");
    Ok(match message.as_ref().and_then(|m| m.locality_config_specifier.as_ref()) {
        None => Localities::Unsaid,
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => Localities::Weighted,
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(m)) => {
            let at = at.field("zone_aware_lb_config");
            fields!(&at, m => ZoneAwareLbConfig {
                read: [
                    routing_enabled, min_cluster_size, fail_traffic_on_panic, force_locality_direct_routing,
                    force_local_zone, locality_basis,
                ],
            });
            let basis: LocalityBasis = enumeration(m.locality_basis, &at.field("locality_basis"))?;
            let mut force_local = u32::from(m.force_locality_direct_routing);
            if let Some(force) = &m.force_local_zone {
                fields!(&at, force => ForceLocalZone { read: [min_size] });
                force_local = u32_or(&force.min_size, 1).max(1);
            }
            let zones = zone_aware((&m.routing_enabled, &m.min_cluster_size), m.fail_traffic_on_panic, &at)?;
            Localities::Zones(ZoneAware { force_local, by_weight: basis == LocalityBasis::HealthyHostsWeight, ..zones })
        }
    })
}

pub(crate) fn zone_aware(
    (enabled, min_size): (&Option<Percent>, &Option<UInt64Value>),
    fail_on_panic: bool,
    at: &At<'_>,
) -> Result<ZoneAware, Reject> {
    let default = ZoneAware::default();
    Ok(ZoneAware {
        enabled_percent: match enabled {
            Some(p) => percent(p, &at.field("routing_enabled"))? as u32,
            None => default.enabled_percent,
        },
        min_cluster_size: min_size.as_ref().map_or(default.min_cluster_size, |v| v.value),
        fail_on_panic,
        ..default
    })
}

fn number(message: &RuntimeDouble, at: &At<'_>) -> Result<Number, Reject> {
    runtime_key(&message.runtime_key, at);
    let at = at.field("default_value");
    Number::new(message.default_value).ok_or_else(|| at.reject("must be a number that is not negative"))
}

pub(crate) fn least_request(
    choices: &Option<UInt32Value>,
    bias: &Option<RuntimeDouble>,
    full_scan: bool,
    at: &At<'_>,
) -> Result<LeastRequest, Reject> {
    let choices = u32_in(choices, 2, 2..=u32::MAX, &at.field("choice_count"))?;
    let bias = bias.as_ref().map(|m| number(m, &at.field("active_request_bias"))).transpose()?;
    Ok(LeastRequest { choices, full_scan, bias: bias.unwrap_or(Number::ONE) })
}

pub(crate) fn slow_start(message: &Option<SlowStartConfig>, at: &At<'_>) -> Result<Option<SlowStart>, Reject> {
    let Some(m) = message else { return Ok(None) };
    let at = at.field("slow_start_config");
    fields!(&at, m => SlowStartConfig { read: [slow_start_window, aggression, min_weight_percent] });
    slow(&m.slow_start_window, &m.aggression, &m.min_weight_percent, &at)
}

pub(crate) fn legacy_slow_start(message: &Option<LegacySlowStart>, at: &At<'_>) -> Result<Option<SlowStart>, Reject> {
    let Some(m) = message else { return Ok(None) };
    let at = at.field("slow_start_config");
    fields!(&at, m => LegacySlowStart { read: [slow_start_window, aggression, min_weight_percent] });
    slow(&m.slow_start_window, &m.aggression, &m.min_weight_percent, &at)
}

fn slow(
    window: &Option<Duration>,
    aggression: &Option<RuntimeDouble>,
    least: &Option<Percent>,
    at: &At<'_>,
) -> Result<Option<SlowStart>, Reject> {
    let aggression = aggression.as_ref().map(|m| number(m, &at.field("aggression"))).transpose()?;
    let least = least.as_ref().map(|p| percent(p, &at.field("min_weight_percent"))).transpose()?.unwrap_or(10.0);
    let window = at.duration("slow_start_window", window)?.filter(|window| !window.is_zero());
    Ok(window.map(|window| SlowStart {
        window,
        // Envoy takes zero for one.
        aggression: aggression.filter(|a| a.get() > 0.0).unwrap_or(Number::ONE),
        min_permille: (least * 10.0).round() as u32,
    }))
}

/// A wrapped number of at most `most`.
fn size(value: &Option<UInt64Value>, default: u32, most: u32, at: &At<'_>) -> Result<u32, Reject> {
    let value = value.as_ref().map_or(u64::from(default), |v| v.value);
    let fits = u32::try_from(value).ok().filter(|v| (1..=most).contains(v));
    fits.ok_or_else(|| at.reject(format!("{value} is not between 1 and {most}")))
}

/// Least and largest size of a ring.
pub(crate) fn ring_sizes(
    (least, most): (&Option<UInt64Value>, &Option<UInt64Value>),
    at: &At<'_>,
) -> Result<(u32, u32), Reject> {
    const MAX: u32 = 8 << 20;
    let default = RingHash::default();
    let least = size(least, default.min_size, MAX, &at.field("minimum_ring_size"))?;
    let most = size(most, default.max_size, MAX, &at.field("maximum_ring_size"))?;
    if least > most {
        return Err(at.field("minimum_ring_size").reject(format!("{least} is more than maximum_ring_size, {most}")));
    }
    Ok((least, most))
}

pub(crate) fn table_size(value: &Option<UInt64Value>, at: &At<'_>) -> Result<u32, Reject> {
    let at = at.field("table_size");
    let size = size(value, Maglev::default().table_size, 5_000_011, &at)?;
    let divides = |d: u32| size % d == 0;
    if size < 2 || (2..).take_while(|d| d * d <= size).any(divides) {
        return Err(at.reject(format!("{size} is not a prime number")));
    }
    Ok(size)
}

pub(crate) fn hash_keys(hostname: bool, factor: &Option<UInt32Value>, at: &At<'_>) -> Result<HashKeys, Reject> {
    let balance_factor = match factor {
        Some(_) => u32_in(factor, 100, 100..=u32::MAX, &at.field("hash_balance_factor"))?,
        None => 0,
    };
    Ok(HashKeys { hostname, balance_factor })
}

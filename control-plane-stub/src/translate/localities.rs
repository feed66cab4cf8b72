//! Near and far endpoints: `distribute`, `failover` and `failoverPriority`, as Istio applies them to the endpoints of
//! a cluster for one client.

use std::collections::BTreeMap;

use super::scope::Scope;
use crate::model::{Endpoint, Failover, Locality, LocalitySetting, REGION, SUB_ZONE, Service, TrafficPolicy, ZONE};

/// What one client makes of localities.
pub(super) enum Preference<'a> {
    /// All count alike.
    None,
    /// Percents by locality pattern; endpoints of others get nothing.
    Shares(&'a BTreeMap<String, u32>),
    /// The nearest come first.
    Nearest(&'a [Failover]),
    /// The more labels an endpoint shares with the client, the earlier it comes.
    Labels { labels: Vec<(String, String)>, failover: &'a [Failover] },
}

impl<'a> Preference<'a> {
    /// By the policy; endpoints come in turns only where ejection (or a Service's own wish) ends a turn.
    pub(super) fn new(scope: &Scope<'_>, service: &Service, policy: &'a TrafficPolicy) -> Self {
        let setting = policy.load_balancer.as_ref().and_then(|b| b.locality_lb_setting.as_ref());
        let ejects = policy.outlier_detection.is_some();
        match setting {
            Some(LocalitySetting { enabled: Some(false), .. }) => Self::None,
            Some(setting) if !setting.distribute.is_empty() => {
                let from = setting.distribute.iter().find(|d| LocalitySetting::covers(&d.from, scope.locality));
                from.map_or(Self::None, |d| Self::Shares(&d.to))
            }
            Some(setting) if ejects && !setting.failover_priority.is_empty() => {
                let labels = own_labels(scope, &setting.failover_priority);
                Self::Labels { labels, failover: &setting.failover }
            }
            Some(setting) if ejects => Self::Nearest(&setting.failover),
            Some(_) => Self::None,
            None if service.prefers_close => {
                let labels = own_labels(scope, &[REGION, ZONE, SUB_ZONE].map(str::to_owned));
                Self::Labels { labels, failover: &[] }
            }
            None if ejects => Self::Nearest(&[]),
            None => Self::None,
        }
    }

    /// The turn of an endpoint, the first being the lowest; turns may leave out numbers.
    pub(super) fn turn(&self, own: &Locality, endpoint: &Endpoint) -> u32 {
        match self {
            Self::None | Self::Shares(_) => 0,
            Self::Nearest(failover) => distance(own, &endpoint.locality, failover),
            Self::Labels { labels, failover } => {
                let differs =
                    |(name, value): &(String, String)| label(&endpoint.labels, &endpoint.locality, name) != value;
                let priority = labels.iter().position(differs).map_or(0, |at| labels.len() - at) as u32;
                if failover.is_empty() { priority } else { priority * 5 + distance(own, &endpoint.locality, failover) }
            }
        }
    }
}

/// The wanted labels with the values to compare with: the client's own, unless `label=value` says another.
fn own_labels(scope: &Scope<'_>, wanted: &[String]) -> Vec<(String, String)> {
    let pair = |text: &String| match text.split_once('=') {
        Some((name, value)) => (name.to_owned(), value.to_owned()),
        None => (text.clone(), label(scope.labels, scope.locality, text).to_owned()),
    };
    wanted.iter().map(pair).collect()
}

fn label<'a>(labels: &'a BTreeMap<String, String>, locality: &'a Locality, name: &str) -> &'a str {
    labels.get(name).map(String::as_str).or_else(|| locality.of_label(name)).unwrap_or_default()
}

/// 0 in the same subzone, 1 in the zone, 2 in the region, 3 beyond, 4 beyond where a failover names another region.
fn distance(own: &Locality, other: &Locality, failover: &[Failover]) -> u32 {
    if own.region != other.region {
        let to = failover.iter().find(|f| f.from == own.region);
        return if to.is_some_and(|f| f.to != other.region) { 4 } else { 3 };
    }
    match (own.zone == other.zone, own.sub_zone == other.sub_zone) {
        (true, true) => 0,
        (true, false) => 1,
        (false, _) => 2,
    }
}

/// What each of `localities` (with the sum of its endpoints' weights) weighs; none: nothing goes there.
pub(super) fn shares(to: &BTreeMap<String, u32>, localities: &[(&Locality, u32)]) -> Vec<Option<u32>> {
    let mut shares = vec![None; localities.len()];
    for (pattern, percent) in to {
        let meant: Vec<usize> = (0..localities.len())
            .filter(|i| shares[*i].is_none() && LocalitySetting::covers(pattern, localities[*i].0))
            .collect();
        let total: u64 = meant.iter().map(|i| u64::from(localities[*i].1)).sum();
        for i in meant {
            // Several localities of one pattern divide its share by their endpoints.
            let share = (u64::from(localities[i].1) * u64::from(*percent)).div_ceil(total.max(1));
            shares[i] = Some(u32::try_from(share).unwrap_or(u32::MAX).max(1));
        }
    }
    shares
}

//! Statistics of RBAC filters: by filter, and by policy where that is asked for.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use super::metrics::{Block, Counter, Kind, Sharded};
use crate::ir::Name;

/// What one engine decided.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct RbacStats {
    pub allowed: Counter,
    pub denied: Counter,
}

impl Block for RbacStats {
    fn visit(&self, visitor: &mut dyn FnMut(&'static str, Kind, u64)) {
        visitor("allowed", Kind::Counter, self.allowed.get());
        visitor("denied", Kind::Counter, self.denied.get());
    }
}

/// Whose statistics they are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RbacOwner {
    /// Of an HTTP filter; else of a network filter.
    pub http: bool,
    /// The connection manager's or the filter's own prefix.
    pub prefix: Name,
    /// `rules_stat_prefix` or `shadow_rules_stat_prefix`; may be empty.
    pub rules: Box<str>,
    pub shadow: bool,
    /// Of one policy.
    pub policy: Option<Name>,
}

impl RbacOwner {
    /// Envoy's name of a metric.
    pub fn dotted(&self, metric: &str) -> String {
        let mut name = String::new();
        if self.http {
            name.push_str("http.");
        }
        name.push_str(self.prefix.trim_end_matches('.'));
        name.push_str(".rbac.");
        if !self.rules.is_empty() {
            name.push_str(&self.rules);
            name.push('.');
        }
        if let Some(policy) = &self.policy {
            name.push_str("policy.");
            name.push_str(policy);
            name.push('.');
        }
        name.push_str(self.kind());
        name.push_str(metric);
        name
    }

    /// Before the metric.
    pub fn kind(&self) -> &'static str {
        if self.shadow { "shadow_" } else { "" }
    }
}

/// Statistics found again by their owner; those nobody holds disappear.
#[derive(Debug, Default)]
pub struct RbacRegistry(Mutex<BTreeMap<RbacOwner, Weak<Sharded<RbacStats>>>>);

impl RbacRegistry {
    pub fn get(&self, owner: RbacOwner) -> Arc<Sharded<RbacStats>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = all.get(&owner).and_then(Weak::upgrade) {
            return found;
        }
        // Without somebody who looks at them the names of former policies would pile up.
        if all.len().is_power_of_two() {
            all.retain(|_, stats| stats.strong_count() > 0);
        }
        let made = Arc::new(Sharded::default());
        all.insert(owner, Arc::downgrade(&made));
        made
    }

    /// Visits every value that was touched.
    pub fn visit(&self, visitor: &mut dyn FnMut(&RbacOwner, &'static str, u64)) {
        let held: Vec<_> = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|_, stats| stats.strong_count() > 0);
            all.iter().filter_map(|(owner, stats)| Some((owner.clone(), stats.upgrade()?))).collect()
        };
        for (owner, stats) in held {
            for (metric, _, value) in stats.totals() {
                visitor(&owner, metric, value);
            }
        }
    }
}

/// The statistics of one engine of a filter.
#[derive(Debug, Default)]
pub struct EngineStats {
    all: Arc<Sharded<RbacStats>>,
    /// Of policies that are tracked.
    policies: HashMap<Name, Arc<Sharded<RbacStats>>>,
}

impl EngineStats {
    /// With those of `tracked` policies.
    pub fn new(registry: &RbacRegistry, owner: &RbacOwner, tracked: impl IntoIterator<Item = Name>) -> Self {
        let of = |name: Name| registry.get(RbacOwner { policy: Some(name), ..owner.clone() });
        let policies = tracked.into_iter().map(|name| (name.clone(), of(name))).collect();
        Self { all: registry.get(owner.clone()), policies }
    }

    pub fn count(&self, allowed: bool, policy: Option<&Name>) {
        let tracked = if self.policies.is_empty() { None } else { policy.and_then(|name| self.policies.get(name)) };
        for stats in [Some(&self.all), tracked].into_iter().flatten() {
            let stats = stats.local();
            if allowed { &stats.allowed } else { &stats.denied }.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_envoys() {
        let registry = RbacRegistry::default();
        let owner = |http, prefix: &str, rules: &str, shadow| RbacOwner {
            http,
            prefix: prefix.into(),
            rules: rules.into(),
            shadow,
            policy: None,
        };
        let http = EngineStats::new(&registry, &owner(true, "ing", "pre", false), ["a b".into()]);
        let shadow = EngineStats::new(&registry, &owner(true, "ing", "dry_", true), []);
        let network = EngineStats::new(&registry, &owner(false, "tcp.", "", false), []);
        http.count(false, Some(&"a b".into()));
        http.count(true, None);
        shadow.count(false, Some(&"other".into()));
        network.count(true, None);
        let mut seen = Vec::new();
        let mut look = || {
            seen.clear();
            registry.visit(&mut |owner, metric, value| {
                if value > 0 {
                    seen.push((owner.dotted(metric), value));
                }
            });
            seen.sort();
            seen.clone()
        };
        let wanted = [
            ("http.ing.rbac.dry_.shadow_denied", 1),
            ("http.ing.rbac.pre.allowed", 1),
            ("http.ing.rbac.pre.denied", 1),
            ("http.ing.rbac.pre.policy.a b.denied", 1),
            ("tcp.rbac.allowed", 1),
        ];
        assert_eq!(look(), wanted.map(|(name, value)| (name.to_owned(), value)));
        drop((http, shadow));
        assert_eq!(look(), [("tcp.rbac.allowed".to_owned(), 1)]);
    }
}

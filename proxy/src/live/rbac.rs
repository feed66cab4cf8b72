//! RBAC filters with their statistics.

use std::sync::Arc;

use crate::{
    ir::{
        Name,
        rbac::{Engine, Rbac, tree},
    },
    telemetry::rbac::{EngineStats, RbacOwner, RbacRegistry},
};

/// The statistics of an RBAC filter.
#[derive(Debug, Default)]
pub struct RbacCounts {
    pub rules: EngineStats,
    pub shadow: EngineStats,
}

impl RbacCounts {
    /// Of a filter below `prefix`.
    pub fn new(config: &Rbac, http: bool, prefix: &Name, registry: &RbacRegistry) -> Self {
        let of = |engine: &Option<Engine>, rules: &str, shadow| {
            let owner = RbacOwner { http, prefix: prefix.clone(), rules: rules.into(), shadow, policy: None };
            let tracked = engine.as_ref().filter(|_| config.track_per_rule).map(names).unwrap_or_default();
            EngineStats::new(registry, &owner, tracked)
        };
        Self {
            rules: of(&config.rules, &config.rules_prefix, false),
            shadow: of(&config.shadow, &config.shadow_prefix, true),
        }
    }
}

/// The network filter.
#[derive(Debug)]
pub struct LiveNetworkRbac {
    pub config: Arc<crate::ir::rbac::NetworkRbac>,
    pub counts: RbacCounts,
}

/// The policies of an engine.
fn names(engine: &Engine) -> Vec<Name> {
    fn leaves(matcher: &tree::Matcher, names: &mut Vec<Name>) {
        let mut next = |next: &tree::OnMatch| match next {
            tree::OnMatch::Matcher(matcher) => leaves(matcher, names),
            tree::OnMatch::Leaf { name, .. } => names.push(name.clone()),
        };
        match &matcher.kind {
            None => {}
            Some(tree::Kind::List(fields)) => fields.iter().for_each(|(_, then)| next(then)),
            Some(tree::Kind::Exact(_, map) | tree::Kind::Prefix(_, map)) => map.values().for_each(&mut next),
        }
        matcher.otherwise.iter().for_each(&mut next);
    }
    match engine {
        Engine::Policies(set) => set.policies.iter().map(|policy| policy.name.clone()).collect(),
        Engine::Tree(tree) => {
            let mut names = Vec::new();
            leaves(&tree.root, &mut names);
            names
        }
    }
}

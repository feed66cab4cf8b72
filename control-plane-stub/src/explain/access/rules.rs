//! What a call lacks to be allowed: the rules that hold at a port, clause by clause.

use outrigger_proxy::policy::rbac::decide;

use super::{Access, RuleReport, Seen, guards, report};
use crate::{
    model::{Action, Place, World},
    resources::Node,
    translate::{self, Part},
};

/// Where nothing allows a call, what it lacks for each rule that would.
pub(super) fn report(world: &World, node: &Node, seen: &Seen<'_>, access: &mut Access) -> Result<(), String> {
    if access.reason != super::NOT_ALLOWED {
        return Ok(());
    }
    let services = translate::services(world, node, seen.call.at.port());
    let place = Place { namespace: &node.namespace, labels: &node.labels, services: &services };
    let allowing =
        world.authorization(place).filter(|object| object.spec.action == Action::Allow && !object.is_dry_run());
    for object in allowing {
        let mut lacks = Vec::new();
        for (index, rule) in object.spec.rules.iter().enumerate() {
            let mut missing = Vec::new();
            for side in translate::parts(world, node, object, rule, seen.call.http) {
                missing.extend(nearest(side, seen)?);
            }
            lacks.push((index, missing));
        }
        let policy = report::place(object);
        if lacks.is_empty() {
            let none = vec!["a rule that it has: it has none, so it allows nobody".to_owned()];
            access.unmet.push(RuleReport { policy: policy.clone(), action: "ALLOW".to_owned(), lacks: none });
        }
        access.unmet.extend(lacks.into_iter().map(|(index, lacks)| RuleReport {
            policy: format!("{policy} rule {index}"),
            action: "ALLOW".to_owned(),
            lacks,
        }));
    }
    Ok(())
}

/// What is missing of the list of parts that comes nearest.
fn nearest(lists: Vec<Vec<Part>>, seen: &Seen<'_>) -> Result<Vec<String>, String> {
    let mut best: Option<Vec<String>> = None;
    for parts in lists {
        let mut missing = Vec::new();
        for part in parts {
            let Some(policy) = part.policy else {
                missing.push(format!("{} (the connection is not HTTP)", part.text));
                continue;
            };
            if !matches(policy, seen)? {
                missing.push(part.text);
            }
        }
        if best.as_ref().is_none_or(|best| missing.len() < best.len()) {
            best = Some(missing);
        }
    }
    Ok(best.unwrap_or_default())
}

fn matches(policy: outrigger_wire::pb::envoy::config::rbac::v3::Policy, seen: &Seen<'_>) -> Result<bool, String> {
    let rbac = guards::rule(policy, seen.call.http)?;
    Ok(rbac.rules.as_ref().is_some_and(|rules| decide(rules, &seen.facts()).allowed))
}

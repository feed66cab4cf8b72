//! Selectors and target references: they must name something that can be.

use super::place;
use crate::model::{Attached, Object, Problem, Selector, Source, TargetRef, world::World};

/// No wildcards, which would silently select nobody.
pub(super) fn selector(selector: Option<&Selector>, source: &Source, problems: &mut Vec<Problem>) {
    for (key, value) in selector.into_iter().flat_map(|s| &s.match_labels) {
        if key.is_empty() || key.contains('*') || value.contains('*') {
            let reason = format!("`{key}: {value}` is not a label: wildcards select nobody");
            problems.push(source.problem("spec.selector.matchLabels", reason));
        }
    }
}

/// All of it; `given` are the selector and the single target as the document has them.
pub(super) fn check<T: Attached>(
    world: &World,
    object: &Object<T>,
    given: (Option<&Selector>, &Option<TargetRef>),
    notes: &mut Vec<String>,
    problems: &mut Vec<Problem>,
) {
    selector(given.0, &object.source, problems);
    let targets: Vec<&TargetRef> = object.spec.target_refs().collect();
    let single = given.1.is_some();
    if usize::from(given.0.is_some()) + usize::from(single) + usize::from(targets.len() > usize::from(single)) > 1 {
        let reason = "only one of selector, targetRef and targetRefs may be there";
        problems.push(object.source.problem("spec.targetRefs", reason));
    }
    for (index, target) in targets.into_iter().enumerate() {
        let path = if single { "spec.targetRef".to_owned() } else { format!("spec.targetRefs[{index}]") };
        let mut problem = |field: &str, reason: String| {
            problems.push(object.source.problem(format!("{path}.{field}"), reason));
        };
        let namespace = &object.meta.namespace;
        if target.namespace.as_ref().is_some_and(|other| other != namespace) {
            problem("namespace", format!("must be {namespace}: a policy reaches its own namespace only"));
        } else if target.is_gateway() {
            let text = format!("{} {} is not a sidecar, so it holds for nobody here", target.kind, target.name);
            notes.push(format!("the security policy {}: {text}", place(object)));
        } else if !target.is_service() {
            let reason = format!("`{}` of group `{}` is not supported: Service is", target.kind, target.group);
            problem("kind", reason);
        } else if !world.services.values().any(|s| is(s, target, namespace)) {
            problem("name", format!("there is no Service {} in namespace {namespace}", target.name));
        }
    }
}

fn is(service: &crate::model::Service, target: &TargetRef, namespace: &str) -> bool {
    service.kubernetes && service.name == target.name && service.namespace == namespace
}

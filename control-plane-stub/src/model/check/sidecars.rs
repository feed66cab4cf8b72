//! Sidecars: one per workload, ports once, hosts that are there.

use super::place;
use crate::model::{Object, Problem, Sidecar, peer_authentication::subset, world::World};

pub(super) fn check(world: &World, problems: &mut Vec<Problem>) {
    for (index, object) in world.sidecars.iter().enumerate() {
        let spec = &object.spec;
        for (e, listener) in spec.egress.iter().enumerate() {
            if listener.hosts.is_empty() {
                let reason = "needs at least one host; `~/*` for none";
                problems.push(object.source.problem(format!("spec.egress[{e}].hosts"), reason));
            }
        }
        for (i, listener) in spec.ingress.iter().enumerate() {
            if spec.ingress[..i].iter().any(|other| other.port == listener.port) {
                let reason = format!("port {} is listed twice", listener.port);
                problems.push(object.source.problem(format!("spec.ingress[{i}].port.number"), reason));
            }
        }
        for other in &world.sidecars[..index] {
            if let Some(reason) = clash(world, object, other) {
                problems.push(object.source.problem("spec.workloadSelector", reason));
            }
        }
    }
}

/// Two on the same level, of which only one could hold.
fn clash(world: &World, a: &Object<Sidecar>, b: &Object<Sidecar>) -> Option<String> {
    if a.meta.namespace != b.meta.namespace {
        return None;
    }
    match (a.spec.workloads(), b.spec.workloads()) {
        (None, None) => Some(format!("Sidecar {} is for the whole namespace too: merge the two", place(b))),
        (Some(x), Some(y)) => {
            let mut own = world.workloads.iter().filter(|w| w.namespace == a.meta.namespace);
            let shared = own.find(|w| subset(x, &w.labels) && subset(y, &w.labels));
            let reason = |what: String| format!("Sidecar {} selects {what} too: part the selectors", place(b));
            match shared {
                Some(workload) => Some(reason(format!("workload {}", workload.name))),
                None if x == y => Some(reason("the same labels".to_owned())),
                None => None,
            }
        }
        _ => None,
    }
}

//! Sidecars: one per workload, ports once, hosts that are there.

use std::collections::{BTreeMap, HashMap, HashSet, hash_map::Entry};

use super::place;
use crate::model::{
    Class, Object, Problem, Sidecar,
    peer_authentication::subset,
    world::{Service, World},
};

type Labels = BTreeMap<String, String>;

pub(super) fn check(world: &World, problems: &mut Vec<Problem>) {
    for object in &world.sidecars {
        let spec = &object.spec;
        for (e, listener) in spec.egress.iter().enumerate() {
            if listener.hosts.is_empty() {
                let reason = "needs at least one host; `~/*` for none";
                problems.push(object.source.problem(format!("spec.egress[{e}].hosts"), reason));
            }
        }
        for (e, listener) in spec.egress.iter().enumerate() {
            let Some((port, protocol)) = listener.port.as_ref().and_then(|p| Some((p.number, p.protocol?))) else {
                continue;
            };
            let other = |service: &&Service| {
                let declared = service.port(port).map(|port| port.protocol.class());
                declared.is_some_and(|class| class != Class::Auto && class != protocol.class())
                    && listener.imports(&object.meta.namespace, &service.namespace, &service.host)
            };
            if let Some(service) = world.services.values().find(other) {
                let reason = format!("port {port} of {}, which is listed, is of another protocol", service.host);
                problems.push(object.source.problem(format!("spec.egress[{e}].port.protocol"), reason));
            }
        }
        for (i, listener) in spec.ingress.iter().enumerate() {
            if spec.ingress[..i].iter().any(|other| other.port == listener.port) {
                let reason = format!("port {} is listed twice", listener.port);
                problems.push(object.source.problem(format!("spec.ingress[{i}].port.number"), reason));
            }
        }
    }
    clashes(world, problems);
}

/// Two on the same level, of which only one could hold. The later one is told.
fn clashes(world: &World, problems: &mut Vec<Problem>) {
    let mut problem = |object: &Object<Sidecar>, reason: String| {
        problems.push(object.source.problem("spec.workloadSelector", reason));
    };
    let mut levels: HashMap<(&str, Option<&Labels>), &Object<Sidecar>> = HashMap::new();
    let mut selecting: HashMap<&str, Vec<&Object<Sidecar>>> = HashMap::new();
    for object in &world.sidecars {
        let (namespace, labels) = (object.meta.namespace.as_str(), object.spec.workloads());
        match levels.entry((namespace, labels)) {
            Entry::Occupied(other) => {
                let what = if labels.is_some() { "the same labels" } else { "the whole namespace" };
                problem(object, format!("Sidecar {} is for {what} too: merge the two", place(other.get())));
            }
            Entry::Vacant(free) => {
                free.insert(object);
                if labels.is_some() {
                    selecting.entry(namespace).or_default().push(object);
                }
            }
        }
    }
    let mut told = HashSet::new();
    for workload in &world.workloads {
        let selects =
            |object: &&&Object<Sidecar>| object.spec.workloads().is_some_and(|wanted| subset(wanted, &workload.labels));
        let mut found = selecting.get(workload.namespace.as_str()).into_iter().flatten().filter(selects);
        if let (Some(first), Some(second)) = (found.next(), found.next())
            && told.insert((&second.meta.namespace, &second.meta.name))
        {
            let reason = format!("Sidecar {} selects workload {} too: part the selectors", place(first), workload.name);
            problem(second, reason);
        }
    }
}

//! PeerAuthentications and RequestAuthentications: settings that make sense, and who wins where two want the same.

use super::{attachment, place};
use crate::model::{
    JwtRule, Mode, Object, Place, Problem, RequestAuthentication,
    authorization::{DRY_RUN, dry_run},
    peer_authentication::{PeerAuthentication, subset},
    world::World,
};

pub(super) fn check(world: &World, notes: &mut Vec<String>, problems: &mut Vec<Problem>) {
    for (index, object) in world.peer_authentications.iter().enumerate() {
        peer(object, notes, problems);
        if world.settings.is_root(&object.meta.namespace) && object.spec.labels().is_some() {
            let text = "with a selector it has no effect in a root namespace, whose policies are the mesh's";
            notes.push(format!("PeerAuthentication {}: {text}", place(object)));
        }
        let older = world.peer_authentications[..index].iter();
        if let Some(text) = older.filter_map(|older| beaten(world, object, older)).next() {
            notes.push(format!("PeerAuthentication {}: {text}", place(object)));
        }
    }
    for object in &world.request_authentications {
        request(world, object, notes, problems);
    }
}

fn peer(object: &Object<PeerAuthentication>, notes: &mut Vec<String>, problems: &mut Vec<Problem>) {
    let spec = &object.spec;
    let mut problem = |path: &str, reason: &str| problems.push(object.source.problem(path, reason));
    if !spec.port_level_mtls.is_empty() && spec.labels().is_none() {
        problem("spec.portLevelMtls", "ports need a selector: they are ports of workloads, not of a namespace");
    }
    if spec.port_level_mtls.contains_key(&0) {
        problem("spec.portLevelMtls.0", "0 is not a port (1 to 65535)");
    }
    if spec.mtls.mode.is_none() && spec.port_level_mtls.is_empty() && spec.selector.is_some() {
        problem("spec.mtls.mode", "sets nothing: give mtls.mode or portLevelMtls, or remove the document");
    }
    let modes = || std::iter::once(&spec.mtls).chain(spec.port_level_mtls.values()).filter_map(|mtls| mtls.mode);
    match dry_run(&object.meta) {
        None => problem(&format!("metadata.annotations.{DRY_RUN}"), "is neither true nor false"),
        Some(true) if !modes().any(|mode| mode == Mode::Strict) => {
            let text = "a dry run shows whom STRICT would refuse, but nothing of it is STRICT";
            notes.push(format!("PeerAuthentication {}: {text}", place(object)));
        }
        Some(_) => {}
    }
    attachment::selector(spec.selector.as_ref(), &object.source, problems);
}

/// Why an older policy counts in the place of this one, where one does.
fn beaten(world: &World, object: &Object<PeerAuthentication>, older: &Object<PeerAuthentication>) -> Option<String> {
    let same = object.meta.namespace == older.meta.namespace;
    if object.is_dry_run() != older.is_dry_run() {
        return None;
    }
    let root = |p: &Object<PeerAuthentication>| world.settings.is_root(&p.meta.namespace);
    let what = match (object.spec.labels(), older.spec.labels()) {
        (None, None) if root(object) && root(older) => "the whole mesh".to_owned(),
        (None, None) if same => "the whole namespace".to_owned(),
        (Some(x), Some(y)) if same => {
            let mut own = world.workloads.iter().filter(|w| w.namespace == object.meta.namespace);
            match own.find(|w| subset(x, &w.labels) && subset(y, &w.labels)) {
                Some(workload) => format!("workload {}", workload.name),
                None if x == y => "the same labels".to_owned(),
                None => return None,
            }
        }
        _ => return None,
    };
    Some(format!("{} is for {what} too and older, so it counts and this one does not", place(older)))
}

fn request(
    world: &World,
    object: &Object<RequestAuthentication>,
    notes: &mut Vec<String>,
    problems: &mut Vec<Problem>,
) {
    let spec = &object.spec;
    attachment::check(world, object, (spec.selector.as_ref(), &spec.target_ref), notes, problems);
    if dry_run(&object.meta) != Some(false) {
        let reason = "a RequestAuthentication has no dry run: remove the annotation, or the document";
        problems.push(object.source.problem(format!("metadata.annotations.{DRY_RUN}"), reason));
    }
    let held = world.workloads.iter().filter(|w| {
        object.holds_at(&world.settings, Place { namespace: &w.namespace, labels: &w.labels, services: &[] })
    });
    let text = super::passed_in_silence(world, held, None);
    notes.extend(text.map(|text| format!("RequestAuthentication {}: {text}", place(object))));
    for (index, rule) in spec.jwt_rules.iter().enumerate() {
        if let Some((field, reason)) = token(rule) {
            problems.push(object.source.problem(format!("spec.jwtRules[{index}].{field}"), reason));
        }
    }
}

fn token(rule: &JwtRule) -> Option<(&'static str, &'static str)> {
    match (&rule.jwks_uri, &rule.jwks) {
        (Some(_), Some(_)) => Some(("jwks", "and jwksUri are both there: remove one of the two")),
        (None, None) => Some((
            "jwksUri",
            "is missing: give jwksUri or jwks; keys are not looked up at the issuer, who would have to be asked first",
        )),
        (None, Some(_)) if rule.issuer.is_empty() => Some(("issuer", "is missing")),
        _ => None,
    }
}

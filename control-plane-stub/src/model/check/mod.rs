//! Refuses what each document alone cannot know to be wrong: dangling references and conflicts.

mod attachment;
mod authentication;
mod authorization;
mod balancing;
mod effects;
mod policies;
mod rate_limits;
mod routes;
mod sidecars;
mod traffic;

use super::{
    Mode, Problem, Workload,
    join::Declared,
    world::{Service, World},
};

/// `declared` is what the documents say, before delegates are resolved and rules of one host are merged.
pub(super) fn check(world: &mut World, declared: &Declared, problems: &mut Vec<Problem>) {
    let mut notes = Vec::new();
    addresses(world, problems);
    captured(world, &mut notes);
    routes::check(world, declared, &mut notes, problems);
    policies::check(world, declared, problems);
    authentication::check(world, &mut notes, problems);
    authorization::check(world, &mut notes, problems);
    sidecars::check(world, problems);
    rate_limits::check(world, &mut notes, problems);
    effects::check(world, &mut notes);
    world.notes.append(&mut notes);
}

/// Where an object stands, for reasons that name another one.
fn place<T>(object: &super::Object<T>) -> String {
    let super::Object { meta, source, .. } = object;
    format!("{}/{} ({} document {})", meta.namespace, meta.name, source.file.display(), source.document)
}

/// What to know of settings for HTTP on ports whose protocol is found out from the bytes, if that concerns some of
/// `workloads`: a caller without mutual TLS may say nothing until it is taken for a client of something else.
fn passed_in_silence<'a>(
    world: &World,
    mut workloads: impl Iterator<Item = &'a Workload>,
    port: Option<u16>,
) -> Option<String> {
    let takes_plaintext = |w: &Workload| {
        let policy = world.peer_policy(&w.namespace, &w.labels);
        w.meshed && port.map_or(policy.default, |port| policy.of(port)) != Mode::Strict
    };
    let waits = world.settings.inbound_detection;
    workloads.any(takes_plaintext).then(|| {
        format!(
            "where a port's protocol is not declared, a plaintext caller that is silent for {waits:?} is passed on as \
             opaque bytes, which it does not see: declare the protocol, or demand mutual TLS (STRICT)"
        )
    })
}

/// The port must be one of the service's.
fn known_port(service: &Service, number: u16) -> Result<(), String> {
    if service.port(number).is_some() {
        return Ok(());
    }
    let known: Vec<_> = service.ports.iter().map(|p| p.number.to_string()).collect();
    Err(format!("{} has no port {number}, only {}", service.host, known.join(", ")))
}

/// Two services with the same virtual address and port: a connection could mean either.
fn addresses(world: &World, problems: &mut Vec<Problem>) {
    let mut taken = std::collections::HashMap::new();
    for service in world.services.values() {
        for port in &service.ports {
            for cidr in &service.addresses {
                let path = if service.kubernetes { "spec.clusterIP" } else { "spec.addresses" };
                if cidr.single().is_some_and(|ip| ip.is_unspecified()) {
                    let reason = format!("{cidr} stands for every address: leave it out, or write `None` for none");
                    problems.push(service.source.problem(path, reason));
                    continue;
                }
                // Hosts of one ServiceEntry share its addresses; HTTP tells them apart by name, TLS by SNI.
                let Some(other) = taken.insert((cidr, port.number), service) else { continue };
                if other.source.file != service.source.file || other.source.document != service.source.document {
                    let reason = format!("{cidr} port {} is also the address of {}", port.number, other.host);
                    problems.push(service.source.problem(path, reason));
                }
            }
        }
    }
}

/// Istio's rule: what would have to listen where capture does is left out.
fn captured(world: &World, notes: &mut Vec<String>) {
    for service in world.services.values() {
        for port in service.ports.iter().filter(|port| world.settings.captures(port.number)) {
            notes.push(format!(
                "{} port {} is one of the sidecar's own ports: calls to it by host name are not routed",
                service.host, port.number
            ));
        }
    }
}

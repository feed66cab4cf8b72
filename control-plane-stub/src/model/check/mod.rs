//! Refuses what each document alone cannot know to be wrong: dangling references and conflicts.

mod attachment;
mod authentication;
mod authorization;
mod balancing;
mod effects;
mod policies;
mod routes;
mod sidecars;
mod traffic;

use super::{
    Problem,
    join::Declared,
    world::{Service, World},
};

/// `declared` is what the documents say, before delegates are resolved and rules of one host are merged.
pub(super) fn check(world: &mut World, declared: &Declared, problems: &mut Vec<Problem>) {
    let mut notes = Vec::new();
    addresses(world, problems);
    routes::check(world, declared, &mut notes, problems);
    policies::check(world, declared, problems);
    authentication::check(world, &mut notes, problems);
    authorization::check(world, &mut notes, problems);
    sidecars::check(world, problems);
    effects::check(world, &mut notes);
    world.notes.append(&mut notes);
}

/// Where an object stands, for reasons that name another one.
fn place<T>(object: &super::Object<T>) -> String {
    let super::Object { meta, source, .. } = object;
    format!("{}/{} ({} document {})", meta.namespace, meta.name, source.file.display(), source.document)
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
                // Hosts of one ServiceEntry share its addresses; HTTP tells them apart by name, TLS by SNI.
                let Some(other) = taken.insert((cidr, port.number), service) else { continue };
                if other.source.file != service.source.file || other.source.document != service.source.document {
                    let path = if service.kubernetes { "spec.clusterIP" } else { "spec.addresses" };
                    let reason = format!("{cidr} port {} is also the address of {}", port.number, other.host);
                    problems.push(service.source.problem(path, reason));
                }
            }
        }
    }
}

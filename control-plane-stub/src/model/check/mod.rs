//! Refuses what each document alone cannot know to be wrong: dangling references and conflicts.

mod policies;
mod routes;

use super::{Problem, world::World};

pub(super) fn check(world: &World, problems: &mut Vec<Problem>) {
    addresses(world, problems);
    routes::check(world, problems);
    policies::check(world, problems);
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

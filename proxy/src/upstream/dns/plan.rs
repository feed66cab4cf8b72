//! What the answers to a cluster's names mean: its endpoints. Pure.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use crate::ir::{
    Name,
    endpoint::{Address, Assignment, Endpoint, Locality},
};

/// The latest addresses of each name.
#[derive(Debug, Default)]
pub(super) struct Answers(HashMap<Name, Vec<IpAddr>>);

impl Answers {
    /// `ordered` keeps the answer's order, which a logical cluster goes by; else the order is made to mean nothing, so
    /// a rotated answer equals the one before.
    pub(super) fn set(&mut self, host: Name, mut addresses: Vec<IpAddr>, ordered: bool) {
        if ordered {
            let mut seen = std::collections::HashSet::new();
            addresses.retain(|a| seen.insert(*a));
        } else {
            addresses.sort_unstable();
            addresses.dedup();
        }
        self.0.insert(host, addresses);
    }

    fn of(&self, host: &str) -> &[IpAddr] {
        self.0.get(host).map_or(&[], Vec::as_slice)
    }
}

/// The names that have to be resolved, each once; IP literals do not.
pub(super) fn names(template: &Assignment) -> Vec<Name> {
    let mut names = Vec::new();
    for endpoint in template.localities.iter().flat_map(|l| &l.endpoints) {
        if let Address::Host { host, .. } = &endpoint.address
            && literal(host).is_none()
            && !names.contains(host)
        {
            names.push(host.clone());
        }
    }
    names
}

/// The template with every name replaced by its addresses; weight, health and metadata stay the template's. A logical
/// cluster has one endpoint only, whatever the template lists beyond it.
pub(super) fn assignment(template: &Assignment, answers: &Answers, logical: bool) -> Assignment {
    let mut left = if logical { 1 } else { usize::MAX };
    let localities = template.localities.iter().map(|locality| {
        let endpoints = locality.endpoints.iter().take(left);
        let resolved = endpoints.inspect(|_| left -= 1).flat_map(|e| resolve(e, answers)).collect();
        Locality {
            region: locality.region.clone(),
            zone: locality.zone.clone(),
            sub_zone: locality.sub_zone.clone(),
            priority: locality.priority,
            weight: locality.weight,
            endpoints: resolved,
        }
    });
    Assignment { localities: localities.collect(), overprovisioning: template.overprovisioning }
}

fn resolve(endpoint: &Endpoint, answers: &Answers) -> Vec<Endpoint> {
    let Address::Host { host, port } = &endpoint.address else { return vec![endpoint.clone()] };
    let fixed = literal(host);
    let addresses = fixed.as_slice().iter().chain(if fixed.is_none() { answers.of(host) } else { &[] });
    let hostname = if endpoint.hostname.is_empty() { Box::from(&**host) } else { endpoint.hostname.clone() };
    addresses
        .map(|ip| Endpoint {
            address: Address::Ip(SocketAddr::new(*ip, *port)),
            hostname: hostname.clone(),
            ..endpoint.clone()
        })
        .collect()
}

fn literal(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

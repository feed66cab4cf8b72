//! A view of a cluster under construction: endpoints by locality, taken over from the view before where they are equal.

use std::{collections::HashMap, sync::Arc};

use super::{LocalityName, Member};
use crate::{
    ir::{
        self,
        cluster::LbPolicy,
        endpoint::{Address, Assignment, Locality},
    },
    upstream::{
        endpoint::Endpoint,
        lb::{self, Balancer},
        transport::Transports,
    },
};

/// The endpoints of the view before, by address.
pub(super) struct Reuse {
    by_address: HashMap<Address, Vec<Arc<Endpoint>>, foldhash::fast::RandomState>,
}

impl Reuse {
    pub(super) fn new(members: &[Member]) -> Self {
        let mut by_address: HashMap<_, Vec<_>, _> =
            HashMap::with_capacity_and_hasher(members.len(), foldhash::fast::RandomState::default());
        for member in members {
            by_address.entry(member.endpoint.address.clone()).or_default().push(member.endpoint.clone());
        }
        Self { by_address }
    }

    /// The old object if there is an equal one (each can be taken once), else a new one.
    fn endpoint(&mut self, address: &Address, from: &ir::endpoint::Endpoint, transports: &Transports) -> Arc<Endpoint> {
        let transport = transports.select(from.metadata.as_deref());
        if let Some(old) = self.by_address.get_mut(address)
            && let Some(at) = old.iter().position(|e| e.is_same(&from.hostname, from.metadata.as_ref(), transport))
        {
            return old.swap_remove(at);
        }
        Endpoint::new(address.clone(), Arc::from(&*from.hostname), from.metadata.clone(), transport)
    }

    /// Marks what the new view no longer has.
    pub(super) fn retire_unused(&self) {
        self.by_address.values().flatten().for_each(|e| e.set_removed(true));
    }
}

/// The endpoints of the view under construction.
#[derive(Default)]
pub(super) struct View {
    pub(super) members: Vec<Member>,
    pub(super) localities: Vec<Arc<LocalityName>>,
    /// Locality weights, parallel to `localities`.
    weights: Vec<Option<u32>>,
}

impl View {
    pub(super) fn add_all(
        &mut self,
        from: &Assignment,
        transports: &Transports,
        pool: &mut Reuse,
    ) -> Result<(), String> {
        self.members.reserve(from.localities.iter().map(|l| l.endpoints.len()).sum());
        for locality in &from.localities {
            let index = self.add_locality(locality);
            for endpoint in &locality.endpoints {
                if let Address::Host { host, port } = &endpoint.address {
                    return Err(format!("endpoint {host}:{port} is a name: only DNS clusters may have names"));
                }
                self.members.push(Member {
                    endpoint: pool.endpoint(&endpoint.address, endpoint, transports),
                    weight: endpoint.weight.max(1),
                    health: endpoint.health,
                    locality: index,
                });
            }
        }
        Ok(())
    }

    /// The one endpoint of a logical DNS cluster: the template's name, standing for the addresses of `resolved`.
    pub(super) fn add_logical(
        &mut self,
        template: &Assignment,
        resolved: &Assignment,
        transports: &Transports,
        pool: &mut Reuse,
    ) -> Result<(), String> {
        let (locality, endpoint) = template
            .localities
            .iter()
            .find_map(|l| l.endpoints.first().map(|e| (l, e)))
            .ok_or("a logical DNS cluster needs one endpoint")?;
        let addresses: Vec<_> = resolved
            .localities
            .iter()
            .flat_map(|l| &l.endpoints)
            .filter_map(|e| match &e.address {
                Address::Ip(address) => Some(*address),
                Address::Host { .. } | Address::Pipe(_) => None,
            })
            .collect();
        if addresses.is_empty() {
            return Ok(());
        }
        let index = self.add_locality(locality);
        let logical = pool.endpoint(&endpoint.address, endpoint, transports);
        if logical.resolved().is_none_or(|old| *old != addresses) {
            logical.set_resolved(addresses);
        }
        self.members.push(Member { endpoint: logical, weight: 1, health: endpoint.health, locality: index });
        Ok(())
    }

    fn add_locality(&mut self, locality: &Locality) -> u32 {
        self.localities.push(Arc::new(LocalityName {
            region: locality.region.clone(),
            zone: locality.zone.clone(),
            sub_zone: locality.sub_zone.clone(),
            priority: locality.priority,
        }));
        self.weights.push(locality.weight);
        u32::try_from(self.localities.len() - 1).expect("localities fit in memory")
    }

    pub(super) fn balancer(&self, config: &ir::cluster::Cluster, assignment: Option<&Assignment>) -> Balancer {
        let hosts: Vec<lb::Host> = self
            .members
            .iter()
            .map(|m| lb::Host { weight: m.weight, health: m.endpoint.health(m.health), locality: m.locality })
            .collect();
        let localities: Vec<lb::Group> = self
            .localities
            .iter()
            .zip(&self.weights)
            .map(|(l, weight)| lb::Group { priority: l.priority, weight: weight.filter(|_| config.locality_weighted) })
            .collect();
        let policy = match config.lb {
            LbPolicy::RoundRobin | LbPolicy::ClusterProvided => lb::Policy::RoundRobin,
            LbPolicy::LeastRequest { choices } => lb::Policy::LeastRequest { choices },
            LbPolicy::Random => lb::Policy::Random,
        };
        let overprovisioning = assignment.map_or(0, |a| a.overprovisioning);
        Balancer::new(
            &hosts,
            &localities,
            &lb::Options { policy, panic_threshold: config.panic_threshold, overprovisioning },
        )
    }
}

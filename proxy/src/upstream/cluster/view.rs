//! A view of a cluster under construction: endpoints by locality, taken over from the view before where they are equal.

use std::{collections::HashMap, sync::Arc};

use super::{LocalityName, Member};
use crate::{
    ir::{
        self,
        balancing::{HashKeys, LbPolicy},
        endpoint::{Address, Assignment, Locality},
    },
    upstream::{
        endpoint::Endpoint,
        lb::{self, Balancer, Callers, Place},
        transport::Transports,
        uptime,
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

    /// The old object if there is one for the same host (each can be taken once), else a new one. New metadata alone make
    /// no new host: its counts, ejection and connections are what they were.
    fn endpoint(&mut self, address: &Address, from: &ir::endpoint::Endpoint, transports: &Transports) -> Arc<Endpoint> {
        let transport = transports.select(from.metadata.as_deref());
        if let Some(old) = self.by_address.get_mut(address) {
            let same = |e: &Arc<Endpoint>| e.is_same(&from.hostname, transport);
            let equal = |e: &Arc<Endpoint>| same(e) && e.has_metadata(from.metadata.as_ref());
            if let Some(at) = old.iter().position(equal) {
                return old.swap_remove(at);
            }
            if let Some(at) = old.iter().position(same) {
                let host = old.swap_remove(at);
                host.set_metadata(from.metadata.clone());
                return host;
            }
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

    /// The balancer of this view; without `callers` one that serves for display.
    pub(super) fn balancer(
        &self,
        config: &ir::cluster::Cluster,
        assignment: Option<&Assignment>,
        callers: Option<&Arc<Callers>>,
    ) -> Balancer {
        let keys = match config.lb {
            LbPolicy::RingHash(ring) => ring.keys,
            LbPolicy::Maglev(table) => table.keys,
            _ => HashKeys::default(),
        };
        let metadata: Vec<_> = self.members.iter().map(|m| m.endpoint.metadata()).collect();
        let hosts: Vec<lb::Host<'_>> = self
            .members
            .iter()
            .zip(&metadata)
            .map(|(m, metadata)| lb::Host {
                weight: m.weight,
                health: m.endpoint.health(m.health),
                locality: m.locality,
                key: lb::key(metadata.as_deref(), &m.endpoint.hostname, &m.endpoint.label, keys),
                metadata: metadata.as_deref(),
                since: m.endpoint.since(),
            })
            .collect();
        // What is only looked at needs no tables that take their time.
        let (policy, more) = match callers {
            Some(_) => (config.lb, config.lb_options.clone()),
            None => (LbPolicy::RoundRobin, Arc::default()),
        };
        let callers = callers.filter(|c| c.is_known() && config.lb_options.zone_aware.is_some());
        let place =
            |l: &LocalityName| Place { region: l.region.clone(), zone: l.zone.clone(), sub_zone: l.sub_zone.clone() };
        let places: Vec<Place> = callers.into_iter().flat_map(|_| &self.localities).map(|l| place(l)).collect();
        let localities: Vec<lb::Group<'_>> = self
            .localities
            .iter()
            .zip(&self.weights)
            .enumerate()
            .map(|(i, (l, weight))| lb::Group {
                priority: l.priority,
                // Among weighted localities one without a weight takes nothing.
                weight: config.locality_weighted.then(|| weight.unwrap_or(0)),
                place: places.get(i),
            })
            .collect();
        let options = lb::Options {
            policy,
            more: &more,
            panic_threshold: config.panic_threshold,
            overprovisioning: assignment.map_or(0, |a| a.overprovisioning),
            now: uptime(),
            callers,
        };
        Balancer::new(&hosts, &localities, &options)
    }
}

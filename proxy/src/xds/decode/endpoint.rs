//! Endpoints: load assignments, their localities and hosts.

use outrigger_wire::pb::envoy::config::{
    core::v3::HealthStatus,
    endpoint::v3::{
        ClusterLoadAssignment, Endpoint as PbEndpoint, LbEndpoint, LocalityLbEndpoints,
        cluster_load_assignment::Policy, lb_endpoint::HostIdentifier, locality_lb_endpoints::LbConfig,
    },
};

use super::{
    address,
    at::At,
    cluster_check,
    fields::fields,
    metadata,
    report::Reject,
    scalar::{enumeration, u32_in},
};
use crate::ir::endpoint::{Assignment, Endpoint, Health, Locality};

/// Whether endpoints may be names that have to be resolved.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hosts {
    Addresses,
    Names,
}

/// Envoy's bound on priorities.
const MAX_PRIORITY: u32 = 128;

pub(crate) fn assignment(message: &ClusterLoadAssignment, at: &At<'_>, hosts: Hosts) -> Result<Assignment, Reject> {
    fields!(at, message => ClusterLoadAssignment {
        read: [cluster_name, endpoints, policy],
        refuse: [named_endpoints],
    });
    let mut overprovisioning = 140;
    if let Some(policy) = &message.policy {
        let at = at.field("policy");
        fields!(&at, policy => Policy {
            read: [overprovisioning_factor],
            unsupported: [drop_overloads, endpoint_stale_after, weighted_priority_health],
        });
        let at = at.field("overprovisioning_factor");
        overprovisioning = u32_in(&policy.overprovisioning_factor, 140, 1..=u32::MAX, &at)?;
    }
    let localities = at.each("endpoints", &message.endpoints, |m, at| locality(m, at, hosts))?;
    for priority in 0..=MAX_PRIORITY {
        let weights = localities.iter().filter(|l| l.priority == priority).filter_map(|l| l.weight);
        if weights.map(u64::from).sum::<u64>() > u64::from(u32::MAX) {
            let reason = format!("the sum of the weights of the localities at priority {priority} exceeds 2^32-1");
            return Err(at.field("endpoints").reject(reason));
        }
    }
    Ok(Assignment { localities, overprovisioning })
}

fn locality(message: &LocalityLbEndpoints, at: &At<'_>, hosts: Hosts) -> Result<Locality, Reject> {
    fields!(at, message => LocalityLbEndpoints {
        read: [locality, lb_endpoints, load_balancing_weight, priority, lb_config],
        harmless: [metadata, proximity],
    });
    if message.priority > MAX_PRIORITY {
        return Err(at.field("priority").reject(format!("{} is more than {MAX_PRIORITY}", message.priority)));
    }
    let (name, list) = match &message.lb_config {
        None => ("lb_endpoints", &message.lb_endpoints),
        Some(LbConfig::LoadBalancerEndpoints(list)) => ("load_balancer_endpoints", &list.lb_endpoints),
        Some(LbConfig::LedsClusterLocalityConfig(_)) => {
            return Err(at.field("leds_cluster_locality_config").reject("is not supported by this release"));
        }
    };
    let endpoints = at.each(name, list, |m, at| endpoint(m, at, hosts))?.into_iter().flatten().collect::<Vec<_>>();
    if endpoints.iter().map(|e| u64::from(e.weight)).sum::<u64>() > u64::from(u32::MAX) {
        return Err(at.field(name).reject("the sum of the weights exceeds 2^32-1"));
    }
    let weight = match &message.load_balancing_weight {
        Some(_) => Some(u32_in(&message.load_balancing_weight, 1, 1..=u32::MAX, &at.field("load_balancing_weight"))?),
        None => None,
    };
    let place = message.locality.clone().unwrap_or_default();
    Ok(Locality {
        region: place.region.into(),
        zone: place.zone.into(),
        sub_zone: place.sub_zone.into(),
        priority: message.priority,
        weight,
        endpoints,
    })
}

fn endpoint(message: &LbEndpoint, at: &At<'_>, hosts: Hosts) -> Result<Option<Endpoint>, Reject> {
    fields!(at, message => LbEndpoint { read: [health_status, metadata, load_balancing_weight, host_identifier] });
    let host = match at.required("host_identifier", &message.host_identifier)? {
        HostIdentifier::Endpoint(host) => host,
        HostIdentifier::EndpointName(_) => {
            return Err(at.field("endpoint_name").reject("is not supported by this release"));
        }
    };
    let health = match enumeration(message.health_status, &at.field("health_status"))? {
        HealthStatus::Unknown | HealthStatus::Healthy => Health::Healthy,
        HealthStatus::Degraded => Health::Degraded,
        HealthStatus::Unhealthy | HealthStatus::Timeout => Health::Unhealthy,
        HealthStatus::Draining => Health::Draining,
    };
    let weight_at = at.field("load_balancing_weight");
    let weight = u32_in(&message.load_balancing_weight, 1, 1..=u32::MAX, &weight_at)?;
    let host_at = at.field("endpoint");
    fields!(&host_at, host => PbEndpoint {
        read: [address, hostname, health_check_config],
        harmless: [observability_name],
        unsupported: [additional_addresses],
    });
    let address_at = host_at.field("address");
    let message_address = host_at.required("address", &host.address)?;
    let Some(address) = address::upstream(message_address, hosts == Hosts::Names, &address_at)? else {
        address_at.unsupported("internal listeners do not exist here: the endpoint is left out");
        return Ok(None);
    };
    let metadata = metadata::metadata(&message.metadata, at);
    let check = match &host.health_check_config {
        Some(m) => Some(cluster_check::endpoint(m, &host_at.field("health_check_config"))?),
        None => None,
    };
    Ok(Some(Endpoint { address, hostname: host.hostname.as_str().into(), weight, health, metadata, check }))
}

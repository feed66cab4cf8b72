//! Settings that are taken and change nothing: no error in Istio, but the operator should know.

use super::place;
use crate::model::{Balance, DestinationRule, Object, Resolution, Service, TrafficPolicy, world::World};

pub(super) fn check(world: &World, notes: &mut Vec<String>) {
    for (_, object) in &world.destination_rules {
        let service = world.services.get(&object.spec.host);
        for effect in [waits_for_ejection(object, service), balances_nothing(object, service)] {
            notes.extend(effect.map(|text| format!("DestinationRule {}: {text}", place(object))));
        }
    }
}

/// The policies of a rule that differ: for each port of the service, of the host and its subsets.
fn policies(rule: &DestinationRule, service: Option<&Service>) -> Vec<TrafficPolicy> {
    let ports: Vec<u16> = service.map_or_else(|| vec![0], |s| s.ports.iter().map(|port| port.number).collect());
    let subsets = || std::iter::once(None).chain(rule.subsets.iter().map(|subset| Some(subset.name.as_str())));
    ports.iter().flat_map(|port| subsets().map(move |subset| rule.policy(subset, *port))).collect()
}

/// Without ejection the near endpoints never count as failed, so that nothing ever goes elsewhere.
fn waits_for_ejection(object: &Object<DestinationRule>, service: Option<&Service>) -> Option<String> {
    let waits = |policy: &TrafficPolicy| {
        let setting = policy.load_balancer.as_ref().and_then(|b| b.locality_lb_setting.as_ref());
        policy.outlier_detection.is_none()
            && setting
                .is_some_and(|s| s.enabled != Some(false) && !(s.failover.is_empty() && s.failover_priority.is_empty()))
    };
    let text = "failover and failoverPriority of localityLbSetting have no effect without outlierDetection";
    policies(&object.spec, service).iter().any(waits).then(|| text.to_owned())
}

/// Where clients choose the address themselves, no balancer is asked.
fn balances_nothing(object: &Object<DestinationRule>, service: Option<&Service>) -> Option<String> {
    let service = service.filter(|s| s.resolution == Resolution::OriginalDst || s.headless)?;
    let balancer = object.spec.traffic_policy.load_balancer.as_ref()?;
    let asked =
        balancer.simple.is_some_and(|simple| simple != Balance::Passthrough) || balancer.consistent_hash.is_some();
    let text = "its loadBalancer has no effect but on subsets, because clients choose the addresses of";
    asked.then(|| format!("{text} {}", service.host))
}

//! Half-open hosts among picks, and what results raise.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use tokio::sync::mpsc;

use super::*;
use crate::{
    ir::{
        cluster::{Cluster as Config, Discovery, HealthPolicy},
        endpoint::{Assignment, Locality},
        outlier::OutlierDetection,
    },
    upstream::{
        HealthFlag,
        outlier::{Outcome, PROBES},
        testing,
    },
};

/// A cluster of hosts with ports from 1, so many in each priority.
fn cluster(priorities: &[u16], panic_threshold: u8) -> Arc<Cluster> {
    let mut port = 0;
    let mut hosts = |count| {
        let host = |port| testing::endpoint(Address::Ip(SocketAddr::from(([127, 0, 0, 1], port))));
        port += count;
        (port - count + 1..=port).map(host).collect()
    };
    let localities = (0..)
        .zip(priorities)
        .map(|(priority, count)| Locality { priority, endpoints: hosts(*count), ..Locality::default() })
        .collect();
    let assignment = Arc::new(Assignment { localities, overprovisioning: 140 });
    let policy = HealthPolicy { outlier: Some(OutlierDetection::default()), ..HealthPolicy::default() };
    let config = Config {
        panic_threshold,
        health: Some(Arc::new(policy)),
        ..testing::config("c", Discovery::Static(assignment))
    };
    build(Arc::new(config), None)
}

fn build(config: Arc<Config>, before: Option<&Arc<Cluster>>) -> Arc<Cluster> {
    Cluster::build(config, None, &Deps::default(), before).unwrap()
}

/// Ejects `hosts`, makes them half-open, and builds the view that knows.
fn half_open(cluster: &Arc<Cluster>, hosts: &[usize], round: u32) -> Arc<Cluster> {
    for at in hosts {
        let endpoint = &cluster.members()[*at].endpoint;
        endpoint.set_flag(HealthFlag::FailedOutlierCheck, true);
        endpoint.monitor().probes.open(round, PROBES);
    }
    let next = build(cluster.config.clone(), Some(cluster));
    let parts = next.parts();
    parts.set_half_open(hosts.iter().map(|at| parts.members[*at].endpoint.clone()).collect());
    next
}

fn pick(cluster: &Cluster) -> Picked {
    cluster.pick_for_try(&PickContext { random: fastrand::u64(..), ..PickContext::default() }).unwrap()
}

fn port(picked: &Picked) -> u16 {
    match &picked.endpoint.address {
        Address::Ip(address) => address.port(),
        other => panic!("{other}"),
    }
}

#[test]
fn a_half_open_host_gets_its_probes_and_no_more() {
    let cluster = half_open(&cluster(&[3], 0), &[0], 7);
    let picks: Vec<Picked> = (0..100).map(|_| pick(&cluster)).collect();
    let mut ports = HashMap::<u16, u32>::new();
    picks.iter().for_each(|p| *ports.entry(port(p)).or_default() += 1);
    assert_eq!(ports[&1], PROBES);
    assert!(ports[&2] > 40 && ports[&3] > 40, "{ports:?}");
    assert!(picks.iter().all(|p| p.probe.is_some() == (port(p) == 1)));
    drop(picks);
    // What came to nothing is given back.
    assert_eq!((0..100).map(|_| pick(&cluster)).filter(|p| port(p) == 1).count(), 100, "one after the other");
}

#[test]
fn a_probe_goes_where_the_priority_has_traffic_and_was_not_tried_before() {
    let cluster = half_open(&cluster(&[4, 2], 0), &[5], 1);
    assert!((0..50).map(|_| pick(&cluster)).all(|p| port(&p) <= 4 && p.probe.is_none()));
    let cluster = half_open(&cluster, &[0], 2);
    let tried = [cluster.members()[0].endpoint.clone()];
    let context = PickContext { random: 5, exclude: &tried, attempts: 3, ..PickContext::default() };
    assert_ne!(port(&cluster.pick_for_try(&context).unwrap()), 1);
    assert_eq!(port(&pick(&cluster)), 1);
}

#[test]
fn where_all_else_is_out_the_bound_is_lifted() {
    let cluster = half_open(&cluster(&[2], 0), &[0, 1], 1);
    let picks: Vec<Picked> = (0..40).map(|_| pick(&cluster)).collect();
    assert_eq!(picks.iter().filter(|p| p.probe.is_some()).count() as u32, 2 * PROBES);
    assert_eq!(cluster.pick(&PickContext::default()).unwrap_err(), PickError::NoneHealthy);
}

#[test]
fn in_panic_everyone_is_picked_and_counted() {
    let cluster = half_open(&cluster(&[2], 60), &[0], 1);
    let picks: Vec<Picked> = (0..40).map(|_| pick(&cluster)).collect();
    assert_eq!(picks.iter().filter(|p| p.probe.is_some()).count() as u32, PROBES);
    assert!(picks.iter().filter(|p| port(p) == 1).count() > PROBES as usize);
    let mut panicked = 0;
    cluster.visit_stats(&mut |name, _, value| panicked += if name == "lb_healthy_panic" { value } else { 0 });
    assert_eq!(panicked, 40);
}

#[test]
fn what_the_control_thread_is_to_hear_is_said_once() {
    let cluster = cluster(&[2], 0);
    let (alarms, mut heard) = mpsc::unbounded_channel();
    cluster.watch(&alarms);
    let endpoint = cluster.members()[0].endpoint.clone();
    for _ in 0..20 {
        cluster.report(&endpoint, None, Outcome::Failed);
    }
    let alarm = heard.try_recv().unwrap();
    assert!(alarm.cluster == cluster.id() && Arc::ptr_eq(&alarm.endpoint, &endpoint));
    assert!(heard.try_recv().is_err());
    let cluster = half_open(&cluster, &[0], 9);
    endpoint.monitor().take_raised();
    let (first, second) = (pick(&cluster), pick(&cluster));
    cluster.report(&first.endpoint, first.probe, Outcome::Response(200));
    cluster.report(&second.endpoint, second.probe, Outcome::Response(404));
    assert!(heard.try_recv().is_ok() && heard.try_recv().is_err());
    assert!(endpoint.monitor().take_raised().probed());
    assert_eq!(endpoint.monitor().probes.take_answers(), (9, 2, 0));
}

#[test]
fn hosts_that_something_else_keeps_out_are_not_probed() {
    let before = cluster(&[3], 0);
    let cluster = half_open(&before, &[0], 1);
    cluster.members()[0].endpoint.set_checked(true);
    assert!((0..20).all(|_| port(&pick(&cluster)) != 1), "it fails its active check");
    cluster.members()[0].endpoint.set_checked(false);
    assert_eq!(port(&pick(&cluster)), 1);
}

#[test]
fn a_request_for_hosts_with_some_labels_proves_no_others() {
    let labelled = |port: u16, version: &str| {
        let labels = serde_json::Map::from_iter([("version".to_owned(), version.into())]);
        let metadata = std::collections::BTreeMap::from([("envoy.lb".to_owned(), labels)]);
        let address = Address::Ip(SocketAddr::from(([127, 0, 0, 1], port)));
        crate::ir::endpoint::Endpoint { metadata: Some(Arc::new(metadata)), ..testing::endpoint(address) }
    };
    let hosts = vec![labelled(1, "v1"), labelled(2, "v2"), labelled(3, "v1")];
    let policy = HealthPolicy { outlier: Some(OutlierDetection::default()), ..HealthPolicy::default() };
    let config = Config {
        panic_threshold: 0,
        health: Some(Arc::new(policy)),
        ..testing::config("c", Discovery::Static(testing::assignment(hosts)))
    };
    let cluster = half_open(&build(Arc::new(config), None), &[0], 1);
    let members = cluster.members();
    let admit = |at: usize| cluster.admit(Ok(members[at].endpoint.clone()), &PickContext::default()).unwrap();
    assert_eq!([port(&admit(1)), port(&admit(2))], [2, 1]);
    assert!(cluster.admit(Err(PickError::NoneHealthy), &PickContext::default()).is_err(), "not known for which");
}

#[test]
fn no_host_that_is_out_is_picked_unless_in_panic_or_to_prove_itself() {
    for seed in 0..10_000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let sizes: Vec<u16> = (0..rng.u8(1..4)).map(|_| rng.u16(1..6)).collect();
        let cluster = cluster(&sizes, if rng.bool() { 0 } else { 50 });
        let count = cluster.members().len();
        let (mut out, mut open) = (vec![false; count], Vec::new());
        for (at, out) in out.iter_mut().enumerate() {
            *out = rng.u8(0..3) == 0;
            cluster.members()[at].endpoint.set_flag(HealthFlag::FailedOutlierCheck, *out);
            if *out && rng.bool() {
                open.push(at);
            }
        }
        let cluster = half_open(&cluster, &open, 1);
        let parts = cluster.parts();
        let mut probes = vec![0u32; count];
        let mut held = Vec::new();
        for _ in 0..30 {
            let context = PickContext { random: rng.u64(..), ..PickContext::default() };
            let plain = cluster.pick(&context);
            let Ok(picked) = cluster.pick_for_try(&context) else {
                assert!(plain.is_err() && open.is_empty(), "seed {seed}: somebody could have taken it");
                continue;
            };
            let at = usize::from(port(&picked)) - 1;
            if picked.probe.is_some() {
                probes[at] += 1;
                assert!(open.contains(&at) && probes[at] <= PROBES, "seed {seed}: {probes:?}");
            } else if out[at] {
                let panic = parts.in_panic(&parts.members[at]);
                assert!(panic || (plain.is_err() && open.contains(&at)), "seed {seed}: host {at} is out");
            }
            if rng.bool() {
                held.push(picked);
            } else if picked.probe.is_some() {
                probes[at] -= 1;
            }
        }
    }
}

//! The documentation pages of Istio's tasks, done: what is published is applied to the control plane, and meshed Pods
//! show what the page promises. One test per page; small stand-ins play the pages' applications.

#![allow(clippy::unwrap_used)]

mod apps;
mod authorization;
mod bookinfo;
mod circuit_breaking;
mod egress;
mod fault_injection;
mod httpbin;
mod jwt;
mod kubectl;
mod locality;
mod mirroring;
mod mutual_tls;
mod request_routing;
mod request_timeouts;
mod security;
mod tcp_shifting;
mod traffic_shifting;

use outrigger_tests::{Member, Mesh, Workload};

/// Starts all members at once and waits for each.
fn join<const N: usize>(mesh: &mut Mesh, members: [Member<'_>; N]) -> [Workload; N] {
    let workloads = members.map(|member| mesh.join(&member));
    workloads.iter().for_each(Workload::wait_ready);
    workloads
}

/// Whether `count` of `total` is what a share of `percent` gives: five standard deviations, one failure in a million.
fn is_share(count: usize, total: usize, percent: f64) -> bool {
    let (total, share) = (total as f64, percent / 100.0);
    (count as f64 - total * share).abs() <= 5.0 * (total * share * (1.0 - share)).sqrt()
}

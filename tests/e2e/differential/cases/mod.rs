//! The corpus by subject.

mod balancing;
mod breakers;
mod domains;
mod headers;
mod normalise;
mod protocol;
mod redirects;
mod retries;
mod rewrites;
mod routing;
mod tcp;
mod timeouts;

use crate::harness::{Group, group};

pub(crate) fn groups() -> Vec<Group> {
    vec![
        group("routing", routing::cases()),
        group("domains", domains::cases()),
        group("redirects", redirects::cases()),
        group("rewrites", rewrites::cases()),
        group("headers", headers::cases()),
        group("retries", retries::cases()),
        group("protocol", protocol::cases()),
        group("normalise", normalise::cases()),
        group("breakers", breakers::cases()),
        group("tcp", tcp::cases()),
        group("balancing", balancing::cases()),
        group("timeouts", timeouts::cases()),
    ]
}

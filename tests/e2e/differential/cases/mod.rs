//! The corpus by subject.

mod bad_requests;
mod balancing;
mod breakers;
mod domains;
mod filters;
mod hashing;
mod headers;
mod health;
mod local_reply;
mod normalise;
mod protocol;
mod redirects;
mod retries;
mod retry_limits;
mod rewrites;
mod routing;
mod subsets;
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
        group("bad_requests", bad_requests::cases()),
        group("normalise", normalise::cases()),
        group("breakers", breakers::cases()),
        group("tcp", tcp::cases()),
        group("balancing", balancing::cases()),
        group("timeouts", timeouts::cases()),
        group("hashing", hashing::cases()),
        group("subsets", subsets::cases()),
        group("outliers", health::outliers()),
        group("health_checks", health::checks()),
        group("faults", filters::faults()),
        group("cors", filters::cors()),
        group("mirroring", filters::mirroring()),
        group("other_filters", filters::others()),
        group("local_replies", local_reply::cases()),
    ]
}

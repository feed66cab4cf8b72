//! The corpus by subject.

mod bad_requests;
mod balancing;
mod breakers;
mod domains;
mod filters;
mod hashing;
mod headers;
mod health;
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

use crate::harness::{Group, group, pending};

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
        pending("hashing", "consistent hashing", hashing::cases()),
        pending("subsets", "subset load balancing", subsets::cases()),
        pending("outliers", "outlier detection", health::outliers()),
        pending("health_checks", "active health checks", health::checks()),
        pending("faults", "the fault filter", filters::faults()),
        pending("cors", "the CORS filter", filters::cors()),
        pending("mirroring", "mirroring", filters::mirroring()),
        pending("other_filters", "further filters and route actions", filters::others()),
    ]
}

//! The corpus by subject.

mod bad_requests;
mod balancing;
mod breakers;
mod domains;
mod ext_authz;
mod filters;
mod hashing;
mod headers;
mod health;
mod jwt_authn;
mod limits;
mod limits_global;
mod local_reply;
mod normalise;
mod protocol;
mod rbac;
mod rbac_network;
mod rbac_paths;
mod rbac_trees;
mod redirects;
mod retries;
mod retry_limits;
mod rewrites;
mod routing;
mod subsets;
mod tcp;
mod timeouts;
mod upgrades;

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
        group("ext_authz_http", ext_authz::over_http()),
        group("ext_authz_grpc", ext_authz::over_grpc()),
        group("jwt_tokens", jwt_authn::tokens()),
        group("jwt_requirements", jwt_authn::requirements()),
        group("other_filters", filters::others()),
        group("local_limits", limits::local()),
        group("connection_limits", limits::connections().into_iter().chain(limits_global::connections()).collect()),
        group("global_limits", limits_global::global()),
        group("rbac", rbac::cases()),
        group("rbac_trees", rbac_trees::cases()),
        group("rbac_paths", rbac_paths::cases()),
        group("rbac_connections", rbac_network::connections()),
        group("rbac_identities", rbac_network::identities()),
        group("local_replies", local_reply::cases()),
        group("upgrades", upgrades::cases()),
    ]
}

//! The rate limit service: `envoy.service.ratelimit.v3.RateLimitService` for the proxies of the mesh.
//!
//! `rate` is the arithmetic, `memory` and `redis` keep counters, `rules` finds the limits of a descriptor (those of
//! RateLimit objects, and those of rules files, which `file` reads), `service` answers, `stats` counts.
//! Invariant: only an authenticated caller is counted, and for an object's limit only one that the object may select.

pub mod file;
pub mod memory;
pub mod rate;
pub mod redis;
pub mod rules;
pub mod service;
pub mod stats;

#[cfg(test)]
mod file_tests;
#[cfg(test)]
mod memory_tests;
#[cfg(test)]
mod rate_tests;
#[cfg(test)]
mod redis_tests;
#[cfg(test)]
mod rules_tests;

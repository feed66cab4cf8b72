//! The product's pure decisions, one by one. Never a gate: they say where time goes, the load bench says whether it
//! matters. Configurations are decoded from the JSON an operator could write, so that nothing is tuned for the bench.
#![allow(missing_docs, reason = "criterion's macros make public functions")]

mod access_log;
mod chain;
mod headers;
mod limits;
mod pick;
mod rbac;
mod rebuild;
mod router;
mod sniff;
mod support;

use criterion::{criterion_group, criterion_main};

criterion_group!(
    benches,
    router::bench,
    chain::bench,
    sniff::bench,
    pick::bench,
    rebuild::bench,
    headers::bench,
    access_log::bench,
    limits::bench,
    rbac::bench
);
criterion_main!(benches);

//! The same bootstrap file and the same script of requests on a real Envoy and on our proxy: what clients and upstream
//! hosts observed, and what was logged, must be the same. `DIFFERENCES.md` lists what differs, and why.

#![allow(clippy::unwrap_used)]

mod cases;
mod harness;

use std::collections::BTreeSet;

use outrigger_tests::{need, peers::root};

/// Every group of [`cases::groups`] is a test of its own.
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        const TESTED: &[&str] = &[$(stringify!($name)),*];
        $(
            #[test]
            fn $name() {
                need!("envoy");
                let group = cases::groups().into_iter().find(|g| g.name == stringify!($name));
                harness::run(group.expect("the group exists"));
            }
        )*
    };
}

tests! {
    routing,
    domains,
    redirects,
    rewrites,
    headers,
    retries,
    timeouts,
    protocol,
    upgrades,
    bad_requests,
    normalise,
    breakers,
    tcp,
    balancing,
    hashing,
    subsets,
    outliers,
    health_checks,
    faults,
    cors,
    mirroring,
    ext_authz_http,
    ext_authz_grpc,
    jwt_tokens,
    jwt_requirements,
    other_filters,
    local_limits,
    connection_limits,
    global_limits,
    rbac,
    rbac_trees,
    rbac_paths,
    rbac_connections,
    rbac_identities,
    local_replies,
}

/// Requests of the corpus that have to be explained right: less means that the test looks at nothing any more.
const EXPLAINED: usize = 500;

#[test]
fn explanations_agree_with_what_happens() {
    let mut all = harness::Agreement::default();
    for group in cases::groups() {
        all.add(harness::explained(group));
    }
    eprintln!("explained: {} agreed, {} unknown, {} not described", all.agreed, all.unknown, all.skipped);
    assert!(all.disagreements.is_empty(), "{} differ\n{}", all.disagreements.len(), all.disagreements.join("\n"));
    let partial = std::env::var_os("OUTRIGGER_DIFFERENTIAL_CASE").is_some();
    assert!(partial || all.agreed >= EXPLAINED, "only {} explanations were compared", all.agreed);
}

#[test]
fn the_corpus_is_large_and_all_of_it_is_run() {
    let groups = cases::groups();
    let names: BTreeSet<&str> = groups.iter().map(|g| g.name).collect();
    assert_eq!(names, TESTED.iter().copied().collect());
    let running = groups.iter().flat_map(|g| &g.cases).count();
    assert!(running >= 150, "only {running} cases run");
    let mut seen = BTreeSet::new();
    for case in groups.iter().flat_map(|g| &g.cases) {
        assert!(seen.insert(case.name), "{} exists twice", case.name);
        assert!(!case.steps.is_empty(), "{} does nothing", case.name);
    }
}

#[test]
fn the_table_of_differences_is_what_the_cases_say() {
    let file = root().join("tests/e2e/differential/DIFFERENCES.md");
    let table = harness::table::table(&cases::groups());
    if std::env::var_os("OUTRIGGER_UPDATE_DIFFERENCES").is_some() {
        std::fs::write(&file, &table).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap_or_default(), table, "see the head of the table");
}

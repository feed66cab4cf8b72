//! Subsets of a cluster's hosts, chosen by metadata.

use crate::harness::{Case, case, get};

const HOSTS: &str = "
  load_assignment:
    cluster_name: x
    endpoints:
    - lb_endpoints:
      - {endpoint: {address: $socket_h1}, metadata: {filter_metadata: {envoy.lb: {version: '1', stage: prod}}}}
      - {endpoint: {address: $socket_h2}, metadata: {filter_metadata: {envoy.lb: {version: '2', stage: prod}}}}
      - {endpoint: {address: $socket_h3}, metadata: {filter_metadata: {envoy.lb: {version: '2', stage: dev}}}}
";

const ROUTES: &str = "
- match: {prefix: /v1}
  route: {cluster: $a, metadata_match: {filter_metadata: {envoy.lb: {version: '1'}}}}
- match: {prefix: /v2prod}
  route: {cluster: $a, metadata_match: {filter_metadata: {envoy.lb: {version: '2', stage: prod}}}}
- match: {prefix: /v9}
  route: {cluster: $a, metadata_match: {filter_metadata: {envoy.lb: {version: '9'}}}}
- match: {prefix: /stage}
  route: {cluster: $a, metadata_match: {filter_metadata: {envoy.lb: {stage: dev}}}}
- match: {prefix: /}
  route: {cluster: $a}
";

fn subset(name: &'static str, config: &'static str) -> Case {
    // The fragment and the hosts in one: a case's fragments live as long as the program.
    let extra: &'static str = Box::leak(format!("{config}{HOSTS}").into_boxed_str());
    case(name)
        .echoes(&["h1", "h2", "h3"])
        .cluster("a", &[], extra)
        .routes(ROUTES)
        .requests(["/v1", "/v1", "/v2prod", "/v2prod", "/v9", "/stage"].map(get))
}

pub(crate) fn cases() -> Vec<Case> {
    vec![
        subset(
            "subset-no-fallback",
            "
  lb_subset_config:
    fallback_policy: NO_FALLBACK
    subset_selectors: [{keys: [version]}, {keys: [version, stage]}]",
        ),
        subset(
            "subset-any-endpoint",
            "
  lb_subset_config:
    fallback_policy: ANY_ENDPOINT
    subset_selectors: [{keys: [version]}, {keys: [version, stage]}, {keys: [stage]}]",
        )
        .client_only()
        .by_chance("5 < body", "it falls back to any of the hosts"),
        subset(
            "subset-default",
            "
  lb_subset_config:
    fallback_policy: DEFAULT_SUBSET
    default_subset: {version: '1'}
    subset_selectors: [{keys: [version]}, {keys: [version, stage]}]",
        ),
        subset(
            "subset-selector-fallback",
            "
  lb_subset_config:
    fallback_policy: ANY_ENDPOINT
    default_subset: {version: '1'}
    subset_selectors:
    - {keys: [version], fallback_policy: NO_FALLBACK}
    - {keys: [version, stage]}
    - {keys: [stage], fallback_policy: DEFAULT_SUBSET}",
        ),
        subset(
            "subset-keys-subset",
            "
  lb_subset_config:
    fallback_policy: NO_FALLBACK
    subset_selectors:
    - {keys: [version]}
    - {keys: [version, stage], fallback_policy: KEYS_SUBSET, fallback_keys_subset: [version]}",
        ),
        subset(
            "subset-spread",
            "
  lb_subset_config:
    fallback_policy: NO_FALLBACK
    subset_selectors: [{keys: [stage]}, {keys: [version]}]",
        )
        .client_only()
        .spread(100, get("/v1")),
    ]
}

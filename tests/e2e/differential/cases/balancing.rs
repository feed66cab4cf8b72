//! Which host of a cluster is chosen. Choices by chance are compared as shares.

use crate::harness::{Case, case, get};

pub(crate) fn cases() -> Vec<Case> {
    let balanced =
        |name, extra| case(name).echoes(&["h1", "h2", "h3"]).cluster("a", &["h1", "h2", "h3"], extra).client_only();
    let assigned = |name, extra| case(name).echoes(&["h1", "h2", "h3"]).cluster("a", &[], extra).client_only();
    vec![
        balanced("round-robin", "lb_policy: ROUND_ROBIN").spread(300, get("/")),
        balanced("random", "lb_policy: RANDOM").spread(600, get("/")),
        balanced("least-request-of-idle-hosts", "lb_policy: LEAST_REQUEST").spread(600, get("/")),
        assigned(
            "round-robin-weights",
            "
            load_assignment:
              cluster_name: x
              endpoints:
              - lb_endpoints:
                - {endpoint: {address: $socket_h1}, load_balancing_weight: 1}
                - {endpoint: {address: $socket_h2}, load_balancing_weight: 2}
                - {endpoint: {address: $socket_h3}, load_balancing_weight: 7}
            ",
        )
        .spread(500, get("/")),
        assigned(
            "random-weights",
            "
            lb_policy: RANDOM
            load_assignment:
              cluster_name: x
              endpoints:
              - lb_endpoints:
                - {endpoint: {address: $socket_h1}, load_balancing_weight: 1}
                - {endpoint: {address: $socket_h2}, load_balancing_weight: 2}
                - {endpoint: {address: $socket_h3}, load_balancing_weight: 7}
            ",
        )
        .explained("< HTTP/1.1 200 < body", "weights count for random picks too; Envoy ignores them there")
        .spread(500, get("/")),
        assigned(
            "least-request-weights",
            "
            lb_policy: LEAST_REQUEST
            load_assignment:
              cluster_name: x
              endpoints:
              - lb_endpoints:
                - {endpoint: {address: $socket_h1}, load_balancing_weight: 1}
                - {endpoint: {address: $socket_h2}, load_balancing_weight: 2}
                - {endpoint: {address: $socket_h3}, load_balancing_weight: 7}
            ",
        )
        .spread(500, get("/")),
        assigned(
            "unhealthy-by-assignment",
            "
            load_assignment:
              cluster_name: x
              endpoints:
              - lb_endpoints:
                - {endpoint: {address: $socket_h1}, health_status: UNHEALTHY}
                - {endpoint: {address: $socket_h2}, health_status: HEALTHY}
                - {endpoint: {address: $socket_h3}, health_status: DRAINING}
            common_lb_config: {healthy_panic_threshold: {value: 0}}
            ",
        )
        .spread(60, get("/")),
        assigned(
            "degraded-by-assignment",
            "
            load_assignment:
              cluster_name: x
              endpoints:
              - lb_endpoints:
                - {endpoint: {address: $socket_h1}, health_status: DEGRADED}
                - {endpoint: {address: $socket_h2}, health_status: UNHEALTHY}
                - {endpoint: {address: $socket_h3}, health_status: DEGRADED}
            common_lb_config: {healthy_panic_threshold: {value: 0}}
            ",
        )
        .spread(100, get("/")),
        assigned(
            "all-unhealthy-without-panic",
            "
            load_assignment:
              cluster_name: x
              endpoints: [{lb_endpoints: [{endpoint: {address: $socket_h1}, health_status: UNHEALTHY}]}]
            common_lb_config: {healthy_panic_threshold: {value: 0}}
            ",
        )
        .requests([get("/")]),
        assigned(
            "panic",
            "
            load_assignment:
              cluster_name: x
              endpoints:
              - lb_endpoints:
                - {endpoint: {address: $socket_h1}, health_status: UNHEALTHY}
                - {endpoint: {address: $socket_h2}, health_status: UNHEALTHY}
                - {endpoint: {address: $socket_h3}, health_status: HEALTHY}
            ",
        )
        .spread(300, get("/")),
        assigned(
            "priorities",
            "
            load_assignment:
              cluster_name: x
              endpoints:
              - {priority: 0, lb_endpoints: [{endpoint: {address: $socket_h1}}]}
              - {priority: 1, lb_endpoints: [{endpoint: {address: $socket_h2}}]}
              - {priority: 2, lb_endpoints: [{endpoint: {address: $socket_h3}}]}
            ",
        )
        .spread(60, get("/")),
        assigned(
            "failover",
            "
            load_assignment:
              cluster_name: x
              endpoints:
              - {priority: 0, lb_endpoints: [{endpoint: {address: $socket_h1}, health_status: UNHEALTHY}]}
              - {priority: 1, lb_endpoints: [{endpoint: {address: $socket_h2}}]}
              - {priority: 2, lb_endpoints: [{endpoint: {address: $socket_h3}}]}
            ",
        )
        .spread(60, get("/")),
        assigned(
            "partial-failover",
            "
            load_assignment:
              cluster_name: x
              endpoints:
              - priority: 0
                lb_endpoints:
                - {endpoint: {address: $socket_h1}}
                - {endpoint: {address: $socket_h2}, health_status: UNHEALTHY}
              - {priority: 1, lb_endpoints: [{endpoint: {address: $socket_h3}}]}
            ",
        )
        .spread(500, get("/")),
        assigned(
            "overprovisioning",
            "
            load_assignment:
              cluster_name: x
              policy: {overprovisioning_factor: 100}
              endpoints:
              - priority: 0
                lb_endpoints:
                - {endpoint: {address: $socket_h1}}
                - {endpoint: {address: $socket_h2}, health_status: UNHEALTHY}
              - {priority: 1, lb_endpoints: [{endpoint: {address: $socket_h3}}]}
            ",
        )
        .spread(500, get("/")),
        assigned(
            "locality-weights",
            "
            common_lb_config: {locality_weighted_lb_config: {}}
            load_assignment:
              cluster_name: x
              endpoints:
              - {locality: {zone: a}, load_balancing_weight: 1, lb_endpoints: [{endpoint: {address: $socket_h1}}]}
              - {locality: {zone: b}, load_balancing_weight: 3, lb_endpoints: [{endpoint: {address: $socket_h2}}]}
              - {locality: {zone: c}, lb_endpoints: [{endpoint: {address: $socket_h3}}]}
            ",
        )
        .spread(500, get("/")),
        assigned(
            "locality-weights-and-health",
            "
            common_lb_config: {locality_weighted_lb_config: {}}
            load_assignment:
              cluster_name: x
              endpoints:
              - locality: {zone: a}
                load_balancing_weight: 1
                lb_endpoints: [{endpoint: {address: $socket_h1}}, {endpoint: {address: $socket_h2}, health_status: UNHEALTHY}]
              - {locality: {zone: b}, load_balancing_weight: 1, lb_endpoints: [{endpoint: {address: $socket_h3}}]}
            ",
        )
        .spread(600, get("/")),
        assigned(
            "policy-as-extension",
            "
            load_balancing_policy:
              policies:
              - typed_extension_config:
                  name: rr
                  typed_config: {'@type': type.googleapis.com/envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin}
            load_assignment:
              cluster_name: x
              endpoints:
              - lb_endpoints:
                - {endpoint: {address: $socket_h1}, load_balancing_weight: 3}
                - {endpoint: {address: $socket_h2}, load_balancing_weight: 1}
            ",
        )
        .spread(200, get("/")),
        case("strict-dns")
            .echoes(&["h1"])
            .cluster(
                "a",
                &[],
                "
                type: STRICT_DNS
                dns_lookup_family: V4_ONLY
                load_assignment:
                  cluster_name: x
                  endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: localhost, port_value: $port_h1}}}}]}]
                ",
            )
            .requests([get("/")]),
        case("logical-dns").explained("upstream=", "the host is logged by the name it was configured with")
            .echoes(&["h1"])
            .cluster(
                "a",
                &[],
                "
                type: LOGICAL_DNS
                dns_lookup_family: V4_ONLY
                load_assignment:
                  cluster_name: x
                  endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: localhost, port_value: $port_h1}}}}]}]
                ",
            )
            .requests([get("/")]),
    ]
}

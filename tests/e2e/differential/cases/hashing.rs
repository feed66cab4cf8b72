//! Consistent hashing: the same key goes to the same host as with Envoy, which needs the same ring.

use crate::harness::{Case, Req, case, get};

/// Hosts with names of their own in the ring: a port would differ from run to run.
const RING: &str = "
lb_policy: RING_HASH
load_assignment:
  cluster_name: x
  endpoints:
  - lb_endpoints:
    - {endpoint: {address: $socket_h1}, metadata: {filter_metadata: {envoy.lb: {hash_key: one}}}}
    - {endpoint: {address: $socket_h2}, metadata: {filter_metadata: {envoy.lb: {hash_key: two}}}}
    - {endpoint: {address: $socket_h3}, metadata: {filter_metadata: {envoy.lb: {hash_key: three}}}}
";
const MAGLEV: &str = "
lb_policy: MAGLEV
load_assignment:
  cluster_name: x
  endpoints:
  - lb_endpoints:
    - {endpoint: {address: $socket_h1}, metadata: {filter_metadata: {envoy.lb: {hash_key: one}}}}
    - {endpoint: {address: $socket_h2}, metadata: {filter_metadata: {envoy.lb: {hash_key: two}}}}
    - {endpoint: {address: $socket_h3}, metadata: {filter_metadata: {envoy.lb: {hash_key: three}}}}
";

fn hashed(name: &'static str, cluster: &'static str, routes: &'static str) -> Case {
    case(name).echoes(&["h1", "h2", "h3"]).cluster("a", &[], cluster).routes(routes)
}

const BY_HEADER: &str = "
- match: {prefix: /}
  route: {cluster: $a, hash_policy: [{header: {header_name: x-key}}]}
";

fn keys(n: usize) -> impl Iterator<Item = Req> {
    (0..n).map(|i| get("/").header("x-key", &format!("key-{i}")))
}

pub(crate) fn cases() -> Vec<Case> {
    let mut all = rings();
    all.extend(policies());
    all
}

fn rings() -> Vec<Case> {
    vec![
        hashed("ring-hash-keys", RING, BY_HEADER).requests(keys(60)),
        hashed("maglev-keys", MAGLEV, BY_HEADER).requests(keys(60)),
        hashed("ring-hash-by-address", "lb_policy: RING_HASH", BY_HEADER)
            .cluster("b", &["h1", "h2", "h3"], "lb_policy: RING_HASH")
            .routes("- match: {prefix: /}\n  route: {cluster: $b, hash_policy: [{header: {header_name: x-key}}]}")
            .requests(keys(40)),
        hashed("maglev-by-address", "lb_policy: MAGLEV", BY_HEADER)
            .cluster("b", &["h1", "h2", "h3"], "lb_policy: MAGLEV")
            .routes("- match: {prefix: /}\n  route: {cluster: $b, hash_policy: [{header: {header_name: x-key}}]}")
            .requests(keys(40)),
        hashed(
            "ring-hash-sizes",
            "
            lb_policy: RING_HASH
            ring_hash_lb_config: {minimum_ring_size: 8, maximum_ring_size: 16}
            load_assignment:
              cluster_name: x
              endpoints:
              - lb_endpoints:
                - {endpoint: {address: $socket_h1}, metadata: {filter_metadata: {envoy.lb: {hash_key: one}}}}
                - {endpoint: {address: $socket_h2}, metadata: {filter_metadata: {envoy.lb: {hash_key: two}}}}
            ",
            BY_HEADER,
        )
        .requests(keys(40)),
        hashed(
            "ring-hash-murmur",
            "
            lb_policy: RING_HASH
            ring_hash_lb_config: {hash_function: MURMUR_HASH_2}
            load_assignment:
              cluster_name: x
              endpoints:
              - lb_endpoints:
                - {endpoint: {address: $socket_h1}, metadata: {filter_metadata: {envoy.lb: {hash_key: one}}}}
                - {endpoint: {address: $socket_h2}, metadata: {filter_metadata: {envoy.lb: {hash_key: two}}}}
            ",
            BY_HEADER,
        )
        .requests(keys(40)),
        hashed(
            "ring-hash-weights",
            "
            lb_policy: RING_HASH
            load_assignment:
              cluster_name: x
              endpoints:
              - lb_endpoints:
                - {endpoint: {address: $socket_h1}, load_balancing_weight: 1, metadata: {filter_metadata: {envoy.lb: {hash_key: one}}}}
                - {endpoint: {address: $socket_h2}, load_balancing_weight: 4, metadata: {filter_metadata: {envoy.lb: {hash_key: two}}}}
            ",
            BY_HEADER,
        )
        .requests(keys(40)),
        hashed(
            "maglev-weights",
            "
            lb_policy: MAGLEV
            maglev_lb_config: {table_size: 251}
            load_assignment:
              cluster_name: x
              endpoints:
              - lb_endpoints:
                - {endpoint: {address: $socket_h1}, load_balancing_weight: 1, metadata: {filter_metadata: {envoy.lb: {hash_key: one}}}}
                - {endpoint: {address: $socket_h2}, load_balancing_weight: 4, metadata: {filter_metadata: {envoy.lb: {hash_key: two}}}}
            ",
            BY_HEADER,
        )
        .requests(keys(40)),
        hashed(
            "ring-hash-bounded-load",
            "
            load_balancing_policy:
              policies:
              - typed_extension_config:
                  name: ring
                  typed_config:
                    '@type': type.googleapis.com/envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash
                    minimum_ring_size: 64
                    consistent_hashing_lb_config: {use_hostname_for_hashing: true}
            load_assignment:
              cluster_name: x
              endpoints:
              - lb_endpoints:
                - {endpoint: {hostname: one.test, address: $socket_h1}}
                - {endpoint: {hostname: two.test, address: $socket_h2}}
            ",
            BY_HEADER,
        )
        .requests(keys(40)),
    ]
}

fn policies() -> Vec<Case> {
    vec![
        hashed("hash-without-a-key", RING, BY_HEADER).client_only().spread(300, get("/")),
        hashed(
            "hash-by-query",
            RING,
            "
            - match: {prefix: /}
              route: {cluster: $a, hash_policy: [{query_parameter: {name: q}}]}
            ",
        )
        .requests((0..20).map(|i| get(&format!("/?q=value-{i}")))),
        hashed(
            "hash-by-source",
            RING,
            "
            - match: {prefix: /}
              route: {cluster: $a, hash_policy: [{connection_properties: {source_ip: true}}]}
            ",
        )
        .requests((0..5).map(|i| get(&format!("/{i}")))),
        hashed(
            "hash-by-cookie",
            RING,
            "
            - match: {prefix: /plain}
              route: {cluster: $a, hash_policy: [{cookie: {name: c}}]}
            - match: {prefix: /}
              route: {cluster: $a, hash_policy: [{cookie: {name: c, ttl: 0s}}]}
            ",
        )
        .requests((0..20).map(|i| get("/").header("cookie", &format!("x=1; c=value-{i}; d=2"))))
        .requests((0..5).map(|i| get("/plain").header("cookie", &format!("c=\"value-{i}\"")))),
        hashed(
            "hash-generates-a-cookie",
            RING,
            "
            - match: {prefix: /session}
              route: {cluster: $a, hash_policy: [{cookie: {name: c, ttl: 0s, path: /}}]}
            - match: {prefix: /}
              route: {cluster: $a, hash_policy: [{cookie: {name: c, ttl: 3600s, path: /p}}]}
            ",
        )
        .alike()
        .client_only()
        .requests([get("/session"), get("/timed")])
        .by_chance("set-cookie | body", "the value is made of the connection, and leads to a host"),
        hashed(
            "hash-several-policies",
            RING,
            "
            - match: {prefix: /terminal}
              route: {cluster: $a, hash_policy: [{header: {header_name: x-key}, terminal: true}, {query_parameter: {name: q}}]}
            - match: {prefix: /}
              route: {cluster: $a, hash_policy: [{header: {header_name: x-key}}, {query_parameter: {name: q}}]}
            ",
        )
        .requests((0..15).map(|i| get(&format!("/?q={i}")).header("x-key", "k")))
        .requests((0..5).map(|i| get(&format!("/terminal?q={i}")).header("x-key", "k")))
        .requests((0..5).map(|i| get(&format!("/terminal?q={i}")))),
        hashed(
            "hash-header-rewritten",
            RING,
            r"
            - match: {prefix: /}
              route:
                cluster: $a
                hash_policy:
                - header: {header_name: x-key, regex_rewrite: {pattern: {regex: '^(\w+)-.*$'}, substitution: '\1'}}
            ",
        )
        .requests((0..6).map(|i| get("/").header("x-key", &format!("same-{i}")))),
        hashed("hash-repeated-header", RING, BY_HEADER).requests([
            get("/").header("x-key", "a").header("x-key", "b"),
            get("/").header("x-key", "b").header("x-key", "a"),
            get("/").header("x-key", "a,b"),
        ]),
    ]
}

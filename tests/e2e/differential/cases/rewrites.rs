//! What the upstream is asked for instead.

use crate::harness::{Case, case, get, request};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("prefix-rewrite")
            .echoes(&["a"])
            .routes(
                "
                - match: {prefix: /old/}
                  route: {cluster: $a, prefix_rewrite: /new/}
                - match: {prefix: /cut}
                  route: {cluster: $a, prefix_rewrite: /}
                - match: {path: /exact}
                  route: {cluster: $a, prefix_rewrite: /whole}
                - match: {path_separated_prefix: /sep}
                  route: {cluster: $a, prefix_rewrite: /tor}
                - match: {prefix: /FOLD, case_sensitive: false}
                  route: {cluster: $a, prefix_rewrite: /flat}
                - match: {safe_regex: {regex: '/rx.*'}}
                  route: {cluster: $a, prefix_rewrite: /regex}
                ",
            )
            .requests(
                [
                    "/old/x?q=1", "/old/", "/cut/x", "/cut", "/cutx", "/exact?q", "/sep", "/sep/x", "/sep?x", "/fold/x",
                    "/rx/abc?q",
                ]
                .map(get),
            ),
        case("regex-rewrite")
            .echoes(&["a"])
            .routes(
                r"
                - match: {prefix: /swap}
                  route: {cluster: $a, regex_rewrite: {pattern: {regex: '^/swap/([^/]+)/(.*)$'}, substitution: '/\2/x/\1'}}
                - match: {prefix: /all}
                  route: {cluster: $a, regex_rewrite: {pattern: {regex: 'o'}, substitution: '0'}}
                - match: {prefix: /group}
                  route: {cluster: $a, regex_rewrite: {pattern: {regex: '(?i)/(GROUP)'}, substitution: '/[\0]'}}
                - match: {prefix: /slash}
                  route: {cluster: $a, regex_rewrite: {pattern: {regex: '/slash'}, substitution: '/a\\b'}}
                ",
            )
            .requests(["/swap/a/b/c?q=/swap/x", "/swap/a", "/all/foo/boo?o=o", "/group/x", "/slash/x"].map(get)),
        case("original-path")
            .echoes(&["a"])
            .routes(
                "
                - match: {prefix: /x}
                  route: {cluster: $a, prefix_rewrite: /y}
                  response_headers_to_add: [{header: {key: x-seen, value: '%REQ(:PATH)% %REQ(X-ENVOY-ORIGINAL-PATH)%'}}]
                ",
            )
            .requests([get("/x/1"), get("/x/1").header("x-envoy-original-path", "/forged")]),
        case("host-rewrites")
            .http1("a", crate::harness::plan([]))
            .cluster(
                "a",
                &["a"],
                "
                type: STRICT_DNS
                dns_lookup_family: V4_ONLY
                load_assignment:
                  cluster_name: x
                  endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: localhost, port_value: $port_a}}}}]}]
                ",
            )
            .routes(
                r"
                - match: {prefix: /literal}
                  route: {cluster: $a, host_rewrite_literal: literal.test}
                - match: {prefix: /auto}
                  route: {cluster: $a, auto_host_rewrite: true}
                - match: {prefix: /header}
                  route: {cluster: $a, host_rewrite_header: x-to}
                - match: {prefix: /regex}
                  route: {cluster: $a, host_rewrite_path_regex: {pattern: {regex: '^/regex/([^/?]+).*$'}, substitution: '\1.test'}}
                ",
            )
            .requests(["/literal", "/auto", "/header", "/regex/sub/x?y=z", "/regex"].map(get))
            .requests([
                get("/header").header("x-to", "named.test"),
                get("/header").header("x-to", ""),
                get("/auto").h2(),
                get("/literal").h2(),
            ]),
        case("auto-host-rewrite-hostname")
            .echoes(&["a"])
            .cluster(
                "a",
                &["a"],
                "
                load_assignment:
                  cluster_name: x
                  endpoints: [{lb_endpoints: [{endpoint: {hostname: given.test, address: $socket_a}}]}]
                ",
            )
            .routes("- match: {prefix: /}\n  route: {cluster: $a, auto_host_rewrite: true}")
            .requests([get("/")]),
        case("rewrite-and-redirect-order")
            .echoes(&["a"])
            .routes(
                "
                - match: {prefix: /one}
                  route: {cluster: $a, prefix_rewrite: /two}
                - match: {prefix: /two}
                  direct_response: {status: 201}
                ",
            )
            .requests([get("/one"), get("/two"), request("OPTIONS", "/one")]),
    ]
}

//! Which route a request takes: paths, headers, query parameters, and what is left when none matches.

use crate::harness::{Case, case, get, grpc, grpc_call, ok, plan, post, request};

pub(crate) fn cases() -> Vec<Case> {
    let mut all = paths();
    all.extend(headers());
    all.extend(others());
    all
}

fn paths() -> Vec<Case> {
    vec![
        case("prefix")
            .echoes(&["a", "b"])
            .routes(
                "
                - match: {prefix: /a}
                  route: {cluster: $a}
                - match: {prefix: /b/}
                  route: {cluster: $b}
                ",
            )
            .requests(["/a", "/abc?x=y", "/a/b", "/b", "/b/", "/b/c", "/A", "/?/a", "/%61"].map(get)),
        case("path")
            .echoes(&["a"])
            .routes(
                "
                - match: {path: /exact}
                  route: {cluster: $a}
                - match: {path: /fold, case_sensitive: false}
                  route: {cluster: $a}
                ",
            )
            .requests(["/exact", "/exact?a=b", "/exact/", "/Exact", "/FOLD", "/fold/x"].map(get)),
        case("path-separated-prefix")
            .echoes(&["a"])
            .routes(
                "
                - match: {path_separated_prefix: /api}
                  route: {cluster: $a}
                - match: {path_separated_prefix: /Fold, case_sensitive: false}
                  route: {cluster: $a}
                ",
            )
            .requests(["/api", "/api/", "/api/x", "/api?q", "/apix", "/api.x", "/fOLD/1", "/fold1"].map(get)),
        case("path-regex")
            .echoes(&["a"])
            .routes(
                r"
                - match: {safe_regex: {regex: '/v[0-9]+/(users|groups)'}}
                  route: {cluster: $a}
                - match: {safe_regex: {regex: '/any/.*'}}
                  route: {cluster: $a}
                - match: {safe_regex: {regex: '(?i)/mixed/[a-z]{2}'}}
                  route: {cluster: $a}
                ",
            )
            .requests(
                ["/v1/users", "/v12/groups?x", "/v1/users/1", "/v/users", "/any/", "/any/x/y?z", "/any", "/MIXED/Ab"]
                    .map(get),
            ),
        case("prefix-case")
            .echoes(&["a"])
            .routes(
                "
                - match: {prefix: /Upper, case_sensitive: false}
                  route: {cluster: $a}
                - match: {prefix: /Exact}
                  route: {cluster: $a}
                ",
            )
            .requests(["/upper/x", "/UPPERx", "/Exact", "/exact"].map(get)),
        case("first-match-wins")
            .echoes(&["a", "b"])
            .routes(
                "
                - match: {prefix: /x}
                  route: {cluster: $b}
                - match: {path: /x/y}
                  route: {cluster: $a}
                - match: {prefix: /}
                  name: the-rest
                  route: {cluster: $a}
                ",
            )
            .requests(["/x/y", "/", "/z"].map(get)),
        case("no-route-at-all").virtual_hosts("- {name: x, domains: [nobody.test]}").requests([get("/")]),
        case("empty-virtual-host").virtual_hosts("- {name: x, domains: ['*']}").requests([get("/"), get("/").h2()]),
    ]
}

fn headers() -> Vec<Case> {
    vec![
        case("header-strings")
            .echoes(&["a"])
            .routes(
                "
                - match: {prefix: /exact, headers: [{name: x-h, string_match: {exact: Value}}]}
                  route: {cluster: $a}
                - match: {prefix: /fold, headers: [{name: X-H, string_match: {exact: Value, ignore_case: true}}]}
                  route: {cluster: $a}
                - match: {prefix: /prefix, headers: [{name: x-h, string_match: {prefix: Va}}]}
                  route: {cluster: $a}
                - match: {prefix: /suffix, headers: [{name: x-h, string_match: {suffix: ue}}]}
                  route: {cluster: $a}
                - match: {prefix: /contains, headers: [{name: x-h, string_match: {contains: alu}}]}
                  route: {cluster: $a}
                - match: {prefix: /regex, headers: [{name: x-h, string_match: {safe_regex: {regex: 'V.*e'}}}]}
                  route: {cluster: $a}
                ",
            )
            .requests(["/exact", "/fold", "/prefix", "/suffix", "/contains", "/regex"].into_iter().flat_map(|path| {
                ["Value", "value", "Values", "xValue", ""].map(|value| get(path).header("x-h", value))
            })),
        case("header-presence")
            .echoes(&["a"])
            .routes(
                "
                - match: {prefix: /present, headers: [{name: x-h, present_match: true}]}
                  route: {cluster: $a}
                - match: {prefix: /absent, headers: [{name: x-h, present_match: false}]}
                  route: {cluster: $a}
                - match: {prefix: /inverted, headers: [{name: x-h, present_match: true, invert_match: true}]}
                  route: {cluster: $a}
                - match: {prefix: /other, headers: [{name: x-h, string_match: {exact: v}, invert_match: true}]}
                  route: {cluster: $a}
                - match: {prefix: /missing, headers: [{name: x-h, string_match: {exact: ''}, treat_missing_header_as_empty: true}]}
                  route: {cluster: $a}
                - match: {prefix: /invmiss, headers: [{name: x-h, string_match: {exact: v}, invert_match: true, treat_missing_header_as_empty: true}]}
                  route: {cluster: $a}
                ",
            )
            .requests(["/present", "/absent", "/inverted", "/other", "/missing", "/invmiss"].into_iter().flat_map(|path| {
                [get(path), get(path).header("x-h", "v"), get(path).header("x-h", "")]
            })),
        case("header-range")
            .echoes(&["a"])
            .routes(
                "
                - match: {prefix: /, headers: [{name: x-n, range_match: {start: -10, end: 10}}]}
                  route: {cluster: $a}
                ",
            )
            .requests(["-10", "0", "9", "10", "+5", " 5", "5x", "", "99999999999999999999"].map(|n| get("/").header("x-n", n))),
        case("header-repeated")
            .echoes(&["a"])
            .routes(
                "
                - match: {prefix: /joined, headers: [{name: x-h, string_match: {exact: 'a,b'}}]}
                  route: {cluster: $a}
                - match: {prefix: /regex, headers: [{name: x-h, string_match: {safe_regex: {regex: 'a,b'}}}]}
                  route: {cluster: $a}
                - match: {prefix: /first, headers: [{name: x-h, string_match: {exact: a}}]}
                  route: {cluster: $a}
                - match: {prefix: /second, headers: [{name: x-h, string_match: {exact: b}}]}
                  route: {cluster: $a}
                - match: {prefix: /contains, headers: [{name: x-h, string_match: {contains: b}}]}
                  route: {cluster: $a}
                - match: {prefix: /notfirst, headers: [{name: x-h, string_match: {exact: a}, invert_match: true}]}
                  route: {cluster: $a}
                - match: {prefix: /notsecond, headers: [{name: x-h, string_match: {exact: b}, invert_match: true}]}
                  route: {cluster: $a}
                - match: {prefix: /notjoined, headers: [{name: x-h, string_match: {exact: 'a,b'}, invert_match: true}]}
                  route: {cluster: $a}
                - match: {prefix: /notthird, headers: [{name: x-h, string_match: {exact: c}, invert_match: true}]}
                  route: {cluster: $a}
                - match: {prefix: /range, headers: [{name: x-n, range_match: {start: 5, end: 9}}]}
                  route: {cluster: $a}
                ",
            )
            .requests(
                [
                    "/joined", "/regex", "/first", "/second", "/contains", "/notfirst", "/notsecond", "/notjoined", "/notthird",
                    "/range",
                ]
                .map(|path| get(path).header("x-h", "a").header("x-h", "b").header("x-n", "1").header("x-n", "7")),
            )
            .requests(["/joined", "/regex", "/second", "/notsecond"].map(|path| get(path).header("x-h", "a,b"))),
        case("header-several")
            .echoes(&["a"])
            .routes(
                "
                - match: {prefix: /, headers: [{name: x-a, present_match: true}, {name: x-b, string_match: {exact: b}}]}
                  route: {cluster: $a}
                ",
            )
            .requests([
                get("/").header("x-a", "1").header("x-b", "b"),
                get("/").header("x-a", "1"),
                get("/").header("x-b", "b"),
            ]),
        case("pseudo-headers")
            .echoes(&["a"])
            .routes(
                "
                - match: {prefix: /, headers: [{name: ':method', string_match: {exact: POST}}]}
                  route: {cluster: $a}
                - match: {prefix: /, headers: [{name: ':authority', string_match: {prefix: special}}]}
                  route: {cluster: $a}
                - match: {prefix: /, headers: [{name: ':path', string_match: {suffix: '?full'}}]}
                  route: {cluster: $a}
                - match: {prefix: /, headers: [{name: ':scheme', string_match: {exact: https}}]}
                  route: {cluster: $a}
                ",
            )
            .requests([
                post("/", "x"),
                get("/").host("special.test"),
                get("/x?full"),
                get("/"),
                get("/").header("x-forwarded-proto", "https"),
                request("PUT", "/").h2(),
                post("/", "x").h2(),
            ]),
    ]
}

fn others() -> Vec<Case> {
    vec![
        case("query-parameters")
            .echoes(&["a"])
            .routes(
                "
                - match: {prefix: /exact, query_parameters: [{name: q, string_match: {exact: v}}]}
                  route: {cluster: $a}
                - match: {prefix: /regex, query_parameters: [{name: q, string_match: {safe_regex: {regex: '[0-9]+'}}}]}
                  route: {cluster: $a}
                - match: {prefix: /present, query_parameters: [{name: q, present_match: true}]}
                  route: {cluster: $a}
                - match: {prefix: /absent, query_parameters: [{name: q, present_match: false}]}
                  route: {cluster: $a}
                - match: {prefix: /both, query_parameters: [{name: q, present_match: true}, {name: r, string_match: {exact: '2'}}]}
                  route: {cluster: $a}
                ",
            )
            .requests(
                [
                    "/exact?q=v", "/exact?q=w", "/exact?q=w&q=v", "/exact?q=v&q=w", "/exact?Q=v",
                    "/exact?q=%76", "/regex?q=12", "/regex?q=12a", "/present?q", "/present?q=", "/present?qq=1", "/present",
                    "/absent", "/absent?q=1", "/absent?p=1", "/both?q=1&r=2", "/both?r=2", "/both?r=2&q",
                ]
                .map(get),
            ),
        case("runtime-fraction")
            .echoes(&["a", "b"])
            .routes(
                "
                - match: {prefix: /never, runtime_fraction: {default_value: {numerator: 0}}}
                  route: {cluster: $a}
                - match: {prefix: /always, runtime_fraction: {default_value: {numerator: 100}}}
                  route: {cluster: $a}
                - match: {prefix: /some, runtime_fraction: {default_value: {numerator: 3000, denominator: TEN_THOUSAND}}}
                  route: {cluster: $a}
                - match: {prefix: /}
                  route: {cluster: $b}
                ",
            )
            .requests([get("/never"), get("/always")])
            .client_only()
            .spread(400, get("/some")),
        case("grpc-match")
            .http2("a", plan([grpc(0)]))
            .echoes(&["b"])
            .routes(
                "
                - match: {prefix: /, grpc: {}}
                  route: {cluster: $a}
                - match: {prefix: /}
                  route: {cluster: $b}
                ",
            )
            .requests([
                grpc_call("/s/m"),
                post("/s/m", "x").header("content-type", "application/grpc+proto"),
                post("/s/m", "x").header("content-type", "application/grpcx"),
                post("/s/m", "x").header("content-type", "application/grpc-web"),
                post("/s/m", "x").h2(),
            ]),
        case("cookie-match")
            .echoes(&["a", "b", "c"])
            .routes(
                "
                - match:
                    prefix: /
                    cookies:
                    - {name: group, string_match: {exact: canary}}
                    - {name: opt-out, string_match: {exact: '1'}, invert_match: true}
                  route: {cluster: $a}
                - match: {prefix: /, cookies: [{name: group, string_match: {prefix: ca, ignore_case: true}}]}
                  route: {cluster: $b}
                - match: {prefix: /}
                  route: {cluster: $c}
                ",
            )
            .requests([
                get("/"),
                get("/").header("cookie", "group=canary"),
                get("/").header("cookie", "a=b; group=\"canary\"; c=d"),
                get("/").header("cookie", "a=b;  group=canary").header("cookie", "opt-out=0"),
                get("/").header("cookie", "group=canary; opt-out=1"),
                get("/").header("cookie", "group=CAR"),
                get("/").header("cookie", "Group=canary"),
                get("/").header("cookie", "group=other; group=canary"),
                get("/").header("cookie", "group"),
                get("/").header("cookie", "group =canary"),
                get("/").header("cookie", "group= canary"),
                get("/").h2().header("cookie", "opt-out=2").header("cookie", "group=canary"),
            ]),
        case("tls-context-match-without-tls")
            .echoes(&["a", "b", "c"])
            .routes(
                "
                - match: {prefix: /, tls_context: {presented: true}}
                  route: {cluster: $a}
                - match: {prefix: /not, tls_context: {validated: false}}
                  route: {cluster: $b}
                - match: {prefix: /, tls_context: {}}
                  route: {cluster: $c}
                ",
            )
            .requests([get("/"), get("/not")]),
        case("weighted-clusters")
            .echoes(&["a", "b", "c"])
            .routes(
                "
                - match: {prefix: /}
                  route:
                    weighted_clusters: {clusters: [{name: $a, weight: 10}, {name: $b, weight: 90}, {name: $c, weight: 0}]}
                ",
            )
            .client_only()
            .spread(500, get("/")),
        case("weighted-clusters-one-gets-all")
            .echoes(&["a", "b"])
            .routes(
                "
                - match: {prefix: /}
                  route:
                    weighted_clusters:
                      clusters:
                      - {name: $a, weight: 0}
                      - name: $b
                        weight: 1
                        host_rewrite_literal: weighted.test
                        request_headers_to_add: [{header: {key: x-q, value: weighted}}]
                        response_headers_to_add: [{header: {key: x-r, value: weighted}}]
                        response_headers_to_remove: [x-gone]
                ",
            )
            .requests([get("/"), get("/").h2()]),
        case("cluster-header")
            .echoes(&["a", "b"])
            .routes(
                "
                - match: {prefix: /404}
                  route: {cluster_header: x-to, cluster_not_found_response_code: NOT_FOUND}
                - match: {prefix: /500}
                  route: {cluster_header: x-to, cluster_not_found_response_code: INTERNAL_SERVER_ERROR}
                - match: {prefix: /}
                  route: {cluster_header: x-to}
                ",
            )
            .requests([
                get("/").header("x-to", "cluster-header-a"),
                get("/").header("x-to", "cluster-header-b"),
                get("/").header("x-to", "nobody"),
                get("/"),
                get("/").header("x-to", ""),
                get("/404").header("x-to", "nobody"),
                get("/404"),
                get("/500").header("x-to", "nobody"),
                grpc_call("/").header("x-to", "nobody"),
            ]),
        case("empty-cluster")
            .cluster("none", &[], "")
            .routes("- match: {prefix: /}\n  route: {cluster: $none}")
            .requests([get("/"), get("/").h2(), grpc_call("/x/y")]),
        case("route-name-in-log")
            .http1("a", plan([ok()]))
            .routes("- name: named\n  match: {prefix: /}\n  route: {cluster: $a}")
            .requests([get("/")]),
        case("non-forwarding-action")
            .routes("- match: {prefix: /}\n  non_forwarding_action: {}")
            .requests([get("/")]),
    ]
}

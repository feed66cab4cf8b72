//! HTTP filters before the router: faults, CORS, mirroring, buffering, header mutation, and their settings by route.

use crate::harness::{Case, case, get, grpc_call, ok, plan, post, request};

const FAULT: &str = "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault";

fn fault(name: &'static str, fields: &str) -> Case {
    let yaml = format!("- name: envoy.filters.http.fault\n  typed_config: {{'@type': {FAULT}, {fields}}}");
    case(name).echoes(&["a"]).filters(Box::leak(yaml.into_boxed_str()))
}

pub(crate) fn faults() -> Vec<Case> {
    vec![
        fault("fault-abort", "abort: {http_status: 418, percentage: {numerator: 100}}").explained("cluster=", "the log names a cluster once it is asked").requests([
            get("/"),
            get("/").h2(),
            grpc_call("/s/m"),
            post("/", "body"),
        ]),
        fault("fault-abort-grpc", "abort: {grpc_status: 14, percentage: {numerator: 100}}")
            .explained("cluster=", "the log names a cluster once it is asked").requests([get("/"), grpc_call("/s/m")]),
        fault("fault-abort-never", "abort: {http_status: 418, percentage: {numerator: 0}}").requests([get("/")]),
        fault("fault-abort-share", "abort: {http_status: 418, percentage: {numerator: 3000, denominator: TEN_THOUSAND}}")
            .client_only()
            .spread(400, get("/")),
        fault("fault-delay", "delay: {fixed_delay: 1s, percentage: {numerator: 100}}")
            .requests([get("/").timed(&[700, 9000]), post("/", "body").h2()]),
        fault("fault-delay-never", "delay: {fixed_delay: 20s, percentage: {numerator: 0}}").requests([get("/").timed(&[9000])]),
        fault(
            "fault-delay-and-abort",
            "delay: {fixed_delay: 1s, percentage: {numerator: 100}}, abort: {http_status: 503, percentage: {numerator: 100}}",
        )
        .explained("cluster=", "the log names a cluster once it is asked").requests([get("/").timed(&[700, 9000])]),
        fault("fault-by-headers-of-the-client", "delay: {header_delay: {}, percentage: {numerator: 100}}, abort: {header_abort: {}, percentage: {numerator: 100}}")
            .explained("cluster=", "the log names a cluster once it is asked").requests([
                get("/"),
                get("/").header("x-envoy-fault-abort-request", "429"),
                get("/").header("x-envoy-fault-abort-request", "9999"),
                get("/").header("x-envoy-fault-abort-grpc-request", "5"),
                grpc_call("/").header("x-envoy-fault-abort-grpc-request", "5"),
                get("/").header("x-envoy-fault-delay-request", "900").timed(&[600, 9000]),
                get("/").header("x-envoy-fault-delay-request", "bad"),
                get("/").header("x-envoy-fault-abort-request", "429").header("x-envoy-fault-abort-request-percentage", "0"),
            ]),
        fault("fault-for-some-requests", "abort: {http_status: 418, percentage: {numerator: 100}}, headers: [{name: x-bad, string_match: {exact: 'yes'}}]")
            .explained("cluster=", "the log names a cluster once it is asked").requests([get("/"), get("/").header("x-bad", "yes")]),
        fault("fault-for-a-cluster", "abort: {http_status: 418, percentage: {numerator: 100}}, upstream_cluster: fault-for-a-cluster-b")
            .explained("cluster=", "the log names a cluster once it is asked").echoes(&["b"])
            .routes("- match: {prefix: /b}\n  route: {cluster: $b}\n- match: {prefix: /}\n  route: {cluster: $a}")
            .requests([get("/b"), get("/a")]),
        fault("fault-by-route", "")
            .explained("cluster=", "the log names a cluster once it is asked").routes(
                "
                - match: {prefix: /bad}
                  route: {cluster: $a}
                  typed_per_filter_config:
                    envoy.filters.http.fault:
                      '@type': type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault
                      abort: {http_status: 418, percentage: {numerator: 100}}
                - match: {prefix: /}
                  route: {cluster: $a}
                ",
            )
            .requests([get("/bad"), get("/good")]),
        fault("fault-switched-off-by-route", "abort: {http_status: 418, percentage: {numerator: 100}}")
            .explained("cluster=", "the log names a cluster once it is asked").routes(
                "
                - match: {prefix: /off}
                  route: {cluster: $a}
                  typed_per_filter_config:
                    envoy.filters.http.fault: {'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}
                - match: {prefix: /}
                  route: {cluster: $a}
                ",
            )
            .requests([get("/off"), get("/on")]),
    ]
}

const CORS_FILTER: &str = "
- name: envoy.filters.http.cors
  typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors}
";

pub(crate) fn cors() -> Vec<Case> {
    let preflight =
        |origin: &str| request("OPTIONS", "/x").header("origin", origin).header("access-control-request-method", "PUT");
    vec![
        case("cors")
            .explained("cluster=", "the log names a cluster once it is asked")
            .http1("a", plan([ok().header("access-control-allow-origin", "upstream")]))
            .filters(CORS_FILTER)
            .virtual_host(
                "
                typed_per_filter_config:
                  envoy.filters.http.cors:
                    '@type': type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy
                    allow_origin_string_match: [{exact: 'http://a.test'}, {suffix: .good.test}]
                    allow_methods: GET, PUT
                    allow_headers: x-one, x-two
                    expose_headers: x-three
                    max_age: '600'
                    allow_credentials: true
                ",
            )
            .requests(
                ["http://a.test", "http://x.good.test", "http://evil.test"].map(|o| get("/x").header("origin", o)),
            )
            .requests(["http://a.test", "http://x.good.test", "http://evil.test"].map(preflight))
            .requests([
                get("/x"),
                request("OPTIONS", "/x").header("origin", "http://a.test"),
                preflight("http://a.test").header("access-control-request-headers", "x-one"),
                preflight("http://a.test").h2(),
            ]),
        case("cors-any-origin")
            .explained("cluster=", "the log names a cluster once it is asked")
            .echoes(&["a"])
            .filters(CORS_FILTER)
            .virtual_host(
                "
                typed_per_filter_config:
                  envoy.filters.http.cors:
                    '@type': type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy
                    allow_origin_string_match: [{safe_regex: {regex: '.*'}}]
                    allow_methods: '*'
                ",
            )
            .requests([get("/").header("origin", "http://any.test"), preflight("http://any.test")]),
        case("cors-by-route")
            .echoes(&["a"])
            .filters(CORS_FILTER)
            .virtual_host(
                "
                typed_per_filter_config:
                  envoy.filters.http.cors:
                    '@type': type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy
                    allow_origin_string_match: [{exact: 'http://host.test'}]
                ",
            )
            .routes(
                "
                - match: {prefix: /own}
                  route: {cluster: $a}
                  typed_per_filter_config:
                    envoy.filters.http.cors:
                      '@type': type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy
                      allow_origin_string_match: [{exact: 'http://route.test'}]
                - match: {prefix: /}
                  route: {cluster: $a}
                ",
            )
            .requests(["http://host.test", "http://route.test"].map(|o| get("/own").header("origin", o)))
            .requests(["http://host.test", "http://route.test"].map(|o| get("/").header("origin", o))),
        case("cors-shadow")
            .echoes(&["a"])
            .filters(CORS_FILTER)
            .virtual_host(
                "
                typed_per_filter_config:
                  envoy.filters.http.cors:
                    '@type': type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy
                    allow_origin_string_match: [{exact: 'http://a.test'}]
                    filter_enabled: {default_value: {numerator: 0}}
                    shadow_enabled: {default_value: {numerator: 100}}
                ",
            )
            .requests([get("/").header("origin", "http://a.test"), preflight("http://a.test")]),
    ]
}

pub(crate) fn mirroring() -> Vec<Case> {
    let cases = vec![
        case("mirror")
            .echoes(&["a", "m"])
            .routes("- match: {prefix: /}\n  route: {cluster: $a, request_mirror_policies: [{cluster: $m}]}")
            .requests([get("/x?y"), post("/x", "some body"), post("/x", "some body").h2()]),
        case("mirror-twice")
            .echoes(&["a", "m", "n"])
            .routes("- match: {prefix: /}\n  route: {cluster: $a, request_mirror_policies: [{cluster: $m}, {cluster: $n}]}")
            .requests([get("/x")]),
        case("mirror-never")
            .echoes(&["a", "m"])
            .routes(
                "
                - match: {prefix: /}
                  route:
                    cluster: $a
                    request_mirror_policies: [{cluster: $m, runtime_fraction: {default_value: {numerator: 0}}}]
                ",
            )
            .requests([get("/x")]),
        case("mirror-without-hosts")
            .echoes(&["a"])
            .cluster("m", &[], "")
            .routes("- match: {prefix: /}\n  route: {cluster: $a, request_mirror_policies: [{cluster: $m}]}")
            .requests([get("/x"), post("/x", "some body"), post("/x", "some body").h2()]),
        case("mirror-fails-silently")
            .echoes(&["a"])
            .http1("m", plan([crate::harness::close()]))
            .routes("- match: {prefix: /}\n  route: {cluster: $a, request_mirror_policies: [{cluster: $m}]}")
            .requests([get("/x")]),
        case("mirror-after-rewrite")
            .echoes(&["a", "m"])
            .routes(
                "
                - match: {prefix: /old}
                  route: {cluster: $a, prefix_rewrite: /new, host_rewrite_literal: h.test, request_mirror_policies: [{cluster: $m}]}
                  request_headers_to_add: [{header: {key: x-add, value: v}}]
                ",
            )
            .requests([get("/old/x")]),
        case("mirror-without-the-suffix")
            .echoes(&["a", "m"])
            .routes(
                "
                - match: {prefix: /}
                  route: {cluster: $a, request_mirror_policies: [{cluster: $m, disable_shadow_host_suffix_append: true}]}
                ",
            )
            .requests([get("/x"), get("/x").host("case.test:8080")]),
    ];
    // Nobody waits for a copy: it may arrive after the answer.
    cases.into_iter().map(|case| case.pause(500)).collect()
}

pub(crate) fn others() -> Vec<Case> {
    const BUFFER: &str = "
    - name: envoy.filters.http.buffer
      typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer, max_request_bytes: 10}
    ";
    const MUTATION: &str = "
    - name: envoy.filters.http.header_mutation
      typed_config:
        '@type': type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation
        mutations:
          request_mutations:
          - remove: x-gone
          - append: {header: {key: x-new, value: 'from-%REQ(:METHOD)%'}, append_action: APPEND_IF_EXISTS_OR_ADD}
          - append: {header: {key: x-over, value: filter}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}
          response_mutations:
          - append: {header: {key: x-answer, value: '%RESPONSE_CODE%'}, append_action: ADD_IF_ABSENT}
          - remove: x-hidden
    ";
    vec![
        case("buffer-limit").explained("cluster= | rx=", "the log names a cluster and counts bytes once it is asked").explained("7 < | a[5] > | log POST / HTTP/2", "a body beyond the limit is refused also where it comes at once").echoes(&["a"]).filters(BUFFER).requests([
            post("/", "short"),
            post("/", "exactly 10"),
            post("/", "much longer than ten bytes"),
            post("/", "much longer than ten bytes").chunked(),
            post("/", "short").chunked(),
            get("/"),
            post("/", "much longer than ten bytes").h2(),
        ]),
        case("buffer-limit-by-route")
            .explained("cluster= | rx=", "the log names a cluster and counts bytes once it is asked").echoes(&["a"])
            .filters(BUFFER)
            .routes(
                "
                - match: {prefix: /off}
                  route: {cluster: $a}
                  typed_per_filter_config:
                    envoy.filters.http.buffer: {'@type': type.googleapis.com/envoy.extensions.filters.http.buffer.v3.BufferPerRoute, disabled: true}
                - match: {prefix: /more}
                  route: {cluster: $a}
                  typed_per_filter_config:
                    envoy.filters.http.buffer: {'@type': type.googleapis.com/envoy.extensions.filters.http.buffer.v3.BufferPerRoute, buffer: {max_request_bytes: 20}}
                - match: {prefix: /}
                  route: {cluster: $a}
                ",
            )
            .requests(["/off", "/more", "/x"].map(|p| post(p, "fifteen bytes !"))),
        case("header-mutation")
            .http1("a", plan([ok().header("x-hidden", "1")]))
            .filters(MUTATION)
            .requests([get("/").header("x-gone", "1").header("x-over", "client").header("x-new", "client")]),
        case("header-mutation-before-routing")
            .echoes(&["a", "b"])
            .filters(MUTATION)
            .routes(
                "
                - match: {prefix: /, headers: [{name: x-new, present_match: true}]}
                  route: {cluster: $b}
                - match: {prefix: /}
                  route: {cluster: $a}
                ",
            )
            .requests([get("/")]),
        case("header-mutation-by-route")
            .echoes(&["a"])
            .filters(MUTATION)
            .routes(
                "
                - match: {prefix: /}
                  route: {cluster: $a}
                  typed_per_filter_config:
                    envoy.filters.http.header_mutation:
                      '@type': type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute
                      mutations:
                        request_mutations: [{append: {header: {key: x-new, value: route}}}]
                        response_mutations: [{append: {header: {key: x-route, value: route}}}]
                ",
            )
            .requests([get("/")]),
        case("hedging-on-per-try-timeout")
            .http1("a", plan([ok().after(3000), ok()]))
            .virtual_host(
                "
                hedge_policy: {hedge_on_per_try_timeout: true}
                include_request_attempt_count: true
                ",
            )
            .routes(
                "
                - match: {prefix: /}
                  route: {cluster: $a, retry_policy: {retry_on: 5xx, num_retries: 1, per_try_timeout: 0.5s}}
                ",
            )
            .requests([get("/").timed(&[2500])]),
        case("internal-redirect")
            .explained("log GET /to", "one entry for what was one request of the client").http1("a", plan([]).on("/from", [crate::harness::status(302).header("location", "http://case.test/to")]))
            .routes(
                "
                - match: {prefix: /}
                  route: {cluster: $a, internal_redirect_policy: {redirect_response_codes: [302]}}
                ",
            )
            .requests([get("/from"), get("/to")]),
        case("path-template")
            .echoes(&["a"])
            .routes(
                "
                - match:
                    path_match_policy:
                      name: envoy.path.match.uri_template.uri_template_matcher
                      typed_config: {'@type': type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig, path_template: '/api/{country}/*/users/{id}'}
                  route:
                    cluster: $a
                    path_rewrite_policy:
                      name: envoy.path.rewrite.uri_template.uri_template_rewriter
                      typed_config: {'@type': type.googleapis.com/envoy.extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig, path_template_rewrite: '/{id}/{country}'}
                ",
            )
            .requests(["/api/ch/x/users/7?q", "/api/ch/users/7", "/api/ch/x/users/7/y"].map(get)),
    ]
}

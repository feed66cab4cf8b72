//! What is added to, changed in and taken from headers on the way.

use crate::harness::{Case, case, get, ok, plan, post, status};

pub(crate) fn cases() -> Vec<Case> {
    let mut all = manipulation();
    all.extend(forwarding());
    all.extend(identity());
    all
}

fn manipulation() -> Vec<Case> {
    vec![
        case("append-actions")
            .http1("a", plan([ok().header("x-there", "upstream")]))
            .routes(
                "
                - match: {prefix: /}
                  route: {cluster: $a}
                  request_headers_to_add:
                  - {header: {key: x-there, value: added}, append_action: APPEND_IF_EXISTS_OR_ADD}
                  - {header: {key: x-absent, value: added}, append_action: APPEND_IF_EXISTS_OR_ADD}
                  - {header: {key: x-if-absent, value: added}, append_action: ADD_IF_ABSENT}
                  - {header: {key: x-if-absent2, value: added}, append_action: ADD_IF_ABSENT}
                  - {header: {key: x-over, value: added}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}
                  - {header: {key: x-over2, value: added}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}
                  - {header: {key: x-exists, value: added}, append_action: OVERWRITE_IF_EXISTS}
                  - {header: {key: x-exists2, value: added}, append_action: OVERWRITE_IF_EXISTS}
                  - {header: {key: x-default, value: added}}
                  - {header: {key: x-old, value: added}, append: false}
                  response_headers_to_add:
                  - {header: {key: x-there, value: added}}
                  - {header: {key: x-new, value: added}}
                  - {header: {key: server, value: mine}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}
                ",
            )
            .requests([
                get("/")
                    .header("x-there", "client")
                    .header("x-if-absent", "client")
                    .header("x-over", "client")
                    .header("x-over", "client2")
                    .header("x-exists", "client")
                    .header("x-default", "client")
                    .header("x-old", "client"),
                get("/").h2(),
            ]),
        case("empty-values")
            .echoes(&["a"])
            .routes(
                "
                - match: {prefix: /}
                  route: {cluster: $a}
                  request_headers_to_add:
                  - {header: {key: x-dropped, value: '%REQ(X-NONE)%'}}
                  - {header: {key: x-kept, value: '%REQ(X-NONE)%'}, keep_empty_value: true}
                  - {header: {key: x-mixed, value: '[%REQ(X-NONE)%]'}}
                  - {header: {key: x-empty, value: ''}}
                ",
            )
            .requests([get("/")]),
        case("removal")
            .http1("a", plan([ok().header("x-secret", "1").header("x-keep", "2")]))
            .routes(
                "
                - match: {prefix: /}
                  route: {cluster: $a}
                  request_headers_to_remove: [x-gone, X-Also, user-agent]
                  response_headers_to_remove: [X-Secret, server, x-envoy-upstream-service-time]
                ",
            )
            .requests([
                get("/").header("X-Gone", "1").header("x-gone", "2").header("x-also", "3").header("User-Agent", "u"),
            ]),
        case("order-of-levels")
            .echoes(&["a"])
            .route_config(
                "
                request_headers_to_add: [{header: {key: x-o, value: config}}]
                response_headers_to_add: [{header: {key: x-o, value: config}}]
                ",
            )
            .virtual_host(
                "
                request_headers_to_add: [{header: {key: x-o, value: host}}]
                response_headers_to_add: [{header: {key: x-o, value: host}}]
                request_headers_to_remove: [x-gone]
                ",
            )
            .routes(
                "
                - match: {prefix: /weighted}
                  route:
                    weighted_clusters:
                      clusters:
                      - name: $a
                        weight: 1
                        request_headers_to_add: [{header: {key: x-o, value: cluster}}]
                        response_headers_to_add: [{header: {key: x-o, value: cluster}}]
                  request_headers_to_add: [{header: {key: x-o, value: route}}]
                  response_headers_to_add: [{header: {key: x-o, value: route}}]
                - match: {prefix: /over}
                  route: {cluster: $a}
                  request_headers_to_add: [{header: {key: x-o, value: route}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}]
                  response_headers_to_add: [{header: {key: x-o, value: route}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}]
                ",
            )
            .requests([get("/weighted").header("x-gone", "1").header("x-o", "client"), get("/over")]),
        case("most-specific-wins")
            .echoes(&["a"])
            .route_config(
                "
                most_specific_header_mutations_wins: true
                request_headers_to_add: [{header: {key: x-o, value: config}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}]
                ",
            )
            .virtual_host("request_headers_to_add: [{header: {key: x-o, value: host}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}]")
            .routes(
                "
                - match: {prefix: /}
                  route: {cluster: $a}
                  request_headers_to_add: [{header: {key: x-o, value: route}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}]
                ",
            )
            .requests([get("/")]),
        case("operators")
            .http1("a", plan([ok().header("x-from", "upstream").header("content-type", "text/x")]))
            .routes(
                "
                - name: the-route
                  match: {prefix: /}
                  route: {cluster: $a}
                  request_headers_to_add:
                  - {header: {key: x-method, value: '%REQ(:METHOD)%'}}
                  - {header: {key: x-path, value: '%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%'}}
                  - {header: {key: x-authority, value: '%REQ(:AUTHORITY)%'}}
                  - {header: {key: x-short, value: '%REQ(X-LONG):3%'}}
                  - {header: {key: x-remote, value: '%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%'}}
                  - {header: {key: x-direct, value: '%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%'}}
                  - {header: {key: x-local, value: '%DOWNSTREAM_LOCAL_ADDRESS%'}}
                  - {header: {key: x-local-ip, value: '%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%'}}
                  - {header: {key: x-protocol, value: '%PROTOCOL%'}}
                  - {header: {key: x-route, value: '%ROUTE_NAME%'}}
                  - {header: {key: x-cluster, value: '%UPSTREAM_CLUSTER%'}}
                  - {header: {key: x-percent, value: '100%%'}}
                  - {header: {key: x-sni, value: '[%REQUESTED_SERVER_NAME%]'}}
                  - {header: {key: x-host, value: '%UPSTREAM_HOST%'}}
                  response_headers_to_add:
                  - {header: {key: x-code, value: '%RESPONSE_CODE%'}}
                  - {header: {key: x-flags, value: '%RESPONSE_FLAGS%'}}
                  - {header: {key: x-details, value: '%RESPONSE_CODE_DETAILS%'}}
                  - {header: {key: x-copied, value: '%RESP(X-FROM)% %RESP(content-type)%'}}
                  - {header: {key: x-asked, value: '%REQ(:PATH)%'}}
                  - {header: {key: x-host, value: '%UPSTREAM_HOST%'}}
                  - {header: {key: x-cluster, value: '%UPSTREAM_CLUSTER%'}}
                  - {header: {key: x-attempts, value: '%UPSTREAM_REQUEST_ATTEMPT_COUNT%'}}
                ",
            )
            .requests([get("/p?q=1").header("x-long", "abcdef"), get("/p").h2()]),
        case("response-code-in-local-replies")
            .routes("- match: {prefix: /}\n  direct_response: {status: 418}")
            .virtual_host("response_headers_to_add: [{header: {key: x-code, value: '%RESPONSE_CODE%'}}]")
            .explained("x-code", "the code of the answer is known; Envoy evaluates it before it is set")
            .requests([get("/")]),
        case("headers-on-unknown-clusters").explained("x-always", "the code of the answer is known; Envoy evaluates it before it is set")
            .route_config("validate_clusters: false")
            .routes("- match: {prefix: /}\n  route: {cluster: nobody}")
            .virtual_host("response_headers_to_add: [{header: {key: x-always, value: '%RESPONSE_CODE% %RESPONSE_FLAGS%'}}]")
            .requests([get("/")]),
        case("headers-on-errors").explained("2 < connection: close | 2 < then closed", "a 400 that the route asks for says nothing of the connection")
            .http1("a", plan([status(500)]))
            .routes(
                "
                - match: {prefix: /up}
                  route: {cluster: $a}
                - match: {prefix: /direct}
                  direct_response: {status: 400}
                ",
            )
            .virtual_host("response_headers_to_add: [{header: {key: x-always, value: '%RESPONSE_FLAGS%'}}]")
            .requests(["/up", "/direct", "/miss"].map(get)),
    ]
}

fn forwarding() -> Vec<Case> {
    vec![
        case("hop-by-hop").http1("a", plan([ok().header("keep-alive", "timeout=5").header("x-end", "1")])).requests([
            get("/")
                .header("connection", "keep-alive, x-hop")
                .header("x-hop", "1")
                .header("keep-alive", "5")
                .header("te", "trailers, deflate")
                .header("proxy-connection", "keep-alive"),
            get("/").header("te", "trailers"),
            get("/").header("te", "gzip"),
            get("/").header("upgrade", "h2c"),
        ]),
        case("envoy-headers-of-clients").echoes(&["a"]).requests([get("/")
            .header("x-envoy-internal", "true")
            .header("x-envoy-external-address", "1.2.3.4")
            .header("x-envoy-downstream-service-cluster", "c")
            .header("x-envoy-downstream-service-node", "n")
            .header("x-envoy-expected-rq-timeout-ms", "1")
            .header("x-envoy-decorator-operation", "op")
            .header("x-envoy-ip-tags", "t")
            .header("x-envoy-original-url", "u")
            .header("x-envoy-is-timeout-retry", "true")
            .header("x-envoy-attempt-count", "7")]),
        case("edge-sanitises")
            .explained("x-forwarded-for", "for a client on the loopback device Envoy names an address of the machine")
            .echoes(&["a"])
            .manager("use_remote_address: true")
            .requests([
                get("/").header("x-forwarded-for", "8.8.8.8"),
                get("/"),
                get("/")
                    .header("x-envoy-internal", "true")
                    .header("x-envoy-external-address", "1.2.3.4")
                    .header("x-envoy-retry-on", "5xx")
                    .header("x-envoy-upstream-rq-timeout-ms", "100")
                    .header("x-envoy-max-retries", "9")
                    .header("x-envoy-decorator-operation", "op")
                    .header("x-forwarded-proto", "https")
                    .header("x-forwarded-port", "99")
                    .header("x-forwarded-host", "h")
                    .header("forwarded", "for=1.1.1.1")
                    .header("x-request-id", "forged"),
            ]),
        case("trusted-hops")
            .explained("x-forwarded-for", "for a client on the loopback device Envoy names an address of the machine")
            .echoes(&["a"])
            .manager("use_remote_address: true\nxff_num_trusted_hops: 1\nappend_x_forwarded_port: true")
            .requests([
                get("/").header("x-forwarded-for", "8.8.8.8, 9.9.9.9"),
                get("/").header("x-forwarded-for", "8.8.8.8"),
                get("/").header("x-forwarded-for", "bad"),
                get("/"),
            ]),
        case("trusted-hops-behind-a-proxy")
            .echoes(&["a"])
            .manager("xff_num_trusted_hops: 1")
            .routes(
                "
                - match: {prefix: /}
                  route: {cluster: $a}
                  request_headers_to_add: [{header: {key: x-remote, value: '%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%'}}]
                ",
            )
            .requests([
                get("/").header("x-forwarded-for", "8.8.8.8, 9.9.9.9"),
                get("/").header("x-forwarded-for", "9.9.9.9"),
                get("/").header("x-forwarded-for", "10.0.0.1"),
                get("/"),
            ]),
        case("skip-xff-append")
            .echoes(&["a"])
            .manager("use_remote_address: true\nskip_xff_append: true")
            .requests([get("/").header("x-forwarded-for", "8.8.8.8"), get("/")]),
        case("via")
            .http1("a", plan([ok().header("via", "1.0 up")]))
            .manager("via: '1.1 me'")
            .requests([get("/"), get("/").header("via", "1.0 before")]),
    ]
}

fn identity() -> Vec<Case> {
    vec![
        case("server-header-overwrite")
            .http1("a", plan([ok().header("server", "upstream")]))
            .manager("server_name: mine")
            .requests([get("/")]),
        case("server-header-if-absent")
            .http1("a", plan([ok().header("server", "upstream"), ok()]))
            .manager("server_header_transformation: APPEND_IF_ABSENT")
            .requests([get("/"), get("/")]),
        case("server-header-pass")
            .http1("a", plan([ok().header("server", "upstream"), ok()]))
            .manager("server_header_transformation: PASS_THROUGH")
            .requests([get("/"), get("/")]),
        case("request-id-kept")
            .echoes(&["a"])
            .manager("always_set_request_id_in_response: true\npreserve_external_request_id: true")
            .requests([get("/").header("x-request-id", "c2a7e1a6-30d5-4a3f-9a0b-8b6c9ed1c6a1"), get("/")]),
        case("request-id-off")
            .echoes(&["a"])
            .manager("generate_request_id: false")
            .requests([get("/"), get("/").header("x-request-id", "mine")]),
        case("suppress-envoy-headers")
            .http1("a", plan([status(503), ok()]))
            .router("suppress_envoy_headers: true")
            .virtual_host(
                "
                include_attempt_count_in_response: true
                include_request_attempt_count: true
                ",
            )
            .routes("- match: {prefix: /}\n  route: {cluster: $a, prefix_rewrite: /x, retry_policy: {retry_on: 5xx}}")
            .requests([get("/")]),
        case("header-names-keep-their-bytes")
            .explained("spelled", "names keep the spelling of whoever wrote them")
            .http1("a", plan([ok().header("X-MiXed-Case", "Value").header("x-lower", "Value")]))
            .requests([get("/").header("X-Odd-NAME", "Value").spelling()]),
        case("upstream-date-and-length")
            .http1("a", plan([ok().header("date", "Thu, 01 Jan 1970 00:00:00 GMT").chunked().body("abc")]))
            .requests([get("/"), get("/").h2(), post("/", "x").chunked()]),
        case("many-cookies").http1("a", plan([ok().header("set-cookie", "a=1").header("set-cookie", "b=2")])).requests(
            [
                get("/").header("cookie", "a=1").header("cookie", "b=2"),
                get("/").h2().header("cookie", "a=1").header("cookie", "b=2"),
            ],
        ),
    ]
}

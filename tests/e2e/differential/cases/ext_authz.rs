//! External authorization over HTTP and gRPC.

use outrigger_wire::pb::envoy::service::auth::v3::{CheckResponse, OkHttpResponse};

use crate::harness::{
    Case, Plan,
    authz::{acting, allowed, appended, denial, denied, fields, message, option, parameter},
    case, get, grpc, grpc_call, hang, ok, plan, post, reset, status,
};

const KIND: &str = "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3";

fn leak(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

fn filter(more: &str) -> String {
    format!("- name: envoy.filters.http.ext_authz\n  typed_config: {{'@type': {KIND}.ExtAuthz, {more}}}")
}

/// A filter that asks the host `auth` over HTTP; `service` are fields of the service, `more` of the filter.
fn http(name: &'static str, auth: Plan, service: &str, more: &str) -> Case {
    let uri = "server_uri: {uri: 'http://auth.test/', cluster: $auth, timeout: 5s}";
    let comma = |text: &str| if text.is_empty() { String::new() } else { format!(", {text}") };
    let text = filter(&format!("http_service: {{{uri}{}}}{}", comma(service), comma(more)));
    case(name).echoes(&["a"]).http1("auth", auth).filters(leak(text))
}

/// As [`http`], over gRPC.
fn grpc_service(name: &'static str, auth: Plan, more: &str) -> Case {
    let more = if more.is_empty() { String::new() } else { format!(", {more}") };
    let service = "grpc_service: {envoy_grpc: {cluster_name: $auth}, timeout: 5s}, transport_api_version: V3";
    case(name).echoes(&["a"]).http2("auth", auth).filters(leak(filter(&format!("{service}{more}"))))
}

fn answers(response: &CheckResponse) -> Plan {
    plan([message(response)])
}

fn route(settings: &str) -> &'static str {
    leak(format!(
        "
        - match: {{prefix: /special}}
          route: {{cluster: $a}}
          metadata: {{filter_metadata: {{told: {{k: v}}, secret: {{k: v}}}}}}
          typed_per_filter_config:
            envoy.filters.http.ext_authz: {{'@type': {KIND}.ExtAuthzPerRoute, {settings}}}
        - match: {{prefix: /}}
          route: {{cluster: $a}}
        "
    ))
}

pub(crate) fn over_http() -> Vec<Case> {
    let any = "{patterns: [{prefix: x-}]}";
    let yes = || ok().header("x-auth", "me").header("x-other", "o").header("set-cookie", "a=b");
    let no = |code| {
        status(code)
            .header("x-why", "because")
            .header("www-authenticate", "Basic")
            .header("location", "http://login.test/")
            .header("set-cookie", "a=b")
            .header("content-type", "text/html")
            .body("<no>")
    };
    vec![
        http("authz-http-allowed", plan([yes()]), "", "").requests([
            get("/p?q=1").header("authorization", "Bearer x").header("x-mine", "1").header("cookie", "c=d"),
            post("/p", "body"),
            get("/h2").h2(),
        ]),
        http("authz-http-denied", plan([no(403)]), "", "").by_chance("rx=", "bytes of a body that nobody waits for").requests([get("/"), get("/").h2(), grpc_call("/s/m")]),
        http("authz-http-statuses", plan([no(401), no(302), no(404), no(429), status(201)]), "", "")
            .requests([get("/1"), get("/1"), get("/1"), get("/1"), get("/1")]),
        http("authz-http-errors", plan([status(500), status(503)]), "", "").by_chance("rx=", "bytes of a body that nobody waits for").requests([get("/"), get("/"), grpc_call("/s/m")]),
        http("authz-http-errors-allowed", plan([status(500)]), "", "failure_mode_allow: true").requests([get("/")]),
        http("authz-http-errors-allowed-and-said", plan([status(500)]), "", "failure_mode_allow: true, failure_mode_allow_header_add: true")
            .requests([get("/"), get("/").header("x-envoy-auth-failure-mode-allowed", "forged")]),
        http("authz-http-status-on-error", plan([status(500)]), "", "status_on_error: {code: 503}").requests([get("/")]),
        http("authz-http-reset", plan([reset()]), "", "").requests([get("/")]),
        http("authz-http-slow", plan([hang()]), "", "").requests([get("/").timed(&[2000, 14_000])]),
        http("authz-http-path", plan([yes()]), "path_prefix: /check/", "").requests([get("/p?q=1")]),
        http("authz-http-path-override", plan([yes()]), "path_override: '/only?this=1'", "").requests([get("/p?q=1")]),
        http(
            "authz-http-headers-asked",
            plan([yes()]),
            "authorization_request: {allowed_headers: {patterns: [{exact: cookie}, {prefix: x-m}, {safe_regex: {regex: 'x-r.x'}}]}, headers_to_add: [{key: x-added, value: 'of %REQ(:PATH)%'}, {key: x-mine, value: replaced}]}",
            "",
        )
        .requests([get("/p").header("cookie", "c=d").header("x-mine", "1").header("x-mine2", "1").header("x-mine2", "2").header("x-rex", "1").header("x-other", "1")]),
        http(
            "authz-http-headers-to-upstream",
            plan([yes().header("x-auth", "again").header("x-mine", "new")]),
            &format!("authorization_response: {{allowed_upstream_headers: {any}}}"),
            "",
        )
        .requests([get("/").header("x-mine", "old"), get("/").header("x-auth", "forged").header("x-auth", "twice")]),
        http(
            "authz-http-headers-appended",
            plan([yes()]),
            &format!("authorization_response: {{allowed_upstream_headers_to_append: {any}}}"),
            "",
        )
        .requests([get("/").header("x-auth", "mine")]),
        http(
            "authz-http-headers-removed",
            plan([ok().header("x-envoy-auth-headers-to-remove", "x-secret, x-more,host, :path").header("x-auth", "a")]),
            &format!("authorization_response: {{allowed_upstream_headers: {any}}}"),
            "",
        )
        .requests([get("/").header("x-secret", "1").header("x-more", "2").header("x-kept", "3")]),
        http(
            "authz-http-headers-to-client",
            plan([yes()]).on("/no", [no(403)]),
            "authorization_response: {allowed_client_headers: {patterns: [{exact: x-why}]}, allowed_client_headers_on_success: {patterns: [{exact: set-cookie}]}}",
            "",
        )
        .requests([get("/"), get("/no")]),
        http(
            "authz-http-metadata",
            plan([yes()]),
            &format!("authorization_response: {{dynamic_metadata_from_headers: {any}}}"),
            "",
        )
        .routes("- match: {prefix: /}\n  route: {cluster: $a}\n  request_headers_to_add: [{header: {key: x-noted, value: '%DYNAMIC_METADATA(envoy.filters.http.ext_authz:x-auth)%'}}]")
        .requests([get("/")]),
        http("authz-http-body", plan([yes()]), "", "with_request_body: {max_request_bytes: 8}")
            .explained("rx=", "bytes of a body that is refused are not counted").requests([post("/", "12345678"), post("/", "123456789"), post("/", "1234").chunked(), get("/"), post("/", "12345").h2()]),
        http("authz-http-body-in-part", plan([yes()]), "", "with_request_body: {max_request_bytes: 8, allow_partial_message: true}")
            .requests([post("/", "12345678"), post("/", "123456789"), post("/", "1234"), post("/", "12345678901234567890").h2()]),
        http("authz-http-disallowed-headers", plan([yes()]), "", "allowed_headers: {patterns: [{prefix: x-}]}, disallowed_headers: {patterns: [{exact: x-no}, {exact: authorization}]}")
            .requests([get("/").header("x-no", "1").header("x-yes", "1").header("authorization", "secret")]),
        http("authz-http-off-by-route", plan([no(403)]), "", "").routes(route("disabled: true")).requests([get("/special"), get("/")]),
        http("authz-http-off", plan([no(403)]), "", "filter_enabled: {default_value: {numerator: 0}}").requests([get("/")]),
        http("authz-http-off-and-denied", plan([yes()]), "", "filter_enabled: {default_value: {numerator: 0}}, deny_at_disable: {runtime_key: k, default_value: true}")
            .requests([get("/")]),
        http("authz-http-by-metadata", plan([no(403)]), "", "filter_enabled_metadata: {filter: ns, path: [{key: k}], value: {string_match: {exact: v}}}")
            .requests([get("/")]),
        http("authz-http-by-metadata-inverted", plan([no(403)]), "", "filter_enabled_metadata: {filter: ns, path: [{key: k}], value: {string_match: {exact: v}}, invert: true}")
            .requests([get("/")]),
        http("authz-http-without-route", plan([no(403)]), "", "").routes("- match: {path: /only}\n  route: {cluster: $a}").requests([get("/only"), get("/other")]),
        http("authz-http-direct-response", plan([no(403)]), "", "").routes("- match: {prefix: /}\n  direct_response: {status: 200}").requests([get("/")]),
        http("authz-http-long-denial", plan([no(403)]), "", "max_denied_response_body_bytes: 2").requests([get("/")]),
    ]
}

pub(crate) fn over_grpc() -> Vec<Case> {
    let some = || OkHttpResponse {
        headers: vec![option("x-auth", "me"), appended("x-old", "new", true), appended("x-set", "new", false)],
        response_headers_to_add: vec![option("x-to-client", "1"), option("server", "mine")],
        headers_to_remove: vec!["x-secret".to_owned(), "host".to_owned(), ":path".to_owned()],
        ..OkHttpResponse::default()
    };
    let no = || {
        denied(Some(denial(
            401,
            vec![option("x-why", "a"), option("x-why", "b"), option("content-type", "text/html")],
            "<no>",
        )))
    };
    vec![
        grpc_service("authz-grpc-allowed", answers(&allowed(OkHttpResponse::default())), "")
            .requests([get("/p?q=1").header("x-mine", "1").header("x-mine", "2"), post("/p", "body"), get("/h2").h2()]),
        grpc_service("authz-grpc-no-more-than-a-status", answers(&CheckResponse::default()), "").requests([get("/")]),
        grpc_service("authz-grpc-denied", answers(&no()), "").by_chance("rx=", "bytes of a body that nobody waits for").requests([get("/"), get("/").h2(), grpc_call("/s/m")]),
        grpc_service("authz-grpc-denied-without-a-word", answers(&denied(None)), "").requests([get("/")]),
        grpc_service("authz-grpc-status", plan([grpc(7), grpc(14)]), "").requests([get("/"), get("/")]),
        grpc_service("authz-grpc-http-status", plan([status(503)]), "").requests([get("/")]),
        grpc_service("authz-grpc-error-allowed", plan([grpc(14)]), "failure_mode_allow: true").requests([get("/")]),
        grpc_service("authz-grpc-garbage", plan([ok().header("content-type", "application/grpc").body("garbage").trailer("grpc-status", "0")]), "")
            .requests([get("/")]),
        grpc_service("authz-grpc-changes", answers(&allowed(some())), "")
            .requests([get("/").header("x-old", "old").header("x-set", "old").header("x-secret", "1"), get("/").header("x-auth", "forged")]),
        grpc_service(
            "authz-grpc-append-actions",
            answers(&allowed(OkHttpResponse {
                headers: (0..4).flat_map(|action| [acting(&format!("x-{action}"), "new", action), acting(&format!("x-only-{action}"), "new", action)]).collect(),
                response_headers_to_add: (0..4).flat_map(|action| [acting(&format!("x-{action}"), "new", action), acting(&format!("x-only-{action}"), "new", action)]).collect(),
                ..OkHttpResponse::default()
            })),
            "",
        )
        .http1("b", plan([ok().header("x-0", "old").header("x-1", "old").header("x-2", "old").header("x-3", "old")]))
        .routes("- match: {prefix: /}\n  route: {cluster: $b}")
        .requests([get("/").header("x-0", "old").header("x-1", "old").header("x-2", "old").header("x-3", "old")]),
        grpc_service(
            "authz-grpc-query",
            answers(&allowed(OkHttpResponse {
                query_parameters_to_set: vec![parameter("b", "2"), parameter("new", "x%20y")],
                query_parameters_to_remove: vec!["gone".to_owned()],
                ..OkHttpResponse::default()
            })),
            "",
        )
        .requests([get("/p?gone=1&b=1&a=%41&b=3&c"), get("/p")]),
        grpc_service(
            "authz-grpc-metadata",
            answers(&CheckResponse { dynamic_metadata: Some(fields(&[("k", "v")])), ..allowed(OkHttpResponse::default()) }),
            "",
        )
        .routes("- match: {prefix: /}\n  route: {cluster: $a}\n  request_headers_to_add: [{header: {key: x-noted, value: '%DYNAMIC_METADATA(envoy.filters.http.ext_authz:k)%'}}]")
        .requests([get("/")]),
        grpc_service(
            "authz-grpc-metadata-ignored",
            answers(&CheckResponse { dynamic_metadata: Some(fields(&[("k", "v")])), ..allowed(OkHttpResponse::default()) }),
            "enable_dynamic_metadata_ingestion: false",
        )
        .routes("- match: {prefix: /}\n  route: {cluster: $a}\n  request_headers_to_add: [{header: {key: x-noted, value: 'm%DYNAMIC_METADATA(envoy.filters.http.ext_authz:k)%'}}]")
        .requests([get("/")]),
        grpc_service("authz-grpc-body", answers(&allowed(OkHttpResponse::default())), "with_request_body: {max_request_bytes: 8, allow_partial_message: true}")
            .requests([post("/", "12345678"), post("/", "123456789"), get("/")]),
        grpc_service("authz-grpc-raw-body", answers(&allowed(OkHttpResponse::default())), "with_request_body: {max_request_bytes: 8, pack_as_bytes: true}")
            .explained("rx=", "bytes of a body that is refused are not counted").requests([post("/", "1234"), post("/", "123456789")]),
        grpc_service("authz-grpc-raw-headers", answers(&allowed(OkHttpResponse::default())), "encode_raw_headers: true")
            .requests([get("/").header("x-mine", "1").header("x-mine", "2")]),
        grpc_service("authz-grpc-headers-asked", answers(&allowed(OkHttpResponse::default())), "allowed_headers: {patterns: [{prefix: x-}]}, disallowed_headers: {patterns: [{exact: x-no}]}")
            .requests([get("/").header("x-no", "1").header("x-yes", "1").header("cookie", "c")]),
        grpc_service("authz-grpc-session", answers(&allowed(OkHttpResponse::default())), "include_tls_session: true, include_peer_certificate: true")
            .requests([get("/").header("x-envoy-downstream-service-cluster", "me")]),
        grpc_service("authz-grpc-settings-by-route", answers(&allowed(OkHttpResponse::default())), "route_metadata_context_namespaces: [told], with_request_body: {max_request_bytes: 8}")
            .routes(route("check_settings: {context_extensions: {k: v}, disable_request_body_buffering: true}"))
            .virtual_host("typed_per_filter_config: {envoy.filters.http.ext_authz: {'@type': type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute, check_settings: {context_extensions: {k: host, h: host}}}}")
            .requests([post("/special", "body"), post("/", "body")]),
        grpc_service("authz-grpc-body-by-route", answers(&allowed(OkHttpResponse::default())), "")
            .routes(route("check_settings: {with_request_body: {max_request_bytes: 4}}"))
            .explained("rx=", "bytes of a body that is refused are not counted").requests([post("/special", "body"), post("/special", "longer"), post("/", "body")]),
        grpc_service(
            "authz-grpc-rerouted",
            answers(&allowed(OkHttpResponse { headers: vec![option("x-route", "b")], ..OkHttpResponse::default() })),
            "clear_route_cache: true",
        )
        .echoes(&["b"])
        .routes("- match: {prefix: /, headers: [{name: x-route, string_match: {exact: b}}]}\n  name: b\n  route: {cluster: $b}\n- match: {prefix: /}\n  name: a\n  route: {cluster: $a}")
        .requests([get("/")]),
        grpc_service(
            "authz-grpc-not-rerouted",
            answers(&allowed(OkHttpResponse { headers: vec![option("x-route", "b")], ..OkHttpResponse::default() })),
            "",
        )
        .echoes(&["b"])
        .routes("- match: {prefix: /, headers: [{name: x-route, string_match: {exact: b}}]}\n  route: {cluster: $b}\n- match: {prefix: /}\n  route: {cluster: $a}")
        .requests([get("/")]),
        grpc_service(
            "authz-grpc-path-and-host",
            answers(&allowed(OkHttpResponse { headers: vec![appended(":path", "/other", false), appended(":authority", "other.test", false)], ..OkHttpResponse::default() })),
            "",
        )
        .requests([get("/")]),
        grpc_service(
            "authz-grpc-rules",
            answers(&allowed(OkHttpResponse {
                headers: [":path", ":authority", "x-envoy-a", "x-bad", "x-good"].map(|n| appended(n, "/new", false)).to_vec(),
                headers_to_remove: vec!["x-secret".to_owned()],
                ..OkHttpResponse::default()
            })),
            "decoder_header_mutation_rules: {disallow_expression: {regex: 'x-b.*|x-secret'}}",
        )
        .requests([get("/").header("x-secret", "1")]),
        grpc_service(
            "authz-grpc-rules-enforced",
            answers(&allowed(OkHttpResponse { headers: vec![option("x-bad", "1")], ..OkHttpResponse::default() })),
            "decoder_header_mutation_rules: {disallow_all: true, disallow_is_error: true}",
        )
        .requests([get("/")]),
        grpc_service(
            "authz-grpc-invalid-changes",
            answers(&allowed(OkHttpResponse { headers: vec![option("x bad", "1")], ..OkHttpResponse::default() })),
            "validate_mutations: true",
        )
        .requests([get("/")]),
        grpc_service(
            "authz-grpc-invalid-value",
            answers(&allowed(OkHttpResponse { headers: vec![option("x-bad", "1\n2")], ..OkHttpResponse::default() })),
            "validate_mutations: true",
        )
        .requests([get("/")]),
        grpc_service(
            "authz-grpc-unknown-action",
            answers(&allowed(OkHttpResponse { headers: vec![acting("x-bad", "1", 77)], ..OkHttpResponse::default() })),
            "validate_mutations: true",
        )
        .requests([get("/")]),
    ]
}

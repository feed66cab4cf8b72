//! Local rate limits of requests and connections. Buckets fill so slowly that what is in them is known.

use crate::harness::{Case, Serve, Talk, case, get, grpc_call, post, request};

const LOCAL: &str = "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";

const ON: &str =
    "filter_enabled: {default_value: {numerator: 100}}, filter_enforced: {default_value: {numerator: 100}}";

fn leaked(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

/// A case whose only filter is a local limit with these fields.
fn limited(name: &'static str, fields: &str) -> Case {
    let yaml =
        format!("- name: limit\n  typed_config: {{'@type': {LOCAL}, stat_prefix: \"{name}\", {fields}}}", name = name);
    case(name).echoes(&["a"]).by_chance("cluster=", "the log names a cluster once it is asked").filters(leaked(yaml))
}

/// Limits that are enforced.
fn enforced(name: &'static str, fields: &str) -> Case {
    limited(name, &format!("{ON}, {fields}"))
}

/// Limits per descriptor, the default bucket is never empty.
fn described(name: &'static str, descriptors: &str, more: &str) -> Case {
    enforced(
        name,
        &format!("token_bucket: {{max_tokens: 1000, fill_interval: 600s}}, {more} descriptors: [{descriptors}]"),
    )
}

/// A descriptor with one entry and a bucket.
fn one(key: &str, value: &str, tokens: u32) -> String {
    format!("{{entries: [{{key: {key}, value: {value}}}], {}}}", bucket(tokens))
}

fn bucket(tokens: u32) -> String {
    format!("token_bucket: {{max_tokens: {tokens}, fill_interval: 600s}}")
}

/// The route with these `rate_limits`.
fn counting(rate_limits: &str) -> &'static str {
    leaked(format!("- match: {{prefix: /}}\n  route: {{cluster: $a, rate_limits: [{rate_limits}]}}"))
}

fn own(name: &str, tokens: u32) -> String {
    format!("limit: {{'@type': {LOCAL}, stat_prefix: {name}, {ON}, {}}}", bucket(tokens))
}

pub(crate) fn local() -> Vec<Case> {
    let mut all = whole();
    all.extend(descriptors());
    all.extend(levels());
    all
}

fn whole() -> Vec<Case> {
    let two = bucket(2);
    vec![
        enforced("limit-burst", &two).requests([get("/"), post("/", "body"), get("/"), post("/", "body").h2()]),
        enforced("limit-head", &two).requests([get("/"), get("/"), request("HEAD", "/")]),
        enforced("limit-grpc", &bucket(1)).requests([get("/"), grpc_call("/s/m"), get("/").h2()]),
        enforced("limit-grpc-exhausted", &format!("{}, rate_limited_as_resource_exhausted: true", bucket(1)))
            .requests([get("/"), grpc_call("/s/m"), get("/")]),
        limited("limit-off-by-default", &two).requests([get("/"), get("/"), get("/")]),
        limited("limit-dry-run", &format!("{two}, filter_enabled: {{default_value: {{numerator: 100}}}}, request_headers_to_add_when_not_enforced: [{{header: {{key: x-limited, value: 'yes %REQ(:METHOD)%'}}}}], response_headers_to_add: [{{header: {{key: x-answer, value: 'no'}}}}]"))
            .requests([get("/"), get("/"), get("/"), post("/", "b")]),
        enforced("limit-status", &format!("{}, status: {{code: 503}}", bucket(1))).requests([get("/"), get("/")]),
        enforced("limit-status-too-low", &format!("{}, status: {{code: 204}}", bucket(1))).requests([get("/"), get("/")]),
        enforced("limit-headers", &format!("{}, response_headers_to_add: [{{header: {{key: x-limited, value: '%REQ(x-who)% %RESPONSE_CODE% %PROTOCOL%'}}}}, {{append_action: OVERWRITE_IF_EXISTS_OR_ADD, header: {{key: content-type, value: text/fun}}}}]", bucket(1)))
            .requests([get("/"), get("/").header("x-who", "me"), grpc_call("/s/m").header("x-who", "it")]),
        enforced("limit-x-ratelimit", &format!("{}, enable_x_ratelimit_headers: DRAFT_VERSION_03", bucket(3)))
            .by_chance("x-ratelimit-reset", "whole seconds pass")
            .requests([get("/"), get("/"), get("/"), get("/"), get("/").h2()]),
        enforced("limit-retry-after", &format!("{}, enable_retry_after_header: true", bucket(1)))
            .by_chance("retry-after", "whole seconds pass")
            .requests([get("/"), get("/")]),
        enforced("limit-retry-after-of-its-own", &format!("{}, enable_retry_after_header: true, response_headers_to_add: [{{header: {{key: retry-after, value: '7'}}}}]", bucket(1)))
            .requests([get("/"), get("/")]),
        enforced("limit-retry-after-not-429", &format!("{}, enable_retry_after_header: true, status: {{code: 503}}", bucket(1)))
            .requests([get("/"), get("/")]),
        enforced("limit-nothing-passes", &format!("{}, enable_x_ratelimit_headers: DRAFT_VERSION_03", bucket(0)))
            .requests([get("/"), get("/").h2()]),
        enforced("limit-without-bucket", "stage: 0").requests([get("/"), get("/")]),
        enforced("limit-fills", "token_bucket: {max_tokens: 1, tokens_per_fill: 1, fill_interval: 2s}")
            .requests([get("/"), get("/")])
            .pause(3500)
            .requests([get("/"), get("/")]),
        enforced("limit-per-connection", &format!("{two}, local_rate_limit_per_downstream_connection: true"))
            .on_one_connection([get("/"), get("/"), get("/"), get("/")])
            .on_one_connection([get("/").h2(), get("/").h2(), get("/").h2()])
            .requests([get("/")]),
        limited("limit-some", "token_bucket: {max_tokens: 0, fill_interval: 600s}, filter_enabled: {default_value: {numerator: 30}}, filter_enforced: {default_value: {numerator: 100}}")
            .client_only()
            .spread(400, get("/")),
        limited("limit-some-enforced", "token_bucket: {max_tokens: 0, fill_interval: 600s}, filter_enabled: {default_value: {numerator: 50}}, filter_enforced: {default_value: {numerator: 500000, denominator: MILLION}}")
            .client_only()
            .spread(400, get("/")),
        enforced("limit-other-actions", &bucket(2))
            .routes("- match: {prefix: /here}\n  direct_response: {status: 200, body: {inline_string: here}}\n- match: {prefix: /there}\n  redirect: {path_redirect: /x}")
            .requests([get("/here"), get("/there"), get("/here"), get("/there"), get("/nowhere")]),
    ]
}

fn descriptors() -> Vec<Case> {
    let header = "{request_headers: {header_name: x-user, descriptor_key: user}}";
    vec![
        described("limit-header", &format!("{}, {}", one("user", "ann", 1), one("user", "ben", 2)), "")
            .routes(counting(&format!("{{actions: [{header}]}}")))
            .requests(["ann", "ann", "ben", "ben", "ben", "carl", "carl"].map(|u| get("/").header("x-user", u)))
            .requests([get("/"), get("/").header("x-user", "ann").header("x-user", "dora")]),
        described("limit-entries-in-order", &format!("{{entries: [{{key: user, value: ann}}, {{key: generic_key, value: all}}], {}}}", bucket(1)), "")
            .routes(counting(&format!("{{actions: [{header}, {{generic_key: {{descriptor_value: all}}}}]}}")))
            .requests(["ann", "ann", "ben"].map(|u| get("/").header("x-user", u))),
        described("limit-skipped-entry", &one("generic_key", "all", 1), "")
            .routes(counting("{actions: [{request_headers: {header_name: x-user, descriptor_key: user, skip_if_absent: true}}, {generic_key: {descriptor_value: all}}]}"))
            .requests([get("/").header("x-user", "ann"), get("/"), get("/")]),
        described("limit-values", &format!("{}, {}, {}", one("header_match", "post", 1), one("mine", "q", 1), one("k", "a b", 1)), "")
            .routes(counting("{actions: [{header_value_match: {descriptor_value: post, headers: [{name: ':method', string_match: {exact: POST}}]}}]}, {actions: [{query_parameter_value_match: {descriptor_key: mine, descriptor_value: q, query_parameters: [{name: x, string_match: {exact: a b}}]}}]}, {actions: [{query_parameters: {query_parameter_name: yy, descriptor_key: k}}]}"))
            .requests([post("/", ""), post("/", ""), get("/?x=a%20b"), get("/?x=a%20b"), get("/?x=ab"), get("/?z=1&yy=a%20b"), get("/?yy=a%20b&yy=2"), get("/?yy=a+b"), get("/?yy")]),
        described("limit-unexpected", &one("header_match", "others", 1), "")
            .routes(counting("{actions: [{header_value_match: {descriptor_value: others, expect_match: false, headers: [{name: x-friend, present_match: true}]}}]}"))
            .requests([get("/").header("x-friend", "1"), get("/"), get("/"), get("/").header("x-friend", "1")]),
        described("limit-addresses", &format!("{}, {}", one("remote_address", "10.1.2.3", 1), one("masked_remote_address", "10.9.0.0/16", 1)), "")
            .explained("x-forwarded-for", "for a client on the loopback device Envoy names an address of the machine")
            .manager("use_remote_address: true\nxff_num_trusted_hops: 1")
            .routes(counting("{actions: [{remote_address: {}}]}, {actions: [{masked_remote_address: {v4_prefix_mask_len: 16}}]}"))
            .requests(["10.1.2.3", "10.1.2.3", "10.9.0.1", "10.9.7.7", "10.8.7.7"].map(|a| get("/").header("x-forwarded-for", a))),
        described("limit-clusters", &format!("{}, {}", one("source_cluster", "differential", 2), one("destination_cluster", "limit-clusters-b", 1)), "")
            .echoes(&["b"])
            .routes("- match: {prefix: /b}\n  route: {cluster: $b, rate_limits: [{actions: [{destination_cluster: {}}]}]}\n- match: {prefix: /}\n  route: {cluster: $a, rate_limits: [{actions: [{source_cluster: {}}]}]}")
            .requests([get("/b"), get("/b"), get("/"), get("/"), get("/")]),
        described("limit-metadata", &format!("{}, {}", one("m", "gold", 1), one("d", "none", 1)), "")
            .routes("- match: {prefix: /}\n  metadata: {filter_metadata: {ns: {tier: {name: gold}}}}\n  route: {cluster: $a, rate_limits: [{actions: [{metadata: {descriptor_key: m, source: ROUTE_ENTRY, metadata_key: {key: ns, path: [{key: tier}, {key: name}]}}}]}, {actions: [{metadata: {descriptor_key: d, default_value: none, metadata_key: {key: ns, path: [{key: x}]}}}]}]}")
            .requests([get("/"), get("/"), get("/")]),
        described("limit-wildcard", &format!("{{entries: [{{key: user}}], {}}}, {}", bucket(1), one("user", "vip", 3)), "")
            .routes(counting(&format!("{{actions: [{header}]}}")))
            .requests(["a", "a", "b", "b", "vip", "vip", "vip", "vip", "a"].map(|u| get("/").header("x-user", u))),
        described("limit-wildcard-few", &format!("{{entries: [{{key: user}}], {}}}", bucket(1)), "max_dynamic_descriptors: 2,")
            .routes(counting(&format!("{{actions: [{header}]}}")))
            .requests(["a", "b", "a", "c", "a", "b", "c"].map(|u| get("/").header("x-user", u))),
        described("limit-slowest-first", "{entries: [{key: generic_key, value: fast}], token_bucket: {max_tokens: 2, tokens_per_fill: 2, fill_interval: 300s}}, {entries: [{key: generic_key, value: slow}], token_bucket: {max_tokens: 1, fill_interval: 600s}}", "enable_x_ratelimit_headers: DRAFT_VERSION_03,")
            .by_chance("x-ratelimit-reset", "whole seconds pass")
            .routes("- match: {prefix: /both}\n  route: {cluster: $a, rate_limits: [{actions: [{generic_key: {descriptor_value: fast}}]}, {actions: [{generic_key: {descriptor_value: slow}}]}]}\n- match: {prefix: /}\n  route: {cluster: $a, rate_limits: [{actions: [{generic_key: {descriptor_value: fast}}]}]}")
            .requests([get("/both"), get("/both"), get("/both"), get("/"), get("/")]),
        enforced("limit-default-too", &format!("{}, descriptors: [{}]", bucket(2), one("user", "ann", 5)))
            .routes(counting(&format!("{{actions: [{header}]}}")))
            .requests(["ann", "ann", "ann"].map(|u| get("/").header("x-user", u))),
        enforced("limit-default-only-else", &format!("{}, always_consume_default_token_bucket: false, descriptors: [{}]", bucket(1), one("user", "ann", 3)))
            .routes(counting(&format!("{{actions: [{header}]}}")))
            .requests(["ann", "ann", "ann", "ann", "ben", "ben"].map(|u| get("/").header("x-user", u))),
        described("limit-disable-key", &one("generic_key", "all", 1), "")
            .routes(counting("{disable_key: some.key, actions: [{generic_key: {descriptor_value: all}}]}"))
            .requests([get("/"), get("/"), get("/")]),
        described("limit-shadow", &format!("{{entries: [{{key: generic_key, value: all}}], shadow_mode: true, {}}}", bucket(1)), "")
            .routes(counting("{actions: [{generic_key: {descriptor_value: all}}]}"))
            .requests([get("/"), get("/"), get("/")]),
    ]
}

fn levels() -> Vec<Case> {
    let all = "{actions: [{generic_key: {descriptor_value: all}}]}";
    let route = "{actions: [{generic_key: {descriptor_value: route}}]}";
    let two = || format!("{}, {}", one("generic_key", "all", 1), one("generic_key", "route", 2));
    let by_vhost = |name, more: &str| {
        described(name, &two(), more)
            .virtual_host(leaked(format!("rate_limits: [{all}]")))
            .routes(leaked(format!("- match: {{prefix: /own}}\n  route: {{cluster: $a, rate_limits: [{route}]}}\n- match: {{prefix: /with}}\n  route: {{cluster: $a, include_vh_rate_limits: true, rate_limits: [{route}]}}\n- match: {{prefix: /}}\n  route: {{cluster: $a}}")))
            .requests(["/", "/", "/own", "/own", "/with", "/own"].map(get))
    };
    vec![
        limited("limit-by-route", "token_bucket: {max_tokens: 1000, fill_interval: 600s}")
            .routes(leaked(format!(
                "- match: {{prefix: /a}}\n  route: {{cluster: $a}}\n  typed_per_filter_config: {{{}}}\n- match: {{prefix: /b}}\n  route: {{cluster: $a}}\n  typed_per_filter_config: {{{}}}\n- match: {{prefix: /c}}\n  route: {{cluster: $a}}\n  typed_per_filter_config: {{{}}}\n- match: {{prefix: /}}\n  route: {{cluster: $a}}",
                own("a", 1),
                own("a", 1),
                "limit: {'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}",
            )))
            .virtual_host(leaked(format!("typed_per_filter_config: {{{}}}", own("host", 2))))
            .requests(["/a", "/a", "/b", "/b", "/c", "/c", "/c", "/", "/", "/"].map(get)),
        by_vhost("limit-vhost", ""),
        by_vhost("limit-vhost-included", "vh_rate_limits: INCLUDE,"),
        by_vhost("limit-vhost-ignored", "vh_rate_limits: IGNORE,"),
        described("limit-stage", &one("generic_key", "all", 1), "stage: 2,")
            .routes(leaked(format!("- match: {{prefix: /two}}\n  route: {{cluster: $a, rate_limits: [{{stage: 2, actions: [{{generic_key: {{descriptor_value: all}}}}]}}]}}\n- match: {{prefix: /}}\n  route: {{cluster: $a, rate_limits: [{all}]}}")))
            .requests(["/", "/", "/two", "/two"].map(get)),
        described("limit-own-rules", &two(), &format!("rate_limits: [{all}],"))
            .routes(counting(route))
            .requests([get("/"), get("/")]),
        described("limit-hits", &one("generic_key", "all", 10), "rate_limits: [{actions: [{generic_key: {descriptor_value: all}}], hits_addend: {format: '%REQ(x-hits)%'}}],")
            .requests(["4", "7", "6", "1", "many", "-1"].map(|n| get("/").header("x-hits", n)))
            .requests([get("/")]),
        described("limit-hits-fixed", &one("generic_key", "all", 10), "rate_limits: [{actions: [{generic_key: {descriptor_value: all}}], hits_addend: {number: 4}}],")
            .requests([get("/"), get("/"), get("/")]),
        described("limit-hits-given-back", &one("generic_key", "all", 2), "rate_limits: [{actions: [{generic_key: {descriptor_value: all}}, {request_headers: {header_name: x-none, descriptor_key: none, skip_if_absent: true}}, {header_value_match: {descriptor_value: x, descriptor_key: generic_key, headers: [{name: x-take, present_match: true}]}}]}, {actions: [{header_value_match: {descriptor_value: all, descriptor_key: generic_key, headers: [{name: x-give, present_match: true}]}}], hits_addend: {number: 1, is_negative_hits: true}}, {actions: [{header_value_match: {descriptor_value: all, descriptor_key: generic_key, headers: [{name: x-give, present_match: false}]}}]}],")
            .requests([get("/"), get("/"), get("/"), get("/").header("x-give", "1"), get("/"), get("/")]),
        described("limit-option", &one("generic_key", "all", 2), &format!("rate_limits: [{{x_ratelimit_option: DRAFT_VERSION_03, {}],", &all[1..]))
            .by_chance("x-ratelimit-reset", "whole seconds pass")
            .requests([get("/"), get("/"), get("/")]),
    ]
}

fn chain(share_key: &str, more: &str) -> &'static str {
    leaked(format!(
        "- filters:
  - name: limit
    typed_config:
      '@type': type.googleapis.com/envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit
      stat_prefix: limit
      token_bucket: {{max_tokens: 2, fill_interval: 600s}}
      share_key: '{share_key}'
      {more}
  - name: tcp
    typed_config:
      '@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
      stat_prefix: tcp
      cluster: $a
      $log
"
    ))
}

pub(crate) fn connections() -> Vec<Case> {
    // Who is turned away finds the end; what it says itself may be lost.
    let talk = || Talk { say: "", hear: "hi", finish: true, tls: None };
    let server = || Serve::Tcp("hi");
    vec![
        case("limit-connections")
            .host("a", server())
            .filter_chains(chain("", ""))
            .talk(talk())
            .talk(talk())
            .talk(talk())
            .talk(talk()),
        case("limit-connections-off")
            .host("a", server())
            .filter_chains(chain("", "runtime_enabled: {runtime_key: none.such, default_value: false}"))
            .talk(talk())
            .talk(talk())
            .talk(talk()),
    ]
}

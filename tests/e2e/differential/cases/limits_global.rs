//! Global rate limits: a scripted rate limit service, and what becomes of its answers.

use outrigger_wire::pb::{
    envoy::{
        config::core::v3::HeaderValue,
        service::ratelimit::v3::{
            RateLimitResponse,
            rate_limit_response::{Code, DescriptorStatus, RateLimit, rate_limit::Unit},
        },
    },
    google::protobuf::{Duration, Struct, Value, value::Kind},
};
use prost::Message;

use crate::harness::{Case, Plan, Reply, Serve, Talk, case, get, grpc, grpc_call, hang, ok, plan, post, status};

const GLOBAL: &str = "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit";
const PER_ROUTE: &str = "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute";

const SERVICE: &str =
    "rate_limit_service: {transport_api_version: V3, grpc_service: {envoy_grpc: {cluster_name: $rls}}}";

const RULE: &str = "{actions: [{generic_key: {descriptor_value: all}}]}";

fn leaked(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

/// A service with this plan, asked about every request of the default route.
fn limited(name: &'static str, service: Plan, fields: &str) -> Case {
    asking(name, Serve::Http2(service), fields)
}

fn asking(name: &'static str, service: Serve, fields: &str) -> Case {
    let yaml =
        format!("- name: limit\n  typed_config: {{'@type': {GLOBAL}, domain: test, timeout: 5s, {SERVICE}, {fields}}}");
    case(name)
        .echoes(&["a"])
        .host("rls", service)
        .by_chance("cluster=", "the log names a cluster once it is asked")
        .by_chance(
            "] > x-envoy-internal | ] > x-envoy-expected-rq-timeout-ms: 5 | ] > x-forwarded-for: 192 | ] > content-length",
            "side calls say how long they are, not whose they are",
        )
        .filters(leaked(yaml))
        .routes(leaked(format!("- match: {{prefix: /}}\n  route: {{cluster: $a, rate_limits: [{RULE}]}}")))
}

/// An answer of the service. Its bytes are text: all lengths are small.
fn says(answer: &RateLimitResponse) -> Reply {
    let message = answer.encode_to_vec();
    let mut frame = vec![0, 0, 0, 0, u8::try_from(message.len()).expect("a short answer")];
    frame.extend(message);
    let text = String::from_utf8(frame).expect("an answer of ASCII");
    ok().header("content-type", "application/grpc").part(0, &text).trailer("grpc-status", "0")
}

fn code(code: Code) -> RateLimitResponse {
    RateLimitResponse { overall_code: code.into(), ..RateLimitResponse::default() }
}

fn fine() -> Reply {
    says(&code(Code::Ok))
}

fn over() -> Reply {
    says(&code(Code::OverLimit))
}

fn header(key: &str, value: &str) -> HeaderValue {
    HeaderValue { key: key.to_owned(), value: value.to_owned(), ..HeaderValue::default() }
}

fn status_of(code: Code, requests: u32, unit: Unit, name: &str, remaining: u32, reset: i64) -> DescriptorStatus {
    DescriptorStatus {
        code: code.into(),
        current_limit: Some(RateLimit { name: name.to_owned(), requests_per_unit: requests, unit: unit.into() }),
        limit_remaining: remaining,
        duration_until_reset: Some(Duration { seconds: reset, nanos: 0 }),
        ..DescriptorStatus::default()
    }
}

pub(crate) fn global() -> Vec<Case> {
    let mut all = answers();
    all.extend(failures());
    all.extend(questions());
    all
}

fn answers() -> Vec<Case> {
    let headers = RateLimitResponse {
        response_headers_to_add: vec![header("x-limit", "one"), header("x-limit", "two"), header("server-too", "x")],
        request_headers_to_add: vec![header("x-asked", "yes"), header("x-who", "service")],
        ..RateLimitResponse::default()
    };
    let with = |c: Code| RateLimitResponse { overall_code: c.into(), ..headers.clone() };
    let statuses = |c: Code| RateLimitResponse {
        statuses: vec![
            status_of(Code::Ok, 100, Unit::Hour, "per-ip", 50, 40),
            status_of(c, 10, Unit::Minute, "", 3, 20),
            DescriptorStatus { code: c.into(), limit_remaining: 1, ..DescriptorStatus::default() },
            status_of(Code::OverLimit, 7, Unit::Month, "m", 9, 70),
        ],
        ..code(c)
    };
    let body = RateLimitResponse { raw_body: b"slow down".to_vec(), ..code(Code::OverLimit) };
    let typed =
        RateLimitResponse { response_headers_to_add: vec![header("content-type", "application/fun")], ..body.clone() };
    let noted = Value { kind: Some(Kind::StringValue("silver".to_owned())) };
    let metadata = RateLimitResponse {
        dynamic_metadata: Some(Struct { fields: [("tier".to_owned(), noted)].into() }),
        ..code(Code::Ok)
    };
    vec![
        limited("ask-ok", plan([fine()]), "").requests([get("/"), post("/x", "body").h2(), grpc_call("/s/m")]),
        limited("ask-over", plan([over()]), "")
            .by_chance("connection: close | then closed | rx=", "a body is not read while the service is asked").requests([get("/"), post("/", "body"), get("/").h2()]),
        limited("ask-then-over", plan([fine(), over(), fine()]), "").requests([get("/"), get("/"), get("/")]),
        limited("ask-over-grpc", plan([over()]), "")
            .by_chance("connection: close | then closed | rx=", "a body is not read while the service is asked")
            .requests([grpc_call("/s/m")]),
        limited("ask-over-exhausted", plan([over()]), "rate_limited_as_resource_exhausted: true")
            .by_chance("connection: close | then closed | rx=", "a body is not read while the service is asked")
            .requests([grpc_call("/s/m"), get("/")]),
        limited("ask-headers", plan([says(&with(Code::Ok)), says(&with(Code::OverLimit))]), "")
            .requests([get("/").header("x-who", "client"), get("/")]),
        limited("ask-body", plan([says(&body), says(&body), says(&typed)]), "")
            .by_chance("connection: close | then closed | rx=", "a body is not read while the service is asked")
            .requests([get("/"), grpc_call("/s/m"), get("/")]),
        limited("ask-status", plan([over()]), "rate_limited_status: {code: 503}, disable_x_envoy_ratelimited_header: true, response_headers_to_add: [{header: {key: x-limited, value: 'yes %RESPONSE_CODE%'}}]")
            .requests([get("/")]),
        limited("ask-status-too-low", plan([over()]), "rate_limited_status: {code: 302}").requests([get("/")]),
        limited("ask-x-ratelimit", plan([says(&statuses(Code::Ok)), says(&statuses(Code::OverLimit))]), "enable_x_ratelimit_headers: DRAFT_VERSION_03")
            .requests([get("/"), get("/")]),
        limited("ask-retry-after", plan([says(&statuses(Code::OverLimit)), over()]), "enable_retry_after_header: true")
            .requests([get("/"), get("/")]),
        limited("ask-dry-run", plan([says(&with(Code::OverLimit))]), "filter_enforced: {default_value: {numerator: 0}}")
            .requests([get("/")]),
        limited("ask-nobody", plan([over()]), "filter_enabled: {default_value: {numerator: 0}}").requests([get("/")]),
        limited("ask-metadata", plan([says(&metadata)]), "")
            .virtual_host("response_headers_to_add: [{header: {key: x-tier, value: '%DYNAMIC_METADATA(envoy.filters.http.ratelimit:tier)%'}}]")
            .requests([get("/")]),
        limited("ask-metadata-elsewhere", plan([says(&metadata)]), "metadata_namespace: other")
            .virtual_host("response_headers_to_add: [{header: {key: x-tier, value: '%DYNAMIC_METADATA(other:tier)%'}}]")
            .requests([get("/")]),
    ]
}

fn failures() -> Vec<Case> {
    let deny = "failure_mode_deny: true";
    vec![
        limited("ask-error", plan([grpc(14)]), "").requests([get("/"), get("/").h2()]),
        limited("ask-error-denied", plan([grpc(14), status(503), fine()]), deny)
            .by_chance("connection: close | then closed | rx=", "a body is not read while the service is asked")
            .requests([get("/"), grpc_call("/s/m"), get("/")]),
        limited("ask-error-status", plan([grpc(2)]), "failure_mode_deny: true, status_on_error: {code: 503}")
            .requests([get("/")]),
        limited("ask-error-some", plan([grpc(14)]), "failure_mode_deny_percent: {default_value: {numerator: 40}}")
            .client_only()
            .spread(200, get("/")),
        limited("ask-slow", plan([hang()]), "")
            .explained("the proxy reset the stream", "a call that takes too long is cancelled, not an internal error")
            .filters(leaked(format!(
                "- name: limit\n  typed_config: {{'@type': {GLOBAL}, domain: test, timeout: 0.5s, {SERVICE}, {deny}}}"
            )))
            .requests([get("/").timed(&[300, 9000])]),
        limited("ask-slow-allowed", plan([hang()]), "")
            .explained("the proxy reset the stream", "a call that takes too long is cancelled, not an internal error")
            .filters(leaked(format!(
                "- name: limit\n  typed_config: {{'@type': {GLOBAL}, domain: test, timeout: 0.5s, {SERVICE}}}"
            )))
            .requests([get("/").timed(&[300, 9000])]),
        asking("ask-nothing-there", Serve::Nothing, deny).requests([get("/")]),
        asking("ask-nothing-there-allowed", Serve::Nothing, "").requests([get("/"), post("/", "body")]),
        limited(
            "ask-strange",
            plan([
                ok().header("content-type", "application/grpc")
                    .part(0, "\0\0\0\0\u{2}\u{8}\u{7}")
                    .trailer("grpc-status", "0"),
                says(&RateLimitResponse::default()),
            ]),
            deny,
        )
        .explained(
            "1 < | a[1] > | log GET",
            "an answer with a code that nobody knows is none: what holds for failures holds",
        )
        .requests([get("/")]),
    ]
}

fn questions() -> Vec<Case> {
    vec![
        limited("ask-about-headers", plan([fine()]), "")
            .explained("body", "a descriptor without entries is nothing to ask about")
            .routes("- match: {prefix: /}\n  route: {cluster: $a, rate_limits: [{actions: [{request_headers: {header_name: x-user, descriptor_key: user}}, {generic_key: {descriptor_value: v, descriptor_key: k}}]}, {actions: [{query_parameters: {query_parameter_name: q, descriptor_key: q, skip_if_absent: true}}]}, {actions: [{destination_cluster: {}}, {source_cluster: {}}]}]}")
            .requests([get("/").header("x-user", "ann"), get("/?q=1"), get("/")]),
        limited("ask-about-nothing", plan([over()]), "")
            .routes("- match: {prefix: /none}\n  route: {cluster: $a}\n- match: {prefix: /}\n  route: {cluster: $a, rate_limits: [{actions: [{request_headers: {header_name: x-user, descriptor_key: user}}]}]}")
            .requests([get("/none"), get("/"), get("/").header("x-user", "ann")]),
        limited("ask-stages", plan([over()]), "stage: 1")
            .routes("- match: {prefix: /one}\n  route: {cluster: $a, rate_limits: [{stage: 1, actions: [{generic_key: {descriptor_value: v}}]}]}\n- match: {prefix: /}\n  route: {cluster: $a, rate_limits: [{actions: [{generic_key: {descriptor_value: v}}]}]}")
            .requests([get("/"), get("/one")]),
        limited("ask-internal", plan([over()]), "request_type: internal")
            .explained("x-forwarded-for", "for a client on the loopback device Envoy names an address of the machine")
            .manager("use_remote_address: true\ninternal_address_config: {cidr_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]}\nxff_num_trusted_hops: 1")
            .requests([get("/"), get("/").header("x-forwarded-for", "10.1.1.1"), get("/").header("x-envoy-internal", "true")]),
        limited("ask-external", plan([over()]), "request_type: external").requests([get("/"), get("/").header("x-envoy-internal", "true")]),
        limited("ask-own-rules", plan([fine()]), "rate_limits: [{actions: [{generic_key: {descriptor_value: own}}], limit: {rate_limit: {requests_per_unit: 5, unit: HOUR}}, hits_addend: {number: 3}}]")
            .requests([get("/")]),
        limited("ask-by-route", plan([fine()]), "rate_limits: [{actions: [{generic_key: {descriptor_value: filter}}]}]")
            .routes(leaked(format!("- match: {{prefix: /own}}\n  route: {{cluster: $a, rate_limits: [{RULE}]}}\n  typed_per_filter_config: {{limit: {{'@type': {PER_ROUTE}, domain: mine, rate_limits: [{{actions: [{{generic_key: {{descriptor_value: own}}}}]}}]}}}}\n- match: {{prefix: /}}\n  route: {{cluster: $a, rate_limits: [{RULE}]}}")))
            .requests([get("/own"), get("/")]),
        limited("ask-vhost", plan([fine()]), "")
            .virtual_host("rate_limits: [{actions: [{generic_key: {descriptor_value: host}}]}]")
            .routes(leaked(format!("- match: {{prefix: /own}}\n  route: {{cluster: $a, rate_limits: [{RULE}]}}\n- match: {{prefix: /both}}\n  route: {{cluster: $a, rate_limits: [{RULE}]}}\n  typed_per_filter_config: {{limit: {{'@type': {PER_ROUTE}, vh_rate_limits: INCLUDE}}}}\n- match: {{prefix: /ignored}}\n  route: {{cluster: $a}}\n  typed_per_filter_config: {{limit: {{'@type': {PER_ROUTE}, vh_rate_limits: IGNORE}}}}\n- match: {{prefix: /}}\n  route: {{cluster: $a}}")))
            .requests([get("/own"), get("/both"), get("/ignored"), get("/")]),
        limited("ask-off-by-route", plan([over()]), "")
            .routes(leaked(format!("- match: {{prefix: /off}}\n  route: {{cluster: $a, rate_limits: [{RULE}]}}\n  typed_per_filter_config: {{limit: {{'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}}}}\n- match: {{prefix: /}}\n  route: {{cluster: $a, rate_limits: [{RULE}]}}")))
            .requests([get("/off"), get("/on")]),
    ]
}

/// Connections that the service is asked about.
pub(crate) fn connections() -> Vec<Case> {
    let chain = |more: &str| {
        leaked(format!(
            "- filters:
  - name: limit
    typed_config:
      '@type': type.googleapis.com/envoy.extensions.filters.network.ratelimit.v3.RateLimit
      stat_prefix: limit
      domain: test
      timeout: 5s
      descriptors: [{{entries: [{{key: who, value: '%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%'}}, {{key: b, value: c}}]}}]
      {SERVICE}
      {more}
  - name: tcp
    typed_config:
      '@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
      stat_prefix: tcp
      cluster: $a
      $log
"
        ))
    };
    let talk = || Talk { say: "", hear: "hi", finish: true, tls: None };
    let asking = |name, service: Serve, more: &str| {
        case(name)
            .by_chance(
                "] > x-envoy-internal | ] > x-envoy-expected-rq-timeout-ms: 5 | ] > x-forwarded-for: 192 | ] > content-length",
                "side calls say how long they are, not whose they are",
            )
            .by_chance("log ", "a connection that is turned away is logged with the reason, in the order of the ends")
            .host("a", Serve::Tcp("hi"))
            .host("rls", service)
            .filter_chains(chain(more))
            .talk(talk())
    };
    vec![
        asking("ask-connections", Serve::Http2(plan([fine(), over(), fine()])), "").talk(talk()).talk(talk()),
        asking("ask-connections-error", Serve::Http2(plan([grpc(14)])), "").talk(talk()),
        asking("ask-connections-denied", Serve::Http2(plan([grpc(14), fine()])), "failure_mode_deny: true")
            .talk(talk()),
    ]
}

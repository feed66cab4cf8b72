//! JSON web tokens: which are good, and what is asked for.

use crate::harness::{
    Case, Req, case, get, grpc_call, ok, plan, request, reset, status,
    tokens::{encode, jwks, signed, token, within},
};

const KIND: &str = "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3";

fn leak(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

/// A provider `p` of the issuer `me` with local keys and further fields.
fn provider(name: &str, issuer: &str, more: &str) -> String {
    let comma = if more.is_empty() { "" } else { ", " };
    format!("{name}: {{issuer: '{issuer}', local_jwks: {{inline_string: '{}'}}{comma}{more}}}", jwks())
}

fn filter(providers: &str, rest: &str) -> &'static str {
    leak(format!(
        "- name: envoy.filters.http.jwt_authn\n  typed_config: {{'@type': {KIND}.JwtAuthentication, providers: {{{providers}}}, {rest}}}"
    ))
}

const EVERYWHERE: &str = "rules: [{match: {prefix: /}, requires: {provider_name: p}}]";

/// One provider that everything requires.
fn one(name: &'static str, more: &str) -> Case {
    case(name).echoes(&["a"]).filters(filter(&provider("p", "me", more), EVERYWHERE))
}

fn payload(more: &str) -> String {
    format!(r#"{{"iss":"me","sub":"user","exp":{}{more}}}"#, within(3600))
}

fn good() -> String {
    token("RS256", "rsa", &payload(""))
}

fn bearer(token: &str) -> Req {
    get("/p?q=1").header("authorization", &format!("Bearer {token}"))
}

pub(crate) fn tokens() -> Vec<Case> {
    let of = |payload: &str| bearer(&token("HS256", "hs", payload));
    let headed = |header: &str| bearer(&signed("HS256", header, &payload("")));
    vec![
        one("jwt-missing", "").requests([
            get("/p?q=1"),
            get("/").h2(),
            grpc_call("/s/m"),
            get("/").header("authorization", "Basic abc"),
            get("/").header("authorization", "Bearer"),
            get("/").header("authorization", "Bearer "),
            get(leak(format!("/{}", "x".repeat(400)))),
        ]),
        one("jwt-good", "").requests([bearer(&good()), bearer(&good()).h2(), get("/").header("authorization", &format!("Bearer  {} ", good()))]),
        one("jwt-algorithms", "").requests(
            [("RS256", "rsa"), ("RS512", "rsa"), ("PS256", "rsa"), ("ES256", "ec"), ("EdDSA", "ed"), ("HS256", "hs"), ("RS256", ""), ("ES256", "")]
                .map(|(algorithm, kid)| bearer(&token(algorithm, kid, &payload("")))),
        ),
        one("jwt-no-such-key", "").requests([
            bearer(&token("RS256", "other", &payload(""))),
            bearer(&token("ES256", "rsa", &payload(""))),
            // Signed with the secret, said to be signed with the public key.
            bearer(&signed("HS256", r#"{"alg":"RS256","kid":"rsa"}"#, &payload(""))),
            bearer(&signed("RS256", r#"{"alg":"HS256","kid":"rsa"}"#, &payload(""))),
            bearer(&signed("RS256", r#"{"alg":"HS256"}"#, &payload(""))),
            bearer(&signed("HS256", r#"{"alg":"EdDSA","kid":"ed"}"#, &payload(""))),
            bearer(&signed("HS256", r#"{"alg":"ES256","kid":"ec"}"#, &payload(""))),
        ]),
        one("jwt-algorithm-none", "").requests([
            bearer(&format!("{}.{}.", encode(r#"{"alg":"none"}"#), encode(payload("")))),
            bearer(&format!("{}.{}.", encode(r#"{"alg":"RS256"}"#), encode(payload("")))),
            headed(r#"{"alg":"hs256"}"#),
            headed(r#"{"alg":7}"#),
            headed(r#"{}"#),
            headed(r#"{"alg":"HS256","kid":7}"#),
            headed("[]"),
            headed("{"),
        ]),
        one("jwt-broken", "").requests([
            bearer("a"),
            bearer("a.b"),
            bearer("a.b.c"),
            bearer("a.b.c.d"),
            bearer(&good().replacen('.', ".A", 1)),
            bearer(&format!("{}A", good())),
            bearer(&format!("{}.{}.!", encode(r#"{"alg":"HS256"}"#), encode(payload("")))),
            bearer(&format!("{}.!!.c", encode(r#"{"alg":"HS256"}"#))),
            bearer(&format!("{}.{}.c2ln", encode(r#"{"alg":"HS256"}"#), encode("no json"))),
            bearer(&format!("{}.{}.c2ln", encode(r#"{"alg":"HS256"}"#), encode("[1]"))),
            get("/").header("authorization", &format!("Bearer {},{}", good(), good())),
            get("/").header("authorization", &format!("Bearer {}", good())).header("authorization", "Bearer x"),
        ]),
        one("jwt-types-of-claims", "").requests(
            [
                r#"{"iss":7}"#,
                r#"{"iss":"me","sub":[]}"#,
                r#"{"iss":"me","iat":"1"}"#,
                r#"{"iss":"me","nbf":"1"}"#,
                r#"{"iss":"me","exp":"1"}"#,
                r#"{"iss":"me","exp":-1}"#,
                r#"{"iss":"me","exp":1e30}"#,
                r#"{"iss":"me","exp":null}"#,
                r#"{"iss":"me","jti":1}"#,
                r#"{"iss":"me","aud":1}"#,
                r#"{"iss":"me","aud":[1]}"#,
                r#"{"iss":"me","exp":9999999999.5}"#,
                r#"{"iss":"me"}"#,
                "{}",
            ]
            .map(of),
        ),
        one("jwt-times", "").requests(
            [
                format!(r#"{{"iss":"me","exp":{}}}"#, within(-30)),
                format!(r#"{{"iss":"me","exp":{}}}"#, within(-300)),
                format!(r#"{{"iss":"me","nbf":{}}}"#, within(30)),
                format!(r#"{{"iss":"me","nbf":{}}}"#, within(300)),
                r#"{"iss":"me","exp":0}"#.to_owned(),
            ]
            .map(|p| of(&p)),
        ),
        one("jwt-clock-skew", "clock_skew_seconds: 10").requests([
            of(&format!(r#"{{"iss":"me","exp":{}}}"#, within(-30))),
            of(&format!(r#"{{"iss":"me","exp":{}}}"#, within(300))),
        ]),
        one("jwt-expiration-required", "require_expiration: true").requests([of(r#"{"iss":"me"}"#), of(&payload(""))]),
        one("jwt-lifetime", "max_lifetime: 600s").requests([
            of(r#"{"iss":"me"}"#),
            of(&payload("")),
            of(&format!(r#"{{"iss":"me","exp":{}}}"#, within(300))),
            of(&format!(r#"{{"iss":"me","exp":{}}}"#, within(-300))),
        ]),
        one("jwt-subjects", "subjects: {prefix: us}").requests([of(&payload("")), of(r#"{"iss":"me","sub":"other"}"#), of(r#"{"iss":"me"}"#)]),
        one("jwt-issuers", "").requests([of(r#"{"iss":"other"}"#), of(r#"{"iss":"ME"}"#), of(r#"{"sub":"me"}"#)]),
        case("jwt-any-issuer").echoes(&["a"]).filters(filter(&provider("p", "", ""), EVERYWHERE)).requests([of(r#"{"iss":"other"}"#), of("{}")]),
        one("jwt-audiences", "audiences: [one, 'https://two/']").requests(
            [r#""one""#, r#"["x","one"]"#, r#""http://two""#, r#""two/""#, r#""One""#, r#"[]"#, r#""other""#]
                .map(|aud| of(&payload(&format!(r#","aud":{aud}"#)))),
        )
        .requests([of(&payload("")), grpc_call("/s/m").header("authorization", &format!("Bearer {}", token("HS256", "hs", &payload(""))))]),
        one("jwt-forwarded", "forward: true, forward_payload_header: x-payload, pad_forward_payload_header: true")
            .requests([bearer(&token("HS256", "hs", r#"{"iss":"me"}"#)), bearer(&token("HS256", "hs", r#"{"iss":"me","a":1}"#)).header("x-payload", "forged")]),
        one("jwt-payload-unpadded", "forward_payload_header: x-payload").requests([bearer(&token("HS256", "hs", r#"{"iss":"me","a":1}"#)), get("/").header("x-payload", "forged")]),
        one(
            "jwt-claims-to-headers",
            "claim_to_headers: [{header_name: x-sub, claim_name: sub}, {header_name: x-n, claim_name: num}, {header_name: x-f, claim_name: float}, {header_name: x-b, claim_name: bool}, {header_name: x-deep, claim_name: a.b.c}, {header_name: x-list, claim_name: list}, {header_name: x-none, claim_name: none}]",
        )
        .requests([
            bearer(&token("HS256", "hs", &payload(r#","num":12,"float":1.5,"bool":true,"a":{"b":{"c":"deep"}},"list":["x",{"y":1}]"#)))
                .header("x-sub", "forged")
                .header("x-none", "forged"),
        ]),
        one("jwt-in-headers", "from_headers: [{name: x-token}, {name: x-prefixed, value_prefix: 'jwt='}]").requests([
            get("/").header("x-token", &good()),
            get("/").header("x-prefixed", &format!("a; jwt={}; b", good())),
            get("/").header("x-prefixed", &good()),
            bearer(&good()),
            get("/").header("x-token", &good()).header("x-prefixed", "jwt=bad"),
            get("/").header("x-token", "bad").header("x-prefixed", &format!("jwt={}", good())),
        ]),
        one("jwt-in-parameters", "from_params: [token, other]").requests([
            get(leak(format!("/?a=b&token={}&c=d", good()))),
            get(leak(format!("/?token={}&token=bad", good()))),
            get("/?token="),
            get(leak(format!("/?TOKEN={}", good()))),
            get(leak(format!("/?token={}&other=bad", good()))),
        ]),
        one("jwt-in-default-parameter", "forward: true").requests([get(leak(format!("/?access_token={}", good())))]),
        one("jwt-in-cookies", "from_cookies: [token]").requests([
            get("/").header("cookie", &format!("a=b; token={}; c=d", good())),
            get("/").header("cookie", &format!("token=\"{}\"", good())),
            get("/").header("cookie", &format!("xtoken={}", good())),
        ]),
        one("jwt-in-metadata", "payload_in_metadata: payload, header_in_metadata: header, normalize_payload_in_metadata: {space_delimited_claims: [scope]}")
            .routes(
                "- match: {prefix: /}\n  route: {cluster: $a}\n  request_headers_to_add:\n  - header: {key: x-sub, value: '%DYNAMIC_METADATA(envoy.filters.http.jwt_authn:payload:sub)%'}\n  - header: {key: x-scope, value: '%DYNAMIC_METADATA(envoy.filters.http.jwt_authn:payload:scope)%'}\n  - header: {key: x-alg, value: '%DYNAMIC_METADATA(envoy.filters.http.jwt_authn:header:alg)%'}",
            )
            .requests([bearer(&token("HS256", "hs", &payload(r#","scope":"a  b c""#)))]),
    ]
}

pub(crate) fn requirements() -> Vec<Case> {
    let two = || format!("{}, {}", provider("p", "me", ""), provider("q", "you", "audiences: [aud]"));
    let mine = || token("HS256", "hs", r#"{"iss":"me"}"#);
    let yours = || token("HS256", "hs", r#"{"iss":"you","aud":"aud"}"#);
    let wrong = || token("HS256", "hs", r#"{"iss":"you","aud":"other"}"#);
    let with = |name: &'static str, rest: &str| case(name).echoes(&["a"]).filters(filter(&two(), rest));
    let all = |requires: &str| format!("rules: [{{match: {{prefix: /}}, requires: {{{requires}}}}}]");
    let tokens = || {
        let param = leak(format!("/?access_token={}", mine()));
        [
            get("/"),
            bearer(&mine()),
            bearer(&yours()),
            bearer(&wrong()),
            bearer("bad"),
            get(param).header("authorization", &format!("Bearer {}", yours())),
            get(param).header("authorization", "Bearer bad"),
        ]
    };
    let remote = |name: &'static str, more: &str| {
        let source = format!(
            "remote_jwks: {{http_uri: {{uri: 'http://keys.test/jwks?x=1', cluster: $keys, timeout: 5s}}{more}}}"
        );
        case(name).echoes(&["a"]).filters(filter(&format!("p: {{issuer: me, {source}}}"), EVERYWHERE))
    };
    vec![
        with("jwt-first-rule", "rules: [{match: {prefix: /open}}, {match: {path: /exact}, requires: {provider_name: q}}, {match: {prefix: /, headers: [{name: x-skip}]}}, {match: {prefix: /, query_parameters: [{name: skip}]}}, {match: {prefix: /p}, requires: {provider_name: p}}]")
            .requests([
                get("/open/x"),
                get("/exact"),
                get("/exact").header("authorization", &format!("Bearer {}", yours())),
                get("/p").header("x-skip", "1"),
                get("/p?skip"),
                get("/p"),
                get("/other"),
                get("/OPEN"),
            ]),
        with("jwt-audiences-of-the-rule", &all("provider_and_audiences: {provider_name: q, audiences: [other]}")).requests(tokens()),
        with("jwt-any", &all("requires_any: {requirements: [{provider_name: p}, {provider_name: q}]}")).requests(tokens()),
        with("jwt-all", &all("requires_all: {requirements: [{provider_name: p}, {provider_name: q}]}")).requests(tokens()),
        with("jwt-any-or-missing", &all("requires_any: {requirements: [{provider_name: p}, {allow_missing: {}}]}")).requests(tokens()),
        with("jwt-any-or-failed", &all("requires_any: {requirements: [{provider_name: p}, {allow_missing_or_failed: {}}]}")).requests(tokens()),
        with("jwt-only-excuses", &all("requires_any: {requirements: [{allow_missing: {}}, {allow_missing_or_failed: {}}]}")).requests(tokens()),
        with("jwt-missing-allowed", &all("allow_missing: {}")).requests(tokens()),
        with("jwt-failed-allowed", &all("allow_missing_or_failed: {}")).requests(tokens()),
        with("jwt-nested", &all("requires_all: {requirements: [{requires_any: {requirements: [{provider_name: p}, {provider_name: q}]}}, {allow_missing: {}}]}")).requests(tokens()),
        with("jwt-by-name", "requirement_map: {r: {provider_name: q}, open: {allow_missing_or_failed: {}}}, rules: [{match: {prefix: /}, requirement_name: r}]")
            .routes(leak(format!(
                "
                - match: {{prefix: /off}}
                  route: {{cluster: $a}}
                  typed_per_filter_config: {{envoy.filters.http.jwt_authn: {{'@type': {KIND}.PerRouteConfig, disabled: true}}}}
                - match: {{prefix: /open}}
                  route: {{cluster: $a}}
                  typed_per_filter_config: {{envoy.filters.http.jwt_authn: {{'@type': {KIND}.PerRouteConfig, requirement_name: open}}}}
                - match: {{prefix: /wrong}}
                  route: {{cluster: $a}}
                  typed_per_filter_config: {{envoy.filters.http.jwt_authn: {{'@type': {KIND}.PerRouteConfig, requirement_name: none}}}}
                - match: {{prefix: /}}
                  route: {{cluster: $a}}
                "
            )))
            .requests([get("/off"), get("/open"), get("/wrong"), get("/"), get("/").header("authorization", &format!("Bearer {}", yours()))]),
        with("jwt-preflight", &format!("bypass_cors_preflight: true, {}", all("provider_name: p")))
            .requests([
                request("OPTIONS", "/").header("origin", "http://x").header("access-control-request-method", "GET"),
                request("OPTIONS", "/").header("origin", "http://x"),
                get("/").header("origin", "http://x").header("access-control-request-method", "GET"),
            ]),
        with("jwt-stripped", &format!("strip_failure_response: true, {}", all("provider_name: p"))).requests([get("/"), bearer("bad")]),
        case("jwt-failure-noted")
            .echoes(&["a"])
            .filters(filter(&provider("p", "me", "failed_status_in_metadata: failed"), &all("allow_missing_or_failed: {}")))
            .routes("- match: {prefix: /}\n  route: {cluster: $a}\n  request_headers_to_add:\n  - header: {key: x-code, value: '%DYNAMIC_METADATA(envoy.filters.http.jwt_authn:failed:code)%'}\n  - header: {key: x-message, value: '%DYNAMIC_METADATA(envoy.filters.http.jwt_authn:failed:message)%'}")
            .requests([
                get("/"),
                bearer("bad"),
                bearer(&yours()),
                bearer(&token("HS256", "hs", r#"{"iss":"me","exp":1}"#)),
                bearer(&token("HS256", "none", r#"{"iss":"me"}"#)),
                bearer(&format!("{}x", mine())),
                bearer(&token("HS256", "hs", r#"{"iss":"me","aud":1}"#)),
            ]),
        case("jwt-rerouted")
            .echoes(&["a", "b"])
            .filters(filter(&provider("p", "me", "claim_to_headers: [{header_name: x-sub, claim_name: sub}], clear_route_cache: true"), EVERYWHERE))
            .routes("- match: {prefix: /, headers: [{name: x-sub, string_match: {exact: user}}]}\n  name: b\n  route: {cluster: $b}\n- match: {prefix: /}\n  name: a\n  route: {cluster: $a}")
            .requests([bearer(&good()), bearer(&mine()), bearer(&mine()).header("x-sub", "user")]),
        remote("jwt-remote-keys", "").http1("keys", plan([ok().body(&jwks())])).requests([get("/"), bearer(&mine()), bearer(&good()), bearer("bad")]),
        remote("jwt-remote-keys-gone", "").http1("keys", plan([status(503)])).requests([bearer(&mine()), bearer(&mine())]),
        remote("jwt-remote-keys-reset", "").http1("keys", plan([reset(), ok().body(&jwks())])).requests([bearer(&mine()), bearer(&mine())]),
        remote("jwt-remote-keys-no-keys", "").http1("keys", plan([ok().body("{}"), ok().body("text"), ok().body(&jwks())])).requests([bearer(&mine()), bearer(&mine()), bearer(&mine())]),
        remote("jwt-remote-keys-retried", ", retry_policy: {num_retries: 2, retry_back_off: {base_interval: 0.1s, max_interval: 3s}}")
            .http1("keys", plan([status(503), ok().body(&jwks())]))
            .explained("x-envoy-expected-rq-timeout-ms | transfer-encoding", "a fetch that may be tried again goes out as a request without a body and with its whole time").requests([bearer(&mine())]),
        remote("jwt-remote-keys-short-lived", ", cache_duration: 2s").http1("keys", plan([ok().body(&jwks())])).requests([bearer(&mine()), bearer(&mine())]).pause(3200).requests([bearer(&mine())]),
    ]
}

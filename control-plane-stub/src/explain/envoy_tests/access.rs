//! A real Envoy must allow and deny what an explanation says.

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::*;
use crate::{
    explain::access::{Call, access},
    model::load,
    resources::ClientKind,
};

const POLICIES: &str = r#"
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: foo}
spec:
  jwtRules:
  - {issuer: https://iss.example/a, audiences: [shop], jwks: '{"keys": [{"kty": "oct", "alg": "HS256", "k": "KEY"}]}'}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny, namespace: istio-system}
spec:
  action: DENY
  rules:
  - to: [{operation: {paths: ["/admin*"]}}]
    from: [{source: {notRequestPrincipals: ["*/root"]}}]
  - to: [{operation: {methods: [DELETE]}}]
    when: [{key: "request.headers[x-token]", notValues: [admin, "super*"]}]
  - from: [{source: {notIpBlocks: [127.0.0.0/8], namespaces: [evil]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: allow, namespace: foo}
spec:
  rules:
  - to: [{operation: {paths: [/public, /public/*, "*.txt", "/api/{*}/items", "/files/{**}"]}}]
  - to: [{operation: {hosts: ["*.ok.example"], notPaths: [/secret], methods: [GET]}}]
  - from: [{source: {requestPrincipals: ["https://iss.example/a/alice"]}}]
  - from: [{source: {namespaces: [foo]}}, {source: {principals: ["*"]}}]
  - when: [{key: "request.auth.claims[realm][roles]", values: [reader, "op*"]}]
  - when: [{key: request.auth.audiences, values: [shop]}, {key: "request.headers[x-shop]", values: ["*"]}]
  - from: [{source: {ipBlocks: [127.0.0.1]}}]
    when: [{key: "request.headers[x-local]", values: ["yes"], notValues: ["no"]}]
  - from: [{source: {remoteIpBlocks: [10.0.0.0/8]}}]
"#;

const KEY: &[u8] = b"a key that is shared by nobody but this test and its Envoy";

fn token(claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&json!({"alg": "HS256", "typ": "JWT"})), part(claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, KEY), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
}

/// The connection manager of the plaintext chain, with an answer behind it.
fn manager(world: &World, ip: &str) -> Value {
    let node = Node { namespace: "foo".to_owned(), kind: ClientKind::Envoy, ..client(ip) };
    let listener = &translate::translate(world, &node).listeners["virtualInbound"];
    let listener = json::bytes_to_value("envoy.config.listener.v3.Listener", &listener.value).unwrap();
    let chains = listener["filter_chains"].as_array().unwrap();
    let of_port = |chain: &&Value| {
        let matched = &chain["filter_chain_match"];
        matched["destination_port"] == 8080 && matched["transport_protocol"] == "raw_buffer"
    };
    let mut manager = chains.iter().find(of_port).unwrap()["filters"][0]["typed_config"].clone();
    let answer = json!({"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "in"}}});
    manager["route_config"] =
        json!({"name": "x", "virtual_hosts": [{"name": "x", "domains": ["*"], "routes": [answer]}]});
    manager
}

fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let workloads = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/security/workloads.yaml");
    std::fs::copy(workloads, dir.path().join("workloads.yaml")).unwrap();
    let policies = POLICIES.replace("KEY", &URL_SAFE_NO_PAD.encode(KEY));
    std::fs::write(dir.path().join("policies.yaml"), policies).unwrap();
    load(dir.path()).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

#[test]
fn envoy_allows_what_is_explained_as_allowed() {
    let world = world();
    let Some(envoy) = Envoy::start(manager(&world, "10.244.1.20")) else { return };
    let paths = [
        "/public",
        "/public/a",
        "/publi",
        "/a.txt",
        "/a.txt?x",
        "/a?x=.txt",
        "/api/1/items",
        "/api/1/2/items",
        "/api//items",
        "/files/",
        "/files/a/b",
        "/files",
        "/secret",
        "/x/../secret",
        "/x/%2e%2e/secret",
        "/other",
        "/admin",
        "/ADMIN",
        "/x/../admin/a",
        "//admin",
        "/a/./b",
        "/public%2fa",
        "/%70ublic",
    ];
    let hosts = ["a.ok.example", "A.OK.example", "ok.example", "a.ok.example:80", "other"];
    let headers =
        [("x-token", "admin"), ("x-token", "supervisor"), ("x-token", "guest"), ("x-local", "yes"), ("x-shop", "1")];
    let iss = "https://iss.example/a";
    let claims = [
        json!({}),
        json!({"iss": iss, "aud": "shop", "sub": "alice"}),
        json!({"iss": iss, "aud": ["shop", "b"], "sub": "root"}),
        json!({"iss": iss, "aud": "shop", "sub": "bob", "realm": {"roles": ["a", "operator"]}}),
        json!({"iss": iss, "aud": "shop", "sub": "bob", "realm": {"roles": "reader"}}),
        json!({"iss": iss, "aud": "elsewhere", "sub": "alice"}),
        json!({"iss": "https://other.example", "aud": "shop", "sub": "alice"}),
    ];
    let mut draw = 11u64;
    let mut below = |bound: usize| {
        draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (draw >> 33) as usize % bound
    };
    let mut seen = std::collections::BTreeMap::<String, usize>::new();
    for _ in 0..400 {
        let chosen: Vec<_> = headers.iter().filter(|_| below(3) == 0).copied().collect();
        let mut request = get("httpbin", 8000, paths[below(paths.len())], &chosen);
        request.authority = Some(hosts[below(hosts.len())].to_owned());
        request.method = [http::Method::GET, http::Method::DELETE][below(2)].clone();
        let claims = &claims[if below(2) == 0 { 0 } else { below(claims.len()) }];
        request.caller = Caller {
            plaintext: true,
            address: Some([127, 0, 0, 1].into()),
            claims: claims.as_object().unwrap().clone(),
            ..Default::default()
        };
        let mut head = format!("{} {} HTTP/1.1\r\nHost: {}\r\n", request.method, request.path, request.authority());
        for (name, value) in &chosen {
            head += &format!("{name}: {value}\r\n");
        }
        if *claims != json!({}) {
            head += &format!("Authorization: Bearer {}\r\n", token(claims));
        }
        let caller = Node { namespace: "foo".to_owned(), ..client("127.0.0.1") };
        let at = "10.244.1.20:8080".parse().unwrap();
        let call =
            Call { client: &caller, request: &request, at, mutual_tls: false, http: true, server_name: String::new() };
        let access = access(&world, &call).unwrap();
        let (status, _) = exchange(envoy.address, &head).unwrap();
        let allowed = access.verdict == Verdict::Allowed;
        assert_eq!(status == 200, allowed, "{status} for {head}\n{access:#?}");
        assert_eq!(status == 401, access.reason.starts_with("401"), "{status} for {head}\n{access:#?}");
        *seen.entry(access.decided_by.clone().unwrap_or_else(|| access.reason.clone())).or_default() += 1;
    }
    assert!(seen.len() >= 9, "the requests try too few rules: {seen:#?}");
}

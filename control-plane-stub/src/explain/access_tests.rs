//! What the pages of Istio's security tasks promise of single requests.

use serde_json::{Value, json};

use super::{
    tests::{client, get},
    *,
};
use crate::model::load;

/// The one way in which the workloads at the end receive `request` of a client of namespace `foo`.
fn received(files: &[&str], request: &Request) -> Access {
    let dir = tempfile::tempdir().unwrap();
    for file in ["workloads.yaml"].iter().chain(files) {
        let from = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/security").join(file);
        std::fs::copy(from, dir.path().join(file)).unwrap();
    }
    let world = load(dir.path()).unwrap_or_else(|problems| panic!("{problems:#?}"));
    let curl = Node { namespace: "foo".to_owned(), service_account: "curl".to_owned(), ..client("10.244.1.50") };
    let mut explanation = explain(&world, &curl, request).unwrap();
    assert_eq!(explanation.access.len(), 1, "{explanation}");
    explanation.access.remove(0)
}

fn httpbin(path: &str, headers: &[(&'static str, &'static str)]) -> Request {
    get("httpbin", 8000, path, headers)
}

fn with_claims(claims: Value) -> Request {
    let Value::Object(claims) = claims else { panic!("{claims}") };
    Request { caller: Caller { claims, ..Default::default() }, ..httpbin("/headers", &[]) }
}

#[test]
fn nobody_is_asked_where_there_is_no_policy() {
    let open = received(&[], &httpbin("/headers", &[]));
    assert_eq!(
        (open.verdict, open.caller.as_deref()),
        (Verdict::Allowed, Some("spiffe://cluster.local/ns/foo/sa/curl"))
    );
    assert_eq!((open.mutual_tls.used, open.mutual_tls.decided_by), (true, None));
    let unguarded = received(&["allow-nothing.yaml"], &get("ext-authz", 8000, "/", &[]));
    assert_eq!(unguarded.verdict, Verdict::Unguarded, "no sidecar");
}

#[test]
fn the_policy_and_rule_that_decide_are_named() {
    let nothing = received(&["allow-nothing.yaml"], &httpbin("/ip", &[]));
    assert_eq!((nothing.verdict, nothing.reason.as_str()), (Verdict::Denied, "no ALLOW policy matches"));
    assert!(nothing.unmet[0].lacks[0].contains("it has none"), "{nothing:?}");

    let denied = received(&["deny.yaml"], &httpbin("/ip", &[("x-token", "guest")]));
    assert_eq!(denied.verdict, Verdict::Denied);
    assert_eq!(denied.decided_by.as_deref(), Some("foo/deny-method-get (deny.yaml document 1) rule 0"));
    let allowed = received(&["deny.yaml"], &httpbin("/a/../ip?x=1", &[("x-token", "admin")]));
    assert_eq!(allowed.verdict, Verdict::Allowed, "{allowed:?}");
    assert_eq!(allowed.decided_by.as_deref(), Some("foo/allow-path-ip (deny.yaml document 2) rule 0"));
    let other = received(&["deny.yaml"], &httpbin("/get", &[("x-token", "admin")]));
    assert_eq!((other.verdict, other.decided_by.as_deref()), (Verdict::Denied, None));
    assert_eq!(other.unmet[0].lacks, ["path /ip"]);
}

#[test]
fn tokens_are_judged() {
    let of = |claims: Value| received(&["jwt.yaml"], &with_claims(claims));
    let me = "testing@secure.istio.io";
    let none = received(&["jwt.yaml"], &httpbin("/headers", &[]));
    assert_eq!(none.verdict, Verdict::Denied);
    assert_eq!(none.unmet[0].lacks, [&*format!("request principal {me}/{me}"), "claim groups group1"]);
    assert_eq!(of(json!({"iss": me, "sub": me, "groups": ["group2", "group1"]})).verdict, Verdict::Allowed);
    assert_eq!(of(json!({"iss": me, "sub": me, "groups": "group1"})).verdict, Verdict::Allowed);
    assert_eq!(of(json!({"iss": me, "sub": me})).unmet[0].lacks, ["claim groups group1"]);
    let foreign = of(json!({"iss": "other", "sub": me}));
    assert!(foreign.verdict == Verdict::Denied && foreign.reason.starts_with("401: no RequestAuthentication"));
}

#[test]
fn opaque_connections_have_no_methods() {
    let tcp = |port| Request { kind: Kind::Tcp, ..get("tcp-echo", port, "/", &[]) };
    assert_eq!(received(&["tcp-allow.yaml"], &tcp(9001)).verdict, Verdict::Allowed);
    let narrowed = received(&["tcp-allow-get.yaml"], &tcp(9000));
    assert_eq!(narrowed.verdict, Verdict::Denied);
    assert_eq!(narrowed.unmet[0].lacks, ["method GET (the connection is not HTTP)"]);
    assert_eq!(received(&["tcp-deny-get.yaml"], &tcp(9000)).verdict, Verdict::Denied);
    assert_eq!(received(&["tcp-deny-get.yaml"], &tcp(9001)).verdict, Verdict::Allowed);
}

#[test]
fn providers_and_trials_are_told() {
    let asked = received(&["custom.yaml"], &httpbin("/headers", &[]));
    assert_eq!(asked.verdict, Verdict::Asked);
    let expected = "outbound|9000||ext-authz.foo.svc.cluster.local, for foo/ext-authz (custom.yaml document 2) rule 0";
    assert_eq!(asked.asked, [expected]);
    assert_eq!(received(&["custom.yaml"], &httpbin("/ip", &[])).verdict, Verdict::Allowed);
    let tried = received(&["dry-run.yaml"], &httpbin("/headers", &[]));
    assert_eq!(tried.verdict, Verdict::Allowed);
    assert_eq!(
        tried.dry_run,
        [
            "would be denied by foo/deny-path-headers (dry-run.yaml document 1) rule 0",
            "would be allowed by foo/allow-path-headers (dry-run.yaml document 2) rule 0",
        ]
    );
}

#[test]
fn the_mode_of_mutual_tls_has_a_reason() {
    let plain = |request: Request| Request { caller: Caller { plaintext: true, ..Default::default() }, ..request };
    let strict = received(&["peers.yaml"], &plain(get("tcp-echo", 9003, "/", &[])));
    assert_eq!((strict.verdict, strict.mutual_tls.mode), (Verdict::Closed, crate::model::Mode::Strict));
    assert_eq!(strict.mutual_tls.decided_by.as_deref(), Some("istio-system/default (peers.yaml document 1)"));
    let off = received(&["peers.yaml"], &httpbin("/", &[]));
    assert_eq!((off.verdict, off.mutual_tls.used), (Verdict::Allowed, false), "the client follows the port's mode");
    assert_eq!(off.mutual_tls.decided_by.as_deref(), Some("foo/httpbin (peers.yaml document 2)"));
    let other = Caller { principal: Some("cluster.local/ns/a/sa/b".to_owned()), ..Default::default() };
    let seen = received(&["peers.yaml"], &Request { caller: other, ..get("tcp-echo", 9003, "/", &[]) });
    assert_eq!(seen.caller.as_deref(), Some("spiffe://cluster.local/ns/a/sa/b"));
}

use super::*;
use crate::model::{LimitKey, LimitMode, Scope};
use crate::ratelimit::rate::{Algorithm, Unit};

fn load_one(yaml: &str) -> Result<World, Vec<Problem>> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("limits.yaml"), yaml).unwrap();
    load(dir.path())
}

fn limit(spec: &str) -> String {
    format!("apiVersion: outrigger.dev/v1alpha1\nkind: RateLimit\nmetadata: {{name: a}}\nspec: {{{spec}}}\n")
}

#[test]
fn defaults() {
    let world = load_one(&limit("scope: global, rate: {requests: 7, per: hour}")).unwrap();
    let spec = &world.rate_limits[0].spec;
    assert_eq!(
        (spec.rate.requests, spec.rate.unit, spec.rate.burst, spec.rate.algorithm),
        (7, Unit::Hour, 7, Algorithm::Gcra)
    );
    assert_eq!((spec.scope, spec.mode), (Scope::Global, LimitMode::Enforce));
    assert_eq!((spec.response.status, spec.response.headers, spec.response.retry_after), (429, false, true));
    assert_eq!(spec.global.timeout(), std::time::Duration::from_millis(100));
    assert!(spec.counts_connections() && world.notes.iter().any(|note| note.contains("selects no workload")));
}

#[test]
fn keys() {
    let key = "key: [{sourceIdentity: {}}, {header: X-User}, {path: {}}, {remoteAddress: {forwarded: true}}]";
    let world = load_one(&limit(&format!("scope: local, rate: {{requests: 1, per: day}}, {key}"))).unwrap();
    let wanted = [
        LimitKey::SourceIdentity,
        LimitKey::Header("x-user".into()),
        LimitKey::Path,
        LimitKey::RemoteAddress { forwarded: true },
    ];
    assert_eq!(world.rate_limits[0].spec.key, wanted);
    assert!(!world.rate_limits[0].spec.counts_connections());
}

#[test]
fn what_is_wrong_is_named_with_its_path() {
    let rate = "rate: {requests: 1, per: second}";
    for (spec, path, reason) in [
        (rate.to_owned(), "spec", "missing field `scope`"),
        ("scope: local".to_owned(), "spec", "missing field `rate`"),
        (format!("scope: mesh, {rate}"), "spec.scope", "unknown variant"),
        (format!("scope: local, mode: dryrun, {rate}"), "spec.mode", "dry-run"),
        ("scope: local, rate: {requests: 1, per: fortnight}".to_owned(), "spec.rate.per", "fortnight"),
        ("scope: local, rate: {requests: 0, per: day}".to_owned(), "spec", "at least 1"),
        ("scope: local, rate: {requests: -1, per: day}".to_owned(), "spec.rate.requests", "-1"),
        (format!("scope: local, {rate}, burst: 0"), "spec", "at least 1"),
        (format!("scope: global, {rate}, burst: 3, algorithm: fixedWindow"), "spec", "no `burst`"),
        (format!("scope: local, {rate}, algorithm: gcra"), "spec", "scope: global"),
        (format!("scope: local, {rate}, global: {{}}"), "spec", "scope: global"),
        (format!("scope: global, {rate}, maxKeys: 5"), "spec", "scope: local"),
        (format!("scope: local, {rate}, colour: red"), "spec.colour", "known are"),
        (format!("scope: local, {rate}, match: {{port: 0}}"), "spec.match.port", "not a port"),
        (format!("scope: local, {rate}, match: {{methods: [get]}}"), "spec.match.methods", "upper case"),
        (format!("scope: local, {rate}, match: {{path: {{}}}}"), "spec.match.path", "exactly one"),
        (format!("scope: local, {rate}, match: {{path: {{prefix: api}}}}"), "spec.match.path", "begins with /"),
        (format!("scope: local, {rate}, match: {{path: {{regex: '('}}}}"), "spec.match.path.regex", "RE2"),
        (format!("scope: local, {rate}, match: {{headers: {{'a b': {{}}}}}}"), "spec.match.headers", "header name"),
        (format!("scope: local, {rate}, key: [{{}}]"), "spec.key[0]", "exactly one"),
        (format!("scope: local, {rate}, key: [{{path: {{}}, header: x}}]"), "spec.key[0]", "exactly one"),
        (format!("scope: local, {rate}, key: [{{cookie: x}}]"), "spec.key[0].cookie", "known are"),
        (format!("scope: local, {rate}, key: [{{path: {{}}}}, {{path: {{}}}}]"), "spec", "twice"),
        (
            format!("scope: local, {rate}, key: [{{header: a}}, {{header: b}}, {{header: c}}, {{header: d}}]"),
            "spec",
            "more than 3",
        ),
        (format!("scope: local, {rate}, response: {{status: 200}}"), "spec.response.status", "not a status"),
        (format!("scope: global, {rate}, global: {{timeout: 0s}}"), "spec.global.timeout", "1ms"),
        (format!("scope: global, {rate}, global: {{failureMode: shrug}}"), "spec.global.failureMode", "shrug"),
        (
            format!("scope: global, {rate}, global: {{service: {{host: x, port: 1, domain: d}}}}"),
            "spec.global.service.host",
            "no service",
        ),
    ] {
        let problems = load_one(&limit(&spec)).unwrap_err();
        let found = problems.iter().any(|p| p.path == path && p.reason.contains(reason));
        assert!(found, "{spec}: {problems:#?}");
    }
    let other = limit(rate).replace("v1alpha1", "v1");
    assert!(load_one(&other).unwrap_err()[0].reason.contains("use v1alpha1"));
    let other = limit(rate).replace("kind: RateLimit", "kind: Ratelimit");
    assert!(load_one(&other).unwrap_err()[0].reason.contains("not supported"));
}

#[test]
fn a_limit_that_nothing_can_be_held_against_is_refused() {
    let mesh = "apiVersion: v1\nkind: Service\nmetadata: {name: db}\nspec: {clusterIP: 10.0.0.1, selector: {app: db}, ports: [{name: tcp, port: 5432}]}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: db-0, labels: {app: db}}\nspec: {}\nstatus: {podIP: 10.1.0.1, phase: Running, conditions: [{type: Ready, status: 'True'}]}\n---\n";
    let of = |spec: &str| load_one(&format!("{mesh}{}", limit(&format!("{spec}, rate: {{requests: 1, per: second}}"))));
    assert!(of("scope: local").is_ok());
    assert!(of("scope: global, mode: dry-run, key: [{remoteAddress: {}}]").is_ok());
    for (spec, path) in [
        ("scope: local, match: {path: {prefix: /}}", "spec.match.port"),
        ("scope: local, key: [{remoteAddress: {}}]", "spec.match.port"),
        ("scope: global, key: [{sourceIdentity: {}}]", "spec.match.port"),
        ("scope: local, mode: dry-run", "spec.mode"),
    ] {
        let problems = of(spec).unwrap_err();
        assert!(problems.iter().any(|p| p.path == path), "{spec}: {problems:#?}");
    }
}

#[test]
fn who_may_pass_in_silence_is_told() {
    let pod = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: p, labels: {security.istio.io/tlsMode: istio}}\nspec: {}\nstatus: {podIP: 10.1.0.9}\n";
    let strict = "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: s}\nspec: {mtls: {mode: STRICT}}\n";
    let keyed = limit("scope: local, rate: {requests: 1, per: day}, key: [{path: {}}]");
    let token = "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: t}\nspec: {jwtRules: [{issuer: a, jwksUri: 'https://a.example/k'}]}\n";
    for yaml in [keyed.as_str(), token] {
        let told =
            |more: &str| loaded(&(yaml.to_owned() + more)).notes.iter().any(|note| note.contains("silent for 1s"));
        assert!(told(pod), "{yaml}");
        assert!(!told(&(pod.to_owned() + strict)), "{yaml}");
        assert!(!told(""), "{yaml}");
    }
}

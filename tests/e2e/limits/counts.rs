//! Limits that do not refill while a test runs, so that every number is exact. The same for our proxy and an Envoy.

use outrigger_tests::{Mesh, Workload, mesh::CONTROL, need, pair::STRICT};

use crate::load::{Recorder, ask};

const TO_ENVOY: &str = "10.96.0.20";
const TO_OUTRIGGER: &str = "10.96.0.21";

fn service(name: &str, address: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\nspec:\n  clusterIP: {address}\n  \
         selector: {{app: {name}}}\n  ports: [{{name: http, port: 80, targetPort: 9080}}]\n"
    )
}

fn limit(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: outrigger.dev/v1alpha1\nkind: RateLimit\nmetadata: {{name: {name}, namespace: default}}\nspec: \
         {{{spec}}}\n---\n"
    )
}

struct Bench {
    one: Workload,
    two: Workload,
    envoy: Workload,
    outrigger: Workload,
    mesh: Mesh,
}

/// With limits in force from the start: connections that exist keep to what they began with.
fn bench(limits: &str) -> Bench {
    let flags = ["--ratelimit-service", &format!("{CONTROL}:15012")];
    let mut mesh = Mesh::start_with(&[(TO_ENVOY, "envoy"), (TO_OUTRIGGER, "outrigger")], &flags);
    mesh.apply("one.yaml", &service("envoy", TO_ENVOY));
    mesh.apply("two.yaml", &service("outrigger", TO_OUTRIGGER));
    mesh.apply("strict.yaml", STRICT);
    mesh.apply("limits.yaml", limits);
    let one = mesh.workload("one", &[("app", "one")]);
    let two = mesh.workload("two", &[("app", "two")]);
    let envoy = mesh.envoy_workload("envoy", &[("app", "envoy")], true);
    let outrigger = mesh.workload_with("outrigger", &[("app", "outrigger")], &["--concurrency", "2"]);
    mesh.settle();
    Bench { one, two, envoy, outrigger, mesh }
}

/// Status and lower-case head of one answer.
fn curl(from: &Workload, url: &str, options: &str) -> (u16, String) {
    let head = from.pod.sh(&format!("curl -sS -m 20 -o /dev/null -D - {options} {url}")).to_ascii_lowercase();
    let status = head.split_whitespace().nth(1).and_then(|s| s.parse().ok()).unwrap_or_else(|| panic!("{head}"));
    (status, head)
}

#[test]
fn a_global_limit_by_identity_is_exact_and_not_to_be_spoofed() {
    need!("ip", "curl", "envoy");
    let by_caller = "scope: global, key: [{sourceIdentity: {}}], rate: {requests: 5, per: day}, match: {path: {prefix: \
                     /counted}}, response: {headers: true}, global: {timeout: 5s, failureMode: deny}";
    let dry = "scope: global, mode: dry-run, key: [{sourceIdentity: {}}], rate: {requests: 3, per: day}, match: {path: \
               {exact: /dry}}, global: {timeout: 5s}";
    let mut bench = bench(&(limit("by-caller", by_caller) + &limit("dry", dry)));
    for (server, name) in [(&bench.envoy, "envoy"), (&bench.outrigger, "outrigger")] {
        let application = Recorder::start(&server.pod, 9080);
        let url = |path: &str| format!("http://{name}{path}");
        let statuses = |from: &Workload, options: &str| -> Vec<u16> {
            (0..7).map(|_| curl(from, &url("/counted/x?q"), options).0).collect()
        };
        // The limit is one for both services: the object selects both. The first takes all of it.
        let wanted: &[u16] =
            if name == "envoy" { &[200, 200, 200, 200, 200, 429, 429] } else { &[429, 429, 429, 429, 429, 429, 429] };
        assert_eq!(statuses(&bench.one, ""), wanted, "{name}");
        let spoofed = "-H 'x-outrigger-limit-identity: spiffe://cluster.local/ns/default/sa/somebody'";
        assert_eq!(statuses(&bench.one, spoofed), [429; 7], "{name}: a header is no identity");
        let (status, head) = curl(&bench.one, &url("/counted/y"), "");
        assert_eq!(status, 429);
        assert!(head.contains("retry-after: ") && head.contains("x-ratelimit-limit: 5, 5;w=86400"), "{name}: {head}");
        assert!(head.contains("x-ratelimit-remaining: 0"), "{name}: {head}");
        assert_eq!(curl(&bench.one, &url("/other"), "").0, 200, "{name}: nothing counts there");
        if name == "envoy" {
            assert_eq!(curl(&bench.two, &url("/counted/x"), "").0, 200, "the other caller has its own");
        }
        let dry: Vec<u16> = (0..8).map(|_| curl(&bench.two, &url("/dry"), "").0).collect();
        assert_eq!(dry, [200; 8], "{name}");
        let heads = application.heads();
        assert!(!heads.is_empty() && heads.iter().all(|head| !head.contains("x-outrigger-limit")), "{heads:?}");
    }
    let status = bench.mesh.status();
    let rules = &status["rate_limits"]["rules"];
    assert_eq!(rules["default/dry"], serde_json::json!({"ok": 3, "over_limit": 0, "would_deny": 13}), "{status:#}");
    assert_eq!(rules["default/by-caller"]["ok"], 6, "{rules:#}");
    let metrics = bench.mesh.control_pod().sh("curl -sS http://127.0.0.1:15014/metrics");
    let line = "outrigger_ratelimit_decisions_total{rule=\"default/dry\",result=\"would_deny\"} 13\n";
    assert!(metrics.contains(line), "{metrics}");
    let (_, table) = bench.mesh.ctl("status");
    assert!(table.contains("default/by-caller"), "{table}");
    for workload in [&mut bench.one, &mut bench.two, &mut bench.envoy, &mut bench.outrigger] {
        workload.assert_sound();
    }
    bench.mesh.assert_no_refusals();
}

#[test]
fn a_local_limit_is_exact_over_all_workers() {
    need!("ip", "curl", "envoy");
    let whole = "scope: local, match: {path: {exact: /}}, rate: {requests: 60, per: day}";
    let keyed = "scope: local, key: [{header: x-user}, {path: {}}], match: {path: {prefix: /keyed}}, rate: {requests: 2, \
                 per: day}";
    let bench = bench(&(limit("whole", whole) + &limit("keyed", keyed)));
    for (server, name, address) in [(&bench.envoy, "envoy", TO_ENVOY), (&bench.outrigger, "outrigger", TO_OUTRIGGER)] {
        let _application = Recorder::start(&server.pod, 9080);
        let user = |user: &str, path: &str| -> Vec<u16> {
            let options = if user.is_empty() { String::new() } else { format!("-H 'x-user: {user}'") };
            (0..3).map(|_| curl(&bench.one, &format!("http://{name}{path}"), &options).0).collect()
        };
        for (who, path) in [("a", "/keyed/1?x=1"), ("b", "/keyed/1"), ("a", "/keyed/2"), ("", "/keyed/1")] {
            assert_eq!(user(who, path), [200, 200, 429], "{name} {who} {path}");
        }
        assert_eq!(user("a", "/keyed/1?x=2"), [429; 3], "{name}: a query is no other path");
        let to = format!("{address}:80").parse().unwrap();
        let tally = ask(&bench.two.pod, (name, to), 8, 300);
        assert_eq!((tally.admitted, tally.other), (60, 0), "{name}: {tally:?}");
    }
    bench.mesh.assert_no_refusals();
}

//! The files of `deploy/observability`, and what promtool says of them and of the proxy's metrics.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use outrigger_tests::Workload;
use serde_json::Value;

use super::scrape;

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/observability")
}

pub(crate) fn file(name: &str) -> String {
    std::fs::read_to_string(dir().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn promtool(arguments: &[&str], input: &str) -> (bool, String) {
    let mut child = Command::new("promtool")
        .args(arguments)
        .current_dir(dir().join("prometheus"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// Configurations, rules and the rules' own tests.
pub(crate) fn files_are_sound() {
    let (ok, text) = promtool(&["check", "config", "prometheus.yml"], "");
    assert!(ok, "{text}");
    let (ok, text) = promtool(&["test", "rules", "rules_test.yml"], "");
    assert!(ok, "{text}");
    // Debian builds Prometheus without Kubernetes: everything but that is checked.
    let discovery = "  kubernetes_sd_configs:\n  - role: pod\n";
    let config = file("prometheus/kubernetes.yml");
    assert!(config.contains(discovery), "{config}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kubernetes.yml");
    std::fs::write(&path, config.replace(discovery, "")).unwrap();
    std::fs::write(folder.path().join("rules.yml"), file("prometheus/rules.yml")).unwrap();
    let (ok, text) = promtool(&["check", "config", &path.display().to_string()], "");
    assert!(ok, "{text}");
}

/// The queries of the dashboard, as Grafana would send them with everything selected; and some of Istio's own.
pub(crate) fn queries() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&file("grafana/outrigger.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().cloned().unwrap_or_default());
    let mut queries: Vec<String> = targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect();
    assert!(queries.len() > 30, "{queries:?}");
    queries.extend(ISTIO.iter().map(|query| (*query).to_owned()));
    let variables = [("$__rate_interval", "30s"), ("$workload", ".*"), ("$service", ".*")];
    let whole =
        queries.into_iter().map(|query| variables.iter().fold(query, |q, (name, value)| q.replace(name, value)));
    let whole: Vec<String> = whole.collect();
    assert!(whole.iter().all(|query| !query.contains('$')), "{whole:?}");
    whole
}

/// In the shape of Istio's mesh, service and workload dashboards.
const ISTIO: &[&str] = &[
    "round(sum(irate(istio_requests_total{reporter=~\"source|destination\"}[30s])), 0.01)",
    "sum(irate(istio_requests_total{reporter=\"destination\",destination_service=~\"app.default.svc.cluster.local\",\
     response_code!~\"5.*\"}[30s])) / sum(irate(istio_requests_total{reporter=\"destination\",\
     destination_service=~\"app.default.svc.cluster.local\"}[30s]))",
    "histogram_quantile(0.50, sum(irate(istio_request_duration_milliseconds_bucket{reporter=\"source\",\
     destination_service=~\"app.default.svc.cluster.local\"}[30s])) by (le))",
    "sum(irate(istio_requests_total{connection_security_policy=\"mutual_tls\",\
     destination_service=~\"app.default.svc.cluster.local\",reporter=\"destination\"}[30s])) by \
     (source_workload, source_workload_namespace, response_code)",
    "label_join((sum(rate(istio_requests_total{reporter=\"source\",response_code=\"200\"}[30s])) by \
     (destination_workload, destination_workload_namespace, destination_service)), \"destination_workload_var\", \".\", \
     \"destination_workload\", \"destination_workload_namespace\")",
    "sum by (destination_workload_namespace) (rate(istio_tcp_received_bytes_total{reporter=\"source\"}[30s]))",
    "sum(istio_build{component=\"proxy\"}) by (tag)",
];

/// Names that Envoy and Istio chose against Prometheus' advice; of nothing else may promtool complain.
fn is_of_the_name(complaint: &str) -> bool {
    let theirs = complaint.starts_with("envoy_") || complaint.starts_with("istio_");
    let of_names = [
        "counter metrics should have \"_total\" suffix",
        "non-counter metrics should not have \"_total\" suffix",
        "use base unit",
        "metric names should not contain abbreviated units",
    ];
    theirs && of_names.iter().any(|part| complaint.contains(part))
}

/// The metrics of both Pods, in both formats.
pub(crate) fn exposition_is_clean(client: &Workload, server: &Workload) {
    for workload in [client, server] {
        let text = scrape(workload, "text/plain");
        for wanted in ["istio_requests_total{", "envoy_cluster_upstream_rq_time_bucket{", "envoy_server_live 1"] {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
        let (_, complaints) = promtool(&["check", "metrics"], &text);
        let bad: Vec<&str> = complaints.lines().filter(|line| !line.is_empty() && !is_of_the_name(line)).collect();
        assert!(bad.is_empty(), "{bad:#?}");
    }
    let text = scrape(client, "application/openmetrics-text;version=1.0.0");
    assert!(text.ends_with("\n# EOF\n") && text.contains("# TYPE istio_requests counter\n"), "{text}");
}

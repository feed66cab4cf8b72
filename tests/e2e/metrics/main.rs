//! A real Prometheus scrapes a live pair of Pods: what `deploy/observability` ships has to work on it as it is.

#![allow(clippy::unwrap_used)]

mod prometheus;
mod shipped;

use outrigger_tests::{
    Mesh, Process, Workload,
    mesh::bin,
    missing,
    pair::{SERVICE4, STRICT, service},
    until,
};
use serde_json::Value;

use self::prometheus::Prometheus;

/// Requests of the test that are answered.
const REQUESTS: u64 = 40;

/// Of those that are not.
const REFUSED: u64 = 5;

/// A service of no Pod.
const GONE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: gone, namespace: default}\nspec:\n  clusterIP: \
                    10.96.0.99\n  selector: {app: gone}\n  ports:\n  - {name: http, port: 80}\n";

const FLAGS: &[&str] = &["--metrics-address", "[::]:15020", "--workload-name", "caller"];
const SERVER_FLAGS: &[&str] = &["--metrics-address", "[::]:15020", "--prometheus-scrape", "--prometheus-port", "9102"];

struct Stage {
    client: Workload,
    server: Workload,
    prometheus: Prometheus,
    applications: Vec<Process>,
    mesh: Mesh,
}

impl Stage {
    fn new() -> Self {
        let address = SERVICE4.to_string();
        let mut mesh = Mesh::start(&[(address.as_str(), "app"), ("10.96.0.99", "gone")]);
        mesh.apply("services.yaml", &service("app", "server", &[("http", 80, 8080), ("tcp-echo", 90, 9090)]));
        mesh.apply("gone.yaml", GONE);
        mesh.apply("strict.yaml", STRICT);
        let client = mesh.workload_with("client", &[("app", "client"), ("version", "v7")], FLAGS);
        let server = mesh.workload_with("server", &[("app", "server")], SERVER_FLAGS);
        mesh.settle();
        let start = |name: &str, program: &str, arguments: &[&str]| {
            let mut command = server.pod.command(bin(program));
            command.args(arguments);
            Process::spawn(name, command, mesh.dir())
        };
        let applications = vec![
            start("http", "outrigger-demo-app", &["http", "0.0.0.0:8080", "app", "v1"]),
            start("greet", "outrigger-demo-app", &["greet", "0.0.0.0:9090", "hello"]),
            Self::metrics(&server, &mesh),
        ];
        let targets = [&client, &server].map(|workload| format!("{}:15020", workload.pod.ip4));
        let prometheus = Prometheus::start(&mut mesh, &targets);
        Self { client, server, prometheus, applications, mesh }
    }

    /// What the application has to say.
    fn metrics(server: &Workload, mesh: &Mesh) -> Process {
        let dir = mesh.dir().join("application");
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(
            dir.join("metrics"),
            "# HELP app_orders_total Orders.\n# TYPE app_orders_total counter\napp_orders_total 42\n",
        )
        .unwrap();
        let mut command = server.pod.command("python3");
        command.args(["-m", "http.server", "9102", "--bind", "127.0.0.1", "--directory"]).arg(dir);
        Process::spawn("application-metrics", command, mesh.dir())
    }

    fn get(&self, url: &str, count: u64, status: &str) {
        for _ in 0..count {
            let line = format!("curl -sS -m 20 -o /dev/null -w '%{{http_code}}' {url}");
            let (_, text) = self.client.pod.try_sh(&line);
            assert_eq!(text, status, "{url}");
        }
    }

    fn echo(&self) {
        let line =
            "printf 'four\\n' | timeout 20 bash -c 'exec 3<>/dev/tcp/app/90; head -c 7 <&3; cat >&3; head -c 5 <&3'";
        let (_, text) = self.client.pod.try_sh(line);
        assert!(text.starts_with("hello"), "{text}");
    }

    /// Traffic of every kind that the dashboard shows.
    fn traffic(&self) {
        until("an answer", || self.client.pod.try_sh("curl -sSf -m 5 http://app/warm").0);
        self.get("http://app/a", REQUESTS, "200");
        self.get("http://gone/", REFUSED, "503");
        self.echo();
    }
}

/// What curl gets of a proxy's metrics.
fn scrape(workload: &Workload, accept: &str) -> String {
    workload.pod.sh(&format!("curl -sSf -m 20 -H 'accept: {accept}' http://127.0.0.1:15020/stats/prometheus"))
}

#[test]
fn a_prometheus_scrapes_a_pair_of_pods() {
    if let Some(reason) = missing(&["prometheus", "promtool", "python3", "curl"]) {
        assert!(std::env::var_os("OUTRIGGER_REQUIRE_PEERS").is_none(), "{reason}");
        return eprintln!("skipped: {reason}");
    }
    shipped::files_are_sound();
    let mut stage = Stage::new();
    stage.traffic();
    requests_are_counted_once_on_each_side(&stage);
    connections_are_counted(&stage);
    shipped::exposition_is_clean(&stage.client, &stage.server);
    // Rates need two scrapes, and somebody who goes on calling.
    for query in shipped::queries() {
        stage.prometheus.has_data(&query, || stage.traffic());
    }
    stage.prometheus.rules_work();
    the_applications_part_comes_and_goes(&mut stage);
    stage.client.assert_sound();
    stage.server.assert_sound();
    stage.mesh.assert_no_refusals();
}

fn requests_are_counted_once_on_each_side(stage: &Stage) {
    let sum = |labels: &str| stage.prometheus.eventually(&format!("sum(istio_requests_total{{{labels}}})"));
    let answered = (REQUESTS + 1) as f64;
    let source = "reporter=\"source\",response_code=\"200\",destination_service=\"app.default.svc.cluster.local\"";
    let seen = until_value(|| sum(source), answered);
    assert_eq!(seen, answered, "by the client");
    let destination = "reporter=\"destination\",response_code=\"200\",connection_security_policy=\"mutual_tls\"";
    assert_eq!(until_value(|| sum(destination), answered), answered, "by the server");
    let gone = "reporter=\"source\",response_code=\"503\",response_flags=\"UH\",destination_service_name=\"gone\"";
    assert_eq!(until_value(|| sum(gone), REFUSED as f64), REFUSED as f64);
    let series = |query: &str| stage.prometheus.query(query).pop().unwrap()["metric"].clone();
    let of_client = series(&format!("istio_requests_total{{{source}}}"));
    for (label, value) in [
        ("source_workload", "caller"),
        ("source_app", "client"),
        ("source_version", "v7"),
        ("source_workload_namespace", "default"),
        ("source_principal", "spiffe://cluster.local/ns/default/sa/client"),
        ("destination_workload", "server"),
        ("destination_canonical_service", "server"),
        ("destination_principal", "spiffe://cluster.local/ns/default/sa/server"),
        ("destination_service_name", "app"),
        ("destination_service_namespace", "default"),
        ("request_protocol", "http"),
        ("response_flags", "-"),
    ] {
        assert_eq!(of_client[label], value, "{label}: {of_client:#}");
    }
    let of_server = series(&format!("istio_requests_total{{{destination}}}"));
    for (label, value) in [
        ("source_principal", "spiffe://cluster.local/ns/default/sa/client"),
        ("source_workload", "unknown"),
        ("source_workload_namespace", "default"),
        ("destination_workload", "server"),
        ("destination_service", "app.default.svc.cluster.local"),
        ("destination_principal", "spiffe://cluster.local/ns/default/sa/server"),
    ] {
        assert_eq!(of_server[label], value, "{label}: {of_server:#}");
    }
    let count = format!("sum(istio_request_duration_milliseconds_count{{{source}}})");
    assert_eq!(stage.prometheus.value(&count), Some(answered));
}

fn connections_are_counted(stage: &Stage) {
    for reporter in ["source", "destination"] {
        let of = |metric: &str| {
            let labels = format!("reporter=\"{reporter}\",destination_service_name=\"app\"");
            stage.prometheus.value(&format!("sum({metric}{{{labels}}})")).unwrap_or(0.0)
        };
        until_value(|| of("istio_tcp_connections_closed_total"), 1.0);
        let wanted = [
            ("istio_tcp_connections_opened_total", 1.0),
            ("istio_tcp_connections_closed_total", 1.0),
            ("istio_tcp_received_bytes_total", 5.0),
            ("istio_tcp_sent_bytes_total", 12.0),
        ];
        for (metric, value) in wanted {
            assert_eq!(of(metric), value, "{reporter} {metric}");
        }
    }
}

/// Asks until a value is reached; the last answer if it never is.
fn until_value(mut ask: impl FnMut() -> f64, wanted: f64) -> f64 {
    until("the value of a metric", || ask() >= wanted);
    ask()
}

fn the_applications_part_comes_and_goes(stage: &mut Stage) {
    assert_eq!(stage.prometheus.eventually("app_orders_total"), 42.0);
    let text = scrape(&stage.server, "application/openmetrics-text;version=1.0.0");
    assert!(!text.contains("# EOF") && text.contains("istio_build"), "in the format of the application: {text}");
    stage.applications.pop().unwrap().stop();
    let text = scrape(&stage.server, "text/plain");
    assert!(!text.contains("app_orders_total") && text.contains("istio_requests_total"), "{text}");
    assert!(!text.contains("outrigger_application_scrape_failures_total 0\n"), "{text}");
    let text = scrape(&stage.server, "application/openmetrics-text;version=1.0.0");
    assert!(text.ends_with("# EOF\n"), "{text}");
    let up: Vec<Value> = stage.prometheus.query("up == 1");
    assert_eq!(up.len(), 2, "both go on being scraped: {up:?}");
}

//! A Prometheus outside the mesh, with the shipped configuration but for its intervals.

use outrigger_tests::{Mesh, Pod, Process, eventually};
use serde_json::Value;

use super::shipped::file;

pub(crate) struct Prometheus {
    pod: Pod,
    _process: Process,
}

impl Prometheus {
    pub(crate) fn start(mesh: &mut Mesh, targets: &[String]) -> Self {
        let pod = mesh.outsider("prometheus");
        let dir = mesh.dir().join("prometheus");
        std::fs::create_dir_all(dir.join("targets")).unwrap();
        let config = file("prometheus/prometheus.yml").replace(": 15s", ": 1s");
        std::fs::write(dir.join("prometheus.yml"), config).unwrap();
        std::fs::write(dir.join("rules.yml"), file("prometheus/rules.yml")).unwrap();
        let list: String = targets.iter().map(|target| format!("  - '{target}'\n")).collect();
        std::fs::write(dir.join("targets/pods.yml"), format!("- targets:\n{list}")).unwrap();
        let mut command = pod.command("prometheus");
        command
            .arg("--config.file")
            .arg(dir.join("prometheus.yml"))
            .arg("--storage.tsdb.path")
            .arg(dir.join("data"))
            .args(["--web.listen-address", "127.0.0.1:9090"]);
        let process = Process::spawn("prometheus", command, mesh.dir());
        let prometheus = Self { pod, _process: process };
        eventually("both targets of Prometheus", || {
            let up = prometheus.query("up == 1");
            if up.len() == targets.len() { Ok(()) } else { Err(prometheus.targets()) }
        });
        prometheus
    }

    fn get(&self, path: &str, query: Option<&str>) -> Result<Value, String> {
        let mut command = self.pod.command("curl");
        command.args(["-sS", "-m", "20", "-G", &format!("http://127.0.0.1:9090/api/v1/{path}")]);
        if let Some(query) = query {
            command.args(["--data-urlencode", &format!("query={query}")]);
        }
        let output = command.output().map_err(|e| e.to_string())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        serde_json::from_str(&text).map_err(|e| format!("{e}: {text}"))
    }

    fn targets(&self) -> String {
        self.get("targets", None).map_or_else(|e| e, |targets| format!("{:#}", targets["data"]["activeTargets"]))
    }

    /// The series of an instant query.
    pub(crate) fn query(&self, query: &str) -> Vec<Value> {
        let Ok(answer) = self.get("query", Some(query)) else { return Vec::new() };
        assert_eq!(answer["status"], "success", "{query}: {answer:#}");
        answer["data"]["result"].as_array().cloned().unwrap_or_default()
    }

    /// The value of a query for one series.
    pub(crate) fn value(&self, query: &str) -> Option<f64> {
        self.query(query).first().and_then(value)
    }

    /// As [`Self::value`], waiting until there is one.
    pub(crate) fn eventually(&self, query: &str) -> f64 {
        eventually(query, || self.value(query).ok_or_else(|| "no data".to_owned()))
    }

    /// Waits until a query has a number to show; calls `more` between the tries.
    pub(crate) fn has_data(&self, query: &str, more: impl Fn()) {
        eventually(query, || {
            let series = self.query(query);
            if series.iter().filter_map(value).any(f64::is_finite) {
                return Ok(());
            }
            more();
            Err(format!("{series:?}"))
        });
    }

    /// Every rule is evaluated without error, every recorded one has data.
    pub(crate) fn rules_work(&self) {
        let rules = eventually("evaluated rules", || {
            let answer = self.get("rules", None)?;
            let groups = answer["data"]["groups"].as_array().cloned().unwrap_or_default();
            let rules: Vec<Value> =
                groups.iter().flat_map(|g| g["rules"].as_array().cloned().unwrap_or_default()).collect();
            let all = !rules.is_empty() && rules.iter().all(|rule| rule["health"] == "ok");
            if all { Ok(rules) } else { Err(format!("{answer:#}")) }
        });
        assert!(rules.len() >= 10, "{rules:#?}");
        for rule in rules.iter().filter(|rule| rule["type"] == "recording") {
            let name = rule["name"].as_str().unwrap();
            self.has_data(name, || ());
        }
        let firing: Vec<&Value> = rules.iter().filter(|r| r["state"] == "firing").map(|r| &r["name"]).collect();
        assert!(firing.is_empty(), "nothing is wrong here: {firing:?}");
    }
}

fn value(series: &Value) -> Option<f64> {
    series["value"][1].as_str()?.parse().ok()
}

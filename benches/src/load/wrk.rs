//! wrk: closed-loop HTTP/1.1 on kept or new connections. Good for throughput and CPU per request, blind for stalls.

use std::time::Duration;

use anyhow::Context as _;
use outrigger_tests::Pod;
use serde::Deserialize;

use super::{PERCENTILES, Seen, output};
use crate::rig::HOST;

/// Prints what it measured as one line of JSON.
const SCRIPT: &str = r#"
function done(summary, latency, requests)
  local curve = {}
  for word in string.gmatch("@PERCENTILES@", "%S+") do
    local p = tonumber(word)
    local value = p <= 0 and latency.min or p >= 100 and latency.max or latency:percentile(p)
    curve[#curve + 1] = string.format("[%s,%.3f]", word, value)
  end
  local e = summary.errors
  print(string.format('RESULT {"requests":%d,"failed":%d,"micros":%d,"curve":[%s]}', summary.requests,
    e.connect + e.read + e.write + e.status + e.timeout, summary.duration, table.concat(curve, ",")))
end
"#;

#[derive(Deserialize)]
struct Line {
    requests: u64,
    failed: u64,
    micros: u64,
    curve: Vec<(f64, f64)>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) connections: usize,
    pub(crate) length: Duration,
    /// `Connection: close` on each request.
    pub(crate) new_connections: bool,
}

pub(crate) fn run(pod: &Pod, url: &str, load: Load) -> anyhow::Result<Seen> {
    let script = pod.dir().join("wrk.lua");
    let percentiles = PERCENTILES.map(|p| p.to_string()).join(" ");
    std::fs::write(&script, SCRIPT.replace("@PERCENTILES@", &percentiles))?;
    let mut command = pod.command("wrk");
    let seconds = load.length.as_secs().max(1);
    command.args(["-t1", &format!("-c{}", load.connections), &format!("-d{seconds}s"), "--timeout", "10s"]);
    command.args(["-H", &format!("Host: {HOST}")]);
    if load.new_connections {
        command.args(["-H", "Connection: close"]);
    }
    command.arg("-s").arg(script).arg(url);
    read(&output(command, "wrk")?)
}

fn read(text: &str) -> anyhow::Result<Seen> {
    let line = text.lines().find_map(|l| l.strip_prefix("RESULT ")).context("wrk printed no result")?;
    let line: Line = serde_json::from_str(line).with_context(|| line.to_owned())?;
    let mut seen = Seen {
        completed: line.requests.saturating_sub(line.failed),
        failed: line.failed,
        took: Duration::from_micros(line.micros),
        curve: line.curve,
    };
    seen.curve.retain(|(p, _)| *p >= 100.0 || line.requests as f64 * (100.0 - p) / 100.0 >= 1.0);
    Ok(seen)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_result_line_is_found_among_others() {
        let text = "Running 1s test\nRESULT {\"requests\":1000,\"failed\":2,\"micros\":1000100,\"curve\":[[50,10.5],[99.99,70.0],[100,80.0]]}\n";
        let seen = super::read(text).unwrap();
        assert_eq!((seen.completed, seen.failed), (998, 2));
        // A thousand requests say nothing of one in ten thousand.
        assert_eq!(seen.curve, [(50.0, 10.5), (100.0, 80.0)]);
        assert!(super::read("unable to connect").is_err());
    }
}

//! h2load: HTTP/2 with prior knowledge, here for gRPC calls. Latencies come from its log of single requests.

use std::time::Duration;

use anyhow::{Context as _, bail};
use outrigger_tests::Pod;

use super::{Seen, curve, output};
use crate::{drive, rig::HOST};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) connections: usize,
    /// Concurrent streams on each connection.
    pub(crate) streams: usize,
    pub(crate) length: Duration,
}

/// Unary gRPC calls.
pub(crate) fn run(pod: &Pod, target: std::net::SocketAddr, load: Load) -> anyhow::Result<Seen> {
    let (body, log) = (pod.dir().join("grpc-message"), pod.dir().join(format!("{}.h2load", pod.name)));
    std::fs::write(&body, drive::grpc::message())?;
    let _ = std::fs::remove_file(&log);
    let mut command = pod.command("h2load");
    command.args(["-t1", &format!("-c{}", load.connections), &format!("-m{}", load.streams)]);
    command.arg(format!("-D{}", load.length.as_secs().max(1))).arg("-d").arg(&body);
    command.args(["-H", "content-type: application/grpc", "-H", "te: trailers", "-H", &format!(":authority: {HOST}")]);
    command.arg("--log-file").arg(&log).arg(format!("http://{target}/bench.Echo/Unary"));
    let text = output(command, "h2load")?;
    let lines = std::fs::read_to_string(&log).context("h2load wrote no log")?;
    let _ = std::fs::remove_file(&log);
    let mut seen = read(&text, &lines)?;
    seen.took = load.length;
    Ok(seen)
}

/// `lines`: start, status, microseconds of each request.
fn read(text: &str, lines: &str) -> anyhow::Result<Seen> {
    let mut histogram = drive::histogram();
    let (mut completed, mut failed) = (0, 0);
    for line in lines.lines() {
        let mut fields = line.split('\t').skip(1);
        let (status, time) = (fields.next().unwrap_or_default(), fields.next().and_then(|t| t.parse().ok()));
        match (status, time) {
            ("200", Some(time)) => {
                completed += 1;
                histogram.saturating_record(time);
            }
            _ => failed += 1,
        }
    }
    if completed == 0 {
        bail!("h2load completed nothing: {}", text.lines().rev().take(8).collect::<Vec<_>>().join(" | "));
    }
    Ok(Seen { completed, failed, took: Duration::ZERO, curve: curve(&histogram) })
}

#[cfg(test)]
mod tests {
    #[test]
    fn failures_are_told_from_answers() {
        let seen = super::read("", "1\t200\t300\n2\t503\t9\n3\t-1\t4\n4\t200\t500\n").unwrap();
        assert_eq!((seen.completed, seen.failed), (2, 2));
        assert_eq!(seen.curve.last(), Some(&(100.0, 500.0)));
        assert!(super::read("all failed", "1\t503\t3\n").is_err());
    }
}

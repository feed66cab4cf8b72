//! Looks at the processes every ten seconds, scrapes their metrics every fifteen, and turns the access log over.

use std::{
    fmt::Write as _,
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use outrigger_tests::Pod;

use super::{stage::Stage, wait};
use crate::account::Usage;

const EVERY: Duration = Duration::from_secs(10);
const SCRAPE_EVERY: Duration = Duration::from_secs(15);
const ROTATE_EVERY: Duration = Duration::from_secs(60);

/// A process that is watched.
#[derive(Clone)]
pub(super) struct Subject {
    pub(super) name: String,
    pid: u32,
    pod: Pod,
    proxy: bool,
}

/// One look at one process.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Look {
    pub(super) seconds: f64,
    pub(super) rss_kb: u64,
    pub(super) pss_kb: u64,
    pub(super) fds: u64,
    pub(super) threads: u64,
    /// Of the downstream side; streams of configuration for the control plane.
    pub(super) connections: u64,
    pub(super) upstream: u64,
    pub(super) requests: u64,
    /// Of Istio's metrics; lines of all metrics for the control plane.
    pub(super) series: u64,
    pub(super) allocated_kb: u64,
    pub(super) heap_kb: u64,
    pub(super) renewals: u64,
    pub(super) panics: u64,
    /// Seconds since its start.
    pub(super) cpu: f64,
}

/// All that was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) looks: Vec<(String, Vec<Look>)>,
    pub(super) scrapes: u64,
    pub(super) failed_scrapes: u64,
    pub(super) log_lines: u64,
    /// Lines that are no JSON object.
    pub(super) broken_lines: u64,
}

pub(super) fn subjects(stage: &mut Stage) -> Vec<Subject> {
    let control = Subject {
        name: "control".into(),
        pid: stage.mesh.control().pid(),
        pod: stage.mesh.control_pod().clone(),
        proxy: false,
    };
    let proxy = |w: &outrigger_tests::Workload| Subject {
        name: w.pod.name.clone(),
        pid: w.proxy.pid(),
        pod: w.pod.clone(),
        proxy: true,
    };
    stage.workloads().into_iter().map(proxy).chain([control]).collect()
}

impl Subject {
    fn look(&self, since: Instant) -> Look {
        let file = |name: &str| std::fs::read_to_string(format!("/proc/{}/{name}", self.pid)).unwrap_or_default();
        let (status, rollup) = (file("status"), file("smaps_rollup"));
        let mut look = Look {
            seconds: since.elapsed().as_secs_f64(),
            rss_kb: field(&status, "VmRSS:"),
            pss_kb: field(&rollup, "Pss:"),
            threads: field(&status, "Threads:"),
            fds: std::fs::read_dir(format!("/proc/{}/fd", self.pid)).map_or(0, |all| all.count() as u64),
            cpu: Usage::of(&[self.pid]).cpu(),
            ..Look::default()
        };
        if !self.proxy {
            let metrics = self.get(15014, "/metrics");
            look.series = metrics.lines().filter(|line| !line.starts_with('#')).count() as u64;
            return look;
        }
        let stats = self.get(15000, "/stats");
        let sum = |end: &str| {
            let values = stats.lines().filter_map(|line| line.split_once(": ")).filter(|(name, _)| name.ends_with(end));
            values.filter_map(|(_, value)| value.parse::<u64>().ok()).sum()
        };
        look.connections = sum("server.total_connections");
        look.upstream = sum(".upstream_cx_active");
        look.requests = sum(".downstream_rq_active");
        look.renewals = sum("server.cert_renewals");
        look.panics = sum("server.panics");
        look.series = sum("metric_series");
        let memory: serde_json::Value = serde_json::from_str(&self.get(15000, "/memory")).unwrap_or_default();
        let kilobytes = |key: &str| memory[key].as_str().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) / 1024;
        look.allocated_kb = kilobytes("allocated");
        look.heap_kb = kilobytes("heap_size");
        look
    }

    fn get(&self, port: u16, path: &str) -> String {
        let (ok, text) = self.pod.try_sh(&format!("curl -sS -m 8 http://127.0.0.1:{port}{path}"));
        if ok { text } else { String::new() }
    }

    fn scrape(&self) -> bool {
        let (port, path) = if self.proxy { (15020, "/stats/prometheus") } else { (15014, "/metrics") };
        !self.get(port, path).is_empty()
    }
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Watches until it is over and writes every look into `csv`.
pub(super) fn run(
    subjects: &[Subject],
    (log, csv): (&Path, &Path),
    report: &mut dyn FnMut(&Seen),
    over: &dyn Fn() -> bool,
) -> anyhow::Result<Seen> {
    let started = Instant::now();
    let mut file = File::create(csv).with_context(|| csv.display().to_string())?;
    writeln!(file, "{HEAD}")?;
    let mut seen = Seen { looks: subjects.iter().map(|s| (s.name.clone(), Vec::new())).collect(), ..Seen::default() };
    let (mut look, mut scrape, mut rotate) = (started, started + SCRAPE_EVERY, started + ROTATE_EVERY);
    while !over() {
        let now = Instant::now();
        if now >= look {
            look += EVERY;
            for (subject, (_, looks)) in subjects.iter().zip(&mut seen.looks) {
                let found = subject.look(started);
                writeln!(file, "{}", line(&subject.name, &found))?;
                looks.push(found);
            }
            report(&seen);
        }
        if now >= scrape {
            scrape += SCRAPE_EVERY;
            let good = subjects.iter().filter(|subject| subject.scrape()).count();
            seen.scrapes += good as u64;
            seen.failed_scrapes += (subjects.len() - good) as u64;
        }
        if now >= rotate {
            rotate += ROTATE_EVERY;
            turn_over(subjects, log, &mut seen)?;
        }
        wait(Duration::from_millis(500), over);
    }
    turn_over(subjects, log, &mut seen)?;
    Ok(seen)
}

/// As logrotate does: another name, SIGHUP, and what was written so far is read.
fn turn_over(subjects: &[Subject], log: &Path, seen: &mut Seen) -> anyhow::Result<()> {
    let old = log.with_extension("old");
    if !log.exists() {
        return Ok(());
    }
    std::fs::rename(log, &old)?;
    for subject in subjects.iter().filter(|subject| subject.proxy) {
        kill(Pid::from_raw(subject.pid.try_into()?), Signal::SIGHUP).with_context(|| subject.name.clone())?;
    }
    // Lines under way go to the old file until the proxies have opened the new one.
    wait(Duration::from_secs(2), &|| false);
    let mut lines = BufReader::new(File::open(&old)?);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        seen.log_lines += 1;
        seen.broken_lines += u64::from(!(line.starts_with(b"{") && line.ends_with(b"}\n")));
        line.clear();
    }
    Ok(std::fs::remove_file(old)?)
}

const HEAD: &str = "seconds,process,rss_kb,pss_kb,fds,threads,connections,upstream_connections,requests,series,\
allocated_kb,heap_kb,cert_renewals,panics,cpu_seconds";

fn line(name: &str, look: &Look) -> String {
    let mut line = format!("{:.1},{name}", look.seconds);
    let whole = [
        look.rss_kb,
        look.pss_kb,
        look.fds,
        look.threads,
        look.connections,
        look.upstream,
        look.requests,
        look.series,
        look.allocated_kb,
        look.heap_kb,
        look.renewals,
        look.panics,
    ];
    for value in whole {
        let _ = write!(line, ",{value}");
    }
    let _ = write!(line, ",{:.2}", look.cpu);
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_has_a_value() {
        let text = line("client", &Look { rss_kb: 7, cpu: 1.5, ..Look::default() });
        assert_eq!(text.split(',').count(), HEAD.split(',').count());
        assert!(text.starts_with("0.0,client,7,") && text.ends_with(",1.50"), "{text}");
        assert_eq!(field("VmRSS:\t  12 kB\nThreads:\t3\n", "Threads:"), 3);
    }
}

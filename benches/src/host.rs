//! The machine: what it is, and whether it is fit to measure on.

use std::{collections::BTreeMap, fs, process::Command};

/// Facts for the head of a result.
pub(crate) fn facts() -> BTreeMap<String, String> {
    let mut facts = BTreeMap::new();
    let mut add = |key: &str, value: Option<String>| {
        if let Some(value) = value.filter(|v| !v.is_empty()) {
            facts.insert(key.to_owned(), value);
        }
    };
    let now = time::OffsetDateTime::now_utc().replace_nanosecond(0).ok();
    add("date", now.and_then(|n| n.format(&time::format_description::well_known::Rfc3339).ok()));
    add("kernel", fs::read_to_string("/proc/sys/kernel/osrelease").ok().map(|s| s.trim().to_owned()));
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|l| l.strip_prefix("model name")).map(|l| l.trim_start_matches([' ', '\t', ':']));
    let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    add("cpu", Some(format!("{count} x {}", model.unwrap_or("unknown"))));
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    add("memory", memory.lines().find_map(|l| l.strip_prefix("MemTotal:")).map(|l| l.trim().to_owned()));
    add(
        "load before",
        fs::read_to_string("/proc/loadavg").ok().map(|s| s.split(' ').take(3).collect::<Vec<_>>().join(" ")),
    );
    let governor = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor";
    add("governor", fs::read_to_string(governor).ok().map(|s| s.trim().to_owned()));
    add("commit", said("git", &["describe", "--always", "--dirty"]));
    facts
}

/// Runnable tasks of the last minute, for a warning before and a note after.
pub(crate) fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0.0)
}

/// How busy the machine is since a moment.
pub(crate) struct Busy((u64, u64));

impl Busy {
    pub(crate) fn now() -> Self {
        Self(ticks())
    }

    /// The part of all CPUs' time that was not idle.
    pub(crate) fn share(&self) -> f64 {
        let (busy, all) = ticks();
        let (busy, all) = (busy.saturating_sub(self.0.0), all.saturating_sub(self.0.1));
        if all == 0 { 0.0 } else { busy as f64 / all as f64 }
    }
}

/// Of all CPUs: not idle, and altogether.
fn ticks() -> (u64, u64) {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<u64> = text
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .take(8)
        .filter_map(|n| n.parse().ok())
        .collect();
    let all: u64 = fields.iter().sum();
    // The fourth is idle, the fifth waits for disks.
    (all - fields.iter().skip(3).take(2).sum::<u64>(), all)
}

fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

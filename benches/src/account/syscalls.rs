//! System calls of a process over a stretch of time, counted by strace.

use std::{
    fs::File,
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Runs `work` while strace counts the calls of `pids`; the calls by name, most frequent first.
pub(crate) fn count(pids: &[u32], work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Vec<(String, u64)>> {
    let dir = tempfile()?;
    let mut strace = Command::new("strace");
    strace.args(["-c", "-f", "-U", "calls,name", "-o"]).arg(&dir);
    pids.iter().for_each(|pid| {
        strace.args(["-p", &pid.to_string()]);
    });
    let mut child = strace.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("strace is not installed")?;
    let traced = |pid: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|l| l.starts_with("TracerPid:") && !l.ends_with("\t0"))
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !pids.iter().all(traced) {
        if child.try_wait()?.is_some() || std::time::Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            bail!("strace cannot attach");
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let worked = work();
    kill(Pid::from_raw(child.id().try_into()?), Signal::SIGINT)?;
    child.wait()?;
    worked?;
    let text = std::fs::read_to_string(&dir)?;
    let _ = std::fs::remove_file(&dir);
    Ok(parse(&text))
}

fn tempfile() -> anyhow::Result<std::path::PathBuf> {
    let file = std::env::temp_dir().join(format!("outrigger-strace-{}", std::process::id()));
    File::create(&file)?;
    Ok(file)
}

fn parse(text: &str) -> Vec<(String, u64)> {
    let mut calls: Vec<(String, u64)> = text
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let (count, name) = (fields.next()?.parse().ok()?, fields.next()?);
            (name != "total").then(|| (name.to_owned(), count))
        })
        .collect();
    calls.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    calls
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_table_is_read_without_its_total() {
        let text = "    calls syscall\n--------- ----------------\n       12 read\n       30 writev\n--------- ------\n       42 total\n";
        assert_eq!(super::parse(text), [("writev".to_owned(), 30), ("read".to_owned(), 12)]);
    }
}
